"""Files and folders that are whole or not there, and held by one process at a time."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from puna.errors import UserError


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old content or the new one, never a part."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path, mark: str = "") -> Iterator[Path]:
    """Give a path to write a file or folder to, which takes the name `path` when the block ends well.

    Where it does not, as on a full disk, nothing of it stays. mark: for the name of what is not whole yet.
    """
    part = path.with_name(f"{path.name}{mark}.part")
    try:
        yield part
        sync(part)
        os.replace(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` alone for the length of the block. Raises UserError when another process has it. Released
    by a kill, too."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError, FileNotFoundError) as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror}; name another one with --out"
        ) from error
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise UserError(
                f"another run is at work in {folder}; wait for it, or give this one another folder with --out"
            ) from error
        yield
