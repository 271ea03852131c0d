"""What a finished run leaves for people and programs beside its artifacts: summary.json and report.html."""

import datetime
import json
from pathlib import Path
from typing import Any

import puna
from puna.corpus.funnel import FUNNEL
from puna.errors import UserError
from puna.run import machine, meter
from puna.run.artifact import Artifact, write_atomically
from puna.run.build import Build, cost

SUMMARY, REPORT, CORPUS = "summary.json", "report.html", "corpus.html"


def write(build: Build, finished: dict[str, Artifact], recipe_text: str) -> dict[str, Any]:
    """Gather the figures of all stages and write both files; the figures."""
    from puna.report import documents, page
    from puna.train import metrics

    recipe, folder = build.recipe.whole(), build.folder
    planned = build.plan()
    costs = {item.stage.name: cost(folder / "logs" / item.folder.name) for item in planned}
    seconds = sum(entry["seconds"] for entry in costs.values())
    metered = all(entry["joules"] > 0 for entry in costs.values())
    speed = metrics.read(folder / "logs" / finished["train"].folder.name / "metrics.jsonl")
    found, scored, trained, sharded = (
        finished[name].metrics for name in ("documents", "scores", "train", "tokens")
    )
    config = recipe.llama_config()
    names = [
        source.name for source in recipe.corpus.sources
    ]  # in the recipe's order; artifacts keep theirs sorted
    trained_on = [name for name in names if name in sharded]
    figures = {
        "recipe": recipe.name,
        "puna": puna.__version__,
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "sources": {
            name: {"steps": {step: found["sources"][name][step] for step in FUNNEL}} for name in names
        },
        **{key: {name: found[key][name] for name in names} for key in ("dropped", "licences", "languages")},
        "documents": sum(steps["kept"]["documents"] for steps in found["sources"].values()),
        "tokenizer": {
            **finished["tokenizer"].metrics,
            "bytes_per_token": {
                name: sum(split["bytes"] for split in sharded[name].values())
                / sum(split["tokens"] for split in sharded[name].values())
                for name in trained_on
            },
        },
        "mixture": {
            name: {
                "documents": sum(split["documents"] for split in sharded[name].values()),
                "train_tokens": sharded[name]["train"]["tokens"],
                "held_out_tokens": sharded[name]["held_out"]["tokens"],
                "held_out_documents": sharded[name]["held_out"]["documents"],
                **trained["mixture"][name],
            }
            for name in trained_on
        },
        "model": {
            **config.model_dump(),
            "size": recipe.model.size,
            "parameters": config.parameters(),
            "sequence_length": recipe.train.sequence_length,
            "tokens_per_parameter": trained["tokens"] / config.parameters(),
        },
        "tokens": trained["tokens"],
        "loss": trained["loss"],
        **{
            key: {name: scored[key][name] for name in trained_on}
            for key in ("bits_per_byte", "held_out_bytes")
        },
        "samples": scored["samples"],
        **speed,
        "seconds": {name: entry["seconds"] for name, entry in costs.items()},
        "energy": meter.energy(
            seconds, recipe.energy, sum(entry["joules"] for entry in costs.values()) if metered else None
        ),
        "energy_settings": recipe.energy.model_dump(),
        "stages": [
            {
                "stage": item.stage.name,
                "fingerprint": item.fingerprint,
                "digest": finished[item.stage.name].digest,
                "inputs": finished[item.stage.name].inputs,
                "seconds": costs[item.stage.name]["seconds"],
                "bytes": finished[item.stage.name].bytes,
            }
            for item in planned
        ],
    }
    write_atomically(folder / SUMMARY, json.dumps(figures, indent=1) + "\n")
    curves = {name: _lines(finished["train"].path(f"{name}.jsonl")) for name in ("losses", "validation")}
    shown = {**figures, **curves, "speed": speed, "recipe_toml": recipe_text}
    write_atomically(folder / REPORT, page.render(shown))
    write_atomically(folder / CORPUS, documents.render(finished["documents"].folder, found, recipe.name))
    return figures


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read(run: Path) -> dict[str, Any]:
    """Figures of a finished run. Raises UserError when the folder holds none or they are damaged."""
    path = run / SUMMARY
    if not path.is_file():
        raise UserError(f"{run} holds no finished run: {SUMMARY} is missing; run the recipe to its end first")
    try:
        figures = json.loads(path.read_bytes())
        if isinstance(figures, dict) and figures.keys() >= {"documents", "stages", "bits_per_byte"}:
            return figures
    except ValueError:
        pass
    raise UserError(
        f"{path} is damaged; remove it and run the recipe again, which writes it anew from the artifacts"
    )


def current(build: Build) -> bool:
    """Whether both files are there and tell of the artifacts that the recipe asks for now."""
    try:
        known = read(build.folder)
        told = {entry["stage"]: entry["fingerprint"] for entry in known["stages"]}
    except UserError:
        return False
    energy_settings = build.recipe.whole().energy.model_dump()
    same = (
        told == {item.stage.name: item.fingerprint for item in build.plan()}
        and known.get("energy_settings") == energy_settings
    )
    return same and (build.folder / REPORT).is_file() and (build.folder / CORPUS).is_file()


def stage_folder(run: Path, stage: str) -> Path:
    """The folder of a stage's artifact in a finished run."""
    for entry in read(run)["stages"]:
        if entry["stage"] == stage:
            return run / f"{stage}-{entry['fingerprint']}"
    raise UserError(f"{run}: its summary names no stage {stage}")
