"""Any files, folders or addresses -> the sources of a recipe: which reader takes what."""

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath

from puna.corpus.sources import code_files, fetch, streams
from puna.corpus.sources.members import Member, is_chaff, members
from puna.errors import UserError
from puna.run.artifact import MANIFEST

NAMES = {
    "warc": "crawl",
    "html": "pages",
    "book": "books",
    "text": "texts",
    "jsonl": "datasets",
    "github": "code",
}
SUFFIXES = {
    "warc": (".warc", ".wet", ".wat", ".arc"),
    "jsonl": (".jsonl", ".ndjson", ".json", ".parquet"),
    "html": (".html", ".htm", ".xhtml"),
    "code": (".whl",),
    "book": (".txt", ".text"),
    "text": (".md", ".markdown", ".rst", ".adoc", ".asciidoc", ".org"),
}
PACKED = (".gz", ".bz2", ".zst", ".lz4")
PACKAGE = (
    "pyproject.toml",
    "setup.py",
    "package.json",
    "Cargo.toml",
    "go.mod",
    ".git",
    "CMakeLists.txt",
)
SMALL = {  # the sections that train a small model on a corpus, whatever it holds, and their keys
    "tokenizer": ["vocab_size = 4096"],
    "tokens": ['small_sources = "leave out"', "maximum_epochs = 100"],
    "model": ['size = "2m"'],
    "train": [
        "steps = 600",
        "batch_sequences = 16",
        "sequence_length = 256",
        "learning_rate = 3e-3",
        "warmup_steps = 20",
    ],
}
LICENCES = ("LICENSE", "LICENSE.txt", "COPYING")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
PAPER = re.compile(
    r"(?:\d{4}\.\d{4,5}|(?:[a-z]+-[a-z]+|math|cs|physics|nlin|stat)\d{7})(?:v\d+)?"
)  # as arXiv names them
REMOTE_ARCHIVE = re.compile(
    r"[a-z][a-z0-9+]+://[^#!]+\.(?:zip|tgz|tar|tar\.(?:gz|bz2|xz))(?:#sha256=[0-9a-f]{64})?", re.IGNORECASE
)
DOCUMENTATION = (".md", ".rst", ".html", ".htm", ".tex")  # which the code reader takes, too
PAGE = re.compile(
    r"https?://[^/?#!]+(?:/[^?#!]*/|/)?(?:[^./?#!]*|[^/?#!]*\.(?:php|aspx?|jsp|cgi))(?:\?[^#!]*)?(?:#.*)?"
)  # by its name
URL = re.compile(r"(?:https?|s3|gs)://\S+|pypi:\S+")


def sources(paths: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """({reader: URIs}, what no reader takes). A file whose lines are addresses stands for what they name.

    Raises UserError for a path that is not there and where nothing can be read.
    """
    found: dict[str, list[str]] = {}
    left: list[str] = []
    seen: set[str] = set()
    for path in paths:
        if URL.fullmatch(path):
            _add_address(found, left, path)
            continue
        here = Path(path).expanduser()
        if not here.exists():
            raise UserError(
                f"{path}: no such file or folder; give raw files, folders of them, or addresses with their digests"
            )
        addresses = _addresses(here)
        for uri in addresses:
            _add_address(found, left, uri)
        if not addresses:
            _walk(here.absolute(), found, left, seen)
    _check_any(found, left, paths)
    return found, left


def _check_any(found: dict[str, list[str]], left: list[str], paths: list[str]) -> None:
    if not found:
        advice = (
            "unpack .7z files first"
            if any(path.endswith(".7z") for path in left)
            else "see the table of readers in the README"
        )
        raise UserError(
            f"nothing here that a reader takes: {', '.join(left[:5]) or ', '.join(paths)}; {advice}"
        )


def _addresses(path: Path) -> list[str]:
    """The lines of a small text file that holds addresses and nothing else."""
    try:
        if (
            not path.is_file()
            or path.stat().st_size > 10_000_000
            or path.suffix not in (".txt", ".list", ".urls", "")
        ):
            return []
        lines = [line.strip() for line in path.read_text("utf-8", "replace").splitlines()]
    except OSError:  # to be told with the other files
        return []
    lines = [line for line in lines if line and not line.startswith("#")]
    return lines if lines and all(URL.fullmatch(line) for line in lines) else []


def _walk(path: Path, found: dict[str, list[str]], left: list[str], seen: set[str]) -> None:
    """Add what is at a path. seen: folders by their real paths, each of which is looked into once, whatever
    links lead to it."""
    try:
        for child in _inside(path, found, left, seen):
            _walk(child, found, left, seen)
    except OSError as error:
        left.append(f"{path}: {error.strerror}")


def _inside(path: Path, found: dict[str, list[str]], left: list[str], seen: set[str]) -> list[Path]:
    """Add a file, or a folder that is read as one; what else is to be looked at."""
    uri = fetch.local_uri(str(path))
    if not fetch.is_text(str(path)):
        left.append(f"{str(path)!r}: the name is not text in UTF-8; rename it")
        return []
    if path.is_file():
        _add(found, left, str(path), uri, path)
        return []
    if (
        not path.is_dir() or (path / MANIFEST).is_file()
    ):  # a link that leads nowhere, a pipe; what Puna made itself
        left.append(str(path))
        return []
    if (real := os.path.realpath(path)) in seen:
        return []
    seen.add(real)
    inside = sorted(path.iterdir())
    if any(child.suffix == ".tex" for child in inside) or (
        re.fullmatch(r"\d{4}\.\d{4,5}(v\d+)?", path.name) and any(path.rglob("*.tex"))
    ):
        found.setdefault("arxiv", []).append(uri)
    elif any(child.name in PACKAGE for child in inside) or (
        any(child.name in LICENCES for child in inside) and _mostly_source(path)
    ):
        found.setdefault("code", []).append(uri)
    else:
        return [child for child in inside if not child.name.startswith(".")]
    return []


def _add_address(found: dict[str, list[str]], left: list[str], uri: str) -> None:
    """Add an address by how its last part ends; one of files in an archive by how their names do."""
    where, _, inside = uri.partition("!")
    if _is_source(PurePosixPath(inside)):
        found.setdefault("code", []).append(uri)
    else:
        _add(found, left, inside or where.partition("#")[0], uri)


def _add(found: dict[str, list[str]], left: list[str], name: str, uri: str, path: Path | None = None) -> None:
    """Add a file by its name, and by how it begins where it is at hand; an archive by what is in it."""
    if path is not None and name.lower().endswith(ARCHIVES):
        _add_archive(found, left, name, uri, path)
    elif reader := _reader(name, lambda: b"<mediawiki" if path is None else _head(path)) or (
        "html" if PAGE.fullmatch(uri) else ""
    ):
        found.setdefault(reader, []).append(uri)
    else:
        left.append(uri)


def _reader(name: str, head: Callable[[], bytes]) -> str:
    """By a file's name, and by how it begins; "" for none."""
    bare = name.lower()
    while bare.endswith(PACKED):
        bare = bare.rpartition(".")[0]
    if name.lower().endswith(ARCHIVES):
        return "code"
    if bare.endswith("posts.xml"):
        return "stackexchange"
    if ".xml" in bare.rpartition("/")[2]:
        return (
            "wikipedia" if re.search(rb"<mediawiki|<page>", head().replace(b"\0", b"")) else ""
        )  # UTF-16 has zeros between
    if bare.endswith(".tex"):
        return "arxiv"
    return next((reader for reader, suffixes in SUFFIXES.items() if bare.endswith(suffixes)), "")


def _is_source(path: PurePath) -> bool:
    return code_files.is_source_code(path.name) and path.suffix.lower() not in DOCUMENTATION


def _mostly_source(folder: Path) -> bool:
    """Whether a folder without a package's marks holds at least as many files of source code as others that a
    reader takes."""
    names = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    sources = sum(map(_is_source, names))
    return sources > 0 and sources >= sum(
        not _is_source(path) and bool(_reader(path.name, lambda: b"<mediawiki")) for path in names
    )


def _head(path: Path) -> bytes:
    try:
        return next(streams.chunks(path), b"")[:4096]
    except (UserError, OSError):
        return b""


def _add_archive(found: dict[str, list[str]], left: list[str], name: str, uri: str, path: Path) -> None:
    """Add a zip or tar archive: whole where it is a package or a paper, else the files in it by the ends of
    their names."""
    readers: dict[str, str] = {}  # by pattern
    others: list[str] = []
    count = taken = papers = sources = 0
    package = False
    try:
        for member in members(path, lambda name: not is_chaff(name)):
            inside = PurePosixPath(member.name)
            package = package or (inside.name in (*PACKAGE, "PKG-INFO") and len(inside.parts) < 3)
            reader = _member_reader(member)
            count += 1
            if reader == "arxiv":
                papers += 1
            elif reader:
                taken += 1
                readers.setdefault(_pattern(member.name), reader)
            else:
                sources += _is_source(inside)
                others = [*others, str(inside)][:3]
    except (
        UserError,
        OSError,
    ):  # what is damaged is told when it is read, by the code reader where no file is to be seen
        package = package or not count
    if package or (sources and sources >= taken + papers):
        found.setdefault("code", []).append(uri)
    elif (papers or re.match(r"\d{4}\.\d{4,5}", PurePosixPath(name).name)) and not name.lower().endswith(
        ".zip"
    ):
        found.setdefault("arxiv", []).append(uri)
    else:
        for pattern, reader in readers.items():
            found.setdefault(reader, []).append(f"{uri}!{pattern}")
        if papers:
            left.append(f"{name}: papers in a zip archive; unpack it, or pack them as tar")
        if others or not count:
            left.append(
                f"{name}: {count - taken - papers} of the {count} files in it{', such as ' * bool(others)}{', '.join(others)}"
            )


def _member_reader(member: Member) -> str:
    """As `_reader`; no archive inside an archive is looked into."""
    name = PurePosixPath(member.name).name
    if name.lower().endswith((*ARCHIVES, ".whl")):
        return ""
    if name.endswith((".gz", ".pdf")) and PAPER.fullmatch(name.rpartition(".")[0]):
        return "arxiv"
    return _reader(
        name, lambda: b"<mediawiki" if name.lower().endswith(PACKED) else next(member.pieces(), b"")[:4096]
    )


def _pattern(name: str) -> str:
    """A pattern of the members that end like this one; of dumps, whose readers their ends do not tell, this
    one alone."""
    last = bare = PurePosixPath(name).name
    while bare.lower().endswith(PACKED):
        bare = bare.rpartition(".")[0]
    return (
        glob.escape(name)
        if bare.lower().endswith(".xml")
        else "*" + glob.escape(last[len(bare.rpartition(".")[0]) :])
    )


PATHS, WRITTEN = "# paths: ", "# as written: "


def check(folder: Path, paths: list[str]) -> None:
    """Raise UserError where a run's folder was made of other paths than these, whose recipe and page would be
    lost, and where its recipe was edited."""
    path = folder / "recipe.toml"
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    lines = text.split("\n") if text else []
    told = next((line.removeprefix(PATHS) for line in lines if line.startswith(PATHS)), "")
    if told == _told(paths):
        if _signature(text) in lines:
            return
        raise UserError(
            f"{path} was edited, and would be written anew: run `puna corpus {path}`, give this corpus another folder with --name, or "
            f"remove {folder}"
        )
    if not lines and not any(folder.glob(f"*/{MANIFEST}")):
        return
    raise UserError(
        f"{folder} was made of {told.strip('[]') or 'another recipe'}; give this corpus another folder with --name"
    )


def _told(paths: list[str]) -> str:
    """Paths as one line, whatever their order and wherever they are named from. Raises UserError for one that
    is no text."""
    whole = {path if URL.fullmatch(path) else os.path.realpath(os.path.expanduser(path)) for path in paths}
    if strange := next((path for path in sorted(whole) if not fetch.is_text(path)), None):
        raise UserError(f"{strange!r}: the path is not text in UTF-8; rename what is not")
    return json.dumps(sorted(whole), ensure_ascii=False)


def _signature(text: str) -> str:
    """The line by which a recipe tells that it was not edited: a digest of the others."""
    others = "\n".join(line for line in text.split("\n") if not line.startswith(WRITTEN))
    return WRITTEN + hashlib.sha256(others.encode()).hexdigest()


def recipe(name: str, paths: list[str], languages: list[str], brought: Path) -> tuple[str, list[str]]:
    """(a recipe in TOML that reads these paths, what no reader takes). Addresses without a digest are brought
    to find theirs, and left in `brought` for the run."""
    found, left = sources(paths)
    for uri in found.pop("code", []):
        if not REMOTE_ARCHIVE.fullmatch(uri):
            found.setdefault("code", []).append(uri)
            continue
        try:
            whole, path = fetch.bring(uri, brought)
        except UserError as error:
            if "#sha256=" in uri:
                raise
            left.append(str(error))
        else:
            _add_archive(found, left, whole.partition("#")[0], whole, path)
    _check_any(found, left, paths)
    lines = [
        "# What the corpus was made of. `puna run` on this file trains a small model on it.",
        PATHS + _told(paths),
        "",
    ]
    lines += [f'name = "{name}"', ""]
    lines += ["[corpus]", f"languages = {json.dumps(languages)}", 'on_damaged_file = "skip"', ""]
    for reader, uris in found.items():
        pinned = []
        for uri in uris:
            try:
                pinned.append(fetch.pinned(uri, brought))
            except UserError as error:  # one address of many that is not there
                left.append(str(error))
        if not pinned:
            continue
        lines += ["[[corpus.sources]]", f'name = "{NAMES.get(reader, reader)}"', f'reader = "{reader}"']
        lines += ["uris = [", *(f"  {json.dumps(uri, ensure_ascii=False)}," for uri in pinned), "]"]
        lines += ['ccnet = "on"'] if reader == "warc" else ["books = true"] if reader == "book" else []
        lines.append("")
    if "uris = [" not in lines:
        raise UserError("nothing could be fetched:\n  " + "\n  ".join(left[:5]))
    for section, keys in SMALL.items():
        lines += [f"[{section}]", *keys, ""]
    lines.insert(2, _signature("\n".join(lines)))
    return "\n".join(lines), left
