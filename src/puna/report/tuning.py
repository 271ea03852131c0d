"""The report of a tuning as one HTML page: what was learned, what was forgotten, from which data.

Every section is a function from the figures of `summary.json` to HTML, "" where its data is absent.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from puna.report import chart
from puna.report.card import licence_of
from puna.report.frame import figure, frame, join
from puna.report.markup import NONE, Html, count, duration, escape, facts, number, table
from puna.report.page import costs, lineage, recipe

COUNTED = ("conversations", "tokens", "learned_tokens", "steps", "selected_step")
SHOWN = 12  # answers about passages, of each kind


def headline(data: Mapping[str, Any]) -> Html:
    """The figures that stand for the whole tuning, before and after."""
    before, after = _asked(data)
    tuned = (data.get("tuned") or {}).get(data.get("result")) or {}
    asked = len(after.get("questions") or ())
    return facts(
        {
            "plain questions right": f"{before['right']} → {after['right']} of {asked}" if asked else None,
            "answers that end": _change(before, after, "ended", "{:.0%}".format),
            "bits per byte": _change(before, after, "bits_per_byte", "{:.3f}".format),
            "conversations": count(tuned.get("conversations")),
            "learned tokens": count(tuned.get("learned_tokens")),
            "tuned in": duration(sum((data.get("seconds") or {}).values()) or None),
        },
        "tiles",
    )


def _asked(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    probe = data.get("probe") or {}
    return (probe.get("before") or {}, probe.get("after") or {}) if "after" in probe else ({}, {})


def _change(
    before: Mapping[str, Any], after: Mapping[str, Any], key: str, shown: Callable[[Any], str]
) -> str:
    old, new = (NONE if number(each.get(key)) is None else shown(each[key]) for each in (before, after))
    return NONE if new == NONE else f"{old} → {new}"


def told(data: Mapping[str, Any]) -> list[str]:
    """All warnings, in plain words."""
    probe, tuned = data.get("probe") or {}, data.get("tuned") or {}
    found = [str(text) for text in probe.get("warnings") or ()]
    if why := probe.get("skipped"):
        found.append(f"what it learned and forgot was not asked: {why}")
    for name, stage in tuned.items():
        if stage.get("overfitting"):
            found.append(f"{name}: {stage['overfitting']}")
        if stage.get("skipped_steps"):
            found.append(f"{name}: {stage['skipped_steps']} steps were not taken, since they were no numbers")
    return found


def learned(data: Mapping[str, Any]) -> Html:
    """Losses of each stage: of the steps, and held out."""
    parts: list[str] = []
    for name, stage in (data.get("tuned") or {}).items():
        validations = stage.get("validations") or []
        sets = dict.fromkeys(each for entry in validations for each in entry.get("losses") or {})
        rows = [
            [f"{entry.get('step', NONE):,}", *(_loss(entry["losses"].get(each)) for each in sets)]
            for entry in validations
        ]
        steps = [(entry.get("step"), entry.get("loss")) for entry in (data.get("losses") or {}).get(name, ())]
        lines = {"training": steps} if steps else {}
        lines |= {
            f"held out: {each}": [(entry.get("step"), entry["losses"].get(each)) for entry in validations]
            for each in sets
        }
        caption = f"{name}: nats per learned token"
        parts += [
            f"<h3>{escape(name)}</h3>",
            facts(
                {key.replace("_", " "): count(stage.get(key)) for key in COUNTED}
                | {"format": stage.get("format"), "last training loss": _loss(stage.get("loss"))}
            ),
            figure(caption, chart.line_chart(lines, "steps", "nats per token", faint=["training"])),
            table("Held-out loss, nats per learned token", ["after step", *sets], rows) if rows else "",
        ]
    return join(*parts)


def _loss(value: Any) -> str:
    found = number(value)
    return NONE if found is None else f"{found:.3f}"


def forgotten(data: Mapping[str, Any]) -> Html:
    """The retention probe: each plain question before and after."""
    before, after = _asked(data)
    if not after:
        return Html("")
    pairs = list(zip(before["questions"], after["questions"], strict=True))
    pairs.sort(
        key=lambda pair: (pair[0]["right"] <= pair[1]["right"], pair[0]["right"])
    )  # lost, gained, kept
    note = (
        "Plain questions of world knowledge, asked before and after, each with its likeliest answer. An "
        "answer is right where an accepted word stands in it, whatever the sentence around it says. What was "
        "lost stands first, then what was gained."
    )
    known = [pair for pair in pairs if pair[0]["right"] or pair[1]["right"]]
    unknown = [pair for pair in pairs if pair not in known]
    told = f"<details><summary>Show the {len(unknown)} that neither answered</summary>"
    return join(
        f'<p class="soft">{note}</p>',
        _pairs("Plain questions", known) if known else "",
        *((told, _pairs("Answered by neither", unknown), "</details>") if unknown else ()),
    )


def _pairs(caption: str, pairs: Sequence[tuple[Any, Any]]) -> str:
    rows = [
        [old["question"], _mark(old["right"]), old["answer"], _mark(new["right"]), new["answer"]]
        for old, new in pairs
    ]
    head = ["question", "before", "answer", "after", "answer"]
    shown = table(caption, head, rows, words=(2, 4), shown=False)
    return f'<div class="paper">{shown}</div>'


def _mark(right: Any) -> Html:
    return Html("<strong>right</strong>" if right else "wrong")


def side_by_side(data: Mapping[str, Any]) -> Html:
    """Answers to the same prompts, before and after."""
    before, after = _asked(data)
    pairs = zip(before.get("samples") or (), after.get("samples") or (), strict=False)
    return join(*(_beside(old["prompt"], {"before": old, "after": new}) for old, new in pairs))


def _beside(prompt: str, answers: Mapping[str, Mapping[str, Any]]) -> str:
    told = (
        f'<div><p class="soft">{name}{", cut" if each.get("ended") is False else ""}</p>'
        f'<div class="sample" dir="auto">{escape(each["answer"])}</div></div>'
        for name, each in answers.items()
    )
    return join(f"<h3>{escape(prompt)}</h3>", join(*told, look="columns"))


def documents(data: Mapping[str, Any]) -> Html:
    """Held-out questions on one's own documents, from memory and with the passage to read."""
    asked = data.get("passages") or {}
    after = asked.get("after") or {}
    if not after.get("without"):
        return Html("")
    rows = [
        [f"{when} tuning", *(_share(asked[when][kind]) for kind in ("without", "with"))]
        for when in ("before", "after")
    ]
    pairs = list(zip(after["without"], after["with"], strict=True))[:SHOWN]
    examples = [
        _beside(
            old["question"], {f"from memory, {_mark(old['right'])}": old, f"read, {_mark(new['right'])}": new}
        )
        + f'<p class="soft">The passage: {escape(old["text"])}</p>'
        for old, new in pairs
    ]
    return join(
        f'<p class="lead">{escape(asked.get("advice", ""))}</p>',
        table("Answers right", ["", "from memory", "with the passage in the prompt"], rows),
        '<p class="soft">An answer is right where it holds half of the words of the passage that the '
        "question does not tell. The questions were not learned; their texts were.</p>",
        "<details><summary>Show the answers after tuning</summary>",
        *examples,
        "</details>",
    )


def _share(answers: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(bool(each['right']) for each in answers)} of {len(answers)}"


def sets(data: Mapping[str, Any]) -> Html:
    """Data sets with their licences, what was left out of them, and what the audit found."""
    rows = []
    for name, one in (data.get("sets") or {}).items():
        train, held_out = one.get("train") or {}, one.get("held_out") or {}
        sizes = (f"{part.get('conversations', 0):,}" for part in (train, held_out))
        found = (f"{kind} {times:,}" for kind, times in (one.get("findings") or {}).items() if times)
        learned_tokens, dropped = count(train.get("learned_tokens")), count(one.get("dropped"))
        rows.append(
            [name, licence_of(name, one), *sizes, learned_tokens, dropped, ", ".join(found) or "nothing"]
        )
    head = ["set", "licence", "trained on", "held out", "learned tokens", "too long", "what the audit found"]
    if not rows:
        return Html("")
    return join('<div class="paper">', table("Sets", head, rows, words=(1, 6), shown=False), "</div>")


SECTIONS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Html]], ...] = (
    ("learned", "What it learned", learned),
    ("documents", "Your documents", documents),
    ("forgotten", "What it forgot", forgotten),
    ("answers", "Answers side by side", side_by_side),
    ("data", "Data", sets),
    ("cost", "Cost", costs),
    ("lineage", "Lineage", lineage),
    ("recipe", "Recipe", recipe),
)


def render(data: Mapping[str, Any]) -> str:
    """The whole page. data: the figures of `summary.json`, any of which may be absent; its `losses` are those
    of the steps of each stage, by its name."""
    machine, base = data.get("machine") or {}, data.get("base")
    where = (data.get("date"), data.get("puna") and f"Puna {data['puna']}", machine.get("cpu"))
    warned = "".join(f'<p class="lead">Warning: {escape(text)}</p>' for text in told(data))
    head = join(
        f"<p>tuned from {escape(base)}</p>" if base else "",
        f'<p class="soft">{escape(" · ".join(str(item) for item in where if item))}</p>\n',
        headline(data),
        warned or '<p class="lead">Nothing to warn of.</p>',
    )
    sections = [(key, title, section(data)) for key, title, section in SECTIONS]
    return frame(data.get("recipe") or "a tuning", "Puna tuning report", head, sections)
