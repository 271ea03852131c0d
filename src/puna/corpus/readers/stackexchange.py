"""StackExchange's Posts.xml: each question with its answers, the best first."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.corpus.document import Found, Skipped, digest
from puna.corpus.readers import streams
from puna.errors import UserError

QUESTION, ANSWER = "1", "2"
BLOCKS = frozenset(["p", "pre", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "hr", "table", "tr", "div"])


@dataclass
class _Question:
    identity: int
    number: int
    title: str
    body: bytes
    licence: str
    answers: list[tuple[int, int, bytes]]  # (-score, id, packed body): sorts into the order of the document


def read(path: Path) -> Iterator[Found | Skipped]:
    """Every question that has answers: title, body, then the answers by numeric score, highest first (the older one on equal scores).

    Bodies are held packed until the file has been read, since answers may stand anywhere after their question.
    """
    site = path.absolute().parent.name
    questions: dict[str, _Question] = {}
    broken = None
    for number, row in enumerate(_rows(path)):
        if isinstance(row, UserError):
            broken = row
            break
        kind, identity = row.get("PostTypeId"), row.get("Id", "")
        if kind not in (QUESTION, ANSWER) or not identity.isdigit():
            continue
        packed = zlib.compress(row.get("Body", "").encode(), 1)
        if kind == QUESTION:
            questions[identity] = _Question(int(identity), number, row.get("Title", ""), packed, row.get("ContentLicense", ""), [])
        elif (question := questions.get(row.get("ParentId", ""))) is not None:
            question.answers.append((-_integer(row.get("Score")), int(identity), packed))
        else:
            yield Skipped("answer without its question", f"https://{site}/a/{identity}", number)
    for question in questions.values():
        url = f"https://{site}/questions/{question.identity}"
        if not question.answers:
            yield Skipped("no answer", url, question.number)
            continue
        bodies = [zlib.decompress(question.body).decode()]
        bodies += [zlib.decompress(packed).decode() for _, _, packed in sorted(question.answers)]
        texts = [html_to_text(body) for body in bodies]
        text = "\n\n".join([question.title, texts[0], *(f"A: {answer}" for answer in texts[1:])])
        yield Found(url, text, question.number, digest("\0".join(bodies)), question.title, question.licence or "CC-BY-SA")
    if broken is not None:
        raise broken


def _rows(path: Path) -> Iterator[dict[str, str] | UserError]:
    """Attributes of each row; an error as the last one where the file breaks off."""
    try:
        for row in streams.xml_elements(path, ("row",)):
            yield dict(row.attrib)
    except UserError as error:
        yield error


def _integer(text: str | None) -> int:
    return int(text) if text and re.fullmatch(r"-?\d+", text) else 0


def html_to_text(html: str) -> str:
    """A post's HTML as text: paragraphs apart, list items on lines of their own, code with its lines and indentation."""
    from selectolax.lexbor import LexborHTMLParser

    body: Any = LexborHTMLParser(html).body
    if body is None:
        return ""
    out: list[str] = []
    _walk(body, out)
    lines = [line.rstrip() for line in "".join(out).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def _walk(body: Any, out: list[str]) -> None:
    """Write a post's text. Without recursion: people nest quotes as deep as they like."""
    waiting: list[tuple[Any, bool, str]] = [(body.child, False, "")]  # (node to go on with, whether white space stays, text at the end)
    while waiting:
        node, keep_space, end = waiting.pop()
        if node is None:
            if end:
                out.append(end)
            continue
        waiting.append((node.next, keep_space, end))
        tag = node.tag
        if tag == "-text":
            text = node.text_content or ""
            if not keep_space:
                text = re.sub(r"\s+", " ", text)
                if not out or out[-1].endswith(("\n", " ")):
                    text = text.lstrip(" ")
            out.append(text)
        elif tag == "br":
            out.append("\n")
        elif tag == "li":
            out.append("\n- ")
            waiting.append((node.child, keep_space, ""))
        elif tag in BLOCKS:
            room = "\n" if tag in ("tr", "div") else "\n\n"
            out.append(room)
            waiting.append((node.child, keep_space or tag == "pre", room))
        elif tag not in ("img", "script", "style", "-comment"):
            waiting.append((node.child, keep_space, ""))
