"""The table of stages of a recipe, in the order of the data; nothing else.

fetch -> documents -> tokenizer -> tokens -> train -> scores: each with its own settings, its inputs and the
room's function.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from puna.corpus import stage as corpus
from puna.evaluate import stage as evaluate
from puna.evaluate.samples import while_trained
from puna.model import KERNELS
from puna.recipe import CorpusRecipe, Recipe
from puna.run import compiled
from puna.run.stage import Stage
from puna.tokens import stage as tokens
from puna.train import stage as train


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
