"""Any files, folders or addresses -> the sources of a recipe: which reader reads what."""

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath

from puna.corpus.sources import code_files, fetch, streams
from puna.corpus.sources.members import ARCHIVES, Member, is_junk, members
from puna.errors import UserError
from puna.run.artifact import MANIFEST

RECIPE = "recipe.toml"
STATE = "recipe.json"  # beside the recipe: the paths that it was written for, and its digest as written
SOURCE_NAMES = {  # of a reader's source; of the others it is the reader's own name
    "warc": "crawl",
    "html": "pages",
    "book": "books",
    "text": "texts",
    "jsonl": "datasets",
    "github": "code",
    "none": "unread",
}
SUFFIXES = {
    "warc": (".warc", ".wet", ".wat", ".arc"),
    "jsonl": (".jsonl", ".ndjson", ".json", ".parquet"),
    "html": (".html", ".htm", ".xhtml"),
    "code": (".whl",),
    "book": (".txt", ".text"),
    "text": (".md", ".markdown", ".rst", ".adoc", ".asciidoc", ".org"),
}
HEADS = (  # of files whose names say no more than that they are text
    ("warc", re.compile(rb"\s*WARC/\d\.\d+\s|filedesc://\S+ [\d.]+ \d{8,14} ")),
    ("html", re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)),
)
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
PACKAGE = ("pyproject.toml", "setup.py", "package.json", "Cargo.toml", "go.mod", ".git", "CMakeLists.txt")
LICENCES = ("LICENSE", "LICENSE.txt", "COPYING")
# A paper's file, as arXiv names it.
PAPER = re.compile(r"(?:\d{4}\.\d{4,5}|(?:[a-z]+-[a-z]+|math|cs|physics|nlin|stat)\d{7})(?:v\d+)?")
REMOTE_ARCHIVE = re.compile(
    r"[a-z][a-z0-9+]+://[^#!]+\.(?:zip|tgz|tar|tar\.(?:gz|bz2|xz))(?:#sha256=[0-9a-f]{64})?", re.IGNORECASE
)
DOCUMENTATION = (".md", ".rst", ".html", ".htm", ".tex")  # which the code reader reads, too
# An address that names no file format, so is that of a page.
PAGE = re.compile(
    r"https?://[^/?#!]+(?:/[^?#!]*/|/)?(?:[^./?#!]*|[^/?#!]*\.(?:php|aspx?|jsp|cgi))(?:\?[^#!]*)?(?:#.*)?"
)
URL = re.compile(r"(?:https?|s3|gs)://\S+|pypi:\S+")


def sources(paths: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Find the readers of files, folders and addresses: ({reader: URIs}, what no reader takes).

    A file whose lines are addresses stands for what they name. Raises UserError for a path that does not
    exist and where nothing can be read.
    """
    collected = _collect(paths)
    return collected.uris, collected.unread


def _collect(paths: list[str]) -> "_Collector":
    collected = _Collector()
    for path in paths:
        if URL.fullmatch(path):
            collected.add_address(path)
            continue
        local = Path(path).expanduser()
        if not local.exists():
            raise UserError(
                f"{path}: no such file or folder; "
                "give raw files, folders of them, or addresses with their digests"
            )
        addresses = _addresses(local)
        for uri in addresses:
            collected.add_address(uri)
        if not addresses:
            collected.walk(local.absolute())
    collected.check(paths)
    return collected


def _addresses(path: Path) -> list[str]:
    """Return the lines of a small text file that holds addresses and nothing else."""
    try:
        if not path.is_file() or path.suffix not in (".txt", ".list", ".urls", ""):
            return []
        if path.stat().st_size > 10_000_000:
            return []
        lines = [line.strip() for line in path.read_text("utf-8", "replace").splitlines()]
    except OSError:  # which is reported when it is walked
        return []
    lines = [line for line in lines if line and not line.startswith("#")]
    return lines if all(URL.fullmatch(line) for line in lines) else []


class _Collector:
    """Collects the URIs of each reader, and what no reader takes.

    without_reader: the URIs of local files that have no reader. visited: folders by their real paths, each of
    which is looked into once, whatever links lead to it.
    """

    def __init__(self) -> None:
        self.uris: dict[str, list[str]] = {}
        self.unread: list[str] = []
        self.without_reader: list[str] = []
        self.visited: set[str] = set()

    def check(self, paths: list[str]) -> None:
        """Raise UserError where nothing can be read."""
        if self.uris:
            return
        advice = "docs/own-data.md lists the readers"
        if any(path.endswith(".7z") for path in self.unread):
            advice = "unpack .7z files first"
        names = ", ".join(self.unread[:5] or paths)
        raise UserError(f"nothing here that a reader takes: {names}; {advice}")

    def add(self, reader: str, uri: str) -> None:
        self.uris.setdefault(reader, []).append(uri)

    def add_address(self, uri: str) -> None:
        """Add an address by the suffix of its last part; one of members of an archive by that of theirs."""
        archive, _, member_pattern = uri.partition("!")
        if _is_source(PurePosixPath(member_pattern)):
            self.add("code", uri)
        else:
            self.add_file(member_pattern or archive.partition("#")[0], uri)

    def add_file(self, name: str, uri: str, path: Path | None = None) -> None:
        """Add a file by its name, and a local one by how it begins; an archive by what is in it."""
        if path is not None and name.lower().endswith(ARCHIVES):
            self.add_archive(name, uri, path)
            return
        reader = _reader(name, lambda: b"<mediawiki" if path is None else _head(path))
        if not reader and PAGE.fullmatch(uri):
            reader = "html"
        if reader:
            self.add(reader, uri)
        else:
            self.unread.append(uri)
            if path is not None:
                self.without_reader.append(uri)

    def walk(self, path: Path) -> None:
        """Add a file, or what is in a folder."""
        try:
            for child in self._children(path):
                self.walk(child)
        except OSError as error:
            self.unread.append(f"{path}: {error.strerror}")

    def _children(self, path: Path) -> list[Path]:
        """Add a file, or a folder that is read as one; else return what is in the folder."""
        uri = fetch.local_uri(str(path))
        if why := fetch.fault(str(path)):
            self.unread.append(f"{str(path)!r}: the name {why}; rename it")
            return []
        if path.is_file():
            self.add_file(str(path), uri, path)
            return []
        # A link that leads nowhere, a pipe; an artifact of Puna's own.
        if not path.is_dir() or (path / MANIFEST).is_file():
            self.unread.append(str(path))
            return []
        real = os.path.realpath(path)
        if real in self.visited:
            return []
        self.visited.add(real)
        children = sorted(path.iterdir())
        if _is_paper(path, children):
            self.add("arxiv", uri)
        elif _is_package(path, children):
            self.add("code", uri)
        else:
            hidden = [child for child in children if child.name.startswith(".")]
            named = [str(child) for child in hidden if child.exists() and not fetch.fault(child.name)]
            self.without_reader += map(fetch.local_uri, named)
            return [child for child in children if child not in hidden]
        return []

    def add_archive(self, name: str, uri: str, path: Path) -> None:
        """Add a zip or tar archive: as a whole where it is a package or a paper, else its members."""
        readers: dict[str, str] = {}  # by pattern
        others: list[str] = []
        count = read = papers = sources = 0
        package = False
        try:
            for member in members(path, lambda name: not is_junk(name)):
                inside = PurePosixPath(member.name)
                package = package or (inside.name in (*PACKAGE, "PKG-INFO") and len(inside.parts) < 3)
                reader = _member_reader(member)
                count += 1
                if reader == "arxiv":
                    papers += 1
                elif reader:
                    read += 1
                    readers.setdefault(_member_pattern(member.name), reader)
                else:
                    sources += _is_source(inside)
                    others = [*others, str(inside)][:3]
        except (UserError, OSError):  # the reader reports damage: that of code where no member can be seen
            package = package or not count
        file_name = PurePosixPath(name).name
        paper = papers or re.match(r"\d{4}\.\d{4,5}", file_name)
        if package or (sources and sources >= read + papers):
            self.add("code", uri)
        elif paper and not name.lower().endswith(".zip"):
            self.add("arxiv", uri)
        else:
            for pattern, reader in readers.items():
                self.add(reader, f"{uri}!{pattern}")
            if papers:
                self.unread.append(f"{name}: papers in a zip archive; unpack it, or pack them as tar")
            if others or not count:
                examples = f", such as {', '.join(others)}" if others else ""
                self.unread.append(f"{name}: {count - read - papers} of the {count} files in it{examples}")
            if "://" not in uri and (papers or others or not count):
                self.without_reader.append(uri)


def _is_paper(folder: Path, children: list[Path]) -> bool:
    if any(child.suffix == ".tex" for child in children):
        return True
    return bool(re.fullmatch(r"\d{4}\.\d{4,5}(v\d+)?", folder.name)) and any(folder.rglob("*.tex"))


def _is_package(folder: Path, children: list[Path]) -> bool:
    if any(child.name in PACKAGE for child in children):
        return True
    return any(child.name in LICENCES for child in children) and _mostly_source(folder)


def _reader(name: str, head: Callable[[], bytes]) -> str:
    """Return the reader of a file by its name, and by its first bytes; "" for none."""
    bare = _uncompressed(name).lower()
    if name.lower().endswith(ARCHIVES):
        return "code"
    if bare.endswith("posts.xml"):
        return "stackexchange"
    if ".xml" in bare.rpartition("/")[2]:
        start = head().replace(b"\0", b"")  # UTF-16 has zeros between
        return "wikipedia" if re.search(rb"<mediawiki|<page>", start) else ""
    if bare.endswith(".tex"):
        return "arxiv"
    reader = next((reader for reader, suffixes in SUFFIXES.items() if bare.endswith(suffixes)), "")
    return _reader_of_head(head()) or reader if reader == "book" else reader


def _reader_of_head(head: bytes) -> str:
    """Return the reader of a text file whose first bytes tell its format, "" for plain text."""
    return next((reader for reader, start in HEADS if start.match(head)), "")


def _uncompressed(name: str) -> str:
    """Return a file's name without the suffixes of compression."""
    while name.lower().endswith(COMPRESSED):
        name = name.rpartition(".")[0]
    return name


def _is_source(path: PurePath) -> bool:
    return code_files.is_source_code(path.name) and path.suffix.lower() not in DOCUMENTATION


def _mostly_source(folder: Path) -> bool:
    """Whether at least half of the files of a folder that a reader takes are source code, and one is."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    sources = sum(map(_is_source, paths))
    others = [path for path in paths if not _is_source(path) and _reader(path.name, lambda: b"<mediawiki")]
    return sources > 0 and sources >= len(others)


def _head(path: Path) -> bytes:
    try:
        return next(streams.chunks(path), b"")[:4096]
    except (UserError, OSError):
        return b""


def _member_reader(member: Member) -> str:
    """Return the reader of a member of an archive; archives inside archives are not looked into."""
    name = PurePosixPath(member.name).name
    if name.lower().endswith((*ARCHIVES, ".whl")):
        return ""
    if name.endswith((".gz", ".pdf")) and PAPER.fullmatch(name.rpartition(".")[0]):
        return "arxiv"
    compressed, in_xml = name.lower().endswith(COMPRESSED), ".xml" in name.lower()

    def head() -> bytes:  # of one with a pattern of its own
        return b"<mediawiki" if compressed else next(member.pieces(), b"")[:4096] if in_xml else b""

    return _reader(name, head)


def _member_pattern(name: str) -> str:
    """Return a pattern of the members with this one's suffix; of an XML dump, whose suffix names no reader,
    one of this member alone."""
    file_name = PurePosixPath(name).name
    bare = _uncompressed(file_name)
    if bare.lower().endswith(".xml"):
        return glob.escape(name)
    return "*" + glob.escape(file_name[len(bare.rpartition(".")[0]) :])


def check(folder: Path, paths: list[str]) -> None:
    """Raise UserError where a run's folder was made from other paths, or its recipe was edited: both would be
    lost."""
    path = folder / RECIPE
    absolute = _absolute(paths)
    content = path.read_bytes() if path.is_file() else b""
    # A kill between the renames of a recipe and of its state leaves the state under its temporary name.
    states = [_read_state(folder / name) for name in (STATE, f".{STATE}")] if content else []
    if (absolute, hashlib.sha256(content).hexdigest()) in states:
        return
    made_from = states[0][0] if states else []
    if made_from == absolute:
        raise UserError(
            f"{path} was edited, and would be written anew: run `puna corpus {path}`, "
            f"give this corpus another folder with --name, or remove {folder}"
        )
    if content or any(folder.glob(f"*/{MANIFEST}")):
        names = ", ".join(json.dumps(name, ensure_ascii=False) for name in made_from)
        raise UserError(
            f"{folder} was made from {names or 'another recipe'}; give this corpus another folder with --name"
        )


def _read_state(path: Path) -> tuple[list[str], str]:
    """Read (paths, SHA-256 of the recipe as written) of a recipe; ([], "") where they are not known."""
    try:
        state = json.loads(path.read_bytes())
        return [str(name) for name in state["paths"]], str(state["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return [], ""


def _absolute(paths: list[str]) -> list[str]:
    """Return paths in one form, whatever their order and the folder that they are named from.

    Raises UserError for one that is not text.
    """
    absolute = {path if URL.fullmatch(path) else os.path.realpath(os.path.expanduser(path)) for path in paths}
    for path in sorted(absolute):
        if why := fetch.fault(path):
            raise UserError(f"{path!r}: the path {why}; rename what is not")
    return sorted(absolute)


def recipe(name: str, paths: list[str], languages: list[str], downloads: Path) -> tuple[str, list[str]]:
    """Write a recipe that reads these paths: (its TOML, what no reader takes).

    Addresses without a digest are downloaded to find theirs, and left in `downloads` for the run. Raises
    UserError for a path that is not text.
    """
    _absolute(paths)
    collected = _collect(paths)
    for uri in collected.uris.pop("code", []):
        if not REMOTE_ARCHIVE.fullmatch(uri):
            collected.add("code", uri)
            continue
        try:
            with_digest, path = fetch.download(uri, downloads)
        except UserError as error:
            if "#sha256=" in uri:
                raise
            collected.unread.append(str(error))
        else:
            collected.add_archive(with_digest.partition("#")[0], with_digest, path)
    collected.check(paths)
    lines = ["", f'name = "{name}"', ""]
    lines += ["[corpus]", f"languages = {json.dumps(languages)}", 'on_damaged_file = "skip"', ""]
    readable = False
    for reader, uris in collected.uris.items():
        pinned = _pinned(uris, downloads, collected.unread)
        if pinned:
            readable = True
            lines += [*_source_lines(reader, pinned), ""]
    if collected.without_reader:
        lines += [*_source_lines("none", collected.without_reader), ""]
    if not readable:
        raise UserError("nothing could be fetched:\n  " + "\n  ".join(collected.unread[:5]))
    return "\n".join([*lines, ""]), collected.unread


def state(paths: list[str], text: str) -> str:
    """The JSON for STATE beside a recipe with this text. Raises UserError for a path that is not text."""
    known = {"paths": _absolute(paths), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return json.dumps(known, indent=1, ensure_ascii=False) + "\n"


def _pinned(uris: list[str], downloads: Path, unread: list[str]) -> list[str]:
    """Return the URIs with their digests; one that cannot be downloaded goes to `unread` with the reason."""
    pinned = []
    for uri in uris:
        try:
            pinned.append(fetch.pinned(uri, downloads))
        except UserError as error:
            unread.append(str(error))
    return pinned


def _source_lines(reader: str, uris: list[str]) -> list[str]:
    lines = ["[[corpus.sources]]", f'name = "{SOURCE_NAMES.get(reader, reader)}"', f'reader = "{reader}"']
    lines += ["uris = [", *(f"  {json.dumps(uri, ensure_ascii=False)}," for uri in uris), "]"]
    if reader == "warc":
        lines.append('ccnet = "on"')
    if reader == "book":
        lines.append("books = true")
    return lines
