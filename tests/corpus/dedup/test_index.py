import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.corpus.dedup import index, near
from puna.corpus.dedup.index import Index
from puna.errors import UserError
from puna.run import files

from .test_near import jaccard, pairs

K = 32


def made_up(groups: list[tuple[int, int]]) -> np.ndarray:
    """Signatures of documents (group, places changed): those of one group agree in all but those places."""
    rows = []
    for number, (group, changed) in enumerate(groups):
        row = np.random.default_rng(group).integers(0, 2**32 - 1, K, np.uint32)
        at = np.random.default_rng(1000 + number).permutation(K)[:changed]
        row[at] = np.random.default_rng(2000 + number).integers(0, 2**32 - 1, changed, np.uint32)
        rows.append(row)
    return np.array(rows, np.uint32).reshape(-1, K)


def naive(signatures: np.ndarray, bands: int, rows: int, most: int, needed: int) -> list[int]:
    """One document at a time, with Python's dictionaries."""
    buckets: dict[tuple, list[int]] = {}
    answers = []
    for number, row in enumerate(signatures):
        keys = [(band, *row[band * rows : (band + 1) * rows].tolist()) for band in range(bands)]
        candidates = sorted({other for key in keys for other in buckets.get(key, [])})
        same = [other for other in candidates if ((signatures[other] & 255) == (row & 255)).sum() >= needed]
        answers.append(same[0] if same else -1)
        if not same and (row != 2**32 - 1).any():
            for key in keys:
                bucket = buckets.setdefault(key, [])
                if len(bucket) < most:
                    bucket.append(number)
    return answers


def test_the_answers_depend_on_the_order_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(index, "MERGE_AT_ONCE", 16)
    monkeypatch.setattr(index, "PAIRS_AT_ONCE", 8)
    monkeypatch.setattr(index, "FAN_OUT", 3)
    monkeypatch.setattr(index, "MOST_IN_BUCKET", 2)
    folders = iter(range(10**6))

    @settings(max_examples=60)
    @given(
        st.lists(
            st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 4, 8, 12, 16])), min_size=1, max_size=40
        ),
        st.lists(st.integers(0, 40), max_size=12),
        st.integers(0, 40),
    )
    def check(groups: list[tuple[int, int]], cuts: list[int], empty: int) -> None:
        signatures = made_up(groups)
        signatures[empty : empty + 2] = near.EMPTY
        ids = [f"é{number}" for number in range(len(groups))]
        ours = Index(tmp_path / str(next(folders)), K, 0.75)
        places = sorted({0, len(ids), *(min(at, len(ids)) for at in cuts)})
        found = [ours.add(ids[a:b], signatures[a:b]) for a, b in itertools.pairwise(places)]
        expected = naive(signatures, ours.bands, ours.rows, 2, ours.needed)
        assert np.concatenate(found).tolist() == expected
        assert ours.documents == len(ids) and ours.answers(0, len(ids)).tolist() == expected
        assert ours.ids(range(len(ids))) == ids

    check()


def test_near_duplicates_are_found_as_the_exact_index_says(tmp_path, data) -> None:
    made = pairs(data, 2500)
    ours = Index(tmp_path)
    first, second = ([f"{name}{at}" for at in range(len(made))] for name in "ab")
    kept = ours.add(first, near.signatures([a for a, _ in made])) < 0  # some pieces overlap
    answers = ours.add(second, near.signatures([b for _, b in made]))[kept]
    exact = np.array([jaccard(*pair) for pair in made])[kept]
    duplicate, truth = answers >= 0, exact >= 0.8
    assert (answers[duplicate] == np.flatnonzero(kept)[duplicate]).mean() > 0.99
    assert duplicate[exact >= 0.9].mean() >= 0.99 and (exact >= 0.9).sum() > 100
    assert duplicate[exact <= 0.65].mean() <= 0.01 and (exact <= 0.65).sum() > 100
    hits = (duplicate & truth).sum()
    assert hits / truth.sum() > 0.9  # recall: half of the pairs at the very threshold are missed
    assert hits / duplicate.sum() > 0.9  # precision


ADD = """
import os, signal, sys
from pathlib import Path
import numpy as np
from puna.run import files
from puna.corpus.dedup import index
left = int(sys.argv[2])
def dying(call):
    def wrapped(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return wrapped
index.FAN_OUT = 2
index.sync = files.sync = dying(files.sync)
os.replace = dying(os.replace)
Path.unlink = dying(Path.unlink)
new = np.load(sys.argv[3])
ours = index.Index(Path(sys.argv[1]), new.shape[1], 0.75)
for start in range(0, len(new), 3):
    part = new[start : start + 3]
    ours.add([str(start + number) for number in range(len(part))], part)
ours.close()
"""


def test_what_a_killed_process_added_since_the_last_commit_leaves_no_trace(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(index, "FAN_OUT", 2)
    old, new = made_up([(group, 0) for group in range(6)]), made_up([(group, 2) for group in range(3, 12)])
    np.save(tmp_path / "new.npy", new)
    ids = [[str(number) for number in range(len(part))] for part in (old, new)]
    whole = Index(tmp_path / "whole", K, 0.75)
    expected = [whole.add(names, part).tolist() for names, part in zip(ids, (old, new), strict=True)]
    ends = []
    for step in range(40):
        folder = tmp_path / str(step)
        ours = Index(folder, K, 0.75)
        assert ours.add(ids[0], old).tolist() == expected[0]
        ours.commit()
        arguments = [sys.executable, "-c", ADD, str(folder), str(step), str(tmp_path / "new.npy")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        code = subprocess.run(arguments, env=environment, check=False).returncode
        assert code in (0, -signal.SIGKILL)
        ends.append((code, ours.documents))
        if ours.documents == 6:
            assert ours.answers(0, 99).tolist() == expected[0]
            assert ours.add(ids[1], new).tolist() == expected[1]
            ours.commit()
        assert (
            Index(folder, K, 0.75).documents == ours.documents == 15
            and ours.answers(6, 15).tolist() == expected[1]
        )
        again = ours.add(["a", "b"], new[-2:])
        assert again.tolist() == [13, 14]
        ours.close()
        assert {path.name for path in folder.glob("run-*")} == {run["name"] for run in ours._state()["runs"]}
        if code == 0:
            break
    assert ends[-1] == (0, 15) and len(ends) > 8
    assert (-signal.SIGKILL, 6) in ends and (-signal.SIGKILL, 15) in ends


def test_the_disk_is_waited_for_at_a_commit_alone(tmp_path, monkeypatch) -> None:
    synced: list[str] = []
    for module in (index, files):
        monkeypatch.setattr(module, "sync", lambda path: synced.append(path.name))
    ours = Index(tmp_path, K, 0.75)
    synced.clear()
    for number in range(40):
        ours.add([str(number)], made_up([(number, 0)]))
    assert not synced and Index(tmp_path, K, 0.75).documents == 0
    ours.commit()
    runs = [run["name"] for run in ours._state()["runs"]]
    grown = ["signatures.bin", "answers.bin", "ids.bin", "ends.bin"]
    assert synced == [*grown, *runs, tmp_path.name, f"{index.STATE}.part", tmp_path.name] and len(runs) == 5
    synced.clear()
    ours.add(["40"], made_up([(40, 0)]))
    ours.commit()
    assert synced[4] == ours._state()["runs"][-1]["name"] and len(synced) == 8


def test_what_nobody_committed_keeps_others_from_adding(tmp_path) -> None:
    ours, other = Index(tmp_path, K, 0.75), Index(tmp_path, K, 0.75)
    ours.add(["a"], made_up([(0, 0)]))
    with pytest.raises(UserError, match="another run is at work"):
        other.add(["b"], made_up([(1, 0)]))
    ours.commit()
    assert other.add(["b", "c"], made_up([(1, 0), (0, 0)])).tolist() == [-1, 0]


def test_the_last_commit_can_be_taken_back(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(index, "FAN_OUT", 2)
    ours = Index(tmp_path, K, 0.75)
    ours.add(["a"], made_up([(0, 0)]))
    first = ours.commit()
    for number in range(1, 6):  # the first run is merged into others
        ours.add([str(number)], made_up([(number, 0)]))
    ours.commit()
    index.restore(tmp_path, first)
    again = Index(tmp_path, K, 0.75)
    assert again.documents == 1 and again.add(["b", "c"], made_up([(0, 0), (1, 0)])).tolist() == [0, -1]
    again.close()
    assert again.answers(0, 9).tolist() == [-1, 0, -1]
    assert sorted(path.name for path in tmp_path.glob("*.bin")) == sorted(path.name for path in again.files())


def test_the_folder_is_as_large_as_stated(tmp_path) -> None:
    ours = Index(tmp_path)
    signatures = np.random.default_rng(0).integers(0, 2**32 - 1, (300, 128), np.uint32)
    signatures[200:] = signatures[:100]
    for start in range(0, 300, 20):
        ours.add([f"{at:032d}" for at in range(start, start + 20)], signatures[start : start + 20])
    assert (ours.answers(0, 300) >= 0).sum() == 100
    ours.close()
    files = sum(path.stat().st_size for path in tmp_path.glob("*.bin"))
    assert files == 300 * (128 + 16 + 32) + 12 * 200 * 16


def test_what_does_not_fit_is_refused(tmp_path) -> None:
    ours = Index(tmp_path / "index", K, 0.75)
    ours.add(["a"], made_up([(0, 0)]))
    ours.commit()
    with pytest.raises(UserError, match=r"uint32 \[2, 32\], one row for each id, not uint32 \[1, 32\]"):
        ours.add(["a", "b"], made_up([(0, 0)]))
    with pytest.raises(UserError, match=r"was made with threshold 0.75, not threshold 0.8; use those"):
        Index(tmp_path / "index", K, 0.8)
    with pytest.raises(UserError, match="threshold above 0"):
        Index(tmp_path / "other", K, 0)
    os.truncate(tmp_path / "index" / "signatures.bin", 3)
    with pytest.raises(UserError, match=r"signatures.bin is cut short; remove the folder"):
        Index(tmp_path / "index", K, 0.75)
    (tmp_path / "index" / index.STATE).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        Index(tmp_path / "index", K, 0.75)


def test_a_full_disk_leaves_the_index_as_it_was(tmp_path, monkeypatch) -> None:
    ours = Index(tmp_path, K, 0.75)
    ours.add(["a"], made_up([(0, 0)]))
    ours.commit()

    def full(path: Path, content: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(index, "write_atomically", full)
        with pytest.raises(UserError, match=r"No space left on device; what it held before is whole"):
            ours.add(["b"], made_up([(1, 0)]))
            ours.commit()
    assert ours.documents == 1
    assert ours.add(["c", "d"], made_up([(1, 0), (0, 0)])).tolist() == [-1, 0]
