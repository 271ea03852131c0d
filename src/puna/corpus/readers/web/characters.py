"""Text of blocks: entities, white space, and counts of words, sentences, characters; as characters.h."""

import html
import re

LONG_REFERENCE = re.compile("&#[0-9]{8,};?")  # of no character
NEW_LINE = "\x00"  # stands for <br>; split() takes a source without it
KEEPS_LINES = re.compile(r"white-space[ \t]*:[ \t]*pre")
SENTENCE_ENDS = (". ", "? ", "! ", "。", "！", "？", "।", "؟", "…")
# Around raised and lowered text, and in front of raised text that is a link or says that it is a note.
RAISED_MARKS, NOTE = {"sup": "\x01\x02", "sub": "\x03\x04"}, "\x05"
NOTES = ("ref", "note", "cite", "fn")  # parts of the class or id of a raised mark of a note


def keeps_lines(attributes: str) -> bool:
    """Tell whether an element's style keeps its lines and spaces."""
    return "white-space" in attributes and bool(KEEPS_LINES.search(attributes))


def words(text: str) -> list[str]:
    return text.lower().split()


def size(text: str) -> int:
    """Return the characters of a text, doubled where they are mostly of three bytes or more."""
    if text.isascii() or len(text.encode("utf-8", "replace")) <= 2.3 * len(text):
        return len(text)
    return 2 * len(text)


def sentence_ends(text: str) -> int:
    count = int(text[-1] in ".?!")
    if len(text) > 40:
        count += sum([text.count(end) for end in (SENTENCE_ENDS[:3] if text.isascii() else SENTENCE_ENDS)])
    return count


def clean(parts: list[str], verbatim: bool) -> str:
    """Return the text of a block's parts, with entities decoded and spaces collapsed.

    verbatim: keep spaces and lines, as inside <pre>.
    """
    text = "".join(parts)
    if "&" in text:
        text = html.unescape(LONG_REFERENCE.sub("\ufffd", text) if "&#" in text else text)
    if verbatim:
        lines = [line.rstrip() for line in text.replace(NEW_LINE, "\n").splitlines()]
        return "\n".join(lines).strip("\n")
    if NEW_LINE in text:
        lines = [" ".join(line.split()) for line in text.split(NEW_LINE)]
        return "\n".join([line for line in lines if line])
    return " ".join(text.split())
