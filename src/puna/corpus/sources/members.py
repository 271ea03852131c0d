"""The files inside a zip or tar archive, one after the other, whatever the archive holds."""

import errno
import functools
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

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
ARCHIVE = re.compile(r"\.(?:zip|whl|crate|tgz|tar|tar\.\w+)$", re.IGNORECASE)
CHUNK = 1 << 20
LARGEST_HEADER = 1 << 20  # bytes of all that stands before a file of a tar: its long name, its attributes
_DAMAGED: tuple[type[Exception], ...] = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
_DAMAGED += (EOFError, OSError, ValueError, RuntimeError)
_DAMAGED += (IndexError, OverflowError)  # tarfile and zipfile trust the numbers that an archive states


class BrokenMember(UserError):
    """A member of an archive that cannot be read. bytes_read: how much of it could be."""

    def __init__(self, message: str, bytes_read: int) -> None:
        super().__init__(message)
        self.bytes_read = bytes_read


@dataclass(frozen=True)
class Member:
    """One file of an archive. offset: of its header, in bytes of the (unpacked) archive; size: in bytes, as
    the archive states it."""

    archive: Path
    name: str
    offset: int
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]

    def pieces(self) -> Iterator[bytes]:
        """Read its content, a megabyte at a time. Raises BrokenMember where it is damaged or encrypted."""
        bytes_read = 0
        try:
            with self.open() as file:
                while piece := file.read(CHUNK):
                    bytes_read += len(piece)
                    yield piece
        except _DAMAGED as error:
            raise BrokenMember(_reason(self.archive, error), bytes_read) from error

    def load(self) -> bytes:
        """Read its whole content. Raises BrokenMember as `pieces` does."""
        return b"".join(self.pieces())


def members(path: Path, wanted: Callable[[str], Any] = lambda name: True) -> Iterator[Member]:
    """The files whose names are wanted, in the archive's order; read each before asking for the next.

    Folders, links and devices are passed over. Raises UserError where the archive is damaged, or is neither
    zip nor tar.
    """
    files = _zip_members(path, wanted) if is_zip(path) else _tar_members(path, wanted)
    while True:
        try:
            member = next(files, None)
        except _DAMAGED as error:
            raise UserError(_reason(path, error)) from error
        if member is None:
            return
        yield member


def is_junk(name: str) -> bool:
    """Whether a file is what operating systems leave behind, hidden, or named to lead out of a folder."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/"):
        return True
    return "__MACOSX" in parts or ".." in parts or parts[-1].startswith(".")


def is_zip(path: Path) -> bool:
    """Whether an archive is a zip, whose members can each be read whatever damage the others have."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _zip_members(path: Path, wanted: Callable[[str], Any]) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = _printable(entry.filename)
            if wanted(name) and not entry.filename.endswith("/"):
                open_entry = functools.partial(archive.open, entry)
                yield Member(path, name, entry.header_offset, entry.file_size, open_entry)


def _tar_members(path: Path, wanted: Callable[[str], Any]) -> Iterator[Member]:
    with _Tar.open(path) as archive:
        end = 0
        while item := archive.next():
            if item.size < 0 or archive.offset <= end:
                raise tarfile.ReadError("a header leads back")
            end = archive.offset
            archive.members = []  # type: ignore[attr-defined]  # else every header read stays in memory
            archive.pax_headers = {}
            name = _printable(item.name)
            if item.isfile() and wanted(name) and (opened := archive.extractfile(item)):
                yield Member(path, name, item.offset, item.size, lambda opened=opened: opened)  # type: ignore[misc]
        # A checksum of the whole stands behind the last file.
        while archive.fileobj and (rest := archive.fileobj.read(CHUNK)):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("no end")


class _Tar(tarfile.TarFile):
    """A TarFile that bounds the size of headers and refuses damaged ones.

    TarFile itself reads a header whatever its size, and takes a damaged one for the block of zeros at the
    end.
    """

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
    """The file from which the headers before one member of a tar are read. last: the bytes last read."""

    def __init__(self, file: Any) -> None:
        self.tell, self.seek, self._read = file.tell, file.seek, file.read
        self.room, self.last = LARGEST_HEADER, bytes(tarfile.BLOCKSIZE)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.room:
            raise tarfile.ReadError("a header of a wrong size")
        self.room -= size
        self.last = self._read(size)
        return self.last


def _printable(name: str) -> str:
    """Return a name without the leading "./" of `tar -C folder .`, its unprintable characters replaced."""
    name = re.sub(r"^(?:\./+)+", "", name)
    if name.isprintable():
        return name
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def _reason(path: Path, error: Exception) -> str:
    """Say why an archive cannot be read."""
    size = f" ({path.stat().st_size:,} bytes)" if path.exists() else ""
    if isinstance(error, tarfile.ReadError) and "could not be opened" in str(error):
        return f"neither a zip nor a tar archive, or damaged at its beginning{size}"
    if isinstance(error, RuntimeError):  # of zipfile: a password, a compression method
        return f"the archive cannot be unpacked: {'it is encrypted' if 'password' in str(error) else error}"
    # EINVAL stands for a place outside the file.
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return f"{path.name} cannot be read: {error.strerror}"
    return f"the archive is damaged or ends early{size}"
