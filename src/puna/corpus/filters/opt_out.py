"""Opt-outs: URLs that must not be in a corpus, by pattern, domain or robots rule, from files of the user's.

URLs are compared in a normal form, that of `text.urls.host_and_path`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from puna.errors import UserError
from puna.text.urls import MAXIMUM_HOST, escape_pattern, host_and_path

BY_PATTERN, BY_DOMAIN, BY_ROBOTS = "opt-out: URL pattern", "opt-out: domain", "opt-out: robots"
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}|\[[0-9a-f:.]+\]")
_PORT = re.compile(r":\d+$")


class _Rule(NamedTuple):
    """A pattern of URLs, allowed or not.

    pieces: what lies between its `*`; to_end: whether it ended in `$`; length: of the pattern in bytes.
    """

    pieces: tuple[str, ...]
    to_end: bool
    length: int
    allow: bool

    def matches(self, text: str) -> bool:
        """Whether the pattern matches from the start of a text; in linear time for each piece."""
        first, *rest = self.pieces
        if not text.startswith(first):
            return False
        if not rest:
            return not self.to_end or len(text) == len(first)
        end = len(first)
        for piece in rest[:-1] if self.to_end else rest:
            end = text.find(piece, end)
            if end < 0:
                return False
            end += len(piece)
        return not self.to_end or (text.endswith(rest[-1]) and len(text) - len(rest[-1]) >= end)


def _rule(pattern: str, allow: bool = False) -> _Rule:
    to_end = pattern.endswith("$")
    text = escape_pattern(pattern.removesuffix("$"))
    pieces = tuple(re.sub(r"\*+", "*", text).split("*"))
    return _Rule(pieces, to_end, len(text.encode()) + to_end, allow)


class OptOut:
    """The user's opt-out files, each read once. Raises UserError with file and row for a line it cannot read.

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
        """Return why a URL must not be used, one of those above; "" where it may be."""
        host, path = host_and_path(url)
        if not host:
            return ""
        if any(rule.matches(path) for rule in self.by_host.get(host, ())):
            return BY_PATTERN
        if any(names.matches(host) and rule.matches(path) for names, rule in self.by_hosts):
            return BY_PATTERN
        if self.domains and self._in_domains(_PORT.sub("", host)):
            return BY_DOMAIN
        if any(_disallowed(rules, path) for rules in self.robots.get(host, ())):
            return BY_ROBOTS
        return ""

    def _in_domains(self, name: str) -> bool:
        if len(name) > MAXIMUM_HOST:
            name = name[-MAXIMUM_HOST:].partition(".")[2]
        while name and name not in self.domains:
            name = name.partition(".")[2]
        return bool(name)


def _disallowed(rules: list[_Rule], path: str) -> bool:
    """Whether robots rules disallow a path (RFC 9309, section 2.2.2).

    The longest match decides, of two equally long ones the one that allows; robots.txt is always allowed.
    """
    best = max(((rule.length, rule.allow) for rule in rules if rule.matches(path)), default=(0, True))
    return not best[1] and path != "/robots.txt"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (row, text) of the lines that are not empty, without comments."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for row, line in enumerate(file, 1):
                text = re.sub(r"(?:^|\s)#.*", "", line.rstrip("\n")).strip()
                if text:
                    yield row, text
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
    host, _ = host_and_path(f"//{name}")
    if not _HOST.fullmatch(_PORT.sub("", host)) or re.search(r"[/?\s]", name):
        raise UserError(f"{path}, row {row}: {name[:80]!r} is no host; write a name such as example.org")
    return host


def _domains(path: Path) -> Iterator[str]:
    for row, line in _lines(path):
        yield _named_host(path, row, line.removeprefix("*").removeprefix("."))


def _patterns(path: Path) -> Iterator[tuple[str | _Rule, _Rule]]:
    """Yield (host, or a rule on hosts where the pattern has a `*` there; rule on paths)."""
    for row, line in _lines(path):
        bare = re.sub(r"^(?:[A-Za-z*][A-Za-z0-9+.*-]*:)?//", "", line)
        host, _, rest = bare.partition("/")
        if host.endswith("$"):
            host, rest = host[:-1], "$"
        if not host or not bare.strip("*$/") or re.search(r"\s", bare):
            raise UserError(
                f"{path}, row {row}: {line[:80]!r} is no URL pattern; "
                "write HOST/PATH, such as example.org/private/*"
            )
        named = _rule(host.lower() + "$") if "*" in host else _named_host(path, row, host)
        yield named, _rule("/" + rest)


def _robots(path: Path, agents: tuple[str, ...]) -> dict[str, list[list[_Rule]]]:
    """Read for every host each agent's rules: of the groups that name it, else of the groups for `*`."""
    groups: dict[str, dict[str, list[_Rule]]] = {}
    host, in_rules = "", False
    named: list[str] = []
    for row, line in _lines(path):
        key, colon, value = line.partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon:
            raise UserError(
                f"{path}, row {row}: {line[:80]!r} is no rule; write Host:, User-agent:, Allow: or Disallow:"
            )
        if key == "host":
            host, named, in_rules = _named_host(path, row, value), [], False
            groups.setdefault(host, {})
        elif not host:
            raise UserError(f"{path}, row {row}: a rule before any host; a line Host: HOST has to come first")
        elif key == "user-agent":
            named = [value.lower()] if in_rules else [*named, value.lower()]
            in_rules = False
            for agent in named:
                groups[host].setdefault(agent, [])
        elif key in ("allow", "disallow"):
            in_rules = True
            if value and not value.startswith(("/", "*")):
                raise UserError(f"{path}, row {row}: {value[:80]!r} is no path; it starts with / or *")
            for agent in named if value else ():
                groups[host][agent].append(_rule(value, key == "allow"))
    by_host = {}
    for host, by_agent in groups.items():
        of_agents = [by_agent.get(agent, by_agent.get("*", [])) for agent in agents]
        by_host[host] = [rules for rules in of_agents if rules]
    return by_host
