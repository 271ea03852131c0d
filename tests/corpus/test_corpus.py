"""Whole corpora: the same bytes whoever does the work and whenever it is killed; lines, models, rights, known
runs."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from puna.corpus.dedup.sentences import REPEATED
from puna.corpus.filters import heuristics
from puna.corpus.record import digest

from .driver import STOPPED
from .test_pipeline import content

ROOT = Path(__file__).parents[2]
NAMES = ["hill", "lake", "river", "village", "bridge", "school", "market"]
NAMES += ["garden", "tower", "road", "mill", "field", "forest", "harbour"]
SENTENCES = (
    "The {0} was built in the year {2} by people of the {1}, who carried every stone on their backs.",
    "Nobody in the {1} remembers who first crossed the {0} at night, but the story is told to children.",
    "In {2} the {0} burned down to its walls, and the {1} gave what it had to raise it again.",
    "A path of {2} steps leads from the {0} down to the {1}, where boats wait in the morning.",
    "Every spring the {0} and the {1} are cleaned together, and there is a feast on the last day.",
    "The oldest map shows the {0} on the wrong side of the {1}, a mistake that lived for {2} years.",
    "When the rain does not come, the {1} shares its water with the {0} by a rule {2} years old.",
)


def text(number: int, sentences: int = 9) -> str:
    chance = random.Random(number)
    picked = []
    for _ in range(sentences):
        pattern = SENTENCES[chance.randrange(len(SENTENCES))]
        picked.append(pattern.format(*chance.sample(NAMES, 2), chance.randrange(1000, 2000)))
    return " ".join(picked)


def job(
    folder: Path,
    name: str,
    files: dict[str, list[Path]],
    execution: dict[str, Any] | None = None,
    stop_at: tuple[str, int] | None = None,
    is_killed: bool = False,
    piece_characters: int = 0,
    **settings: Any,
) -> Path:
    """A job for the driver. Sources are read as lines unless said otherwise.

    stop_at: the process ends at once when its progress comes there, by a signal where it `is_killed`.
    piece_characters: so much goes through the merge between two points from which it can go on.
    """
    sources = settings.pop("sources", {})
    listed = [
        {"name": source, "reader": "lines", "uris": ["*"], "licence": "CC0", **sources.get(source, {})}
        for source in files
    ]
    made = {
        "settings": {"sources": listed, **settings},
        "execution": {"group_bytes": 1, "workers": 1, **(execution or {})},
        "stop_at": stop_at,
        "is_killed": is_killed,
        "piece_characters": piece_characters,
        "files": {source: [str(path) for path in paths] for source, paths in files.items()},
        "scratch": str(folder / f"{name}-scratch"),
        "out": str(folder / name),
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(made))
    return path


def start(path: Path) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.corpus.driver", str(path)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(path: Path) -> tuple[dict[str, Any], Path]:
    process = start(path)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]), Path(json.loads(path.read_text())["out"])


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("\n".join(texts))
    return path


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Files of four sources: with repeated lines, near and exact duplicates, and a source that models learn
    from."""
    folder = tmp_path_factory.mktemp("village")
    pages = []
    for number in range(6):
        rows = [
            {"text": "\n".join(["Home | News | About us", text(10 * number + n), "All rights reserved."])}
            for n in range(10)
        ]
        rows.append({"text": "Home | News | About us\nAll rights reserved.\n" * 8})
        pages.append(write(folder / f"pages-{number}.jsonl", [json.dumps(row) for row in rows]))
    good = [
        write(folder / f"good-{number}.txt", [text(1000 + 20 * number + n) for n in range(20)])
        for number in range(3)
    ]
    again = write(folder / "again.txt", [text(1000), text(1001).replace("feast", "party"), text(5000)])
    sources = {"pages": {"reader": "jsonl", "ccnet": "on", "perplexity": True}}
    settings = {"sources": sources, "perplexity": {"train_on": ["good"], "vocab_size": 400, "order": 3}}
    return folder, {"good": good, "pages": pages, "again": [again]}, settings


@pytest.fixture(scope="module")
def whole(village: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    folder, files, settings = village
    funnel, out = run(job(folder, "whole", files, **settings))
    return funnel, content(out)


def test_the_funnel_of_a_whole_corpus(whole: Any, village: Any) -> None:
    funnel, _ = whole
    assert funnel["lines"]["pages"] == {
        "found": 6 * (30 + 17 - 1),
        "removed": funnel["lines"]["pages"]["removed"],
        "scopes": 1,
    }
    assert funnel["dropped"]["pages"]["only repeated lines"] == 6
    assert (
        funnel["dropped"]["again"]["exact duplicate"] == 1
        and funnel["dropped"]["again"]["near duplicate"] <= 1
    )
    head, tail = funnel["learnt"]["perplexity"]["pages"]
    assert 1 < head < tail
    kept = pq.read_table(village[0] / "whole" / "pages.parquet").to_pylist()
    assert {row["bucket"] for row in kept} == {"head", "middle"} and all(
        (row["perplexity"] < head) == (row["bucket"] == "head") for row in kept
    )
    assert not any("Home" in row["text"] for row in kept[1:])
    assert funnel["dropped"]["pages"]["perplexity outside the parts kept"] == pytest.approx(0.4 * 60, abs=2)
    for row in pq.read_table(village[0] / "whole" / "dropped.parquet").to_pylist():
        if row["reason"] == "perplexity outside the parts kept":
            bucket, value, rest = row["detail"].replace(",", "").split(maxsplit=2)
            assert (bucket, rest) == ("tail:", f"head below {head:.1f} tail above {tail:.1f}") and float(
                value
            ) > tail - 0.1


def test_a_source_without_documents_needs_no_thresholds_of_perplexity(village: Any, tmp_path: Path) -> None:
    _, files, settings = village
    short = write(
        tmp_path / "short.jsonl", [json.dumps({"text": f"Too short, {number}."}) for number in range(3)]
    )
    funnel, out = run(job(tmp_path, "one", {"good": files["good"][:1], "pages": [short]}, **settings))
    assert list(funnel["empty"]) == ["pages"] and "1 too short" in funnel["empty"]["pages"]
    assert funnel["learnt"]["perplexity"] == {}
    assert funnel["sources"]["good"]["kept"]["documents"] == 20
    assert "perplexity (" not in (out / "data_card.md").read_text()


def test_nothing_to_learn_perplexity_from_is_told_with_the_source(village: Any, tmp_path: Path) -> None:
    _, files, settings = village
    short = write(tmp_path / "short.txt", ["Too short."])
    process = start(job(tmp_path, "one", {"good": [short], "pages": files["pages"][:1]}, **settings))
    _, told = process.communicate(timeout=200)
    assert process.returncode and "corpus.perplexity.train_on: no document of good came through" in told


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_give_the_same_bytes(whole: Any, village: Any, workers: int) -> None:
    folder, files, settings = village
    _, out = run(job(folder, f"workers{workers}", files, {"workers": workers}, **settings))
    assert content(out) == whole[1]


@pytest.mark.parametrize("group_bytes", [30_000, 1 << 30])
def test_groups_of_any_size_give_the_same_bytes(whole: Any, village: Any, group_bytes: int) -> None:
    folder, files, settings = village
    funnel, out = run(job(folder, f"groups{group_bytes}", files, {"group_bytes": group_bytes}, **settings))
    assert funnel == whole[0] and content(out) == whole[1]


def test_a_stopped_run_goes_on_in_groups_of_another_size(whole: Any, village: Any) -> None:
    """Stopped in each step, every time after some groups, and continued in another cut by other workers."""
    folder, files, settings = village
    stops = [("reading", 7), ("filtering", 2), ("scoring", 3), ("reading", 4), ("pages: lines", 1)]
    cuts = [1, 30_000, 1, 40_000, 30_000]
    for number, (stop_at, group_bytes) in enumerate(zip(stops, cuts, strict=True)):
        execution = {"group_bytes": group_bytes, "workers": 1 + number % 2}
        process = start(job(folder, "recut", files, execution, stop_at, **settings))
        _, err = process.communicate(timeout=200)
        assert process.returncode == STOPPED, (stop_at, err)
        assert list((folder / "recut-scratch").glob("*.filtered.parquet"))
    _, out = run(job(folder, "recut", files, {"group_bytes": 40_000, "workers": 2}, **settings))
    assert content(out) == whole[1]


def test_a_ray_cluster_gives_the_same_bytes(whole: Any, village: Any) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'puna[ray]'")
    folder, files, settings = village
    _, out = run(job(folder, "ray", files, {"ray": "local", "workers": 2}, **settings))
    assert content(out) == whole[1]


def test_twenty_kills_give_the_same_bytes(whole: Any, village: Any) -> None:
    folder, files, settings = village
    path = job(folder, "killed", files, {"workers": 2}, **settings)
    chance = random.Random(7)
    kills = 0
    for _ in range(200):
        process = start(path)
        try:
            process.wait(chance.uniform(0.5, 4.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        if process.returncode == 0:  # it was through: begin again, so that every kill meets work
            assert content(folder / "killed") == whole[1]
            for path_in_scratch in (folder / "killed-scratch").iterdir():
                if path_in_scratch.is_file():
                    path_in_scratch.unlink()
            shutil.rmtree(folder / "killed-scratch" / "merge")
        if kills == 20:
            break
        time.sleep(0.05)
    assert kills == 20
    _, out = run(path)
    assert content(out) == whole[1]


def test_exact_ccnet_keeps_no_copy_of_a_repeated_line(village: Any) -> None:
    folder, files, _ = village
    sources = {"pages": {"reader": "jsonl", "ccnet": "exact"}}
    funnel, out = run(job(folder, "exact", {"pages": files["pages"]}, sources=sources))
    assert not any(
        "Home" in row["text"] or "rights" in row["text"]
        for row in pq.read_table(out / "pages.parquet").to_pylist()
    )
    assert funnel["lines"]["pages"]["removed"] >= 6 * (20 + 16)


def test_a_later_dump_is_compared_with_a_known_run(village: Any, whole: Any) -> None:
    folder, _, _ = village
    later = write(folder / "later.txt", [text(1003), text(7000), text(1004)])
    funnel, out = run(job(folder, "later", {"later": [later]}, deduplicate_against=str(folder / "whole")))
    assert (
        funnel["dropped"]["later"] == {"near duplicate": 2}
        and funnel["sources"]["later"]["kept"]["documents"] == 1
    )
    assert pq.read_table(out / "later.parquet")["text"].to_pylist() == [text(7000)]


def test_opt_outs_and_privacy(village: Any, tmp_path: Path) -> None:
    rows = [
        {
            "url": f"https://{host}/{n}?by=nobody@example.org",
            "title": "Of nobody@example.org",
            "text": f"{text(9000 + n)} Write to nobody@example.org.",
        }
        for n, host in enumerate(["a.org", "www.b.org"])
    ]
    (tmp_path / "domains.txt").write_text("b.org\n")
    path = write(tmp_path / "rows.jsonl", [json.dumps(row) for row in rows])
    opt_out = {"domains": str(tmp_path / "domains.txt")}
    made = job(
        tmp_path,
        "out",
        {"rows": [path]},
        sources={"rows": {"reader": "jsonl"}},
        opt_out=opt_out,
        privacy=["email"],
    )
    funnel, out = run(made)
    assert funnel["dropped"]["rows"] == {"opt-out: domain": 1}
    (row,) = pq.read_table(out / "rows.parquet").to_pylist()
    assert row["url"] == "https://a.org/0?by=%3CEMAIL%3E" and row["title"] == "Of <EMAIL>"
    assert row["text"].endswith("Write to <EMAIL>.")
    (dropped,) = pq.read_table(out / "dropped.parquet").to_pylist()
    assert (dropped["url"], dropped["detail"]) == ("https://www.b.org/1?by=%3CEMAIL%3E", "1 email")
    card, summary = (out / "data_card.md").read_text(), (out / "public_summary.md").read_text()
    assert "| opt-out: domain | 1 |" in card and "records left out for them: 1." in summary
    assert (
        "| rows | texts of a published dataset | 1 |" in summary.partition("### 2.6")[2]
    )  # whose, its recipe does not say


def test_what_a_filter_dropped_says_by_how_much(tmp_path: Path) -> None:
    """The language it was taken for, and the text of a page that had repeated lines alone."""
    german = "Die Hochebene liegt weit über den Tälern, und dort werden seit langem Lamas gehalten. " * 8
    rows = [{"text": text(1)}, {"text": text(1)}, {"text": german}]
    path = write(tmp_path / "rows.jsonl", [json.dumps(row) for row in rows])
    _, out = run(job(tmp_path, "out", {"rows": [path]}, sources={"rows": {"reader": "jsonl", "ccnet": "on"}}))
    found = {row["reason"]: row for row in pq.read_table(out / "dropped.parquet").to_pylist()}
    assert found["other language"]["detail"].startswith("de, score 0.9")
    assert found["only repeated lines"]["excerpt"] == text(1)[:500]


def test_a_book_in_two_editions_is_kept_once(tmp_path: Path) -> None:
    paragraphs = [text(20_000 + n, 5) for n in range(150)]
    first = write(tmp_path / "first.txt", ["\n\n".join(paragraphs)])
    second = write(
        tmp_path / "second.txt",
        ["A PUBLISHER'S FOREWORD\n\n" + "\n\n".join(textwrap.fill(part, 60) for part in paragraphs)],
    )
    chance = random.Random(3)
    words = [word for sentence in SENTENCES for word in sentence.split() if "{" not in word]
    other = write(
        tmp_path / "other.txt", ["\n\n".join(" ".join(chance.choices(words, k=90)) for _ in range(150))]
    )
    made = job(
        tmp_path,
        "out",
        {"books": [first, second, other]},
        sources={"books": {"reader": "book", "books": True}},
        near_duplicate_threshold=1,
    )
    funnel, out = run(made)
    assert funnel["dropped"]["books"] == {"overlaps with an earlier book": 1}
    assert pq.read_table(out / "books.parquet")["file"].to_pylist() == ["first.txt", "other.txt"]


def test_the_heuristics_of_c4(tmp_path: Path) -> None:
    pages = [text(40_000), f"{text(40_001)} {{", f"{text(40_002)} What a marmot of a day this was."]
    rows = write(tmp_path / "rows.jsonl", [json.dumps({"text": f"Menu\n{page}"}) for page in pages])
    (tmp_path / "words.txt").write_text("marmot\n")
    sources = {"rows": {"reader": "jsonl", "c4": True}}
    funnel, out = run(
        job(tmp_path, "out", {"rows": [rows]}, sources=sources, bad_words=str(tmp_path / "words.txt"))
    )
    assert funnel["sources"]["rows"]["kept"]["documents"] == 1 and len(funnel["dropped"]["rows"]) == 2
    assert pq.read_table(out / "rows.parquet")["text"].to_pylist() == [text(40_000)]
    assert all(
        excerpt.startswith("Menu")
        for excerpt in pq.read_table(out / "dropped.parquet")["excerpt"].to_pylist()
    )


def long_text(seed: int, change: int = 0) -> list[str]:
    """Ten sentences of 30 words; in every third one word is of another `change`."""
    chance, other = random.Random(seed), random.Random(seed + change)
    rows = [
        [chance.choice("".join(text(n)).split()).strip(".,").lower() for n in range(k, k + 30)]
        for k in range(0, 300, 30)
    ]
    for row in rows[::3] if change else ():
        row[15] = f"stone{other.randrange(10**6)}"
    return [" ".join(["The", *row]) + "." for row in rows]


def test_spans_of_three_sentences_over_all_sources_under_c4(tmp_path: Path) -> None:
    """Of the second copy of a notice nothing stays; what does is measured, identified and compared anew."""
    notice = [f"The {name} of the valley is shown to visitors who ask for it at the gate." for name in NAMES]
    own = [text(80_000 + n, 5) for n in range(3)]
    first = [{"text": " ".join(notice)}, {"text": " ".join(long_text(1))}, {"text": own[0]}]
    second = [
        {"text": own[1] + "\n" + " ".join(notice)},
        {"text": " ".join(notice[3:9]) + " Nothing but this is new."},
        {"text": " ".join(notice[2:12]) + "\nA short one. It says little. It is soon over."},
        {"text": own[0]},
        {"text": " ".join(notice) + "\n" + " ".join(long_text(1, change=1))},
        {"text": own[1]},
        {"text": own[2]},
    ]
    other = [{"text": " ".join(notice[1:11])}]
    files = {
        name: [write(tmp_path / f"{name}.jsonl", [json.dumps(row) for row in rows])]
        for name, rows in (("first", first), ("second", second), ("other", other))
    }
    sources = {
        "first": {"reader": "jsonl", "c4": True},
        "second": {"reader": "jsonl", "c4": True},
        "other": {"reader": "jsonl"},
    }
    funnel, out = run(job(tmp_path, "out", files, sources=sources))
    assert pq.read_table(out / "first.parquet")["text"].to_pylist() == [row["text"] for row in first]
    kept = pq.read_table(out / "second.parquet").to_pylist()
    assert [row["text"] for row in kept] == [own[1], own[2]]
    assert kept[0]["id"] == digest(own[1]) and kept[0]["mean_line_length"] == len(own[1])
    assert kept[0]["alphanumeric_fraction"] == pytest.approx(heuristics.measure(own[1]).alphanumeric_fraction)
    assert funnel["sources"]["second"]["kept"] == {"documents": 2, "bytes": len(own[1]) + len(own[2])}
    dropped = [row for row in pq.read_table(out / "dropped.parquet").to_pylist() if row["source"] == "second"]
    reasons = [REPEATED, "too short", REPEATED, "near duplicate", REPEATED]
    assert [row["reason"] for row in dropped] == reasons
    assert (
        dropped[0]["excerpt"].startswith(notice[3])
        and dropped[1]["excerpt"] == "A short one. It says little. It is soon over."
    )
    assert dropped[3]["detail"] == f"of {digest(' '.join(long_text(1)))}"
    assert (
        funnel["sources"]["second"]["heuristics"]["documents"] == 3
        and funnel["sources"]["other"]["kept"]["documents"] == 1
    )
    assert (
        f"{funnel['spans']['removed']} of {funnel['spans']['found']} removed, scopes: 1"
        in (out / "data_card.md").read_text()
    )
    again, elsewhere = run(job(tmp_path, "workers", files, {"workers": 2}, sources=sources))
    assert again == funnel and content(elsewhere) == content(out)


def test_the_classifier_learns_from_the_pages_that_a_dump_cites(tmp_path: Path) -> None:
    """Cited pages speak of towers and mills, the others of cheap offers; the dump names the first by their
    addresses, written otherwise."""
    chance = random.Random(5)
    offers = (
        "Buy the best cheap offer of today, click here and win a free prize with every order, sale now, "
        "discount, subscribe. "
    )

    def other() -> str:
        words = chance.sample((offers + text(chance.randrange(10**6), 2)).split(), 30)
        return " ".join(words) + f" Order number {chance.randrange(10**6)}."

    cited = [{"url": f"https://www.cited{n}.org/page", "text": text(60_000 + n)} for n in range(400)]
    others = [
        {"url": f"https://other{n}.com/", "text": " ".join(other() for _ in range(4))} for n in range(400)
    ]
    rows = write(tmp_path / "rows.jsonl", [json.dumps(row) for row in cited + others])
    refs = "".join(
        f"A claim.<ref name=r{n}>{{{{cite web|url=http://cited{n}.org/page/|title=T}}}}</ref> "
        for n in range(400)
    )
    dump = tmp_path / "dump.xml"
    wikitext = refs.replace("<", "&lt;") + text(1)
    page = f"<page><title>Tower</title><ns>0</ns><revision><text>{wikitext}</text></revision></page>"
    dump.write_text(f"<mediawiki>{page}</mediawiki>")
    broken = write(tmp_path / "broken.xml", ["<mediawiki><page><title>"])
    sources = {"rows": {"reader": "jsonl", "reference": True}, "wiki": {"reader": "wikipedia"}}
    files = {"rows": [rows], "wiki": [broken, dump]}
    reference = {"citations_from": ["wiki"]}
    settings = {"reference": reference, "near_duplicate_threshold": 1, "on_damaged_file": "skip"}
    funnel, out = run(job(tmp_path, "out", files, sources=sources, **settings))
    assert funnel["dropped"]["wiki"]["damaged file"] == 1
    kept = pq.read_table(out / "rows.parquet").to_pylist()
    hosts = [row["url"].partition("://")[2].startswith("www.cited") for row in kept]
    assert hosts.count(True) >= 340 and hosts.count(False) <= 20
    assert all(row["reference_score"] >= funnel["learnt"]["reference"] for row in kept)
    assert (out / "reference" / "model_card.md").read_text().startswith("#")
