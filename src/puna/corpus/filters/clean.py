"""White space and control characters of a text, unified before anything else looks at it."""

import io

from puna.corpus.record import Record

CONTROL = bytes(code for code in (*range(32), 127) if chr(code) not in "\n\t")
CHUNK = 1 << 18  # characters, and the rest of a line, of a text that are cleaned at once


class CleanText:
    """Step: clean texts, and what is told of them."""

    def apply(self, records: list[Record]) -> None:
        for record in records:
            record.url, record.title, record.licence = map(clean, (record.url, record.title, record.licence))
            record.text = clean(record.text)


def clean(text: str) -> str:
    """Unify line ends, drop control characters but tab, and white space at line ends and both ends."""
    if len(text) <= CHUNK:
        return _clean_lines(text).strip("\n")
    out, at = io.StringIO(), 0
    while at < len(text):
        end = text.find("\n", at + CHUNK) + 1 or len(text)
        out.write(_clean_lines(text[at:end]))
        at = end
    return out.getvalue().strip("\n")


def _clean_lines(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Bytes of control characters are no part of others in UTF-8; lone surrogates cannot be written in it.
    text = text.encode("utf-8", "ignore").translate(None, CONTROL).decode()
    if not text.isascii() or " \n" in text or "\t\n" in text or text[-1:] in (" ", "\t"):
        text = "\n".join([line.rstrip() for line in text.split("\n")])
    return text
