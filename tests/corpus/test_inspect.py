"""Where the documents are that dropped ones repeat."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from puna.corpus import inspect
from puna.corpus.record import digest, document_schema
from puna.run import artifact


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
    repeats = [{"reason": "exact duplicate", "repeats": row["id"]} for row in wanted]
    others = [
        *({"reason": reason, "repeats": digest(reason)} for reason in ("exact duplicate", "near duplicate")),
        {"reason": "too short", "repeats": ""},
        {"reason": "exact duplicate"},  # of a run of an older version
    ]
    found = inspect.kept_places(tmp_path, repeats + others)
    assert (
        found.pop((digest("exact duplicate"), "exact duplicate"))["kept"]
        == "in no file: the first of them was dropped by a later filter"
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
