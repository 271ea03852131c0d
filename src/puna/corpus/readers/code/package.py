"""Source code: the files of a package (wheel, source archive or folder) whose licence is MIT, BSD or Apache,
as in the paper.

A file's licence is what it says at its top; else that of the nearest LICENSE in a folder above it; else the
package's: what its metadata say, and where they say nothing clear, what its own LICENSE text is recognised
as.
"""

import email
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from puna.corpus import licences
from puna.corpus.readers.code import source_file
from puna.corpus.record import Found, Skipped
from puna.corpus.sources import code_files
from puna.corpus.sources.members import ARCHIVE, Member, members
from puna.errors import UserError

LICENCE_FILE = re.compile(r"(^|/)(LICEN[CS]ES?|COPYING|UNLICENSE)([.-][^/]*)?$", re.IGNORECASE)
LICENCE_BYTES = 200_000  # of a LICENSE text are looked at
LONGEST = 1_000  # characters of a package's name or licence as its metadata state them
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


def read(path: Path) -> Iterator[Found | Skipped]:
    """Every source file of a package or folder, in the archive's order (a folder's: by name). One file is in
    memory at a time.

    Raises UserError where an archive is damaged, or a LICENSE cannot be read, behind all that can be.
    """
    package, licence, nested, damage = _package(path)
    for member in _members(path, code_files.is_source_code):
        url = f"{package}/{member.name}"
        if member.size > source_file.MAXIMUM_BYTES:
            yield Skipped("file over 5 MB", url, member.offset)
            continue
        try:
            raw = member.load()
        except UserError as error:
            if path.is_dir():
                yield Skipped("cannot be read", url, member.offset)
            else:
                damage = damage or error
            continue
        above = (nested.get(parent.as_posix()) for parent in PurePosixPath(member.name).parents)
        yield source_file.judge(
            raw, member.name, url, member.offset, next((near for near in above if near), licence)
        )
    if damage:
        raise damage


def _members(path: Path, wanted: Callable[[str], Any]) -> Iterator[Member]:
    """The files whose names are wanted of a folder or an archive, or the one file."""
    if path.is_dir():
        for child in sorted(child for child in path.rglob("*") if child.is_file() and not child.is_symlink()):
            name = child.relative_to(path).as_posix()
            if wanted(name):
                yield Member(child, name, 0, child.stat().st_size, lambda child=child: child.open("rb"))  # type: ignore[misc]
    elif ARCHIVE.search(path.name):
        yield from members(path, wanted)
    elif wanted(path.name):
        yield Member(path, path.name, 0, path.stat().st_size, lambda: path.open("rb"))


_MAIN = re.compile(r"(?:un)?(?:licen[cs]e|copying)(?:\.(?:txt|md|rst))?", re.IGNORECASE)


def _package(path: Path) -> tuple[str, str, dict[str, str], UserError | None]:
    """(name, SPDX expression or "", expression by folder of the LICENSE texts deeper inside) of a package,
    and why they are not all."""
    found: list[tuple[str, str, str]] = []  # (file, name of a package, expression)
    damage: UserError | None = None
    try:
        for member in _members(path, lambda name: LICENCE_FILE.search(name) or _METADATA.search(name)):
            if member.size > source_file.MAXIMUM_BYTES:
                continue
            try:
                raw = member.load()
            except (
                UserError
            ) as error:  # what cannot be read may set conditions: it counts as a text that is not known
                damage, raw = damage or error, b""
            found.append((member.name, *_statement(member.name, raw)))
    except UserError as error:
        damage = damage or error
    found.sort(
        key=lambda item: (
            len(PurePosixPath(_folder(item[0])).parts),
            "." in PurePosixPath(item[0]).name,
            item[0],
        )
    )
    root = _folder(found[0][0]) if found else "."
    texts: dict[str, list[str]] = {}
    main: list[
        str
    ] = []  # of the package's own LICENSE, beside which LICENSE.python or LICENSE-ICONS are of parts
    package = stated = ""
    for name, told, expression in found:
        if LICENCE_FILE.search(name):
            texts.setdefault(_folder(name), []).append(expression)
            if _folder(name) == root and _MAIN.fullmatch(PurePosixPath(name).name):
                main.append(expression)
        elif _folder(name) == root:
            package, stated = package or told, stated or expression
    texts[root] = main if main and stated else texts.get(root, [])
    own = [text for text in texts.pop(root) if text != licences.UNKNOWN]
    nested = {folder: _all(expressions) for folder, expressions in texts.items()}
    return package or path.name, _agreed(stated, own), nested, damage


def _statement(name: str, raw: bytes) -> tuple[str, str]:
    """(package it names or "", SPDX expression) of a LICENSE or metadata file; what no one writes by hand is
    not kept in memory."""
    if LICENCE_FILE.search(name):
        return "", licences.recognised(raw[:LICENCE_BYTES].decode("utf-8", "replace")) or licences.UNKNOWN
    package, expression = _metadata(name, raw)
    return package if len(package) <= LONGEST else "", expression if len(
        expression
    ) <= LONGEST else licences.UNKNOWN


def _folder(name: str) -> str:
    """The folder that a LICENSE or metadata file speaks for: that of its package where it lies in a
    .dist-info or .egg-info."""
    return _METADATA_FOLDER.sub("", PurePosixPath(name).parent.as_posix()).strip("/") or "."


def _agreed(stated: str, texts: list[str]) -> str:
    """What metadata and LICENSE texts say together. Metadata go first, unless a text adds conditions or is
    another licence."""
    if not stated:
        return _all(texts)
    leading = [re.split(" AND | OR ", text)[0] for text in texts]
    if stated == "BSD" and leading and leading[0].startswith("BSD-"):
        stated = leading[0]
    against = [
        name for text in texts for name in licences.ADDITIONS if name in text and text.count(" AND ") == 1
    ]  # more: a bundle
    if " OR " not in stated:
        against += [name for name in leading if not licences.allowed(name)]
    return _all([stated, *against]) if licences.allowed(stated) else stated


def _all(expressions: list[str]) -> str:
    terms = list(dict.fromkeys(expressions))
    return (
        "".join(terms)
        if len(terms) < 2
        else " AND ".join(f"({term})" if " OR " in term else term for term in terms)
    )


def _metadata(name: str, raw: bytes) -> tuple[str, str]:
    """(name with version, SPDX expression) that a package's metadata state, "" for what they do not."""
    try:
        if name.endswith("package.json"):
            row = json.loads(raw)
            kinds = row.get("licenses") or [row.get("license")]
            words = [str(kind.get("type", "") if isinstance(kind, dict) else kind or "") for kind in kinds]
            return f"npm:{row['name']}@{row['version']}", _field(" OR ".join(words))
        if name.endswith(".toml"):
            row = tomllib.loads(raw.decode())
            if "project" not in row:
                return f"crates:{row['package']['name']}@{row['package']['version']}", _field(
                    str(row["package"].get("license", ""))
                )
            row, kind = row["project"], row["project"].get("license", "")
            expression = _field(kind if isinstance(kind, str) else str(kind.get("text", "")))
            return f"pypi:{row['name']}=={row['version']}", _classified(
                row.get("classifiers", [])
            ) or expression
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
    message = email.message_from_bytes(raw)
    package = (
        f"pypi:{message['Name']}=={message['Version']}" if message["Name"] and message["Version"] else ""
    )
    if expression := str(message["License-Expression"] or "").strip():
        return package, expression
    return package, _classified([str(value) for value in message.get_all("Classifier", [])]) or _field(
        str(message["License"] or "")
    )


def _classified(classifiers: list[str]) -> str:
    """SPDX expression of Python's trove classifiers: any of them where all are kept licences, else all."""
    names = [value.split(" :: ")[-1] for value in classifiers if value.startswith("License ::")]
    found = sorted({spdx for name in names for known, spdx in _CLASSIFIERS.items() if name.startswith(known)})
    return (" OR " if all(map(licences.allowed, found)) else " AND ").join(found)


def _field(value: str) -> str:
    """SPDX expression of a free field: a short name or a whole text; "" where it names nothing."""
    if re.match(r"\s*(?:$|unknown\s*$|none\s*$|see\b)", value, re.IGNORECASE):
        return ""
    return licences.named(value) if len(value) < 100 else licences.recognised(value)
