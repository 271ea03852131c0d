"""StackExchange's Posts.xml: each question with its answers, the best first."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.corpus.document import Found, Skipped, digest
from puna.corpus.readers import streams

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
    site = path.resolve().parent.name
    questions: dict[str, _Question] = {}
    broken_at = None
    for number, row in _rows(path):
        if row is None:
            broken_at = number
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
    if broken_at is not None:
        yield Skipped("file ends early", path.name, broken_at)


def _integer(text: str | None) -> int:
    return int(text) if text and re.fullmatch(r"-?\d+", text) else 0


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str] | None]]:
    """(running number, attributes) of each row; None as attributes where the XML breaks off."""
    from lxml import etree

    parser: Any = etree.XMLPullParser(events=("end",), tag="row", huge_tree=True, resolve_entities=False, no_network=True)
    number = 0
    finished = False
    try:
        for chunk in streams.chunks(path):
            parser.feed(chunk)
            for _, row in parser.read_events():
                yield number, dict(row.attrib)
                number += 1
                row.clear()
                while row.getprevious() is not None:
                    del row.getparent()[0]
        parser.close()
        finished = True
    except etree.XMLSyntaxError:
        pass
    if not finished:
        yield number, None


def html_to_text(html: str) -> str:
    """A post's HTML as text: paragraphs apart, list items on lines of their own, code with its lines and indentation."""
    from selectolax.lexbor import LexborHTMLParser

    body: Any = LexborHTMLParser(html).body
    if body is None:
        return ""
    out: list[str] = []
    _walk(body, out, False)
    lines = [line.rstrip() for line in "".join(out).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def _walk(node: Any, out: list[str], keep_space: bool) -> None:
    child = node.child
    while child is not None:
        tag = child.tag
        if tag == "-text":
            text = child.text_content or ""
            if not keep_space:
                text = re.sub(r"\s+", " ", text)
                if not out or out[-1].endswith(("\n", " ")):
                    text = text.lstrip(" ")
            out.append(text)
        elif tag == "br":
            out.append("\n")
        elif tag == "li":
            out.append("\n- ")
            _walk(child, out, keep_space)
        elif tag in BLOCKS:
            out.append("\n" if tag in ("tr", "div") else "\n\n")
            _walk(child, out, keep_space or tag == "pre")
            out.append("\n" if tag in ("tr", "div") else "\n\n")
        elif tag not in ("img", "script", "style", "-comment"):
            _walk(child, out, keep_space)
        child = child.next
