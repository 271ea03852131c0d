"""The model card of a reference classifier (after Mitchell et al. 2019)."""

from typing import Any

from puna.corpus.filters.binary import Share

LIMITS = """\
- It has learned how pages look that Wikipedia's authors cite, not whether they are true or well written. News, official and scholarly
  sites are cited most, and so are the subjects, countries and languages that Wikipedia covers most; pages about other things, in other
  registers and dialects, and by people whom the press passes over are kept less often.
- It knows words only: no layout, no links, no dates. Words of its time and its languages; anything else gets a score near that of a
  text without known words. Writing without spaces between words is not suited to its features.
- The other class is random pages, not bad ones: many are as good as cited ones, and some are cited without our knowing it.
- Precision above is that of the held-out part's mixture. In a crawl references are far rarer and precision is lower; recall and the share
  of random pages that is kept do not hang on the mixture."""


def card(facts: dict[str, Any], threshold: float) -> str:
    """Markdown from the facts of reference.train."""
    settings, metrics = facts["settings"], facts["metrics"]
    rule = (
        f"recall {settings['recall']}"
        if settings["recall"] is not None
        else f"precision {settings['precision']}"
    )
    lines = [
        "# Reference classifier",
        "",
        "Logistic regression over hashed words and pairs of words: pages that Wikipedia cites against random pages of a crawl",
        f"(LLaMA, section 2.1). {1 << settings['bits']:,} weights; the first {settings['characters']:,} characters of a text are read.",
        "A score is the chance that a page is a reference, were there as many references as random pages.",
        f"Pages scoring {threshold:.4f} or more are kept: the threshold for {rule} on the calibration part.",
        "",
        "## Training data",
        "",
        *_table(
            ["part", "references", "their sites", "random pages", "their sites"],
            [
                [
                    name,
                    *(
                        f"{part[kind][what]:,}"
                        for kind in ("references", "random pages")
                        for what in ("documents", "sites")
                    ),
                ]
                for name, part in facts["parts"].items()
            ],
        ),
        "",
        "No site is in two parts. "
        + "; ".join(f"{facts['seen'][kind]:,} {kind} were offered" for kind in ("references", "random pages"))
        + f"; at most {settings['most_positives']:,} and {settings['most_negatives']:,} were taken, by the digest of the address.",
        "",
        *(
            f"Languages of the {kind} (a sample, by fastText's lid.176): {_listed(found)}."
            for kind, found in facts["languages"].items()
        ),
        *(f"{name[:1].upper()}{name[1:]}: {value}." for name, value in facts["notes"].items()),
        "",
        "## On held-out sites",
        "",
        *_table(
            ["figure", "value (95% interval)"],
            [
                ["area under the ROC curve", f"{metrics['area_under_curve']:.4f}"],
                *([name.replace("_", " "), str(Share(**metrics[key]))] for name, key in SHARES_SHOWN.items()),
                ["calibration error", f"{metrics['calibration_error']:.4f}"],
            ],
        ),
        "",
        "The intervals are Wilson's, as if pages were independent; pages of one site are not, so the truth is wider.",
        "Reliability, with the classes weighted to even odds:",
        "",
        *_table(
            ["score", "documents", "mean score", "share of references"],
            [
                [
                    f"{place / 10:.1f} to {(place + 1) / 10:.1f}",
                    f"{size:,}",
                    *((f"{mean:.3f}", f"{share:.3f}") if size else ("", "")),
                ]
                for place, (size, mean, share) in enumerate(metrics["reliability"])
            ],
        ),
        "",
        "## Words that weigh most",
        "",
        *(
            line
            for kind in ("references", "random pages")
            for line in (f"For {kind}: {_words(facts['words'][kind])}.", "")
        ),
        "## Limits and biases",
        "",
        LIMITS,
        "",
        "## Settings",
        "",
        ", ".join(f"{name} {value}" for name, value in sorted(settings.items()) if value is not None) + ".",
    ]
    return "\n".join(lines) + "\n"


SHARES_SHOWN = {
    "precision at the threshold": "precision",
    "recall at the threshold": "recall",
    "random pages kept": "false_positives",
}


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or 'unknown'} {count:,}" for name, count in counts.items()) or "none"


def _words(found: list[list[Any]]) -> str:
    return ", ".join(f"{name} ({weight:+.1f})" for name, weight, _ in found) or "none"
