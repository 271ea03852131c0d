"""Opting out: URLs that people do not want in a corpus, by pattern, by domain or by robots rules, from files
of the user's.

URLs are compared in a normal form: host in lower case and Punycode without a default port, percent-encoding
as in RFC 3986, section 6.2.2, no fragment.
"""

import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from puna.errors import UserError

BY_PATTERN, BY_DOMAIN, BY_ROBOTS = "opt-out: URL pattern", "opt-out: domain", "opt-out: robots"
REASONS = (BY_PATTERN, BY_DOMAIN, BY_ROBOTS)
_URL = re.compile(
    r"\s*(?:([A-Za-z][A-Za-z0-9+.-]*)?:?//)?(?:[^/?#@\s]*@)?(\[[0-9A-Fa-f:.]*\]|[^/?#:\s\\]*)(?::(\d*))?([/?][^#]*)?(?:#.*)?",
    re.DOTALL,
)
MAXIMUM_HOST = 253  # characters of a name (RFC 1035)
_DEFAULT_PORTS = {"http": "80", "https": "443", "ftp": "21", "": ""}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|[^!-~]|[\"<>\\^`{|}*$]|%")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HOST = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?|\[[0-9a-f:.]+\]"
)


def normal(url: str) -> tuple[str, str]:
    """(host, path with query) of a URL, normalised; host has its port where that is not the scheme's own, ""
    where there is none."""
    match = _URL.fullmatch(url)
    if match is None or (match[1] is None and "//" not in url and "." not in match[2]):
        return "", ""
    host = _host(match[2])
    if match[3] and match[3] != _DEFAULT_PORTS.get((match[1] or "").lower()):
        host += ":" + match[3]
    path = _escaped(match[4] or "/")
    if not path.startswith("/"):
        path = "/" + path
    if "/." in path:
        bare, mark, query = path.partition("?")
        path = _without_dots(bare) + mark + query
    return host, path


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4."""
    out: list[str] = []
    pieces = path.split("/")
    for number, piece in enumerate(pieces):
        if piece not in (".", ".."):
            out.append(piece)
            continue
        if piece == ".." and len(out) > 1:
            out.pop()
        if number == len(pieces) - 1:
            out.append("")
    return "/".join(out)


def _host(host: str) -> str:
    host = urllib.parse.unquote(host).rstrip(".").lower()
    if host.isascii() or len(host) > MAXIMUM_HOST:
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host


def _escaped(path: str, special: str = "") -> str:
    """Percent-encoding made uniform: unreserved characters plain, all others that need it in capitals; those
    of `special` as they are."""

    def one(match: re.Match[str]) -> str:
        if match[1]:
            code = int(match[1], 16)
            return chr(code) if code in _UNRESERVED else match[0].upper()
        if match[0] in special:
            return match[0]
        return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))

    return _ESCAPE.sub(one, path)


class _Rule(NamedTuple):
    """pieces: what lies between the `*` of a pattern; whole: whether it ended in `$`; length: of the pattern;
    allow: or disallow."""

    pieces: tuple[str, ...]
    whole: bool
    length: int
    allow: bool

    def matches(self, text: str) -> bool:
        """Whether the pattern matches from the start of a text; linear in it for each piece, whatever the
        pattern."""
        first, *rest = self.pieces
        if not text.startswith(first):
            return False
        if not rest:
            return not self.whole or len(text) == len(first)
        end = len(first)
        for piece in rest[:-1] if self.whole else rest:
            end = text.find(piece, end)
            if end < 0:
                return False
            end += len(piece)
        return not self.whole or (text.endswith(rest[-1]) and len(text) - len(rest[-1]) >= end)


def _rule(pattern: str, allow: bool = False) -> _Rule:
    whole = pattern.endswith("$")
    text = _escaped(pattern.removesuffix("$"), special="*")
    return _Rule(tuple(re.sub(r"\*+", "*", text).split("*")), whole, len(text.encode()) + whole, allow)


class OptOut:
    """What the user's opt-out files refuse; each file is read once. Raises UserError with file and row for
    what is not understood.

    patterns: a URL pattern a line, HOST/PATH with or without a scheme, where `*` stands for any characters of
    a host or of a path. The path, with its query, has to match from its start, and up to its end where the
    pattern ends in `$`.
    domains: a domain a line, which covers its subdomains.
    robots: robots rules (RFC 9309) of many hosts, each host's after a line `Host: HOST`.
    agents: whose robots rules count; a URL is refused when the rules for any of them disallow it.
    `#` starts a comment in all three files.
    """

    def __init__(
        self,
        patterns: Path | None = None,
        domains: Path | None = None,
        robots: Path | None = None,
        agents: tuple[str, ...] = ("CCBot",),
    ) -> None:
        self.domains = frozenset(_domains(domains)) if domains else frozenset()
        self.by_host: dict[str, list[_Rule]] = {}
        self.by_hosts: list[tuple[_Rule, _Rule]] = []
        for host, rule in _patterns(patterns) if patterns else ():
            if isinstance(host, str):
                self.by_host.setdefault(host, []).append(rule)
            else:
                self.by_hosts.append((host, rule))
        self.robots = _robots(robots, tuple(agent.lower() for agent in agents)) if robots else {}

    def refuses(self, url: str) -> str:
        """Why a URL must not be used, one of REASONS; "" when nothing is against it."""
        host, path = normal(url)
        if not host:
            return ""
        if any(rule.matches(path) for rule in self.by_host.get(host, ())):
            return BY_PATTERN
        if any(names.matches(host) and rule.matches(path) for names, rule in self.by_hosts):
            return BY_PATTERN
        if self.domains:
            name = re.sub(r":\d+$", "", host)
            if len(name) > MAXIMUM_HOST:
                name = name[-MAXIMUM_HOST:].partition(".")[2]
            while name:
                if name in self.domains:
                    return BY_DOMAIN
                name = name.partition(".")[2]
        for rules in self.robots.get(host, ()):
            if _disallowed(rules, path):
                return BY_ROBOTS
        return ""


def _disallowed(rules: list[_Rule], path: str) -> bool:
    """RFC 9309, section 2.2.2: the longest match decides, of two equally long ones the one that allows;
    robots.txt is always allowed."""
    best = max(((rule.length, rule.allow) for rule in rules if rule.matches(path)), default=(0, True))
    return not best[1] and path != "/robots.txt"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(row, text) of the lines that say something."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for row, line in enumerate(file, 1):
                said = re.sub(r"(?:^|\s)#.*", "", line.rstrip("\n")).strip()
                if said:
                    yield row, said
    except OSError as error:
        raise UserError(f"{path}: no opt-out file there ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start} of a part); save the file as UTF-8"
        ) from error


def _named_host(path: Path, row: int, name: str) -> str:
    plain = name.lower()
    if _HOST.fullmatch(plain):
        return plain
    host, _ = normal(f"//{name}")
    if not _HOST.fullmatch(re.sub(r":\d+$", "", host)) or re.search(r"[/?\s]", name):
        raise UserError(f"{path}, row {row}: {name[:80]!r} is no host; write a name such as example.org")
    return host


def _domains(path: Path) -> Iterator[str]:
    for row, line in _lines(path):
        yield _named_host(path, row, line.removeprefix("*").removeprefix("."))


def _patterns(path: Path) -> Iterator[tuple[str | _Rule, _Rule]]:
    """(host, or a rule on hosts where the pattern leaves it open; rule on paths)."""
    for row, line in _lines(path):
        bare = re.sub(r"^(?:[A-Za-z*][A-Za-z0-9+.*-]*:)?//", "", line)
        host, _, rest = bare.partition("/")
        if host.endswith("$"):
            host, rest = host[:-1], "$"
        if not host or not bare.strip("*$/") or re.search(r"\s", bare):
            raise UserError(
                f"{path}, row {row}: {line[:80]!r} is no URL pattern; write HOST/PATH, such as example.org/private/*"
            )
        yield _rule(host.lower() + "$") if "*" in host else _named_host(path, row, host), _rule("/" + rest)


def _robots(path: Path, agents: tuple[str, ...]) -> dict[str, list[list[_Rule]]]:
    """For every host the rules of each agent: those of all groups that name it, or of the groups for `*`
    where none does."""
    groups: dict[str, dict[str, list[_Rule]]] = {}
    host, open_group = "", False
    named: list[str] = []
    for row, line in _lines(path):
        key, colon, value = line.partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon:
            raise UserError(
                f"{path}, row {row}: {line[:80]!r} is no rule; write Host:, User-agent:, Allow: or Disallow:"
            )
        if key == "host":
            host, named, open_group = _named_host(path, row, value), [], False
            groups.setdefault(host, {})
        elif not host:
            raise UserError(f"{path}, row {row}: a rule before any host; a line Host: HOST has to come first")
        elif key == "user-agent":
            named = [*named, value.lower()] if not open_group else [value.lower()]
            open_group = False
            for agent in named:
                groups[host].setdefault(agent, [])
        elif key in ("allow", "disallow"):
            open_group = True
            if value and not value.startswith(("/", "*")):
                raise UserError(f"{path}, row {row}: {value[:80]!r} is no path; it starts with / or *")
            for agent in named if value else ():
                groups[host][agent].append(_rule(value, key == "allow"))
    return {
        host: [rules for agent in agents if (rules := by_agent.get(agent, by_agent.get("*", [])))]
        for host, by_agent in groups.items()
    }
