"""What is in a corpus, for people: a data card, and the public summary of training content that European law
asks of model providers.

Both are made of the settings and the counts alone, so equal corpora have equal cards. What only the provider
knows is left open and marked.
"""

from typing import Any

from puna.corpus.settings import CorpusSettings, SourceSettings

OPEN = "*to be filled in by the provider*"
KINDS = {
    "warc": "pages of a web crawl",
    "html": "web pages",
    "wikipedia": "articles of a wiki's dump",
    "stackexchange": "questions and answers of a site's dump",
    "arxiv": "papers in LaTeX",
    "book": "books",
    "code": "source code of packages",
    "github": "source code of repositories",
    "text": "texts as they are",
    "lines": "texts, one a line",
    "jsonl": "texts of a published dataset",
}
PUBLIC = (
    "wikipedia",
    "stackexchange",
    "arxiv",
    "github",
)  # formats in which such sites give out what they hold


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; bars and line ends of cells cannot break it."""
    cells = [
        [
            f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", "\\|").replace("\n", " ")
            for cell in row
        ]
        for row in rows
    ]
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _most(counts: dict[str, int], most: int = 6) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {count:,}" for name, count in ordered[:most]]
    return ", ".join(shown + ([f"{len(ordered) - most} others"] if len(ordered) > most else [])) or "none"


def data_card(settings: CorpusSettings, funnel: dict[str, Any]) -> str:
    """Markdown: sources, licences, languages, what every step dropped, filters, and what to keep in mind."""
    steps = funnel["sources"]
    names = [source.name for source in settings.sources]
    kept = {name: steps[name]["kept"] for name in names}
    sources = [
        [name, KINDS[source.reader], steps[name]["found"]["documents"], kept[name]["documents"], kept[name]["bytes"],
         _most(funnel["licences"][name]), _most(funnel["languages"][name])]
        for name, source in zip(names, settings.sources, strict=True)
    ]  # fmt: skip
    order = list(next(iter(steps.values())))
    passed = [[name, *(steps[name][step]["documents"] for step in order)] for name in names]
    reasons = sorted({reason for name in names for reason in funnel["dropped"][name]})
    dropped = [[reason, *(funnel["dropped"][name].get(reason, 0) for name in names)] for reason in reasons]
    parts = [
        "# Data card",
        f"{sum(entry['documents'] for entry in kept.values()):,} documents, {sum(entry['bytes'] for entry in kept.values()):,} bytes of "
        "text in UTF-8. Every document carries its source, address, file and offset, the digest of its raw record, licence, language and "
        "scores; every record that was dropped is listed in `dropped.parquet` with its reason.",
        "## Sources",
        table(
            ["source", "what", "records found", "documents kept", "bytes kept", "licences", "languages"],
            sources,
        ),
        "## What came through each step",
        table(["source", *order], passed),
        "## Why records were dropped",
        table(["reason", *names], dropped) if dropped else "None was.",
        "## Filters",
        "\n".join(f"- {line}" for line in _filters(settings, funnel)),
        "## To keep in mind",
        "- Licences are what the sources say of themselves, or what the recipe says of a source; nobody has looked at each document.\n"
        "- Languages are told by a model and are wrong for some documents, mostly short or mixed ones.\n"
        "- Filters by perplexity and by likeness to cited pages favour the style of the text that they learn from.\n"
        "- Personal data: "
        + (
            f"{' and '.join(settings.privacy)} replaced by rules, which miss some and take some others."
            if settings.privacy
            else "nothing was removed; names, addresses and numbers that the sources hold are in the text."
        ),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _filters(settings: CorpusSettings, funnel: dict[str, Any]) -> list[str]:
    def asking(key: str) -> str:
        return ", ".join(
            source.name for source in settings.sources if getattr(source, key) not in (False, "off")
        )

    lines = [
        f"length: at least {settings.minimum_characters} characters",
        (
            f"languages: {', '.join(settings.languages)}, at a score of {settings.language_score} or more"
            if settings.languages
            else "languages: all, however sure the model is"
        )
        + "".join(
            f"; {s.name}: {', '.join(s.languages) or 'all'}"
            for s in settings.sources
            if s.languages is not None
        ),
        f"opt-outs: {', '.join(settings.opt_out.paths()) or 'none given'}",
    ]
    for name, found in funnel["lines"].items():
        lines.append(
            f"lines seen before ({name}): {found['removed']:,} of {found['found']:,} removed, scopes: {found['scopes']}"
        )
    if c4 := asking("c4"):
        found = funnel["spans"]
        lines.append(
            f"C4's page heuristics: {c4}; sentences in threes that came before: {found['removed']:,} of {found['found']:,} removed, "
            f"scopes: {found['scopes']}"
        )
    for name, (head, tail) in funnel["learnt"]["perplexity"].items():
        lines.append(
            f"perplexity ({name}): head below {head:.1f}, tail above {tail:.1f}; kept {_most(funnel['buckets'].get(name, {}))}"
        )
    if "reference" in funnel["learnt"]:
        lines.append(
            f"likeness to pages that Wikipedia cites ({asking('reference')}): score {funnel['learnt']['reference']:.3f} or more"
        )
    lines.append("exact duplicates: none, over all sources")
    if settings.signs:
        lines.append(
            f"near duplicates: none above an estimated Jaccard similarity of {settings.near_duplicates}, over all sources"
        )
    if books := asking("books"):
        lines.append(f"books that overlap with an earlier one by more than 90%: none ({books})")
    return lines


def public_summary(settings: CorpusSettings, funnel: dict[str, Any]) -> str:
    """Markdown in the order of the European Commission's template for the public summary of training content
    (Regulation (EU) 2024/1689, article 53(1)(d); template of 24 July 2025), filled in as far as the corpus
    knows."""
    kept = {source.name: funnel["sources"][source.name]["kept"] for source in settings.sources}
    size = sum(entry["bytes"] for entry in kept.values())
    languages: dict[str, int] = {}
    for counts in funnel["languages"].values():
        for name, count in counts.items():
            languages[name] = languages.get(name, 0) + count
    by_origin: dict[str, list[SourceSettings]] = {}
    for source in settings.sources:
        by_origin.setdefault(_origin(source), []).append(source)

    def listed(
        origin: str, where: bool = False, none: str = f"None that this corpus knows of; {OPEN}"
    ) -> str:
        """A table of the sources of one origin. where: whether their addresses are told."""
        rows = [[source.name, KINDS[source.reader], kept[source.name]["documents"], kept[source.name]["bytes"],
                 _most(funnel["licences"][source.name]), *([_where(source)] * where)] for source in by_origin.get(origin, ())]  # fmt: skip
        return (
            table(["dataset", "content", "documents", "bytes", "licences", *["where"] * where], rows)
            if rows
            else none
        )

    refused = sum(
        count
        for counts in funnel["dropped"].values()
        for reason, count in counts.items()
        if reason.startswith("opt-out")
    )
    parts = [
        "# Public summary of training content",
        "## 1. General information",
        f"- Provider, contact, authorised representative: {OPEN}\n- Model, versions, date of placement on the market: {OPEN}\n"
        f"- Modality: text. Size: {size:,} bytes of text, {sum(entry['documents'] for entry in kept.values()):,} documents, "
        "before tokens are counted and sources repeated\n"
        f"- Languages by documents: {_most(languages, 24)}\n- Period in which the data were collected, and whether it goes on: {OPEN}",
        "## 2. List of data sources",
        "### 2.1 Publicly available datasets",
        listed("public", where=True, none="None."),
        "### 2.2 Private datasets obtained from third parties",
        listed("private"),
        "### 2.3 Data crawled and scraped from online sources",
        _crawled(by_origin["crawled"], funnel, kept) if "crawled" in by_origin else "None.",
        "### 2.4 User data",
        listed("user"),
        "### 2.5 Synthetic data",
        listed("synthetic"),
        "### 2.6 Other sources",
        listed("", where=True, none="None.") + f"\nWhether these are public, private or others: {OPEN} (key `origin`)" * ("" in by_origin),
        "## 3. Aspects of data processing",
        "### 3.1 Reservations of rights",
        "Opt-outs by URL pattern, domain and robots file, applied before a page is used: "
        f"{', '.join(settings.opt_out.paths()) or 'none were given'}; records left out for them: {refused:,}. Other measures: {OPEN}",
        "### 3.2 Removal of illegal content",
        f"No filter of this corpus is meant for that; {OPEN}",
        "### 3.3 Other information",
        "Filters, counts by reason and limits are in the data card.",
    ]  # fmt: skip
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _origin(source: SourceSettings) -> str:
    """Under which heading a source stands: what its recipe says, else what its files and their format say; ""
    for neither."""
    if source.origin:
        return source.origin
    online = all(_is_address(uri) for uri in source.uris)
    if source.reader == "warc" or (source.reader == "html" and online):
        return "crawled"
    return "public" if online or source.reader in PUBLIC else ""


def _is_address(uri: str) -> bool:
    return "://" in uri or uri.startswith("pypi:")


def _where(source: SourceSettings) -> str:
    shown = [uri.partition("#sha256=")[0] for uri in source.uris[:3]]
    shown = [uri if _is_address(uri) else "/".join(uri.rstrip("/").split("/")[-2:]) for uri in shown]
    return ", ".join(shown + ([f"{len(source.uris) - 3} others"] if len(source.uris) > 3 else []))


def _crawled(crawled: list[SourceSettings], funnel: dict[str, Any], kept: dict[str, dict[str, int]]) -> str:
    parts = [f"Crawler, its purpose and period: {OPEN}"]
    for source in crawled:
        hosts = funnel["hosts"].get(source.name, {"hosts": 0, "top": {}})
        parts.append(
            f"**{source.name}** ({KINDS[source.reader]}; {_where(source)}): documents {kept[source.name]['documents']:,}, bytes "
            f"{kept[source.name]['bytes']:,}, hosts {hosts['hosts']:,}. "
            + (
                "The tenth of them with most text, at most a thousand:"
                if hosts["top"]
                else "None of the documents has an address."
            )
        )
        if hosts["top"]:
            parts.append(table(["host", "bytes"], [[host, count] for host, count in hosts["top"].items()]))
    return "\n\n".join(part.rstrip("\n") for part in parts)
