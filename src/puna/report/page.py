"""The report of a run as one HTML page: no script, no network, nothing that differs between two calls with
equal data.

Every section is a function from the run's data to HTML, "" where its data is absent; `SECTIONS` is their
order. Whatever comes from the data goes through `escape`, in `table`, `facts` or by hand; only what is of
type Html already is left as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.report import chart
from puna.report.markup import (
    NONE,
    Html,
    count,
    duration,
    energy,
    escape,
    facts,
    figures,
    number,
    percent,
    size,
    table,
    total,
)

METHODS = {
    "model": "model",
    "five_gram": "5-gram",
    "unigram": "unigram",
    "xz": "xz",
}  # in the order in which they are shown
MOST_ROWS = 12  # of a table of counts; the rest is summed up in a last row

STYLE = Path(__file__).with_name("page.css")


def _part(value: Any) -> Html:
    """A share of one as a cell with a bar behind it."""
    found = number(value)
    if found is None:
        return Html(NONE)
    return Html(
        f'<span class="share" style="--part:{100 * min(max(found, 0), 1):.1f}%">{percent(found)}</span>'
    )


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


def figure(caption: str, drawing: Html) -> Html:
    """A drawing under its caption; "" without a drawing."""
    return Html(
        f"<figure><figcaption><b>{escape(caption)}</b></figcaption>{drawing}</figure>" if drawing else ""
    )


def _join(*parts: str, look: str = "") -> Html:
    body = "".join(parts)
    return Html(f'<div class="{look}">{body}</div>' if look and body else body)


def _kept(data: Mapping[str, Any]) -> float | None:
    """Documents that came through the last step of every source."""
    steps = [list((source.get("steps") or {}).values()) for source in (data.get("sources") or {}).values()]
    return total(found[-1].get("documents") for found in steps if found)


def headline(data: Mapping[str, Any]) -> Html:
    """The figures that stand for the whole run."""
    losses, stages = data.get("losses") or [{}], data.get("stages") or []
    scores = [number(methods.get("model")) for methods in (data.get("bits_per_byte") or {}).values()]
    known = [score for score in scores if score is not None]
    return facts(
        {
            "documents": count(_kept(data)),
            "parameters": count((data.get("model") or {}).get("parameters")),
            "tokens trained": count(losses[-1].get("tokens") or data.get("tokens")),
            "bits per byte, mean": f"{sum(known) / len(known):.3f}" if known else None,
            "wall time": duration(total(stage.get("seconds") for stage in stages)),
            "energy": energy((data.get("energy") or {}).get("kwh")),
        },
        "tiles",
    )


def verdict(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence: does the model need fewer bits than xz and unigram on every source, and on how many fewer
    than the 5-gram?

    Equal is not better. A score that is missing or not finite is not counted, and said to be missing; but a
    method that no source has was not asked for.
    """
    present = {method for methods in scores.values() for method in methods}
    lost: list[str] = []
    missing = compared = 0
    against_five: list[bool] = []
    for source, methods in scores.items():
        model = number(methods.get("model"))
        for method in [method for method in ("xz", "unigram", "five_gram") if method in present]:
            other = number(methods.get(method))
            if model is None or other is None:
                missing += 1
            elif method == "five_gram":
                against_five.append(model < other)
            else:
                compared += 1
                lost += [f"{METHODS[method]} on {source}"] if model >= other else []
    clauses = []
    if compared and lost:
        clauses.append(f"the model does not beat xz and unigram on every source (not {', '.join(lost)})")
    elif compared:
        clauses.append(
            "the model beats xz and unigram on every source"
            if not missing
            else "the model beats xz and unigram wherever both are known"
        )
    if against_five:
        clauses.append(
            f"{'it' if clauses else 'the model'} beats the 5-gram on {sum(against_five)} of "
            f"{len(against_five)}"
        )
    if not clauses:
        return ""
    gap = f" ({missing} score{'s are' if missing > 1 else ' is'} missing)" if missing else ""
    return f"In bits per byte of held-out text, {' and '.join(clauses)}{gap}."


def five_gram_note(data: Mapping[str, Any]) -> str:
    """Say how much of the training tokens the 5-gram learned from; empty where it was all of them."""
    tokens = data.get("five_gram_tokens") or {}
    learned, everything = number(tokens.get("learned")), number(tokens.get("all"))
    if learned is None or everything is None or learned >= everything:
        return ""
    return f"The 5-gram learned from {learned:,.0f} of {everything:,.0f} training tokens."


def corpus(data: Mapping[str, Any]) -> Html:
    """The funnel of every source, what was dropped and why, licences and languages."""
    sources = {name: source.get("steps") or {} for name, source in (data.get("sources") or {}).items()}
    names = list(dict.fromkeys(step for steps in sources.values() for step in steps))
    drawings = (
        figure(
            f"{source}: documents after each step",
            chart.funnel(
                {step: found.get("documents") for step, found in steps.items()},
                f"documents of {source}, by step",
            ),
        )
        for source, steps in sources.items()
    )
    rows = [
        [
            source,
            *(
                f"{count(steps.get(step, {}).get('documents'))} · {size(steps.get(step, {}).get('bytes'))}"
                for step in names
            ),
        ]
        for source, steps in sources.items()
    ]
    return _join(
        _join(*drawings, look="cards"),
        table("Documents and bytes of text after each step", ["source", *names], rows) if names else "",
        crosstab("Dropped records, by reason", "reason", data.get("dropped") or {}),
        _join(
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
    pieces = tokenizer.get("longest_pieces") or []
    shown = "".join(f"<li>{escape(piece.replace(' ', '·'))}</li>" for piece in pieces)
    names = list(dict.fromkeys([*mixture, *per_token]))
    parts = {name: mixture.get(name) or {} for name in names}
    counted = ("documents", "held_out_documents", "train_tokens", "held_out_tokens")
    rows = []
    for name, part in parts.items():
        counts = [count(part.get(key)) for key in counted]
        share, epochs = _part(part.get("share")), figures(part.get("epochs"))
        rows.append([name, *counts, figures(per_token.get(name)), share, epochs])
    sums = (count(total(part.get(key) for part in parts.values())) for key in counted)
    return _join(
        facts(
            {
                "vocabulary": count(tokenizer.get("vocab_size")),
                "text it was trained on": size(total(used.values()) if isinstance(used, dict) else used),
                "time": duration(tokenizer.get("seconds")),
            }
        ),
        table(
            "Mixture: what is there, and how much of it training saw",
            [
                "source",
                "documents",
                "of these held out",
                "training tokens",
                "held-out tokens",
                "bytes per token",
                "share of training",
                "epochs",
            ],
            rows,
            foot=["all", *sums, "", "", ""] if len(names) > 1 else (),
        )
        if names
        else "",
        '<p class="soft">Longest pieces of the vocabulary, spaces as dots:</p>'
        f'<ul class="pieces">{shown}</ul>'
        if pieces
        else "",
    )


def model(data: Mapping[str, Any]) -> Html:
    """The shape of the model."""
    shape = data.get("model") or {}
    names = {
        "layers": "n_layers",
        "width": "dim",
        "heads": "n_heads",
        "key/value heads": "n_kv_heads",
        "SwiGLU width": "ffn_dim",
        "vocabulary": "vocab_size",
        "context, tokens": "sequence_length",
    }
    return facts(
        {
            "size": shape.get("size"),
            "parameters": count(shape.get("parameters")),
            **{
                name: f"{value:,.0f}"
                for name, key in names.items()
                if (value := number(shape.get(key))) is not None
            },
            "tokens per parameter": figures(shape.get("tokens_per_parameter")),
        }
    )


def training(data: Mapping[str, Any]) -> Html:
    """Losses over tokens, learning rate and gradient norm."""
    losses, validation = data.get("losses") or [], data.get("validation") or []

    def curve(key: str) -> list[tuple[Any, Any]]:
        return [(entry.get("tokens"), entry.get(key)) for entry in losses]

    steps, window = curve("loss"), max(1, len(losses) // 50)
    means = [
        (steps[end - 1][0], sum(known) / len(known))
        for end in range(window, len(steps) + 1, window)
        if (known := [value for _, loss in steps[end - window : end] if (value := number(loss)) is not None])
    ]
    each, mean = "training, each step", f"training, mean of {window} steps"
    sources = dict.fromkeys(source for entry in validation for source in entry.get("losses") or {})
    held_out = {
        source: [(entry.get("tokens"), (entry.get("losses") or {}).get(source)) for entry in validation]
        for source in sources
    }
    lines = {each: steps, mean: means} if window > 1 else {"training": steps}
    return _join(
        figure(
            "Loss on training batches, nats per token",
            chart.line_chart(lines, "tokens", "nats per token", faint=[each]),
        ),
        figure(
            "Loss on held-out documents, nats per token",
            chart.line_chart(held_out, "tokens", "nats per token"),
        ),
        figure(
            "Learning rate",
            chart.line_chart(
                {"learning rate": curve("learning_rate")}, "tokens", "learning rate", height=200
            ),
        ),
        figure(
            "Norm of the gradient before clipping",
            chart.line_chart({"gradient norm": curve("gradient_norm")}, "tokens", "norm", height=200),
        ),
        look="columns",
    )


def scores(data: Mapping[str, Any]) -> Html:
    """Bits per byte beside the baselines."""
    found, sizes = data.get("bits_per_byte") or {}, data.get("held_out_bytes") or {}
    if not found:
        return Html("")
    present: set[str] = {method for methods in found.values() for method in methods}
    order = [method for method in METHODS if method in present] + sorted(present - set(METHODS))
    rows = []
    for source, methods in found.items():
        values = {method: number(methods.get(method)) for method in order}
        best = min((value for value in values.values() if value is not None), default=None)
        cells = (
            Html(f"<strong>{value:.3f}</strong>")
            if value is not None and value == best
            else NONE
            if value is None
            else f"{value:.3f}"
            for value in values.values()
        )
        own, five = values.get("model"), values.get("five_gram")
        ratio = [f"{own / five:.2f}\xa0×" if own is not None and five else NONE]
        rows.append([source, size(sizes.get(source)), *cells, *(ratio if "five_gram" in present else [])])
    labels: dict[str, str] = {method: METHODS.get(method, method) for method in order}
    groups = {
        source: {labels[method]: methods.get(method) for method in order} for source, methods in found.items()
    }
    return _join(
        '<p class="soft">What each method needs to send the held-out documents and where each ends, over '
        "their size; lower is better, the best of a row is bold. All but xz learned from the training "
        "documents and begin each document anew; xz sees nothing but the documents it packs, one after the "
        f"other, a byte behind each. {escape(five_gram_note(data))}</p>",
        table(
            "Bits per byte of held-out documents",
            ["source", "text", *labels.values(), *(["model / 5-gram"] if "five_gram" in present else [])],
            rows,
        ),
        figure(
            "Bits per byte, shorter is better",
            chart.bars(groups, "bits per byte by source and method", "{:.3f}".format),
        ),
    )


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
    return _join(
        '<p class="soft">The prompt is bold; the model wrote the rest.</p>',
        _join(*told, look="columns"),
        *(["<h3>On the way</h3>", _join(*earlier, look="columns")] if earlier else []),
    )


def _sample(sample: Mapping[str, Any], when: str) -> str:
    heat = figures(sample.get("temperature"))
    note = f'<p class="soft">{when}temperature {heat}</p>' if heat != NONE else ""
    text = f"<b>{escape(sample.get('prompt', ''))}</b>{escape(sample.get('text', ''))}"
    return f'<div><div class="sample" dir="auto">{text}</div>{note}</div>'


def costs(data: Mapping[str, Any]) -> Html:
    """Speed, memory, energy, and the machine they belong to."""
    speed, spent, machine = (data.get(key) or {} for key in ("speed", "energy", "machine"))
    peak = number(speed.get("matmul_peak_flops"))
    memory = size(speed.get("peak_memory_bytes"))
    of_all = (
        f"{memory} of {size(machine.get('memory_bytes'))}"
        if memory != NONE and machine.get("memory_bytes")
        else memory
    )
    watts, pue, grid = (figures(spent.get(key)) for key in ("watts", "pue", "kg_co2_per_kwh"))
    power = f"{watts}\xa0W, {'measured' if spent.get('measured') else 'assumed'}" if watts != NONE else None
    return _join(
        facts(
            {
                "training": duration(speed.get("training_seconds")),
                "tokens per second": count(speed.get("tokens_per_second")),
                "share of the matrix-product peak": percent(speed.get("matmul_peak_share")),
                "matrix-product peak": f"{figures(peak / 1e9)}\xa0GFLOP/s" if peak is not None else None,
                "most memory held": of_all,
                "energy": energy(spent.get("kwh")),
                "carbon dioxide": f"{figures(1000 * kilograms)}\xa0g"
                if (kilograms := number(spent.get("kg_co2"))) is not None
                else None,
                "power": power,
                "overhead of the site (PUE)": pue,
                "grid": f"{grid}\xa0kg/kWh" if grid != NONE else None,
                "processor": machine.get("cpu"),
                "cores used": machine.get("cores"),
                **(data.get("versions") or {}),
            }
        ),
        '<p class="soft">kWh = power × hours × PUE; carbon dioxide = kWh × intensity of the grid.</p>'
        if spent
        else "",
    )


def lineage(data: Mapping[str, Any]) -> Html:
    """Which artifact was made from which."""
    stages = data.get("stages") or []
    if not stages:
        return Html("")
    whole = total(stage.get("seconds") for stage in stages)

    def cells(stage: Mapping[str, Any]) -> list[Any]:
        inputs = (
            f"{escape(name)} <code>{escape(mark)}</code>"
            for name, mark in (stage.get("inputs") or {}).items()
        )
        seconds = number(stage.get("seconds"))
        return [
            stage.get("stage", NONE),
            Html(f"<code>{escape(stage.get('fingerprint') or NONE)}</code>"),
            Html(", ".join(inputs) or NONE),
            duration(seconds),
            _part(seconds / whole if seconds is not None and whole else None),
            size(stage.get("bytes")),
            Html(f"<code>{escape(str(stage.get('digest') or NONE)[:12])}</code>"),
        ]

    head = ["stage", "fingerprint", "made from", "time", "share of time", "size", "digest"]
    return _join(
        figure(
            "What is made from what",
            chart.graph(
                {str(stage.get("stage")): list(stage.get("inputs") or {}) for stage in stages},
                "stages and their inputs",
            ),
        ),
        table("Artifacts", head, map(cells, stages), words=(1, 2, 6)),
        '<p class="soft">A fingerprint is of settings, code version and inputs; a digest is of the bytes '
        "that came out.</p>",
    )


def recipe(data: Mapping[str, Any]) -> Html:
    """The recipe as it was run."""
    text = data.get("recipe_toml")
    return Html(
        f"<details><summary>Show the recipe</summary><pre>{escape(text)}</pre></details>" if text else ""
    )


SECTIONS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Html]], ...] = (
    ("corpus", "Corpus", corpus),
    ("tokens", "Tokens", tokens),
    ("model", "Model", model),
    ("training", "Training", training),
    ("scores", "Scores", scores),
    ("samples", "Samples", samples),
    ("cost", "Cost", costs),
    ("lineage", "Lineage", lineage),
    ("recipe", "Recipe", recipe),
)


def render(data: dict[str, Any]) -> str:
    """The whole page. data: the figures of `summary.json` and the curves; any key may be absent."""
    machine, versions = data.get("machine") or {}, data.get("versions") or {}
    where = [
        data.get("date"),
        f"Puna {data['puna']}" if data.get("puna") else None,
        machine.get("cpu"),
        f"{machine['cores']} cores" if machine.get("cores") else None,
        f"torch {versions['torch']}" if versions.get("torch") else None,
    ]
    told = verdict(data.get("bits_per_byte") or {})
    head = _join(
        f'<p class="soft">{escape(" · ".join(str(item) for item in where if item))}</p>\n',
        headline(data),
        f'<p class="lead">{escape(told)}</p>' if told else "",
    )
    return frame(
        data.get("recipe") or "a run",
        "Puna report",
        head,
        [(key, title, section(data)) for key, title, section in SECTIONS],
    )


def frame(name: str, over: str, head: Html, sections: Sequence[tuple[str, str, Html]]) -> str:
    """A page: its title under a line that says what it is, what stands at its head, and the sections (key,
    title, body) that have one."""
    bodies = [(escape(key), escape(title), body) for key, title, body in sections if body]
    links = "\n".join(f'<a href="#{key}">{title}</a>' for key, title, _ in bodies)
    told = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{body}'
        "</section>\n"
        for key, title, body in bodies
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(name)} · {escape(over)}</title>
<style>
{STYLE.read_text("utf-8")}</style>
</head>
<body><div class="page">
<header>
<p class="over">{escape(over)}</p>
<h1>{escape(name)}</h1>
{head}
{f'<nav aria-label="Sections">{links}</nav>' if links else ""}
</header>
<main>
{told}</main>
</div></body>
</html>
"""
