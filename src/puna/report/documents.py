"""A page to judge a corpus by: its funnel, and documents drawn from what was kept and from what each filter
dropped."""

import hashlib
import heapq
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from puna.corpus import inspect
from puna.corpus.funnel import FUNNEL
from puna.corpus.tables import rows_of
from puna.report import markdown
from puna.report.frame import frame
from puna.report.inputs import corpus
from puna.report.markup import Html, count, escape, figures, size

KEPT, DROPPED = 8, 5  # shown of each source, and of each reason in it
CHARACTERS = 1200
SHOWN = "language language_score perplexity bucket reference_score left_out file offset detail id"


def _draw(rows: Iterable[Mapping[str, Any]], most: int, key: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """`most` rows by the digest of what names them: as good as chance, and the same ones every time."""

    def place(row: Mapping[str, Any]) -> str:
        named = "\0".join(str(row[name]) for name in key)
        return hashlib.sha256(named.encode("utf-8", "replace")).hexdigest()

    return heapq.nsmallest(most, rows, key=place)


def _card(row: Mapping[str, Any], text: str) -> Html:
    told = " · ".join(
        f"{name.replace('_', ' ')} {figures(row[name]) if isinstance(row[name], float) else row[name]}"
        for name in SHOWN.split()
        if row.get(name) not in (None, "")
    )
    title = escape(row.get("url") or row["file"])
    licence = f'<span class="licence">{escape(row["licence"])}</span>' if row.get("licence") else ""
    return Html(
        f'<div class="card"><div class="soft"><b>{title}</b> {licence}<br/>{escape(told)}</div>'
        f'<div class="sample" dir="auto">{escape(text)}</div></div>'
    )


def kept(folder: Path, source: str) -> Html:
    """Documents of a source that are in."""
    drawn = _draw(rows_of(folder / f"{source}.parquet"), KEPT, ("id", "file", "offset"))
    cards = []
    for row in drawn:
        text = row["text"]
        more = f"\n[… {len(text) - CHARACTERS:,} more characters]" if len(text) > CHARACTERS else ""
        cards.append(_card(row, text[:CHARACTERS] + more))
    return Html("".join(cards))


def dropped(folder: Path, source: str, counts: Mapping[str, int]) -> Html:
    """For each reason, how often it was given, and some of the records it was given to."""
    wanted: dict[str, list[Mapping[str, Any]]] = {reason: [] for reason in counts}
    for found_row in rows_of(folder / "dropped.parquet"):
        if found_row["source"] == source and found_row["reason"] in wanted:
            found = wanted[found_row["reason"]]
            found.append(found_row)
            if len(found) > 50 * DROPPED:  # so that memory has a bound
                found[:] = _draw(found, DROPPED, ("file", "offset", "url"))
    drawn = {reason: _draw(rows, DROPPED, ("file", "offset", "url")) for reason, rows in wanted.items()}
    places = inspect.kept_places(folder, [row for rows in drawn.values() for row in rows])
    parts = []
    for reason, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        cards = []
        for row in drawn[reason]:
            text = row["excerpt"] or "(no text was made of it)"
            identity = row.get("repeats")
            kept = f" ({inspect.describe(places[identity, reason])})" if identity else ""
            cards.append(_card({**row, "detail": f"{row['detail']}{kept}"}, text))
        head = f"<summary>{escape(reason)}: {count(number)}</summary>"
        parts.append(f"<details>{head}{''.join(cards)}</details>")
    return Html("".join(parts) or "<p>Nothing was.</p>")


def render(
    folder: Path,
    funnel: Mapping[str, Any],
    name: str,
    *,
    report: str = "",
    tokens: Mapping[str, Any] | None = None,
) -> str:
    """The page of a documents artifact. funnel: its metrics. report: where the report of a run with these
    documents is, from the page. tokens: how many each source has, where they were counted."""
    sources = funnel["sources"]
    funnels = {source: {"steps": {step: steps[step] for step in FUNNEL}} for source, steps in sources.items()}
    sections = [("funnel", "What came through", corpus({**funnel, "sources": funnels}))]
    for source, steps in sources.items():
        found = steps["kept"]
        counted = f", {count(tokens[source])} tokens" if tokens and source in tokens else ""
        told = Html(
            f"<p>{count(found['documents'])} documents, {size(found['bytes'])} of text{counted}. Some of "
            "them, drawn by their digests:</p>"
        )
        if found["documents"] and (folder / f"{source}.parquet").is_file():
            sections.append((f"kept-{source}", f"{source}: kept", Html(told + kept(folder, source))))
        lost = dropped(folder, source, funnel["dropped"][source])
        sections.append((f"dropped-{source}", f"{source}: dropped", lost))
    for stem, title in (("data_card", "Data card"), ("public_summary", "Public summary")):
        if (path := folder / f"{stem}.md").is_file():
            sections.append((stem, title, _paper(path, folder)))
    return frame(name, "Puna corpus", _lead(folder, funnel, report, tokens), sections)


def _lead(folder: Path, funnel: Mapping[str, Any], report: str, tokens: Mapping[str, Any] | None) -> Html:
    kept_of_all = [steps["kept"] for steps in funnel["sources"].values()]
    sizes = [
        f"{count(sum(entry['documents'] for entry in kept_of_all))} documents",
        f"{size(sum(entry['bytes'] for entry in kept_of_all))} of text",
        *([f"{count(sum(tokens.values()))} tokens"] if tokens else []),
    ]
    link = f'<a href="{escape(report)}">report of the run</a>'
    back = f"<p>The model that learned from them: {link}.</p>" if report else ""
    return Html(
        f'<p class="lead">{", ".join(sizes)}. People judge filters by looking at what they keep and what '
        'they drop. The <a href="#data_card">data card</a> says which filters these were; the '
        '<a href="#public_summary">public summary</a> gives what the law asks for.</p>'
        f'<p class="soft">The files: <code>{escape(folder.name)}</code></p>{back}'
    )


def _paper(path: Path, folder: Path) -> Html:
    """A document in Markdown that lies beside the corpus, to be read here."""
    text = path.read_text("utf-8").partition("\n")[2]  # its title is the section's
    link = f'<a href="{escape(folder.name)}/{escape(path.name)}">{escape(path.name)}</a>'
    return Html(f'<p class="soft">As a file: {link}</p><div class="paper">{markdown.html(text, 2)}</div>')
