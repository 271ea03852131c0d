"""Raw files to documents: the funnel counts every record once, duplicates go, groups resume."""

import gzip
import importlib
import json
import pickle
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from puna.corpus import inspect, merge, steps
from puna.corpus.record import digest, document_schema
from puna.corpus.settings import CorpusSettings
from puna.corpus.sources.fetch import RawFile, content_bytes, content_digest
from puna.errors import UserError
from puna.run import artifact
from tests.corpus.readers.web.test_warc import record, response

ENGLISH = (
    "Llamas of the {0}: the llamas of the high plain number {0} are counted every spring by the people of the village, who know each of "
    "them by name. The count takes a whole day, and in the evening there is music, a long table under the open sky, and much to eat."
)
GERMAN = (
    "Lamas der {0}: die Lamas der Hochebene Nummer {0} werden jedes Jahr im Frühling von den Leuten des Dorfes gezählt, die jedes beim "
    "Namen kennen. Die Zählung dauert einen ganzen Tag, und am Abend gibt es Musik, einen langen Tisch und viel zu essen."
)


def archive() -> bytes:
    """A web archive of two pages and a picture; one page and the picture are of refused.org."""
    records = []
    for url, kind, text in (
        ("https://kept.org/", "text/html", ENGLISH.format("kept")),
        ("https://refused.org/1", "text/html", ENGLISH.format("gone")),
        ("https://refused.org/2", "image/png", "gone"),
    ):
        body = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n<html><body><p>{text}</p></body></html>"
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nContent-Length: {len(body)}\r\n\r\n"
        records.append(f"{head}{body}\r\n\r\n")
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
        return CorpusSettings.model_validate({"sources": listed, "group_bytes": 1, "workers": 1}), files

    return build


def run(
    made: tuple[CorpusSettings, dict[str, list[RawFile]]], tmp_path: Path, name: str = "out"
) -> tuple[dict[str, Any], Path]:
    out = tmp_path / name
    out.mkdir()
    return merge.documents(made[0], made[1], tmp_path / f"{name}-parts", out, quiet), out


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
    assert (first["source"], first["file"], first["url"], first["offset"], first["language"]) == (
        "a",
        "a-0.txt",
        "a-0.txt#1",
        0,
        "en",
    )
    listed = pq.read_table(out / "dropped.parquet").to_pylist()
    assert [(row["file"], row["reason"]) for row in listed if row["source"] == "b"] == [
        ("b-0.txt", "exact duplicate")
    ]
    assert len(listed) == 5


def test_finished_groups_are_found_again_and_give_the_same_bytes(make: Any, tmp_path: Path) -> None:
    made = make(a=[[ENGLISH.format(number)] for number in range(4)])
    _, whole = run(made, tmp_path, "whole")
    (tmp_path / "out-parts").mkdir()
    kept = [tmp_path / "whole-parts" / f"a-00000.{kind}" for kind in ("judged.parquet", "near.npy")]
    for path in kept:
        (tmp_path / "out-parts" / path.name).write_bytes(path.read_bytes())
    before = [(tmp_path / "out-parts" / path.name).stat().st_mtime_ns for path in kept]
    _, out = run(made, tmp_path)
    assert [(tmp_path / "out-parts" / path.name).stat().st_mtime_ns for path in kept] == before
    assert content(whole) == content(out)


def test_one_group_and_many_give_the_same_documents(make: Any, tmp_path: Path) -> None:
    settings, files = make(a=[[ENGLISH.format(number), ENGLISH.format(number + 1)] for number in range(4)])
    _, many = run((settings, files), tmp_path, "many")
    _, one = run((settings.model_copy(update={"group_bytes": 1 << 30}), files), tmp_path, "one")
    assert pq.read_table(many / "a.parquet").equals(pq.read_table(one / "a.parquet"))


def test_a_damaged_file_stops_the_run_or_is_counted(make: Any, tmp_path: Path) -> None:
    settings, files = make(a=[[ENGLISH.format(1)], [ENGLISH.format(2)]])
    files["a"][1].path.write_bytes(ENGLISH.format(2).encode() + b"\n\xff\xfe")
    with pytest.raises(UserError, match=r"source a: a-1\.txt: not UTF-8 text at byte"):
        run((settings, files), tmp_path)
    funnel, out = run((settings.model_copy(update={"on_damaged_file": "skip"}), files), tmp_path, "skip")
    assert funnel["dropped"]["a"] == {"not UTF-8": 1} and funnel["sources"]["a"]["kept"]["documents"] == 2
    assert pq.read_table(out / "dropped.parquet")["offset"].to_pylist() == [
        len(ENGLISH.format(2).encode()) + 1
    ]
    files["a"][1].path.write_bytes(b"\x1f\x8b\x08 no gzip")
    funnel, out = run((settings.model_copy(update={"on_damaged_file": "skip"}), files), tmp_path, "damaged")
    assert funnel["dropped"]["a"] == {"damaged file": 1}
    assert "gzip stream is damaged" in pq.read_table(out / "dropped.parquet")["detail"].to_pylist()[0]


def test_the_memory_told_holds_what_is_seen_under_ccnet_and_then_under_c4(make: Any) -> None:
    settings, _ = make(a=[[]], b=[[]])
    without = merge.memory_bytes(settings)
    a, b = settings.sources
    for changed in ([{"c4": True}, {}], [{}, {"ccnet": "on"}], [{"c4": True}, {"ccnet": "on", "c4": True}]):
        sources = tuple(
            source.model_copy(update=change) for source, change in zip((a, b), changed, strict=True)
        )
        assert (
            merge.memory_bytes(settings.model_copy(update={"sources": sources}))
            == without + settings.line_memory_bytes
        )


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
    settings = CorpusSettings.model_validate({"sources": listed, "workers": 1, "on_damaged_file": "skip"})
    funnel, out = run((settings, files), tmp_path)
    assert funnel["dropped"]["a"] == {"damaged gzip member": 1, "damaged file": 1}
    assert funnel["sources"]["a"]["found"]["documents"] == 4
    (last,) = [
        row for row in pq.read_table(out / "dropped.parquet").to_pylist() if row["reason"] == "damaged file"
    ]
    assert (last["url"], last["offset"]) == ("http://a.example/3", path.stat().st_size - len(whole[3]) + 30)
    with pytest.raises(UserError, match="ends early"):
        run((settings.model_copy(update={"on_damaged_file": "stop"}), files), tmp_path, "stop")


def test_a_file_without_records_is_named(make: Any, tmp_path: Path) -> None:
    settings, files = make(a=[[ENGLISH.format(1)], [""], [ENGLISH.format(2)]])
    funnel, _ = run((settings.model_copy(update={"group_bytes": 1 << 30}), files), tmp_path)
    assert funnel["sources"]["a"]["found"]["documents"] == 3 and funnel["dropped"]["a"] == {
        "nothing in the file": 1
    }


def test_a_corpus_without_documents_is_an_error_with_its_reasons(make: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no document is left of source b \(1 too short\)"):
        run(make(b=[["short"]]), tmp_path)


WIKI = (
    "<mediawiki><siteinfo><base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>"
    + "".join(
        f"<page><title>{title}</title><ns>{ns}</ns><revision><text>{ENGLISH.format(title)}</text></revision></page>"
        for title, ns in (("Kept", 0), ("Gone", 0), ("Gone talk", 1))
    )
    + "</mediawiki>"
)
ROWS = [{"content": f"def {name}():\n    return {name!r}\n" * 9, "path": f"{name}.py", "repo_name": "r/r", "license": "mit"}
        for name in ("kept", "gone")]  # fmt: skip
PATTERNS = "refused.org/*\nen.wikipedia.org/wiki/Gone*\ngithub.com/r/r/blob/HEAD/gone*\n"


@pytest.mark.parametrize(
    ("reader", "module", "extractor", "name", "content"),
    [
        ("warc", "warc", "page_text", "a.warc", archive()),
        ("wikipedia", "wikipedia", "plain", "a.xml", WIKI.encode()),
        ("github", "source_file", "judge", "a.jsonl", "\n".join(map(json.dumps, ROWS)).encode()),
    ],
)
def test_the_text_of_a_refused_page_is_never_taken_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reader: str,
    module: str,
    extractor: str,
    name: str,
    content: bytes,
) -> None:
    """And what is told of it is as if it had been refused after that."""
    found = importlib.import_module(f"puna.corpus.readers.{module}")
    extract = getattr(found, extractor)
    seen: list[str] = []

    def recorded(raw: Any, *rest: Any) -> Any:
        seen.append(raw if isinstance(raw, str) else raw.decode())
        return extract(raw, *rest)

    monkeypatch.setattr(found, extractor, recorded)
    (tmp_path / name).write_bytes(content)
    (tmp_path / "patterns.txt").write_text(PATTERNS)
    source = {"name": "s", "reader": reader, "uris": ["*"], "languages": []}
    settings = CorpusSettings.model_validate(
        {"sources": [source], "workers": 1, "opt_out": {"patterns": "patterns.txt"}, "minimum_characters": 9}
    )
    files = {"s": [RawFile("s", name, str(tmp_path / name), "", len(content))]}
    results = []
    for asks_first in (steps.ASKS_FIRST, ()):
        monkeypatch.setattr(steps, "ASKS_FIRST", asks_first)
        out = tmp_path / f"out-{len(asks_first)}"
        out.mkdir()
        funnel = merge.documents(settings, files, tmp_path / f"parts-{len(asks_first)}", out, quiet, tmp_path)
        results.append(
            (
                funnel,
                pq.read_table(out / "dropped.parquet").to_pylist(),
                pq.read_table(out / "s.parquet").to_pylist(),
                seen[:],
            )
        )
        seen.clear()
    (funnel, *first, few), (again, *second, more) = results
    assert funnel == again and first == second
    assert (
        funnel["dropped"]["s"]["opt-out: URL pattern"] >= 1
        and funnel["sources"]["s"]["kept"]["documents"] == 1
    )
    assert len(few) == 1 and len(more) == 2 and not any("gone" in text.lower() for text in few)


@given(st.text(alphabet=st.characters(codec=None)))
def test_clean_text_has_no_control_characters_and_is_stable(text: str) -> None:
    once = steps.clean(text)
    assert steps.clean(once) == once
    once.encode("utf-8")
    assert not any(ord(character) < 32 and character not in "\n\t" for character in once)
    assert not any(line != line.rstrip() for line in once.split("\n"))


@given(st.text(alphabet="ab \t\n\r\x0b\x1c\x85\u2003é中\ud800", max_size=200), st.integers(1, 60))
def test_text_cleaned_in_pieces_is_the_same(text: str, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "PIECE", piece)
        assert steps.clean(text) == steps._clean_lines(text).strip("\n")


def test_every_white_space_at_a_line_end_goes() -> None:
    spaces = [
        chr(code) for code in range(0x110000) if chr(code).isspace() and chr(code) != "\n" and code > 31
    ]
    assert steps.clean("".join(f"a{space}\n" for space in spaces)) == "\n".join("a" * len(spaces))


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 60))
def test_groups_keep_order_and_size(sizes: list[int], room: int) -> None:
    files = [RawFile("s", str(number), "", "", size) for number, size in enumerate(sizes)]
    cut = list(steps.groups(iter(files), room))
    assert [file for group in cut for file in group] == files
    assert all(group and (len(group) == 1 or sum(file.bytes for file in group) <= room) for group in cut)


def test_groups_of_tiny_files_have_not_too_many() -> None:
    files = [RawFile("s", str(number), "", "", number % 2) for number in range(2500)]
    assert [len(group) for group in steps.groups(files, 1000 * steps.FILE_BYTES)] == [1000, 1000, 500]


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.sampled_from([(), (3,)]),
    st.sampled_from(["uint64", "uint32", "bool"]),
)
def test_an_array_written_in_pieces_is_the_array(
    counts: list[int], width: tuple[int, ...], kind: str
) -> None:
    pieces = [np.arange(count * (width or (1,))[0]).astype(kind).reshape(count, *width) for count in counts]
    with tempfile.TemporaryDirectory() as folder:
        with steps.Array(Path(folder) / "a.npy") as array:
            for piece in pieces:
                array.add(piece)
        np.save(Path(folder) / "b.npy", np.concatenate(pieces))
        assert (Path(folder) / "a.npy").read_bytes() == (Path(folder) / "b.npy").read_bytes()


def test_an_array_that_is_not_whole_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), steps.Array(tmp_path / "a.npy") as array:
        array.add(np.zeros((1, 2)))
        raise KeyboardInterrupt
    assert not (tmp_path / "a.npy").exists()


def test_files_of_a_group_lie_on_disk_whatever_their_names(make: Any, tmp_path: Path) -> None:
    settings, _ = make(a=[["x"]])
    files = [
        RawFile("a", name, f"/{name}", "unreadable: no", 3)
        for name in ("é 漢\u2028", 'quo"te', "back\\slash", "not\udcffutf-8")
    ]
    group = steps.Group(settings.sources[0], settings, 0, tmp_path, tmp_path).with_files(files)
    assert group.files == files and len(pickle.dumps(group)) == len(
        pickle.dumps(group.with_files(files * 1000))
    )


def test_files_are_taken_one_by_one(make: Any, tmp_path: Path) -> None:
    """So that no list of millions is ever held: of those taken before, a group's at most are alive."""
    settings, files = make(a=[[ENGLISH.format(number)] for number in range(40)])
    alive: list[int] = []

    class Counted(RawFile):
        __slots__ = ("__weakref__",)

    def one_by_one() -> Iterator[RawFile]:
        seen: list[weakref.ref[Counted]] = []
        for file in files["a"]:
            counted = Counted(file.source, file.name, file.where, file.digest, file.bytes)
            seen.append(weakref.ref(counted))
            yield counted
            del counted
            alive.append(sum(reference() is not None for reference in seen))

    (tmp_path / "out").mkdir()
    room = settings.model_copy(update={"group_bytes": 5 * steps.FILE_BYTES})
    funnel = merge.documents(room, {"a": one_by_one()}, tmp_path / "parts", tmp_path / "out", quiet)
    assert funnel["sources"]["a"]["found"]["documents"] == 40 and max(alive) <= 11


@pytest.mark.parametrize("where", ["corpus", "source"])
def test_a_language_that_the_model_does_not_have_is_told(where: str) -> None:
    source: dict[str, Any] = {"name": "a", "reader": "lines", "uris": ["a.txt"]}
    codes = {"languages": ["en", "eng"]}
    with pytest.raises(ValidationError, match="'eng' is no code of the language model; did you mean en"):
        CorpusSettings.model_validate(
            {"sources": [source | codes]} if where == "source" else {"sources": [source], **codes}
        )


def test_kept_documents_are_found_by_their_ids_over_files_and_row_groups(tmp_path: Path) -> None:
    rows = [
        {"id": digest(str(n)), "source": f"s{n % 2}", "url": f"u{n}", "file": "f", "offset": n}
        for n in range(40)
    ]
    for source in ("s0", "s1"):
        own = [{**dict.fromkeys(document_schema().names), **row} for row in rows if row["source"] == source]
        pq.write_table(
            pa.Table.from_pylist(own, schema=document_schema()),
            tmp_path / f"{source}.parquet",
            row_group_size=3,
        )
    pq.write_table(
        pa.Table.from_pylist([{"id": digest("other"), "url": "wrong"}]), tmp_path / "dropped.parquet"
    )
    artifact.commit(
        tmp_path, tmp_path, stage="documents", fingerprint="0", inputs={}, metrics={"dropped": {"s0": {}}}
    )
    wanted = [row for row in rows if row["offset"] in (0, 7, 38, 39)]
    repeats = [{"reason": "exact duplicate", "detail": f"of {row['id']}"} for row in wanted]
    others = [
        {"reason": reason, "detail": f"of {digest(reason)}"}
        for reason in ("exact duplicate", "near duplicate", "too short")
    ]
    found = inspect.kept_places(tmp_path, repeats + others)
    assert (
        found.pop((digest("exact duplicate"), "exact duplicate"))["kept"] == "nowhere: it was dropped itself"
    )
    assert found.pop((digest("near duplicate"), "near duplicate")) == {
        "kept": "in an earlier run",
        **dict.fromkeys(["source", "url", "file", "offset"]),
    }
    assert found == {
        (row["id"], "exact duplicate"): {
            "kept": "in this run",
            **{key: row[key] for key in ("source", "url", "file", "offset")},
        }
        for row in wanted
    }
