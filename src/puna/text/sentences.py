"""Where sentences end, by their end marks and what follows them."""

import re

SENTENCE_END = re.compile(  # inside a line
    r"[.!?。！？।॥؟۔።](?:(?<=[.!?])(?<!\b[A-Z]\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bMrs\.)(?<!\bProf\.)"
    r"[\"'”’»)\]]{0,3}[^\S\n]+(?=[\"'“‘«(\[]{0,3}[^\W_a-z])"
    r"|(?<![.!?])[」』”’）]{0,3}[^\S\n]*(?=\S))"
)


def sentences(line: str) -> list[str]:
    """The sentences of a line: split behind end marks that white space and a capital (or a letter without
    case) follow."""
    return [sentence for sentence in cut(line) if sentence.strip()]


def cut(line: str) -> list[str]:
    """The line in pieces that give it back when joined."""
    pieces, start = [], 0
    for end in SENTENCE_END.finditer(line):
        pieces.append(line[start : end.end()])
        start = end.end()
    return [*pieces, line[start:]]
