"""Shards against the lists they were written from."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens import shards, splits
from puna.tokens.batches import rows_of
from puna.tokens.settings import TokenizerSettings
from puna.tokens.tokenizer import Tokenizer, train

TEXTS = [f"document {number}: " + "the llamas graze " * (number % 7) for number in range(60)]


def held_out(names: list[str], share: float, least: int = 0, sizes: list[int] | None = None) -> shards.Array:
    bytes_of = np.array(sizes or [100] * len(names))
    return splits.choose_held_out(splits.hashes_of(names), bytes_of, share, least)


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=60), st.integers(0, 60_000), st.floats(0.01, 0.3))
def test_little_held_out_text_is_topped_up_to_a_fifth(sizes: list[int], least: int, share: float) -> None:
    names = [f"d{number}" for number in range(len(sizes))]
    before, after = held_out(names, share, 0, sizes), held_out(names, share, least, sizes)
    assert after[before].all() and not after.all()
    added = np.array(sizes)[after & ~before]
    held, fifth = np.array(sizes)[after].sum(), splits.LARGEST_HELD_OUT * sum(sizes)
    assert held <= max(fifth, np.array(sizes)[before].sum())
    if len(added):  # no more than needed, and those with the next hashes
        hashes = splits.hashes_of(names)
        assert hashes[after].max() < hashes[~after].min()
        last = np.array(sizes)[after][hashes[after].argmax()]
        assert held - last < least


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train(TEXTS, TokenizerSettings(vocab_size=300)))


def test_every_document_is_in_exactly_one_split(tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = ((f"id{n}", text) for n, text in enumerate(TEXTS))
    counts = splits.write("s", documents, tokenizer, 0.2, 2, tmp_path)
    opened = {split: shards.load(tmp_path, "s", split, 300) for split in splits.SPLITS}
    rows = sorted(row for shard in opened.values() for row in shard.rows.tolist())
    assert rows == list(range(60))
    for split, shard in opened.items():
        assert shard.tokens.dtype == np.uint16
        for number, row in enumerate(shard.rows):
            assert shard.document(number).tolist() == [1, *tokenizer.encode(TEXTS[row]), 2]
        assert counts[split] == {
            "documents": shard.documents,
            "tokens": len(shard.tokens),
            "bytes": sum(len(TEXTS[row].encode()) for row in shard.rows),
        }
    chosen = held_out([f"id{n}" for n in range(60)], 0.2)
    assert opened["held_out"].rows.tolist() == np.flatnonzero(chosen).tolist()


def test_where_a_token_is_and_samples_of_documents(tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = ((f"id{n}", text) for n, text in enumerate(TEXTS))
    splits.write("s", documents, tokenizer, 0.1, 1, tmp_path)
    shard = shards.load(tmp_path, "s", "train", 300)
    for number in range(shard.documents):
        start, end = shard.offsets[number], shard.offsets[number + 1]
        assert shard.document_at(np.array([start, end - 1])).tolist() == [number, number]
    for maximum in (1, 40, 200, 10**9):
        sample = shard.sample(maximum)
        numbers = np.flatnonzero(np.isin(shard.rows, sample.rows)).tolist()
        assert sample.rows.tolist() == shard.rows[numbers].tolist()
        documents = [sample.document(number).tolist() for number in range(sample.documents)]
        assert documents == [shard.document(number).tolist() for number in numbers]
        lengths = np.diff(shard.offsets)
        if maximum == 1:
            assert [len(document) for document in documents] == [lengths.min()]
        else:
            left = maximum - sum(map(len, documents))
            assert left >= 0 and all(lengths[n] > left for n in range(len(lengths)) if n not in numbers)


def test_a_damaged_shard_is_told_with_file_and_place(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = [(f"{number}", f"a llama grazes, {number}") for number in range(20)]
    splits.write("s", iter(texts), tokenizer, 0.2, 1, tmp_path)
    path, vocab_size = tmp_path / "s.train.bin", tokenizer.vocab_size

    def told(raw: bytes) -> str:
        sound = path.read_bytes()
        path.write_bytes(raw)
        with pytest.raises(UserError) as found:
            list(rows_of(shards.load(tmp_path, "s", "train", vocab_size), 16).tokens)
        path.write_bytes(sound)
        return str(found.value)

    raw = path.read_bytes()
    beyond = vocab_size.to_bytes(2, "little")
    for place in (0, 30, len(raw) - 2):
        expected = f"{path} is damaged: at byte {place} stands token {vocab_size} of a vocabulary of "
        assert expected in told(raw[:place] + beyond + raw[place + 2 :])
    assert "one of them is damaged" in told(raw[:-2]) and str(path) in told(raw + b"\0\0")
    assert f"{path}, or its index beside it, is damaged" in told(raw[:-1])
    assert rows_of(shards.load(tmp_path, "s", "train", vocab_size), 16).target_count
    (tmp_path / "s.train.rows.npy").unlink()
    with pytest.raises(UserError, match=r"rows\.npy"):
        shards.load(tmp_path, "s", "train", vocab_size)


def test_samples_come_from_all_over_a_shard() -> None:
    """On 100 shards whose documents drift: as many from each tenth, up to chance (chi-square, p = 0.001)."""
    offsets = np.arange(0, 10_001, 10)
    tenths = np.zeros(10)
    for number in range(100):
        shard = shards.Shard(f"s{number}", np.zeros(10_000, np.uint16), offsets, np.arange(1000))
        sample = shard.sample(500)
        assert sample.documents == 50
        tenths += np.bincount(sample.rows // 100, minlength=10)
    assert ((tenths - 500) ** 2 / 500).sum() < 27.9
    longer = shard.sample(600)
    assert set(sample.rows.tolist()) < set(longer.rows.tolist())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(0, 400), st.randoms())
def test_a_sample_is_what_one_by_one_fits(sizes: list[int], budget: int, chance: random.Random) -> None:
    hashes = [chance.random() for _ in sizes]
    expected, left = [False] * len(sizes), budget
    for number in sorted(range(len(sizes)), key=hashes.__getitem__):
        if sizes[number] <= left:
            expected[number], left = True, left - sizes[number]
    assert shards.choose_sample(np.array(hashes), np.array(sizes), budget).tolist() == expected


def test_one_document_is_too_few(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="source s has 1 document: at least two"):
        splits.write("s", iter([("id", "text")]), tokenizer, 0.1, 1, tmp_path)


@given(st.lists(st.uuids().map(str), min_size=2, max_size=50, unique=True), st.floats(0.01, 0.49))
def test_being_held_out_depends_on_the_document_alone(names: list[str], share: float) -> None:
    chosen = held_out(names, share)
    assert 1 <= chosen.sum() < len(names)
    assert len(names) < 16 or chosen.sum() >= 8
    again = held_out(names[::-1], share)
    assert again.tolist() == chosen[::-1].tolist()


def test_the_share_is_kept_on_many_documents() -> None:
    names = [str(number) for number in range(20_000)]
    assert held_out(names, 0.05).mean() == pytest.approx(0.05, abs=0.005)
    few = held_out(names[:10_000], 0.05)
    assert few.tolist() == held_out(names, 0.05)[:10_000].tolist()


def test_a_new_document_moves_one_other_at_most() -> None:
    names: list[str] = []
    before: set[str] = set()
    for number in range(100):
        names.append(f"name {number}")
        chosen = {name for name, out in zip(names, held_out(names, 0.02), strict=True) if out}
        assert len(chosen - before) <= 1 and len(before - chosen) <= 1
        assert number < 2 or len(chosen) == max(1, min(8, len(names) - 8))
        before = chosen


# Prints the most memory, in bytes a document, that writing many short documents takes.
MEASURED = """
import sys
from pathlib import Path
import numpy as np
from puna.tokens import shards, splits
from puna.tokens.batches import rows_of

class Letters:
    vocab_size = 256
    def documents_flat(self, texts, threads):
        offsets = np.cumsum([0, *map(len, texts)])
        return np.frombuffer("".join(texts).encode(), np.uint8).astype(np.int32), offsets

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def documents(count):
    for number in range(count):
        yield f"{number:064}", "abc"

out, count = Path(sys.argv[1]), 600_000
most = 0
def watched(count):
    global most
    for number, document in enumerate(documents(count)):
        if number % 10_000 == 0:
            most = max(most, peak())
        yield document
splits.write("warm", documents(90_000), Letters(), 0.1, 1, out)
before = peak()
splits.write("s", watched(count), Letters(), 0.1, 1, out)
print((max(most, peak()) - before) / count)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_documents(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout
    assert float(told) < 60
    shard = shards.load(tmp_path, "s", "held_out", 256)
    assert all(isinstance(array.base, np.memmap) for array in (shard.tokens, shard.offsets, shard.rows))
    assert shard.offsets.tolist() == [3 * number for number in range(shard.documents + 1)]
