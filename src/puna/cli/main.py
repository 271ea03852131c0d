"""The command line: groups of commands, and errors as one message.

Exit codes: 0 done; 2 something the user can put right, told in one message; 130 or 143 stopped by a signal,
after saving.
"""

import sys
from typing import Annotated

import typer

from puna.cli import keys, model, output, run, signals, usage
from puna.cli.chat import chat
from puna.cli.corpus import corpus
from puna.cli.eval import evaluate
from puna.cli.personalize import personalize
from puna.cli.tune import tune
from puna.errors import UserError
from puna.run import threads

MAKE, LOOK, USE = "Make", "Look", "Use"

app = typer.Typer(
    cls=usage.Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": usage.HELP},
)
for panel, command in (
    (MAKE, run.run),
    (LOOK, run.show),
    (LOOK, run.report),
    (LOOK, model.trace),
    (LOOK, run.verify),
    (LOOK, keys.keys),
    (USE, model.generate),
    (USE, chat),
    (USE, model.export),
):
    app.command(rich_help_panel=panel)(command)
app.command("import", rich_help_panel=USE)(model.import_model)
app.command(rich_help_panel=MAKE)(personalize)
app.add_typer(corpus, name="corpus", rich_help_panel=MAKE)
app.add_typer(tune, name="tune", rich_help_panel=MAKE)
app.add_typer(evaluate, name="eval", rich_help_panel=USE)


def _version(wanted: bool) -> None:
    if wanted:
        import puna

        print(f"puna {puna.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Puna trains language models of the LLaMA kind from raw public data, and says what is in them.

    Three commands to begin with:

    puna run                            train a small model; minutes on a CPU
    puna generate out/laptop "A city "  let it continue a text
    puna corpus FOLDER                  clean raw files of your own
    """


def main() -> None:
    """Run a command; turn errors that a person can put right into one message and exit code 2."""
    if sys.platform != "linux":
        output.fail(f"Puna needs Linux, and this is {sys.platform}; a container or a virtual machine has it")
    threads.bound_spinning()
    try:
        code = app(prog_name="puna", standalone_mode=False)
    except UserError as error:
        output.fail(str(error))
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if usage.is_usage_error(error):
            output.fail(usage.explain(error, sys.argv[1:]))
        reason = output.disk_problem(error)
        if reason is None:
            raise
        output.fail(reason)
    finally:
        signals.set_alarm(0)
    sys.exit(code)
