"""Models of any format: weights, tokenizer, chat template and where they come from, and out again.

model, tokenizer, chat_template, stop_ids, origin = load(Path("SmolLM2.gguf"))
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights import delta, gguf, hf, llama2c, meta, native, peft
from puna.model.weights.source import Source
from puna.tokens import files
from puna.tokens.text_tokenizer import TextTokenizer


def _on_base(room: Any, path: Path, base: Path | None = None) -> Source:
    """What is written as a change of another model: `peft` or `delta`. base: where that is, default: where it
    was then."""
    source: Source = room.read(path, open_source(base or room.base_path(path)))
    return source


# Every adapter: what it is called, whether a path is its own, and how it is read. A new one is a line here.
FORMATS: dict[str, tuple[Callable[[Path], bool], Callable[..., Source]]] = {
    "native": (native.recognises, native.read),
    "hf": (hf.recognises, hf.read),
    "meta": (meta.recognises, meta.read),
    "gguf": (gguf.recognises, gguf.read),
    "llama2c": (llama2c.recognises, llama2c.read),
    "peft": (peft.recognises, partial(_on_base, peft)),
    "delta": (delta.recognises, partial(_on_base, delta)),
}
WRITTEN = ("native", "hf", "gguf", "meta")  # of whole models
BASED = ("peft", "delta")  # what is there is only a change of another model


class Origin(NamedTuple):
    """Where a model comes from. metadata, types: of a GGUF file, as its adapter keeps them."""

    format: str
    path: Path
    metadata: Mapping[str, Any]
    types: Mapping[str, str]


class Loaded(NamedTuple):
    """A model that can be asked. stop_ids: tokens that end what it writes. Rows of the vocabulary behind the
    tokenizer's last token are padding: a sampler must draw from the first `tokenizer.vocab_size` alone."""

    model: Llama
    tokenizer: TextTokenizer
    chat_template: str | None
    stop_ids: frozenset[int]
    origin: Origin


class Opened(NamedTuple):
    """A model whose weights are not read yet, in the order of `Loaded`."""

    source: Source
    tokenizer: TextTokenizer
    chat_template: str | None
    stop_ids: frozenset[int]
    origin: Origin


def open_source(path: Path, base: Path | None = None) -> Source:
    """Find the adapter of a path and read its headers. base: of a low-rank adapter or a difference, where it
    is now. Raises UserError where there is none."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    for recognises, read in FORMATS.values():
        if recognises(path):
            return read(path) if base is None else read(path, base)
    raise UserError(
        f"{path} holds no model: neither params.json with model.safetensors or consolidated.*.pth, nor "
        "config.json with *.safetensors, nor adapter_config.json with adapter_model.safetensors, nor is it a "
        ".gguf file or a llama2.c .bin"
    )


def load(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Loaded:
    """Read a model with its tokenizer. Raises UserError for what is missing, damaged or not supported."""
    return built(open_model(open_source(path)), device, dtype)


def built(opened: Opened, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Loaded:
    """Read the weights of a model. Raises UserError where they are missing or damaged."""
    return Loaded(opened.source.build(device, dtype), *opened[1:])


def open_model(source: Source) -> Opened:
    """Find the tokenizer of weights. Raises UserError for what is missing, damaged or not supported."""
    tokenizer, template = _tokenizer(source)
    if tokenizer is None:
        raise UserError(f"{source.path} holds weights but no tokenizer that is known here")
    _check(tokenizer, source.config, source.path)
    origin = Origin(source.format, source.path, source.metadata, source.types)
    return Opened(source, tokenizer, template, tokenizer.stops, origin)


def _tokenizer(source: Source) -> tuple[TextTokenizer | None, str | None]:
    if source.format == "gguf":
        plain = {name: value.data for name, value in source.metadata.items()}
        return files.from_gguf(plain, str(source.path))
    if source.format == "llama2c":
        path = source.path.with_name("tokenizer.bin")
        if not path.is_file():
            return None, None
        return files.of_llama2c(path, llama2c.pieces(path, source.config.vocab_size)), None
    tokenizer, template = files.from_folder(source.path)
    if source.base is not None and tokenizer is None:  # an adapter without one of its own
        tokenizer, of_base = _tokenizer(source.base)
        template = template or of_base
    return tokenizer, template


def _check(tokenizer: TextTokenizer, config: LlamaConfig, path: Path) -> None:
    """Raises UserError where the tokenizer has tokens that the model has no rows for."""
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size} rows; "
            "they do not belong together"
        )


def save(
    loaded: Loaded | Opened, path: Path, form: str, kind: str = "F32", base: Source | None = None
) -> None:
    """Write a model with its tokenizer in a format of WRITTEN, or as a delta: a folder, or the file `path`
    for gguf. What is not read yet is read one weight at a time, but for meta.

    kind: of the weights: F32, F16 or BF16, for gguf also Q8_0 and Q4_1, and "as-read", the types and the
    metadata of the GGUF file that it comes from. base: from which a delta is the difference. Raises UserError
    for what does not go together, and where `path` exists.
    """
    if path.exists():
        raise UserError(f"{path} exists: name another place, or remove it")
    model: Llama | Source = loaded[0]
    _, tokenizer, template, _, origin = loaded
    if form == "gguf":
        if kind == "as-read":
            if not origin.types:
                raise UserError(f"{origin.path} is no GGUF file: name a type, such as F16")
            gguf.save(model, path, metadata=origin.metadata, types=origin.types)
            return
        told = files.to_gguf(tokenizer, template, model.config.vocab_size)
        named = {"general.name": path.stem} if "general.name" not in origin.metadata else {}
        kept = {
            name: value for name, value in origin.metadata.items()
            if name.startswith("general.") and name not in ("general.file_type", "general.alignment",
                                                            "general.quantization_version")
        }  # fmt: skip
        gguf.save(model, path, kind, kept | named | told)
        return
    dtypes = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    if kind not in dtypes:
        raise UserError(f"{form} holds weights as {', '.join(dtypes)}, not as {kind}")
    if form == "hf":
        special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        told = {name: token if token >= 0 else None for name, token in special.items()}
        hf.save(model, path, dtypes[kind], told)
    elif form == "meta":
        meta.save(model, path, dtype=dtypes[kind])
    elif form == "native":
        native.save(model, path, dtypes[kind])
    elif form == "delta" and base is not None:
        delta.save(model, base, path, dtypes[kind])
    else:
        raise UserError(f"no format is called {form}; there are {', '.join(WRITTEN)}, and delta with a base")
    files.to_folder(tokenizer, path, template, model.config.max_seq_len)
