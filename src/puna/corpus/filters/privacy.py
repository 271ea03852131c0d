"""E-mail addresses, phone numbers and IP addresses of a record, replaced by placeholders.

They are looked for in its text, its title and its address. They are recognised by shape alone, so some are
missed and some other text is taken for one. To spare what looks alike, a phone number needs an international
or national prefix and separators, or a word such as "Tel." before it, and an IP address must be one that is
routed on the Internet.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from puna.corpus.record import Record
from puna.text.lists import listed

Kind = Literal["email", "phone", "ip"]
KINDS: tuple[Kind, ...] = ("email", "phone", "ip")
PLACEHOLDERS: dict[Kind, str] = {"email": "<EMAIL>", "phone": "<PHONE>", "ip": "<IP>"}
_Spans = Iterator[tuple[int, int]]
_LISTS = listed(__file__, "privacy.json")

# E-mail addresses in ASCII: at most 64 characters before the @ and 63 a label (RFC 5321), under a top-level
# domain that is in use.
_LOCAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%+-]*\Z")
_DOMAIN = re.compile(
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,18})"
    r"(?![A-Za-z0-9_@]|-[A-Za-z0-9]|\.[A-Za-z0-9])"
)
_SCP_PATH = re.compile(r":[A-Za-z0-9_~/]")
_TOP_LEVEL = frozenset(_LISTS["top_level_domains"].split())

# Phone numbers. A run of digits and separators is found first, then examined.
_GAP = "[ \u00a0\u2009\u202f.()/\u2010-\u2013-]{0,3}"
_RUN = re.compile("[0-9][0-9 \u00a0\u2009\u202f.()/\u2010-\u2013-]{4,}[0-9]")
_COUNTRY = (  # ITU-T E.164: country codes but 1
    "(?:7|2(?:[07]|[1-69][0-9])|3(?:[0-469]|[578][0-9])|4(?:[013-9]|2[0-9])|5(?:[1-8]|[09][0-9])"
    "|6(?:[0-6]|[789][0-9])|8(?:[1246]|[0578][0-9])|9(?:[0-58]|[679][0-9]))"
)
_PHONE = re.compile(
    "(?<![\\w.,/=%#$€£+\u2010-\u2013-])(?<![0-9][ (])(?:"
    rf"\+1(?:{_GAP}[0-9]){{10}}"
    rf"|(?:\+|00){_COUNTRY}(?:{_GAP}[0-9]){{6,12}}"
    r"|(?:1[ .-])?"
    r"(?:\([2-9][0-9]{2}\)[ -]?[2-9][0-9]{2}[ .-]|[2-9][0-9]{2}([.-])[2-9][0-9]{2}\1)[0-9]{4}"
    "|0[1-9]([ \u00a0.-])[0-9]{2}(?:\\2[0-9]{2}){3}(?!\\2[0-9])"
    "|(?!0[0-9]{4}-[0-9]{4}\\b)\\(?0[1-9][0-9]{1,3}\\)?(?: ?/ ?|[ \u00a0\u2013-])"
    "[0-9]{2,4}(?:[ \u00a0-]?[0-9]{2,4}){1,3}"
    ")(?![\\w°%]|[.,:/\u2010-\u2013-][0-9]| [%°])"
)
_NAMED_PHONE = re.compile(rf"\(?\+?[0-9](?:{_GAP}[0-9]){{5,14}}(?![\w%°]|[.,:][0-9])")
_WORD = re.compile(
    r"(?<!\w)(?:tel|tél|tlf|phone|telephone|téléphone|telefon|teléfono|telefono|telefone|fax|mobile|mobil|cell"
    r"|handy|whatsapp|hotline|call (?:us|me) (?:at|on)|тел|телефон|факс)"
    r"\.?(?: (?:no|nr|number)\b\.?)?\s?[:(]?\s{0,2}\Z",
    re.IGNORECASE,
)
_DECIMAL = re.compile(r"\+[0-9]+\.[0-9]{4}")  # a signed number, or a place by its latitude

# IP addresses.
_IPV4 = re.compile(
    r"[0-9](?<![\w.][0-9])[0-9]{0,2}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"
    r"(?!\w|\.[0-9]|[+~]\w|-(?![0-9]{1,3}\.[0-9]{1,3}\.))"
)
_IPV6 = re.compile(r"[23](?<![\w:.][23])[0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])")
_VERSION = re.compile(
    r"(?:\b(?:v|ver|version|release|rev|sec|section|chapter|article|clause|firmware|kernel|table|fig|figure)"
    r"\b\W{0,3}|[§/=<>~_-])\Z",
    re.IGNORECASE,
)
_HOST = re.compile(
    r"(?://|@|\b(?:ips?|ipv4|addr|address|host|server|dns|ping|inet|from|client|node|resolver|nameserver|proxy"
    r"|router)\b[ :=(\[]{0,3}|\.[0-9]{1,3}\.[0-9]{1,3}-)\Z",
    re.IGNORECASE,
)
# RFC 6890 and what came after it
_NOT_ROUTED = [ipaddress.ip_network(block) for block in _LISTS["unrouted_addresses"].split()]
_GLOBAL = ipaddress.ip_network("2000::/3")

# URLs (RFC 3986): scheme, authority, and the rest, which is cut at its delimiters.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)(//[^/?#]*)?(.*)\Z", re.DOTALL)
_DELIMITER = re.compile("([/?#&=;])")
_LITERAL = "!$'(),*:@"  # what a part of a URL may hold as it is, beside letters, digits and -._~
_MAY_HOLD = re.compile("[@%:]|(?:[0-9][^0-9]{0,3}){4}")
_MOST_DECODED = 3  # an address in the query of another is encoded twice


@dataclass(frozen=True)
class PrivateData:
    """Step: replace personal data of some kinds by placeholders; say in `detail` how much.

    In the text, the title and the address.
    """

    kinds: Collection[Kind]

    def apply(self, records: list[Record]) -> None:
        for record in records:
            text, in_text = scrub(record.text, self.kinds)
            if in_text.total():
                record.change(text, "personal data")
            record.title, in_title = scrub(record.title, self.kinds)
            record.url, in_url = scrub_url(record.url, self.kinds)
            record.detail = told(in_text + in_title + in_url)


def told(counts: Counter[Kind]) -> str:
    """Return for people how many of each kind were replaced; "" where none was."""
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])


def scrub(text: str, kinds: Collection[Kind] = KINDS) -> tuple[str, Counter[Kind]]:
    """Replace personal data in a text: (text with PLACEHOLDERS, how many of each kind), in linear time.

    What is between < and > is replaced together with them. Addresses of private networks, loopback and
    documentation never are.
    """
    counts: Counter[Kind] = Counter()
    finders: dict[Kind, Callable[[str], _Spans]] = {"email": _emails, "ip": _addresses, "phone": _phones}
    for kind, find in finders.items():
        if kind in kinds:
            text, counts[kind] = _replace(text, find, PLACEHOLDERS[kind])
    return text, counts


def scrub_url(url: str, kinds: Collection[Kind] = KINDS) -> tuple[str, Counter[Kind]]:
    """Replace personal data in an address: (address, how many of each kind). A URL stays one.

    Each part of path, query and fragment is looked at as it reads decoded; where something is found, it is
    encoded again, placeholders too (%3CEMAIL%3E). User and password before a host are an e-mail address. The
    host stays, also a numeric one: it says who published the page, and opt-outs go by it. What has no scheme,
    such as a name inside a file, is a text.
    """
    found = _URL.match(url)
    if not found or not kinds:
        return scrub(url, kinds)
    scheme, authority, rest = found[1], found[2] or "", found[3]
    counts: Counter[Kind] = Counter()
    user, _, host = authority.removeprefix("//").rpartition("@")
    placeholder = quote(PLACEHOLDERS["email"])
    if user and user != placeholder and "email" in kinds:
        authority = f"//{placeholder}@{host}"
        counts["email"] += 1
    parts = _DELIMITER.split(rest)
    for number, part in enumerate(parts):
        if _MAY_HOLD.search(part):
            parts[number], own = _scrub_part(part, kinds)
            counts += own
    return scheme + authority + "".join(parts), counts


def _scrub_part(part: str, kinds: Collection[Kind]) -> tuple[str, Counter[Kind]]:
    """Replace personal data in a part of a URL without delimiters. A plus sign may be one, or a space."""
    for decode, encode, literal in ((unquote, quote, _LITERAL + "+"), (unquote_plus, quote_plus, _LITERAL)):
        plain = decode(part)
        for _ in range(_MOST_DECODED - 1):
            plain = unquote(plain)
        scrubbed, counts = scrub(plain, kinds)
        if counts.total():
            return encode(scrubbed, literal, errors="replace"), counts
    return part, counts


def _replace(text: str, find: Callable[[str], _Spans], placeholder: str) -> tuple[str, int]:
    """The text with a placeholder for each span, until none is found: of two numbers without anything between
    them, the second is one only once the first is gone. Also how many there were."""
    count = 0
    while spans := list(find(text)):
        pieces, done = [], 0
        for start, end in spans:
            if text[max(0, start - 1) : start] == "<" and text[end : end + 1] == ">":
                start, end = start - 1, end + 1  # the placeholder has brackets of its own
            pieces += [text[done:start], placeholder]
            done = end
        text = "".join([*pieces, text[done:]])
        count += len(spans)
    return text, count


def _emails(text: str) -> _Spans:
    done = 0
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at)
        after = at + 1
        if domain and domain[1].lower() in _TOP_LEVEL and not _SCP_PATH.match(text, domain.end()):
            local = _LOCAL.search(text, max(done, at - 64), at)
            if local and local[0][-1] != ".":
                yield local.start(), domain.end()
                done = after = domain.end()
        at = text.find("@", after)


def _phones(text: str) -> _Spans:
    for run in _RUN.finditer(text):
        start = run.start()
        while start and run.start() - start < 2 and text[start - 1] in "+(":
            start -= 1
        end = min(len(text), run.end() + 3)
        if word := _WORD.search(text, max(0, start - 24), start):
            named = _NAMED_PHONE.match(text, word.end(), end)
            if named:
                yield named.span()
                start = named.end()
        for phone in _PHONE.finditer(text, start, end):
            digits = sum(map(str.isdigit, phone[0]))
            apart = not phone[0].isdigit() and not (phone[0][:2] == "00" and digits == len(phone[0]))
            if 9 <= digits <= 15 and apart and not _DECIMAL.match(phone[0]):
                yield phone.span()


def _addresses(text: str) -> _Spans:
    return iter(sorted([*_ipv4(text), *(_ipv6(text) if ":" in text else ())]))


def _ipv4(text: str) -> _Spans:
    for match in _IPV4.finditer(text):
        parts = match[0].split(".")
        if any(int(part) > 255 or (part[0] == "0" and part != "0") for part in parts):
            continue
        address = ipaddress.IPv4Address(match[0])
        if any(address in block for block in _NOT_ROUTED):
            continue
        before = text[max(0, match.start() - 40) : match.start()]
        is_version = _VERSION.search(before) or _looks_like_a_version(match[0])
        if not is_version or _HOST.search(before):
            yield match.span()


def _looks_like_a_version(numbers: str) -> bool:
    """Whether four numbers are rather a version, a section or an object identifier, such as 2.5.29.37."""
    parts = [int(part) for part in numbers.split(".")]
    return max(parts) < 32 or (parts[0] < 4 and parts[1] < 10)


def _ipv6(text: str) -> _Spans:
    for match in _IPV6.finditer(text):
        try:
            address = ipaddress.IPv6Address(match[0])
        except ValueError:
            continue
        if address in _GLOBAL and not any(address in block for block in _NOT_ROUTED):
            yield match.span()
