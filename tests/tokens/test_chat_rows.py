"""Chat formats on real conversations: encoded part by part, as one string, and by transformers."""

import importlib.util
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from puna.tokens import chat
from puna.tokens.byte_bpe import ByteBPE, of_tiktoken
from puna.tokens.chat import FORMATS, Format, encode
from puna.tokens.conversations import Conversation, Turn
from puna.tokens.text_tokenizer import TextTokenizer
from puna.tokens.tokenizer import Tokenizer
from puna.tune import readers
from tests.tokens.test_chat import Asked, llama, templated  # noqa: F401  (a fixture)
from tests.tokens.test_files import smollm  # noqa: F401  (a fixture)

Turns = Sequence[Turn]


@pytest.fixture(scope="module")
def rows(data: Path) -> list[tuple[Turn, ...]]:
    """Every conversation of the shared sets, with both answers of those that have two."""
    found = []
    paths = [
        *(data / "chat").rglob("*.json"),
        *(data / "chat").rglob("*.jsonl*"),
        *data.glob("eval/gsm8k_t*"),
    ]
    for path in sorted(paths):
        for row in readers.read(path):
            if isinstance(row, Conversation):
                found.append(row.turns)
                found += [(*row.turns[:-1], row.rejected)] if row.rejected else []
    assert len(found) > 15_000
    return found


def joined(turns: Turns, form: Format, tokenizer: TextTokenizer) -> list[int]:
    """The ids where nothing is learned, so that all between two control tokens is one text."""
    return encode([replace(turn, train=False) for turn in turns], form, tokenizer).ids


def differing(rows: list[Turns], llama: Tokenizer) -> int:  # noqa: F811
    """How many rows vicuna_v1.1's parts and its string have other ids of. The string is cut at the end token
    alone, which is where LLaMA's tokenizer begins anew."""
    form = FORMATS["vicuna_v1.1"]
    wrong = 0
    for turns in rows:
        whole = [llama.bos_id]
        for control, group in groupby(form.pieces(turns)[1:], key=lambda piece: piece.control):
            text = "".join(piece.text for piece in group)
            whole += [llama.eos_id] if control else llama.encode(text)
        wrong += whole != encode(turns, form, llama).ids
    return wrong


def test_vicuna_part_by_part_is_one_string(rows: list[Turns], llama: Tokenizer) -> None:  # noqa: F811
    """Whether a turn is empty or not."""
    assert differing(rows[::7], llama) == 0


@pytest.mark.slow
def test_vicuna_part_by_part_is_one_string_in_every_row(
    rows: list[Turns],
    llama: Tokenizer,  # noqa: F811
) -> None:
    assert differing(rows, llama) == 0


def control_names(folder: Path) -> list[str]:
    added = json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    return [token["content"] for token in added if token["special"]]


def assert_templates(
    rows: list[Turns], folder: Path, tokenizers: dict[str, list[TextTokenizer]]
) -> dict[str, Counter[str]]:
    """Compare templates with `encode`; by format, why rows differ."""
    asked: list[Asked] = [
        (FORMATS[name], tokenizer, rows, False) for name, some in tokenizers.items() for tokenizer in some
    ]
    reasons: dict[str, Counter[str]] = {}
    for number, ((form, tokenizer, _, _), theirs) in enumerate(templated(folder, asked)):
        names = control_names(folder / str(number))
        counts = reasons.setdefault(form.name, Counter())
        for turns, ids in zip(rows, theirs, strict=True):
            if any(name in turn.text for name in names for turn in turns):
                counts["a control token's name in a text"] += 1
                continue
            assert ids == joined(turns, form, tokenizer), (form.name, turns)
            # One token of mark and answer: a model would be asked behind a token that it has not seen there.
            meets = ids != encode(turns, form, tokenizer).ids
            counts["mark and answer would meet in a token" if meets else "equal"] += 1
    return reasons


MEETING = {"koala", "alpaca"}  # whose marks end in a colon, and texts as they come


def tokenizers_of(llama: Tokenizer, smollm: ByteBPE) -> dict[str, list[TextTokenizer]]:  # noqa: F811
    spec = importlib.util.find_spec("llama_models")
    if spec is None or spec.origin is None:
        pytest.skip("pip install --no-deps llama-models==0.3.0")
    meta = of_tiktoken(Path(spec.origin).parent / "llama3" / "tokenizer.model")
    used: dict[str, list[TextTokenizer]] = {name: [llama] for name in FORMATS}
    return used | {"chatml": [smollm], "llama3": [meta], "vicuna_v1.1": [llama, smollm]}


def assert_reasons(reasons: dict[str, Counter[str]], rows: int) -> None:
    for name, counts in reasons.items():
        print(name, dict(counts))
        meeting = counts["mark and answer would meet in a token"]
        assert meeting == 0 if name not in MEETING else meeting < 0.02 * rows
        assert counts["a control token's name in a text"] < 0.01 * rows


def test_templates_on_some_real_rows(
    rows: list[Turns],
    tmp_path: Path,
    llama: Tokenizer,  # noqa: F811
    smollm: ByteBPE,  # noqa: F811
) -> None:
    some = rows[::97]
    reasons = assert_templates(some, tmp_path, {"vicuna_v1.1": [llama], "chatml": [smollm]})
    assert_reasons(reasons, len(some))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_templates_on_every_real_row(
    rows: list[Turns],
    tmp_path: Path,
    llama: Tokenizer,  # noqa: F811
    smollm: ByteBPE,  # noqa: F811
) -> None:
    assert_reasons(assert_templates(rows, tmp_path, tokenizers_of(llama, smollm)), len(rows))


def test_every_row_is_masked(rows: list[Turns], smollm: ByteBPE) -> None:  # noqa: F811
    """What is learned, read back, is the answers, each with its end."""
    form = FORMATS["chatml"]
    for turns in rows[::30]:
        encoded = encode(turns, form, smollm)
        wanted = [turn.text for turn in turns if turn.role == "assistant"]
        parts: list[list[int]] = [[]]
        for token, is_learned in zip(*encoded, strict=True):
            if is_learned:
                parts[-1].append(token)
                parts += [[]] if token in chat.stop_ids(form, smollm) else []
        assert parts.pop() == [] and [ids[:-1] for ids in parts] == [smollm.encode(text) for text in wanted]
