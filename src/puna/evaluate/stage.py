"""Trained weights -> scores beside baselines, and samples: a stage of a run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from puna.evaluate.samples import samples
from puna.evaluate.settings import EvaluateSettings
from puna.run import machine
from puna.run.artifact import Artifact
from puna.run.settings import Settings
from puna.run.stage import Context, Metrics
from puna.tokens.stage import documents_of

VERSIONS = {"scores": 6}


class ScoresSettings(Settings):
    """What scores depend on beside the model: sources in the recipe's order, tokens a row of the model."""

    seed: int
    sources: tuple[str, ...]
    sequence_length: int
    evaluate: EvaluateSettings


def score(settings: ScoresSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Bits per byte on held-out documents beside baselines, and samples.

    Memory: the model, the logits of `bits_per_byte.LOGITS`, what `evaluate.ngram_tokens` takes and
    `evaluate.held_out_tokens` of one source, however large the corpus is.
    """
    from puna.model.weights import native
    from puna.tokens.tokenizer import load

    trained = inputs["train"]
    tokenizer = load(trained.path("tokenizer.model"))
    sources = [name for name in settings.sources if name in inputs["tokens"].metrics]
    baselines = _baselines(settings, inputs["tokens"], sources, context, tokenizer)
    model = native.load(trained.folder)
    scores = _bits_per_byte(settings, inputs, sources, context, model, tokenizer, baselines)
    told = samples(settings.evaluate, model, tokenizer, length=settings.sequence_length, seed=settings.seed)
    result = {**scores, **baselines.metrics, "samples": told}
    (context.work / "scores.json").write_text(json.dumps(result, indent=1))
    return result


@dataclass(frozen=True)
class _Baselines:
    """What the baselines learned from the training tokens: counts of each, and a 5-gram model or none.

    metrics: how many tokens the 5-gram learned from, and of how many.
    """

    counts: Any
    five_gram: Any
    metrics: Metrics


def _baselines(
    settings: ScoresSettings, tokens: Artifact, sources: Sequence[str], context: Context, tokenizer: Any
) -> _Baselines:
    """Train the baselines. Raises UserError where the 5-gram may take more memory than there is."""
    from puna.evaluate import bits_per_byte as bits
    from puna.evaluate import ngram
    from puna.tokens.shards import load

    wanted, vocab_size = settings.evaluate, tokenizer.vocab_size
    training = [load(tokens.folder, name, "train", vocab_size) for name in sources]
    total = sum(len(shard.tokens) for shard in training)
    five_gram, metrics = None, {}
    if wanted.ngram:
        free, limit = machine.available_bytes(), context.execution.memory_bytes
        ngram.check_memory(min(total, wanted.ngram_tokens), min(free, limit) if limit else free)
        context.reporter.progress("5-gram", 0, len(sources) + 1)
        learned = ngram.training_tokens(training, wanted.ngram_tokens)
        five_gram = ngram.NGram(learned, begin=tokenizer.bos_id, vocab_size=vocab_size)
        metrics = {"five_gram_tokens": {"learned": len(learned), "all": total}}
        if len(learned) < total:
            context.reporter.note(
                f"the 5-gram learned from {len(learned):,} of {total:,} training tokens, "
                f"by evaluate.ngram_tokens = {wanted.ngram_tokens:,}"
            )
    return _Baselines(bits.token_counts(training, vocab_size), five_gram, metrics)


def _bits_per_byte(
    settings: ScoresSettings,
    inputs: Mapping[str, Artifact],
    sources: Sequence[str],
    context: Context,
    model: Any,
    tokenizer: Any,
    baselines: _Baselines,
) -> Metrics:
    """Bits per byte of each source's held-out documents by each method, with intervals, and the bytes of
    those documents.

    intervals: of the model, the 5-gram and the ratio of both, over the documents drawn again; of sources with
    one document there are none.
    """
    import numpy as np

    from puna.evaluate import bits_per_byte as bits
    from puna.tokens.shards import load

    shards, documents = inputs["tokens"], inputs["documents"]
    results, sizes, intervals = {}, {}, {}
    for number, name in enumerate(sources):
        context.reporter.progress(name, number + 1, len(sources) + 1)
        shard = load(shards.folder, name, "held_out", tokenizer.vocab_size)
        shard = shard.sample(settings.evaluate.held_out_tokens)
        rows = set(shard.rows.tolist())
        texts = [text for row, (_, text) in enumerate(documents_of(documents, name)) if row in rows]
        size = np.array([len(text.encode()) for text in texts])
        own = bits.model_bits(model, shard, settings.sequence_length)
        needed = {
            "model": own.sum(),
            "xz": bits.xz_bits(texts),
            "unigram": bits.unigram_bits(baselines.counts, shard, tokenizer.bos_id).sum(),
        }
        known = {"model": (own, size)}
        if baselines.five_gram is not None:
            five_gram = bits.ngram_bits(baselines.five_gram, shard)
            needed["five_gram"] = five_gram.sum()
            known |= {"five_gram": (five_gram, size), "model_over_five_gram": (own, five_gram)}
        sizes[name] = int(size.sum())
        results[name] = {method: float(value) / sizes[name] for method, value in needed.items()}
        if len(texts) > 1:
            intervals[name] = {key: bits.interval(*pair) for key, pair in known.items()}
    return {"bits_per_byte": results, "held_out_bytes": sizes, "intervals": intervals}
