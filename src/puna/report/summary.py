"""What a finished run leaves for people and programs beside its artifacts: summary.json and report.html."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import puna
from puna.corpus.funnel import FUNNEL
from puna.errors import UserError
from puna.run import machine, meter
from puna.run.artifact import Artifact
from puna.run.build import Build, cost
from puna.run.files import write_atomically
from puna.run.settings import EnergySettings

SUMMARY, REPORT, CORPUS, CARD = "summary.json", "report.html", "corpus.html", "model_card.md"


def write(
    build: Build,
    finished: dict[str, Artifact],
    recipe_text: str,
    energy: EnergySettings,
    source: str = "",
    program: str = "puna",
    changes: Sequence[str] = (),
) -> dict[str, Any]:
    """Gather the figures of all stages and write summary.json and the pages; the figures.

    source: the recipe as it was named, program: as it was called, changes: as they were set on the command
    line, for the head of the report and the commands that it proposes.
    """
    from puna.report import page
    from puna.train import metrics

    folder, trained = build.folder, finished["train"]
    log = folder / "logs" / trained.folder.name / "metrics.jsonl"
    speed = metrics.read(log)
    own = {**_corpus_figures(finished), **_training_figures(finished), **speed}
    figures = _write_figures(build, finished, energy, own, speed.get("inherited_seconds", 0.0))
    curves = {"validation": metrics.validation(log), "earlier_samples": metrics.samples(log)}
    curves["losses"] = _losses(trained)
    places = {"folder": folder, "source": source, "corpus_page": CORPUS, "recipe_toml": recipe_text}
    called = {"program": program, "changes": tuple(changes)}
    write_atomically(folder / REPORT, page.render({**figures, **curves, **places, **called}))
    write_corpus_page(folder, finished["documents"])
    return figures


def write_tuned(
    build: Build,
    finished: dict[str, Artifact],
    forecasts: dict[str, Any],
    energy: EnergySettings,
    base: str = "",
    recipe_text: str = "",
) -> dict[str, Any]:
    """Gather the figures of a tuning and write summary.json, the report and the card; the figures.

    forecasts: of stages, by name. base: its weights, as the recipe names them.
    """
    from puna.report import tuning
    from puna.report.card import card
    from puna.train import metrics

    folder, logs = build.folder, build.folder / "logs"
    trained = [item.stage.name for item in build.plan() if item.stage.kind == "supervised"]
    speed = {name: metrics.read(logs / finished[name].folder.name / "metrics.jsonl") for name in trained}
    own = {
        "result": trained[-1],
        "sets": finished["rows"].metrics["sets"],
        "tuned": {name: {**finished[name].metrics, **speed[name]} for name in trained},
        "probe": finished["probe"].metrics,
        **({"passages": finished["passages"].metrics} if "passages" in finished else {}),
        "forecasts": forecasts,
    }
    figures = _write_figures(build, finished, energy, own)
    losses = {name: _losses(finished[name]) for name in trained}
    more = {"losses": losses, "base": base, "recipe_toml": recipe_text}
    write_atomically(folder / REPORT, tuning.render({**figures, **more}))
    write_atomically(folder / CARD, card(folder.name, figures, recipe_text, base))
    return figures


def _losses(trained: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trained.path("losses.jsonl").read_text().splitlines()]


def _write_figures(
    build: Build,
    finished: dict[str, Artifact],
    energy: EnergySettings,
    own: dict[str, Any],
    inherited: float = 0.0,
) -> dict[str, Any]:
    """Write summary.json: a run's own figures among those that every run has; all of them.

    inherited: seconds of a training that this one went on from, whose energy is in no account of this one's.
    """
    planned = build.plan()
    costs = {item.stage.name: cost(build.folder / "logs" / item.folder.name) for item in planned}
    if inherited:
        costs["train"] = {"seconds": (costs["train"]["seconds"] or 0.0) + inherited, "joules": None}
    figures = {
        "recipe": build.folder.name,
        "puna": puna.__version__,
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "versions": machine.versions(),
        **own,
        **_cost_figures(costs, energy),
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
    write_atomically(build.folder / SUMMARY, json.dumps(figures, indent=1) + "\n")
    return figures


def is_current(build: Build) -> bool:
    """Whether the report exists, and summary.json tells of the artifacts that the recipe asks for now."""
    try:
        told = {entry["stage"]: entry["fingerprint"] for entry in read(build.folder)["stages"]}
    except UserError:
        return False
    return (build.folder / REPORT).is_file() and told == {
        item.stage.name: item.fingerprint for item in build.plan()
    }


def write_corpus_page(folder: Path, documents: Artifact) -> Path:
    """Write the page of a corpus; its path. Where the folder's last run learned from these documents, the
    page tells their tokens and leads to its report; where it learned from others, their page stays, and this
    one has a name of its own."""
    from puna.report import documents as documents_page

    counted: dict[str, int] = {}
    report, name = "", CORPUS
    try:
        known = read(folder)
        if stage_folder(folder, "documents") != documents.folder:
            name = f"corpus-{documents.fingerprint}.html"
        elif (folder / REPORT).is_file():
            report = REPORT
            counted = {
                source: part["train_tokens"] + part["held_out_tokens"]
                for source, part in known["mixture"].items()
            }
    except (UserError, KeyError):
        pass  # no run yet
    rendered = documents_page.render(
        documents.folder, documents.metrics, folder.name, report=report, tokens=counted
    )
    write_atomically(folder / name, rendered)
    return folder / name


def _corpus_figures(finished: dict[str, Artifact]) -> dict[str, Any]:
    """What became of the raw files, by source in the recipe's order (artifacts keep theirs sorted)."""
    documents, sources = finished["documents"].metrics, finished["train"].settings["sources"]
    funnel = documents["sources"]
    sources = [*sources, *sorted(funnel.keys() - set(sources))]  # the last: files that no reader takes
    return {
        "sources": {name: {"steps": {step: funnel[name][step] for step in FUNNEL}} for name in sources},
        **{
            key: {name: documents[key][name] for name in sources}
            for key in ("dropped", "licences", "languages")
        },
        "documents": sum(steps["kept"]["documents"] for steps in funnel.values()),
    }


def _training_figures(finished: dict[str, Artifact]) -> dict[str, Any]:
    """Tokenizer, mixture, model and scores."""
    scores, trained, shards = (finished[name].metrics for name in ("scores", "train", "tokens"))
    settings = finished["train"].settings
    sources = [name for name in settings["sources"] if name in shards]
    config, parameters = settings["model"], trained["parameters"]
    per_token = {name: _sum(shards[name], "bytes") / _sum(shards[name], "tokens") for name in sources}
    return {
        "tokenizer": {**finished["tokenizer"].metrics, "bytes_per_token": per_token},
        "mixture": {
            name: {
                "documents": _sum(shards[name], "documents"),
                "train_tokens": shards[name]["train"]["tokens"],
                "held_out_tokens": shards[name]["held_out"]["tokens"],
                "held_out_documents": shards[name]["held_out"]["documents"],
                **trained["mixture"][name],
            }
            for name in sources
        },
        "model": {
            **config,
            "size": settings["size"],
            "parameters": parameters,
            "sequence_length": settings["train"]["sequence_length"],
            "tokens_per_parameter": trained["tokens"] / parameters,
        },
        "tokens": trained["tokens"],
        "loss": trained["loss"],
        **{key: {name: scores[key][name] for name in sources} for key in ("bits_per_byte", "held_out_bytes")},
        **{key: scores[key] for key in ("five_gram_tokens", "intervals") if key in scores},
        "samples": scores["samples"],
    }


def _sum(splits: dict[str, dict[str, int]], key: str) -> int:
    return sum(split[key] for split in splits.values())


def _cost_figures(costs: dict[str, dict[str, Any]], energy: EnergySettings) -> dict[str, Any]:
    """Time, energy and carbon of all stages; the energy is measured where every attempt at each was
    metered."""
    seconds = sum(entry["seconds"] for entry in costs.values())
    joules = [entry["joules"] for entry in costs.values()]
    metered = None if None in joules else sum(joules)
    return {
        "seconds": {name: entry["seconds"] for name, entry in costs.items()},
        "energy": meter.energy(seconds, energy, metered),
        "energy_settings": energy.model_dump(),
    }


def read(run: Path) -> dict[str, Any]:
    """Figures of a finished run. Raises UserError when the folder holds none or they are damaged."""
    path = run / SUMMARY
    if not path.is_file():
        raise UserError(f"{run} holds no finished run: {SUMMARY} is missing; run the recipe to its end first")
    try:
        figures = json.loads(path.read_bytes())
        known = figures.keys() if isinstance(figures, dict) else set()
        if known >= {"documents", "stages", "bits_per_byte"} or known >= {"result", "stages"}:
            return figures
    except ValueError:
        pass
    raise UserError(
        f"{path} is damaged; remove it and run the recipe again, which writes it anew from the artifacts"
    )


def current(build: Build, energy: EnergySettings) -> bool:
    """Whether the files exist and tell of the artifacts that the recipe asks for now."""
    if not is_current(build):
        return False
    same = read(build.folder).get("energy_settings") == energy.model_dump()
    return same and (build.folder / REPORT).is_file() and (build.folder / CORPUS).is_file()


def missing(run: Path) -> list[str]:
    """What summary.json lists and is gone; nothing where a folder has no summary."""
    if not (run / SUMMARY).is_file():
        return []
    known = read(run)
    folders = [f"{entry['stage']}-{entry['fingerprint']}" for entry in known["stages"]]
    pages = () if "tuned" in known else (REPORT, CORPUS)
    return [name for name in (*folders, *pages) if not (run / name).exists()]


def model_folder(run: Path) -> Path:
    """The folder with the model of a finished run: what it trained, or tuned last."""
    return stage_folder(run, read(run).get("result", "train"))


def stage_folder(run: Path, stage: str) -> Path:
    """The folder of a stage's artifact in a finished run."""
    for entry in read(run)["stages"]:
        if entry["stage"] == stage:
            return run / f"{stage}-{entry['fingerprint']}"
    raise UserError(f"{run}: its summary names no stage {stage}")
