"""Licences by name or text as SPDX expressions, and whether they let source code into the corpus.

The paper (section 2.1): "projects that are distributed under the Apache, BSD and MIT licenses". Everything in
doubt counts as not among them: a text with a known licence and another one needs both, and one with
conditions of its own is not that licence.
"""

import functools
import re

from puna.corpus.record import digest
from puna.text.lists import listed

# By their names in lower case; "BSD" means two or three clauses, it is not said which.
PERMITTED = {key.lower(): key for key in ("MIT", "BSD-2-Clause", "BSD-3-Clause", "BSD", "Apache-2.0")}
UNKNOWN = "LicenseRef-unknown"
_IDENTIFIER = r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,80}[A-Za-z0-9])?\+?"
# SPDX exceptions, which only add rights.
_EXCEPTION = re.compile(r"exception|^linux-syscall-note$|^shl-", re.IGNORECASE)
_SPDX_LINE = re.compile(r"SPDX-License-Identifier:[ \t]{0,8}([^\n]{1,300})")
_SPDX_START = re.compile(
    rf"[( \t]{{0,8}}{_IDENTIFIER}[) \t]{{0,8}}"
    rf"(?:(?<=[ \t)])(?:AND|OR|WITH|and|or|with)[( \t]{{1,8}}{_IDENTIFIER}[) \t]{{0,8}}){{0,20}}"
)


def allowed(expression: str) -> bool:
    """Whether the permitted licences satisfy an SPDX expression: one side of each OR, both sides of each AND.

    WITH binds before AND, AND before OR (SPDX 2.3, annex D). Text that is no expression is not allowed.
    """
    words = re.findall(r"[()]|[^\s()]+", expression)
    if len(words) > 200:
        return False

    def alternatives() -> bool:
        result = conjunction()
        while words and words[0] in ("OR", "or"):
            words.pop(0)
            result = conjunction() or result
        return result

    def conjunction() -> bool:
        result = licence()
        while words and words[0] in ("AND", "and"):
            words.pop(0)
            result = licence() and result
        return result

    def licence() -> bool:
        word = words.pop(0) if words else ""
        if word == "(":
            result = alternatives()
            return bool(words) and words.pop(0) == ")" and result
        result = word.removesuffix("+").lower() in PERMITTED
        if words and words[0] in ("WITH", "with"):
            words.pop(0)
            result = bool(words) and bool(_EXCEPTION.search(words.pop(0))) and result
        return result

    return alternatives() and not words


def declared(text: str) -> str:
    """Return the SPDX expression that a file's header states; several are joined by AND, "" means none."""
    found = []
    for line in _SPDX_LINE.finditer(text, 0, 8_000):
        start = _SPDX_START.match(line[1])
        expression = start[0].strip() if start else UNKNOWN
        while expression.endswith(")") and expression.count(")") > expression.count("("):
            expression = expression[:-1].rstrip()  # the bracket of an OCaml comment
        if expression not in found:
            found.append(expression)
    return "".join(found) if len(found) < 2 else " AND ".join(f"({expression})" for expression in found)


# Patterns of licence texts, of short names and of addresses; "<...>" is a part that several share.
_LISTS = listed(__file__, "licences.json")


def _pattern(written: str) -> str:
    return re.sub("<([a-z_]+)>", lambda part: _LISTS["parts"][part[1]], written)


# What SPDX and others put beside a name: BSD 3-Clause "New" or "Revised" License.
_QUOTED = r"[\"'“‘](?:new|revised|modified|simplified|freebsd|netbsd)[\"'”’]"
_NICKNAME = re.compile(
    rf"(?<=clause)\s+\(?{_QUOTED}(?:\s*(?:or|/|,)\s*{_QUOTED})*\)?(?!\w)"
    r"|(?<=clause)\s+\(?(?:new or revised|revised or new)\)?(?!\w)",
    re.IGNORECASE,
)
_PLURAL_NAME = re.compile(r"(?i)\b(MIT(?: licen[cs]e)?) *\((?:expat|x11|mit)\)")
_GNU = re.compile(
    r"(?i)(?:the )?(?:gnu )?(?:(?P<kind>affero|lesser|library) )?"
    r"(?:general public licen[cs]e|(?P<letter>[AL]?)GPL)[ ,(-]*v?(?:ersion )?(?P<version>[123](?:\.\d)?)\)?"
    r"(?P<later>\+|[ ,-]*\(?(?:or|and) (?:any )?(?:later|newer)(?: version)?s?\)?| only)?"
    r"(?: \([AL]?GPL[\w.+ -]*\))?"
)


def named(name: str) -> str:
    """Convert a licence's short name, as in a package's field, to an SPDX expression; "" for "".

    It may be an expression, or a key of BigQuery's ("bsd-3-clause"). Names joined by "or" or "/" give OR, by
    "and", "," or "&" give AND. An unknown name stays as it is, its spaces made hyphens.
    """
    name = _PLURAL_NAME.sub(r"\1", _NICKNAME.sub(" ", name).strip(" \t\n\"'“”‘’"))
    if re.search(r"(?i)general public|\b[AL]?GPLv?\d", name) and (gnu := _GNU.fullmatch(name.strip())):
        kind = (gnu["kind"] or gnu["letter"] or "")[:1].upper()
        version = gnu["version"] if "." in gnu["version"] else f"{gnu['version']}.0"
        later = re.search(r"later|newer|\+", gnu["later"] or "", re.IGNORECASE)
        return f"{kind}GPL-{version}-{'or-later' if later else 'only'}"
    expression = name.strip()
    is_spdx = declared(f"SPDX-License-Identifier: {name}") == expression
    if is_spdx and re.search(r" (?:AND|OR|WITH) |^\S+$", expression):
        return re.sub(r"[\w.+-]+", lambda word: PERMITTED.get(word[0].lower(), word[0]), expression)
    name = re.sub(r"(?i),\s*(?=v(?:ersion)?\b)", " ", name)
    terms = []
    for side in re.split(r"(?i)\s+or\s+|\s*/\s*(?!x11)|\|", name):
        names = [part for part in re.split(r"(?i)\s+and\s+|[,;&]", side) if part.strip()]
        if names:
            terms.append(" AND ".join(dict.fromkeys(map(_single, names))))
    if len(terms) < 2:
        return "".join(terms)
    return " OR ".join(f"({term})" if " " in term else term for term in dict.fromkeys(terms))


def _single(name: str) -> str:
    plain = " ".join(re.findall(r"[a-z0-9.]+", name.lower()))
    known = next((spdx for spdx, pattern in _LISTS["names"] if re.fullmatch(pattern, plain)), "")
    return known or "-".join(re.findall(r"[A-Za-z0-9.]+", name)) or UNKNOWN


# Licence texts, in lower case with one space for whatever is not a letter, a digit or a dot within a word, in
# the order in which they are looked for. A text may contain several.
_TEXTS = tuple((name, re.compile(_pattern(written))) for name, written in _LISTS["texts"])
_CHOICE = re.compile(
    r"\bdual(?:ly)? licen[cs]ed|alternatively|at your (?:option|choice)(?! any later)"
    r"|licen[cs]e of your choice|\beither (?:the )?(?:mit|bsd|apache|[al]?gpl)\b"
)
# The sentences of MIT, BSD and Apache texts; the rest of a text must not set conditions of its own.
_STANDARD = re.compile("|".join(map(_pattern, _LISTS["standard_sentences"])))
_CONDITION = re.compile(
    r"\b(?:must|shall|may (?:not|only)|should|required|requested|asked|provided that|except|prohibited"
    r"|you agree)\b"
)
# The terms of Apache-2.0, from "definitions" to the end of section 9, by the digest of their words.
_APACHE_TERMS = re.compile(
    r"1 definitions license shall mean.{5000,20000}?accepting any such warranty or additional liability"
)
_APACHE_DIGEST = "9d6ffee88fef15058256aa822373d159"
# On top of a licence, never an alternative to it.
ADDITIONS = ("Commons-Clause", "LicenseRef-restricted", "LicenseRef-conditions")
_ABOUT_RIGHTS = re.compile(r"licen[cs]|permission|redistribut|copyright|gpl|commons", re.IGNORECASE)


@functools.lru_cache(maxsize=4096)
def recognised(text: str, whole: bool = True) -> str:
    """Recognise the licences that a text contains or names, in order, as an SPDX expression; "" for none.

    Several licences are joined by AND; by OR where a short text offers a choice ("dual licensed",
    "alternatively"). A licence with conditions of its own is joined by AND to a LicenseRef that is not
    permitted. Wrapping, comment marks, quotes and copyright lines make no difference. whole: the text is a
    LICENSE file, and nothing else in it may set conditions; else it is a file's header, where that counts
    within the licence only.
    """
    if not _ABOUT_RIGHTS.search(text):
        return ""
    plain = " ".join(re.findall(r"[a-z0-9]+(?:\.[a-z0-9]+)*", text.lower()))
    starts: dict[str, int] = {}
    for name, pattern in _TEXTS:
        if match := pattern.search(plain):
            starts[name] = min(match.start(), starts.get(name, match.start()))
    if any(name.startswith("BSD-") for name in starts):
        starts.pop("BSD", None)
    if allowed(" AND ".join(starts)) and _CONDITION.search(_rest(plain, whole)):
        starts["LicenseRef-conditions"] = len(plain)
    found = sorted(starts, key=lambda name: starts[name])
    choice = len(plain) < 3_000 and _CHOICE.search(plain) and not any(name in starts for name in ADDITIONS)
    return (" OR " if choice else " AND ").join(found)


def _rest(plain: str, whole: bool) -> str:
    """Text besides the standard sentences: all of it, or what is between the first and the last of them."""
    plain = _APACHE_TERMS.sub(lambda terms: "\n" if digest(terms[0]) == _APACHE_DIGEST else terms[0], plain)
    pieces = _STANDARD.sub("\n", plain).split("\n")
    return "\n".join(pieces if whole else pieces[1:-1])


# Jurisdictions of Creative Commons' ported licences that have identifiers of their own (SPDX list 3.27).
_PORTED = frozenset(_LISTS["ported_creative_commons"].split())
_CC_ADDRESS = re.compile(
    r"(?:https?:)?//(?:[a-z0-9-]+\.)?creativecommons\.org/(?:licen[sc]es/([a-z-]+)|publicdomain/(zero|mark))"
    r"(?:/([1-4]\.[0-9]))?(?:/([a-z]{2,3})(?![a-z-]))?",
    re.IGNORECASE,
)
_CC_NAME = re.compile(
    r"\b(?:cc[ -]|creative commons )(by(?:[ -](?:nc|nd|sa)){0,2})[ -]?([1-4]\.[0-9])", re.IGNORECASE
)
_CC_WORDS = re.compile(
    r"\bcreative commons attribution"
    r"((?:[ -]+(?:non-?commercial|share-?alike|no-?deriv(?:ative)?s(?: works)?)){0,2})[ -]*([1-4]\.[0-9])",
    re.IGNORECASE,
)


def of_address(url: str) -> str:
    """Return the SPDX identifier of the licence at a URL, "" for an address of no licence that is known.

    A licence of Creative Commons without a version is a LicenseRef; a ported one that SPDX does not list goes
    by the version alone.
    """
    url = re.sub(r"\Ahttps?://web\.archive\.org/web/\w+/", "", url.strip())
    if found := _CC_ADDRESS.match(url):
        kind, domain, version, place = (part.upper() if part else "" for part in found.groups())
        if domain:
            return "CC0-1.0" if domain == "ZERO" else "CC-PDM-1.0"
        return _creative_commons(kind.strip("-"), version, place)
    for pattern, name in _LISTS["addresses"]:
        if match := re.search(pattern, url, re.IGNORECASE):
            words = [PERMITTED.get(word.lower(), word.upper()) for word in match.groups()]
            return match[1] if "spdx" in pattern else name.format(*words)
    return ""


def _creative_commons(kind: str, version: str, place: str) -> str:
    if kind == "PUBLICDOMAIN":
        return "CC-PDDC"
    if kind == "BY-ND-NC":  # as version 1.0 has it
        kind = "BY-NC-ND"
    if kind not in ("BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND"):
        return ""
    if not version:
        return f"LicenseRef-CC-{kind}"
    ported = f"{kind}-{version}-{place}"
    return f"CC-{ported}" if ported in _PORTED else f"CC-{kind}-{version}"


def of_notice(text: str) -> str:
    """Return the SPDX identifier of the Creative Commons licence that a short notice names, "" for none."""
    if found := _CC_NAME.search(text):
        return _creative_commons(re.sub("[ -]", "-", found[1].upper()), found[2], "")
    if found := _CC_WORDS.search(text):
        words = found[1].lower()
        terms = (("NC", "commercial"), ("ND", "deriv"), ("SA", "alike"))
        kind = "-".join(["BY", *(short for short, word in terms if word in words)])
        return _creative_commons(kind, found[2], "")
    return "CC0-1.0" if re.search(r"\bCC0\b|\bCC Zero\b", text, re.IGNORECASE) else ""
