"""Sections of how good the model is: verdict, scores beside the baselines, samples."""

from collections.abc import Mapping, Sequence
from typing import Any

from puna.report import chart
from puna.report.frame import figure, join
from puna.report.markup import NONE, Html, escape, figures, mean, number, numbers, size, table

# In the order in which they are shown.
METHODS = {"model": "model", "five_gram": "5-gram", "unigram": "unigram", "xz": "xz"}
ENOUGH_DOCUMENTS, ENOUGH_TOKENS = 8, 20_000  # held out of a source; a score over less is told to be unsure
BY_HEART = 0.6  # of the held-out loss, mean of sources: a training loss below that is told
WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def verdict(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Say in plain words whether the model needs fewer bits than xz and unigram on every source, and on which
    sources it wins and loses against the 5-gram, and by how much.

    Equal is not better. A score that is missing or not finite is not counted, and said to be missing; but a
    method that no source has was not asked for.
    """
    present = {method for methods in scores.values() for method in methods}
    lost: dict[str, list[str]] = {}
    missing = compared = 0
    gaps: dict[str, float] = {}
    for source, methods in scores.items():
        model = number(methods.get("model"))
        for method in [method for method in ("xz", "unigram", "five_gram") if method in present]:
            other = number(methods.get(method))
            if model is None or other is None:
                missing += 1
            elif method == "five_gram":
                gaps[source] = model / other - 1 if other else 0.0
            else:
                compared += 1
                if model >= other:
                    lost.setdefault(method, []).append(source)
    sentences = []
    if compared and lost:
        named = "; ".join(f"not {METHODS[method]} on {_listed(own)}" for method, own in lost.items())
        sentences.append(f"the model does not beat xz and unigram on every source ({named})")
    elif compared:
        everywhere = "wherever both are known" if missing else "on every source"
        sentences.append(f"the model beats xz and unigram {everywhere}")
    if gaps:
        sentences.append(f"{'it' if sentences else 'the model'} {_against_five_gram(gaps)}")
    if not sentences:
        return ""
    gap = f" ({missing} score{'s are' if missing > 1 else ' is'} missing)" if missing else ""
    return f"In bits per byte of held-out text, {'; '.join(sentences)}{gap}."


def _against_five_gram(gaps: Mapping[str, float]) -> str:
    """Wins and losses, the losses first. gaps: how many more bits the model needs, as a share, by source."""
    lost = {source: gap for source, gap in gaps.items() if gap >= 0}
    won = {source: -gap for source, gap in gaps.items() if gap < 0}
    if not (lost and won):
        verb, found, more = ("loses to", lost, "more") if lost else ("beats", won, "fewer")
        on = f"on {_all(list(found))}"
        return f"{verb} the 5-gram {on}, {_span(found)} {more} bits"
    return (
        f"loses to the 5-gram on {_word(len(lost))} of {_word(len(gaps))} ({', '.join(lost)}: {_span(lost)} "
        f"more bits) and beats it on {_word(len(won))} ({', '.join(won)}: {_span(won)} fewer bits)"
    )


def _span(shares: Mapping[str, float]) -> str:
    """ "3 to 5%"."""
    low, high = (figures(100 * share, 2) for share in (min(shares.values()), max(shares.values())))
    return f"{low}%" if low == high else f"{low} to {high}%"


def _listed(names: list[str]) -> str:
    """ "pages, news and code"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _all(sources: list[str]) -> str:
    if len(sources) < 3:
        return "both" if len(sources) == 2 else sources[0]
    return f"all {_word(len(sources))}"


def _word(count: int) -> str:
    return WORDS[count] if count < len(WORDS) else f"{count:,}"


def unsure(
    mixture: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """Name the sources whose scores rest on little held-out text, and those where other held-out documents
    might turn the comparison with the 5-gram; empty where there are none."""
    return " ".join(told for told in (_too_few(mixture), _open(intervals or {})) if told)


def _open(intervals: Mapping[str, Mapping[str, Any]]) -> str:
    spans = {source: _percents(known.get("model_over_five_gram")) for source, known in intervals.items()}
    found = [
        f"{source} ({_signed(span[0])} to {_signed(span[1])}%)"
        for source, span in spans.items()
        if span and span[0] < 0 < span[1]
    ]
    if not found:
        return ""
    return f"Other documents might turn the comparison with the 5-gram on {', '.join(found)}."


def _percents(ratios: Any) -> tuple[float, float] | None:
    """Two ratios as percent more, or none where they are not two numbers."""
    low, high = (number(value) for value in ratios) if ratios and len(ratios) == 2 else (None, None)
    return None if low is None or high is None else (100 * (low - 1), 100 * (high - 1))


def _signed(percent: float) -> str:
    return f"{percent:+.1f}".replace("-", "\N{MINUS SIGN}")


def _too_few(mixture: Mapping[str, Mapping[str, Any]]) -> str:
    few = []
    for source, part in mixture.items():
        documents, tokens = number(part.get("held_out_documents")), number(part.get("held_out_tokens"))
        if documents is None or tokens is None:
            continue
        if documents < ENOUGH_DOCUMENTS or tokens < ENOUGH_TOKENS:
            plural = "" if documents == 1 else "s"
            few.append(f"{source} ({documents:,.0f} document{plural}, {tokens:,.0f} tokens)")
    if not few:
        return ""
    return (
        f"Too little is held out of {', '.join(few)} to be sure of the score: {ENOUGH_DOCUMENTS} documents "
        f"and {ENOUGH_TOKENS:,} tokens would be enough."
    )


def five_gram_note(data: Mapping[str, Any]) -> str:
    """Say how much of the training tokens the 5-gram learned from; empty where it was all of them."""
    tokens = data.get("five_gram_tokens") or {}
    learned, everything = number(tokens.get("learned")), number(tokens.get("all"))
    if learned is None or everything is None or learned >= everything:
        return ""
    return f"The 5-gram learned from {learned:,.0f} of {everything:,.0f} training tokens."


def by_heart(losses: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]]) -> str:
    """Say that the loss on training batches ended far below that on held-out documents; empty where not."""
    seen = mean(entry.get("loss") for entry in losses[-max(1, len(losses) // 20) :])
    unseen = mean(((validation or [{}])[-1].get("losses") or {}).values())
    if seen is None or unseen is None or seen > BY_HEART * unseen:
        return ""
    return (
        f"The loss on training batches ended at {seen:.2f}, far below {unseen:.2f} on held-out documents: "
        "the model has learnt much of its text by heart; more documents or fewer steps would help."
    )


def scores(data: Mapping[str, Any]) -> Html:
    """Bits per byte beside the baselines."""
    found, sizes = data.get("bits_per_byte") or {}, data.get("held_out_bytes") or {}
    if not found:
        return Html("")
    present: set[str] = {method for methods in found.values() for method in methods}
    order = [method for method in METHODS if method in present] + sorted(present - set(METHODS))
    compared = "five_gram" in present
    rows = []
    for source, methods in found.items():
        values = {method: number(methods.get(method)) for method in order}
        best = min(numbers(values.values()), default=None)
        cells = [_score(value, best) for value in values.values()]
        own, five = values.get("model"), values.get("five_gram")
        known = (data.get("intervals") or {}).get(source) or {}
        ratio = _difference(own / five - 1) if own is not None and five else NONE
        against = [ratio, _between(known.get("model_over_five_gram"))] if compared else []
        rows.append([source, size(sizes.get(source)), *cells, *against])
    labels: dict[str, str] = {method: METHODS.get(method, method) for method in order}
    groups = {source: {labels[name]: own.get(name) for name in order} for source, own in found.items()}
    heads = ["model against 5-gram", "between (95%)"] if compared else []
    note = unsure(data.get("mixture") or {}, data.get("intervals"))
    bounds = ""
    if compared:
        bounds = "The comparison with the 5-gram lies between the bounds with 95%, by drawing the held-out "
        bounds += "documents again. "
        if any(row[-1] == NONE for row in rows):
            bounds += f"{NONE} stands where a single document is held out, or bounds were not taken. "
    return join(
        '<p class="soft">What each method needs to send the held-out documents and where each ends, over '
        "their size; lower is better, the best of a row is bold. All but xz learned from the training "
        "documents and begin each document anew; xz sees nothing but the documents it packs, one after the "
        f"other, a byte behind each. {bounds}{escape(five_gram_note(data))}</p>",
        table("Bits per byte of held-out documents", ["source", "text", *labels.values(), *heads], rows),
        f'<p class="soft">{escape(note)}</p>' if note else "",
        figure(
            "Bits per byte, shorter is better",
            chart.bars(groups, "bits per byte by source and method", "{:.3f}".format),
        ),
    )


def _score(value: float | None, best: float | None) -> str:
    """A score as a cell, the best one bold."""
    if value is None:
        return NONE
    return Html(f"<strong>{value:.3f}</strong>") if value == best else f"{value:.3f}"


def _difference(share: float) -> str:
    if not share:
        return "as many"
    return f"{figures(100 * abs(share), 2)}% {'more' if share > 0 else 'fewer'}"


def _between(ratios: Any) -> str:
    """Bounds of a ratio, in percent more."""
    span = _percents(ratios)
    return f"{_signed(span[0])} to {_signed(span[1])}%" if span else NONE


def samples(data: Mapping[str, Any]) -> Html:
    """What the model writes, and what it wrote while it was trained."""
    told = [_sample(sample, "") for sample in data.get("samples") or []]
    earlier = [
        _sample(sample, f"after {figures(found.get('step'), 7)} steps, ")
        for found in data.get("earlier_samples") or []
        for sample in (found.get("samples") or [])[:1]
    ]
    if not told:
        return Html("")
    return join(
        '<p class="soft">The prompt is bold; the model wrote the rest.</p>',
        join(*told, look="columns"),
        *(["<h3>On the way</h3>", join(*earlier, look="columns")] if earlier else []),
    )


def _sample(sample: Mapping[str, Any], when: str) -> str:
    heat = figures(sample.get("temperature"))
    note = f'<p class="soft">{when}temperature {heat}</p>' if heat != NONE else ""
    text = f"<b>{escape(sample.get('prompt', ''))}</b>{escape(sample.get('text', ''))}"
    return f'<div><div class="sample" dir="auto">{text}</div>{note}</div>'
