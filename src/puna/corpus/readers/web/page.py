"""The main text of an HTML page, whoever brought it."""

import codecs
import re

import numpy as np
import pyarrow as pa

from puna.corpus.readers.web import main_text
from puna.corpus.readers.web.blocks import ITEM, PRE, ROW, Blocks, split

CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
TIGHT = (ITEM, ROW, PRE)  # kinds whose blocks follow each other on the next line


def page_text(html: bytes, content_type: str = "") -> tuple[str, str]:
    """(title, main text) of a page; both empty where there is none. content_type: of the HTTP header, for its
    charset.

    The encoding is the header's, then the page's own mark, then a guess. Navigation, forms, comments and
    boilerplate are left out by `main_text.keep`. Paragraphs have a blank line between them, list items a "-
    ", table rows their cells between " | ", and preformatted text its lines.
    """
    blocks = split(html if _is_plain(html, content_type) else decode(html, content_type))
    return blocks.title, written(blocks, main_text.keep(blocks))


def decode(html: bytes, content_type: str) -> str:
    """The page's characters, without NUL; what cannot be decoded is replaced or left out."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    encoding = _named(html, content_type)
    try:
        if not _codec(encoding):
            encoding = detect_encoding(html) or "utf-8"
        text = bytes_to_str(html, encoding)
    except (ValueError, LookupError, RuntimeError):
        text = html.decode("utf-8", "replace")
    return text.replace("\x00", "") if "\x00" in text else text


def _is_plain(html: bytes, content_type: str) -> bool:
    """Whether a page is the UTF-8 that it says it is, so that it can be read as it stands: a large one with a
    rare character would take four bytes a character."""
    if _codec(_named(html, content_type)) != "utf-8" or html.startswith(codecs.BOM_UTF8) or b"\x00" in html:
        return False
    ends = pa.py_buffer(np.array([0, len(html)], np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(html)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _named(html: bytes, content_type: str) -> str:
    named = CHARSET.search(content_type.encode("latin-1", "replace")) or CHARSET.search(html[:4096])
    return named.group(1).decode() if named else ""


def written(blocks: Blocks, keep: np.ndarray) -> str:
    """The kept blocks as text."""
    parts: list[str] = []
    before = 0
    for text, kind, kept in zip(blocks.texts, blocks.kinds.tolist(), keep.tolist(), strict=True):
        if kept:
            if parts:
                parts.append("\n" if kind == before and kind in TIGHT else "\n\n")
            parts.append("- " + text if kind == ITEM else text)
            before = kind
    return "".join(parts)


def _codec(encoding: str) -> str:
    """Python's name of an encoding; "" where there is none."""
    try:
        return codecs.lookup(encoding).name if encoding else ""
    except LookupError:
        return ""
