"""The card of a tuned model (after Mitchell et al. 2019); model_card.md has its words."""

from collections.abc import Mapping, Sequence
from typing import Any

import puna
from puna.text.lists import filled


def card(name: str, figures: Mapping[str, Any], recipe: str, weights: str) -> str:
    """Write the card in Markdown. figures: of `summary.json`. weights: the base's, as the recipe says."""
    probe, tuned = figures.get("probe") or {}, figures["tuned"][figures["result"]]
    found = (one.get("findings") or {} for one in figures["sets"].values())
    audit = dict.fromkeys(kind for kinds in found for kind, times in kinds.items() if times)
    sets = [
        [
            name,
            licence_of(name, one),
            *(f"{one['train'][key]:,}" for key in ("conversations", "learned_tokens")),
        ]
        for name, one in figures["sets"].items()
    ]
    return filled(
        __file__,
        "model_card.md",
        title=name,
        puna=puna.__version__,
        base=weights.rpartition("/")[2],
        weights=weights,
        format=tuned["format"],
        sets=_table(["set", "licence", "conversations", "learned tokens"], sets),
        audit=f"The audit found: {', '.join(audit)}." if audit else "The audit found nothing.",
        probe=_probe(probe),
        warnings="\n".join(f"- {text}" for text in probe.get("warnings") or ["There is nothing to warn of."]),
        passages=(figures.get("passages") or {}).get("advice", ""),
        recipe=recipe.strip(),
    )


def licence_of(name: str, one: Mapping[str, Any]) -> str:
    """The licence of a set of data, in words where it has none."""
    return one.get("licence") or ("the base's own answers" if name == "replay" else "not said")


def _probe(probe: Mapping[str, Any]) -> str:
    if "after" not in probe:
        return f"Not asked: {probe.get('skipped', 'no probe')}."
    both = (probe["before"], probe["after"])
    rows = [
        ["plain questions right", *(f"{one['right']} of {len(one['questions'])}" for one in both)],
        ["answers that end", *("–" if one["ended"] is None else f"{one['ended']:.0%}" for one in both)],
        ["bits per byte of plain text", *(f"{one['bits_per_byte']:.3f}" for one in both)],
    ]
    return _table(["", "before", "after"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
