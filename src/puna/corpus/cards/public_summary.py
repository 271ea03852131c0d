"""The public summary of training content that European law asks of model providers.

It follows the European Commission's template (Regulation (EU) 2024/1689, article 53(1)(d); template of
24 July 2025), filled in as far as the corpus knows. What only the provider knows is left open and marked.
"""

from collections import Counter
from typing import Any

from puna.corpus.cards.markdown import READERS, largest, paragraphs, table
from puna.corpus.settings import CorpusSettings, SourceSettings

OPEN = "*to be filled in by the provider*"
# Readers of formats in which public sites publish their content.
PUBLIC = ("wikipedia", "stackexchange", "arxiv", "github")
NONE_KNOWN = f"None that this corpus knows of; {OPEN}"


def public_summary(settings: CorpusSettings, counts: dict[str, Any]) -> str:
    """Write the summary in Markdown, from the settings and the counts of the documents stage."""
    by_origin: dict[str, list[SourceSettings]] = {}
    for source in settings.sources:
        by_origin.setdefault(_origin(source), []).append(source)

    def listed(origin: str, with_addresses: bool = False, none: str = NONE_KNOWN) -> str:
        sources = by_origin.get(origin, [])
        return _sources(sources, counts, with_addresses) if sources else none

    crawled = _crawled(by_origin["crawled"], counts) if "crawled" in by_origin else "None."
    other = listed("", with_addresses=True, none="None.")
    if "" in by_origin:
        other += f"\nWhether these are public, private or others: {OPEN} (key `origin`)"
    texts = [
        "# Public summary of training content",
        "## 1. General information",
        _general_information(counts),
        "## 2. List of data sources",
        "### 2.1 Publicly available datasets",
        listed("public", with_addresses=True, none="None."),
        "### 2.2 Private datasets obtained from third parties",
        listed("private"),
        "### 2.3 Data crawled and scraped from online sources",
        crawled,
        "### 2.4 User data",
        listed("user"),
        "### 2.5 Synthetic data",
        listed("synthetic"),
        "### 2.6 Other sources",
        other,
        "## 3. Aspects of data processing",
        "### 3.1 Reservations of rights",
        _opt_outs(settings, counts),
        "### 3.2 Removal of illegal content",
        f"No filter of this corpus is meant for that; {OPEN}",
        "### 3.3 Other information",
        "Filters, counts by reason and limits are in the data card.",
    ]
    return paragraphs(texts) + "\n"


def _general_information(counts: dict[str, Any]) -> str:
    kept = [steps["kept"] for steps in counts["sources"].values()]
    size, documents = (sum(own[unit] for own in kept) for unit in ("bytes", "documents"))
    languages: Counter[str] = Counter()
    for own in counts["languages"].values():
        languages.update(own)
    return (
        f"- Provider, contact, authorised representative: {OPEN}\n"
        f"- Model, versions, date of placement on the market: {OPEN}\n"
        f"- Modality: text. Size: {size:,} bytes of text, {documents:,} documents, before tokens are counted "
        "and sources repeated\n"
        f"- Languages by documents: {largest(languages, 24)}\n"
        f"- Period in which the data were collected, and whether it goes on: {OPEN}"
    )


def _opt_outs(settings: CorpusSettings, counts: dict[str, Any]) -> str:
    refused = 0
    for reasons in counts["dropped"].values():
        refused += sum(count for reason, count in reasons.items() if reason.startswith("opt-out"))
    return (
        "Opt-outs by URL pattern, domain and robots file, applied before a page is used: "
        f"{', '.join(settings.opt_out.paths()) or 'none were given'}; "
        f"records left out for them: {refused:,}. Other measures: {OPEN}"
    )


def _origin(source: SourceSettings) -> str:
    """Return the kind of source: what its recipe says, else what its files and reader say; "" for neither."""
    if source.origin:
        return source.origin
    online = all(_is_address(uri) for uri in source.uris)
    if source.reader == "warc" or (source.reader == "html" and online):
        return "crawled"
    return "public" if online or source.reader in PUBLIC else ""


def _is_address(uri: str) -> bool:
    return "://" in uri or uri.startswith("pypi:")


def _addresses(source: SourceSettings) -> str:
    shown = [uri.partition("#sha256=")[0] for uri in source.uris[:3]]
    shown = [uri if _is_address(uri) else "/".join(uri.rstrip("/").split("/")[-2:]) for uri in shown]
    if len(source.uris) > 3:
        shown.append(f"{len(source.uris) - 3} others")
    return ", ".join(shown)


def _sources(sources: list[SourceSettings], counts: dict[str, Any], with_addresses: bool) -> str:
    head, rows = ["dataset", "content", "documents", "bytes", "licences"], []
    for source in sources:
        kept, licences = counts["sources"][source.name]["kept"], counts["licences"][source.name]
        row = [source.name, READERS[source.reader], kept["documents"], kept["bytes"], largest(licences)]
        rows.append([*row, _addresses(source)] if with_addresses else row)
    return table([*head, "where"] if with_addresses else head, rows)


def _crawled(sources: list[SourceSettings], counts: dict[str, Any]) -> str:
    texts = [f"Crawler, its purpose and period: {OPEN}"]
    for source in sources:
        kept = counts["sources"][source.name]["kept"]
        hosts = counts["hosts"].get(source.name, {"hosts": 0, "top": {}})
        what = f"**{source.name}** ({READERS[source.reader]}; {_addresses(source)})"
        size = f"documents {kept['documents']:,}, bytes {kept['bytes']:,}, hosts {hosts['hosts']:,}"
        if hosts["top"]:
            texts.append(f"{what}: {size}. The tenth of them with most text, at most a thousand:")
            texts.append(table(["host", "bytes"], [[host, count] for host, count in hosts["top"].items()]))
        else:
            texts.append(f"{what}: {size}. None of the documents has an address.")
    return paragraphs(texts)
