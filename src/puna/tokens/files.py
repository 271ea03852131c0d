"""Tokenizers of other programs' files, in and out: folders as Hugging Face and Meta have them, metadata of
GGUF files, llama2.c's tokenizer.bin.

A folder may hold tokenizer.model (SentencePiece, or Llama 3's list of tokens), tokenizer.json (the tokenizers
library), tokenizer_config.json (flags, chat template) and generation_config.json (ids that end a text).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.errors import UserError
from puna.tokens import byte_bpe, pieces
from puna.tokens.byte_bpe import ByteBPE
from puna.tokens.pieces import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, Pieces
from puna.tokens.text_tokenizer import TextTokenizer
from puna.tokens.tokenizer import SPACE, Tokenizer, of_bytes

MODEL, JSON = "tokenizer.model", "tokenizer.json"
CONFIG, GENERATION, TEMPLATE = "tokenizer_config.json", "generation_config.json", "chat_template.jinja"
LARGEST_CONFIG = 4_000_000
PADDING = "[PAD{}]"  # what llama.cpp calls a row of the vocabulary that no token has
# What ends a turn or a text in the chat formats of today, whatever a GGUF file names as its end token.
ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>")
GGUF = "tokenizer.ggml."


def from_folder(folder: Path) -> tuple[TextTokenizer | None, str | None]:
    """(tokenizer, chat template) of a folder; None where it holds none. Raises UserError for broken files."""
    described, generation = _read(folder / CONFIG), _read(folder / GENERATION)
    model, library = folder / MODEL, folder / JSON
    ends = generation.get("eos_token_id", _read(folder / "config.json").get("eos_token_id"))
    stops = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(type(token) is int and token >= 0 for token in stops):
        raise UserError(f"{folder / GENERATION}: eos_token_id = {ends!r:.100} are no ids of tokens")
    backend = byte_bpe.backend_of(_text(library), str(library)) if library.is_file() else None
    template = described.get("chat_template")
    if (folder / TEMPLATE).is_file():
        template = _text(folder / TEMPLATE)
    if isinstance(template, list):  # named ones, of which "default" is for chats
        template = next((item["template"] for item in template if item.get("name") == "default"), None)
    tokenizer = _tokenizer(model, library, backend, described, stops)
    return tokenizer, template if isinstance(template, str) else None


def _tokenizer(
    model: Path, library: Path, backend: Any, described: Mapping[str, Any], stops: list[int]
) -> TextTokenizer | None:
    adds_bos = described.get("add_bos_token")
    if model.is_file():
        raw = model.read_bytes() if model.stat().st_size < byte_bpe.LARGEST_FILE else b""
        if raw[:5].isascii() and b" 0\n" in raw[:64]:
            return byte_bpe.of_tiktoken(model)
        tokenizer = of_bytes(raw, str(model), adds_bos=adds_bos is not False, stops=stops)
        if backend is None or backend.get_vocab_size(True) <= tokenizer.vocab_size:
            return tokenizer  # else tokens were added, and the library's file knows them
    if backend is None:
        return None
    backend.encode_special_tokens = True
    extra = backend.encode("a", add_special_tokens=True).ids[:1]
    if extra == backend.encode("a", add_special_tokens=False).ids[:1]:
        extra = []
    bos_id = extra[0] if extra else _id(backend, described.get("bos_token"))
    eos_id = _id(backend, described.get("eos_token"))
    if eos_id < 0 and stops:
        eos_id = stops[0]
    begins = bool(extra) if adds_bos is None else bool(adds_bos)
    content = json.loads(backend.to_str())
    if (kind := content["model"].get("type")) != "BPE":
        raise UserError(f"{library}: a tokenizer of the kind {kind!r:.40}; BPE is supported")
    if content["model"].get("byte_fallback"):
        made = pieces.to_model(pieces.of_json(content, bos_id, eos_id))
        return of_bytes(made, str(library), adds_bos=begins, stops=stops)
    return ByteBPE(backend, bos_id=bos_id, eos_id=eos_id, adds_bos=begins, stops=stops)


def _id(backend: Any, token: Any) -> int:
    """The id of a token of tokenizer_config.json, which is a text or an object with one; -1 for none."""
    text = token.get("content") if isinstance(token, dict) else token
    found = backend.token_to_id(text) if isinstance(text, str) else None
    return -1 if found is None else found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > byte_bpe.LARGEST_FILE:
            raise UserError(f"{path} is larger than {byte_bpe.LARGEST_FILE:,} bytes")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file. Raises UserError for a large or broken one."""
    if not path.is_file():
        return {}
    if path.stat().st_size > LARGEST_CONFIG:
        raise UserError(f"{path} is larger than {LARGEST_CONFIG:,} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object")
    return value


def to_folder(tokenizer: TextTokenizer, folder: Path, template: str | None, context: int) -> None:
    """Write a tokenizer as transformers reads it, and tokenizer.model where it is SentencePiece's.

    context: tokens that the model reads. Raises UserError for a SentencePiece model of another kind than BPE.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(tokenizer, Tokenizer):
        vocabulary = pieces.of_model(tokenizer.model)
        (folder / MODEL).write_bytes(tokenizer.model)
        (folder / JSON).write_text(pieces.to_json(vocabulary, tokenizer.adds_bos), "utf-8")
        names: Sequence[str] = vocabulary.texts
        unknown = {"unk_token": vocabulary.texts[vocabulary.types.index(UNKNOWN)]}
    elif isinstance(tokenizer, ByteBPE):
        (folder / JSON).write_text(json.dumps(tokenizer.described(), ensure_ascii=False), "utf-8")
        names = [tokenizer.backend.id_to_token(token) or "" for token in range(tokenizer.vocab_size)]
        unknown = {}
    else:
        raise UserError(f"a tokenizer of the kind {type(tokenizer).__name__} cannot be written")
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context, **unknown}
    described |= {"add_bos_token": tokenizer.adds_bos}
    described |= dict.fromkeys(("add_eos_token", "clean_up_tokenization_spaces"), False)
    special = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    described |= {name: names[token] for name, token in special.items() if token >= 0}
    described |= {} if template is None else {"chat_template": template}
    (folder / CONFIG).write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
    others = sorted(tokenizer.stops - {tokenizer.eos_id})
    ends = [token for token in (tokenizer.eos_id, *others) if token >= 0]
    generation: dict[str, Any] = {"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {}
    generation |= {"bos_token_id": tokenizer.bos_id} if tokenizer.bos_id >= 0 else {}
    (folder / GENERATION).write_text(json.dumps(generation, indent=1, sort_keys=True) + "\n")


def from_gguf(metadata: Mapping[str, Any], where: str) -> tuple[TextTokenizer | None, str | None]:
    """(tokenizer, chat template) by a GGUF file's metadata, name to plain value; None where it holds none.

    Raises UserError for a kind and a pre-tokenizer that are not known.
    """
    template = metadata.get("tokenizer.chat_template")
    told = {name.removeprefix(GGUF): item for name, item in metadata.items() if name.startswith(GGUF)}
    if not told:
        return None, None
    kind, texts = told.get("model"), told.get("tokens")
    if kind not in ("llama", "gpt2") or not isinstance(texts, list):
        raise UserError(f"{where}: {GGUF}model = {kind!r:.40} is not supported; llama and gpt2 are")
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: a token of {GGUF}tokens is no text in UTF-8")
    types = [int(number) for number in told.get("token_type", [NORMAL] * len(texts))]
    if len(types) != len(texts):
        raise UserError(f"{where}: {len(types)} types of {len(texts)} tokens ({GGUF}token_type)")
    while texts and types[-1] == UNUSED and texts[-1] == PADDING.format(len(texts) - 1):
        texts, types = texts[:-1], types[:-1]
    ids = {name: _token_id(told, name, len(texts), where) for name in ("bos", "eos", "eot", "eom")}
    ends = [text in ENDS and kind == CONTROL for text, kind in zip(texts, types, strict=True)]
    how = {"stops": [ids["eot"], ids["eom"], *(token for token, end in enumerate(ends) if end)]}
    make = _of_scores if kind == "llama" else _of_merges
    return make(told, texts, types, ids, how, where), template if isinstance(template, str) else None


def _token_id(told: Mapping[str, Any], name: str, size: int, where: str) -> int:
    default = {"bos": 1, "eos": 2}.get(name, -1) if told["model"] == "llama" else -1
    token = told.get(f"{name}_token_id", default)
    if type(token) is not int or not -1 <= token < size:
        raise UserError(f"{where}: {GGUF}{name}_token_id = {token!r:.40} is none of {size} tokens")
    return token


def _of_scores(
    told: Mapping[str, Any], texts: list[str], types: list[int], ids: Mapping[str, int], how: Any, where: str
) -> Tokenizer:
    scores = [float(score) for score in told.get("scores", [])][: len(texts)]
    if len(scores) != len(texts) or UNKNOWN not in types:
        raise UserError(f"{where}: {GGUF}scores or a token of type {UNKNOWN} (unknown) is missing")
    if told.get("precompiled_charsmap") is not None or told.get("remove_extra_whitespaces"):
        raise UserError(f"{where}: a tokenizer that normalises texts ({GGUF}precompiled_charsmap)")
    prefix = bool(told.get("add_space_prefix", True))
    vocabulary = Pieces(texts, scores, types, ids["bos"], ids["eos"], prefix)
    adds_bos = bool(told.get("add_bos_token", True))
    return of_bytes(pieces.to_model(vocabulary), where, adds_bos=adds_bos, **how)


def _of_merges(
    told: Mapping[str, Any], texts: list[str], types: list[int], ids: Mapping[str, int], how: Any, where: str
) -> ByteBPE:
    merges = told.get("merges")
    pairs = [merge.split(" ") for merge in merges] if isinstance(merges, list) else []
    if not pairs or not all(len(pair) == 2 for pair in pairs):
        raise UserError(f"{where}: {GGUF}merges is missing, or no list of pairs")
    pre = str(told.get("pre"))
    adds_bos = bool(told.get("add_bos_token", pre == "llama-bpe"))
    how |= {"bos_id": ids["bos"], "eos_id": ids["eos"], "adds_bos": adds_bos}
    return byte_bpe.make(texts, types, [(a, b) for a, b in pairs], pre, where, **how)


def to_gguf(tokenizer: TextTokenizer, template: str | None, vocab_size: int) -> dict[str, Any]:
    """The metadata of a tokenizer for a GGUF file. vocab_size: the model's; rows that no token has become
    tokens that no text has. Raises UserError where GGUF cannot say what the tokenizer does."""
    padding = [PADDING.format(number) for number in range(tokenizer.vocab_size, vocab_size)]
    told: dict[str, Any]
    if isinstance(tokenizer, Tokenizer):
        vocabulary = pieces.of_model(tokenizer.model)
        texts, types = vocabulary.texts, vocabulary.types
        scores = vocabulary.scores + [-1000.0] * len(padding)
        told = {"model": "llama", "pre": "default", "tokens": texts + padding, "scores": scores}
        told |= {"unknown_token_id": types.index(UNKNOWN), "add_space_prefix": vocabulary.space_prefix}
    elif isinstance(tokenizer, ByteBPE):
        texts, types, merges, pre = tokenizer.tokens()
        told = {"model": "gpt2", "pre": pre, "tokens": texts + padding, "merges": merges}
        told |= {"add_space_prefix": False}
    else:
        raise UserError(f"a tokenizer of the kind {type(tokenizer).__name__} cannot be written")
    told["token_type"] = types + [UNUSED] * len(padding)
    told |= {"add_bos_token": tokenizer.adds_bos, "add_eos_token": False}
    told |= {"bos_token_id": tokenizer.bos_id} if tokenizer.bos_id >= 0 else {}
    told |= {"eos_token_id": tokenizer.eos_id} if tokenizer.eos_id >= 0 else {}
    others = sorted(tokenizer.stops - {tokenizer.eos_id})
    told |= dict(zip(("eot_token_id", "eom_token_id"), others, strict=False))
    metadata = {GGUF + name: item for name, item in told.items()}
    return metadata if template is None else metadata | {"tokenizer.chat_template": template}


def of_llama2c(path: Path, listed: Sequence[tuple[str, float]]) -> Tokenizer:
    """A tokenizer of llama2.c's (text, score) of each token: unknown, begin, end, 256 bytes, the others."""
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(listed) - 259)]
    texts = [f"<0x{number - 3:02X}>" if kind == BYTE else text.replace(" ", SPACE)
             for number, ((text, _), kind) in enumerate(zip(listed, types, strict=True))]  # fmt: skip
    texts[:3] = ["<unk>", "<s>", "</s>"]
    made = Pieces(texts, [score for _, score in listed], types, 1, 2)
    return of_bytes(pieces.to_model(made), str(path))
