"""The encoding of a page: what its bytes are comes before what is said of them.

Servers say ISO-8859-1 of anything, so bytes that are valid UTF-8 beyond ASCII are UTF-8, whatever the
header and the page say; other encodings hardly ever look like it (RFC 3629, section 1). Else a byte order
mark counts, then the header, then the page's own declaration, as in the WHATWG's Encoding Standard; where
header and page differ, a guess from the bytes decides between them.
"""

import codecs
import re

import numpy as np
import pyarrow as pa

CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
IN_PAGE = re.compile(
    rb"""<meta\b[^>]{0,400}?\bcharset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)"""
    rb"""|\A\s*<\?xml\b[^>]{0,200}?\bencoding\s*=\s*["']([A-Za-z0-9_:.-]+)""",
    re.IGNORECASE,
)
HEAD_BYTES = 4096  # in which a page declares its encoding
MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
SEVEN_BITS = ("iso2022", "hz")  # beginnings of the names of encodings that use ASCII's bytes
# Legacy encodings of several bytes a character: a few of theirs may look like UTF-8 by chance.
MULTIBYTE = ("gb", "big5", "euc", "shift_jis", "cp932", "cp949", "johab", "iso2022")
FEW = 4  # characters that look like UTF-8 by chance


def as_utf8(html: bytes, content_type: str = "") -> bytes | None:
    """Return a page that is UTF-8, without NUL and byte order mark, as it is; None where it is not.

    As a str, a single rare character makes a page take four bytes a character.
    """
    if b"\0" in html or html.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    html = html.removeprefix(codecs.BOM_UTF8)
    if html.isascii():
        shifts = b"\x1b" in html or b"~{" in html
        return None if shifts and _declared(html, content_type)[0].startswith(SEVEN_BITS) else html
    ends = pa.py_buffer(np.array([0, len(html)], np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(html)]).validate(full=True)
    except pa.ArrowInvalid:
        return None
    return None if _is_chance(html, content_type) else html


def _is_chance(html: bytes, content_type: str) -> bool:
    """Tell whether valid UTF-8 is another encoding all the same: declared, strictly valid, and short."""
    if "utf-8" in content_type.lower() or b"utf-8" in html[:HEAD_BYTES].lower():
        return False
    declared = _declared(html, content_type)[0]
    if not declared.startswith(MULTIBYTE):
        return False
    beyond = html.translate(None, bytes(range(0xC0)))  # the first bytes of characters
    if len(beyond) >= FEW:
        return False
    try:
        html.decode(declared)
    except (UnicodeError, LookupError):
        return False
    return True


def decode(html: bytes, content_type: str = "") -> str:
    """Return a page as text without NUL; what cannot be decoded is replaced or left out."""
    plain = as_utf8(html, content_type)
    text = _decode(html, content_type) if plain is None else plain.decode()
    return text.replace("\0", "") if "\0" in text else text


def _decode(html: bytes, content_type: str) -> str:
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    encoding = next((name for mark, name in MARKS if html.startswith(mark)), "") or _utf16_without_mark(html)
    if encoding:
        return html.decode(encoding, "replace").removeprefix("\ufeff")
    declared = [name for name in _declared(html, content_type) if not name.startswith(("utf-16", "utf-32"))]
    html = html.removeprefix(codecs.BOM_UTF8)
    if not (declared and declared[0].startswith(SEVEN_BITS)) and not (html.isascii() or b"\x1b$" in html):
        text, _ = codecs.utf_8_decode(html, "replace", False)  # a page may be cut inside a character
        bad = text.count("\ufffd")
        good = len(html.translate(None, bytes(range(0xC2)) + bytes(range(0xF5, 256)))) - bad
        if good > 10 * bad or ("utf-8" in declared and good >= bad):
            return text
    others = [name for name in declared if name != "utf-8"]
    try:
        if len(others) != 1 or len(declared) > 1:
            guessed = codec(detect_encoding(html) or "utf-8")
            others = [guessed] if guessed in others or not others else others
        return str(bytes_to_str(html, others[0] or "utf-8"))
    except (ValueError, LookupError, RuntimeError):
        return html.decode("utf-8", "replace")


def _utf16_without_mark(html: bytes) -> str:
    """Return the UTF-16 that a page is, by its zeros; "" for another encoding."""
    head = html[:400]
    half = len(head) // 2
    if head[1::2].count(0) > 0.7 * half > 0 and head[::2].count(0) < 0.1 * half:
        return "utf-16-le"
    if head[::2].count(0) > 0.7 * half > 0 and head[1::2].count(0) < 0.1 * half:
        return "utf-16-be"
    return ""


def _declared(html: bytes, content_type: str) -> list[str]:
    """Return the encodings that header and page declare, by Python's names; [""] for none."""
    in_header = CHARSET.search(content_type.encode("latin-1", "replace"))
    in_page = IN_PAGE.search(html[:HEAD_BYTES])
    names = [in_header[1]] if in_header else []
    names += [in_page[1] or in_page[2]] if in_page else []
    return list(dict.fromkeys(name for name in map(codec, map(bytes.decode, names)) if name)) or [""]


def codec(encoding: str) -> str:
    """Return Python's name of an encoding, "" if there is none."""
    try:
        return codecs.lookup(encoding).name if encoding else ""
    except LookupError:
        return ""
