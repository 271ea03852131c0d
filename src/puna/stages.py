"""The stages of a recipe, in the order of the data: fetch, documents, tokenizer, tokens, train, scores.

Each takes finished artifacts and fills a folder. The numbers in `VERSIONS` are part of the fingerprints:
raise one when a change of code changes that stage's result.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from puna.corpus.sources import fetch as fetching
from puna.errors import UserError
from puna.model import KERNELS
from puna.recipe import CorpusRecipe, Recipe
from puna.run import artifact, compiled
from puna.run.artifact import Artifact
from puna.run.build import Context, Stage

TAKE_FOLDERS = ("arxiv", "code")  # readers for which a folder is one paper, one package
VERSIONS = {"fetch": 5, "documents": 8, "tokenizer": 2, "tokens": 1, "train": 3, "scores": 1}


def stages(recipe: CorpusRecipe, root: Path) -> list[Stage]:
    """Stages of a recipe: the first two of one of a corpus alone. root: the folder that local files are
    relative to. Raises UserError when local files are missing."""
    described: dict[str, tuple[tuple[str, ...], Any, Callable[[Context], dict[str, Any]]]] = {
        "fetch": ((), _addresses(recipe, root), fetch),
        "documents": (("fetch",), _corpus(recipe, root), documents),
    }
    if isinstance(recipe, Recipe):
        described |= _training(recipe)
    return [
        Stage(name, VERSIONS[name], inputs, settings, work)
        for name, (inputs, settings, work) in described.items()
    ]


def _training(recipe: Recipe) -> dict[str, tuple[tuple[str, ...], Any, Callable[[Context], dict[str, Any]]]]:
    model = recipe.llama_config()
    return {
        "tokenizer": (
            ("documents",),
            [recipe.tokenizer, recipe.tokens.held_out, recipe.tokens.small_sources],
            tokenizer,
        ),
        "tokens": (("documents", "tokenizer"), [recipe.tokens.held_out, recipe.tokens.small_sources], tokens),
        "train": (
            ("tokenizer", "tokens"),
            [recipe.seed, model, recipe.train, recipe.tokens, compiled.kind(KERNELS)],
            train,
        ),
        "scores": (("documents", "tokenizer", "tokens", "train"), [recipe.seed, recipe.evaluate], scores),
    }


def _addresses(recipe: CorpusRecipe, root: Path) -> dict[str, str]:
    """A digest of what every source is read from, by content: remote files by the digest in their address,
    local ones by their own."""
    found: dict[str, str] = {}
    for source in recipe.corpus.sources:
        entries = hashlib.sha256()
        for address in fetching.parse_all(source.uris):
            inside = {"members": address.members} if address.members else {}
            if address.kind == "local":
                files = fetching.local_files(
                    source.name, address, root, recipe.corpus.on_damaged_file == "skip"
                )
                if source.reader not in TAKE_FOLDERS and (
                    folders := [file.name for file in files if file.path.is_dir()]
                ):
                    raise UserError(
                        f"source {source.name}: {folders[0]} is a folder, and the reader {source.reader} takes files; write {folders[0]}/*"
                    )
                for file in files:
                    entries.update(_line({"name": file.name, "digest": file.digest, **inside}))
            else:
                entries.update(_line({"uri": address.uri.partition("!")[0], **inside}))
        found[source.name] = entries.hexdigest()
    return found


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _corpus(recipe: CorpusRecipe, root: Path) -> dict[str, Any]:
    """What the documents depend on: the corpus' settings but where and by whom the work is done, and the
    content of files they name."""
    from puna.corpus.merge import documents_folder

    corpus = recipe.corpus
    files = {}
    for path in (*corpus.opt_out.paths(), *filter(None, [corpus.bad_words])):
        if not (root / path).is_file():
            key = "bad_words" if path == corpus.bad_words else "opt_out"
            raise UserError(f"corpus.{key}: no file at {root / path}; paths start from corpus.root")
        files[path] = artifact.file_digest(root / path)
    known = ""
    if corpus.known:
        try:
            made = artifact.load(documents_folder(root / corpus.known))
        except UserError as error:
            raise UserError(f"corpus.known: {error}; paths start from corpus.root") from error
        index = made.folder / "near" / "index.json"
        threshold = json.loads(index.read_bytes())["threshold"] if index.is_file() else 1
        if threshold != corpus.near_duplicates:
            raise UserError(
                f"corpus.known: {corpus.known} was made with near_duplicates = {threshold}; set it to that here, too"
            )
        known = made.digest
    return {**corpus.model_dump(exclude={"root", "workers", "ray"}), "files": files, "known": known}


def fetch(context: Context) -> dict[str, Any]:
    """Bring remote files and what is inside archives into the artifact; other local files are listed with
    their digests and stay."""
    counts: dict[str, dict[str, int]] = {}
    corpus, brought = context.recipe.corpus, context.scratch.parent / fetching.BROUGHT
    total, done, skip = (
        sum(len(source.uris) for source in corpus.sources),
        0,
        corpus.on_damaged_file == "skip",
    )
    for source in corpus.sources:
        count = counts[source.name] = {"files": 0, "bytes": 0}
        folder = context.work / source.name
        with _list(context.work, source.name).open("wb") as listed:
            for address in fetching.parse_all(source.uris):
                context.view.progress(source.name, done, total)
                for file in _brought(context, source.name, address, folder, brought, skip):
                    listed.write(
                        _line(
                            {
                                "name": file.name,
                                "digest": file.digest,
                                "bytes": file.bytes,
                                "path": _inside(context.work, file),
                            }
                        )
                    )
                    count["files"] += 1
                    count["bytes"] += file.bytes
                done += max(1, len(address.members))
    return counts


def _list(folder: Path, source: str) -> Path:
    """Where a source's raw files are listed, one a line."""
    return folder / f"{source}.jsonl"


def _brought(
    context: Context, source: str, address: fetching.Address, folder: Path, brought: Path, skip: bool
) -> list[fetching.RawFile]:
    if address.kind != "local":
        return fetching.fetch(source, address, folder, brought, skip)
    files = fetching.local_files(source, address, context.root, skip)
    if not address.members:
        return files
    return [
        inside
        for file in files
        for inside in ([file] if file.unreadable else fetching.unpack(file, address.members, folder, skip))
    ]


def _inside(work: Path, file: fetching.RawFile) -> str | None:
    """Where in the artifact a file is; None for one that stays where it was, or cannot be read."""
    return (
        file.path.relative_to(work).as_posix()
        if file.path.is_relative_to(work) and not file.unreadable
        else None
    )


def documents(context: Context) -> dict[str, Any]:
    """Raw files -> clean documents, one Parquet file a source, and the list of what was dropped."""
    from puna.corpus import merge
    from puna.run import machine

    needed, free = merge.memory_bytes(context.recipe.corpus), machine.available_bytes()
    context.view.note(f"at most {needed / 1e6:,.0f} MB of memory, of {free / 1e6:,.0f} MB free")
    if needed > free:
        raise UserError(
            f"the corpus may take {needed / 1e6:,.0f} MB of memory and {free / 1e6:,.0f} MB are free: lower corpus.workers or "
            "corpus.line_memory_bytes"
        )
    fetched = context.inputs["fetch"]
    files = {
        source.name: _raw_files(fetched, source.name, context.root)
        for source in context.recipe.corpus.sources
    }
    return merge.documents(
        context.recipe.corpus, files, context.scratch, context.work, context.view.progress, context.root
    )


def _raw_files(fetched: Artifact, source: str, root: Path) -> Iterator[fetching.RawFile]:
    with _list(fetched.folder, source).open("rb") as listed:
        for entry in map(json.loads, listed):
            where = fetched.path(entry["path"]) if entry["path"] else root / entry["name"]
            yield fetching.RawFile(source, entry["name"], str(where), entry["digest"], entry["bytes"])


def _texts(found: Artifact, source: str) -> Iterator[tuple[str, str]]:
    """(id, text) of every document of a source, in the order of its file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(found.path(f"{source}.parquet")) as file:
        for number in range(file.num_row_groups):
            group = file.read_row_group(number, ["id", "text"])
            yield from zip(group["id"].to_pylist(), group["text"].to_pylist(), strict=True)


def _names(recipe: CorpusRecipe, shards: Artifact) -> list[str]:
    """The sources that have shards, in the recipe's order."""
    return [source.name for source in recipe.corpus.sources if source.name in shards.metrics]


def _trained_on(recipe: Recipe, found: Artifact) -> list[str]:
    """The sources that a model is trained on. Raises UserError for those that are too small, unless they are
    to be left out."""
    kept = {
        source.name: found.metrics["sources"][source.name]["kept"]["documents"]
        for source in recipe.corpus.sources
    }
    enough = [name for name, documents in kept.items() if documents > 1]
    leaves_out = recipe.tokens.small_sources == "leave out"
    if (empty := [name for name, documents in kept.items() if not documents]) and not (leaves_out and enough):
        raise UserError("\n".join(found.metrics["empty"][name] for name in empty))
    if (small := [name for name in kept if name not in enough]) and not (leaves_out and enough):
        raise UserError(
            f"source {small[0]} has 1 document: at least two are needed, since one is held out for scores; give more files, or set "
            'tokens.small_sources to "leave out"'
        )
    return enough


def tokenizer(context: Context) -> dict[str, Any]:
    """Train the tokenizer on the training documents of every source."""
    from puna.tokens import shards
    from puna.tokens import tokenizer as module

    recipe, found = context.recipe.whole(), context.inputs["documents"]
    names = sorted(_trained_on(recipe, found))
    if left := sorted(found.metrics["sources"].keys() - set(names)):
        context.view.note(f"left out, with fewer than two documents: {', '.join(left)}")
    sizes = {name: found.metrics["sources"][name]["kept"]["bytes"] for name in names}
    room = _fair_shares(sizes, recipe.tokenizer.training_bytes)
    used = dict.fromkeys(sizes, 0)

    def training_texts() -> Iterator[str]:
        for number, name in enumerate(sizes):
            context.view.progress(name, number, len(sizes))
            held_out = shards.choose_held_out(
                [identity for identity, _ in _texts(found, name)], recipe.tokens.held_out
            )
            for place, (_, text) in enumerate(_texts(found, name)):
                size = len(text.encode())
                if not held_out[place] and used[name] + size <= room[name]:
                    used[name] += size
                    yield text
        context.view.progress("merging", len(sizes), len(sizes))

    model = module.train(training_texts(), recipe.tokenizer)
    (context.work / "tokenizer.model").write_bytes(model)
    trained = module.Tokenizer(model)
    longest = sorted(
        (trained.piece(token) for token in range(trained.vocab_size)), key=lambda piece: (-len(piece), piece)
    )
    return {"vocab_size": trained.vocab_size, "training_bytes": used, "longest_pieces": longest[:24]}


def _fair_shares(sizes: dict[str, int], budget: int) -> dict[str, int]:
    """The same budget for every source; what small sources leave is shared among the rest."""
    shares: dict[str, int] = {}
    for left, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: (item[1], item[0]))):
        shares[name] = min(size, (budget - sum(shares.values())) // (len(sizes) - left))
    return shares


def tokens(context: Context) -> dict[str, Any]:
    """Documents -> token shards, split into training and held-out documents."""
    from puna.tokens import shards
    from puna.tokens import tokenizer as module

    model = module.load(context.inputs["tokenizer"].path("tokenizer.model"))
    recipe, found = context.recipe.whole(), context.inputs["documents"]
    names, counts = _trained_on(recipe, found), {}
    for number, name in enumerate(names):
        context.view.progress(name, number, len(names))
        counts[name] = shards.write(
            name, _texts(found, name), model, recipe.tokens.held_out, _threads(), context.work
        )
    return counts


def batches_of(recipe: Recipe, shards: Artifact, vocab_size: int) -> Any:
    """The training batches of a recipe, over the shards in `shards`. Raises UserError when a source would be
    seen too often."""
    from puna.tokens import batches, mixture
    from puna.tokens.shards import load

    if left := sorted(set(recipe.tokens.mixture) - set(shards.metrics)):
        raise UserError(
            f"tokens.mixture names {left[0]}, which has fewer than two documents and is left out (tokens.small_sources)"
        )
    opened = [load(shards.folder, name, "train", vocab_size) for name in _names(recipe, shards)]
    length, count = recipe.train.sequence_length, recipe.train.batch_sequences
    sizes = {shard.source: len(shard.tokens) for shard in opened}
    sequences = {source: batches.sequences_in(size, length) for source, size in sizes.items()}
    parts = mixture.plan(sizes, sequences, recipe.tokens, recipe.train.steps * count)
    return batches.Batches(opened, parts, seed=recipe.seed, batch_sequences=count, length=length)


def train(context: Context) -> dict[str, Any]:
    """Token shards -> trained weights, with the log of the losses."""
    from puna.model.weights import native
    from puna.run import machine
    from puna.tokens.batches import rows_of, save_batch_plan
    from puna.tokens.shards import load
    from puna.train import trainer
    from puna.train.metrics import Metrics

    recipe, shards = context.recipe.whole(), context.inputs["tokens"]
    config, settings = recipe.llama_config(), recipe.train
    batches = batches_of(recipe, shards, config.vocab_size)
    held_out = {
        name: rows_of(
            load(shards.folder, name, "held_out", config.vocab_size).first(settings.validation_tokens),
            settings.sequence_length,
        )
        for name in _names(recipe, shards)
    }
    peak = machine.matmul_peak(settings.device, trainer.precision(settings))
    metrics = Metrics(
        context.logs / "metrics.jsonl",
        config.flops_per_token(settings.sequence_length),
        peak,
        recipe.energy.watts,
    )

    def on_event(event: trainer.Event) -> None:
        metrics.write(event)
        context.view.event(event)

    with context.pausable():
        model, progress = trainer.train(
            config, batches, held_out, settings, seed=recipe.seed, checkpoints=context.scratch, on_event=on_event,
            should_stop=context.should_stop,
        )  # fmt: skip
    model.cpu()
    native.save(model, context.work)
    save_batch_plan(batches, settings.steps, config.vocab_size, context.work)
    (context.work / "tokenizer.model").write_bytes(
        context.inputs["tokenizer"].path("tokenizer.model").read_bytes()
    )
    for name, entries in (("losses", progress.losses), ("validation", progress.validation)):
        (context.work / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return {
        "parameters": config.parameters(),
        "tokens": settings.steps * settings.tokens_per_step,
        "loss": progress.losses[-1]["loss"],
        "validation": progress.validation[-1]["losses"],
        "mixture": {part.source: {"share": part.share, "epochs": part.epochs} for part in batches.parts},
    }


def scores(context: Context) -> dict[str, Any]:
    """Bits per byte on held-out documents beside three baselines, and samples."""
    import numpy as np

    from puna.evaluate import bits_per_byte as bits
    from puna.evaluate.ngram import NGram
    from puna.generate.engine import generate
    from puna.model.weights import native
    from puna.tokens.shards import load
    from puna.tokens.tokenizer import load as load_tokenizer

    recipe = context.recipe.whole()
    settings = recipe.evaluate
    trained, shards, found = (context.inputs[name] for name in ("train", "tokens", "documents"))
    model, text = native.load(trained.folder), load_tokenizer(trained.path("tokenizer.model"))
    names = _names(recipe, shards)
    context.view.progress("5-gram", 0, len(names) + 1)
    training = [load(shards.folder, name, "train", text.vocab_size) for name in names]
    everything = np.concatenate([shard.tokens for shard in training])
    starts = np.cumsum([0, *(len(shard.tokens) for shard in training)])
    offsets = np.concatenate(
        [shard.offsets[:-1] + start for shard, start in zip(training, starts, strict=False)] + [starts[-1:]]
    )
    five_gram = NGram(everything, offsets, vocab_size=text.vocab_size)
    results, sizes = {}, {}
    for number, name in enumerate(names):
        context.view.progress(name, number + 1, len(names) + 1)
        shard = load(shards.folder, name, "held_out", text.vocab_size).first(settings.held_out_tokens)
        rows = set(shard.rows.tolist())
        texts = [content for row, (_, content) in enumerate(_texts(found, name)) if row in rows]
        sizes[name] = sum(len(content.encode()) for content in texts)
        needed = {
            "model": bits.model_bits(model, shard, recipe.train.sequence_length),
            "xz": bits.xz_bits(texts),
            "unigram": bits.unigram_bits(everything, shard, text.vocab_size, text.bos_id),
            "five_gram": bits.ngram_bits(five_gram, shard),
        }
        results[name] = {method: value / sizes[name] for method, value in needed.items()}
    samples = []
    for number, prompt in enumerate(settings.prompts):
        ids = [text.bos_id, *text.encode(prompt)]
        room = min(settings.sample_tokens, recipe.train.sequence_length - len(ids))
        if room < 1:
            raise UserError(
                f"evaluate.prompts: prompt {number + 1} has {len(ids)} tokens, the model reads {recipe.train.sequence_length}"
            )
        (new,) = generate(model, [ids], max_new_tokens=room, temperature=settings.temperature, top_p=settings.top_p,
                          seed=recipe.seed + number, eos_id=text.eos_id)  # fmt: skip
        samples.append(
            {
                "prompt": prompt,
                "text": text.decode(ids + new)[len(prompt) :],
                "temperature": settings.temperature,
            }
        )
    result = {"bits_per_byte": results, "held_out_bytes": sizes, "samples": samples}
    (context.work / "scores.json").write_text(json.dumps(result, indent=1))
    return result


def _threads() -> int:
    return len(os.sched_getaffinity(0))
