"""The command line: one function per command; each parses, calls, prints.

Exit codes: 0 done; 2 something the user can put right, told in one message; 130 or 143 stopped by a signal,
after saving.
"""

import contextlib
import errno
import json
import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from puna.errors import Stopped, UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class _CleanFirst(typer.core.TyperGroup):
    """`puna corpus PATH` means `puna corpus clean PATH`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(
            ctx, args if not args or args[0] in (*self.commands, "--help") else ["clean", *args]
        )


corpus = typer.Typer(cls=_CleanFirst, no_args_is_help=True)
app.add_typer(
    corpus,
    name="corpus",
    help="Raw files to clean documents: puna corpus PATH... (its options: puna corpus clean --help).",
)

RecipeArgument = Annotated[
    str, typer.Argument(help="a shipped recipe's name (laptop, seven-sources), or a .toml file")
]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        help="section.key=value, over the recipe, such as train.steps=300; repeatable",
        show_default=False,
    ),
]
OutOption = Annotated[Path, typer.Option(help="folder of all runs")]
JsonOption = Annotated[bool, typer.Option("--json", help="print figures as JSON")]
RunArgument = Annotated[
    Path, typer.Argument(help="folder of a finished run, such as out/laptop", show_default=False)
]


TOGETHER_SECONDS = (
    0.5  # signals this close are one: some programs send two, and a terminal sends to all that run in it
)
ALARM_SECONDS = 1.0


class _Signals:
    """Turns SIGINT and SIGTERM into a polite stop inside `pausable`, into an interrupt elsewhere (and on the
    second signal).

    An interrupt may get lost: Python drops what is raised in a finalizer, and libraries what is raised while
    they call back. So an alarm raises it again, each second until the run ends.
    """

    def __init__(self) -> None:
        self.received = 0
        self._when = 0.0
        self._again = self._polite = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGALRM, self._remind)
        sys.unraisablehook = _not_raised

    def _handle(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.received and now - self._when < TOGETHER_SECONDS:
            return
        self._again, self.received, self._when = bool(self.received), number, now
        if self._again or not self._polite:
            signal.setitimer(signal.ITIMER_REAL, ALARM_SECONDS)
            raise KeyboardInterrupt

    def _remind(self, number: int, frame: Any) -> None:
        if self._again or not self._polite:
            signal.setitimer(signal.ITIMER_REAL, ALARM_SECONDS)
            if not _ending():
                raise KeyboardInterrupt

    def end(self) -> None:
        """Take no more signals: the run has stopped, and says so."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)

    def should_stop(self) -> bool:
        return bool(self.received)

    @contextlib.contextmanager
    def pausable(self) -> Iterator[None]:
        self._polite = True
        try:
            yield
        finally:
            self._polite = False
            if self.received:  # for what was done before it noticed
                signal.setitimer(signal.ITIMER_REAL, ALARM_SECONDS)


def _ending() -> bool:
    """Whether this is called while an interrupt is on its way out, through a `finally` or the end of a
    `with`."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt | Stopped):
        error = error.__context__
    return error is not None


def _not_raised(lost: Any) -> None:
    if lost.exc_type is not KeyboardInterrupt:  # which comes again
        sys.__unraisablehook__(lost)


def _build(
    recipe_name: str,
    overrides: list[str] | None,
    out: Path,
    signals: _Signals | None = None,
    trains: bool = False,
) -> tuple[Any, str]:
    """(Build, the recipe's text with the overrides below it). trains: whether the recipe must be more than
    one of a corpus alone."""
    from puna import recipe as recipes
    from puna import stages
    from puna.run.build import Build

    path = recipes.find(recipe_name)
    changes = tuple(overrides or ())
    recipe = (recipes.load if trains else recipes.load_corpus)(path, changes)
    root = path.parent / os.path.expanduser(os.path.expandvars(recipe.corpus.root))
    listed = stages.stages(recipe, root)
    build = Build(recipe, root, out / recipe.name, listed)
    if signals is not None:
        build = Build(recipe, root, out / recipe.name, listed, signals.should_stop, signals.pausable)
    text = path.read_text() + "".join(f"\n# set on the command line: {change}" for change in changes)
    return build, text


def _run(build: Any, view: Any, signals: _Signals) -> dict[str, Any]:
    """Run a build; where a signal stops it, say how it goes on and leave."""
    try:
        return build.run(view)
    except Stopped as stopped:
        signals.end()
        told = f"stopped and saved at step {stopped.step}; the same command goes on from there"
    except KeyboardInterrupt:
        signals.end()
        told = "stopped; the same command goes on from the last finished part"
    finally:
        view.close()
    view.console.print(told)
    _leave(128 + (signals.received or signal.SIGINT))


def _version(wanted: bool) -> None:
    if wanted:
        import puna

        print(f"puna {puna.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """The LLaMA system, runnable."""


@app.command()
def run(
    recipe: RecipeArgument = "laptop",
    override: Override = None,
    out: OutOption = Path("out"),
    as_json: JsonOption = False,
) -> None:
    """Run a recipe: make what is missing, skip what is there, write the report."""
    from puna.cli.view import ConsoleView
    from puna.plan import memory
    from puna.report import summary
    from puna.run import machine

    signals = _Signals()
    build, text = _build(recipe, override, out, signals, trains=True)
    planned = {item.stage.name: item for item in build.plan()}
    if not planned["train"].done:
        memory.check(
            build.recipe.llama_config(),
            build.recipe.train,
            machine.available_bytes(build.recipe.train.device),
        )
    nothing_to_do = all(item.done for item in planned.values()) and summary.current(build)
    view = ConsoleView(build.recipe.train.steps)
    finished = _run(build, view, signals)
    if nothing_to_do:
        figures = summary.read(build.folder)
        view.console.print("nothing to do: every stage is there")
    else:
        figures = summary.write(build, finished, text)
    if as_json:
        print(json.dumps(figures, indent=1))
    else:
        _print_scores(figures)
        print(f"report: {(build.folder / summary.REPORT).resolve()}")


@app.command()
def show(
    recipe: RecipeArgument = "laptop",
    override: Override = None,
    out: OutOption = Path("out"),
    as_json: JsonOption = False,
) -> None:
    """Print a recipe's stages, their fingerprints, and what a run would do."""
    from puna.recipe import Recipe

    build, _ = _build(recipe, override, out)
    rows = [
        {
            "stage": item.stage.name,
            "fingerprint": item.fingerprint,
            "inputs": list(item.stage.inputs),
            "state": "there" if item.done else "would run",
            "folder": str(item.folder),
        }
        for item in build.plan()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    _table(
        ("stage", "fingerprint", "inputs", "state"),
        [(r["stage"], r["fingerprint"], " ".join(r["inputs"]), r["state"]) for r in rows],
    )
    if not isinstance(build.recipe, Recipe):
        print("a recipe of a corpus alone: it has no stages that train")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="an artifact, or a folder of artifacts")],
    as_json: JsonOption = False,
) -> None:
    """Digest every file of every artifact again and compare."""
    from puna.run import artifact

    if not folder.is_dir():
        raise UserError(
            f"{folder} is {'a file, not a folder' if folder.exists() else 'not there'}; name an artifact or a run's folder"
        )
    found = (
        [folder]
        if (folder / artifact.MANIFEST).is_file()
        else sorted(path.parent for path in folder.glob(f"**/{artifact.MANIFEST}"))
    )
    found = [
        path
        for path in found
        if not any(part in (".work", ".scratch") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise UserError(f"{folder} holds no artifact")
    rows: list[dict[str, Any]] = []
    problems = []
    for path in found:
        try:
            loaded = artifact.load(path)
            loaded.verify()
            rows.append(
                {
                    "artifact": str(path),
                    "files": len(loaded.files),
                    "bytes": loaded.bytes,
                    "digest": loaded.digest,
                    "sound": True,
                }
            )
        except UserError as error:
            problems.append(str(error))
            rows.append({"artifact": str(path), "sound": False, "problem": str(error)})
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        _table(("artifact", "files", "bytes", "digest"), [
            (row["artifact"], row.get("files", ""), row.get("bytes", ""), row.get("digest", "damaged")[:12]) for row in rows
        ])  # fmt: skip
    if problems:
        raise UserError("\n".join(problems))


@app.command()
def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """Print the figures of a finished run and where its page is."""
    from puna.report import summary

    figures = summary.read(run)
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    _print_scores(figures)
    print(f"report: {(run / summary.REPORT).resolve()}")


@app.command()
def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Argument(help="text to go on from")],
    tokens: Annotated[int, typer.Option(min=1, help="most new tokens")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0)] = 0.95,
    top_k: Annotated[int, typer.Option(min=0, help="0: no limit")] = 0,
    seed: int = 0,
    as_json: JsonOption = False,
) -> None:
    """Continue a text with a run's model."""
    from puna.generate import engine
    from puna.model.weights import native
    from puna.report import summary
    from puna.tokens.tokenizer import load

    folder = run if (run / native.PARAMS).is_file() else summary.stage_folder(run, "train")
    model, text = native.load(folder), load(folder / "tokenizer.model")
    ids = [text.bos_id, *text.encode(prompt)]
    room = model.config.max_seq_len - len(ids)
    if room < 1:
        raise UserError(
            f"the prompt has {len(ids)} tokens; the model reads {model.config.max_seq_len}: give a shorter one"
        )
    shown = [text.decode(ids)]

    def show_token(row: int, token: int) -> None:
        ids.append(token)
        whole = text.decode(ids)
        if not as_json and not whole.endswith("\ufffd"):
            print(whole[len(shown[0]) :], end="", flush=True)
            shown[0] = whole

    if not as_json:
        print(shown[0], end="", flush=True)
    (new,) = engine.generate(
        model, [list(ids)], max_new_tokens=min(tokens, room), temperature=temperature, top_p=top_p, top_k=top_k, seed=seed,
        eos_id=text.eos_id, on_token=show_token,
    )  # fmt: skip
    whole = text.decode(ids)
    if as_json:
        print(
            json.dumps(
                {
                    "prompt": prompt,
                    "text": whole[len(prompt) :],
                    "tokens": len(new),
                    "seed": seed,
                    "temperature": temperature,
                }
            )
        )
    else:
        print(whole[len(shown[0]) :])


@app.command()
def trace(
    run: RunArgument,
    step: Annotated[int, typer.Argument(min=1, help="training step, from 1")],
    row: Annotated[int, typer.Argument(min=0, help="sequence of the batch, from 0")],
    position: Annotated[int, typer.Argument(min=0, help="token of the sequence, from 0")],
    as_json: JsonOption = False,
) -> None:
    """Say which document a token of a training batch comes from."""
    from puna.report import lineage

    found = lineage.trace(run, step, row, position)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for key, value in found.items():
        if value is not None:
            print(f"{key:<22} {value:.3f}" if isinstance(value, float) else f"{key:<22} {value}")


@corpus.command()
def clean(
    paths: Annotated[
        list[str],
        typer.Argument(help="raw files, folders of them, addresses, a file of addresses; or one recipe"),
    ],
    name: Annotated[str, typer.Option(help="name of the output folder; default: the first path's")] = "",
    languages: Annotated[
        str, typer.Option(help="languages kept, such as en,de; default: all, or the recipe's")
    ] = "",
    override: Override = None,
    out: OutOption = Path("out"),
    as_json: JsonOption = False,
) -> None:
    """Read, clean, deduplicate and filter raw files; write documents, a data card and a page to judge the
    filters by."""
    from puna import recipe as recipes
    from puna.cli.view import ConsoleView
    from puna.corpus.filters import language
    from puna.corpus.sources import discover, fetch
    from puna.report import documents, summary
    from puna.run.artifact import write_atomically

    view = ConsoleView(1)
    codes, made = [code.strip() for code in languages.split(",") if code.strip()], None
    if wrong := language.unknown(codes):
        raise UserError(f"--languages: {wrong}")
    recipe = paths[0]
    if (given := [path for path in paths if path.endswith(".toml")]) and (len(paths) > 1 or name):
        raise UserError(
            f"{given[0]} is a recipe, which is given alone and has a name of its own; put raw files among its sources"
        )
    if len(paths) > 1 or not (recipe.endswith(".toml") or recipes.is_shipped(recipe)):
        name = name or _folder_name(paths[0])
        if _folder_name(name) != name:
            raise UserError(
                f"--name {name}: a name has letters, digits and hyphens, such as {_folder_name(name)}"
            )
        folder = out / name
        discover.check(folder, paths)
        brought = folder / ".scratch" / fetch.BROUGHT
        text, left = discover.recipe(name, paths, codes, brought)
        folder.mkdir(parents=True, exist_ok=True)
        for path in left[:20]:
            view.console.print(f"  no reader takes {path}", soft_wrap=True)
        if len(left) > 20:
            view.console.print(f"  and {len(left) - 20} others")
        target = folder / "recipe.toml"
        if target.exists():  # the recipe of the corpus that is there stays until the new one is there, too
            made, target = (
                target,
                folder / ".recipe.toml",
            )  # beside it, since paths start from a recipe's folder
        write_atomically(target, text)
        recipe = str(target)
        changes = list(override or ())
    else:
        changes = [*(f"corpus.languages={json.dumps(codes)}" for _ in range(bool(codes))), *(override or ())]
    signals = _Signals()
    try:
        build, _ = _build(recipe, changes, out, signals)
        build = build.until("documents")
        found = _run(build, view, signals)["documents"]
        if made is not None:
            os.replace(recipe, made)
    finally:
        if made is not None:
            Path(recipe).unlink(missing_ok=True)
    shutil.rmtree(build.folder / ".scratch" / fetch.BROUGHT, ignore_errors=True)  # what the run had already
    page = build.folder / summary.CORPUS
    write_atomically(page, documents.render(found.folder, found.metrics, build.recipe.name))
    if as_json:
        print(json.dumps({**found.metrics, "documents": str(found.folder), "page": str(page)}, indent=1))
        return
    from puna.corpus.funnel import FUNNEL

    steps = found.metrics["sources"]
    _table(("documents", *FUNNEL, "bytes kept"), [
        (source, *(entry[step]["documents"] for step in FUNNEL), entry["kept"]["bytes"]) for source, entry in steps.items()
    ])  # fmt: skip
    for source, dropped in found.metrics["dropped"].items():
        if dropped:
            print(
                f"dropped of {source}: "
                + ", ".join(
                    f"{count:,} {reason}" for reason, count in sorted(dropped.items(), key=lambda i: -i[1])
                )
            )
    print(f"documents: {found.folder.resolve()}\npage: {page.resolve()}")


def _leave(code: int) -> NoReturn:
    """End at once: engines that were interrupted may abort the process while the interpreter winds down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _folder_name(path: str) -> str:
    """A folder name out of a path or an address."""
    last = path.partition("#")[0].rstrip("/").rpartition("/")[2].partition(".")[0] or "corpus"
    return (
        "".join(
            character if character.isalnum() and character.isascii() else "-" for character in last
        ).strip("-")
        or "corpus"
    )


@corpus.command()
def score(
    files: Annotated[list[Path], typer.Argument(help="text files, each one document", exists=False)],
    run: Annotated[
        Path | None, typer.Option(help="a run whose corpus learnt quality models, such as out/mine")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print language, perplexity and reference score of local texts."""
    from puna.corpus import inspect

    rows = inspect.score(files, run)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    columns = ("language", "score", "characters", *(("perplexity", "bucket", "reference") if run else ()))
    _table(("file", *columns), [
        (row["file"], *("-" if (cell := row[name]) is None else f"{cell:.3f}" if isinstance(cell, float) else cell for name in columns))
        for row in rows
    ])  # fmt: skip


@corpus.command()
def dropped(
    run: RunArgument,
    reason: Annotated[str, typer.Option(help="only reasons that begin so, such as opt-out")] = "",
    source: Annotated[str, typer.Option(help="only this source")] = "",
    most: Annotated[int, typer.Option("--most", "-n", min=0, help="most records; 0: all")] = 50,
    text: Annotated[bool, typer.Option("--text", help="how their text begins, too")] = False,
    as_json: JsonOption = False,
) -> None:
    """List records that were dropped, each with its reason."""
    from puna.corpus import inspect

    for row in inspect.dropped(run, reason, source, most):
        if as_json:
            print(json.dumps(row, ensure_ascii=False))
        else:
            detail = f": {row['detail']}" if row["detail"] else ""
            kept = f" ({inspect.told(row['of'])})" if row["of"] else ""
            print(
                f"{row['source']}  {row['reason']}{detail}{kept}  {row['url']}  {row['file']}:{row['offset']}"
            )
            if text:
                print(textwrap.indent(row["excerpt"] or "(no text was made of it)", "    ") + "\n")
    there = [
        (name, why, count)
        for name, reasons in inspect.dropped_counts(run).items()
        for why, count in reasons.items()
    ]
    count = sum(count for name, why, count in there if source in ("", name) and why.startswith(reason))
    if most and count > most:
        print(f"{count - most:,} more; --most 0 lists all", file=sys.stderr)
    if not count:
        asked = f"{f' of {source}' if source else ''}{f' for the reason {reason!r}' if reason else ''}"
        listed = "; ".join(f"{name}: {why}" for name, why, _ in sorted(there)) or "none"
        raise UserError(f"{run}: no dropped record{asked}; there are: {listed}")


def _print_scores(figures: dict[str, Any]) -> None:
    print(
        f"{figures['documents']:,} documents, {figures['tokens']:,} tokens trained, {figures['model']['parameters']:,} weights"
    )
    methods = ("model", "five_gram", "unigram", "xz")
    rows = [
        (source, *(f"{values[method]:.3f}" for method in methods))
        for source, values in figures["bits_per_byte"].items()
    ]
    _table(("bits per byte", "model", "5-gram", "unigram", "xz -9"), rows)
    if "tokens_per_second" in figures:
        energy = figures["energy"]
        print(
            f"{figures['tokens_per_second']:,.0f} tokens/s, {figures['matmul_peak_share']:.0%} of the matrix-product peak, "
            f"{sum(figures['seconds'].values()):,.0f} s, about {energy['kwh'] * 1000:.2g} Wh, {energy['kg_co2'] * 1000:.2g} g CO2"
        )


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Plain columns: the first to the left, figures to the right."""
    cells = [
        tuple(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) for row in (head, *rows)
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        line = "  ".join(
            cell.rjust(width)
            if (cell[:1].isdigit() and "." in cell) or cell.replace(",", "").isdigit()
            else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        )
        print(line.rstrip())


_ADVICE = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "nothing half-written is left: free some room and run again",
    ),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "change its rights, or name another place"),
}


def main() -> None:
    """Entry point: runs a command and turns errors that a person can put right into one message and exit code
    2."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        reason = _disk_problem(error)
        if reason is None:
            raise
        _fail(reason)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _disk_problem(error: BaseException) -> str | None:
    """What to tell about a file that cannot be read or written, whichever library noticed it; None for any
    other error."""
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None:  # libraries in other languages pass the system's words on as text
            number = next((known for known in _ADVICE if os.strerror(known) in str(cause)), None)
        if number in _ADVICE:
            where = (
                f"{cause.filename}: " if isinstance(cause, OSError) and cause.filename else "cannot write: "
            )
            return f"{where}{os.strerror(number)}; {_ADVICE[number]}"
        cause = cause.__cause__ or cause.__context__
    return None


def _fail(message: str) -> None:
    print(f"puna: {message}", file=sys.stderr)
    sys.exit(2)
