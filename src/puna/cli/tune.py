"""puna tune: a base model becomes one that answers."""

import typer

from puna.cli import usage
from puna.cli.tune_audit import audit

tune = typer.Typer(cls=usage.Group)


@tune.callback()
def _tune() -> None:
    """Tune a base model on conversations."""


tune.command()(audit)
