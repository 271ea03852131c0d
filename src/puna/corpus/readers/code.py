"""Source code: the files of a package (wheel, source archive or folder) whose licence is MIT, BSD or Apache, as in the paper.

A package's licence is what its metadata says; where they say nothing clear, what its LICENSE text is recognised as. Then the paper's
filters: line lengths, share of alphanumeric characters, licence headers removed.
"""

import email.message
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from puna.corpus.document import Found, Skipped, digest
from puna.errors import UserError

KEPT = ("MIT", "BSD-2-Clause", "BSD-3-Clause", "BSD", "Apache-2.0", "0BSD")
EXTENSIONS = frozenset((
    "py", "pyx", "pxd", "c", "h", "cc", "cpp", "cxx", "hpp", "cu", "js", "jsx", "ts", "tsx", "rs", "go",
    "java", "kt", "scala", "rb", "php", "pl", "sh", "lua", "r", "jl", "hs", "ml", "cs", "swift", "sql", "md", "rst",
))  # fmt: skip
MAXIMUM_LINE, AVERAGE_LINE, MINIMUM_ALPHANUMERIC = 1000, 100, 0.25
LICENCE_FILE = re.compile(r"(^|/)(LICEN[CS]E|COPYING)([.-][^/]*)?$", re.IGNORECASE)
_CLASSIFIERS = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "GNU Lesser General Public License": "LGPL",
    "GNU Library or Lesser General Public License": "LGPL",
    "GNU General Public License": "GPL",
    "GNU Affero General Public License": "AGPL",
    "Mozilla Public License": "MPL",
}
# Phrases of licence texts, the more particular ones first.
_TEXTS = (
    ("AGPL", r"GNU AFFERO GENERAL PUBLIC LICENSE"),
    ("LGPL", r"GNU (LESSER|LIBRARY) GENERAL PUBLIC LICENSE"),
    ("GPL", r"GNU GENERAL PUBLIC LICENSE"),
    ("MPL", r"Mozilla Public License"),
    ("Apache-2.0", r"Apache License,?\s+Version 2\.0"),
    (
        "BSD-3-Clause",
        r"Redistribution and use in source and binary forms[\s\S]*(Neither the name|names? of (its|the) (copyright holder|contributors))",
    ),
    ("BSD-2-Clause", r"Redistribution and use in source and binary forms"),
    ("MIT", r"Permission is hereby granted, free of charge, to any person obtaining a copy"),
)
_NAMES = (
    ("LGPL", r"lgpl|lesser general public"),
    ("AGPL", r"agpl|affero"),
    ("GPL", r"gpl|general public"),
    ("MPL", r"mpl|mozilla"),
    ("Apache-2.0", r"apache"),
    ("BSD-3-Clause", r"bsd[ -]?3|3[- ]clause|new bsd|modified bsd"),
    ("BSD-2-Clause", r"bsd[ -]?2|2[- ]clause|simplified bsd"),
    ("BSD", r"\bbsd\b"),
    ("MIT", r"\bmit\b"),
)


@dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    raw: bytes


def read(path: Path) -> Iterator[Found | Skipped]:
    """Every source file of a package or folder, in name order, under the package's licence."""
    try:
        members = list(_members(path))
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"the archive is damaged or ends early ({path.stat().st_size:,} bytes)") from error
    name = _package(members) or path.name
    licence = _licence(members)
    for member in members:
        url = f"{name}/{member.name}"
        if PurePosixPath(member.name).suffix.lstrip(".").lower() not in EXTENSIONS:
            continue
        if not allowed(licence):
            yield Skipped(f"licence not MIT, BSD or Apache: {licence or 'unknown'}", url, member.offset)
            continue
        yield _judge(member, url, licence)


def allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met with the kept licences alone: one side of each OR, both of each AND."""
    words = re.findall(r"[()]|[^\s()]+", expression)

    def either() -> bool:
        result = both()
        while words and words[0] == "OR":
            words.pop(0)
            result = both() or result
        return result

    def both() -> bool:
        result = one()
        while words and words[0] in ("AND", "WITH"):
            word = words.pop(0)
            result = (one() or word == "WITH") and result  # what follows WITH is an exception, which only adds rights
        return result

    def one() -> bool:
        word = words.pop(0) if words else ""
        if word != "(":
            return word in KEPT
        result = either()
        return bool(words) and words.pop(0) == ")" and result

    return either() and not words


def _members(path: Path) -> Iterator[_Member]:
    """Source files and what tells their licence."""
    if path.is_dir():
        for child in sorted(child for child in path.rglob("*") if child.is_file()):
            name = child.relative_to(path).as_posix()
            if _wanted(name):
                yield _Member(name, 0, child.read_bytes())
    elif path.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(path) as archive:
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                if _wanted(entry.filename):
                    yield _Member(entry.filename, entry.header_offset, archive.read(entry))
    elif re.search(r"\.(tar|tgz|tar\.\w+)$", path.name):
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
            for item in sorted((item for item in archive.getmembers() if item.isfile()), key=lambda item: item.name):
                if _wanted(item.name) and (opened := archive.extractfile(item)):
                    yield _Member(item.name, item.offset, opened.read())
    else:
        yield _Member(path.name, 0, path.read_bytes())


def _wanted(name: str) -> bool:
    known = PurePosixPath(name).suffix.lstrip(".").lower() in EXTENSIONS
    return known or bool(LICENCE_FILE.search(name)) or name.endswith((".dist-info/METADATA", "PKG-INFO"))


def _metadata(members: list[_Member]) -> email.message.Message | None:
    """The package's own, which lies highest: packages may hold others inside."""
    found = [member for member in members if member.name.endswith((".dist-info/METADATA", "PKG-INFO"))]
    return email.message_from_bytes(min(found, key=lambda member: member.name.count("/")).raw) if found else None


def _package(members: list[_Member]) -> str:
    metadata = _metadata(members)
    return f"pypi:{metadata['Name']}=={metadata['Version']}" if metadata else ""


def _licence(members: list[_Member]) -> str:
    """SPDX expression of a package, "" when nothing tells it.

    Order: License-Expression, classifiers, the short License field, the LICENSE texts nearest to the root.
    """
    metadata = _metadata(members)
    if metadata is not None:
        if expression := metadata["License-Expression"]:
            return str(expression).strip()
        classifiers = [str(value).split(" :: ")[-1] for value in metadata.get_all("Classifier", []) if str(value).startswith("License ::")]
        found = sorted({spdx for value in classifiers for name, spdx in _CLASSIFIERS.items() if value.startswith(name)})
        if found:
            return " AND ".join(found) if any(spdx not in KEPT for spdx in found) else " OR ".join(found)
        short = str(metadata["License"] or "")
        if 0 < len(short) < 100 and (named := _match(_NAMES, short)):
            return named
    texts = sorted((member for member in members if LICENCE_FILE.search(member.name)), key=lambda m: (m.name.count("/"), m.name))
    for member in texts:
        if known := _match(_TEXTS, member.raw.decode("utf-8", "replace")):
            return known
    return ""


def _match(patterns: tuple[tuple[str, str], ...], text: str) -> str:
    return next((spdx for spdx, pattern in patterns if re.search(pattern, text, re.IGNORECASE)), "")


def _judge(member: _Member, url: str, licence: str) -> Found | Skipped:
    try:
        text = member.raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Skipped("not UTF-8", url, member.offset)
    if not text.strip():
        return Skipped("empty file", url, member.offset)
    lengths = [len(line) for line in text.splitlines()]
    if max(lengths) > MAXIMUM_LINE:
        return Skipped("line over 1,000 characters", url, member.offset)
    if sum(lengths) / len(lengths) > AVERAGE_LINE:
        return Skipped("average line over 100 characters", url, member.offset)
    if sum(map(str.isalnum, text)) / len(text) < MINIMUM_ALPHANUMERIC:
        return Skipped("few alphanumeric characters", url, member.offset)
    return Found(url, without_header(text), member.offset, digest(member.raw), member.name, licence)


_COMMENT_LINE = re.compile(r"[ \t]*(#(?!\s*(?:include|define|if|ifdef|ifndef|pragma|undef|import|!|\[))|//|--(?!-))[^\n]*\n|[ \t]*\n")
_COMMENT_BLOCK = re.compile(r"\s*/\*[\s\S]*?\*/[ \t]*\n?")
_RIGHTS = re.compile(r"copyright|licen[cs]e|spdx-|all rights reserved", re.IGNORECASE)
_KEEP_FIRST = re.compile(r"(#![^\n]*\n)?(#[^\n]*coding[:=][^\n]*\n)?")


def without_header(text: str) -> str:
    """A source text without the comment at its top, where that comment speaks of copyright or licence.

    `#!` and coding lines, `#include` and its kin, and Markdown headings (`# Title` with no word of rights) stay.
    """
    first = _KEEP_FIRST.match(text)
    start = first.end() if first else 0
    block = _COMMENT_BLOCK.match(text, start)
    end = block.end() if block else start
    if not block:
        while line := _COMMENT_LINE.match(text, end):
            end = line.end()
    if end == start or not _RIGHTS.search(text, start, end):
        return text
    return text[:start] + text[end:].lstrip("\n")
