import itertools
import re
import textwrap
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.corpus.dedup import books
from puna.corpus.dedup.books import Books
from puna.errors import UserError
from puna.text import hashing

NAMES = ("13272", "1342", "14263", "14881", "15122", "18304", "24675", "6527", "9198", "972")
MARK = r"\*\*\* ?(?:START|END) OF TH[^\n]*"
ASCII_QUOTES = str.maketrans("“”‘’—", "\"\"''-")


@pytest.fixture(scope="session")
def library(data) -> dict[str, str]:
    """Real books without the publisher's front and end matter."""
    found = {}
    for name in NAMES:
        raw = (data / "raw" / "gutenberg" / f"{name}.txt").read_bytes()
        text = raw.decode("latin-1" if name == "24675" else "utf-8-sig").replace("\r\n", "\n")
        found[name] = re.split(MARK, text)[1]
        assert len(found[name]) > 100_000
    return found


def synthetic(seed: int, words: int) -> str:
    """A book of made-up words with the frequencies of a language (Zipf), in paragraphs of 5 to 120 words."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlu"))
    vocabulary = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(1500)]
    text = [vocabulary[min(rank, 1499)] for rank in rng.zipf(1.2, words).tolist()]
    cuts = np.cumsum(rng.integers(5, 120, words // 60))
    return "\n\n".join(" ".join(part.tolist()) for part in np.split(np.array(text), cuts[cuts < words]))


def changed(text: str, part: float, how: str, seed: int, other: str) -> str:
    """Some paragraphs replaced by as many words of another book, deleted, or shuffled inside."""
    rng = np.random.default_rng(seed)
    paragraphs, words = text.split("\n\n"), other.split()
    written = [at for at, paragraph in enumerate(paragraphs) if paragraph.strip()]
    for at in rng.permutation(written)[: int(part * len(written))].tolist():
        own = paragraphs[at].split()
        start = int(rng.integers(max(1, len(words) - len(own))))
        shuffled = [own[place] for place in rng.permutation(len(own))]
        new = {"replaced": words[start : start + len(own)], "deleted": [], "shuffled": shuffled}
        paragraphs[at] = " ".join(new[how])
    return "\n\n".join(paragraphs)


def rewrapped(text: str) -> str:
    return "\r\n\r\n".join(textwrap.fill(paragraph, 43) for paragraph in text.split("\n\n"))


def without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    plain = "".join(part for part in decomposed if unicodedata.category(part) != "Mn")
    return plain.translate(ASCII_QUOTES)


def test_pride_and_prejudice_in_two_encodings_is_one_book(data) -> None:
    ours = Books()
    folder = data / "raw" / "gutenberg"
    assert ours.add("utf-8", (folder / "1342.txt").read_text()) is None
    assert ours.add("other", (folder / "972.txt").read_text()) is None
    identity, overlap = ours.add("ascii", (folder / "1342-ascii.txt").read_text("ascii"))
    assert identity == "utf-8" and overlap > 0.99
    assert len(ours.identities) == 2


@pytest.mark.parametrize("name", NAMES)
def test_other_editions_are_the_same_book(library, name) -> None:
    text, front = library[name], " ".join(library["18304" if name != "18304" else "972"].split()[5000:6500])
    ours = Books()
    for other in NAMES:
        assert ours.add(other, library[other]) is None
    pages = [f"{text[at : at + 2000]}\n[{at}]\n" for at in range(0, len(text), 2000)]
    editions = {
        "re-wrapped": rewrapped(text),
        "one line": " ".join(text.split()),
        "upper case": text.upper(),
        "ASCII quotes, no accents": without_accents(text),
        "decomposed": unicodedata.normalize("NFD", text),
        "Latin-1, what is lost replaced": text.encode("latin-1", "replace").decode("latin-1"),
        "ASCII, what is lost dropped": text.encode("ascii", "ignore").decode(),
        "page numbers": "".join(pages),
        "front matter": front + "\n\n" + text,
        "all of it": front + rewrapped(without_accents(text)),
    }
    for edition, other in editions.items():
        found = ours.add(edition, other)
        assert found is not None and found[0] == name and found[1] > 0.95, edition


@pytest.mark.parametrize("how", ["replaced", "deleted", "shuffled"])
def test_eight_in_a_hundred_paragraphs_may_change(library, how) -> None:
    for seed, name in enumerate(NAMES):
        ours = Books()
        ours.add("first", library[name])
        other = library[NAMES[seed - 1]]
        text = rewrapped(library[name]).replace("\r", "")
        found = ours.add("changed", changed(text, 0.08, how, seed, other))
        assert found is not None and found[1] > 0.9, name
        if how != "deleted":
            assert ours.add("much changed", changed(library[name], 0.25, how, seed, other)) is None


def test_parts_of_real_books(library) -> None:
    """Slices of books: one that was changed a little is found, whatever its place and size; one of another
    book or place is not."""

    @settings(max_examples=60)
    @given(
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
        st.floats(0, 1),
        st.floats(0, 1),
        st.integers(60_000, 200_000),
        st.integers(0, 99),
    )
    def check(name: str, other: str, where: float, elsewhere: float, size: int, seed: int) -> None:
        text, length = library[name], min(size, len(library[name]) // 2)
        start = int(where * (len(text) - length))
        ours = Books()
        assert ours.add("slice", text[start : start + length]) is None
        place = int(elsewhere * (len(library[other]) - length))
        if other != name or abs(place - start) > length // 2:
            assert ours.add("another", library[other][place : place + length]) is None
        how = ("replaced", "shuffled", "deleted")[seed % 3]
        source = library[NAMES[NAMES.index(name) - 1]]
        found = ours.add("again", changed(text[start : start + length], 0.05, how, seed, source))
        assert found is not None and found[0] == "slice" and found[1] > 0.9

    check()


def test_containment_is_estimated_without_bias(library) -> None:
    """Against the exact sets, over pieces that share a known part."""
    words = library["18304"].split()
    errors = []
    for shift in range(2000, 30000, 1000):
        first, second = " ".join(words[:40000]), " ".join(words[shift : shift + 40000 - shift // 2])
        sets = [set(hashing.shingles(text, digits=False).tolist()) for text in (first, second)]
        exact = len(sets[0] & sets[1]) / min(map(len, sets))
        ours = Books(0.01)
        ours.add("first", first)
        found = ours.add("second", second)
        assert found is not None
        errors.append(found[1] - books.overlap(exact))
    assert abs(np.mean(errors)) < 0.01 and np.std(errors) < 0.02


def test_synthetic_books_are_different_and_found_again() -> None:
    ours = Books()
    texts = {seed: synthetic(seed, 3000 + 400 * seed) for seed in range(40)}
    for seed, text in texts.items():
        assert ours.add(str(seed), text) is None
    for seed in range(0, 40, 5):
        found = ours.add("again", changed(texts[seed], 0.08, "replaced", seed, texts[39 - seed]))
        assert found is not None and found[0] == str(seed)
    lengths = [len(run) for run, _ in ours.runs]
    assert all(larger > 2 * smaller for larger, smaller in itertools.pairwise(lengths))
    assert all((np.diff(run.astype(float)) >= 0).all() for run, _ in ours.runs)


def test_what_many_books_share_is_not_content(monkeypatch) -> None:
    monkeypatch.setattr(books, "LEAST_SAMPLE", 64)
    monkeypatch.setattr(books, "RATE", 4)  # large and small books alike, as long ones have it
    notice = synthetic(1000, 3000)
    ours = Books()
    for seed in range(8):
        assert ours.add(f"long {seed}", notice + synthetic(seed, 9000)) is None
    for seed in range(20, 30):  # nine parts of ten are the notice
        assert ours.add(str(seed), notice + synthetic(seed, 300)) is None
    assert ours.add("again", synthetic(25, 300) + notice)[0] == "25"
    _, counts = np.unique(np.concatenate([run for run, _ in ours.runs]), return_counts=True)
    assert counts.max() == books.MOST_BOOKS + 1
    again = Books()  # with the same books, by their samples
    for identity, sample in zip(ours.identities, ours.samples, strict=True):
        again.add_again(identity, sample)
    assert again.identities == ours.identities and len(again.runs) == len(ours.runs)
    for theirs, own in zip(again.runs, ours.runs, strict=True):
        assert all((one == two).all() for one, two in zip(theirs, own, strict=True))


def test_collections_translations_and_anthologies(library) -> None:
    works = "\n\n".join(library[name] for name in NAMES)
    ours = Books()
    assert ours.add("works", works) is None
    for name in NAMES:
        assert ours.add(name, library[name])[0] == "works"
    ours = Books()
    assert ours.add("1342", library["1342"]) is None
    assert ours.add("works", works)[0] == "1342"  # whichever comes first stays
    halves = {name: library[name][: len(library[name]) // 2] for name in NAMES[2:6]}
    ours = Books()
    assert ours.add("first anthology", halves["14263"] + halves["14881"]) is None
    assert ours.add("second anthology", halves["14881"] + halves["15122"]) is None


def test_short_texts_and_wrong_thresholds() -> None:
    ours = Books()
    for text in ("", "a few words only, which say nothing", "a few words only, which say nothing"):
        assert ours.add("short", text) is None
    with pytest.raises(UserError, match="lies between 0 and 1, not at 90"):
        Books(90)


def test_numpy_finds_the_same(monkeypatch, library) -> None:
    text, other = library["24675"][:100_000], library["972"]
    editions = [changed(text, 0.03 * seed, "replaced", seed, other) for seed in range(6)]

    def found() -> list[object]:
        ours = Books()
        return [ours.add(str(number), edition) for number, edition in enumerate(editions)]

    ours = found()
    monkeypatch.setattr(hashing, "library", lambda: None)
    assert found() == ours and None in ours and any(ours)
