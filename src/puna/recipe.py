"""The Recipe: the rooms' settings put together as one frozen, typed tree read from TOML."""

import datetime
import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from puna.corpus.settings import CorpusSettings
from puna.errors import UserError
from puna.evaluate.settings import EvaluateSettings
from puna.model.config import LlamaConfig, config
from puna.plan import small
from puna.run.settings import ClusterSettings, EnergySettings, ExecutionSettings
from puna.tokens.settings import TokenizerSettings, TokensSettings
from puna.train.settings import TrainSettings
from puna.tune.settings import REPLAY, SupervisedSettings, TuneSettings

PACKAGED = Path(__file__).parent / "recipes"
CHECKOUT = Path(__file__).parents[2] / "recipes"
TRAINING = ("tokenizer", "model", "train")  # the sections that a recipe of a corpus alone does without
LARGEST_BITS = 1024  # of a whole number; no key takes one as large
NEEDED = {
    "int_type": "a whole number is needed",
    "float_type": "a number is needed, such as 0.5",
    "bool_type": "true or false is needed",
    "string_type": "text in quotes is needed",
    "model_type": "a section is needed, with keys of its own",
    "dict_type": "a section is needed, with keys of its own",
    "too_short": "at least one entry is needed",
}
RENAMED = {  # keys of earlier versions, and what they are called now
    "corpus.known": "corpus.deduplicate_against",
    "corpus.near_duplicates": "corpus.near_duplicate_threshold",
    "corpus.line_memory_bytes": "corpus.remembered_lines, in lines of 16 bytes each",
    "corpus.perplexity.pieces": "corpus.perplexity.vocab_size",
    "corpus.reference.dumps": "corpus.reference.citations_from",
    "corpus.group_bytes": "execution.group_bytes",
    "corpus.workers": "execution.workers",
    "corpus.ray": "execution.ray",
    "tokens.held_out": "tokens.held_out_fraction",
    "train.minimum_learning_rate": "train.final_learning_rate_fraction, a fraction of the peak",
    "train.decay_share": "train.decay_fraction",
    "train.micro_batch_sequences": "execution.micro_batch_sequences",
    "train.remat": "execution.remat",
    "train.device": "execution.device",
    "train.compile": "execution.compile",
    "train.checkpoint_steps": "execution.checkpoint_steps",
}
Known = TypeVar("Known", bound=BaseModel)
TOO_DEEP = "recipe: lists or sections lie too deep in each other"


class ModelSettings(BaseModel):
    """Which model: a size of the table, and what differs from it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: str = Field(description="a name from the table of sizes, such as 5m or 7b")
    n_kv_heads: int | None = Field(None, ge=1, description="key and value heads; default: the size's own")
    tie_embeddings: bool | None = Field(
        None, description="one matrix for the embedding and the head; default: the size's own"
    )

    @field_validator("size")
    @classmethod
    def _known(cls, size: str) -> str:
        try:
            config(size)
        except UserError as error:
            raise ValueError(str(error)) from error
        return size


class CorpusRecipe(BaseModel):
    """Everything that decides what a corpus is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="name of the output folder; default: the recipe file's, without .toml",
    )
    seed: int = Field(1, ge=0, lt=1 << 63, description="of all that is drawn by chance")
    corpus: CorpusSettings
    execution: ExecutionSettings = ExecutionSettings()

    def require_training(self) -> "Recipe":
        """This recipe as one that trains, too. Raises UserError where it is one of a corpus alone."""
        if not isinstance(self, Recipe):
            raise UserError(
                f"recipe {self.name} is one of a corpus alone: it lacks a section of {', '.join(TRAINING)}"
            )
        return self


class Recipe(CorpusRecipe):
    """Everything that decides what a run computes."""

    tokenizer: TokenizerSettings
    tokens: TokensSettings = TokensSettings()
    model: ModelSettings
    train: TrainSettings
    evaluate: EvaluateSettings = EvaluateSettings()
    energy: EnergySettings = EnergySettings()
    cluster: ClusterSettings = ClusterSettings()

    def llama_config(self) -> LlamaConfig:
        """The model's shape, with the tokenizer's vocabulary and the training context."""
        changes = self.model.model_dump(exclude={"size"}, exclude_none=True)
        return config(
            self.model.size, self.tokenizer.vocab_size, max_seq_len=self.train.sequence_length, **changes
        )

    def problems(self) -> list[str]:
        """What is wrong between rooms, which no room can see alone."""
        found = []
        names = set(self.corpus.text_sources)
        mixture = set(self.tokens.mixture)
        if mixture:
            found += [
                f"tokens.mixture.{name}: no such source; sources are {', '.join(sorted(names))}"
                for name in sorted(mixture - names)
            ]
            found += [
                f"tokens.mixture: source {name} has neither share nor epochs"
                for name in sorted(names - mixture)
            ]
        micro_batch = self.train.micro_batch(self.execution)
        if self.train.batch_sequences % micro_batch:
            found.append(
                f"execution.micro_batch_sequences: {micro_batch} does not divide train.batch_sequences "
                f"{self.train.batch_sequences}"
            )
        if self.execution.compile and self.cluster.mesh.tensor > 1:
            found.append("execution.compile: compiled blocks do not go with cluster.mesh.tensor above 1")
        try:
            self.llama_config()
        except (UserError, ValidationError) as error:
            detail = (
                [problem["msg"] for problem in error.errors()]
                if isinstance(error, ValidationError)
                else [str(error)]
            )
            found += [f"model: {text}" for text in detail]
        return found


class TuneRecipe(TuneSettings):
    """Everything that decides what a tuning computes."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="name of the output folder; default: the recipe file's, without .toml",
    )
    seed: int = Field(1, ge=0, lt=1 << 63, description="of all that is drawn by chance")
    execution: ExecutionSettings = ExecutionSettings()
    energy: EnergySettings = EnergySettings()
    cluster: ClusterSettings = ClusterSettings()

    def replayed(self) -> tuple[str, float] | None:
        """(name of the set that is replayed, its share); None where nothing is."""
        return (self.replay.data or REPLAY, self.replay.share) if self.replay.share else None

    def weights_of(self, stage: SupervisedSettings) -> dict[str, float]:
        """The sets that a stage trains on beside what is replayed, with their weights."""
        names = [name for name in stage.data or self.data if name != self.replay.data]
        return {name: self.data[name].weight for name in names}


def find(name: str) -> Path:
    """The file of a recipe given by path or by the name of a shipped one. Raises UserError listing the
    shipped ones."""
    path = Path(name)
    if path.suffix == ".toml" or os.sep in name:
        if path.is_file():
            return path
        raise UserError(f"no recipe file at {name}{_made(path)}")
    shipped = [folder for folder in (CHECKOUT, PACKAGED) if folder.is_dir()]
    for folder in shipped:
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    known = sorted({path.stem for folder in shipped for path in folder.glob("*.toml")})
    shipped_names = ", ".join(known) or "none"
    raise UserError(
        f"no recipe named {name}; shipped recipes: {shipped_names}; or give the path of a .toml file"
        f"{_made(Path('out') / name)}"
    )


def _made(folder: Path) -> str:
    """Name the recipe that `puna corpus` wrote into a folder, if it did."""
    path = folder / "recipe.toml"
    return f"; did you mean {path}?" if path.is_file() else ""


def is_shipped(name: str) -> bool:
    """Whether a name is that of a shipped recipe, and no file's or folder's."""
    return (
        os.sep not in name
        and not Path(name).exists()
        and any((folder / f"{name}.toml").is_file() for folder in (CHECKOUT, PACKAGED))
    )


def root_of(name: str, path: Path) -> Path:
    """The folder that the files of a recipe that tunes are relative to: that of the recipe, or where one is
    for a shipped one. name: as it was given, path: its file."""
    return Path() if is_shipped(name) else path.parent


def as_toml(sections: dict[str, dict[str, Any]]) -> str:
    """Sections of plain keys as TOML."""
    written = [[f"[{name}]", *map(_assignment, keys.items())] for name, keys in sections.items()]
    return "\n".join(line for lines in written for line in (*lines, ""))


def _assignment(key: tuple[str, Any]) -> str:
    return f"{key[0]} = {json.dumps(key[1])}"


def load(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe. `overrides` are `section.key=value` with the value in TOML or a bare word. A value has
    to be of its key's own type: "2", 2.0 and true are no 2.

    Raises UserError with every problem at once, each with file and key.
    """
    if is_tuning(path):
        raise UserError(f"{path} tunes a base model: puna tune {path}")
    recipe, problems, missing = _read(path, overrides)
    if missing:
        told = (
            f"{', '.join(missing)}: missing, which training needs (puna corpus {path} does without); "
            "for a small model, write"
        )
        lacking = as_toml({section: small.DEFAULT[section] for section in missing}).splitlines()
        problems.append("\n    ".join([told, *filter(None, lacking)]))
    if problems or not isinstance(recipe, Recipe):
        raise _refused(path, problems)
    return recipe


def load_corpus(path: Path, overrides: tuple[str, ...] = ()) -> CorpusRecipe:
    """Read a recipe that may be one of a corpus alone: a Recipe where no section is missing. Raises UserError
    as `load` does."""
    recipe, problems, _ = _read(path, overrides)
    if problems or recipe is None:
        raise _refused(path, problems)
    return recipe


def _refused(path: Path, problems: list[str]) -> UserError:
    return UserError(
        "\n  ".join([f"{path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", *problems])
    )


def is_tuning(path: Path) -> bool:
    """Whether a recipe tunes a base model: it has a section [base]."""
    return "base" in _tree(path)


def load_tuning(path: Path, overrides: tuple[str, ...] = ()) -> TuneRecipe:
    """Read a recipe that tunes a base model. Raises UserError as `load` does."""
    tree = _tree(path)
    if tree.keys() & set(TRAINING) and "base" not in tree:
        raise UserError(f"{path} tunes no base model, which a section [base] would name: puna run {path}")
    problems = [problem for text in overrides if (problem := _override(tree, text))]
    recipe, more = _validated(path, tree, TuneRecipe)
    if recipe is None or problems:
        raise _refused(path, problems + more)
    return recipe


def _tree(path: Path) -> dict[str, Any]:
    """A recipe's file as it is. Raises UserError where it is no TOML."""
    try:
        tree = tomllib.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    tree.setdefault("name", path.stem)
    return tree


def _read(path: Path, overrides: tuple[str, ...]) -> tuple[CorpusRecipe | None, list[str], list[str]]:
    """(the recipe unless there are problems, the problems, those sections of TRAINING that are missing)."""
    tree = _tree(path)
    problems = [problem for text in overrides if (problem := _override(tree, text))]
    missing = [section for section in TRAINING if section not in tree]
    whole, found = _validated(path, tree, Recipe, missing)
    recipe: CorpusRecipe | None = whole
    if whole is not None:
        problems += whole.problems()
    elif not found:
        recipe, found = _validated(
            path, {key: tree[key] for key in CorpusRecipe.model_fields if key in tree}, CorpusRecipe
        )
    return recipe, problems + found, missing


def _validated(
    path: Path, tree: dict[str, Any], kind: type[Known], missing: Sequence[str] = ()
) -> tuple[Known | None, list[str]]:
    """(a recipe of a kind unless there are problems, the problems but for the sections that are missing)."""
    foreign: dict[str, str] = {}
    if tree["name"] == path.stem and not _is_text(path.stem):
        foreign["name"] = (
            "it is the file's, which is not text in UTF-8; rename the file, or write a name into it"
        )
        tree = {**tree, "name": None}
    recipe, problems = None, []
    try:
        plain = _plain(tree, "", foreign)
        # As JSON, where a list may stand for a tuple and nothing else is taken for what it is not.
        try:
            recipe = kind.model_validate_json(json.dumps(plain), strict=True)
        except ValidationError as error:
            problems = [
                _explain(problem, plain, kind)
                for problem in _causes(error.errors())
                if _key(problem) not in (*foreign, *missing)
            ]
    except RecursionError:
        problems = [TOO_DEEP]
    problems += [f"{_named(key.split('.'), tree)}: {message}" for key, message in foreign.items()]
    return recipe, problems


def _is_text(text: str) -> bool:
    return text == text.encode(errors="replace").decode()


def _causes(problems: list[Any]) -> list[Any]:
    """Without lists that are only too short because an entry of theirs is wrong."""
    lists = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in lists]


def _override(tree: dict[str, Any], text: str) -> str | None:
    """Apply one `section.key=value` to the tree; the problem as text, or None."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        return f"{text}: an override is written section.key=value"
    if not _is_text(text):
        return f"{text.encode(errors='replace').decode()}: not UTF-8 text"
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value
    node: Any = tree
    *sections, last = key.split(".")
    for section in sections:
        node = (
            _member(node, section)
            if isinstance(node, list)
            else node.setdefault(section, {})
            if isinstance(node, dict)
            else None
        )
    if not isinstance(node, dict):
        return (
            f"{key}: cannot be set: there is no such section (a source is named by its name, as in "
            "corpus.sources.code.reader)"
        )
    node[last] = parsed
    return None


def _member(entries: list[Any], name: str) -> Any:
    """An entry of a list by its `name` or by its place."""
    named = [entry for entry in entries if isinstance(entry, dict) and entry.get("name") == name]
    return named[0] if named else entries[int(name)] if name.isdigit() and int(name) < len(entries) else None


def _plain(node: Any, key: str, foreign: dict[str, str]) -> Any:
    """The tree in values of JSON; what it has no value for is told in `foreign` by its key, and becomes
    null."""
    if isinstance(node, dict):
        return {
            name: _plain(value, f"{key}.{name}".removeprefix("."), foreign) for name, value in node.items()
        }
    if isinstance(node, list):
        return [_plain(value, f"{key}.{place}", foreign) for place, value in enumerate(node)]
    if isinstance(node, datetime.date | datetime.time):
        foreign[key] = f"no key takes a date or a time; where text is meant, put it in quotes (it is {node})"
        return None
    if isinstance(node, int) and node.bit_length() > LARGEST_BITS:
        foreign[key] = "no key takes so large a number"
        return None
    return node


def _key(problem: Any) -> str:
    return ".".join(str(part) for part in problem["loc"]) or "recipe"


def _named(location: Sequence[Any], tree: Any) -> str:
    """A key as people write it: entries of a list by their name, where they have one."""
    parts: list[str] = []
    for part in location:
        if isinstance(tree, list) and str(part).isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
            name = tree.get("name") if isinstance(tree, dict) else None
            parts.append(name if isinstance(name, str) and name else str(part))
        else:
            tree = tree.get(part) if isinstance(tree, dict) else None
            parts.append(str(part))
    return ".".join(parts)


def _explain(problem: Any, tree: Any, kind: Any) -> str:
    if (
        problem["type"] == "json_invalid"
    ):  # all that json.dumps writes is JSON, but pydantic goes 200 levels deep only
        return TOO_DEEP
    key = _named(problem["loc"], tree) or "recipe"
    message = NEEDED.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "int_type":
        message = f"{message}, such as {_example(problem['loc'], kind)}"
    if problem["type"] == "extra_forbidden":
        name, _, meaning = RENAMED.get(".".join(map(str, problem["loc"])), "").partition(", ")
        if name:
            message = f"is called {name} now" + (f" ({meaning})" if meaning else "")
        else:
            message = f"unknown key{_nearest(problem['loc'], kind)}"
    elif problem["type"] == "missing":
        message = "missing"
    elif problem["type"] == "literal_error":
        choices = problem["ctx"]["expected"].replace("'", "")
        message = f"one of {choices} is needed (it is {json.dumps(problem.get('input'), default=str)})"
    elif problem["type"] == "tuple_type":
        message = f"a list is needed, such as [{json.dumps(problem.get('input'), default=str)}]"
    elif not isinstance(problem.get("input"), dict | list):
        message += f" (it is {json.dumps(problem.get('input'), default=str)})"
    return f"{key}: {message}"


def _example(location: tuple[Any, ...], kind: Any) -> int:
    """A whole number that a key takes: 100, or its least where that is more."""
    fields = getattr(_model_at(location, kind), "model_fields", {})
    metadata = fields[location[-1]].metadata if location[-1] in fields else []
    return max([100, *(bound.ge for bound in metadata if hasattr(bound, "ge"))])


def _model_at(location: tuple[Any, ...], kind: Any) -> Any:
    """The class of settings that a key of a kind of recipe stands in; None where there is none."""
    model: Any = kind
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        annotation = field.annotation if field else None
        arguments = [a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")]
        model = annotation if hasattr(annotation, "model_fields") else (arguments[0] if arguments else None)
    return model


def _nearest(location: tuple[Any, ...], kind: Any) -> str:
    """A suggestion for a misspelt key, and for one that lacks its section."""
    import difflib

    model = _model_at(location, kind)
    if len(location) == 1:
        sections = {
            name: getattr(field.annotation, "model_fields", {}) for name, field in kind.model_fields.items()
        }
        if inside := [f"{name}.{location[0]}" for name, keys in sections.items() if location[0] in keys]:
            return f"; did you mean {' or '.join(inside)}?"
    keys = list(model.model_fields) if model is not None and hasattr(model, "model_fields") else []
    close = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"; did you mean {close[0]}?" if close else (f"; known keys: {', '.join(keys)}" if keys else "")
