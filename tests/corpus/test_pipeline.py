"""Raw files to documents: the funnel counts every record once, duplicates go, groups resume."""

import gzip
import importlib
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from puna.corpus import extract, pipeline
from puna.corpus.groups import FILE_BYTES
from puna.corpus.record import digest, document_schema
from puna.corpus.settings import CorpusSettings
from puna.corpus.sources.fetch import RawFile, content_bytes, content_digest
from puna.errors import UserError
from puna.run.settings import ExecutionSettings
from tests.corpus.readers.web.test_warc import record, response

ENGLISH = (
    "Llamas of the {0}: the llamas of the high plain number {0} are counted every spring by the people of "
    "the village, who know each of them by name. The count takes a whole day, and in the evening there is "
    "music, a long table under the open sky, and much to eat."
)
GERMAN = (
    "Lamas der {0}: die Lamas der Hochebene Nummer {0} werden jedes Jahr im Frühling von den Leuten des "
    "Dorfes gezählt, die jedes beim Namen kennen. Die Zählung dauert einen ganzen Tag, und am Abend gibt es "
    "Musik, einen langen Tisch und viel zu essen."
)
ONE_GROUP = 1 << 30  # bytes


def archive() -> bytes:
    """A web archive of two pages and a picture; one page and the picture are of refused.org."""
    records = []
    for url, kind, text in (
        ("https://kept.org/", "text/html", ENGLISH.format("kept")),
        ("https://refused.org/1", "text/html", ENGLISH.format("gone")),
        ("https://refused.org/2", "image/png", "gone"),
    ):
        body = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n<html><body><p>{text}</p></body></html>"
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\n"
        records.append(f"{head}Content-Length: {len(body)}\r\n\r\n{body}\r\n\r\n")
    return "".join(records).encode()


def quiet(*arguments: Any) -> None:
    pass


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[CorpusSettings, dict[str, list[RawFile]]]]:
    def build(**sources: list[list[str]]) -> tuple[CorpusSettings, dict[str, list[RawFile]]]:
        files: dict[str, list[RawFile]] = {}
        for source, contents in sources.items():
            for number, rows in enumerate(contents):
                path = tmp_path / f"{source}-{number}.txt"
                path.write_text("\n".join(rows))
                files.setdefault(source, []).append(
                    RawFile(source, path.name, str(path), content_digest(path), content_bytes(path))
                )
        listed = [{"name": name, "reader": "lines", "uris": ["*"], "licence": "CC0"} for name in sources]
        return CorpusSettings.model_validate({"sources": listed}), files

    return build


def run(
    made: tuple[CorpusSettings, Any], folder: Path, name: str = "out", group_bytes: int = 1
) -> tuple[dict[str, Any], Path]:
    settings, files = made
    out = folder / name
    out.mkdir()
    counts = pipeline.documents(
        settings,
        files,
        scratch=folder / f"{name}-scratch",
        out=out,
        root=folder,
        execution=ExecutionSettings(workers=1, group_bytes=group_bytes),
        progress=quiet,
    )
    return counts, out


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_funnel_documents_and_what_was_dropped(make: Any, tmp_path: Path) -> None:
    one, two = ENGLISH.format(1), ENGLISH.format(2)
    made = make(a=[[one, two, "short", GERMAN.format(1)], [one, "+-" * 300]], b=[[two, ENGLISH.format(3)]])
    funnel, out = run(made, tmp_path)
    counts = {
        source: {step: figures["documents"] for step, figures in steps.items()}
        for source, steps in funnel["sources"].items()
    }
    assert counts == {
        "a": {"found": 6, "read": 6, "heuristics": 4, "language": 3, "quality": 3, "kept": 2},
        "b": {"found": 2, "read": 2, "heuristics": 2, "language": 2, "quality": 2, "kept": 1},
    }
    dropped = {"exact duplicate": 1, "few alphanumeric characters": 1, "other language": 1, "too short": 1}
    assert funnel["dropped"] == {"a": dropped, "b": {"exact duplicate": 1}}
    assert funnel["licences"]["a"] == {"CC0": 2} and funnel["languages"]["b"] == {"en": 1}
    table = pq.read_table(out / "a.parquet")
    assert table.schema.equals(document_schema())
    (first, _) = table.to_pylist()
    assert first["text"] == one.strip() and first["id"] == digest(one.strip())
    place = [first[key] for key in ("source", "file", "url", "offset", "language")]
    assert place == ["a", "a-0.txt", "a-0.txt#1", 0, "en"]
    listed = pq.read_table(out / "dropped.parquet").to_pylist()
    from_b = [(row["file"], row["reason"]) for row in listed if row["source"] == "b"]
    assert from_b == [("b-0.txt", "exact duplicate")] and len(listed) == 5


def test_finished_groups_are_found_again_and_give_the_same_bytes(make: Any, tmp_path: Path) -> None:
    made = make(a=[[ENGLISH.format(number)] for number in range(4)])
    _, whole = run(made, tmp_path, "whole")
    scratch = tmp_path / "out-scratch"
    scratch.mkdir()
    finished = [
        next((tmp_path / "whole-scratch").glob(f"a-00000000-*.{kind}"))
        for kind in ("filtered.parquet", "minhash.npy")
    ]
    for path in finished:
        (scratch / path.name).write_bytes(path.read_bytes())
    before = [(scratch / path.name).stat().st_mtime_ns for path in finished]
    _, out = run(made, tmp_path)
    assert [(scratch / path.name).stat().st_mtime_ns for path in finished] == before
    assert content(whole) == content(out)


def test_groups_of_another_size_are_not_left_behind(make: Any, tmp_path: Path) -> None:
    made = make(a=[[ENGLISH.format(number)] for number in range(4)])
    run(made, tmp_path)
    scratch = tmp_path / "out-scratch"
    (first,) = (path.name for path in scratch.glob("a-00000003-*.filtered.parquet"))
    shutil.rmtree(tmp_path / "out")
    run(made, tmp_path, group_bytes=3 * FILE_BYTES)
    groups = {path.name.partition(".")[0].rpartition("-")[0] for path in scratch.iterdir() if path.is_file()}
    assert groups == {"a-00000000", "a-00000003"} and (scratch / first).exists()


def test_one_group_and_many_give_the_same_documents(make: Any, tmp_path: Path) -> None:
    made = make(a=[[ENGLISH.format(number), ENGLISH.format(number + 1)] for number in range(4)])
    _, many = run(made, tmp_path, "many")
    _, one = run(made, tmp_path, "one", ONE_GROUP)
    assert content(many) == content(one)


def test_a_damaged_file_stops_the_run_or_is_counted(make: Any, tmp_path: Path) -> None:
    settings, files = make(a=[[ENGLISH.format(1)], [ENGLISH.format(2)]])
    files["a"][1].path.write_bytes(ENGLISH.format(2).encode() + b"\n\xff\xfe")
    with pytest.raises(UserError, match=r"source a: a-1\.txt: not UTF-8 text at byte"):
        run((settings, files), tmp_path)
    funnel, out = run((settings.model_copy(update={"on_damaged_file": "skip"}), files), tmp_path, "skip")
    assert funnel["dropped"]["a"] == {"not UTF-8": 1} and funnel["sources"]["a"]["kept"]["documents"] == 2
    offsets = pq.read_table(out / "dropped.parquet")["offset"].to_pylist()
    assert offsets == [len(ENGLISH.format(2).encode()) + 1]
    files["a"][1].path.write_bytes(b"\x1f\x8b\x08 no gzip")
    funnel, out = run((settings.model_copy(update={"on_damaged_file": "skip"}), files), tmp_path, "damaged")
    assert funnel["dropped"]["a"] == {"damaged file": 1}
    assert "gzip stream is damaged" in pq.read_table(out / "dropped.parquet")["detail"].to_pylist()[0]


def test_a_damaged_record_of_a_web_archive_counts_once(tmp_path: Path) -> None:
    whole = [
        gzip.compress(record(response(f"<p>{ENGLISH.format(n)}</p>".encode()), url=f"http://a.example/{n}"))
        for n in range(4)
    ]
    damaged = bytearray(whole[1])
    damaged[60:90] = bytes(255 - byte for byte in damaged[60:90])
    path = tmp_path / "a.warc.gz"
    path.write_bytes(whole[0] + bytes(damaged) + whole[2] + whole[3][:-30])
    files = {"a": [RawFile("a", path.name, str(path), content_digest(path), content_bytes(path))]}
    listed = [{"name": "a", "reader": "warc", "uris": ["*"]}]
    settings = CorpusSettings.model_validate({"sources": listed, "on_damaged_file": "skip"})
    funnel, out = run((settings, files), tmp_path, group_bytes=ONE_GROUP)
    assert funnel["dropped"]["a"] == {"damaged gzip member": 1, "damaged file": 1}
    assert funnel["sources"]["a"]["found"]["documents"] == 4
    dropped = pq.read_table(out / "dropped.parquet").to_pylist()
    (last,) = [row for row in dropped if row["reason"] == "damaged file"]
    assert (last["url"], last["offset"]) == ("http://a.example/3", path.stat().st_size - len(whole[3]) + 30)
    with pytest.raises(UserError, match="ends early"):
        run((settings.model_copy(update={"on_damaged_file": "stop"}), files), tmp_path, "stop")


def test_a_file_without_records_is_named(make: Any, tmp_path: Path) -> None:
    made = make(a=[[ENGLISH.format(1)], [""], [ENGLISH.format(2)]])
    funnel, _ = run(made, tmp_path, group_bytes=ONE_GROUP)
    assert funnel["sources"]["a"]["found"]["documents"] == 3
    assert funnel["dropped"]["a"] == {"nothing in the file": 1}


def test_a_corpus_without_documents_is_an_error_with_its_reasons(make: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no document is left of source b \(1 too short\)"):
        run(make(b=[["short"]]), tmp_path)


WIKI_PAGE = "<page><title>{0}</title><ns>{1}</ns><revision><text>{2}</text></revision></page>"
WIKI = (
    "<mediawiki><siteinfo><base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>"
    + "".join(
        WIKI_PAGE.format(title, namespace, ENGLISH.format(title))
        for title, namespace in (("Kept", 0), ("Gone", 0), ("Gone talk", 1))
    )
    + "</mediawiki>"
)
ROWS = [
    {
        "content": f"def {name}():\n    return {name!r}\n" * 9,
        "path": f"{name}.py",
        "repo_name": "r/r",
        "license": "mit",
    }
    for name in ("kept", "gone")
]
PATTERNS = "refused.org/*\nen.wikipedia.org/wiki/Gone*\ngithub.com/r/r/blob/HEAD/gone*\n"


@pytest.mark.parametrize(
    ("reader", "module", "extractor", "name", "content"),
    [
        ("warc", "web.warc", "read_page", "a.warc", archive()),
        ("wikipedia", "wiki.wikipedia", "plain", "a.xml", WIKI.encode()),
        ("github", "code.source_file", "filter_file", "a.jsonl", "\n".join(map(json.dumps, ROWS)).encode()),
    ],
)
def test_the_text_of_a_refused_page_is_never_extracted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reader: str,
    module: str,
    extractor: str,
    name: str,
    content: bytes,
) -> None:
    """And what is recorded of it is as if it had been refused after that."""
    patched = importlib.import_module(f"puna.corpus.readers.{module}")
    original = getattr(patched, extractor)
    seen: list[str] = []

    def recorded(raw: Any, *rest: Any) -> Any:
        seen.append(raw if isinstance(raw, str) else raw.decode())
        return original(raw, *rest)

    monkeypatch.setattr(patched, extractor, recorded)
    (tmp_path / name).write_bytes(content)
    (tmp_path / "patterns.txt").write_text(PATTERNS)
    source = {"name": "s", "reader": reader, "uris": ["*"], "languages": []}
    settings = CorpusSettings.model_validate(
        {"sources": [source], "opt_out": {"patterns": "patterns.txt"}, "minimum_characters": 9}
    )
    files = {"s": [RawFile("s", name, str(tmp_path / name), "", len(content))]}
    results = []
    for asks_first in (extract.ASKS_FIRST, ()):
        monkeypatch.setattr(extract, "ASKS_FIRST", asks_first)
        funnel, out = run((settings, files), tmp_path, f"out-{len(asks_first)}")
        tables = [pq.read_table(out / name).to_pylist() for name in ("dropped.parquet", "s.parquet")]
        results.append((funnel, *tables, seen[:]))
        seen.clear()
    (funnel, *first, few), (again, *second, more) = results
    assert funnel == again and first == second
    assert funnel["dropped"]["s"]["opt-out: URL pattern"] >= 1
    assert funnel["sources"]["s"]["kept"]["documents"] == 1
    assert len(few) == 1 and len(more) == 2 and not any("gone" in text.lower() for text in few)


def test_files_are_taken_one_by_one(make: Any, tmp_path: Path) -> None:
    """So that no list of millions is ever held: of those taken before, a group's at most are alive."""
    settings, files = make(a=[[ENGLISH.format(number)] for number in range(40)])
    alive: list[int] = []

    class Counted(RawFile):
        __slots__ = ("__weakref__",)

    def one_by_one() -> Iterator[RawFile]:
        seen: list[weakref.ref[Counted]] = []
        for file in files["a"]:
            counted = Counted(file.source, file.name, file.location, file.digest, file.bytes)
            seen.append(weakref.ref(counted))
            yield counted
            del counted
            alive.append(sum(reference() is not None for reference in seen))

    funnel, _ = run((settings, {"a": one_by_one()}), tmp_path, group_bytes=5 * FILE_BYTES)
    assert funnel["sources"]["a"]["found"]["documents"] == 40 and max(alive) <= 11


def test_an_opt_out_file_that_cannot_be_read_is_no_damage_of_raw_files(make: Any, tmp_path: Path) -> None:
    """Else a run that skips damaged files would drop every record for it."""
    settings, files = make(a=[[ENGLISH.format(1)]])
    (tmp_path / "domains.txt").write_bytes(b"\xff\xfe")
    opt_out = settings.opt_out.model_copy(update={"domains": "domains.txt"})
    skips = settings.model_copy(update={"opt_out": opt_out, "on_damaged_file": "skip"})
    with pytest.raises(UserError, match=r"domains\.txt.*UTF-8"):
        run((skips, files), tmp_path)
