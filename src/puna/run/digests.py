"""Digests of files, taken once: planning reads no data.

A digest is kept by path together with size, inode, device and the times at which content and inode changed;
the last of these no program can set back. `puna verify` reads everything all the same. A cache that cannot be
opened or written costs time, never a result.
"""

import contextlib
import functools
import hashlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from puna.run.compiled import cache

# A file changed so short a time ago may change again without another time stamp.
SETTLED_SECONDS = 0.1
MASK = (1 << 63) - 1
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, size INTEGER, modified INTEGER, "
    "changed INTEGER, inode INTEGER, device INTEGER, sha256 TEXT) WITHOUT ROWID"
)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; reads the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_digest(path: Path) -> str:
    """As `file_digest`; a file that did not change since it was last digested is not read."""
    status = path.stat()
    known = _known(path)
    if known and known[:-1] == _identity(status):
        return known[-1]
    digest = file_digest(path)
    settled = time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS
    if settled and _identity(path.stat()) == _identity(status):
        _insert(path, status, digest)
    return digest


def remember(path: Path, digest: str) -> None:
    """Record the digest of a file of Puna's own, as it is now."""
    _insert(path, path.stat(), digest)


def _insert(path: Path, status: os.stat_result, digest: str) -> None:
    with contextlib.suppress(sqlite3.Error):
        if (database := _database(os.getpid())) is not None:
            row = (os.fsencode(path.absolute()), *_identity(status), digest)
            database.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # SQLite's integers are signed.
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_size, *times, status.st_ino & MASK, status.st_dev & MASK


def _known(path: Path) -> tuple[Any, ...] | None:
    with contextlib.suppress(sqlite3.Error):
        if (database := _database(os.getpid())) is not None:
            query = "SELECT size, modified, changed, inode, device, sha256 FROM digests WHERE path = ?"
            return database.execute(query, (os.fsencode(path.absolute()),)).fetchone()
    return None


@functools.cache
def _database(process: int) -> sqlite3.Connection | None:
    """The cache, opened once a process; None where it cannot be."""
    try:
        folder = cache()
        folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(
            folder / "file-digests.sqlite", timeout=5, isolation_level=None, check_same_thread=False
        )
        # Losing the last entries in a power cut costs reading those files again.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(SCHEMA)
        return database
    except (OSError, sqlite3.Error):
        return None
