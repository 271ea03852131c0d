"""The files inside a zip or tar archive, one after the other, whatever the archive holds."""

import errno
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from puna.errors import UserError

ARCHIVE = re.compile(r"\.(?:zip|whl|crate|tgz|tar|tar\.\w+)$", re.IGNORECASE)
CHUNK = 1 << 20
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """One file of an archive. offset: of its header, in bytes of the (unpacked) archive; size: in bytes, as the archive states it."""

    archive: Path
    name: str
    offset: int
    size: int
    opened: Callable[[], AbstractContextManager[IO[bytes]]]

    def pieces(self) -> Iterator[bytes]:
        """Its content, a megabyte at a time. Raises UserError where the archive is damaged or encrypted."""
        try:
            with self.opened() as file:
                while piece := file.read(CHUNK):
                    yield piece
        except _DAMAGED as error:
            raise UserError(_told(self.archive, error)) from error

    def load(self) -> bytes:
        """Its whole content."""
        return b"".join(self.pieces())


def members(path: Path, wanted: Callable[[str], Any] = lambda name: True) -> Iterator[Member]:
    """The files whose names are wanted, in the archive's order; each is to be read before the next is asked for. Folders, links and
    devices are passed over. Raises UserError where the archive is damaged, or is neither zip nor tar."""
    found = _zipped(path, wanted) if _is_zip(path) else _tarred(path, wanted)
    while True:
        try:
            member = next(found, None)
        except _DAMAGED as error:
            raise UserError(_told(path, error)) from error
        if member is None:
            return
        yield member


def is_chaff(name: str) -> bool:
    """Whether a file is what systems leave behind, hidden, or named to lead out of a folder."""
    parts = PurePosixPath(name).parts
    return not parts or "__MACOSX" in parts or parts[-1].startswith(".") or ".." in parts or name.startswith("/")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _zipped(path: Path, wanted: Callable[[str], Any]) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = _printable(entry.filename)
            if wanted(name) and not entry.is_dir():
                yield Member(path, name, entry.header_offset, entry.file_size, lambda entry=entry: archive.open(entry))  # type: ignore[misc]


def _tarred(path: Path, wanted: Callable[[str], Any]) -> Iterator[Member]:
    with tarfile.open(path) as archive:
        while item := archive.next():
            archive.members = []  # type: ignore[attr-defined]  # else every header read stays in memory
            name = _printable(item.name)
            if item.isfile() and wanted(name) and (opened := archive.extractfile(item)):
                yield Member(path, name, item.offset, item.size, lambda opened=opened: opened)  # type: ignore[misc]
        # A checksum of the whole stands behind the last file, and a header that is none ends the loop like zeros do.
        while archive.fileobj and (rest := archive.fileobj.read(CHUNK)):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("no end")


def _printable(name: str) -> str:
    return name if name.isprintable() else "".join(character if character.isprintable() else "\ufffd" for character in name)


def _told(path: Path, error: Exception) -> str:
    size = f" ({path.stat().st_size:,} bytes)" if path.exists() else ""
    if isinstance(error, tarfile.ReadError) and "could not be opened" in str(error):
        return f"neither a zip nor a tar archive, or damaged at its beginning{size}"
    if isinstance(error, RuntimeError):  # of zipfile: a password, a method of packing
        return f"the archive cannot be unpacked: {error}"
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # which stands for a place outside the file
        return f"{path.name} cannot be read: {error.strerror}"
    return f"the archive is damaged or ends early{size}"
