"""The model card of a reference classifier (after Mitchell et al. 2019)."""

from typing import Any

from puna.corpus.filters.binary import Share

LIMITS = """\
- It has learned how pages look that Wikipedia's authors cite, not whether they are true or well written.
  News, official and scholarly sites are cited most, and so are the subjects, countries and languages that
  Wikipedia covers most; pages about other things, in other registers and dialects, and by people whom the
  press ignores are kept less often.
- It knows words, capitals and punctuation: no layout, no links, no dates. It knows the words of its time and
  its languages; anything else gets a score near that of a text without known words. Its features do not suit
  writing without spaces between words.
- The other class is random pages, not bad ones: many are as good as cited ones, and some are cited without
  our knowing it.
- Precision above is that of the held-out part's mixture. In a crawl references are far rarer and precision is
  lower; recall and the share of random pages that is kept do not depend on the mixture."""
CHOSEN = """\
On 315 pages that English Wikipedia cites against 242 English pages of 173 sites that were not chosen for it:
lines of prose only, at most 1,500 characters, equally long on both sides (`bench/cited.py`, five folds by
site). There the area under the ROC curve is 0.896 (0.856 to 0.925, sites drawn again; words and pairs alone:
0.869), precision 0.80 at recall 0.89. Both sets are small, and the features were chosen on them."""
CLASSES = ("references", "random pages")
METRICS = {
    "precision at the threshold": "precision",
    "recall at the threshold": "recall",
    "random pages kept": "false_positives",
}


def model_card(facts: dict[str, Any], threshold: float) -> str:
    """Write the card in Markdown, from the facts of reference.train."""
    settings = facts["settings"]
    criterion = "precision" if settings["recall"] is None else "recall"
    lines = [
        "# Reference classifier",
        "",
        "Logistic regression over hashed words, their beginnings, marks of punctuation, capitals and pairs "
        "of these, rare ones weighing more: pages that Wikipedia cites against random pages of a crawl",
        f"(LLaMA, section 2.1). {1 << settings['bits']:,} weights; the first {settings['characters']:,} "
        "characters of a text are read.",
        "A score is the chance that a page is a reference, were there as many references as random pages.",
        f"Pages scoring {threshold:.4f} or more are kept: the threshold for {criterion} "
        f"{settings[criterion]} on the calibration part.",
        "",
        "## Training data",
        "",
        *_training_data(facts),
        "",
        "## On held-out sites",
        "",
        "Of a model that was trained on the training part alone. The model that is kept was then trained "
        "on all pages in the same way.",
        "",
        *_held_out(facts["metrics"]),
        "",
        "## How the features were chosen",
        "",
        CHOSEN,
        "",
        "## Words that weigh most",
        "",
    ]
    for kind in CLASSES:
        lines += [f"For {kind}: {_words(facts['words'][kind])}.", ""]
    used = (f"{name} {value}" for name, value in sorted(settings.items()) if value is not None)
    lines += ["## Limits and biases", "", LIMITS, "", "## Settings", "", ", ".join(used) + "."]
    return "\n".join(lines) + "\n"


def _training_data(facts: dict[str, Any]) -> list[str]:
    rows = []
    for name, part in facts["parts"].items():
        counts = [part[kind][unit] for kind in CLASSES for unit in ("documents", "sites")]
        rows.append([name, *(f"{count:,}" for count in counts)])
    offered = "; ".join(f"{facts['seen'][kind]:,} {kind} were offered" for kind in CLASSES)
    most = facts["settings"]["most_positives"], facts["settings"]["most_negatives"]
    lines = [
        *_table(["part", "references", "their sites", "random pages", "their sites"], rows),
        "",
        f"No site is in two parts. {offered}; at most {most[0]:,} and {most[1]:,} were taken, by the digest "
        "of the address.",
        "",
    ]
    for kind, counts in facts["languages"].items():
        lines.append(f"Languages of the {kind} (a sample, by fastText's lid.176): {_listed(counts)}.")
    for name, value in facts["notes"].items():
        lines.append(f"{name[:1].upper()}{name[1:]}: {value}.")
    return lines


def _held_out(metrics: dict[str, Any]) -> list[str]:
    figures = [["area under the ROC curve", f"{metrics['area_under_curve']:.4f}"]]
    figures += [[name, str(Share(**metrics[key]))] for name, key in METRICS.items()]
    figures += [["calibration error", f"{metrics['calibration_error']:.4f}"]]
    tenths = []
    for tenth, (size, mean, share) in enumerate(metrics["reliability"]):
        values = [f"{mean:.3f}", f"{share:.3f}"] if size else ["", ""]
        tenths.append([f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}", f"{size:,}", *values])
    return [
        *_table(["figure", "value (95% interval)"], figures),
        "",
        "The intervals are Wilson's, as if pages were independent; pages of one site are not, so the truth "
        "is wider.",
        "Reliability, with the classes weighted to even odds:",
        "",
        *_table(["score", "documents", "mean score", "share of references"], tenths),
    ]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or 'unknown'} {count:,}" for name, count in counts.items()) or "none"


def _words(words: list[list[Any]]) -> str:
    return ", ".join(f"{name} ({weight:+.1f})" for name, weight, _ in words) or "none"
