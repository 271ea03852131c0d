"""A page as a list of blocks: paragraphs, headings, list items, table rows, each with what surrounds it.

One pass of one regular expression, tolerant as a browser is, with its limit of 512 open elements. The time is
linear in the page, since every match that begins also succeeds: a tag, a comment or a script that never ends
reaches to the end of the page, as the HTML standard has it (section 13.2.5). Where there is a compiler,
blocks.cpp does the same sooner.
"""

import html
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from html.entities import html5
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import numpy as np

from puna.run import compiled

SOURCE = Path(__file__).with_name("blocks.cpp")
SIGNATURES = {
    "blocks_open": "pnpnnppnp->p",
    "blocks_split": "ppnp->p",
    "blocks_read": "ppppp",
    "blocks_close": "p",
}

ATTRIBUTES = r"""(?:[^>=]+|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)|))*+"""
# what they hold is no text of the page
RAW = "script|style|select|textarea|template|iframe|noscript|noembed|noframes|xmp"
TOKEN = re.compile(
    r"<(?:!--(?:-?>|(?:[^-]++|-(?!-!?>))*+(?:--!?>|\Z))|(?:[!?]|/(?![a-zA-Z]))[^>]*+(?:>|\Z)|"
    rf"(?=[sStTiInNxX])((?ai:{RAW}))(?=[\s/>]){ATTRIBUTES}(?:>|\Z)[^<]*+(?:<(?!/(?ai:\1)[\s/>])[^<]*+)*+|"
    rf"(/?)([a-zA-Z][^\s/>]*+)({ATTRIBUTES})(?:>|\Z))"
)
MARK = re.compile(
    r"""[\s"'/](class|id|role|itemprop|style|hidden)"""
    r"""(?:\s*+=\s*+(?:"([^"]{0,300})|'([^']{0,300})|([^\s"'>]{1,300}))|(?![a-zA-Z0-9_\x80-\U0010ffff-]))"""
)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CONTAINER, PARAGRAPH, ITEM, HEADING, CELL, ROW, PRE, SKIP, LINK, BREAK, TITLE, RULE = range(1, 13)
CONTAINERS = _names("""
    div section article main aside nav header footer form table thead tbody tfoot ul ol dl menu dir blockquote figure figcaption caption
    fieldset details summary address center dialog hgroup search legend
""")
INLINE = _names(
    "span b i u em strong img font small sup sub input label path use g meta link source picture time code script"
)
KINDS = {
    **dict.fromkeys(CONTAINERS, CONTAINER), **dict.fromkeys(INLINE, 0),
    "p": PARAGRAPH, "li": ITEM, "dt": ITEM, "dd": ITEM, **dict.fromkeys(_names("h1 h2 h3 h4 h5 h6"), HEADING),
    "td": CELL, "th": CELL, "tr": ROW, "pre": PRE, "listing": PRE, "plaintext": PRE, "a": LINK, "br": BREAK, "title": TITLE, "hr": RULE,
    **dict.fromkeys(_names("svg button object video audio canvas datalist rt rp annotation"), SKIP),
}  # fmt: skip
CLOSES = {  # what an element's start closes, and where the search for it ends
    "li": (("li",), ("ul", "ol", "menu", "dir")),
    **dict.fromkeys(("dt", "dd"), (("dt", "dd"), ("dl",))),
    "tr": (("tr",), ("table",)),
    **dict.fromkeys(("td", "th"), (("td", "th"), ("tr", "table"))),
}
WALLS = frozenset(("td", "th", "table"))  # an end tag closes nothing beyond them
WIDE = frozenset(("table", "thead", "tbody", "tfoot", "tr", "td", "th"))  # but these
DEPTH, NODES, BLOCKS = (
    512,
    200_000,
    50_000,
)  # the most of each that is looked at; deeper and later tags are passed over
REACH = 64  # how many open elements a tag may close at once

# of an element's class, id and role; found anywhere inside one of their words, or (^, $) at its start or its
# end
WORDS = {
    "comment": "comment|disqus|respond|replies|reply|discuss|kommentar|forum",
    "side": "side|rail|widget|complementary|marginal|right",
    "navigation": "nav|menu|crumb|pagina|pager|toolbar|tabs|skip|sitemap|jump",
    "footer": "foot|colophon|impressum|copyright|legal|bottom",
    "header": "header|masthead|banner|topbar|logo|brand",
    "share": "share|sharing|social|facebook|twitter|follow|addtoany|whatsapp|like",
    "related": "relat|recommend|^more|teaser|promo|popular|trend|^next|^prev|similar|latest|outbrain|taboola|^most|^also|recirc",
    "advert": "^ad$|^ads$|^adv|advert|sponsor|werbung|anzeige|affiliate|shop|product|price|cart",
    "consent": "cookie|consent|gdpr|popup|modal|overlay|newsletter|subscri|signup|login|paywall|regist|dialog|alert|notice",
    "meta": "author|byline|meta|date|time|posted|info|^tag|categor|^bio|avatar|profile|credit|source|label",
    "content": "content|article|post|entry|story|text|body|main|blog|news|detail",
    "caption": "caption|image|photo|gallery|media|slide|carousel|video|player|thumb|bild|foto",
    "list": "list|grid|card|item|tile|archive|index|feed",
    "hidden": "hidden|screen|visual|collapse|print|invisible",
    "form": "form|search|input|field|contact|rating|vote|poll",
    "lead": "lead|intro|summary|abstract|excerpt|subtitle|standfirst|dek|description|headline|title",
    "quote": "quote|box|note|toc|reference|footnote|citation",
    "prose": "articlebody|articletext|articlecontent|bodytext|storybody|postbody|richtext|prose|markdown|copy|single",
}
TAGS = {
    "nav": "navigation", "footer": "footer", "aside": "side", "header": "header", "form": "form", "dialog": "consent", "figure": "caption",
    "figcaption": "caption", "caption": "caption", "blockquote": "quote", "search": "form", "address": "meta",
}  # fmt: skip
TAG_GROUPS = _names("nav footer aside header form article main table ul ol dl figure blockquote tr li p")
GROUPS = tuple(dict.fromkeys((*WORDS, *TAG_GROUPS)))
NUMBER = {name: index for index, name in enumerate(GROUPS)}
PATTERNS = [(1 << NUMBER[name], re.compile(words)) for name, words in WORDS.items()]
CONTENT, PROSE = 1 << NUMBER["content"], 1 << NUMBER["prose"]
BY_NAME = {name: 1 << NUMBER[name] for name in TAG_GROUPS}
for _name, _group in TAGS.items():
    BY_NAME[_name] = BY_NAME.get(_name, 0) | 1 << NUMBER[_group]
LETTERS = re.compile("[a-z]{2,30}")
LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
DIGITS = re.compile("&#[0-9]{8,};?")
NEW_LINE = "\x00"  # stands for <br>; split() takes a source without it
ROW_CELL = 200  # characters; where a cell has more, the table is no table of data
SHORT = 200  # characters of a block that may repeat the title
STOPS = (". ", "? ", "! ", "。", "！", "？", "।", "؟", "…")
COLUMNS = (
    "kinds",
    "levels",
    "links",
    "places",
    "lengths",
    "sizes",
    "stops",
    "copies",
    "repeats",
    "common",
    "words",
)


@dataclass(frozen=True)
class Blocks:
    """What `split` finds. A block's place is the node it lies in; nodes are in the page's order, node 0 is
    the page.

    Of blocks, integers: kinds (KINDS' values), levels (of headings; else 0), links (characters inside links),
    places, lengths (in characters), sizes (where those of scripts that write a word in two or three
    characters count double), stops (how many sentences end in it, roughly), copies (blocks of the same text),
    repeats (elements of the place's name and marks), words (of a block of up to 200 characters; else 0),
    common (how many different ones of these the title has, whatever their case), near [blocks, groups] (for
    each of GROUPS, the nearest node at or above the place that belongs to it; -1: none). Of nodes: parents
    (-1: none), first and last (the range of blocks inside).
    """

    title: str
    texts: list[str]
    kinds: np.ndarray
    levels: np.ndarray
    links: np.ndarray
    places: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    stops: np.ndarray
    copies: np.ndarray
    repeats: np.ndarray
    common: np.ndarray
    words: np.ndarray
    near: np.ndarray
    parents: np.ndarray
    first: np.ndarray
    last: np.ndarray


@lru_cache(16384)
def _word(word: str) -> int:
    """The groups that one word speaks for, as bits."""
    return sum(bit for bit, pattern in PATTERNS if pattern.search(word))


@lru_cache(4096)
def _numbers(bits: int) -> tuple[int, ...]:
    return tuple(number for number in range(len(GROUPS)) if bits >> number & 1)


@lru_cache(8192)
def _element(name: str, attributes: str) -> tuple[str, tuple[int, ...]]:
    """What an element's attributes say it is for, and the groups it belongs to by that and by its name."""
    marks = ""
    for mark, *values in MARK.findall(attributes):
        value = "".join(values).translate(LOWER)
        if mark == "hidden":
            marks += " hidden"
        elif mark != "style":
            marks += " " + value
        elif "none" in value and re.search(r"display:\s*none", value):
            marks += " hidden"
    found, content = BY_NAME.get(name, 0), 0
    for word in set(LETTERS.findall(marks)):
        bits = _word(word)
        found |= bits
        content += bits & CONTENT
    if content > CONTENT:  # "entry-content", "article body": the text itself
        found |= PROSE
    return name + marks, _numbers(found)


def split(source: str | bytes) -> Blocks:
    """The blocks of a page's source, text or UTF-8, which holds no NUL. Raises MemoryError where memory is
    short."""
    functions, tables = library()
    if functions is None:
        return _split(source if isinstance(source, str) else source.decode())
    raw = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
    del source  # where it is text, a copy of up to four times the size
    sizes = np.empty(4, np.int64)
    page = functions.blocks_split(tables, raw, len(raw), sizes.ctypes.data)
    if page is None:
        raise MemoryError
    try:
        count, node_count, text_bytes, title_bytes = sizes.tolist()
        text = np.empty(text_bytes + title_bytes, np.uint8)
        columns, nodes = np.empty((len(COLUMNS), count), np.int64), np.empty((3, node_count), np.int64)
        near = np.empty((count, len(GROUPS)), np.intc)
        functions.blocks_read(
            page, text.ctypes.data, columns.ctypes.data, nodes.ctypes.data, near.ctypes.data
        )
    finally:
        functions.blocks_close(page)
    whole = str(text.data, "utf-8", "surrogatepass")
    ends = np.cumsum(columns[COLUMNS.index("lengths")]).tolist()
    texts = [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    title = whole[ends[-1] if ends else 0 :]
    common, title_words = columns[COLUMNS.index("common")], set(_words(title))
    for number in np.flatnonzero(common < 0).tolist():  # it takes str.lower
        common[number] = len(title_words.intersection(_words(texts[number])))
    return _blocks(title, texts, columns, nodes, near)


@cache
def library() -> tuple[Any, int]:
    """The built C++ source and the address of its tables; None and 0 where it cannot be built or is switched
    off."""
    functions = compiled.load(SOURCE, SIGNATURES)
    if functions is None:
        return None, 0
    bits = {name: 1 << number for number, name in enumerate(name for name, kind in KINDS.items() if kind)}
    assert len(bits) <= 64 and len(GROUPS) <= 64

    def bits_of(names: Iterable[str]) -> int:
        return sum(bits[name] for name in names)

    names = [(0,) * 6]
    for name, kind in KINDS.items():
        same, walls = CLOSES.get(name, ((), ()))
        end_walls = bits_of(() if name in WIDE else WALLS)
        names.append(
            (kind, bits.get(name, 0), bits_of(same), bits_of(walls), end_walls, BY_NAME.get(name, 0))
        )
    entities = {f"#{code}": html.unescape(f"&#{code};") for code in _odd_codes()} | html5
    strings = ["", *KINDS, *RAW.split("|"), *(text for pair in entities.items() for text in pair)]
    letters = "".join(text + "\0" for text in strings).encode()
    following, groups = _automaton()
    numbers, limits = (
        np.array(names, np.uint64),
        np.array([CONTENT, PROSE, len(GROUPS), DEPTH, NODES, BLOCKS, REACH], np.uint64),
    )
    tables = functions.blocks_open(
        letters, len(letters), numbers.ctypes.data, len(names), RAW.count("|") + 1,
        following.ctypes.data, groups.ctypes.data, len(groups), limits.ctypes.data,
    )  # fmt: skip
    if tables is None:
        raise MemoryError
    return functions, tables


def _odd_codes() -> Iterator[int]:
    """The code points that a character reference does not stand for by its number, or may not."""
    yield from (*range(256), *range(0xFDD0, 0xFDF0))
    for plane in range(17):
        yield from (plane << 16 | 0xFFFE, plane << 16 | 0xFFFF)


def _automaton() -> tuple[np.ndarray, np.ndarray]:
    """WORDS as one automaton (Aho and Corasick, "Efficient String Matching", 1975): the state that follows
    each by each letter, int32 [states, 28], and the groups that a state speaks for, uint64 [states]. Letters
    are a to z, a word's start and its end."""
    following, groups = [[0] * 28], [0]
    for name, words in WORDS.items():
        for word in words.split("|"):
            state = 0
            for letter in word:
                number = {"^": 26, "$": 27}.get(letter, ord(letter) - ord("a"))
                if not following[state][number]:
                    following[state][number] = len(following)
                    following.append([0] * 28)
                    groups.append(0)
                state = following[state][number]
            groups[state] |= 1 << NUMBER[name]
    waiting = [(state, 0) for state in following[0] if state]
    for (
        state,
        shorter,
    ) in waiting:  # breadth first: `shorter` is the state of the longest end of what led to `state`
        groups[state] |= groups[shorter]
        for number, then in enumerate(following[shorter]):
            if following[state][number]:
                waiting.append((following[state][number], then))
            else:
                following[state][number] = then
    return np.array(following, np.int32), np.array(groups, np.uint64)


def _split(source: str) -> Blocks:
    """`split` in Python."""
    title = ""
    texts: list[str] = []
    kinds: list[int] = []
    levels: list[int] = []
    links: list[int] = []
    places: list[int] = []
    first, last, parents = [0], [0], [-1]
    elements = [("", "")]
    stack: list[tuple[str, int]] = [("", 0)]  # the open elements and their nodes
    open_count: Counter[str] = Counter()
    node = 0
    buffer: list[str] = []
    cells: list[tuple[list[str], int]] = []
    linked = 0
    in_link = 0
    skipping = pre = 0  # as in_link: the height of the stack at the element that began it; 0: none is open
    in_title = bullet = False
    tag = ""

    def flush() -> None:
        nonlocal buffer, cells, linked, bullet, in_title
        if cells:
            cells.append((buffer, linked))
            rows = [(text, count) for parts, count in cells if (text := clean(parts, False))]
            cells = []
            if len(rows) > 1 and max(len(text) for text, _ in rows) < ROW_CELL:
                rows = [(" | ".join(text for text, _ in rows), sum(count for _, count in rows))]
            for text, count in rows:
                add(text, count, ROW)
        elif buffer and (text := clean(buffer, bool(pre))):
            add(
                text,
                linked,
                PRE
                if pre
                else ITEM
                if bullet
                else CONTAINER
                if (kind := KINDS.get(tag, 0)) in (0, ITEM)
                else kind,
            )
            bullet = False
        if buffer:
            buffer, linked = [], 0
        in_title = False

    def add(text: str, count: int, kind: int) -> None:
        if len(texts) < BLOCKS:
            texts.append(text)
            links.append(min(count, len(text)))
            kinds.append(kind)
            levels.append(int(tag[1]) if kind == HEADING else 0)
            places.append(node)

    def close(height: int) -> None:
        nonlocal node, skipping, pre, in_link, bullet, tag
        while len(stack) > height:
            name, number = stack.pop()
            open_count[name] -= 1
            last[number] = len(texts)
        tag, node = stack[-1]
        bullet = False
        if skipping > height:
            skipping = 0
        if pre > height:
            pre = 0
        if in_link > height:
            in_link = 0

    def height_of(names: tuple[str, ...], walls: tuple[str, ...] | frozenset[str]) -> int:
        for height in range(len(stack) - 1, max(len(stack) - REACH, 0), -1):
            name = stack[height][0]
            if name in names:
                return height
            if name in walls:
                return 0
        return 0

    parts = TOKEN.split(source)
    parts += [None, None, None, None]
    for text, closing, name, attributes in zip(
        parts[0::5], parts[2::5], parts[3::5], parts[4::5], strict=True
    ):
        if text and not skipping and (buffer or pre or not text.isspace()):
            buffer.append(text)
            if in_link:
                linked += len(text.strip())
        if name is None:
            continue
        what = KINDS.get(name)
        if not what:
            if what == 0:
                continue
            name = name.lower()
            what = KINDS.get(name)
            if not what:
                if name == "body":
                    flush()
                continue
        if what == LINK:
            in_link = 0 if closing else len(stack)
        elif what == BREAK:
            if buffer:
                buffer.append(NEW_LINE)
        elif what == TITLE:
            if closing and in_title:
                title = title or " ".join(clean(buffer, False).split())
                buffer, linked, in_title = [], 0, False
            elif not closing and not skipping:
                flush()
                in_title = True
        elif closing:
            if stack[-1][0] == name:
                height = len(stack) - 1
            elif open_count[name]:
                height = height_of((name,), () if name in WIDE else WALLS)
            else:
                height = 0
                if what == PARAGRAPH:
                    flush()
            if height:
                if what == CELL:
                    cells.append((buffer, linked))
                    buffer, linked = [], 0
                elif what != SKIP and (buffer or cells):
                    flush()
                close(height)
        elif what == RULE:
            flush()
        elif what == SKIP:
            if len(stack) < DEPTH and attributes[-1:] != "/":
                stack.append((name, node))
                open_count[name] += 1
                skipping = skipping or len(stack)
        else:
            if what == CELL and stack[-1][0] in ("tr", "td", "th"):
                cells.append((buffer, linked))
                buffer, linked = [], 0
            elif buffer or cells:
                flush()
            if stack[-1][0] == "p":
                close(len(stack) - 1)
            if name in CLOSES:
                same, walls = CLOSES[name]
                if stack[-1][0] not in walls and (height := height_of(same, walls)):
                    close(height)
            if len(stack) < DEPTH and len(parents) < NODES:
                node, tag = len(parents), name
                parents.append(stack[-1][1])
                first.append(len(texts))
                last.append(0)
                elements.append((name, attributes))
                stack.append((name, node))
                open_count[name] += 1
                if what == ITEM:
                    bullet = name == "li"
                elif what == PRE:
                    pre = pre or len(stack)
    flush()
    close(1)
    last[0] = len(texts)
    near, signatures = _surroundings(parents, first, last, elements)
    times, repeats, title_words = Counter(texts), Counter(signatures), set(_words(title))
    words = [_words(text) if len(text) <= SHORT else [] for text in texts]
    columns = [
        kinds, levels, links, places, [len(text) for text in texts], [_size(text) for text in texts], [_stops(text) for text in texts],
        [times[text] for text in texts], [repeats[signatures[place]] for place in places],
        [len(title_words.intersection(own)) for own in words], [len(own) for own in words],
    ]  # fmt: skip
    nearest = np.array([near[place] for place in places], np.intc).reshape(len(texts), len(GROUPS))
    return _blocks(
        title, texts, np.array(columns, np.int64), np.array([parents, first, last], np.int64), nearest
    )


def _blocks(title: str, texts: list[str], columns: np.ndarray, nodes: np.ndarray, near: np.ndarray) -> Blocks:
    """columns: COLUMNS of the blocks; nodes: parents, first, last."""
    parents, first, last = nodes
    return Blocks(
        title,
        texts,
        near=near,
        parents=parents,
        first=first,
        last=last,
        **dict(zip(COLUMNS, columns, strict=True)),
    )


def _surroundings(
    parents: list[int], first: list[int], last: list[int], elements: list[tuple[str, str]]
) -> "tuple[list[array[int]], list[str]]":
    """Of each node that holds blocks, the nearest of each group, and its name and marks; of others, the
    parent's, and the name."""
    near, signatures = [array("i", [-1]) * len(GROUPS)], [""]
    for number, (parent, start, end, (name, attributes)) in enumerate(
        zip(parents, first, last, elements, strict=True)
    ):
        if number:
            above, mark = near[parent], name
            if start < end:
                mark, mine = _element(name, attributes[:1000])
                if mine:
                    above = above[:]
                    for group in mine:
                        above[group] = number
            near.append(above)
            signatures.append(mark)
    return near, signatures


def _words(text: str) -> list[str]:
    return text.lower().split()


def _size(text: str) -> int:
    return len(text) * (
        2 if not text.isascii() and len(text.encode("utf-8", "replace")) > 2.3 * len(text) else 1
    )


def _stops(text: str) -> int:
    last = text[-1] in ".?!"
    return (
        last + sum([text.count(stop) for stop in (STOPS[:3] if text.isascii() else STOPS)])
        if len(text) > 40
        else last
    )


def clean(parts: list[str], verbatim: bool) -> str:
    """The text of a block's parts: entities decoded, spaces joined; lines kept where the page keeps them."""
    text = "".join(parts)
    if "&" in text:
        text = html.unescape(DIGITS.sub("\ufffd", text) if "&#" in text else text)
    if verbatim:
        lines = [line.rstrip() for line in text.replace(NEW_LINE, "\n").splitlines()]
        return "\n".join(lines).strip("\n")
    if NEW_LINE in text:
        return "\n".join([line for line in [" ".join(line.split()) for line in text.split(NEW_LINE)] if line])
    return " ".join(text.split())
