"""Documents -> what a model learns of them: windows of text, and questions whose answers are passages.

Questions are made by rule, in English, from what a passage says itself: what it defines, the heading that it
stands under, the rarest words in it. A tenth of the passages, chosen by hash, is asked only afterwards: their
text is in the windows, their questions are not learned.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from puna.text.lists import listed
from puna.text.sentences import sentences
from puna.tokens.permutation import key_of

if TYPE_CHECKING:
    from puna.model.llama import Llama
    from puna.tokens.chat import Format
    from puna.tokens.text_tokenizer import TextTokenizer

PASSAGE = (40, 360)  # characters of a passage: at least, and what one is not extended beyond
LONGEST = 720  # characters of one that is a single sentence
HELD_OUT = 0.1  # share of passages that are asked afterwards only
ASKED = 40  # of these, at most
RIGHT = 0.5  # share of a passage's own words that an answer has to hold
GAIN = 0.1  # of the answers: where looking up gives more right ones than that, it is told
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.+?)[ \t#]*")
_DEFINES = re.compile(
    r"(?:(?P<the>The|An?) )?(?P<what>[^\W\d_][^\s,;:.!?()]*(?: [^\s,;:.!?()]+){0,4}?) "
    r"(?P<verb>is|are|was|were) (?:an?|the|one of|called)\b"
)
_ENDED = re.compile(r"[.!?:…][\"'”’)]*\Z")
_LISTS = listed(__file__, "passages.json")
_PRONOUNS, _COMMON = (frozenset(_LISTS[name].split()) for name in ("pronouns", "common"))


class Document(NamedTuple):
    """name: of its file. title: as it names itself, or as its file is called."""

    name: str
    title: str
    text: str


class Passage(NamedTuple):
    """One to three sentences in a row of a paragraph, and what is asked so that they are the answer."""

    document: str
    text: str
    questions: tuple[str, ...]
    held_out: bool


def windows(document: Document, tokenizer: "TextTokenizer", most: int) -> Iterator[str]:
    """Cut a document into texts of at most `most` tokens, at ends of lines or sentences; a sentence that is
    longer is cut between words. Nothing of it is left out but white space at the ends."""
    text, size = "", 0
    for piece in _pieces(document.text, tokenizer, most):
        tokens = len(tokenizer.encode(piece))
        if text and size + tokens > most:
            yield text.strip()
            text, size = "", 0
        text, size = text + piece, size + tokens
    if text.strip():
        yield text.strip()


def _pieces(text: str, tokenizer: "TextTokenizer", most: int) -> Iterator[str]:
    """Lines, sentences of long lines, words of long sentences; joined they are the text but for spaces."""
    for line in text.splitlines(keepends=True):
        if len(tokenizer.encode(line)) <= most:
            yield line
            continue
        for sentence in sentences(line):
            short = len(tokenizer.encode(sentence)) <= most
            yield from [sentence] if short else re.findall(r"\s*\S{1,80}\s*", sentence)


def passages(documents: Sequence[Document]) -> list[Passage]:
    """The passages of documents that a question is known for, each question once."""
    found = [
        (document, heading, text) for document in documents for heading, text in _texts(document)
        if PASSAGE[0] <= len(text) <= LONGEST
    ]  # fmt: skip
    frequency = Counter(word for _, _, text in found for word in {*words(text)})
    asked: set[str] = set()
    made = []
    for document, heading, text in found:
        named = dict.fromkeys(_questions(document, heading, text, frequency))
        questions = tuple(question for question in named if question not in asked)
        asked.update(questions)
        if questions:
            held_out = key_of("passage", text) < HELD_OUT * 2**64
            made.append(Passage(document.name, text, questions, held_out))
    return made


def _texts(document: Document) -> Iterator[tuple[str, str]]:
    """(heading that is above, text) of each passage, the heading once."""
    heading = ""
    least, most = PASSAGE
    for line in _paragraphs(document.text):
        if marked := _HEADING.fullmatch(line):
            heading = marked[1].strip("*_` ")
            continue
        text = ""
        for sentence in sentences(line):
            if text and len(text) + len(sentence) > most:
                yield heading, text.strip()
                heading, text = "", ""
            text += sentence
        if len(text) >= least:
            yield heading, text.strip()
            heading = ""


def _paragraphs(text: str) -> Iterator[str]:
    """Headings and paragraphs; lines that were wrapped are joined, lists, tables and code left out."""
    open_line = ""
    for line in [*text.splitlines(), ""]:
        line = line.strip()
        goes_on = line and not _HEADING.fullmatch(line) and line[0] not in "|>-*+`<"
        if open_line and (not goes_on or _ENDED.search(open_line)):
            yield open_line
            open_line = ""
        if goes_on:
            open_line = f"{open_line} {line}".strip()
        elif _HEADING.fullmatch(line):
            yield line


def _questions(document: Document, heading: str, text: str, frequency: Mapping[str, int]) -> Iterator[str]:
    if (defines := _DEFINES.match(text)) and defines["what"].split()[0].lower() not in _PRONOUNS:
        article = f"{defines['the'].lower()} " if defines["the"] else ""
        yield f"What {defines['verb']} {article}{defines['what']}?"
    if heading and heading.lower() != document.title.lower():
        yield f"What does “{document.title}” say about {heading}?"
    told = {*words(document.title)}
    places = {  # the first of each word, names before other words
        word: (frequency[word.lower()], not _is_name(text, found.start()), -len(word), found.start())
        for found in reversed([*_WORD.finditer(text)])
        if len(word := found[0]) > 3 and words(word) and word.lower() not in told
    }
    rare = sorted(sorted(places, key=places.__getitem__)[:2], key=lambda word: places[word][-1])
    if len(rare) > 1:
        yield f"What does “{document.title}” say about {rare[0]} and {rare[1]}?"


def _is_name(text: str, start: int) -> bool:
    """Whether a word begins with a capital that no sentence's beginning explains."""
    return text[start].isupper() and text[:start].rstrip(" \"'“‘(")[-1:] not in (*".!?:", "")


def words(text: str) -> list[str]:
    """The words of a text that carry meaning, in lower case: numbers, and words of three letters and more
    that are not among the most common ones."""
    found = (word.lower() for word in _WORD.findall(text))
    return [word for word in found if word not in _COMMON and (len(word) > 2 or word.isdigit())]


def is_right(answer: str, passage: Mapping[str, Any]) -> bool:
    """Whether an answer holds RIGHT of the words of a passage that its question does not tell."""
    own = {*words(passage["text"])} - {*words(passage["question"])}
    return bool(own) and len(own & {*words(answer)}) >= RIGHT * len(own)


def ask(
    model: "Llama", tokenizer: "TextTokenizer", form: "Format | None", held_out: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Ask held-out questions without their passages and with them in the prompt: {without, with}, lists of
    {question, text, answer, right}. held_out: {question, text} each."""
    from puna.tune import probe

    asked = held_out[:ASKED]
    read = [f"{entry['text']}\n\n{entry['question']}" for entry in asked]
    found = probe.ask(model, tokenizer, form, [*(entry["question"] for entry in asked), *read])
    told = [
        dict(entry) | {"answer": each.answer, "right": is_right(each.answer, entry)}
        for entry, each in zip([*asked, *asked], found, strict=True)
    ]
    return {"without": told[: len(asked)], "with": told[len(asked) :]}


def advice(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Say in plain words what tuning has taught of the documents, and whether looking passages up would serve
    better; "" where nothing was asked."""
    if not after["without"]:
        return ""
    known, learned, read = (
        sum(entry["right"] for entry in part) for part in (before["without"], after["without"], after["with"])
    )
    count = len(after["without"])
    told = (
        f"Of {count} questions on passages that were held out, {learned} are answered right from memory "
        f"({known} before tuning), {read} with the passage in the prompt."
    )
    if read - learned > GAIN * count:
        told += (
            " Looking passages up and giving them to the model would serve better than tuning on them: keep "
            "the tuned model for how it speaks, and put what it has to know into the prompt."
        )
    return told
