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
LARGEST_HEADER = 1 << 20  # bytes of all that stands before a file of a tar: its long name, its attributes
_DAMAGED = (
    *(
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,
    ),
    *(IndexError, OverflowError),  # of tarfile and zipfile, where they trust what is written
)


class BrokenMember(UserError):
    """A file of an archive that cannot be read. read: bytes of it that could be."""

    def __init__(self, message: str, read: int) -> None:
        super().__init__(message)
        self.read = read


@dataclass(frozen=True)
class Member:
    """One file of an archive. offset: of its header, in bytes of the (unpacked) archive; size: in bytes, as
    the archive states it."""

    archive: Path
    name: str
    offset: int
    size: int
    opened: Callable[[], AbstractContextManager[IO[bytes]]]

    def pieces(self) -> Iterator[bytes]:
        """Its content, a megabyte at a time. Raises BrokenMember where the archive is damaged or
        encrypted."""
        read = 0
        try:
            with self.opened() as file:
                while piece := file.read(CHUNK):
                    read += len(piece)
                    yield piece
        except _DAMAGED as error:
            raise BrokenMember(_told(self.archive, error), read) from error

    def load(self) -> bytes:
        """Its whole content."""
        return b"".join(self.pieces())


def members(path: Path, wanted: Callable[[str], Any] = lambda name: True) -> Iterator[Member]:
    """The files whose names are wanted, in the archive's order; each is to be read before the next is asked
    for. Folders, links and devices are passed over. Raises UserError where the archive is damaged, or is
    neither zip nor tar."""
    found = _zipped(path, wanted) if is_zip(path) else _tarred(path, wanted)
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
    return (
        not parts or "__MACOSX" in parts or parts[-1].startswith(".") or ".." in parts or name.startswith("/")
    )


def is_zip(path: Path) -> bool:
    """Whether an archive is a zip, whose files can be read whatever befell those before them."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _zipped(path: Path, wanted: Callable[[str], Any]) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = _plain(entry.filename)
            if wanted(name) and not entry.filename.endswith("/"):
                yield Member(
                    path, name, entry.header_offset, entry.file_size, lambda entry=entry: archive.open(entry)
                )  # type: ignore[misc]


def _tarred(path: Path, wanted: Callable[[str], Any]) -> Iterator[Member]:
    with _Tar.open(path) as archive:
        end = 0
        while item := archive.next():
            if item.size < 0 or archive.offset <= end:
                raise tarfile.ReadError("a header leads back")
            end = archive.offset
            archive.members = []  # type: ignore[attr-defined]  # else every header read stays in memory
            archive.pax_headers = {}
            name = _plain(item.name)
            if item.isfile() and wanted(name) and (opened := archive.extractfile(item)):
                yield Member(path, name, item.offset, item.size, lambda opened=opened: opened)  # type: ignore[misc]
        # A checksum of the whole stands behind the last file.
        while archive.fileobj and (rest := archive.fileobj.read(CHUNK)):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("no end")


class _Tar(tarfile.TarFile):
    """TarFile reads a header whatever its size, and takes all that is none for the end, as if it were the
    block of zeros."""

    def next(self) -> tarfile.TarInfo | None:
        file, headers = self.fileobj, _Headers(self.fileobj)
        self.fileobj = headers  # type: ignore[assignment]
        try:
            item = super().next()
        finally:
            self.fileobj = file
        if item is None and headers.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end")
        return item


class _Headers:
    """A file from which the headers before one file of a tar are read. last: the bytes last read."""

    def __init__(self, file: Any) -> None:
        self.tell, self.seek, self._read = file.tell, file.seek, file.read
        self.room, self.last = LARGEST_HEADER, bytes(tarfile.BLOCKSIZE)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.room:
            raise tarfile.ReadError("a header of a wrong size")
        self.room -= size
        self.last = self._read(size)
        return self.last


def _plain(name: str) -> str:
    """A name without the "./" that `tar -C folder .` writes before it and without characters that cannot be
    printed."""
    name = re.sub(r"^(?:\./+)+", "", name)
    return (
        name
        if name.isprintable()
        else "".join(character if character.isprintable() else "\ufffd" for character in name)
    )


def _told(path: Path, error: Exception) -> str:
    size = f" ({path.stat().st_size:,} bytes)" if path.exists() else ""
    if isinstance(error, tarfile.ReadError) and "could not be opened" in str(error):
        return f"neither a zip nor a tar archive, or damaged at its beginning{size}"
    if isinstance(error, RuntimeError):  # of zipfile: a password, a method of packing
        return f"the archive cannot be unpacked: {'it is encrypted' if 'password' in str(error) else error}"
    if isinstance(error, OSError) and error.errno not in (
        None,
        errno.EINVAL,
    ):  # which stands for a place outside the file
        return f"{path.name} cannot be read: {error.strerror}"
    return f"the archive is damaged or ends early{size}"
