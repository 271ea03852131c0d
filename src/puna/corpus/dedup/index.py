"""A folder that remembers the documents of all sources and finds the earlier one that a new one nearly
repeats.

Documents are numbered as they are added; that number is their place. A document is compared with the kept
documents before it (those that were no duplicates themselves), so what is dropped always resembles something
that stays, and chains of small changes do not carry away. Of several the first is named. The answers depend
on the order of the documents alone, not on how they are cut into calls.

In the folder:
  index.json       settings, how many documents count, and which runs: written last and in one rename, so a killed `add` never was
  signatures.bin   the lowest byte of each signature place, uint8 [documents, k] (b-bit MinHash: Li and König 2010)
  answers.bin      int64 [documents]: the place of the document it repeats, or -1
  ids.bin, ends.bin  the ids one after the other in UTF-8, and where each ends, int64 [documents]
  run-<n>.bin      band keys of kept documents in order, uint64, then their places, uint32, both [entries]; eight runs of a level
                   are merged into one of the next

Cost for n documents, d of them kept, B bands, k places, ids of i bytes: n (k + 16 + i) + 12 d B bytes on
disk, twice the second term while the last level is merged; with the defaults 368 bytes a document, so a
billion documents of 32-byte ids take 368 GB, and 560 GB for a while. Memory: about 1.7 KB for each document
of one call, beside the caller's signatures, and 50 MB for merging. A call reads one page of each run for each
of its keys, at most the whole runs: so at a billion documents add a million at a time.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus.dedup import near
from puna.errors import UserError
from puna.run.artifact import locked, sync, write_atomically
from puna.text.hashing import encode, mix

FORMAT = 1
STATE = "index.json"
FAN_OUT = 8
# kept documents under one key: a key that more share is boilerplate, and comparing with all would be
# quadratic
MOST_IN_BUCKET = 100
PAIRS_AT_ONCE = 1 << 18
MERGE_AT_ONCE = 1 << 20
MOST_DOCUMENTS = 1 << 32


class Index:
    """The index in `folder`, made where there is none. k: places of a signature; threshold: least estimated
    Jaccard index.

    Raises UserError where the folder holds an index with other settings or of another format, or a damaged
    one.
    """

    def __init__(self, folder: Path, k: int = near.PERMUTATIONS, threshold: float = near.THRESHOLD) -> None:
        if not 0 < threshold <= 1 or k < 1:
            raise UserError(
                f"near-duplicates need a threshold above 0 and up to 1 and at least one permutation, not {threshold} and {k}"
            )
        self.folder, self.k, self.threshold = folder, k, threshold
        self.bands, self.rows = near.bands(k, threshold)
        self.needed = near.needed(k, threshold)
        if not (folder / STATE).exists():
            with locked(folder), _told(folder):
                if not (folder / STATE).exists():
                    self._write(
                        {**self._settings(), "documents": 0, "id_bytes": 0, "next_run": 0, "runs": []}
                    )
        self._state()

    def _settings(self) -> dict[str, Any]:
        return {"format": FORMAT, "k": self.k, "threshold": self.threshold}

    def _state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.folder / STATE).read_bytes())
            other = {key: state[key] for key, value in self._settings().items() if state[key] != value}
            if not other:
                wanted = {name: size for name, (_, size) in self._files(state).items()}
                wanted |= {run["name"]: 12 * run["entries"] for run in state["runs"]}
                short = [
                    name
                    for name, size in wanted.items()
                    if size and (self.folder / name).stat().st_size < size
                ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"the index of near-duplicates in {self.folder} is damaged ({error}); remove the folder and build it again"
            ) from error
        if other:
            told = ", ".join(f"{key} {value}" for key, value in other.items())
            ours = ", ".join(f"{key} {self._settings()[key]}" for key in other)
            raise UserError(
                f"the index in {self.folder} was made with {told}, not {ours}; use those settings, or another folder"
            )
        if short:
            raise UserError(
                f"the index of near-duplicates in {self.folder} is damaged: {short[0]} is cut short; remove the folder and build it again"
            )
        return state

    def _files(self, state: dict[str, Any]) -> dict[str, tuple[type, int]]:
        """The files that only grow: type of their numbers, and bytes that count."""
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

    @property
    def documents(self) -> int:
        """How many documents were added: a run that was interrupted goes on with the document of this
        number."""
        return self._state()["documents"]

    def _grown(self, state: dict[str, Any], name: str) -> Any:
        kind, size = self._files(state)[name]
        return _mapped(self.folder / name, kind, 0, size // np.dtype(kind).itemsize)

    def answers(self, start: int, stop: int) -> Any:
        """What `add` said of documents start to stop - 1, int64."""
        return np.array(self._grown(self._state(), "answers.bin")[start:stop])

    def ids(self, places: Any) -> list[str]:
        """The ids of the documents at these places."""
        state = self._state()
        ends, text = self._grown(state, "ends.bin"), self._grown(state, "ids.bin")
        return [
            text[ends[place - 1] if place else 0 : ends[place]].tobytes().decode("utf-8", "surrogatepass")
            for place in np.asarray(places).tolist()
        ]

    def add(self, ids: list[str], signatures: Any) -> Any:
        """Add documents with these signatures (uint32 [n, k]); all of them or, when stopped or out of disk,
        none.

        Gives int64 [n]: for each the place of the kept document before it with an estimated Jaccard index of
        at least the threshold, or -1 where there is none, and for texts without words.
        """
        signatures = np.asarray(signatures)
        if signatures.shape != (len(ids), self.k) or signatures.dtype != np.uint32:
            raise UserError(
                f"the index takes signatures of uint32 [{len(ids)}, {self.k}], one row for each id, "
                f"not {signatures.dtype} {list(signatures.shape)}"
            )
        if not ids:
            return np.zeros(0, np.int64)
        with locked(self.folder), _told(self.folder):
            state = self._state()
            if state["documents"] + len(ids) > MOST_DOCUMENTS:
                raise UserError(
                    f"the index in {self.folder} is full: it holds at most {MOST_DOCUMENTS} documents; begin another"
                )
            self._forget_unfinished(state)
            small = signatures.astype(np.uint8)
            keys = self._keys(signatures)
            worded = (signatures != near.EMPTY).any(1)
            answers, in_bucket = self._before(state, keys, small, worded)
            entered = self._among(keys, small, worded, answers, in_bucket, state["documents"])
            self._append(state, ids, small, answers)
            at = np.flatnonzero(entered)
            order = at[np.argsort(keys.reshape(-1)[at], kind="stable")]
            if len(order):
                places = (order // self.bands + (state["documents"] - len(ids))).astype(np.uint32)
                self._run(state, 0, iter([(keys.reshape(-1)[order], places)]), len(order))
            old = self._merge(state)
            self._write(state)
            for run in old:
                (self.folder / run["name"]).unlink()
        return answers

    def _keys(self, signatures: Any) -> Any:
        """A 64-bit key for each band of each document, uint64 [n, bands]: of equal places of equal bands
        only."""
        parts = signatures[:, : self.bands * self.rows].reshape(len(signatures), self.bands, self.rows)
        keys = np.broadcast_to(np.arange(self.bands, dtype=np.uint64), parts.shape[:2])
        for row in range(self.rows):
            keys = mix(keys ^ parts[:, :, row]) + np.uint64(row + 1)
        return keys

    def _runs(self, state: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
        for run in state["runs"]:
            path, entries = self.folder / run["name"], run["entries"]
            yield _mapped(path, np.uint64, 0, entries), _mapped(path, np.uint32, 8 * entries, entries)

    def _before(self, state: dict[str, Any], keys: Any, small: Any, worded: Any) -> tuple[Any, Any]:
        """Compare with what the runs hold: the first duplicate of each document or -1 [n], and how full its
        buckets are [n, bands]."""
        answers = np.full(len(keys), -1, np.int64)
        in_bucket = np.zeros(keys.shape, np.int64)
        known = self._grown(state, "signatures.bin").reshape(-1, self.k)
        flat = keys.reshape(-1)
        order = np.argsort(flat)  # in order the runs are read from front to back
        for run_keys, run_places in self._runs(
            state
        ):  # runs are in order of places, so an earlier run's find stays
            low = np.searchsorted(run_keys, flat[order], "left")
            counts = np.searchsorted(run_keys, flat[order], "right") - low
            in_bucket.reshape(-1)[order] += counts
            documents = order // self.bands
            asked = np.flatnonzero((counts > 0) & worded[documents] & (answers[documents] < 0))
            cuts = np.searchsorted(
                np.cumsum(counts[asked]), np.arange(PAIRS_AT_ONCE, counts[asked].sum(), PAIRS_AT_ONCE)
            )
            found = np.full(len(keys), MOST_DOCUMENTS, np.int64)
            for part in np.split(asked, cuts):
                sizes = counts[part]
                entry = np.repeat(low[part] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
                pairs = np.unique(np.repeat(documents[part], sizes) * MOST_DOCUMENTS + run_places[entry])
                document, place = pairs // MOST_DOCUMENTS, pairs % MOST_DOCUMENTS
                same = (known[place] == small[document]).sum(1) >= self.needed
                np.minimum.at(found, document[same], place[same])
            answers = np.where((answers < 0) & (found < MOST_DOCUMENTS), found, answers)
        return answers, in_bucket

    def _among(self, keys: Any, small: Any, worded: Any, answers: Any, in_bucket: Any, first: int) -> Any:
        """Compare the documents of one call with each other, in order; fill in `answers`; give which keys
        enter the index [n, bands]."""
        entered = (in_bucket < MOST_IN_BUCKET) & (worded & (answers < 0))[:, None]
        candidates = np.flatnonzero(worded & (answers < 0))
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
        raw = [encode(identity) for identity in ids]
        ends = np.cumsum([len(part) for part in raw], dtype=np.int64) + state["id_bytes"]
        for name, content in (
            ("signatures.bin", small),
            ("answers.bin", answers),
            ("ids.bin", b"".join(raw)),
            ("ends.bin", ends),
        ):
            with (self.folder / name).open("ab") as file:
                file.write(content if isinstance(content, bytes) else content.data)
            sync(self.folder / name)
        state["documents"] += len(ids)
        state["id_bytes"] = int(ends[-1])

    def _run(self, state: dict[str, Any], level: int, parts: Iterator[tuple[Any, Any]], entries: int) -> None:
        """Write a run from parts of its keys and places, in order, and count it in."""
        name = f"run-{state['next_run']:06d}.bin"
        with (self.folder / name).open("wb") as file:
            done = 0
            for keys, places in parts:
                file.seek(8 * done)
                file.write(keys.data)
                file.seek(8 * entries + 4 * done)
                file.write(places.data)
                done += len(keys)
        sync(self.folder / name)
        state["next_run"] += 1
        state["runs"].append({"name": name, "level": level, "entries": entries})

    def _merge(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        """Merge the last eight runs while they are of one level; give the runs that no longer count."""
        old: list[dict[str, Any]] = []
        while len(state["runs"]) >= FAN_OUT and len({run["level"] for run in state["runs"][-FAN_OUT:]}) == 1:
            merged = state["runs"][-FAN_OUT:]
            runs = list(self._runs({"runs": merged}))
            del state["runs"][-FAN_OUT:]
            entries = sum(run["entries"] for run in merged)
            self._run(state, merged[0]["level"] + 1, _merged(runs, entries), entries)
            old += merged
        return old

    def _forget_unfinished(self, state: dict[str, Any]) -> None:
        """Remove what a killed `add` left."""
        for name, (_, size) in self._files(state).items():
            path = self.folder / name
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)
        counted = {run["name"] for run in state["runs"]}
        for path in self.folder.glob("run-*.bin"):
            if path.name not in counted:
                path.unlink()


def _mapped(path: Path, kind: Any, offset: int, count: int) -> Any:
    return np.memmap(path, kind, "r", offset, (count,)) if count else np.zeros(0, kind)


def _merged(runs: list[tuple[Any, Any]], entries: int) -> Iterator[tuple[Any, Any]]:
    """All entries of the runs, which are in order of places, in order of keys and places: a range of keys at
    a time.

    Keys are evenly spread, so equal ranges of keys hold about equally many.
    """
    ranges = entries // MERGE_AT_ONCE + 1
    starts = [0] * len(runs)
    for number in range(1, ranges + 1):
        limit = np.uint64(number * (1 << 64) // ranges) if number < ranges else None
        ends = [len(keys) if limit is None else int(np.searchsorted(keys, limit)) for keys, _ in runs]
        cuts = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
        keys = np.concatenate([run[0][cut] for run, cut in zip(runs, cuts, strict=True)])
        places = np.concatenate([run[1][cut] for run, cut in zip(runs, cuts, strict=True)])
        order = np.argsort(keys, kind="stable")
        yield keys[order], places[order]
        starts = ends


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the index of near-duplicates in {folder}: {error.strerror}; what it held before is whole"
        ) from error
