"""The model card of a reference classifier (after Mitchell et al. 2019); model_card.md has its words."""

from typing import Any

from puna.corpus.filters.binary import Share
from puna.text.lists import filled

CLASSES = ("references", "random pages")
METRICS = {
    "precision at the threshold": "precision",
    "recall at the threshold": "recall",
    "random pages kept": "false_positives",
}


def model_card(facts: dict[str, Any], threshold: float) -> str:
    """Write the card in Markdown, from the facts of reference.train."""
    settings, metrics = facts["settings"], facts["metrics"]
    criterion = "precision" if settings["recall"] is None else "recall"
    words = [f"For {kind}: {_words(facts['words'][kind])}." for kind in CLASSES]
    used = (f"{name} {value}" for name, value in sorted(settings.items()) if value is not None)
    return filled(
        __file__,
        "model_card.md",
        weights=f"{1 << settings['bits']:,}",
        characters=f"{settings['characters']:,}",
        threshold=f"{threshold:.4f}",
        criterion=f"{criterion} {settings[criterion]}",
        parts=_parts(facts["parts"]),
        offered="; ".join(f"{facts['seen'][kind]:,} {kind} were offered" for kind in CLASSES),
        most_positives=f"{settings['most_positives']:,}",
        most_negatives=f"{settings['most_negatives']:,}",
        samples="\n".join(_samples(facts)),
        figures=_figures(metrics),
        reliability=_reliability(metrics["reliability"]),
        words="\n\n".join(words),
        settings=", ".join(used),
    )


def _parts(parts: dict[str, Any]) -> str:
    rows = []
    for name, part in parts.items():
        counts = [part[kind][unit] for kind in CLASSES for unit in ("documents", "sites")]
        rows.append([name, *(f"{count:,}" for count in counts)])
    return _table(["part", "references", "their sites", "random pages", "their sites"], rows)


def _samples(facts: dict[str, Any]) -> list[str]:
    lines = []
    for kind, counts in facts["languages"].items():
        lines.append(f"Languages of the {kind} (a sample, by fastText's lid.176): {_listed(counts)}.")
    for name, value in facts["notes"].items():
        lines.append(f"{name[:1].upper()}{name[1:]}: {value}.")
    return lines


def _figures(metrics: dict[str, Any]) -> str:
    figures = [["area under the ROC curve", f"{metrics['area_under_curve']:.4f}"]]
    figures += [[name, str(Share(**metrics[key]))] for name, key in METRICS.items()]
    figures += [["calibration error", f"{metrics['calibration_error']:.4f}"]]
    return _table(["figure", "value (95% interval)"], figures)


def _reliability(reliability: list[list[Any]]) -> str:
    tenths = []
    for tenth, (size, mean, share) in enumerate(reliability):
        values = [f"{mean:.3f}", f"{share:.3f}"] if size else ["", ""]
        tenths.append([f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}", f"{size:,}", *values])
    return _table(["score", "documents", "mean score", "share of references"], tenths)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or 'unknown'} {count:,}" for name, count in counts.items()) or "none"


def _words(words: list[list[Any]]) -> str:
    return ", ".join(f"{name} ({weight:+.1f})" for name, weight, _ in words) or "none"
