"""Splitter of a page's HTML into blocks (paragraphs, headings, list items, table rows) and their elements.

The source is cut by one regular expression in one pass, as tolerant as a browser is, with its limit of 512
open elements. The time is linear in the page, since every match that begins also succeeds: a tag, comment or
script that is never closed reaches to the end of the page, as in the HTML standard (section 13.2.5).
blocks.cpp does the same faster, and is used where there is a compiler.
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
# Elements whose content is no text of the page, and is passed over up to the end tag.
RAW = "script|style|select|textarea|template|iframe|noscript|noembed|noframes|xmp"
TOKEN = re.compile(
    r"<(?:!--(?:-?>|(?:[^-]++|-(?!-!?>))*+(?:--!?>|\Z))|(?:[!?]|/(?![a-zA-Z]))[^>]*+(?:>|\Z)|"
    rf"(?=[sStTiInNxX])((?ai:{RAW}))(?=[\s/>]){ATTRIBUTES}(?:>|\Z)[^<]*+(?:<(?!/(?ai:\1)[\s/>])[^<]*+)*+|"
    rf"(/?)([a-zA-Z][^\s/>]*+)({ATTRIBUTES})(?:>|\Z))"
)
HINT = re.compile(
    r"""[\s"'/](class|id|role|itemprop|style|hidden)"""
    r"""(?:\s*+=\s*+(?:"([^"]{0,300})|'([^']{0,300})|([^\s"'>]{1,300}))|(?![a-zA-Z0-9_\x80-\U0010ffff-]))"""
)


def names(text: str) -> tuple[str, ...]:
    """Split names at white space."""
    return tuple(text.split())


# Kinds of elements and blocks; 0 is an inline element, which makes no block.
CONTAINER, PARAGRAPH, ITEM, HEADING, CELL, ROW, PRE, SKIP, LINK, BREAK, TITLE, RULE = range(1, 13)
CONTAINERS = names("""
    div section article main aside nav header footer form table thead tbody tfoot ul ol dl menu dir
    blockquote figure figcaption caption fieldset details summary address center dialog hgroup search legend
""")
INLINE = names("""
    span b i u em strong img font small sup sub input label path use g meta link source picture time code
    script
""")
KINDS = {
    **dict.fromkeys(CONTAINERS, CONTAINER),
    **dict.fromkeys(INLINE, 0),
    "p": PARAGRAPH,
    **dict.fromkeys(names("li dt dd"), ITEM),
    **dict.fromkeys(names("h1 h2 h3 h4 h5 h6"), HEADING),
    **dict.fromkeys(names("td th"), CELL),
    "tr": ROW,
    **dict.fromkeys(names("pre listing plaintext"), PRE),
    "a": LINK,
    "br": BREAK,
    "title": TITLE,
    "hr": RULE,
    **dict.fromkeys(names("svg button object video audio canvas datalist rt rp annotation"), SKIP),
}
# The open elements that a start tag closes, and those that end the search for them.
CLOSES = {
    "li": (("li",), ("ul", "ol", "menu", "dir")),
    **dict.fromkeys(("dt", "dd"), (("dt", "dd"), ("dl",))),
    "tr": (("tr",), ("table",)),
    **dict.fromkeys(("td", "th"), (("td", "th"), ("tr", "table"))),
}
SCOPE_BOUNDARIES = frozenset(("td", "th", "table"))  # an end tag closes nothing outside of these,
CROSSING_SCOPES = frozenset(("table", "thead", "tbody", "tfoot", "tr", "td", "th"))  # except one of these
# Limits of open elements, of nodes, of blocks; what is nested deeper or comes later is ignored.
MAX_DEPTH, MAX_NODES, MAX_BLOCKS = 512, 200_000, 50_000
MAX_CLOSED = 64  # open elements that one tag may close

# Words of an element's class, id and role, found anywhere inside a word or (^, $) at its start or end.
WORDS = {
    "comment": "comment|disqus|respond|replies|reply|discuss|kommentar|forum",
    "side": "side|rail|widget|complementary|marginal|right",
    "navigation": "nav|menu|crumb|pagina|pager|toolbar|tabs|skip|sitemap|jump",
    "footer": "foot|colophon|impressum|copyright|legal|bottom",
    "header": "header|masthead|banner|topbar|logo|brand",
    "share": "share|sharing|social|facebook|twitter|follow|addtoany|whatsapp|like",
    "related": "relat|recommend|^more|teaser|promo|popular|trend|^next|^prev|similar|latest|outbrain|"
    "taboola|^most|^also|recirc",
    "advert": "^ad$|^ads$|^adv|advert|sponsor|werbung|anzeige|affiliate|shop|product|price|cart",
    "consent": "cookie|consent|gdpr|popup|modal|overlay|newsletter|subscri|signup|login|paywall|regist|"
    "dialog|alert|notice",
    "meta": "author|byline|meta|date|time|posted|info|^tag|categor|^bio|avatar|profile|credit|source|label",
    "content": "content|article|post|entry|story|text|body|main|blog|news|detail",
    "caption": "caption|image|photo|gallery|media|slide|carousel|video|player|thumb|bild|foto",
    "list": "list|grid|card|item|tile|archive|index|feed",
    "hidden": "hidden|screen|visual|collapse|print|invisible",
    "form": "form|search|input|field|contact|rating|vote|poll",
    "lead": "lead|intro|summary|abstract|excerpt|subtitle|standfirst|dek|description|headline|title",
    "quote": "quote|box|note|toc|reference|footnote|citation",
    "prose": "articlebody|articletext|articlecontent|bodytext|storybody|postbody|richtext|prose|markdown|"
    "copy|single",
}
TAGS = {
    "nav": "navigation",
    "footer": "footer",
    "aside": "side",
    "header": "header",
    "form": "form",
    "dialog": "consent",
    "figure": "caption",
    "figcaption": "caption",
    "caption": "caption",
    "blockquote": "quote",
    "search": "form",
    "address": "meta",
}
TAG_GROUPS = names("nav footer aside header form article main table ul ol dl figure blockquote tr li p")
# What elements are for, by the words of their attributes and by their names.
GROUPS = tuple(dict.fromkeys((*WORDS, *TAG_GROUPS)))
GROUP_INDEX = {name: index for index, name in enumerate(GROUPS)}
PATTERNS = [(1 << GROUP_INDEX[name], re.compile(words)) for name, words in WORDS.items()]
CONTENT, PROSE = 1 << GROUP_INDEX["content"], 1 << GROUP_INDEX["prose"]
GROUPS_OF_TAG = {name: 1 << GROUP_INDEX[name] for name in TAG_GROUPS}
for _name, _group in TAGS.items():
    GROUPS_OF_TAG[_name] = GROUPS_OF_TAG.get(_name, 0) | 1 << GROUP_INDEX[_group]
LETTERS = re.compile("[a-z]{2,30}")
LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
LONG_REFERENCE = re.compile("&#[0-9]{8,};?")  # of no character
NEW_LINE = "\x00"  # stands for <br>; split() takes a source without it
MAX_CELL_LENGTH = 200  # characters; a row with a longer cell is taken for layout: its cells are not joined
MAX_SHORT_LENGTH = 200  # characters of a block whose words are compared with the title's
SENTENCE_ENDS = (". ", "? ", "! ", "。", "！", "？", "।", "؟", "…")
COLUMNS = names("""
    kinds levels link_lengths nodes lengths sizes sentence_ends copies repeats title_words words
""")


@dataclass(frozen=True)
class Blocks:
    """Blocks of a page in its order, and the nodes (elements) they lie in; node 0 is the page.

    Integers of blocks: kinds (values of KINDS), levels (of headings, else 0), link_lengths (characters inside
    links), nodes (the innermost node), lengths (in characters), sizes (lengths, doubled for scripts that
    write a word in two or three characters), sentence_ends (roughly), copies (blocks with the same text),
    repeats (elements with the name and hints of the block's node), words (of a block of up to 200 characters,
    else 0), title_words (how many different ones of these are in the title, ignoring case), nearest [blocks,
    groups] (for each of GROUPS, the innermost node around the block that belongs to it, else -1). Integers of
    nodes: parents (-1 for the page), first and last (the range of the blocks inside).
    """

    title: str
    texts: list[str]
    kinds: np.ndarray
    levels: np.ndarray
    link_lengths: np.ndarray
    nodes: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    sentence_ends: np.ndarray
    copies: np.ndarray
    repeats: np.ndarray
    title_words: np.ndarray
    words: np.ndarray
    nearest: np.ndarray
    parents: np.ndarray
    first: np.ndarray
    last: np.ndarray


@lru_cache(16384)
def _groups_of_word(word: str) -> int:
    """Return the groups that one word stands for, as bits."""
    return sum(bit for bit, pattern in PATTERNS if pattern.search(word))


@lru_cache(4096)
def _set_bits(bits: int) -> tuple[int, ...]:
    return tuple(number for number in range(len(GROUPS)) if bits >> number & 1)


@lru_cache(8192)
def _classify(name: str, attributes: str) -> tuple[str, tuple[int, ...]]:
    """Return an element's name with its hints (values of class, id, role, ...), and its groups by both."""
    hints = ""
    for attribute, *values in HINT.findall(attributes):
        value = "".join(values).translate(LOWER)
        if attribute == "hidden":
            hints += " hidden"
        elif attribute != "style":
            hints += " " + value
        elif "none" in value and re.search(r"display:\s*none", value):
            hints += " hidden"
    groups, content = GROUPS_OF_TAG.get(name, 0), 0
    for word in set(LETTERS.findall(hints)):
        bits = _groups_of_word(word)
        groups |= bits
        content += bits & CONTENT
    if content > CONTENT:  # two words for content, as in "entry-content": the text itself
        groups |= PROSE
    return name + hints, _set_bits(groups)


def split(source: str | bytes) -> Blocks:
    """Split a page, text or UTF-8 without NUL, into blocks. Raises MemoryError where memory is short."""
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
        characters = np.empty(text_bytes + title_bytes, np.uint8)
        columns = np.empty((len(COLUMNS), count), np.int64)
        node_columns = np.empty((3, node_count), np.int64)
        nearest = np.empty((count, len(GROUPS)), np.intc)
        arrays = (characters, columns, node_columns, nearest)
        functions.blocks_read(page, *(array.ctypes.data for array in arrays))
    finally:
        functions.blocks_close(page)
    text = str(characters.data, "utf-8", "surrogatepass")
    ends = np.cumsum(columns[COLUMNS.index("lengths")]).tolist()
    texts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    title = text[ends[-1] if ends else 0 :]
    title_words, words_of_title = columns[COLUMNS.index("title_words")], set(_words(title))
    for block in np.flatnonzero(title_words < 0).tolist():  # those that take str.lower
        title_words[block] = len(words_of_title.intersection(_words(texts[block])))
    return _blocks(title, texts, columns, node_columns, nearest)


@cache
def library() -> tuple[Any, int]:
    """Return the compiled functions and the address of their tables; None and 0 without a compiler."""
    functions = compiled.load(SOURCE, SIGNATURES)
    if functions is None:
        return None, 0
    block_tags = [name for name, kind in KINDS.items() if kind]
    bits = {name: 1 << number for number, name in enumerate(block_tags)}
    assert len(bits) <= 64 and len(GROUPS) <= 64

    def bits_of(tags: Iterable[str]) -> int:
        return sum(bits[name] for name in tags)

    rows = [(0,) * 6]
    for name, kind in KINDS.items():
        closed, boundaries = map(bits_of, CLOSES.get(name, ((), ())))
        end_boundaries = bits_of(_end_boundaries(name))
        groups_of_tag = GROUPS_OF_TAG.get(name, 0)
        rows.append((kind, bits.get(name, 0), closed, boundaries, end_boundaries, groups_of_tag))
    tags = np.array(rows, np.uint64)
    raw_tags = RAW.split("|")
    entities = {f"#{code}": html.unescape(f"&#{code};") for code in _special_code_points()} | html5
    strings = ["", *KINDS, *raw_tags, *(text for pair in entities.items() for text in pair)]
    letters = "".join(text + "\0" for text in strings).encode()
    next_states, groups = _automaton()
    limits = np.array([CONTENT, PROSE, len(GROUPS), MAX_DEPTH, MAX_NODES, MAX_BLOCKS, MAX_CLOSED], np.uint64)
    arrays = (tags, next_states, groups, limits)
    tags_at, next_at, groups_at, limits_at = (array.ctypes.data for array in arrays)
    tables = functions.blocks_open(
        letters, len(letters), tags_at, len(tags), len(raw_tags), next_at, groups_at, len(groups), limits_at
    )
    if tables is None:
        raise MemoryError
    return functions, tables


def _end_boundaries(name: str) -> frozenset[str]:
    """Return the open elements outside of which an end tag closes nothing."""
    return frozenset() if name in CROSSING_SCOPES else SCOPE_BOUNDARIES


def _special_code_points() -> Iterator[int]:
    """Yield the numbers of character references that may stand for another character or for none."""
    yield from (*range(256), *range(0xFDD0, 0xFDF0))
    for plane in range(17):
        yield from (plane << 16 | 0xFFFE, plane << 16 | 0xFFFF)


def _automaton() -> tuple[np.ndarray, np.ndarray]:
    """Build one automaton of WORDS (Aho and Corasick, "Efficient String Matching", 1975).

    Returns the next state by letter, int32 [states, 28], and the groups that a state stands for, as bits,
    uint64 [states]. Letters are a to z, a word's start and its end.
    """
    next_states, groups = [[0] * 28], [0]
    for name, words in WORDS.items():
        for word in words.split("|"):
            state = 0
            for letter in word:
                number = {"^": 26, "$": 27}.get(letter, ord(letter) - ord("a"))
                if not next_states[state][number]:
                    next_states[state][number] = len(next_states)
                    next_states.append([0] * 28)
                    groups.append(0)
                state = next_states[state][number]
            groups[state] |= 1 << GROUP_INDEX[name]
    # Breadth first. `suffix` is the state of the longest proper suffix of the letters that lead to `state`.
    queue = [(state, 0) for state in next_states[0] if state]
    for state, suffix in queue:
        groups[state] |= groups[suffix]
        for number, fallback in enumerate(next_states[suffix]):
            if next_states[state][number]:
                queue.append((next_states[state][number], fallback))
            else:
                next_states[state][number] = fallback
    return np.array(next_states, np.int32), np.array(groups, np.uint64)


def _split(source: str) -> Blocks:  # noqa: C901 -- one pass over the tags, with one state of open elements
    """Split a page in Python, as blocks.cpp does."""
    title = ""
    texts: list[str] = []
    kinds: list[int] = []
    levels: list[int] = []
    link_lengths: list[int] = []
    nodes: list[int] = []
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
            filled = [(text, length) for parts, length in cells if (text := clean(parts, False))]
            cells = []
            texts_of_cells = [text for text, _ in filled]
            if len(filled) > 1 and max(map(len, texts_of_cells)) < MAX_CELL_LENGTH:
                filled = [(" | ".join(texts_of_cells), sum(length for _, length in filled))]
            for text, length in filled:
                add(text, length, ROW)
        elif buffer and (text := clean(buffer, bool(pre))):
            kind = KINDS.get(tag, 0)
            if kind in (0, ITEM):  # an item's later blocks are no items
                kind = CONTAINER
            add(text, linked, PRE if pre else ITEM if bullet else kind)
            bullet = False
        if buffer:
            buffer, linked = [], 0
        in_title = False

    def add(text: str, link_length: int, kind: int) -> None:
        if len(texts) < MAX_BLOCKS:
            texts.append(text)
            link_lengths.append(min(link_length, len(text)))
            kinds.append(kind)
            levels.append(int(tag[1]) if kind == HEADING else 0)
            nodes.append(node)

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

    def height_of(wanted: tuple[str, ...], boundaries: tuple[str, ...] | frozenset[str]) -> int:
        """Return where one of the elements is open, 0 if a boundary comes first."""
        for height in range(len(stack) - 1, max(len(stack) - MAX_CLOSED, 0), -1):
            name = stack[height][0]
            if name in wanted:
                return height
            if name in boundaries:
                return 0
        return 0

    parts = TOKEN.split(source)
    parts += [None, None, None, None]
    tokens = zip(parts[0::5], parts[2::5], parts[3::5], parts[4::5], strict=True)
    for text, closing, name, attributes in tokens:
        if text and not skipping and (buffer or pre or not text.isspace()):
            buffer.append(text)
            if in_link:
                linked += len(text.strip())
        if name is None:
            continue
        kind = KINDS.get(name)
        if not kind:
            if kind == 0:
                continue
            name = name.lower()
            kind = KINDS.get(name)
            if not kind:
                if name == "body":
                    flush()
                continue
        if kind == LINK:
            in_link = 0 if closing else len(stack)
        elif kind == BREAK:
            if buffer:
                buffer.append(NEW_LINE)
        elif kind == TITLE:
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
                height = height_of((name,), _end_boundaries(name))
            else:
                height = 0
                if kind == PARAGRAPH:
                    flush()
            if height:
                if kind == CELL:
                    cells.append((buffer, linked))
                    buffer, linked = [], 0
                elif kind != SKIP and (buffer or cells):
                    flush()
                close(height)
        elif kind == RULE:
            flush()
        elif kind == SKIP:
            if len(stack) < MAX_DEPTH and attributes[-1:] != "/":
                stack.append((name, node))
                open_count[name] += 1
                skipping = skipping or len(stack)
        else:
            if kind == CELL and stack[-1][0] in ("tr", "td", "th"):
                cells.append((buffer, linked))
                buffer, linked = [], 0
            elif buffer or cells:
                flush()
            if stack[-1][0] == "p":
                close(len(stack) - 1)
            if name in CLOSES:
                closed, boundaries = CLOSES[name]
                if stack[-1][0] not in boundaries and (height := height_of(closed, boundaries)):
                    close(height)
            if len(stack) < MAX_DEPTH and len(parents) < MAX_NODES:
                node, tag = len(parents), name
                parents.append(stack[-1][1])
                first.append(len(texts))
                last.append(0)
                elements.append((name, attributes))
                stack.append((name, node))
                open_count[name] += 1
                if kind == ITEM:
                    bullet = name == "li"
                elif kind == PRE:
                    pre = pre or len(stack)
    flush()
    close(1)
    last[0] = len(texts)
    nearest_of_node, signatures = _classify_nodes(parents, first, last, elements)
    text_counts, signature_counts = Counter(texts), Counter(signatures)
    words = [_words(text) if len(text) <= MAX_SHORT_LENGTH else [] for text in texts]
    words_of_title = set(_words(title))
    columns = [
        kinds,
        levels,
        link_lengths,
        nodes,
        [len(text) for text in texts],
        [_size(text) for text in texts],
        [_sentence_ends(text) for text in texts],
        [text_counts[text] for text in texts],
        [signature_counts[signatures[node]] for node in nodes],
        [len(words_of_title.intersection(own)) for own in words],
        [len(own) for own in words],
    ]
    node_columns = np.array([parents, first, last], np.int64)
    nearest = np.array([nearest_of_node[node] for node in nodes], np.intc).reshape(len(texts), len(GROUPS))
    return _blocks(title, texts, np.array(columns, np.int64), node_columns, nearest)


def _blocks(
    title: str, texts: list[str], columns: np.ndarray, node_columns: np.ndarray, nearest: np.ndarray
) -> Blocks:
    """Make Blocks of COLUMNS, [columns, blocks], and of parents, first and last, [3, nodes]."""
    parents, first, last = node_columns
    by_name = dict(zip(COLUMNS, columns, strict=True))
    return Blocks(title, texts, nearest=nearest, parents=parents, first=first, last=last, **by_name)


def _classify_nodes(
    parents: list[int], first: list[int], last: list[int], elements: list[tuple[str, str]]
) -> "tuple[list[array[int]], list[str]]":
    """Return for each node the innermost node of each group around it, and its signature: its name and hints.

    A node without blocks has those of its parent, and its name alone.
    """
    nearest, signatures = [array("i", [-1]) * len(GROUPS)], [""]
    for node in range(1, len(parents)):
        own, (signature, attributes) = nearest[parents[node]], elements[node]
        if first[node] < last[node]:
            signature, groups = _classify(signature, attributes[:1000])
            if groups:
                own = own[:]
            for group in groups:
                own[group] = node
        nearest.append(own)
        signatures.append(signature)
    return nearest, signatures


def _words(text: str) -> list[str]:
    return text.lower().split()


def _size(text: str) -> int:
    """Return the characters of a text, doubled where they are mostly of three bytes or more."""
    if text.isascii() or len(text.encode("utf-8", "replace")) <= 2.3 * len(text):
        return len(text)
    return 2 * len(text)


def _sentence_ends(text: str) -> int:
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
