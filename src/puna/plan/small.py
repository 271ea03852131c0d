"""The sections of a recipe that train a small model, sized to the documents of a corpus."""

from typing import Any

from puna.errors import UserError
from puna.run.artifact import Artifact
from puna.text.lists import listed

# Sections and their keys, for some megabytes of text and more.
DEFAULT: dict[str, dict[str, Any]] = listed(__file__, "small.json")
MEASURED_BYTES = 5_000_000  # of documents; with more, nothing here would be smaller
VOCABULARIES = ((3_000_000, 4096), (500_000, 2048), (100_000, 1024), (0, 512))  # from bytes of text on
EPOCHS = 16  # more teach a small model little but its text by heart
SHORT_BATCH = (4, 128)  # sequences and their length, where there are few tokens: more, smaller steps
SMALLEST_SIZE, SMALL_SIZE, SMALLEST_TOKENS = "tiny", "1m", 50_000
LEAST_STEPS = 20


def sections(documents: Artifact) -> dict[str, dict[str, Any]]:
    """Sections, with their keys, that train a small model on these documents.

    What trains is chosen as a run would choose it, a tokenizer is tried on it, and its tokens are counted.
    Raises UserError where the text is too small for any model.
    """
    from puna.tokens import stage, tokenizer
    from puna.tokens.settings import TokenizerSettings, TokensSettings

    kept = {name: steps["kept"] for name, steps in documents.metrics["sources"].items()}
    sizes = {name: own["bytes"] for name, own in kept.items() if own["documents"] > 1}
    if sum(sizes.values()) > MEASURED_BYTES:
        return DEFAULT
    if not sizes:
        raise UserError("no source has two documents, of which one would be held out for the scores")
    split = stage.split_settings(tuple(sizes), TokensSettings())
    texts: list[str] = []
    for name, size in sizes.items():
        texts += stage.training_texts(documents, split, name, size).texts
    training_bytes = sum(len(text.encode()) for text in texts)
    wanted = next(size for bytes_from, size in VOCABULARIES if training_bytes >= bytes_from)
    least, most = tokenizer.vocabulary_bounds(texts, wanted)
    if most < least:
        raise UserError(f"its {training_bytes:,} bytes to train on give no tokenizer")
    vocab_size = min(max(wanted, least + 256), most)
    tried = tokenizer.Tokenizer(tokenizer.train(texts, TokenizerSettings(vocab_size=vocab_size)))
    sizes_of_training = _model_and_steps(len(tried.encode_flat(texts)[0]))
    return {**DEFAULT, "tokenizer": {"vocab_size": vocab_size}, **sizes_of_training}


def _model_and_steps(tokens: int) -> dict[str, dict[str, Any]]:
    """Size of the model and its training on so many tokens."""
    default = DEFAULT["train"]
    wanted = EPOCHS * tokens
    if wanted >= default["steps"] * default["batch_sequences"] * default["sequence_length"]:
        return {}
    count, length = SHORT_BATCH
    if tokens < length:
        raise UserError(f"its {tokens:,} tokens to train on do not fill a sequence of {length}")
    steps = max(LEAST_STEPS, min(default["steps"], wanted // (count * length)))
    size = SMALLEST_SIZE if tokens < SMALLEST_TOKENS else SMALL_SIZE
    shape = {"steps": steps, "batch_sequences": count, "sequence_length": length}
    train = {**default, **shape, "warmup_steps": min(default["warmup_steps"], steps // 5)}
    return {"model": {"size": size}, "train": train}
