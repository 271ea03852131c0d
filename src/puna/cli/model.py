"""puna generate, import, export and trace: a run's model, and where its training batches come from."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from puna.cli import output
from puna.cli.arguments import JsonOption, ModelArgument, ModeOption, RunArgument
from puna.errors import UserError

BaseOption = Annotated[
    Path | None,
    typer.Option(
        "--base", help="the model that an adapter or a delta belongs to; default: where it was then"
    ),
]

if TYPE_CHECKING:
    from puna.generate.load import Opened


def generate(
    run: ModelArgument,
    prompt: Annotated[str, typer.Argument(help="text to go on from")],
    tokens: Annotated[int, typer.Option(min=1, help="most new tokens")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token")] = 0.8,
    top_p: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1.0,
            help="sample from the likeliest tokens that together have this probability; 1: all",
        ),
    ] = 0.95,
    top_k: Annotated[int, typer.Option(min=0, help="sample from so many likeliest tokens; 0: all")] = 0,
    seed: Annotated[int, typer.Option(help="the same seed gives the same text")] = 0,
    mode: ModeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """Continue a text with the model of a run, of a folder of weights or of a GGUF file."""
    from puna.generate.engine import Engine, Piece, Request, Sampling
    from puna.generate.load import built

    model, tokenizer, *_ = built(opened(run))
    ids = [*tokenizer.bos, *tokenizer.encode(prompt)]
    context = model.config.max_seq_len
    if len(ids) >= context:
        raise UserError(f"the prompt has {len(ids)} tokens; the model reads {context}: give a shorter one")

    def show(piece: Piece) -> None:
        if not as_json:
            print(piece.text, end="", flush=True)

    engine = Engine(model, tokenizer, mode=mode)
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k)
    room = min(tokens, context - len(ids))
    writing = engine.submit(Request(ids, room, sampling, seed=seed, on_piece=show))
    if not as_json:
        print(prompt, end="", flush=True)
    while engine.step():
        pass
    if as_json:
        new = len(writing.new_tokens)
        result = {"prompt": prompt, "text": writing.text, "tokens": new}
        output.print_line({**result, "seed": seed, "temperature": temperature})
    else:
        print()
        if room < tokens and len(writing.new_tokens) == room:
            told = (
                f"puna: stopped after {room:,} of {tokens:,} tokens: with the prompt they fill the model's "
            )
            print(f"{told}context of {context:,}", file=sys.stderr)


def import_model(
    source: Annotated[
        Path, typer.Argument(help="a folder of Meta's or Hugging Face's, a .gguf file, a llama2.c .bin")
    ],
    out: Annotated[Path, typer.Argument(help="folder to write; it must not exist")],
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn someone's LLaMA weights into a folder of ours, with their tokenizer; also a low-rank adapter or a
    delta with the model that it belongs to."""
    _convert(source, out, "native", "F32", as_json, base)


def export(
    form: Annotated[
        Literal["hf", "gguf", "meta", "delta"],
        typer.Argument(
            help="hf: for transformers and vLLM; gguf: for llama.cpp; meta: as Meta released; delta: as the "
            "difference from --base, which `puna import` puts together again"
        ),
    ],
    source: ModelArgument,
    out: Annotated[Path, typer.Argument(help="folder or .gguf file to write; it must not exist")],
    kind: Annotated[
        Literal["F32", "F16", "BF16", "Q8_0", "Q4_1", "as-read"],
        typer.Option(
            "--type", help="of the weights; Q8_0, Q4_1 for gguf alone; as-read: as the GGUF file has them"
        ),
    ] = "F32",
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model for other programs, with its tokenizer and chat template; also from a checkpoint, and
    from a low-rank adapter, merged."""
    _convert(source, out, form, kind, as_json, base)


def _convert(source: Path, out: Path, form: str, kind: str, as_json: bool, base: Path | None) -> None:
    from puna.generate import load
    from puna.run import files

    if out.exists():
        raise UserError(f"{out} exists: name another place, or remove it")
    if form == "delta" and base is None:
        raise UserError("a delta is the difference from another model: name it with --base")
    loaded = opened(source, None if form == "delta" else base)
    of = opened(base).source if form == "delta" and base is not None else None
    with files.replacing(out) as part:
        load.save(loaded, part, form, kind, of)
    config, tokenizer = loaded.source.config, loaded.tokenizer
    told = {
        "from": loaded.origin.format,
        "to": form,
        "parameters": config.parameters(),
        "tokens": tokenizer.vocab_size,
        "padding rows": config.vocab_size - tokenizer.vocab_size,
        "begin token": tokenizer.bos_id if tokenizer.adds_bos else None,
        "stop tokens": sorted(loaded.stop_ids),
        "chat template": loaded.chat_template is not None,
    }
    if as_json:
        output.print_json(told)
        return
    told["written to"] = str(out.resolve())
    for key, value in told.items():
        print(f"{key:<22} {value:,}" if type(value) is int and value > 9999 else f"{key:<22} {value}")


def opened(run: Path, base: Path | None = None) -> "Opened":
    """The model of a run, of a checkpoint of its training, or of weights of others; not read yet. base: the
    model that `run`, a low-rank adapter or a difference, belongs to, where it is no more where it was."""
    from puna.generate import load
    from puna.train import weights

    if weights.recognises(run):
        return load.open_model(weights.read(run))
    path = weights_of(run)
    if base is not None and not any(load.FORMATS[name][0](path) for name in load.BASED):
        raise UserError(f"{path} is a whole model: leave --base away")
    return load.open_model(load.open_source(path, base and weights_of(base)))


def weights_of(run: Path) -> Path:
    """The folder of a run's weights, or `run` itself where it is a folder or a file of weights.

    Every digest is taken again. Raises UserError where one is not that of the manifest; weights that other
    programs wrote have none.
    """
    from puna.generate.load import FORMATS
    from puna.report import summary
    from puna.run import artifact

    if not run.exists():
        raise UserError(f"{run}: no such file or folder; name a run's folder, such as out/laptop")
    if run.is_file():
        return run
    bare = any(recognises(run) for recognises, _ in FORMATS.values())
    waiting = sorted(run.glob(".scratch/train-*/step-*/index.json"))
    if waiting and not bare and not any(run.glob(f"train-*/{artifact.MANIFEST}")):
        raise UserError(f"the training of {run} is not finished; name a checkpoint: {waiting[-1].parent}")
    folder = run if bare else summary.model_folder(run)
    if not bare or (folder / artifact.MANIFEST).is_file():
        artifact.load(folder).verify()
    return folder


def trace(
    run: RunArgument,
    step: Annotated[int, typer.Argument(min=1, help="training step, from 1")],
    row: Annotated[int, typer.Argument(min=0, help="sequence of the batch, from 0")],
    position: Annotated[int, typer.Argument(min=0, help="token of the sequence, from 0")],
    as_json: JsonOption = False,
) -> None:
    """Say which document a token of a training batch comes from."""
    from puna.report import lineage

    origin = lineage.trace(run, step, row, position)
    if as_json:
        output.print_json(origin)
        return
    for key, value in origin.items():
        if value is not None:
            print(f"{key:<22} {value:.3f}" if isinstance(value, float) else f"{key:<22} {value}")
