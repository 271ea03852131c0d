"""The report of a run as one HTML page: no script, no network, nothing that differs between two calls with
equal data.

Every section is a function from the run's data to HTML, "" where its data is absent; `SECTIONS` is their
order. Whatever comes from the data goes through `escape`, in `table`, `facts` or by hand; only what is of
type Html already is left as it is.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.report import chart
from puna.report.frame import figure, frame, join, share_cell
from puna.report.inputs import corpus, tokens
from puna.report.markup import (
    NONE,
    Html,
    carbon,
    count,
    duration,
    energy,
    escape,
    facts,
    figures,
    mean,
    number,
    percent,
    size,
    table,
    total,
)
from puna.report.results import by_heart, samples, scores, verdict

SHOWN_STEPS = 12  # of those that were not taken


def _kept(data: Mapping[str, Any]) -> float | None:
    """Documents that came through the last step of every source."""
    steps = [list((source.get("steps") or {}).values()) for source in (data.get("sources") or {}).values()]
    return total(found[-1].get("documents") for found in steps if found)


def headline(data: Mapping[str, Any]) -> Html:
    """The figures that stand for the whole run."""
    losses, stages = data.get("losses") or [{}], data.get("stages") or []
    score = mean(methods.get("model") for methods in (data.get("bits_per_byte") or {}).values())
    spent = data.get("energy") or {}
    return facts(
        {
            "documents": count(_kept(data)),
            "parameters": count((data.get("model") or {}).get("parameters")),
            "tokens trained": count(losses[-1].get("tokens") or data.get("tokens")),
            "bits per byte, mean": None if score is None else f"{score:.3f}",
            "wall time": duration(total(stage.get("seconds") for stage in stages)),
            "energy": energy(spent.get("kwh"), measured=spent.get("measured") is True),
        },
        "tiles",
    )


def next_steps(data: Mapping[str, Any]) -> Html:
    """What to type now. data: `folder`, where the run lies; `source`, the recipe as it was named;
    `program`, as it was called; `changes`, set on the command line."""
    folder, source, program = data.get("folder"), data.get("source"), data.get("program") or "puna"
    if not folder or not source:
        return Html("")
    run, words = shlex.quote(str(folder)), [str(source)]
    words += [word for change in data.get("changes") or () for word in ("-s", str(change))]
    if (out := Path(str(folder)).parent) != Path("out"):
        words += ["--out", str(out)]
    again = shlex.join([*words, "-s", "train.learning_rate=2e-3"])
    prompts = [sample.get("prompt") for sample in data.get("samples") or []]
    prompt = shlex.quote(" ".join(str(prompts[0] if prompts else "The ").split()) + " ")
    commands = {
        f"{program} generate {run} {prompt}": "let the model go on from a text",
        f"{program} run {again}": "change a key: what depends on it is made anew",
        f"{program} corpus FOLDER": "clean raw files of your own, and see what was kept and dropped",
        f"{program} trace {run} 1 0 0": "the document behind a token of a training batch",
    }
    told = (f"<dt><code>{escape(line)}</code></dt><dd>{why}</dd>" for line, why in commands.items())
    return Html(f'<dl class="steps">{"".join(told)}</dl>')


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
    known = {name: value for name, key in names.items() if (value := number(shape.get(key))) is not None}
    return facts(
        {
            "size": shape.get("size"),
            "parameters": count(shape.get("parameters")),
            **{name: f"{value:,.0f}" for name, value in known.items()},
            "tokens per parameter": figures(shape.get("tokens_per_parameter")),
        }
    )


def training(data: Mapping[str, Any]) -> Html:
    """Losses over tokens, learning rate and gradient norm."""
    losses, validation = data.get("losses") or [], data.get("validation") or []

    def curve(key: str) -> list[tuple[Any, Any]]:
        return [(entry.get("tokens"), entry.get(key)) for entry in losses]

    steps, window = curve("loss"), max(1, len(losses) // 50)
    ends = range(window, len(steps) + 1, window)
    means = [(steps[end - 1][0], mean(loss for _, loss in steps[end - window : end])) for end in ends]
    each = "training, each step"
    sources = dict.fromkeys(source for entry in validation for source in entry.get("losses") or {})
    held_out = {
        source: [(entry.get("tokens"), (entry.get("losses") or {}).get(source)) for entry in validation]
        for source in sources
    }
    lines = {each: steps, f"training, mean of {window} steps": means} if window > 1 else {"training": steps}
    rates, norms = {"learning rate": curve("learning_rate")}, {"gradient norm": curve("gradient_norm")}

    def over_tokens(caption: str, drawn: Mapping[str, Any], label: str, **how: Any) -> Html:
        return figure(caption, chart.line_chart(drawn, "tokens", label, **how))

    drawings = join(
        over_tokens("Loss on training batches, nats per token", lines, "nats per token", faint=[each]),
        over_tokens("Loss on held-out documents, nats per token", held_out, "nats per token"),
        over_tokens("Learning rate", rates, "learning rate", height=200),
        over_tokens("Norm of the gradient before clipping", norms, "norm", height=200),
        look="columns",
    )
    note = (
        "The loss is in nats per token: the mean of −ln p, where p is the probability that the model "
        "gave to the token that came. Scores are in bits per byte, which can be compared between tokenizers: "
        "nats per token / ln 2 / bytes per token (see the table of tokens), over whole documents."
    )
    heart, left_out = by_heart(losses, validation), _left_out(losses)
    return join(
        f"<p>{heart}</p>" if heart else "",
        f"<p>{left_out}</p>" if left_out else "",
        f'<p class="soft">{note}</p>' if drawings else "",
        drawings,
    )


def _left_out(losses: Sequence[Mapping[str, Any]]) -> Html:
    """Which steps were not taken, why, and what was gone back to."""
    told = [entry for entry in losses if entry.get("why")]
    if not told:
        return Html("")
    back = [
        f", back to step {entry['rolled_back_to']:,}" if "rolled_back_to" in entry else "" for entry in told
    ]
    named = [f"{entry.get('step')} ({entry['why']}{to})" for entry, to in zip(told, back, strict=True)]
    more = f" and {len(named) - SHOWN_STEPS} more" if len(named) > SHOWN_STEPS else ""
    steps = f"{len(named)} of {len(losses)} steps were not taken: {', '.join(named[:SHOWN_STEPS])}{more}."
    return escape(steps)


def costs(data: Mapping[str, Any]) -> Html:
    """Speed, memory, energy, and the machine they belong to."""
    spent, machine = data.get("energy") or {}, data.get("machine") or {}
    peak = number(data.get("matmul_peak_flops"))
    seconds, trained = number(data.get("training_seconds")), number(data.get("tokens"))
    memory, whole = size(data.get("peak_memory_bytes")), machine.get("memory_bytes")
    of_all = f"{memory} of {size(whole)}" if memory != NONE and whole else memory
    watts, pue, grid = (figures(spent.get(key)) for key in ("watts", "pue", "kg_co2_per_kwh"))
    measured = spent.get("measured") is True
    power = f"{watts}\xa0W, {'measured' if measured else 'assumed'}" if watts != NONE else None
    return join(
        facts(
            {
                "steps of training": duration(seconds),
                "tokens per second, median step": count(data.get("tokens_per_second")),
                "tokens per second, mean": count(trained / seconds if trained and seconds else None),
                "share of the matrix-product peak, median step": percent(data.get("matmul_peak_share")),
                "matrix-product peak": f"{figures(peak / 1e9)}\xa0GFLOP/s" if peak is not None else None,
                "most memory held": of_all,
                "energy": energy(spent.get("kwh"), measured=measured),
                "carbon dioxide": carbon(spent.get("kg_co2"), measured=measured),
                "power": power,
                "overhead of the site (PUE)": pue,
                "grid": f"{grid}\xa0kg/kWh" if grid != NONE else None,
                "processor": machine.get("cpu"),
                "cores used": machine.get("cores"),
                **(data.get("versions") or {}),
            }
        ),
        f'<p class="soft">{" ".join(_cost_notes(data, measured))}</p>' if spent else "",
    )


def _cost_notes(data: Mapping[str, Any], measured: bool) -> list[str]:
    notes = ["kWh = power × hours × PUE; carbon dioxide = kWh × intensity of the grid."]
    if not measured:
        notes.append(
            "No meter could be read here: the power is assumed, and one digit is all that energy deserves."
        )
    if data.get("tokens_per_second"):
        notes.append("A mean far below the median tells of other programs, or of pauses.")
    return notes


def lineage(data: Mapping[str, Any]) -> Html:
    """Which artifact was made from which."""
    stages = data.get("stages") or []
    if not stages:
        return Html("")
    whole = total(stage.get("seconds") for stage in stages)
    # An input may have a name of its own, such as "tuned".
    known = {stage.get("fingerprint"): str(stage.get("stage")) for stage in stages}
    made_from = {
        str(stage.get("stage")): [known.get(made, name) for name, made in (stage.get("inputs") or {}).items()]
        for stage in stages
    }

    def cells(stage: Mapping[str, Any]) -> list[Any]:
        seconds = number(stage.get("seconds"))
        return [
            stage.get("stage", NONE),
            Html(f"<code>{escape(stage.get('fingerprint') or NONE)}</code>"),
            ", ".join(made_from[str(stage.get("stage"))]) or NONE,
            duration(seconds),
            share_cell(seconds / whole if seconds is not None and whole else None),
            size(stage.get("bytes")),
            Html(f'<code class="digest">{escape(stage.get("digest") or NONE)}</code>'),
        ]

    head = ["stage", "fingerprint", "made from", "time", "share of time", "size", "digest"]
    return join(
        figure("What is made from what", chart.graph(made_from, "stages and their inputs")),
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
    ("scores", "Scores", scores),
    ("samples", "Samples", samples),
    ("next", "What to try next", next_steps),
    ("training", "Training", training),
    ("model", "Model", model),
    ("tokens", "Tokens", tokens),
    ("corpus", "Corpus", corpus),
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
    changes = ", ".join(str(change) for change in data.get("changes") or ())
    head = join(
        f"<p>{escape(data.get('recipe') or 'the recipe')}, with {escape(changes)}</p>\n" if changes else "",
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
