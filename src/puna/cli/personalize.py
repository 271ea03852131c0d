"""puna personalize: a folder of one's own documents and chats becomes a model of one's own."""

import re
from pathlib import Path
from typing import Annotated

import typer

from puna.cli.arguments import OutOption
from puna.errors import UserError

SHOWN = 12  # lines of personal data, and of what nothing reads


def personalize(
    folder: Annotated[Path, typer.Argument(help="with documents, chats or both")],
    as_name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="in chats between people, who is learned")
    ] = "",
    base: Annotated[
        Path | None,
        typer.Option(help="the model to tune: a run, weights, a .gguf file; default: the last run of --out"),
    ] = None,
    name: Annotated[str, typer.Option(help="of the result; default: the folder's")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before it is trained")] = False,
    out: OutOption = Path("out"),
) -> None:
    """Tune a model on your own documents and chats: audit, forecast, adapter, report."""
    from puna.cli import tune
    from puna.cli.model import opened
    from puna.report.summary import SUMMARY
    from puna.tune import encode, personalize
    from puna.tune.settings import ChatSettings

    name = name or _name_of(folder.resolve().name)
    path = out / name / personalize.RECIPE
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UserError(f"--name {name}: letters of a to z, digits, and . _ - behind the first are taken")
    if (path.parent / SUMMARY).is_file() and not path.is_file():
        raise UserError(f"{path.parent} is another run, which this would write over: choose another --name")
    found = personalize.find(folder)
    weights = (base or _last_run(out)).resolve()
    model = opened(weights)
    form = encode.chosen_format(ChatSettings(), model.chat_template)
    collected = personalize.collect(found, as_name, form, model.tokenizer, model.source.config.max_seq_len)
    print(f"base: {weights}")
    print(", ".join(f"{count:,} {kind}" for kind, count in collected.counts.items()))
    if found.documents and not collected.held_out:
        print("too few passages to hold one out: whether the model knows the documents will not be asked")
    _listed("not read", found.unread)
    _listed("personal data and secrets, which the model may repeat", collected.personal)
    personalize.write(collected, path.parent, personalize.recipe(name, weights, collected))
    tune.run(str(path), out=out, ask=not yes)


def _name_of(folder: str) -> str:
    """A name for the result of a folder; where letters had to go, with a few of the digest of all."""
    from puna.corpus.record import digest

    spaced = re.sub(r"\s+", "-", folder)
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "", spaced).lstrip("_.-")
    return kept if kept and kept == spaced else f"{kept or 'personal'}-{digest(folder)[:6]}"


def _listed(what: str, lines: list[str]) -> None:
    if lines:
        print(f"{what} ({len(lines)}):")
        print(*(f"  {line}" for line in lines[:SHOWN]), sep="\n")


def _last_run(out: Path) -> Path:
    """The training that was finished last, no tuning. Raises UserError where there is none."""
    from puna.report.summary import SUMMARY

    runs = [path for path in out.glob(f"*/{SUMMARY}") if '"tuned"' not in path.read_text("utf-8")]
    if not runs:
        raise UserError(
            f"no model is at hand: no finished run in {out}. Name one with --base: the folder of a run, "
            "weights of others or a .gguf file; `puna run laptop` makes a small one"
        )
    return max(runs, key=lambda path: path.stat().st_mtime).parent
