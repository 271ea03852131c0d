"""Trained weights -> scores beside baselines, and samples: a stage of a run."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from puna.evaluate.samples import samples
from puna.evaluate.settings import EvaluateSettings
from puna.run.artifact import Artifact
from puna.run.stage import Context, Metrics
from puna.tokens.stage import documents_of

VERSIONS = {"scores": 3}


class ScoresSettings(BaseModel):
    """What scores depend on beside the model: sources in the recipe's order, tokens a row of the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    sources: tuple[str, ...]
    sequence_length: int
    evaluate: EvaluateSettings


def score(settings: ScoresSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Bits per byte on held-out documents beside three baselines, and samples."""
    from puna.model.weights import native
    from puna.tokens.tokenizer import load

    trained = inputs["train"]
    model, tokenizer = native.load(trained.folder), load(trained.path("tokenizer.model"))
    scores = _bits_per_byte(settings, inputs, context, model, tokenizer)
    told = samples(settings.evaluate, model, tokenizer, length=settings.sequence_length, seed=settings.seed)
    result = {**scores, "samples": told}
    (context.work / "scores.json").write_text(json.dumps(result, indent=1))
    return result


def _bits_per_byte(
    settings: ScoresSettings, inputs: Mapping[str, Artifact], context: Context, model: Any, tokenizer: Any
) -> Metrics:
    """Bits per byte of each source's held-out documents by each method, and the bytes of those documents."""
    import numpy as np

    from puna.evaluate import bits_per_byte as bits
    from puna.evaluate.ngram import NGram
    from puna.tokens.shards import load

    shards, documents = inputs["tokens"], inputs["documents"]
    sources = [name for name in settings.sources if name in shards.metrics]
    context.reporter.progress("5-gram", 0, len(sources) + 1)
    training = [load(shards.folder, name, "train", tokenizer.vocab_size) for name in sources]
    tokens = np.concatenate([shard.tokens for shard in training])
    starts = np.cumsum([0, *(len(shard.tokens) for shard in training)])
    document_starts = [shard.offsets[:-1] + start for shard, start in zip(training, starts, strict=False)]
    five_gram = NGram(
        tokens, np.concatenate([*document_starts, starts[-1:]]), vocab_size=tokenizer.vocab_size
    )
    results, sizes = {}, {}
    for number, name in enumerate(sources):
        context.reporter.progress(name, number + 1, len(sources) + 1)
        shard = load(shards.folder, name, "held_out", tokenizer.vocab_size)
        shard = shard.sample(settings.evaluate.held_out_tokens)
        rows = set(shard.rows.tolist())
        texts = [text for row, (_, text) in enumerate(documents_of(documents, name)) if row in rows]
        sizes[name] = sum(len(text.encode()) for text in texts)
        needed = {
            "model": bits.model_bits(model, shard, settings.sequence_length),
            "xz": bits.xz_bits(texts),
            "unigram": bits.unigram_bits(tokens, shard, tokenizer.vocab_size, tokenizer.bos_id),
            "five_gram": bits.ngram_bits(five_gram, shard),
        }
        results[name] = {method: value / sizes[name] for method, value in needed.items()}
    return {"bits_per_byte": results, "held_out_bytes": sizes}
