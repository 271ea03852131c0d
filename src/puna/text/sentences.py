"""Where sentences end, by their end marks and what follows them."""

import re

SENTENCE_END = re.compile(  # inside a line
    r"[.!?。！？।॥؟۔።]"
    r"(?:(?<=[.!?])(?<!\b[A-Z]\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bMrs\.)(?<!\bProf\.)"
    r"[\"'”’»)\]]{0,3}[^\S\n]+(?=[\"'“‘«(\[]{0,3}[^\W_a-z])"
    r"|(?<![.!?])[」』”’）]{0,3}[^\S\n]*(?=\S))"
)


def sentences(line: str) -> list[str]:
    """Split a line into sentences: behind end marks before white space and a capital or caseless letter."""
    return [sentence for sentence in cut(line) if sentence.strip()]


def cut(line: str) -> list[str]:
    """Split a line behind its sentences' ends; the pieces joined are the line."""
    pieces, start = [], 0
    for end in SENTENCE_END.finditer(line):
        pieces.append(line[start : end.end()])
        start = end.end()
    return [*pieces, line[start:]]
