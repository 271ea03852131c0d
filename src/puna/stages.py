"""The table of stages of a recipe, in the order of the data; nothing else.

fetch -> documents -> tokenizer -> tokens -> train -> scores, or, of a recipe that tunes a base model,
replay -> rows -> the recipe's own: each with its own settings, its inputs and the room's function.
"""

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from puna.corpus import stage as corpus
from puna.errors import UserError
from puna.evaluate import stage as evaluate
from puna.evaluate.samples import while_trained
from puna.model import KERNELS
from puna.model.weights import content as weights
from puna.recipe import CorpusRecipe, Recipe, TuneRecipe
from puna.report import summary
from puna.run import artifact, compiled
from puna.run.stage import Stage
from puna.tokens import stage as tokens
from puna.train import stage as train
from puna.tune import encode, finish, replay
from puna.tune import stage as tune
from puna.tune.settings import REPLAY


def stages(recipe: CorpusRecipe, root: Path, subscribers: Sequence[Any] = ()) -> list[Stage[Any]]:
    """The stages of a recipe; those of one of a corpus alone are the first two.

    root: the folder that local files are relative to. subscribers: of the training, see `train.stage.train`.
    """
    listed = corpus_stages(recipe, root)
    return listed + training_stages(recipe, subscribers) if isinstance(recipe, Recipe) else listed


def corpus_stages(recipe: CorpusRecipe, root: Path) -> list[Stage[Any]]:
    fetched = corpus.FetchSettings(
        sources=recipe.corpus.sources, on_damaged_file=recipe.corpus.on_damaged_file, root=root
    )
    cleaned = corpus.DocumentsSettings(corpus=recipe.corpus, root=root)
    return [
        Stage(
            name="fetch",
            kind="fetch",
            version=corpus.VERSIONS["fetch"],
            settings=fetched,
            function=corpus.fetch,
            content=partial(corpus.fetch_content, fetched),
        ),
        Stage(
            name="documents",
            kind="documents",
            version=corpus.VERSIONS["documents"],
            settings=cleaned,
            function=corpus.documents,
            inputs={"fetch": "fetch"},
            content=partial(corpus.documents_content, cleaned),
        ),
    ]


def training_stages(recipe: Recipe, subscribers: Sequence[Any] = ()) -> list[Stage[Any]]:
    sources = recipe.corpus.text_sources
    split = tokens.split_settings(sources, recipe.tokens)
    sampler = while_trained(
        recipe.evaluate, steps=recipe.train.steps, length=recipe.train.sequence_length, seed=recipe.seed
    )
    return [
        Stage(
            name="tokenizer",
            kind="tokenizer",
            version=tokens.VERSIONS["tokenizer"],
            settings=tokens.TokenizerStageSettings(split=split, tokenizer=recipe.tokenizer),
            function=partial(
                tokens.train_tokenizer, check=partial(train.check_epochs, recipe.tokens, recipe.train)
            ),
            inputs={"documents": "documents"},
        ),
        Stage(
            name="tokens",
            kind="tokens",
            version=tokens.VERSIONS["tokens"],
            settings=split,
            function=tokens.write_shards,
            inputs={"documents": "documents", "tokenizer": "tokenizer"},
        ),
        Stage(
            name="train",
            kind="train",
            version=train.VERSIONS["train"],
            settings=train.TrainStageSettings(
                seed=recipe.seed,
                sources=sources,
                size=recipe.model.size,
                model=recipe.llama_config(),
                mixture=recipe.tokens,
                train=recipe.train,
                kernels=compiled.kind(KERNELS),
            ),
            function=partial(train.train, subscribers=[sampler, *subscribers]),
            inputs={"tokenizer": "tokenizer", "tokens": "tokens"},
            together=True,
        ),
        Stage(
            name="scores",
            kind="scores",
            version=evaluate.VERSIONS["scores"],
            settings=evaluate.ScoresSettings(
                seed=recipe.seed,
                sources=sources,
                sequence_length=recipe.train.sequence_length,
                evaluate=recipe.evaluate,
            ),
            function=evaluate.score,
            inputs={name: name for name in ("documents", "tokens", "train")},
        ),
    ]


def tuning_stages(recipe: TuneRecipe, root: Path, out: Path) -> list[Stage[Any]]:
    """root: the folder that the recipe's files are relative to; out: that of all runs. Raises UserError where
    the base is a result of the run that would be written over it."""
    base, inputs = base_of(recipe.base.weights, root, out)
    run, place = out / recipe.name, base or inputs["base"]
    if run.resolve() in Path(place).resolve().parents:
        raise UserError(f"name: {recipe.name} is that of the base's own run, {run}: give this one another")
    own, kernels = recipe.replay.share > 0 and not recipe.replay.data, compiled.kind(KERNELS)
    used = {name for stage in recipe.stages for name in recipe.weights_of(stage)} | {recipe.replay.data}
    data = {name: one for name, one in recipe.data.items() if name in used}
    encoded = encode.RowsStageSettings(
        base=base, root=root, chat=recipe.chat, data=data, validation=recipe.validation
    )
    listed: list[Stage[Any]] = []
    if own:
        wanted = recipe.replay.model_dump(include={"prompts", "answer_tokens", "temperature"})
        answers = replay.ReplayStageSettings(seed=recipe.seed, base=base, kernels=kernels, **wanted)
        answer = partial(replay.replay, check=partial(encode.check, encoded))
        listed.append(_stage(REPLAY, answers, answer, inputs, partial(weights.content, base)))
    rows = {**inputs, **({REPLAY: REPLAY} if own else {})}
    listed.append(_stage("rows", encoded, encode.rows, rows, partial(encode.content, encoded)))
    earlier = "base"
    for stage in recipe.stages:
        start = stage.start or earlier
        settings = tune.SupervisedStageSettings(
            seed=recipe.seed,
            base=base if start == "base" else None,
            stage=stage,
            max_tokens=recipe.chat.max_tokens,
            weights=recipe.weights_of(stage),
            replay=recipe.replayed(),
            selected=stage.validations if stage.select == "best" else None,
            kernels=kernels,
        )
        given = {"rows": "rows", **(inputs if start == "base" else {"base": start})}
        content, more = partial(weights.content, settings.base), {"kind": stage.kind, "together": True}
        listed.append(_stage(stage.name, settings, tune.supervised, given, content, **more))
        earlier = stage.name
    asked = finish.ProbeStageSettings(base=base)
    tuned = {**inputs, "tuned": earlier}
    listed.append(_stage("probe", asked, tune.probed, tuned, partial(weights.content, base)))
    if recipe.after.passages:
        told = finish.PassagesStageSettings(base=base, held_out=root / recipe.after.passages)
        listed.append(_stage("passages", told, finish.passages, tuned, partial(finish.content, told)))
    if recipe.after.exports:
        made = finish.ExportsStageSettings()
        listed.append(_stage("exports", made, finish.exports, {"tuned": earlier}, lambda: None))
    return listed


def _stage(name: str, settings: Any, function: Any, inputs: Any, content: Any, **more: Any) -> Stage[Any]:
    """A stage of tuning, by the name of its kind unless `more` tells it."""
    kind = more.pop("kind", name)
    return Stage(name, kind, tune.VERSIONS[kind], settings, function, inputs, content, **more)


def base_of(weights: str, root: Path, out: Path) -> tuple[Path | None, dict[str, str | Path]]:
    """Where the base of a tuning lies: (a file or folder of weights, {}), or (None, the input that it is).

    Raises UserError where there is none.
    """
    name = weights.removeprefix("recipe:")
    path = out / name if name != weights else root / Path(os.path.expandvars(weights)).expanduser()
    if not path.exists():
        if name != weights:
            raise UserError(f"base.weights: {path} is not there; make it first: puna run {name} --out {out}")
        hub = re.fullmatch(r"[\w.-]+/[\w.-]+", weights)
        load = f"; a model of a hub is downloaded first: hf download {weights} --local-dir DIR" if hub else ""
        raise UserError(f"base.weights: no such file or folder: {path}{load}")
    if (path / summary.SUMMARY).is_file():
        path = summary.model_folder(path)
    return (None, {"base": path}) if (path / artifact.MANIFEST).is_file() else (path, {})
