"""The reference classifier on texts whose true odds are known, on real texts as a stand-in, and what its
files and refusals promise."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from puna.corpus.filters import binary, language, reference
from puna.corpus.filters.reference import ReferenceModel, site, train
from puna.corpus.readers.web import warc
from puna.corpus.readers.wiki import wikipedia
from puna.corpus.record import RawDocument
from puna.errors import UserError
from puna.run.files import write_atomically

VOCABULARY = [f"{a}{b}{c}" for a in "bdgklm" for b in "aeiou" for c in "nrst"]
TILT = np.random.default_rng(1).normal(size=len(VOCABULARY)) * 0.25  # log odds of each word
Page = tuple[str, str]


def pages(label: int, count: int, sites: int = 40, seed: int = 0) -> list[Page]:
    """Pages of words drawn at random, a reference's (label 1) with odds e^TILT above a random page's."""
    random = np.random.default_rng([seed, label])
    chances = np.exp(TILT * (label - 0.5))
    chances /= chances.sum()
    drawn = random.choice(VOCABULARY, size=(count, 40), p=chances)
    return [
        (f"https://www.{'rp'[label]}{i % sites}.example/{i}", " ".join(words))
        for i, words in enumerate(drawn)
    ]


def true_log_odds(text: str) -> float:
    normaliser = [np.log(np.exp(TILT * (label - 0.5)).sum()) for label in (0, 1)]
    tilt = dict(zip(VOCABULARY, TILT, strict=True))
    return sum(tilt[word] for word in text.split()) - len(text.split()) * float(normaliser[1] - normaliser[0])


@pytest.fixture(scope="module")
def model() -> ReferenceModel:
    return train(pages(1, 3_000), pages(0, 3_000), bits=18, notes={"dates": "dumps of no month"})


def test_it_comes_near_the_best_possible_and_its_scores_are_chances(model: ReferenceModel) -> None:
    fresh = [(label, text) for label in (1, 0) for _, text in pages(label, 4_000, seed=7)]
    labels = np.array([label == 1 for label, _ in fresh])
    scores = model.score([text for _, text in fresh]).astype(np.float64)
    best = binary.area_under_curve(np.array([true_log_odds(text) for _, text in fresh]), labels)
    # Words in a random order: their pairs, three in four of the features, only disturb.
    assert 0.8 < best < 0.99 and binary.area_under_curve(scores, labels) > best - 0.08
    assert binary.measure(scores, labels, model.threshold)["calibration_error"] < 0.06
    kept = model.keep([text for _, text in fresh])
    assert abs(kept[labels].mean() - 0.9) < 0.05  # the recall asked for
    metrics = model.facts["metrics"]
    for name, share in (("recall", kept[labels].mean()), ("false_positives", kept[~labels].mean())):
        low, high = binary.wilson(metrics[name]["hits"], metrics[name]["trials"])
        assert low - 0.02 < share < high + 0.02


def test_the_telling_words_are_the_true_ones(model: ReferenceModel) -> None:
    tilt = dict(zip(VOCABULARY, TILT, strict=True))
    for kind, sign in (("references", 1), ("random pages", -1)):
        told = [word for word, _, _ in model.facts["words"][kind] if word in tilt]
        assert len(told) > 5 and np.mean([sign * tilt[word] > 0 for word in told]) > 0.9


def test_a_score_does_not_depend_on_the_batch(model: ReferenceModel) -> None:
    odd = ["", "  ", "...", "unknown words only", "日本語", "\ud800"]
    texts = [text for _, text in pages(1, 30)] + odd + [text * 50 for _, text in pages(0, 5)]
    together = model.score(texts)
    assert together.dtype == np.float32 and ((together > 0) & (together < 1)).all()
    assert together.tolist() == [float(model.score([text])[0]) for text in texts]
    assert model.score([]).shape == (0,)


def test_order_and_repeats_of_the_input_change_nothing(model: ReferenceModel) -> None:
    positives, negatives = pages(1, 3_000), pages(0, 3_000)
    again = train(
        iter(positives[::-1] + positives[:50]),
        iter(negatives[::-1]),
        bits=18,
        notes={"dates": "dumps of no month"},
    )
    assert again.weights.tobytes() == model.weights.tobytes() and again.threshold == model.threshold
    facts = {key: value for key, value in again.facts.items() if key != "seen"}
    assert facts == {key: value for key, value in model.facts.items() if key != "seen"}


def test_the_same_model_on_processors_with_and_without_wide_registers() -> None:
    code = (
        "import hashlib, json, test_reference as t; from puna.corpus.filters.reference import train;"
        "m = train(t.pages(1, 400), t.pages(0, 400), bits=18);"
        "s = m.score([x for _, x in t.pages(1, 50, seed=4)]);"
        "facts = json.dumps([m.slope, m.intercept, m.facts]).encode();"
        "print(hashlib.sha256(m.weights.tobytes() + s.tobytes() + facts).hexdigest())"
    )
    dispatched = " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))

    def digest(**environment: str) -> str:
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout

    assert digest(PYTHONHASHSEED="1") == digest(PYTHONHASHSEED="2", NPY_DISABLE_CPU_FEATURES=dispatched)


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=40), st.integers(0, 5))
def test_no_site_is_in_two_parts(drawn: list[tuple[int, bool]], salt: int) -> None:
    sites, labels = [f"{salt}-{number}" for number, _ in drawn], np.array([label for _, label in drawn])
    if labels.all() or not labels.any():
        return
    parts = reference._parts(sites, labels)
    assert all(
        len({part for part, own in zip(parts, sites, strict=True) if own == name}) == 1 for name in set(sites)
    )


def test_parts_are_of_the_wanted_size_and_a_giant_site_is_trained_on() -> None:
    sites = [f"s{i % 200}" for i in range(4_000)] + ["giant"] * 2_000
    labels = np.array([i % 3 == 0 for i in range(6_000)])
    parts = reference._parts(sites, labels)
    assert set(parts[4_000:]) == {"training"}
    for part in ("calibration", "held out"):
        for label in (True, False):
            assert 0.05 < ((parts == part) & (labels == label)).sum() / (labels == label).sum() < 0.15


def test_sampling_by_address_and_cited_negatives() -> None:
    positives, negatives = pages(1, 800), pages(0, 800)
    cited = [(url.replace("https://www.", "http://") + "#part", text) for url, text in positives[:100]]
    small = train(positives, negatives + cited, bits=18, most_positives=300, most_negatives=400)
    parts = small.facts["parts"].values()
    taken = {kind: sum(part[kind]["documents"] for part in parts) for kind in reference.KINDS}
    assert taken["references"] == 300 and 300 < taken["random pages"] <= 400
    assert small.facts["seen"] == {"references": 800, "random pages": 900}
    whole = train(positives, negatives + cited, bits=18)
    assert sum(part["random pages"]["documents"] for part in whole.facts["parts"].values()) == 800


def test_refusals() -> None:
    good = pages(1, 300)
    cases: list[tuple[list[Page], list[Page], str]] = [
        ([], pages(0, 300), "0 references"),
        (good, [], "0 random pages"),
        (good[:50], pages(0, 300), "50 references"),
        (good, good, "0 random pages"),
        ([(url, " \n") for url, _ in good], pages(0, 300), "0 references"),
        (pages(1, 300, sites=1), pages(0, 300), "all 300 references come from 1 sites"),
    ]
    for positives, negatives, told in cases:
        with pytest.raises(UserError, match=told):
            train(positives, negatives, bits=18)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"precision": 0.9}, "one of recall and precision"),
        ({"recall": 1.5}, "shares"),
        ({"bits": 40}, "bits must be"),
        ({"epochs": 0}, "epochs"),
    ]
    for settings, told in wrong:
        with pytest.raises(UserError, match=told):
            train(good, pages(0, 300), **settings)


def test_threshold_by_precision() -> None:
    found = train(pages(1, 4_000), pages(0, 4_000), bits=18, recall=None, precision=0.9)
    share = found.facts["metrics"]["precision"]
    assert share["hits"] / share["trials"] > 0.84 and "precision 0.9 " in found.card()


def test_saved_and_loaded(model: ReferenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    model.save(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    loaded = reference.load(folder)
    texts = [text for _, text in pages(1, 20)]
    assert (loaded.score(texts) == model.score(texts)).all()
    assert loaded.card() == model.card() and loaded.facts == model.facts
    loaded.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files

    other = train(pages(1, 400, seed=3), pages(0, 400, seed=3), bits=18)

    def fails(path: Path, content: str | bytes) -> None:
        if path.name == "model.json":
            raise OSError("no space left")
        write_atomically(path, content)

    monkeypatch.setattr(reference, "write_atomically", fails)
    for place in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="no space"):
            other.save(place)
    assert not (tmp_path / "new").exists()
    assert (reference.load(folder).weights == model.weights).all()  # the old model is whole
    monkeypatch.undo()
    other.save(folder)
    model.save(tmp_path / "new")  # over what the first attempt left
    assert len(list((tmp_path / "new").iterdir())) == 2 and not (tmp_path / "new.part").exists()
    assert len(list(folder.iterdir())) == 2 and (reference.load(folder).weights == other.weights).all()


def test_what_is_no_model(model: ReferenceModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no reference model"):
        reference.load(tmp_path)
    model.save(tmp_path)
    weights = next(tmp_path.glob("*.npy"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="does not match its digest"):
        reference.load(tmp_path)
    told = json.loads((tmp_path / "model.json").read_text())
    for wrong in ({**told, "version": 99}, {"version": reference.VERSION}, []):
        (tmp_path / "model.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError):
            reference.load(tmp_path)


def test_the_card_says_what_is_known(model: ReferenceModel) -> None:
    card = model.card()
    metrics = model.facts["metrics"]
    figures = [f"{model.threshold:.4f}", f"{metrics['area_under_curve']:.4f}"]
    for wanted in ("Dates: dumps of no month.", *figures, "3,000 references were offered"):
        assert wanted in card
    rows = re.findall(r"(?m)^\| (?:training|calibration|held out) \| ([\d,]+) \|", card)
    assert sum(int(count.replace(",", "")) for count in rows) == 3_000
    for heading in ("Training data", "On held-out sites", "Words that weigh most", "Limits and biases"):
        assert f"## {heading}\n" in card


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://news.bbc.co.uk/1/x", "bbc.co.uk"),
        ("https://www.a.example:8080/x", "a.example"),
        ("http://a.b.c.example/?q", "c.example"),
        ("http://192.168.10.1/x", "192.168.10.1"),
        ("http://[::1]/x", "[::1]"),
        ("http://localhost/", "localhost"),
        ("Puna grassland", "Puna grassland"),
        ("http://www.gov.uk/x", "gov.uk"),
    ],
)
def test_sites(url: str, wanted: str) -> None:
    assert site(url) == wanted


def test_real_texts_as_a_stand_in(data: Path) -> None:
    """English Wikipedia articles, instead of cited pages, against crawled pages."""

    def texts(reader: Any, paths: list[Path]) -> list[str]:
        found = []
        for path in paths:
            found += [item.text for item in reader.read(path) if isinstance(item, RawDocument)]
        return found

    def cut(kind: str, texts: list[str], shortest: int) -> list[Page]:
        pieces = []
        for number, text in enumerate(texts):
            starts = range(0, max(1, len(text) - shortest), 2_000)
            pieces += [(f"http://{number}.{kind}/{at}", text[at : at + 2_000]) for at in starts]
        return pieces

    articles = texts(wikipedia, [data / "raw" / "wikipedia" / "minidump-enwiki.xml.bz2"])
    crawl = texts(warc, sorted((data / "raw" / "html_eval").glob("*.warc.gz"))[:2])
    english = [text for text in crawl if len(text) > 500 and language.identify(text)[0] == "en"]
    model = train(cut("article", articles, 500), cut("page", english, 0))
    assert model.facts["metrics"]["area_under_curve"] > 0.9 and math.isfinite(model.slope)
