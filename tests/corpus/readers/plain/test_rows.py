"""Rows of JSON and Parquet in every form in which people publish them."""

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.corpus.readers.plain import jsonl, lines, stackexchange
from puna.corpus.readers.wiki import wikipedia
from puna.corpus.record import RawDocument, SkippedRecord
from puna.corpus.sources import streams

ROWS = [{"text": f"Llama {number} – π\nagain"} for number in range(4)]
TEXTS = [row["text"] for row in ROWS]


def read(path: Path) -> list[str]:
    """The texts of a file, and the reasons for what has none."""
    return [item.text if isinstance(item, RawDocument) else item.reason for item in jsonl.read(path)]


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "a.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS, indent=2),
        json.dumps(ROWS, indent="\t", ensure_ascii=False),
        json.dumps(ROWS),
        "\n\n" + json.dumps(ROWS, indent=1),
        "\ufeff" + json.dumps(ROWS, indent=2),
        json.dumps({"data": ROWS, "version": 1}, indent=2),
        json.dumps({str(number): row for number, row in enumerate(ROWS)}, indent=2),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        "[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n",
        "[" + ",\n".join(json.dumps(row) for row in ROWS) + "]",
        "\n".join(json.dumps(row) for row in ROWS),
        json.dumps(ROWS[:2]) + "\n" + json.dumps(ROWS[2:]),
        gzip.compress(json.dumps(ROWS, indent=2).encode(), mtime=0),
    ],
)
def test_json_over_lines_in_lists_and_in_objects_is_read(tmp_path: Path, content: str | bytes) -> None:
    assert read(written(tmp_path, content)) == TEXTS


def test_one_value_that_is_no_row_or_damaged_is_one_reason(tmp_path: Path) -> None:
    assert read(written(tmp_path, json.dumps(ROWS, indent=2)[:-20])) == [*TEXTS[:3], "not valid JSON"]
    assert read(written(tmp_path, '{\n "a": 1,\n "b": [\n  {"c": 2}\n ]\n}')) == ["no text"]
    assert read(written(tmp_path, "{\n  nothing\n  of it\n}")) == ["not valid JSON"]
    assert read(written(tmp_path, b'[\n {"text": "a"},\n {"text": "\xff"}\n]')) == ["not UTF-8"]


def test_a_damaged_line_among_lines_costs_that_line_alone(tmp_path: Path) -> None:
    content = '{"text": "broken\n{"text": "b"}\n[{"text": "c"}]\n{\n'
    assert read(written(tmp_path, content)) == ["not valid JSON", "b", "c", "not valid JSON"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5), st.sampled_from([None, 0, 3]))
def test_any_texts_in_any_layout(tmp_path: Path, texts: list[str], indent: int | None) -> None:
    rows = [{"text": text, "meta": {"n": [1, {"x": None}]}} for text in texts]
    expected = [RawDocument("", text, 0, "").text for text in texts]
    found = list(jsonl.read(written(tmp_path, json.dumps(rows, indent=indent))))
    assert [item.text for item in found if isinstance(item, RawDocument)] == expected


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())],
)
def test_parquet_texts_of_any_type(tmp_path: Path, kind: Any) -> None:
    values: list[Any] = [text.encode() for text in TEXTS] if "binary" in str(kind) else TEXTS
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array(values).cast(kind)}), path)
    assert read(path) == TEXTS


def test_parquet_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([b"good", b"\xff\xfe", None])}), path)
    assert read(path) == ["good", "not UTF-8", "no text"]


def test_what_is_too_large_is_passed_over_by_every_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LARGEST_RECORD", 100_000)
    monkeypatch.setattr(streams, "CHUNK", 10_000)
    large, too_large = "x" * 400_000, streams.TOO_LARGE
    small = json.dumps({"text": "a"})
    for rows in (
        [small, json.dumps({"text": large}), small],
        ["[", small + ",", small, "]"],
    ):
        found = read(written(tmp_path, "\n".join(rows)))
        assert found == (["a", too_large, "a"] if len(rows) == 3 else ["a", "a"])
    assert read(written(tmp_path, json.dumps([{"text": "a"}] * 40_000))) == ["a"] * 40_000
    assert read(written(tmp_path, json.dumps([{"text": "a"}, {"text": large}], indent=1))) == ["a", too_large]
    path = written(tmp_path, f"a\n{large}\nb\n{large}")
    reasons = [item.reason if isinstance(item, SkippedRecord) else item.text for item in lines.read(path)]
    assert reasons == ["a", too_large, "b", too_large]
    assert [offset for offset, _ in streams.lines(path)] == [0, 2, 400_003, 400_005]
    pq.write_table(pa.table({"text": ["a", large, "b"]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["a", too_large, "b"]


def test_xml_texts_and_attributes_that_are_too_large_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LARGEST_RECORD", 100_000)
    monkeypatch.setattr(streams, "CHUNK", 10_000)
    large = "word " * 100_000
    page = "<page><title>{}</title><ns>0</ns><revision><text>{}</text></revision></page>"
    path = tmp_path / "dump.xml"
    pages = (page.format("A", "One."), page.format("B", large), page.format("C", "Two."))
    path.write_text(f"<mediawiki>{''.join(pages)}</mediawiki>")
    found = [item.reason if isinstance(item, SkippedRecord) else item.title for item in wikipedia.read(path)]
    assert found == ["A", streams.TOO_LARGE, "C"]
    post = "<row Id='{}' PostTypeId='{}' ParentId='{}' Score='1' Title='T' Body='{}' Last='x' />"
    rows = [post.format(1, 1, "", "Why?"), post.format(2, 2, 1, large), post.format(3, 2, 1, "So.")]
    path.write_text(f"<posts>\n{' '.join(rows)}\n</posts>")
    items = list(stackexchange.read(path))
    assert sorted(type(item).__name__ for item in items) == ["RawDocument", "SkippedRecord"]
    assert any(isinstance(item, SkippedRecord) and item.reason == streams.TOO_LARGE for item in items)


PEAK = """
import resource, sys
from pathlib import Path
import numpy, pyarrow.parquet
from puna.corpus.engine import prepare
from puna.corpus.readers.plain import jsonl
prepare()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for item in jsonl.read(Path(sys.argv[1])):
    print(getattr(item, "reason", "") or item.text)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("alone", "most"), [(True, 0.1), (False, 3.2)])
def test_a_value_of_parquet_that_is_passed_over_takes_bounded_memory(
    tmp_path: Path, alone: bool, most: float
) -> None:
    large = random.Random(1).randbytes(45_000_000).hex()
    rows = pa.table({"text": ["a", large, "b"]})
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=1 if alone else 3)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "a.parquet")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    *told, kilobytes = result.stdout.split("\n")[:-1]
    assert told == ["a", streams.TOO_LARGE, "b"]
    assert int(kilobytes) * 1024 < most * len(large) + 10_000_000
