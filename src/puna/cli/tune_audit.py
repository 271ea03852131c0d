"""puna tune audit: what is wrong with conversations, before anything is learned from them."""

import functools
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from puna.cli import output
from puna.cli.arguments import JsonOption, existing_folder
from puna.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from puna.tokens.chat import Format
    from puna.tokens.text_tokenizer import TextTokenizer
    from puna.tune.audit import Audit, Verdict

PREVIEW_LINES = 24  # of a conversation
NEEDS = {"over-long": "--length", "evaluation item": "--eval"}  # where it is looked for
DataArgument = Annotated[Path, typer.Argument(help="a file of conversations or a chat log, or a folder")]
FormatOption = Annotated[str, typer.Option("--format", help="default: the model's own, else vicuna_v1.1")]
TokenizerOption = Annotated[Path | None, typer.Option(help="a model, or a tokenizer.model: counts tokens")]
NameOption = Annotated[str, typer.Option("--as", metavar="NAME", help="in chats: whose turns are learned")]
EvaluationOption = Annotated[
    Path | None, typer.Option("--eval", help="folder of evaluation sets", callback=existing_folder)
]


def audit(
    data: DataArgument,
    form: FormatOption = "",
    tokenizer: TokenizerOption = None,
    length: Annotated[int, typer.Option(min=0, help="most tokens of a row; 0: any")] = 0,
    as_name: NameOption = "",
    evaluation: EvaluationOption = None,
    drop: Annotated[Path | None, typer.Option(help="folder to write kept and dropped rows to")] = None,
    preview: Annotated[int, typer.Option(min=0, help="rows to show with what is learned of them")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Look for 14 kinds of defects in conversations; exit code 2 where rows are not to be learned from."""
    from rich.console import Console

    from puna.evaluate import overlap
    from puna.tune.audit import Auditor
    from puna.tune.audit import audit as judge
    from puna.tune.readers import read

    if drop and drop.exists() and not drop.is_dir():
        raise UserError(f"--drop {drop}: is a file; name a folder to write kept.jsonl and dropped.jsonl to")
    if length and not tokenizer:
        raise UserError("--length counts tokens: name a model with --tokenizer")
    known, counted = _format(form, tokenizer)
    leaks = overlap.items_in(evaluation) if evaluation else {}
    found = judge(read(data, as_name), Auditor(known, counted, length, leaks))
    if not found.verdicts:
        raise UserError(f"{data}: no conversations in it")
    console, unit = Console(highlight=False, soft_wrap=True), "tokens" if counted else "characters"
    if drop:
        found.write(drop)
    if as_json:
        rows = [(verdict.row, finding) for verdict in found.verdicts for finding in verdict.findings]
        findings = [{"file": row.source, "row": row.row, **finding._asdict()} for row, finding in rows]
        told = {"rows": len(found.verdicts), "format": known.name, unit: found.tokens}
        output.print_json({**told, "learned_share": found.learned_share, "counts": found.counts(),
                           "licence": _licence(data), "findings": findings})  # fmt: skip
    else:
        console.print(f"{len(found.verdicts):,} rows, {found.tokens:,} {unit} as {known.name}", end=", ")
        console.print(f"{found.learned_share:.1%} of them learned")
        _print_defects(console, found, data.is_dir())
        for verdict in [verdict for verdict in found.verdicts if verdict.kept][:preview]:
            _print_preview(console, verdict, known)
        console.print(f"\n{_licence(data)}")
    if not drop:
        found.refuse()
    elif not as_json:
        console.print(f"{drop}: {sum(len(v.kept) for v in found.verdicts):,} rows in kept.jsonl")


def _format(form: str, path: Path | None) -> "tuple[Format, TextTokenizer | None]":
    """(format, tokenizer): by name, else by the model's template. Raises UserError for an unknown name."""
    from puna.cli.model import opened
    from puna.tokens import chat, control_tokens, tokenizer

    model = opened(path) if path and path.suffix != ".model" else None
    own = chat.recognise(model.chat_template) if model and model.chat_template else None
    if form and form not in chat.FORMATS:
        raise UserError(f"--format {form}: there are {', '.join(chat.FORMATS)}")
    known = chat.FORMATS[form] if form else own or chat.FORMATS["vicuna_v1.1"]
    counted = model.tokenizer if model else tokenizer.load(path) if path else None
    return known, control_tokens.for_format(counted, known) if counted else None


def _print_defects(console: "Console", found: "Audit", named: bool) -> None:
    """Print a line for each kind: rows, the first one, others. named: with the file's name."""
    from puna.tune.audit import KINDS
    from puna.tune.readers import lines

    counts = found.counts()
    lines_of = functools.cache(lambda source: lines(Path(source)))
    for refused, head, style in ((True, "refused", "bold red"), (False, "warning", "bold yellow")):
        kinds = [kind for kind, count in counts.items() if count and KINDS[kind] == refused]
        if kinds:
            console.print(f"\n{head:<23}  rows  first", style=style)
        for kind in kinds:
            hits = [(v.row, each) for v in found.verdicts for each in v.findings if each.kind == kind]
            row, finding = hits[0]
            where = f"{Path(row.source).name}, row {row.row}" if named else f"row {row.row}"
            where += f" (line {lines_of(row.source)[row.row - 1]})" if lines_of(row.source) else ""
            where += f", turn {finding.turn}" if finding.turn else ""
            others = [str(number) for number in dict.fromkeys(each.row for each, _ in hits)][1:5]
            more = f" (also {', '.join(others)})" if others else ""
            _line(console, f"{kind:<23} {counts[kind]:>5,}  {where}{more}: {finding.told}")
    needs = {kind: f"{kind} (with {option})" for kind, option in NEEDS.items()}
    absent = [needs.get(kind, kind) for kind, count in counts.items() if not count]
    console.print(f"\nnot found: {', '.join(absent)}", style="dim", soft_wrap=False)


def _line(console: "Console", line: str, style: str = "") -> None:
    """Print one line: on a terminal cut where it ends, whole in a file."""
    from rich.text import Text

    from puna.cli.chat import UNSEEN

    whole = not console.is_terminal
    text = Text(line.translate(UNSEEN), style, overflow="ignore" if whole else "ellipsis", no_wrap=True)
    console.print(text, soft_wrap=whole)


def _print_preview(console: "Console", verdict: "Verdict", form: "Format") -> None:
    """Print a row as it is written, a mark and a colour where it is learned."""
    console.print(f"\nrow {verdict.row.row}; + is learned", style="bold")
    groups = groupby(form.pieces(verdict.kept[0].turns), lambda piece: piece.learn)
    pieces = [(learn, "".join(piece.text for piece in group)) for learn, group in groups]
    shown = [(learn, line) for learn, text in pieces for line in text.split("\n")]
    more = [(False, f"and {len(shown) - PREVIEW_LINES} lines")] if len(shown) > PREVIEW_LINES else []
    for learn, line in [*shown[:PREVIEW_LINES], *more]:
        _line(console, f"{'+' if learn else ' '} {line}", "green" if learn else "dim")


def _licence(data: Path) -> str:
    """Tell what a file beside the data says of its licence."""
    from puna.corpus.licences import recognised

    folder = data if data.is_dir() else data.parent
    texts = [path for path in sorted(folder.iterdir()) if path.is_file() and "LICEN" in path.name.upper()]
    known = [recognised(path.read_text("utf-8", "replace")) or "one that is not recognised" for path in texts]
    names = [f"{name} ({path.name})" for path, name in zip(texts, known, strict=True)]
    return f"licence: {', '.join(names) or 'no file beside the data; its terms bind the tuned model'}"
