"""The keys of a recipe, read from the types of its settings, and `puna keys`, which prints them."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from puna.cli import output
from puna.cli.arguments import JsonOption
from puna.errors import UserError

NAME = "NAME"  # stands for an entry's own name in the key of a list or a table
NEEDED = "needed"
PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
WIDTH = 100
FROM_THE_FILE = ("name",)  # keys that are needed, and are filled in where a recipe does not say them


@dataclass(frozen=True)
class Key:
    """section, about: where it stands, and what that section is. value: what it takes; default: in TOML, ""
    where none can be written, NEEDED where there is none."""

    section: str
    about: str
    name: str
    value: str
    default: str
    meaning: str

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}".removeprefix(".")


def recipe_keys() -> Iterator[Key]:
    """Every key of a recipe, section by section; behind them those that only one that tunes has."""
    trains = list(training_keys())
    known = {key.path for key in trains}
    return iter([*trains, *(key for key in tuning_keys() if key.path not in known)])


def training_keys() -> Iterator[Key]:
    """Every key of a recipe that trains."""
    from puna.recipe import Recipe

    return _keys(Recipe, "")


def tuning_keys() -> Iterator[Key]:
    """Every key of a recipe that tunes."""
    from puna.recipe import TuneRecipe

    return _keys(TuneRecipe, "")


def _keys(model: Any, section: str) -> Iterator[Key]:
    """A model's own keys, then those of the sections in it."""
    about = (model.__doc__ or "").strip().partition("\n\n")[0]
    about = " ".join(about.split())
    below = []
    for name, field in model.model_fields.items():
        sections = list(_models(field.annotation))
        entry = f".{NAME}" if get_origin(field.annotation) in (tuple, list, dict) else ""
        below += [(inner, f"{section}.{name}{entry}".removeprefix(".")) for inner in sections]
        if not sections:
            value = ", ".join([_told(field.annotation), *_bounds(field.metadata)])
            default = "" if f"{section}.{name}".strip(".") in FROM_THE_FILE else _default(field)
            yield Key(section, about, name, value, default, field.description or "")
    for inner, path in below:
        yield from _keys(inner, path)


def _models(annotation: Any) -> Iterator[Any]:
    if hasattr(annotation, "model_fields"):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _told(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in PLAIN:
        return PLAIN[annotation]
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in inner)
    if origin is Annotated:
        return _told(inner[0])
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return f"list of {_told(inner[0])}"
        return f"list of {len(inner)}: {', '.join(_told(part) for part in inner)}"
    return " or ".join(_told(part) for part in inner if part is not NoneType)


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for constraint in metadata:
        for name, words in BOUNDS.items():
            bound = getattr(constraint, name, None)
            if bound is not None:
                yield f"{words} {bound:,}" if bound < 1 << 62 else f"{words} 2^{bound.bit_length() - 1}"


def _default(field: Any) -> str:
    if field.is_required():
        return NEEDED
    value = field.get_default(call_default_factory=True)
    return "" if value is None else json.dumps(value)


def keys(
    section: Annotated[
        str, typer.Argument(help="a section, or a part of a key, such as train or learning_rate")
    ] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="as the page docs/keys.md")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the keys of a recipe: what each takes, its default, what it does."""
    found = [key for key in recipe_keys() if section in key.path]
    if not found:
        from puna.cli.usage import nearest

        words = {word for key in recipe_keys() for word in (*key.section.split("."), key.name)}
        close = nearest(section.rpartition(".")[2], sorted(words - {"", NAME}))
        raise UserError(f"no key has {section} in it" + (f"; did you mean {close}?" if close else ""))
    if as_json:
        output.print_json([{"key": key.path, **asdict(key)} for key in found])
    elif markdown:
        print(page(found), end="")
    else:
        _print(found)


def page(found: list[Key]) -> str:
    """Tables in Markdown, one a section."""
    parts = [Path(__file__).with_name("keys.md").read_text("utf-8")]
    for (section, about), members in groupby(found, lambda key: (key.section, key.about)):
        parts.append(f"\n## {f'`{section}`' if section else 'The recipe'}\n\n{about}\n")
        parts.append("\n| key | takes | default | meaning |\n|---|---|---|---|\n")
        for key in members:
            default = key.default if key.default in ("", NEEDED) else f"`{key.default}`"
            cells = (f"`{key.name}`", key.value, default, key.meaning)
            parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
    return "".join(parts)


def _print(found: list[Key]) -> None:
    for (section, about), members in groupby(found, lambda key: (key.section, key.about)):
        print(f"\n[{section}]" if section else "at the top", f"  {about}", sep="\n")
        for key in members:
            default = key.default if key.default in ("", NEEDED) else f"default {key.default}"
            print(f"  {key.path}\n      {'; '.join(filter(None, (key.value, default)))}")
            print(textwrap.fill(key.meaning, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6))
