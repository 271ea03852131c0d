"""Main text of an HTML page, for every reader that meets one."""

import codecs
import re

import numpy as np
import pyarrow as pa

from puna.corpus.readers.web import main_text
from puna.corpus.readers.web.blocks import ITEM, PRE, ROW, Blocks, split

CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
TIGHT = (ITEM, ROW, PRE)  # kinds of blocks that follow one of the same kind without a blank line


def page_text(html: bytes, content_type: str = "") -> tuple[str, str]:
    """Return (title, main text) of a page, both empty where there is none. content_type: the HTTP header.

    The encoding is that of the header, else the page's own declaration, else detected. `main_text.keep` drops
    navigation, forms, comments and boilerplate. Paragraphs are separated by a blank line, list items start
    with "- ", cells of a table row are joined with " | ", and preformatted text keeps its lines.
    """
    blocks = split(html if _is_declared_utf8(html, content_type) else decode(html, content_type))
    return blocks.title, render(blocks, main_text.keep(blocks))


def decode(html: bytes, content_type: str) -> str:
    """Return the page as text without NUL; what cannot be decoded is replaced or left out."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    encoding = _declared_encoding(html, content_type)
    try:
        if not _codec(encoding):
            encoding = detect_encoding(html) or "utf-8"
        text = bytes_to_str(html, encoding)
    except (ValueError, LookupError, RuntimeError):
        text = html.decode("utf-8", "replace")
    return text.replace("\x00", "") if "\x00" in text else text


def _is_declared_utf8(html: bytes, content_type: str) -> bool:
    """Tell whether a page is declared as UTF-8 and valid UTF-8 without NUL.

    Such a page is split as bytes: as a str, a single rare character makes it take four bytes a character.
    """
    declared = _codec(_declared_encoding(html, content_type))
    if declared != "utf-8" or html.startswith(codecs.BOM_UTF8) or b"\x00" in html:
        return False
    ends = pa.py_buffer(np.array([0, len(html)], np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(html)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _declared_encoding(html: bytes, content_type: str) -> str:
    declared = CHARSET.search(content_type.encode("latin-1", "replace")) or CHARSET.search(html[:4096])
    return declared.group(1).decode() if declared else ""


def render(blocks: Blocks, keep: np.ndarray) -> str:
    """Return the text of the blocks for which `keep` is true."""
    parts: list[str] = []
    previous_kind = 0
    for text, kind, kept in zip(blocks.texts, blocks.kinds.tolist(), keep.tolist(), strict=True):
        if not kept:
            continue
        if parts:
            parts.append("\n" if kind == previous_kind and kind in TIGHT else "\n\n")
        parts.append("- " + text if kind == ITEM else text)
        previous_kind = kind
    return "".join(parts)


def _codec(encoding: str) -> str:
    """Return Python's name of an encoding, "" if there is none."""
    try:
        return codecs.lookup(encoding).name if encoding else ""
    except LookupError:
        return ""
