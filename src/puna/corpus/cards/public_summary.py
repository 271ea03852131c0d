"""The public summary of training content that European law asks of model providers.

public_summary.md has the questions of the European Commission's template (Regulation (EU) 2024/1689, article
53(1)(d); Communication C(2025) 8311 of 5 December 2025). Here they are answered as far as the corpus knows;
what only the provider knows is left open and marked.
"""

from collections import Counter
from typing import Any

from puna.corpus.cards.markdown import READERS, largest, period, table
from puna.corpus.settings import CorpusSettings, SourceSettings
from puna.text.lists import filled

OPEN = "*to be filled in by the provider"
ORIGINS = ("public", "licensed", "private", "crawled", "user", "synthetic", "other")
# Readers of formats in which public sites publish their content, and marks of a crawl that is published.
PUBLIC = ("wikipedia", "stackexchange", "arxiv", "github")
PUBLISHED_CRAWLS = ("CC-MAIN-", "commoncrawl.org/")
LARGE = 0.03  # of the text of all publicly available datasets: above that the template asks for each by name
BILLION = 1_000_000_000
BYTES_PER_TOKEN = 4  # an estimate, for text as a whole


def public_summary(settings: CorpusSettings, counts: dict[str, Any]) -> str:
    """Write the summary in Markdown, from the settings and the counts of the documents stage."""
    read = tuple(source for source in settings.sources if source.reader != "none")
    settings = settings.model_copy(update={"sources": read})
    by_origin: dict[str, list[SourceSettings]] = {origin: [] for origin in ORIGINS}
    for source in settings.sources:
        by_origin[_origin(source) or "other"].append(source)
    values = {"open": OPEN}
    for origin, own in by_origin.items():
        values[f"{origin}_used"] = "Yes" if own else "No, as far as this corpus goes"
        values[f"{origin}_modality"] = "Text" if own else "none"
        values[origin] = _sources(own, counts, with_addresses=origin in ("public", "crawled", "other"))
    asked = {"user": "services and products", "synthetic": "how they were used", "other": "what they are"}
    for origin, what in asked.items():
        if by_origin[origin]:
            values[origin] += f"\n\n{OPEN}: {what}*"
    if by_origin["user"]:
        values["user_used"] = f"Yes, to this or the other of these two questions; {OPEN}: to which*"
    if by_origin["other"]:
        values["other"] += " Of sources of your own, the key `origin` of a recipe says where they belong."
    return filled(
        __file__,
        "public_summary.md",
        **values,
        **_general(settings, counts),
        **_public_datasets(by_origin["public"], counts),
        **_crawl(by_origin["crawled"], counts),
        generators=f"{OPEN}: names*" if by_origin["synthetic"] else "none",
        opt_outs=_opt_outs(settings, counts),
        illegal=_illegal(settings),
        processing=_processing(settings),
    )


def _general(settings: CorpusSettings, counts: dict[str, Any]) -> dict[str, str]:
    kept = [steps["kept"] for steps in counts["sources"].values()]
    size, documents = (sum(own[unit] for own in kept) for unit in ("bytes", "documents"))
    languages: Counter[str] = Counter()
    content: Counter[str] = Counter()
    for source in settings.sources:
        languages.update(counts["languages"][source.name])
        content[READERS[source.reader]] += counts["sources"][source.name]["kept"]["bytes"]
    measured = f"{size:,} bytes, {documents:,} documents"
    rows = [["Text", f"{_size_range(size)} ({measured})", f"by bytes: {largest(content, len(content))}"]]
    rows.append(["Image, audio, video, other", "none", "none"])
    dated = [source.name for source in settings.sources if counts["months"][source.name]]
    others = [source.name for source in settings.sources if source.name not in dated]
    latest = max((month for name in dated for month in counts["months"][name]), default="")
    told = [f"{_month(latest)} (latest capture or change), of {', '.join(dated)}"] if latest else []
    told += [f"{OPEN}: of {', '.join(others)}*"] if others else []
    return {
        "modalities": table(["Modality", "Training data size", "Types of content"], rows),
        "latest": "; ".join([*told, f"{OPEN}: whether the model is trained on new data after that*"]),
        "languages": largest(languages, 40),
    }


def _size_range(size: int) -> str:
    """Return the template's range for a text, in tokens. A token has at least one byte."""
    if size < BILLION:
        return "less than 1 billion tokens"
    estimate = f", at about {BYTES_PER_TOKEN} bytes a token"
    if size < BYTES_PER_TOKEN * BILLION:
        return f"less than 1 billion tokens{estimate}"
    above = size > BYTES_PER_TOKEN * 10_000 * BILLION
    return ("more than 10 trillion tokens" if above else "1 billion to 10 trillion tokens") + estimate


def _month(month: str) -> str:
    """Write "2024-03" as the template does: 03/2024."""
    return "/".join(reversed(month.split("-")))


def _public_datasets(sources: list[SourceSettings], counts: dict[str, Any]) -> dict[str, str]:
    sizes = {source.name: counts["sources"][source.name]["kept"]["bytes"] for source in sources}
    large = [source for source in sources if sizes[source.name] > LARGE * sum(sizes.values())]
    small = [source for source in sources if source not in large]
    return {
        "large": _sources(large, counts, with_addresses=True),
        "small": _sources(small, counts, with_addresses=True),
    }


def _crawl(sources: list[SourceSettings], counts: dict[str, Any]) -> dict[str, str]:
    questions = {
        "crawler_names": "names",
        "crawler_purposes": "purposes",
        "crawler_behaviour": "such as what it does with robots.txt, captchas and paywalls",
    }
    answers = {key: f"{OPEN}: {what}*" if sources else "none" for key, what in questions.items()}
    months = [month for source in sources for month in counts["months"][source.name]]
    span = f"{_month(min(months))} to {_month(max(months))}" if months else f"{OPEN}: first and last month*"
    domains = []
    for source in sources:
        hosts = counts["hosts"].get(source.name, {"hosts": 0, "top": {}, "pooled": 0, "listed": 0})
        domains.append(f"\n\n**{source.name}**: {_hosts(hosts)}\n\n")
        if hosts["top"]:
            domains.append(table(["host", "bytes"], [[host, count] for host, count in hosts["top"].items()]))
    return answers | {"crawl_period": span if sources else "none", "domains": "".join(domains) or "none"}


def _hosts(hosts: dict[str, Any]) -> str:
    """Say which hosts of a source are listed."""
    if not hosts["top"]:
        return "none of the documents has an address."
    told = f"the tenth of {hosts['hosts']:,} hosts with most text, {hosts['listed']:,}"
    if hosts["listed"] > len(hosts["top"]):
        told += f"; the first {len(hosts['top']):,} are here, all in `domains.csv`"
    if hosts["pooled"]:
        told += f"; {hosts['pooled']:,} bytes are of later hosts, counted together and not ranked"
    return told + ". Small and medium-sized enterprises may list a twentieth, at most 1,000."


def _opt_outs(settings: CorpusSettings, counts: dict[str, Any]) -> str:
    refused = 0
    for reasons in counts["dropped"].values():
        refused += sum(count for reason, count in reasons.items() if reason.startswith("opt-out"))
    return (
        "opt-outs by URL pattern, domain and robots file, applied before a page is used: "
        f"{', '.join(settings.opt_out.paths()) or 'none were given'}; "
        f"records left out for them: {refused:,}. {OPEN}: other protocols, and those that third parties "
        "honoured*"
    )


def _illegal(settings: CorpusSettings) -> str:
    told = "no filter of this corpus is meant for that"
    if settings.bad_words:
        told = f"pages with a word of {settings.bad_words} were dropped under C4's heuristics"
    return f"{told}. {OPEN}: other measures*"


def _processing(settings: CorpusSettings) -> str:
    private = f"personal data replaced by rules: {', '.join(settings.privacy)}" if settings.privacy else ""
    parts = [
        f"texts under {settings.minimum_characters} characters dropped",
        f"languages kept: {', '.join(settings.languages) or 'all'}",
        "equal and nearly equal documents dropped" if settings.uses_minhash else "equal documents dropped",
        private or "personal data not looked for",
    ]
    return f"{'; '.join(parts)}. All filters, counts by reason and limits are in the data card."


def _origin(source: SourceSettings) -> str:
    """Return the kind of source: what its recipe says, else what its files and reader say; "" for neither."""
    if source.origin:
        return source.origin
    if all(any(mark in uri for mark in PUBLISHED_CRAWLS) for uri in source.uris):
        return "public"
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
    """Return a table of sources behind an empty line, "none" where there are none."""
    head, rows = ["dataset", "content", "documents", "bytes", "period", "licences"], []
    for source in sources:
        kept, licences = counts["sources"][source.name]["kept"], counts["licences"][source.name]
        row = [source.name, READERS[source.reader], kept["documents"], kept["bytes"]]
        row += [period(counts["months"][source.name]), largest(licences)]
        rows.append([*row, _addresses(source)] if with_addresses else row)
    return "\n\n" + table([*head, "where"] if with_addresses else head, rows) if rows else "none"
