"""Sections of what went in: the funnel of the corpus, the tokenizer, the mixture."""

import re
from collections.abc import Mapping
from typing import Any

from puna.report import chart
from puna.report.frame import figure, join, share_cell
from puna.report.markup import Html, count, duration, escape, facts, figures, number, size, table, total

BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")  # a byte by its number, which is no piece of text
MOST_ROWS = 12  # of a table of counts; the rest is summed up in a last row


def crosstab(caption: str, first: str, counts: Mapping[str, Mapping[str, Any]]) -> Html:
    """Counts of {source: {reason: count}}, one row a reason, most frequent first."""
    totals: dict[str, float] = {}
    for found in counts.values():
        for key, value in found.items():
            totals[key] = totals.get(key, 0.0) + (number(value) or 0.0)
    if not totals:
        return Html("")
    order = sorted(totals, key=lambda key: (-totals[key], key))
    shown = order if len(order) <= MOST_ROWS else order[: MOST_ROWS - 1]
    rest = order[len(shown) :]
    rows = [
        [key, *(count(found.get(key, 0)) for found in counts.values()), count(totals[key])] for key in shown
    ]
    if rest:
        cells = (count(total(found.get(key) for key in rest) or 0) for found in counts.values())
        rows.append([f"{len(rest)} others", *cells, count(sum(totals[key] for key in rest))])
    if len(counts) == 1:
        rows = [row[:-1] for row in rows]
    return table(caption, [first, *counts, *(["all"] if len(counts) > 1 else [])], rows)


def corpus(data: Mapping[str, Any]) -> Html:
    """The funnel of every source, what was dropped and why, licences and languages."""
    sources = {name: source.get("steps") or {} for name, source in (data.get("sources") or {}).items()}
    names = list(dict.fromkeys(step for steps in sources.values() for step in steps))
    drawings, rows = [], []
    for source, steps in sources.items():
        counts = {step: found.get("documents") for step, found in steps.items()}
        drawing = chart.funnel(counts, f"documents of {source}, by step")
        drawings.append(figure(f"{source}: documents after each step", drawing))
        known = [steps.get(step, {}) for step in names]
        cells = (f"{count(found.get('documents'))} · {size(found.get('bytes'))}" for found in known)
        rows.append([source, *cells])
    return join(
        f'<p><a href="{escape(page)}">The documents themselves</a>: some that were kept, some that each '
        "filter dropped, the data card and the public summary.</p>"
        if (page := data.get("corpus_page"))
        else "",
        join(*drawings, look="cards"),
        table("Documents and bytes of text after each step", ["source", *names], rows) if names else "",
        crosstab("Dropped records, by reason", "reason", data.get("dropped") or {}),
        join(
            crosstab("Documents kept, by licence", "licence", data.get("licences") or {}),
            crosstab("Documents kept, by language", "language", data.get("languages") or {}),
            look="columns",
        ),
    )


def tokens(data: Mapping[str, Any]) -> Html:
    """The tokenizer, and the mixture that training saw."""
    tokenizer, mixture = data.get("tokenizer") or {}, data.get("mixture") or {}
    used = tokenizer.get("training_bytes")
    per_token = tokenizer.get("bytes_per_token") or {}
    pieces = [piece for piece in tokenizer.get("longest_pieces") or [] if not BYTE_PIECE.fullmatch(piece)]
    shown = "".join(f"<li>{escape(piece.replace(' ', '·'))}</li>" for piece in pieces)
    names = list(dict.fromkeys([*mixture, *per_token]))
    parts = {name: mixture.get(name) or {} for name in names}
    counted = ("documents", "held_out_documents", "train_tokens", "held_out_tokens")
    rows = []
    for name, part in parts.items():
        counts = [count(part.get(key)) for key in counted]
        share, epochs = share_cell(part.get("share")), figures(part.get("epochs"))
        rows.append([name, *counts, figures(per_token.get(name)), share, epochs])
    head = ["source", "documents", "of these held out", "training tokens", "held-out tokens"]
    head += ["bytes per token", "share of training", "epochs"]
    sums = (count(total(part.get(key) for part in parts.values())) for key in counted)
    foot = ["all", *sums, "", "", ""] if len(names) > 1 else []
    return join(
        facts(
            {
                "vocabulary": count(tokenizer.get("vocab_size")),
                "text it was trained on": size(total(used.values()) if isinstance(used, dict) else used),
                "time": duration(tokenizer.get("seconds")),
            }
        ),
        table("Mixture: what is there, and how much of it training saw", head, rows, foot=foot)
        if names
        else "",
        '<p class="soft">Longest pieces of the vocabulary, spaces as dots:</p>'
        f'<ul class="pieces">{shown}</ul>'
        if pieces
        else "",
    )
