"""The templates of docs/cluster: what a shell and a cluster must find in them; the numbers of the page."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from puna.cli.keys import recipe_keys
from puna.model.config import SIZES, LlamaConfig
from puna.plan import memory
from puna.run.processes import mesh_sizes
from puna.run.settings import ClusterSettings, ExecutionSettings, MeshSettings
from puna.train.settings import TrainSettings
from puna.train.stage import check_layout

DOCS = Path(__file__).parents[1] / "docs"
SLURM, JOBSET = DOCS / "cluster" / "slurm.sh", DOCS / "cluster" / "jobset.yaml"
PAGE = (DOCS / "cluster.md").read_text()


def options(text: str) -> dict[str, str]:
    """What a Slurm script asks of the scheduler."""
    lines = re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.MULTILINE)
    return dict(lines)


def test_the_slurm_script() -> None:
    text = SLURM.read_text()
    subprocess.run(["bash", "-n", SLURM], check=True)
    assert text.startswith("#!/bin/bash\n")
    asked = options(text)
    assert asked["ntasks-per-node"] == "1" and asked["gpus-per-node"] == "8" and "exclusive" in asked
    assert {"requeue", "time", "nodes", "output"} <= asked.keys() and asked["open-mode"] == "append"
    name, seconds = asked["signal"].split("@")
    (shutdown,) = re.findall(r"TORCH_ELASTIC_SHUTDOWN_TIMEOUT=(\d+)", text)
    assert name == "TERM" and 30 < int(shutdown) < int(seconds)
    assert re.search(r"srun .*-m torch\.distributed\.run.*-m puna run \"\$recipe\"", text, re.DOTALL)
    assert 'scontrol requeue "$SLURM_JOB_ID"' in text


def job() -> dict[str, Any]:
    made = yaml.safe_load(JOBSET.read_text())
    assert made["apiVersion"] == "jobset.x-k8s.io/v1alpha2" and made["kind"] == "JobSet"
    return dict(made)


def test_the_jobset() -> None:
    made = job()
    name, spec = made["metadata"]["name"], made["spec"]
    assert spec["failurePolicy"]["maxRestarts"] > 0 and spec["network"]["enableDNSHostnames"] is True
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    (workers,) = spec["replicatedJobs"]
    batch = workers["template"]["spec"]
    pod = batch["template"]["spec"]
    (container,) = pod["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert batch["completionMode"] == "Indexed" and batch["backoffLimit"] == 0
    assert str(batch["completions"]) == str(batch["parallelism"]) == variables["NODES"]
    assert variables["HEAD"] == f"{name}-{workers['name']}-0-0.{name}"
    assert pod["restartPolicy"] == "Never"
    assert int(variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"]
    (failing,) = batch["podFailurePolicy"]["rules"]
    assert failing["action"] == "FailJob" and failing["onExitCodes"]["values"] == [2]
    assert failing["onExitCodes"]["containerName"] == container["name"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert {entry["name"] for entry in pod["volumes"]} == {
        entry["name"] for entry in container["volumeMounts"]
    }
    subprocess.run(["bash", "-n", "-c", container["command"][2]], check=True)


@pytest.mark.parametrize(
    ("ends", "progress", "expected"),
    [
        ("exit 0", False, 0),
        ("exit 1", False, 2),
        ("exit 1", True, 1),
        ("trap 'exit 1' TERM; touch out/begun; while true; do sleep 0.1; done", True, 1),
    ],
    ids=["done", "no further", "further", "stopped"],
)
def test_what_the_shell_of_a_pod_ends_with(tmp_path: Path, ends: str, progress: bool, expected: int) -> None:
    """With a program in the place of Python, which makes a checkpoint or not, and waits to be stopped."""
    (program := tmp_path / "python").write_text(
        "#!/bin/bash\nsleep 0.1\n"
        + ("mkdir -p out/step-1; touch out/step-1/index.json\n" if progress else "")
        + ends + "\n"
    )  # fmt: skip
    program.chmod(0o755)
    container = job()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    variables = {entry["name"]: entry["value"] for entry in container["env"]} | {"OUT": str(tmp_path / "out")}
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    with subprocess.Popen(container["command"], env={**variables, **path}, cwd=tmp_path) as shell:
        if "TERM" in ends:
            while not (tmp_path / "out" / "begun").exists():
                assert shell.poll() is None
            shell.terminate()
        assert shell.wait(20) == expected
    assert not list((tmp_path / "out").glob(".started-*"))


LABS = {
    8: ("7b", MeshSettings(), 4, "llama"),
    64: ("13b", MeshSettings(replicate=8, shard=8), 8, "full"),
    2048: ("65b", MeshSettings(tensor=8), 8, "llama"),
}


def row(name: str) -> list[str]:
    (found,) = (line for line in PAGE.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_what_a_lab_writes_is_allowed_and_takes_what_the_page_says() -> None:
    settings = TrainSettings(steps=350_000, batch_sequences=2048, sequence_length=2048, precision="bfloat16")
    assert "train.batch_sequences = 2048" in PAGE and "train.sequence_length = 2048" in PAGE
    names = ("model", "`cluster.mesh`", "`execution.micro_batch_sequences`", "`execution.remat`", "rows of")
    figures = ("state of", "tensors at", "a checkpoint", "host memory")
    told = zip(*map(row, (*names, *figures)), strict=True)
    for (gpus, (size, mesh, rows, remat)), cells in zip(LABS.items(), told, strict=True):
        model, mesh_cell, micro, policy, per_rank, state, most, saved, host = cells
        config = LlamaConfig(max_seq_len=2048, **SIZES[size])
        replicate, shard, tensor = mesh_sizes(mesh, gpus)
        check_layout(config, settings, tensor)
        written = mesh.model_dump(exclude_defaults=True)
        keys = re.search(r"{(.*?)}", mesh_cell)
        assert keys and {
            part.split(" = ")[0]: part.split(" = ")[1].strip('"') for part in keys[1].split(", ")
        } == ({name: str(value) for name, value in ({"shard": "all"} | written).items()})
        assert model == f'`size = "{size}"`' and micro == f"`{rows}`" and policy == f'`"{remat}"`'
        each = 2048 // (replicate * shard)
        assert per_rank.startswith(f"{each}, in {each // rows}")
        execution = ExecutionSettings(device="cuda", micro_batch_sequences=rows, remat=remat)
        parts, copied = shard * tensor, memory.snapshot_bytes(config, settings)
        assert state == f"{16 * config.parameters() / parts / 1e9:.1f} GB"
        assert most == f"{memory.training_bytes(config, settings, execution, parts, tensor) / 1e9:.1f} GB"
        assert saved == f"{copied / 1e9:.0f} GB"
        assert host.split(" GB")[0] in (f"{copied / parts * 8 / 1e9:.1f}", f"{copied / parts * 8 / 1e9:.0f}")


def test_the_keys_of_the_page_are_keys() -> None:
    known = {key.path for key in recipe_keys()} | {"cluster.mesh"}
    assert set(re.findall(r"`((?:cluster|execution|train)\.[a-z_]+)", PAGE)) <= known
    assert ClusterSettings().time_out_seconds == 600 and "`cluster.time_out_seconds` (600)" in PAGE
