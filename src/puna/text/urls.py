"""Normal forms of URLs: one that joins citations with a crawl, one that opt-outs are matched against."""

import re
from urllib.parse import quote, unquote

_PAGE_URL = re.compile(
    r"(?:(?:https?:)?//)?(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:@]*)(?::(\d*))?(?=[/?#]|\Z)([^?#]*)(?:\?([^#]*))?",
    re.IGNORECASE,
)
_PAGE_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
_OTHER_SCHEME = re.compile(r"(?!https?://)[a-z][a-z0-9+.-]*:(?!\d+(?:[/?#]|\Z))", re.IGNORECASE)
_TRACKING = re.compile(r"utm_\w+(?:=|\Z)", re.IGNORECASE)
_WWW = re.compile(r"(?:www\.)+(?=[^.]+\.)")
_ANY_URL = re.compile(
    r"\s*(?:([A-Za-z][A-Za-z0-9+.-]*)?:?//)?(?:[^/?#@\s]*@)?"
    r"(\[[0-9A-Fa-f:.]*\]|[^/?#:\s\\]*)(?::(\d*))?([/?][^#]*)?(?:#.*)?",
    re.DOTALL,
)
_DEFAULT_PORTS = {"http": "80", "https": "443", "ftp": "21", "": ""}
MAXIMUM_HOST = 253  # characters of a name (RFC 1035)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# An escape, or a character that a normal form escapes.
_PAGE_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|[^!-~]|[\"<>\\^`{|}\[\]]|%")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|[^!-~]|[\"<>\\^`{|}*$]|%")
_PATTERN_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|[^!-~]|[\"<>\\^`{|}$]|%")


def normalise_url(url: str) -> str:
    """Normalise a page's address, to join citations with a crawl: "example.org/a?b=c"; "" if it is not http.

    Without scheme, user, "www.", default port, trailing slash, fragment and utm_ parameters; the host in
    lower case and ASCII (IDNA 2003); percent-escapes as RFC 3986, section 6.2.2, has them. Applying it twice
    changes nothing.
    """
    url = re.sub(r"[\t\r\n]", "", url.strip())
    parts = _PAGE_URL.match(url)
    if parts is None or _OTHER_SCHEME.match(url):
        return ""
    host = parts[1].rstrip(".").lower()
    try:
        host = host if host.isascii() else host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return ""
    host = _WWW.sub("", host, count=1) if host.startswith("www.") else host
    if not _PAGE_HOST.fullmatch(host):
        return ""
    port = (parts[2] or "").lstrip("0")
    port = "" if port in ("", "80", "443") else f":{port}"
    path = _page_escaped(parts[3]).rstrip("/")
    parameters = _page_escaped(parts[4] or "").split("&")
    query = "&".join(parameter for parameter in parameters if not _TRACKING.match(parameter))
    return host + port + path + (f"?{query}" if query else "")


def host_and_path(url: str) -> tuple[str, str]:
    """Normalise a URL to (host, path with query), to match opt-outs.

    The host is in lower case and Punycode and has its port where that is not the scheme's own; "" where there
    is none. The path has no dot segments, and percent-escapes as RFC 3986, section 6.2.2, has them.
    """
    match = _ANY_URL.fullmatch(url)
    if match is None or (match[1] is None and "//" not in url and "." not in match[2]):
        return "", ""
    host = _host(match[2])
    if match[3] and match[3] != _DEFAULT_PORTS.get((match[1] or "").lower()):
        host += ":" + match[3]
    path = _escaped(match[4] or "/", _ESCAPE)
    if not path.startswith("/"):
        path = "/" + path
    if "/." in path:
        bare, mark, query = path.partition("?")
        path = _without_dot_segments(bare) + mark + query
    return host, path


def escape_pattern(path: str) -> str:
    """Escape a pattern as `host_and_path` does a path, but for its `*`."""
    return _escaped(path, _PATTERN_ESCAPE)


def _host(host: str) -> str:
    host = unquote(host).rstrip(".").lower()
    if host.isascii() or len(host) > MAXIMUM_HOST:
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host


def _without_dot_segments(path: str) -> str:
    """Remove dot segments (RFC 3986, section 5.2.4)."""
    out: list[str] = []
    segments = path.split("/")
    for number, segment in enumerate(segments):
        if segment not in (".", ".."):
            out.append(segment)
            continue
        if segment == ".." and len(out) > 1:
            out.pop()
        if number == len(segments) - 1:
            out.append("")
    return "/".join(out)


def _page_escaped(text: str) -> str:
    return _escaped(text.encode("utf-8", "replace").decode(), _PAGE_ESCAPE)


def _escaped(text: str, escape: re.Pattern[str]) -> str:
    """Normalise percent-escapes: unreserved characters plain, all others in capitals, missing ones added."""

    def one(match: re.Match[str]) -> str:
        if not match[1]:
            return quote(match[0], safe="", errors="surrogatepass")
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    return escape.sub(one, text)
