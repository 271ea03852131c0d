"""Digests of files, taken once: a cache by (path, size, time of change, inode), so that planning reads no
data.

A file that was changed and given its old size, time and inode again is not noticed; `puna verify` reads
everything. A cache that cannot be opened or written costs time, never a result.
"""

import contextlib
import functools
import hashlib
import os
import sqlite3
import time
from pathlib import Path

from puna.run.compiled import cache

# A file changed so short a time ago may change again without another time stamp.
SETTLED_SECONDS = 0.1
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS digests "
    "(path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, inode INTEGER, sha256 TEXT) WITHOUT ROWID"
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
    settled = time.time() - status.st_mtime > SETTLED_SECONDS
    if settled and _identity(path.stat()) == _identity(status):
        remember(path, digest)
    return digest


def remember(path: Path, digest: str) -> None:
    """Record the digest of a file as it is now."""
    with contextlib.suppress(sqlite3.Error, OSError):
        if (database := _database(os.getpid())) is not None:
            row = (str(path.absolute()), *_identity(path.stat()), digest)
            database.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", row)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _known(path: Path) -> tuple[int, int, int, str] | None:
    with contextlib.suppress(sqlite3.Error, UnicodeEncodeError):
        if (database := _database(os.getpid())) is not None:
            query = "SELECT size, changed, inode, sha256 FROM digests WHERE path = ?"
            return database.execute(query, (str(path.absolute()),)).fetchone()
    return None


@functools.cache
def _database(process: int) -> sqlite3.Connection | None:
    """The cache, opened once a process; None where it cannot be."""
    try:
        folder = cache()
        folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(
            folder / "digests.sqlite", timeout=5, isolation_level=None, check_same_thread=False
        )
        # Losing the last entries in a power cut costs reading those files again.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(SCHEMA)
        return database
    except (OSError, sqlite3.Error):
        return None
