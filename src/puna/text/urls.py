"""One name for all ways to write a web address."""

import re
from urllib.parse import quote

ADDRESS = re.compile(
    r"(?:(?:https?:)?//)?(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:@]*)(?::(\d*))?(?=[/?#]|\Z)([^?#]*)(?:\?([^#]*))?",
    re.IGNORECASE,
)
HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
OTHER_SCHEME = re.compile(r"(?!https?://)[a-z][a-z0-9+.-]*:(?!\d+(?:[/?#]|\Z))", re.IGNORECASE)
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
TRACKING = re.compile(r"utm_\w+(?:=|\Z)", re.IGNORECASE)
WWW = re.compile(r"(?:www\.)+(?=[^.]+\.)")


def normalise_url(url: str) -> str:
    """One name for all ways to write a page's address, to join citations with a crawl: "example.org/a?b=c";
    "" if it is no http address.

    Without scheme, user, "www.", default port, trailing slash, fragment and utm_ parameters; the host in
    lower case and ASCII (IDNA 2003); percent-escapes as RFC 3986, section 6.2.2, has them. Applying it twice
    changes nothing.
    """
    url = re.sub(r"[\t\r\n]", "", url.strip())
    parts = ADDRESS.match(url)
    if parts is None or OTHER_SCHEME.match(url):
        return ""
    host = parts[1].rstrip(".").lower()
    try:
        host = host if host.isascii() else host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return ""
    host = WWW.sub("", host, count=1) if host.startswith("www.") else host
    if not HOST.fullmatch(host):
        return ""
    port = (parts[2] or "").lstrip("0")
    path = _escapes(parts[3]).rstrip("/")
    query = "&".join(part for part in _escapes(parts[4] or "").split("&") if not TRACKING.match(part))
    return (
        host + (f":{port}" if port not in ("", "80", "443") else "") + path + (f"?{query}" if query else "")
    )


def _escapes(part: str) -> str:
    """Escapes of unreserved characters resolved, the others in upper case, everything that must be escaped
    is."""

    def one(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return (
            character
            if character.isascii() and (character.isalnum() or character in "-._~")
            else match[0].upper()
        )

    part = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", part)
    return quote(ESCAPE.sub(one, part), safe="%!$&'()*+,;=:@/?", errors="replace")
