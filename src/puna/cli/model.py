"""puna generate and trace: a run's model, and where its training batches come from."""

from pathlib import Path
from typing import Annotated

import typer

from puna.cli import output
from puna.cli.arguments import JsonOption, RunArgument
from puna.errors import UserError


def generate(
    run: RunArgument,
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
    as_json: JsonOption = False,
) -> None:
    """Continue a text with a run's model."""
    from puna.generate import engine
    from puna.model.weights import native
    from puna.tokens.tokenizer import TextStream, load

    folder = _weights_folder(run)
    model, tokenizer = native.load(folder), load(folder / "tokenizer.model")
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    context = model.config.max_seq_len
    if len(ids) >= context:
        raise UserError(f"the prompt has {len(ids)} tokens; the model reads {context}: give a shorter one")
    stream = TextStream(tokenizer)
    continuation: list[str] = []

    def show(text: str) -> None:
        if not as_json:
            print(text, end="", flush=True)

    def show_token(row: int, token: int) -> None:
        continuation.append(stream.add(token))
        show(continuation[-1])

    show("".join(map(stream.add, ids)))
    (new,) = engine.generate(
        model,
        [ids],
        max_new_tokens=min(tokens, context - len(ids)),
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        eos_id=tokenizer.eos_id,
        on_token=show_token,
    )
    continuation.append(stream.end())
    show(continuation[-1] + "\n")
    if as_json:
        result = {"prompt": prompt, "text": "".join(continuation), "tokens": len(new)}
        output.print_line({**result, "seed": seed, "temperature": temperature})


def _weights_folder(run: Path) -> Path:
    """The folder of a run's weights, or `run` itself where it is one of weights.

    Every digest is taken again. Raises UserError where one is not that of the manifest; weights that other
    programs wrote have none.
    """
    from puna.model.weights import native
    from puna.report import summary
    from puna.run import artifact

    bare = (run / native.PARAMS).is_file()
    folder = run if bare else summary.stage_folder(run, "train")
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
