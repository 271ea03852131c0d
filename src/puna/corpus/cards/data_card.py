"""The data card of a corpus: its sources, filters, and what each step dropped; data_card.md has the words."""

from typing import Any

from puna.corpus.cards.markdown import READERS, largest, period, table
from puna.corpus.settings import CorpusSettings
from puna.text.lists import filled


def data_card(settings: CorpusSettings, counts: dict[str, Any]) -> str:
    """Write the card in Markdown, from the settings and the counts of the documents stage."""
    steps, dropped = counts["sources"], counts["dropped"]
    names = [source.name for source in settings.sources]
    kept = {name: steps[name]["kept"] for name in names}
    sources = []
    for source in settings.sources:
        name = source.name
        size = [steps[name]["found"]["documents"], kept[name]["documents"], kept[name]["bytes"]]
        mostly = [largest(counts["licences"][name]), largest(counts["languages"][name])]
        sources.append([name, READERS[source.reader], *size, period(counts["months"][name]), *mostly])
    order = list(next(iter(steps.values())))
    passed = [[name, *(steps[name][step]["documents"] for step in order)] for name in names]
    reasons = sorted({reason for name in names for reason in dropped[name]})
    by_reason = [[reason, *(dropped[name].get(reason, 0) for name in names)] for reason in reasons]
    cuts = ["kept", "left out", "documents that lost over half"]
    left_out = [[name, *(counts["characters"][name].get(cut, 0) for cut in cuts)] for name in names]
    head = ["records found", "documents kept", "bytes kept", "dates", "licences", "languages"]
    return filled(
        __file__,
        "data_card.md",
        documents=f"{sum(own['documents'] for own in kept.values()):,}",
        bytes=f"{sum(own['bytes'] for own in kept.values()):,}",
        sources=table(["source", "what", *head], sources),
        steps=table(["source", *order], passed),
        reasons=table(["reason", *names], by_reason) if by_reason else "None was.",
        left_out=table(["source", "characters kept", "characters left out", cuts[2]], left_out),
        filters="\n".join(f"- {line}" for line in _filters(settings, counts)),
        personal_data=_personal_data(settings),
    )


def _personal_data(settings: CorpusSettings) -> str:
    if not settings.privacy:
        return "nothing was removed; names, addresses and numbers that the sources hold are in the text."
    kinds = " and ".join(settings.privacy)
    return f"{kinds} replaced in texts, titles and addresses by rules, which miss some and take some others."


def _filters(settings: CorpusSettings, counts: dict[str, Any]) -> list[str]:
    def sources_with(key: str) -> str:
        return ", ".join(s.name for s in settings.sources if getattr(s, key) not in (False, "off"))

    lines = [
        f"length: at least {settings.minimum_characters} characters",
        _languages(settings),
        f"opt-outs: {', '.join(settings.opt_out.paths()) or 'none given'}",
    ]
    for name, seen in counts["lines"].items():
        lines.append(f"lines seen before ({name}): {_removed(seen)}")
    if c4 := sources_with("c4"):
        seen = _removed(counts["spans"])
        lines.append(f"C4's page heuristics: {c4}; sentences in threes that came before: {seen}")
    for name, (head, tail) in counts["learnt"]["perplexity"].items():
        kept = largest(counts["buckets"].get(name, {}))
        lines.append(f"perplexity ({name}): head below {head:.1f}, tail above {tail:.1f}; kept {kept}")
    if "reference" in counts["learnt"]:
        cited, threshold = sources_with("reference"), counts["learnt"]["reference"]
        lines.append(f"likeness to pages that Wikipedia cites ({cited}): score {threshold:.3f} or more")
    lines.append("exact duplicates: none kept, over all sources")
    if settings.uses_minhash:
        threshold = settings.near_duplicate_threshold
        lines.append(
            f"near duplicates: dropped at an estimated Jaccard similarity of {threshold} or more, over all "
            "sources; at least nine in ten pairs at this similarity are found, some are not"
        )
    if books := sources_with("books"):
        lines.append(f"books that overlap with an earlier one by more than 90%: none kept ({books})")
    return lines


def _languages(settings: CorpusSettings) -> str:
    line = "languages: all, however sure the model is"
    if settings.languages:
        codes = ", ".join(settings.languages)
        line = f"languages: {codes}, at a score of {settings.language_score} or more"
    for source in settings.sources:
        if source.languages is not None:
            line += f"; {source.name}: {', '.join(source.languages) or 'all'}"
    return line


def _removed(seen: dict[str, int]) -> str:
    return f"{seen['removed']:,} of {seen['found']:,} removed, scopes: {seen['scopes']}"
