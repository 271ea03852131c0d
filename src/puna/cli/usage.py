"""Groups of commands, and what is said of a command line that cannot be read."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from puna.errors import UserError

HELP = ("-h", "--help")
VALUE = "VALUE"


class Group(typer.core.TyperGroup):
    """A group that prints its help where no command is given, and suggests the nearest to a misspelt one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in self.commands and not ctx.resilient_parsing:
            close = nearest(name, self.commands)
            advice = f"did you mean {close}?" if close else f"the commands are {', '.join(self.commands)}"
            raise UserError(f"no command {name}; {advice}")
        return super().resolve_command(ctx, args)


class Implied(Group):
    """A group in which a first word that is no command belongs to the command `implied`."""

    implied = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *HELP):
            if not ctx.resilient_parsing:
                self._refuse_misspelt(args[0])
            args = [self.implied, *args]
        return super().parse_args(ctx, args)

    def _refuse_misspelt(self, word: str) -> None:
        close = nearest(word, self.commands)
        if close and not Path(word).exists():
            raise UserError(f"no file, folder or command {word}; did you mean {close}?")


def nearest(word: str, words: Iterable[str]) -> str:
    """The one of `words` that `word` is a misspelling of; "" where none is close."""
    return next(iter(difflib.get_close_matches(word, words, n=1)), "")


def is_usage_error(error: Exception) -> bool:
    """Whether typer found a fault in the command line; of the classes of these errors it exports only one."""
    return isinstance(error, typer.BadParameter.__bases__)


def explain(error: Any, words: Sequence[str]) -> str:
    """Say what is wrong with a command line, and where to read how it is written.

    error: typer's. words: the command line.
    """
    kind = type(error).__name__
    parameter = getattr(error, "param", None)
    if kind == "NoSuchOption":
        message = _unknown_option(error.option_name, error.ctx.command, words)
    elif kind == "MissingParameter" and parameter is not None:
        message = f"missing {parameter.param_type_name} {_name_of(parameter)} ({parameter.help})"
    elif kind == "BadParameter" and parameter is not None:
        message = f"{_name_of(parameter)}: {_bad_value(error)}"
    else:
        message = error.message[:1].lower() + error.message[1:].rstrip(".")
    if error.ctx is None or "; " in message:
        return message
    return f"{message}; see {error.ctx.command_path} --help"


def _name_of(parameter: Any) -> str:
    return parameter.name if parameter.param_type_name == "argument" else max(parameter.opts, key=len)


def _bad_value(error: Any) -> str:
    message = error.message.rstrip(".").removeprefix("Input ").removeprefix("Value error, ")
    message = message.partition(", unable")[0]
    value, chosen, choices = message.partition(" is not one of ")
    if chosen:
        return f"{value} is none of {choices}".replace("'", "")
    if hasattr(error.__cause__, "errors"):
        message += f" (it is {error.__cause__.errors()[0]['input']})"
    return message


def _unknown_option(option: str, command: Any, words: Sequence[str]) -> str:
    """Name the key of the recipe that an unknown option stands for, else the nearest option or key."""
    options = [name for parameter in command.params for name in parameter.opts if name.startswith("--")]
    keys = list(_recipe_keys(words)) if "--set" in options else []
    matching = _keys_called(option, keys)
    if matching:
        return f"no option {option}; a key of the recipe is set with {_settings(matching, option, words)}"
    names = [key.rpartition(".")[2].replace("_", "-") for key in keys]
    close = nearest(option.lstrip("-"), [*(name.lstrip("-") for name in options), "help", *names])
    if not close:
        return f"no option {option}"
    if f"--{close}" in (*options, "--help"):
        return f"no option {option}; did you mean --{close}?"
    settings = _settings(_keys_called(close, keys), option, words)
    return f"no option {option}; did you mean the key of the recipe that is set with {settings}?"


def _keys_called(option: str, keys: Sequence[str]) -> list[str]:
    name = option.lstrip("-").replace("-", "_")
    return [key for key in keys if f".{key}".endswith(f".{name}")]


def _settings(keys: Sequence[str], option: str, words: Sequence[str]) -> str:
    value = _value_of(option, words)
    return " or ".join(f"-s {key}={value}" for key in keys)


def _value_of(option: str, words: Sequence[str]) -> str:
    for word, following in zip(words, [*words[1:], "-"], strict=True):
        if word == option and not following.startswith("-"):
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return VALUE


def _recipe_keys(words: Sequence[str]) -> Iterator[str]:
    from puna.cli.keys import training_keys, tuning_keys

    if words[:1] == ["tune"]:
        return (key.path for key in tuning_keys())
    return (key.path for key in training_keys())
