"""Source code: the files of a package (wheel, source archive or folder) under MIT, BSD or Apache licences.

These are the paper's. A file's licence is what it says at its top; else that of the nearest LICENSE in a
folder above it; else the package's: what its metadata say, and where they say nothing clear, what its own
LICENSE text is recognised as.
"""

import email
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from puna.corpus import licences
from puna.corpus.readers.code import source_file
from puna.corpus.record import RawDocument, SkippedRecord
from puna.corpus.sources import code_files
from puna.corpus.sources.members import ARCHIVE, Member, members
from puna.errors import UserError

LICENCE_FILE = re.compile(r"(^|/)(LICEN[CS]ES?|COPYING|UNLICENSE)([.-][^/]*)?$", re.IGNORECASE)
LICENCE_BYTES = 200_000  # of a LICENSE text that are looked at
LONGEST = 1_000  # characters of a package's name or licence, as its metadata state them
# The package's own LICENSE, beside which LICENSE.python or LICENSE-ICONS are of parts.
_MAIN_LICENCE = re.compile(r"(?:un)?(?:licen[cs]e|copying)(?:\.(?:txt|md|rst))?", re.IGNORECASE)
_METADATA = re.compile(
    r"(?:^|/)(?:[^/]+\.(?:dist|egg)-info/METADATA|PKG-INFO|package\.json|Cargo\.toml|pyproject\.toml)$"
)
_METADATA_FOLDER = re.compile(r"(?:^|/)[^/]+\.(?:dist|egg)-info(?:/.*)?$")
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


def read(path: Path) -> Iterator[RawDocument | SkippedRecord]:
    """Read every source file of a package or folder, in the archive's order (a folder's: by name).

    One file is in memory at a time. Raises UserError where an archive is damaged, or a LICENSE cannot be
    read, after everything that can be.
    """
    package, licence, nested, damage = _package(path)
    for member in _members(path, code_files.is_source_code):
        url = f"{package}/{member.name}"
        if member.size > source_file.MAXIMUM_BYTES:
            yield SkippedRecord("file over 5 MB", url, member.offset)
            continue
        try:
            raw = member.load()
        except UserError as error:
            if path.is_dir():
                yield SkippedRecord("cannot be read", url, member.offset)
            else:
                damage = damage or error
            continue
        above = (nested.get(parent.as_posix()) for parent in PurePosixPath(member.name).parents)
        nearest = next((expression for expression in above if expression), licence)
        yield source_file.filter_file(raw, member.name, url, member.offset, nearest)
    if damage:
        raise damage


def _members(path: Path, wanted: Callable[[str], Any]) -> Iterator[Member]:
    """The files whose names are wanted of a folder or an archive, or the one file."""
    if path.is_dir():
        files = [child for child in path.rglob("*") if child.is_file() and not child.is_symlink()]
        for file in sorted(files):
            name = file.relative_to(path).as_posix()
            if wanted(name):
                yield Member(file, name, 0, file.stat().st_size, _opener(file))
    elif ARCHIVE.search(path.name):
        yield from members(path, wanted)
    elif wanted(path.name):
        yield Member(path, path.name, 0, path.stat().st_size, _opener(path))


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _package(path: Path) -> tuple[str, str, dict[str, str], UserError | None]:
    """Read what a package says of itself: (name, SPDX expression or "", nested, damage).

    nested: expression by folder of the LICENSE texts deeper inside. damage: why they are not all.
    """
    statements: list[tuple[str, str, str]] = []  # (file, name of a package, expression)
    damage: UserError | None = None
    try:
        for member in _members(path, lambda name: LICENCE_FILE.search(name) or _METADATA.search(name)):
            if member.size > source_file.MAXIMUM_BYTES:
                continue
            try:
                raw = member.load()
            except UserError as error:
                # What cannot be read may set conditions: it counts as an unknown licence.
                damage, raw = damage or error, b""
            statements.append((member.name, *_statement(member.name, raw)))
    except UserError as error:
        damage = damage or error
    statements.sort(key=lambda statement: _depth_order(statement[0]))
    root = _folder(statements[0][0]) if statements else "."
    texts: dict[str, list[str]] = {}
    main: list[str] = []
    package = stated = ""
    for name, package_name, expression in statements:
        if LICENCE_FILE.search(name):
            texts.setdefault(_folder(name), []).append(expression)
            if _folder(name) == root and _MAIN_LICENCE.fullmatch(PurePosixPath(name).name):
                main.append(expression)
        elif _folder(name) == root:
            package, stated = package or package_name, stated or expression
    texts[root] = main if main and stated else texts.get(root, [])
    own = [text for text in texts.pop(root) if text != licences.UNKNOWN]
    nested = {folder: _all(expressions) for folder, expressions in texts.items()}
    return package or path.name, _agreed(stated, own), nested, damage


def _depth_order(name: str) -> tuple[int, bool, str]:
    """Return a key that sorts files of outer folders first, then those without a suffix, then by name."""
    return len(PurePosixPath(_folder(name)).parts), "." in PurePosixPath(name).name, name


def _statement(name: str, raw: bytes) -> tuple[str, str]:
    """Read a LICENSE or metadata file: (package it names or "", SPDX expression).

    Names and licences that are longer than anyone writes by hand are not kept in memory.
    """
    if LICENCE_FILE.search(name):
        return "", licences.recognised(raw[:LICENCE_BYTES].decode("utf-8", "replace")) or licences.UNKNOWN
    package, expression = _metadata(name, raw)
    if len(package) > LONGEST:
        package = ""
    if len(expression) > LONGEST:
        expression = licences.UNKNOWN
    return package, expression


def _folder(name: str) -> str:
    """Return the folder that a LICENSE or metadata file speaks for: of .dist-info, that of its package."""
    return _METADATA_FOLDER.sub("", PurePosixPath(name).parent.as_posix()).strip("/") or "."


def _agreed(stated: str, texts: list[str]) -> str:
    """Combine what metadata and LICENSE texts say.

    Metadata go first, unless a text adds conditions or is another licence.
    """
    if not stated:
        return _all(texts)
    leading = [re.split(" AND | OR ", text)[0] for text in texts]
    if stated == "BSD" and leading and leading[0].startswith("BSD-"):
        stated = leading[0]
    single = [text for text in texts if text.count(" AND ") == 1]  # with more it is a bundle
    against = [name for text in single for name in licences.ADDITIONS if name in text]
    if " OR " not in stated:
        against += [name for name in leading if not licences.allowed(name)]
    return _all([stated, *against]) if licences.allowed(stated) else stated


def _all(expressions: list[str]) -> str:
    """Return the SPDX expression that asks for all of these."""
    terms = list(dict.fromkeys(expressions))
    if len(terms) > 1:
        terms = [f"({term})" if " OR " in term else term for term in terms]
    return " AND ".join(terms)


def _metadata(name: str, raw: bytes) -> tuple[str, str]:
    """Read a package's metadata: (name with version, SPDX expression), "" for what they do not state."""
    try:
        if name.endswith("package.json"):
            row = json.loads(raw)
            kinds = row.get("licenses") or [row.get("license")]
            names = [str(kind.get("type", "") if isinstance(kind, dict) else kind or "") for kind in kinds]
            return f"npm:{row['name']}@{row['version']}", _field(" OR ".join(names))
        if name.endswith(".toml"):
            row = tomllib.loads(raw.decode())
            if "project" not in row:
                row = row["package"]
                return f"crates:{row['name']}@{row['version']}", _field(str(row.get("license", "")))
            row = row["project"]
            kind = row.get("license", "")
            expression = _field(kind if isinstance(kind, str) else str(kind.get("text", "")))
            expression = _classified(row.get("classifiers", [])) or expression
            return f"pypi:{row['name']}=={row['version']}", expression
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
    message = email.message_from_bytes(raw)
    package = ""
    if message["Name"] and message["Version"]:
        package = f"pypi:{message['Name']}=={message['Version']}"
    expression = str(message["License-Expression"] or "").strip()
    expression = expression or _classified([str(value) for value in message.get_all("Classifier", [])])
    return package, expression or _field(str(message["License"] or ""))


def _classified(classifiers: list[str]) -> str:
    """Return the SPDX expression of trove classifiers: any of them where all are allowed, else all."""
    names = [value.split(" :: ")[-1] for value in classifiers if value.startswith("License ::")]
    terms = {spdx for name in names for prefix, spdx in _CLASSIFIERS.items() if name.startswith(prefix)}
    return (" OR " if all(map(licences.allowed, terms)) else " AND ").join(sorted(terms))


def _field(value: str) -> str:
    """Return the SPDX expression of a free field, a short name or a whole text; "" where it names none."""
    if re.match(r"\s*(?:$|unknown\s*$|none\s*$|see\b)", value, re.IGNORECASE):
        return ""
    return licences.named(value) if len(value) < 100 else licences.recognised(value)
