"""An index of near-duplicates on disk: of all sources' documents, for each the earlier one that it repeats.

Documents are numbered as they are added. A document is compared with the kept documents before it (those that
were no duplicates themselves), so what is dropped always resembles something that stays, and chains of small
changes do not drift away. Of several the first is named. The answers depend on the order of the documents
alone, not on how they are cut into calls.

What was added becomes durable by `commit`, in one piece: every file is synced to disk, and last of all
index.json is replaced. What a killed process added after that leaves no trace.

In the folder:
  index.json         settings, how many documents count, and which runs
  signatures.bin     the lowest byte of each value of a signature, uint8 [documents, k] (b-bit MinHash: Li and
                     König 2010)
  answers.bin        int64 [documents]: the number of the document that this one repeats, or -1
  ids.bin, ends.bin  the ids one after the other in UTF-8, and where each ends, int64 [documents]
  run-<n>.bin        sorted band keys of kept documents, uint64, then the documents' numbers, uint32, both
                     [entries]; eight runs of a level are merged into one of the next

Cost for n documents, d of them kept, B bands, k values a signature, ids of i bytes: n (k + 16 + i) + 12 d B
bytes on disk, twice the second term while the last level is merged; with the defaults 368 bytes a document,
so a billion documents of 32-byte ids take 368 GB, and 560 GB for a while. Memory: about 1.7 KB for each
document of one call, beside the caller's signatures, and 50 MB for merging. A call reads one page of each run
for each of its keys, at most the whole runs: so at a billion documents add a million at a time.
"""

import contextlib
import copy
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus.dedup import near
from puna.corpus.funnel import NEAR
from puna.corpus.record import Record
from puna.errors import UserError
from puna.run.files import locked, sync, write_atomically
from puna.text.hashing import encode, mix

FORMAT = 1
STATE = "index.json"
FAN_OUT = 8
# Kept documents under one key: a key that more share is boilerplate, and comparing all would be quadratic.
MOST_IN_BUCKET = 100
PAIRS_AT_ONCE = 1 << 18
MERGE_AT_ONCE = 1 << 20
MOST_DOCUMENTS = 1 << 32


@dataclass(frozen=True)
class NearDuplicates:
    """Step: drop what is nearly a document that the index knows; it comes to know the others."""

    index: "Index"

    def apply(self, records: list[Record]) -> None:
        signatures = np.stack([record.signature for record in records])
        earlier = self.index.add([record.id for record in records], signatures)
        repeats = np.flatnonzero(earlier >= 0)
        for number, identity in zip(repeats.tolist(), self.index.ids(earlier[repeats]), strict=True):
            records[number].drop(NEAR, f"of {identity}", identity)


def restore(folder: Path, state: dict[str, Any]) -> None:
    """Take the index in a folder back to the last commit but one, if nothing was added after the last.

    state: what that commit returned.
    """
    write_atomically(folder / STATE, json.dumps(state, indent=1) + "\n")


class Index:
    """The index in `folder`, made where there is none.

    k: values of a signature; threshold: least estimated Jaccard index. Raises UserError where the folder
    holds an index with other settings or of another format, or a damaged one.
    """

    def __init__(self, folder: Path, k: int = near.PERMUTATIONS, threshold: float = near.THRESHOLD) -> None:
        if not 0 < threshold <= 1 or k < 1:
            raise UserError(
                "near-duplicates need a threshold above 0 and up to 1 and at least one permutation, "
                f"not {threshold} and {k}"
            )
        self.folder, self.k, self.threshold = folder, k, threshold
        self.bands, self.rows = near.bands(k, threshold)
        self.needed = near.needed(k, threshold)
        self._added: dict[str, Any] | None = None  # the state with what was added since the last commit
        self._hold = contextlib.ExitStack()  # of the folder, meanwhile
        if not (folder / STATE).exists():
            with locked(folder), _disk_errors(folder):
                if not (folder / STATE).exists():
                    empty = {"documents": 0, "id_bytes": 0, "next_run": 0, "runs": []}
                    self._write({**self._settings(), **empty})
        self._committed()

    def _settings(self) -> dict[str, Any]:
        return {"format": FORMAT, "k": self.k, "threshold": self.threshold}

    def _state(self) -> dict[str, Any]:
        return self._added or self._committed()

    def _committed(self) -> dict[str, Any]:
        try:
            state = json.loads((self.folder / STATE).read_bytes())
            other = {key: state[key] for key, value in self._settings().items() if state[key] != value}
            if not other:
                wanted = {name: size for name, (_, size) in self._files(state).items()}
                wanted |= {run["name"]: 12 * run["entries"] for run in state["runs"]}
                sizes = {name: (self.folder / name).stat().st_size for name, size in wanted.items() if size}
                short = [name for name, size in sizes.items() if size < wanted[name]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"the index of near-duplicates in {self.folder} is damaged ({error}); "
                "remove the folder and build it again"
            ) from error
        if other:
            theirs = ", ".join(f"{key} {value}" for key, value in other.items())
            ours = ", ".join(f"{key} {self._settings()[key]}" for key in other)
            raise UserError(
                f"the index in {self.folder} was made with {theirs}, not {ours}; "
                "use those settings, or another folder"
            )
        if short:
            raise UserError(
                f"the index of near-duplicates in {self.folder} is damaged: {short[0]} is cut short; "
                "remove the folder and build it again"
            )
        return state

    def _files(self, state: dict[str, Any]) -> dict[str, tuple[type, int]]:
        """Files that only grow: type of their numbers, and bytes that count."""
        documents = state["documents"]
        return {
            "signatures.bin": (np.uint8, documents * self.k),
            "answers.bin": (np.int64, documents * 8),
            "ids.bin": (np.uint8, state["id_bytes"]),
            "ends.bin": (np.int64, documents * 8),
        }

    def _write(self, state: dict[str, Any]) -> None:
        write_atomically(self.folder / STATE, json.dumps(state, indent=1) + "\n")
        sync(self.folder)

    def commit(self) -> dict[str, Any]:
        """Make durable what was added, and let go of the folder. Returns what index.json holds now.

        Runs that were merged into others since the last commit count no more; they stay until the next `add`
        or `close`, for who has to go back to the state before (`restore`).
        """
        state, self._added = self._added, None
        if state:
            with self._hold, _disk_errors(self.folder):
                known = self._committed()["runs"]
                runs = [run["name"] for run in state["runs"] if run not in known]
                for name in (*self._files(state), *runs):
                    sync(self.folder / name)
                sync(self.folder)
                self._write(state)
        return self._committed()

    def close(self) -> None:
        """Commit, and remove what counts no more."""
        state = self.commit()
        with locked(self.folder), _disk_errors(self.folder):
            self._remove_unfinished(state, state)

    def files(self) -> list[Path]:
        """Paths of what counts, without index.json."""
        state = self._state()
        grown = [name for name, (_, size) in self._files(state).items() if size]
        return [self.folder / name for name in (*grown, *(run["name"] for run in state["runs"]))]

    @property
    def documents(self) -> int:
        """Number of documents added: an interrupted run continues with the document of this number."""
        return self._state()["documents"]

    def _grown(self, state: dict[str, Any], name: str) -> Any:
        kind, size = self._files(state)[name]
        return _mapped(self.folder / name, kind, 0, size // np.dtype(kind).itemsize)

    def answers(self, start: int, stop: int) -> Any:
        """Answers of `add` for documents start to stop - 1, int64."""
        return np.array(self._grown(self._state(), "answers.bin")[start:stop])

    def ids(self, documents: Any) -> list[str]:
        """Ids of the documents with these numbers."""
        state = self._state()
        ends, text = self._grown(state, "ends.bin"), self._grown(state, "ids.bin")
        ids = []
        for document in np.asarray(documents).tolist():
            start = ends[document - 1] if document else 0
            ids.append(text[start : ends[document]].tobytes().decode("utf-8", "surrogatepass"))
        return ids

    def add(self, ids: list[str], signatures: Any) -> Any:
        """Add documents with these signatures (uint32 [n, k]): all, or none when out of disk.

        They are durable after `commit`; until then nobody else may add to the folder.
        Returns int64 [n]: for each the number of the kept document before it with an estimated Jaccard index
        of at least the threshold, or -1 where there is none, and for texts without words.
        """
        signatures = np.asarray(signatures)
        if signatures.shape != (len(ids), self.k) or signatures.dtype != np.uint32:
            raise UserError(
                f"the index takes signatures of uint32 [{len(ids)}, {self.k}], one row for each id, "
                f"not {signatures.dtype} {list(signatures.shape)}"
            )
        if not ids:
            return np.zeros(0, np.int64)
        if not self._added:
            self._hold.enter_context(locked(self.folder))
        try:
            with _disk_errors(self.folder):
                answers, self._added = self._add(ids, signatures)
        finally:
            if not self._added:
                self._hold.close()
        return answers

    def _add(self, ids: list[str], signatures: Any) -> tuple[Any, dict[str, Any]]:
        """Answers, and the state with these documents."""
        committed = self._committed()
        state = copy.deepcopy(self._added or committed)
        if state["documents"] + len(ids) > MOST_DOCUMENTS:
            raise UserError(
                f"the index in {self.folder} is full: it holds at most {MOST_DOCUMENTS} documents; "
                "begin another"
            )
        self._remove_unfinished(state, committed)
        small = signatures.astype(np.uint8)
        keys = self._keys(signatures)
        has_words = (signatures != near.EMPTY).any(1)
        answers, in_bucket = self._compare_with_runs(state, keys, small, has_words)
        entered = self._compare_in_call(keys, small, has_words, answers, in_bucket, state["documents"])
        self._append(state, ids, small, answers)
        at = np.flatnonzero(entered)
        order = at[np.argsort(keys.reshape(-1)[at], kind="stable")]
        if len(order):
            documents = (order // self.bands + (state["documents"] - len(ids))).astype(np.uint32)
            self._write_run(state, 0, iter([(keys.reshape(-1)[order], documents)]), len(order))
        self._merge(state)
        return answers, state

    def _keys(self, signatures: Any) -> Any:
        """Hash each band of each document, uint64 [n, bands]: equal for equal values of one band only."""
        values = signatures[:, : self.bands * self.rows].reshape(len(signatures), self.bands, self.rows)
        keys = np.broadcast_to(np.arange(self.bands, dtype=np.uint64), values.shape[:2])
        for row in range(self.rows):
            keys = mix(keys ^ values[:, :, row]) + np.uint64(row + 1)
        return keys

    def _runs(self, state: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
        for run in state["runs"]:
            path, entries = self.folder / run["name"], run["entries"]
            yield _mapped(path, np.uint64, 0, entries), _mapped(path, np.uint32, 8 * entries, entries)

    def _compare_with_runs(
        self, state: dict[str, Any], keys: Any, small: Any, has_words: Any
    ) -> tuple[Any, Any]:
        """Compare with the runs: first duplicate or -1 [n], its buckets' sizes [n, bands]."""
        answers = np.full(len(keys), -1, np.int64)
        in_bucket = np.zeros(keys.shape, np.int64)
        known = self._grown(state, "signatures.bin").reshape(-1, self.k)
        flat = keys.reshape(-1)
        order = np.argsort(flat)  # in order the runs are read from front to back
        for run_keys, run_documents in self._runs(state):  # in order: an earlier run's answer stays
            low = np.searchsorted(run_keys, flat[order], "left")
            counts = np.searchsorted(run_keys, flat[order], "right") - low
            in_bucket.reshape(-1)[order] += counts
            documents = order // self.bands
            asked = np.flatnonzero((counts > 0) & has_words[documents] & (answers[documents] < 0))
            pair_counts = np.cumsum(counts[asked])
            cuts = np.searchsorted(pair_counts, np.arange(PAIRS_AT_ONCE, counts[asked].sum(), PAIRS_AT_ONCE))
            first = np.full(len(keys), MOST_DOCUMENTS, np.int64)
            for chunk in np.split(asked, cuts):
                sizes = counts[chunk]
                entry = np.repeat(low[chunk] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
                pairs = np.unique(np.repeat(documents[chunk], sizes) * MOST_DOCUMENTS + run_documents[entry])
                document, earlier = pairs // MOST_DOCUMENTS, pairs % MOST_DOCUMENTS
                same = (known[earlier] == small[document]).sum(1) >= self.needed
                np.minimum.at(first, document[same], earlier[same])
            answers = np.where((answers < 0) & (first < MOST_DOCUMENTS), first, answers)
        return answers, in_bucket

    def _compare_in_call(
        self, keys: Any, small: Any, has_words: Any, answers: Any, in_bucket: Any, first: int
    ) -> Any:
        """Compare a call's documents in order; fill in `answers`; return which keys to enter [n, bands]."""
        entered = (in_bucket < MOST_IN_BUCKET) & (has_words & (answers < 0))[:, None]
        candidates = np.flatnonzero(has_words & (answers < 0))
        _, inverse, counts = np.unique(keys[candidates], return_inverse=True, return_counts=True)
        shared = (counts > 1)[inverse.reshape(len(candidates), self.bands)]
        buckets: dict[int, list[int]] = {}
        for document, mask in zip(candidates[shared.any(1)].tolist(), shared[shared.any(1)], strict=True):
            own = list(zip(np.flatnonzero(mask).tolist(), keys[document, mask].tolist(), strict=True))
            others = np.array(sorted({other for _, key in own for other in buckets.get(key, ())}), np.int64)
            same = others[(small[others] == small[document]).sum(1) >= self.needed]
            if len(same):
                answers[document] = first + same[0]
                entered[document] = False
                continue
            for band, key in own:
                bucket = buckets.setdefault(key, [])
                if in_bucket[document, band] + len(bucket) < MOST_IN_BUCKET:
                    bucket.append(document)
                else:
                    entered[document, band] = False
        return entered

    def _append(self, state: dict[str, Any], ids: list[str], small: Any, answers: Any) -> None:
        encoded = [encode(identity) for identity in ids]
        ends = np.cumsum([len(identity) for identity in encoded], dtype=np.int64) + state["id_bytes"]
        contents = {
            "signatures.bin": small,
            "answers.bin": answers,
            "ids.bin": b"".join(encoded),
            "ends.bin": ends,
        }
        for name, content in contents.items():
            with (self.folder / name).open("ab") as file:
                file.write(content if isinstance(content, bytes) else content.data)
        state["documents"] += len(ids)
        state["id_bytes"] = int(ends[-1])

    def _write_run(
        self, state: dict[str, Any], level: int, chunks: Iterator[tuple[Any, Any]], entries: int
    ) -> None:
        """Write a run from chunks of its keys and documents, in order, and add it to the state."""
        name = f"run-{state['next_run']:06d}.bin"
        with (self.folder / name).open("wb") as file:
            done = 0
            for keys, documents in chunks:
                file.seek(8 * done)
                file.write(keys.data)
                file.seek(8 * entries + 4 * done)
                file.write(documents.data)
                done += len(keys)
        state["next_run"] += 1
        state["runs"].append({"name": name, "level": level, "entries": entries})

    def _merge(self, state: dict[str, Any]) -> None:
        """Merge the last eight runs while they are of one level."""
        while len(state["runs"]) >= FAN_OUT and len({run["level"] for run in state["runs"][-FAN_OUT:]}) == 1:
            last = state["runs"][-FAN_OUT:]
            runs = list(self._runs({"runs": last}))
            del state["runs"][-FAN_OUT:]
            entries = sum(run["entries"] for run in last)
            self._write_run(state, last[0]["level"] + 1, _in_order(runs, entries), entries)

    def _remove_unfinished(self, *states: dict[str, Any]) -> None:
        """Remove what counts in none of the states: what a killed or failed `add` left, and merged runs."""
        for name, (_, size) in self._files(states[0]).items():
            path = self.folder / name
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)
        counted = {run["name"] for state in states for run in state["runs"]}
        for path in self.folder.glob("run-*.bin"):
            if path.name not in counted:
                path.unlink()


def _mapped(path: Path, kind: Any, offset: int, count: int) -> Any:
    return np.memmap(path, kind, "r", offset, (count,)) if count else np.zeros(0, kind)


def _in_order(runs: list[tuple[Any, Any]], entries: int) -> Iterator[tuple[Any, Any]]:
    """Yield all entries of the runs in order of keys, then of documents: a range of keys at a time.

    The runs themselves are in order of documents. Keys are evenly spread, so equal ranges of keys hold about
    equally many.
    """
    ranges = entries // MERGE_AT_ONCE + 1
    starts = [0] * len(runs)
    for number in range(1, ranges + 1):
        limit = np.uint64(number * (1 << 64) // ranges) if number < ranges else None
        ends = [len(keys) if limit is None else int(np.searchsorted(keys, limit)) for keys, _ in runs]
        cuts = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
        keys = np.concatenate([run[0][cut] for run, cut in zip(runs, cuts, strict=True)])
        documents = np.concatenate([run[1][cut] for run, cut in zip(runs, cuts, strict=True)])
        order = np.argsort(keys, kind="stable")
        yield keys[order], documents[order]
        starts = ends


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Raise UserError for the errors of the operating system inside."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the index of near-duplicates in {folder}: {error.strerror}; "
            "what it held before is whole"
        ) from error
