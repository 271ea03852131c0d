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

from puna.corpus.readers.web import characters, elements
from puna.corpus.readers.web.characters import NOTE, NOTES, RAISED_MARKS
from puna.corpus.readers.web.rows import Row, cell_of_numbers, is_between_cells, number_inside
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
    r"""[\s"'/](class|id|role|itemprop|style|hidden|aria-hidden)"""
    r"""(?:\s*+=\s*+(?:"([^"]{0,300})|'([^']{0,300})|([^\s"'>]{1,300}))|(?![a-zA-Z0-9_\x80-\U0010ffff-]))"""
)
UNSEEN = re.compile(r"display:\s*none|visibility:\s*hidden")
LETTERS = re.compile("[a-z]{2,30}")
LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
FORMULAS, RIGHTS = 1, 2  # bits of Blocks.seen
MAX_SHORT_LENGTH = 200  # characters of a block whose words are compared with the title's
COLUMNS = elements.names("""
    kinds levels link_lengths nodes lengths sizes sentence_ends copies title_words words
""")
NODE_COLUMNS = elements.names("parents first last signatures turns")


@dataclass(frozen=True)
class Blocks:
    """Blocks of a page in its order, and the nodes (elements) they lie in; node 0 is the page.

    Integers of blocks: kinds (values of KINDS), levels (of headings, else 0), link_lengths (characters inside
    links), nodes (the innermost node), lengths (in characters), sizes (lengths, doubled for scripts that
    write a word in two or three characters), sentence_ends (roughly), copies (blocks with the same text),
    words (of a block of up to 200 characters, else 0), title_words (how many different ones of these are in
    the title, ignoring case), nearest [blocks, groups] (for each of GROUPS, the innermost node around the
    block that belongs to it, else -1). Integers of nodes: parents (-1 for the page), first and last (the
    range of the blocks inside), signatures (a number for each name with its hints, from 0), turns (links to
    the page before, after or above that the node itself holds).
    seen: whether the page may hold formulas, or name a licence (bits FORMULAS, RIGHTS).
    Texts hold RAISED_MARKS around superscripts and subscripts.
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
    title_words: np.ndarray
    words: np.ndarray
    nearest: np.ndarray
    parents: np.ndarray
    first: np.ndarray
    last: np.ndarray
    signatures: np.ndarray
    turns: np.ndarray
    seen: int


@lru_cache(16384)
def _groups_of_word(word: str) -> int:
    """Return the groups that one word stands for, as bits."""
    return sum(bit for bit, pattern in elements.PATTERNS if pattern.search(word))


@lru_cache(4096)
def _set_bits(bits: int) -> tuple[int, ...]:
    return tuple(number for number in range(len(elements.GROUPS)) if bits >> number & 1)


@lru_cache(8192)
def _classify(name: str, attributes: str) -> tuple[str, tuple[int, ...]]:
    """Return an element's name with its hints (values of class, id, role, ...), and its groups by both."""
    hints = ""
    for attribute, *values in HINT.findall(attributes):
        value = "".join(values).translate(LOWER)
        if attribute == "hidden" or (attribute == "aria-hidden" and value == "true"):
            hints += " hidden unseen"
        elif attribute not in ("style", "aria-hidden"):
            hints += " " + value
        elif UNSEEN.search(value):
            hints += " hidden unseen"
    groups, content = elements.GROUPS_OF_TAG.get(name, 0), 0
    for word in set(LETTERS.findall(hints)):
        bits = _groups_of_word(word)
        groups |= bits
        content += bits & elements.CONTENT
    if content > elements.CONTENT:  # two words for content, as in "entry-content": the text itself
        groups |= elements.PROSE
    return name + hints, _set_bits(groups)


def split(source: str | bytes) -> Blocks:
    """Split a page, text or UTF-8 without NUL, into blocks. Raises MemoryError where memory is short."""
    functions, tables = library()
    if functions is None:
        return _split(source if isinstance(source, str) else source.decode())
    raw = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
    del source  # where it is text, a copy of up to four times the size
    sizes = np.empty(5, np.int64)
    page = functions.blocks_split(tables, raw, len(raw), sizes.ctypes.data)
    if page is None:
        raise MemoryError
    try:
        count, node_count, text_bytes, title_bytes, seen = sizes.tolist()
        letters = np.empty(text_bytes + title_bytes, np.uint8)
        columns = np.empty((len(COLUMNS), count), np.int64)
        node_columns = np.empty((len(NODE_COLUMNS), node_count), np.int64)
        nearest = np.empty((count, len(elements.GROUPS)), np.intc)
        arrays = (letters, columns, node_columns, nearest)
        functions.blocks_read(page, *(array.ctypes.data for array in arrays))
    finally:
        functions.blocks_close(page)
    text = str(letters.data, "utf-8", "surrogatepass")
    ends = np.cumsum(columns[COLUMNS.index("lengths")]).tolist()
    texts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    title = text[ends[-1] if ends else 0 :]
    title_words, words_of_title = columns[COLUMNS.index("title_words")], set(characters.words(title))
    for block in np.flatnonzero(title_words < 0).tolist():  # those that take str.lower
        title_words[block] = len(words_of_title.intersection(characters.words(texts[block])))
    return _blocks(title, texts, columns, node_columns, nearest, seen)


@cache
def library() -> tuple[Any, int]:
    """Return the compiled functions and the address of their tables; None and 0 without a compiler."""
    functions = compiled.load(SOURCE, SIGNATURES)
    if functions is None:
        return None, 0
    is_block = (*range(1, elements.SKIP + 1), elements.CODE)
    block_tags = [name for name, kind in elements.KINDS.items() if kind in is_block]
    bits = {name: 1 << number for number, name in enumerate(block_tags)}
    assert len(bits) <= 64 and len(elements.GROUPS) <= 64

    def bits_of(tags: Iterable[str]) -> int:
        return sum(bits[name] for name in tags)

    rows = [(0,) * 6]
    for name, kind in elements.KINDS.items():
        closed, boundaries = map(bits_of, elements.CLOSES.get(name, ((), ())))
        end_boundaries = bits_of(_end_boundaries(name))
        groups_of_tag = elements.GROUPS_OF_TAG.get(name, 0)
        rows.append((kind, bits.get(name, 0), closed, boundaries, end_boundaries, groups_of_tag))
    tags = np.array(rows, np.uint64)
    raw_tags = RAW.split("|")
    entities = {f"#{code}": html.unescape(f"&#{code};") for code in _special_code_points()} | html5
    strings = ["", *elements.KINDS, *raw_tags, *(text for pair in entities.items() for text in pair)]
    letters = "".join(text + "\0" for text in strings).encode()
    next_states, groups = _automaton()
    numbers = (elements.CONTENT, elements.PROSE, len(elements.GROUPS), *elements.LIMITS)
    limits = np.array(numbers, np.uint64)
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
    return frozenset() if name in elements.CROSSING_SCOPES else elements.SCOPE_BOUNDARIES


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
    for name, words in elements.WORDS.items():
        for word in words.split("|"):
            state = 0
            for letter in word:
                number = {"^": 26, "$": 27}.get(letter, ord(letter) - ord("a"))
                if not next_states[state][number]:
                    next_states[state][number] = len(next_states)
                    next_states.append([0] * 28)
                    groups.append(0)
                state = next_states[state][number]
            groups[state] |= 1 << elements.GROUP_INDEX[name]
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
    first, last, parents, turns = [0], [0], [-1], [0]
    opened = [("", "")]
    stack: list[tuple[str, int]] = [("", 0)]  # the open elements and their nodes
    open_count: Counter[str] = Counter()
    node = 0
    buffer: list[str] = []
    cells: list[tuple[list[str], int, int]] = []  # of the row so far: text, characters in links, column
    row = Row()
    linked = 0
    in_link = 0
    link_start = -1  # parts of the buffer before the link
    # As in_link: 0, or the height of the stack at the element; code_table: of a table with line numbers.
    skipping = pre = code_table = 0
    blank_lines = 0  # elements without text among those that are lines of code
    in_title = bullet = False
    tag = ""
    resume = cell_start = 0

    def flush() -> None:
        nonlocal cells, bullet, in_title, blank_lines
        if cells:
            cells.append((buffer, linked, row.column))
            column = row.column
            for parts, length, row.column in cells:
                if text := characters.clean(parts, False):
                    add(text, length, elements.ROW)
            row.column = column
            cells = []
        elif buffer and (text := characters.clean(buffer, bool(pre))):
            kind = elements.KINDS.get(tag, 0)
            if kind in (0, elements.ITEM, elements.CODE):  # an item's later blocks are no items
                kind = elements.CONTAINER
            text, blank_lines = "\n" * blank_lines + text, 0
            add(text, linked, elements.PRE if pre else elements.ITEM if bullet else kind)
            bullet = False
        start_afresh()
        in_title = False

    def start_afresh() -> None:
        nonlocal buffer, linked, link_start, cell_start
        buffer, linked, link_start, cell_start = [], 0, -1, 0

    def add(text: str, link_length: int, kind: int) -> None:
        if len(texts) < elements.MAX_BLOCKS:
            texts.append(text)
            link_lengths.append(min(link_length, len(text)))
            kinds.append(kind)
            levels.append(int(tag[1]) if kind == elements.HEADING else 0)
            nodes.append(node)
            if row.height:
                row.columns.append(row.column)
                row.plain = row.plain and kind not in (elements.PRE, elements.ITEM, elements.HEADING)

    def finish_row() -> None:
        """Make one block of the row's blocks, if they are one line."""
        start, row_height = row.first, row.height
        if row.height and (line := row.line(texts[start:])):
            own_node, links = row.node, sum(link_lengths[start:])
            for column in (texts, link_lengths, kinds, levels, nodes):
                del column[start:]
            texts.append(line)
            link_lengths.append(min(links, len(line)))
            kinds.append(elements.ROW)
            levels.append(0)
            nodes.append(own_node)
            for inside in range(row.first_node, len(parents)):
                first[inside] = last[inside] = start
            for _, number in stack[row_height:]:
                first[number] = start + 1

    def close(height: int) -> None:
        nonlocal node, skipping, pre, in_link, bullet, tag, code_table, blank_lines
        while len(stack) > height:
            if len(stack) == row.height:
                finish_row()
            name, number = stack.pop()
            open_count[name] -= 1
            last[number] = len(texts)
            is_line = 0 < pre <= len(stack) and not code_table and elements.KINDS[name] in elements.LINES
            if (
                is_line
                and number == len(parents) - 1
                and first[stack[pre - 1][1]] < first[number] == len(texts)
            ):
                blank_lines += 1
        tag, node = stack[-1]
        bullet = False
        if skipping > height:
            skipping = 0
        if pre > height:
            pre = blank_lines = 0
        if in_link > height:
            in_link = 0
        if code_table > height:
            code_table = 0

    def height_of(wanted: tuple[str, ...], boundaries: tuple[str, ...] | frozenset[str]) -> int:
        """Return where one of the elements is open, 0 if a boundary comes first."""
        for height in range(len(stack) - 1, max(len(stack) - elements.MAX_CLOSED, 0), -1):
            name = stack[height][0]
            if name in wanted:
                return height
            if name in boundaries:
                return 0
        return 0

    def ends_with(character: str) -> bool:
        return bool(buffer) and buffer[-1].endswith(character)

    def drop_last() -> None:
        buffer[-1] = buffer[-1][:-1]
        if not buffer[-1]:
            buffer.pop()

    def end_cell() -> None:
        nonlocal buffer, linked, link_start
        cells.append((buffer, linked, row.column))
        buffer, linked, link_start = [], 0, -1

    def new_line() -> None:
        if buffer and not ends_with("\n"):
            buffer.append("\n")

    def begin_cell(attributes: str, at: int) -> None:
        """Begin a cell that was opened; of line numbers, pass over its content."""
        nonlocal pre, code_table, resume, cell_start
        cell_start = len(buffer)
        if code_table:
            resume = cell_of_numbers(source, at, attributes)
            return
        if not row.height:
            row.begin(len(stack) - 1, len(texts), stack[-2][1], node)
        row.begin_cell(attributes)
        if end := cell_of_numbers(source, at, attributes):
            flush()
            row.height, row.column, resume = 0, -1, end
            table = height_of(("table",), frozenset())
            code_table = (table or len(stack) - 2) + 1
            pre = pre or code_table

    def takes_spaces() -> bool:
        """Tell whether white space alone is part of the text here."""
        return bool(buffer or pre) and not (code_table and is_between_cells(tag))

    def raise_or_lower(name: str, closing: str, attributes: str) -> None:
        nonlocal cell_start
        begin, end = RAISED_MARKS[name][:1], RAISED_MARKS[name][1:]
        if closing:
            if ends_with(begin):
                drop_last()
                cell_start = min(cell_start, len(buffer))
            else:
                buffer.append(end)
            return
        is_note = (in_link and len(buffer) == link_start) or any(part in attributes for part in NOTES)
        buffer.append(begin)
        if is_note:
            buffer.append(NOTE)

    position = 0
    while True:
        token = TOKEN.search(source, position)
        text = source[position : token.start() if token else len(source)]
        if text and not skipping and (not text.isspace() or takes_spaces()):
            buffer.append(text)
            if in_link:
                linked += len(text.strip())
        if not token:
            break
        position = token.end()
        _, closing, name, attributes = token.groups()
        if name is None:
            continue
        kind = elements.KINDS.get(name)
        if kind is None:
            name = name.lower()
            kind = elements.KINDS.get(name)
            if kind is None:
                if name == "body":
                    flush()
                continue
        if kind == elements.CODE and (open_count[name] if closing else characters.keeps_lines(attributes)):
            kind = elements.PRE
        if kind in (0, elements.CODE):
            if pre and not closing and not skipping:
                position = number_inside(source, position, attributes) or position
        elif kind == elements.LINK:
            in_link = 0 if closing else len(stack)
            link_start = len(buffer)
            if not closing and ends_with(RAISED_MARKS["sup"][0]):
                buffer.append(NOTE)
            turns[node] += not closing and elements.turns_page(attributes)
        elif kind == elements.RAISED:
            if not skipping:
                raise_or_lower(name, closing, attributes)
        elif kind > elements.RAISED:
            continue
        elif kind == elements.BREAK:
            if buffer:
                buffer.append(characters.NEW_LINE)
        elif kind == elements.TITLE:
            if closing and in_title:
                title = title or " ".join(characters.clean(buffer, False).split())
                start_afresh()
                in_title = False
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
                if kind == elements.PARAGRAPH and not code_table:
                    flush()
            if height:
                if code_table and height >= code_table:
                    if kind == elements.CELL:
                        while len(buffer) > cell_start and ends_with("\n"):
                            drop_last()
                    elif kind != elements.SKIP and not is_between_cells(name):
                        new_line()
                elif kind == elements.CELL:
                    end_cell()
                elif kind != elements.SKIP and (buffer or cells):
                    flush()
                close(height)
                if name == "table":
                    row.begin_table()
        elif kind == elements.RULE:
            flush()
        elif kind == elements.SKIP:
            if len(stack) < elements.MAX_DEPTH and attributes[-1:] != "/":
                stack.append((name, node))
                open_count[name] += 1
                skipping = skipping or len(stack)
        else:
            if code_table:
                if kind == elements.ROW:
                    if buffer:
                        buffer.append("\n")
                elif not is_between_cells(name):
                    new_line()
            elif kind == elements.CELL and stack[-1][0] in ("tr", "td", "th"):
                end_cell()
            elif buffer or cells:
                flush()
            if stack[-1][0] == "p":
                close(len(stack) - 1)
            if name in elements.CLOSES:
                closed, boundaries = elements.CLOSES[name]
                if stack[-1][0] not in boundaries and (height := height_of(closed, boundaries)):
                    close(height)
            if (
                kind == elements.ROW
                or name == "table"
                or (kind == elements.CELL and row.height != len(stack))
            ):
                finish_row()
                if name == "table":
                    row.begin_table()
            if len(stack) < elements.MAX_DEPTH and len(parents) < elements.MAX_NODES:
                node, tag = len(parents), name
                parents.append(stack[-1][1])
                turns.append(0)
                first.append(len(texts))
                last.append(0)
                opened.append((name, attributes))
                stack.append((name, node))
                open_count[name] += 1
                if kind == elements.ITEM:
                    bullet = name == "li"
                elif kind == elements.PRE:
                    pre = pre or len(stack)
                elif kind == elements.CELL:
                    begin_cell(attributes, position)
                    position = max(position, resume)
    flush()
    close(1)
    finish_row()
    last[0] = len(texts)
    nearest_of_node, signatures = _classify_nodes(parents, first, last, opened)
    text_counts, numbers = Counter(texts), {name: at for at, name in enumerate(dict.fromkeys(signatures))}
    words = [characters.words(text) if len(text) <= MAX_SHORT_LENGTH else [] for text in texts]
    words_of_title = set(characters.words(title))
    counts = (len, characters.size, characters.sentence_ends, text_counts.__getitem__)
    columns = [kinds, levels, link_lengths, nodes, *([count(text) for text in texts] for count in counts)]
    columns.append([len(words_of_title.intersection(own)) for own in words])
    columns.append([len(own) for own in words])
    numbers_of_signatures = [numbers[name] for name in signatures]
    node_columns = np.array([parents, first, last, numbers_of_signatures, turns], np.int64)
    nearest = np.array([nearest_of_node[node] for node in nodes], np.intc).reshape(
        len(texts), len(elements.GROUPS)
    )
    return _blocks(title, texts, np.array(columns, np.int64), node_columns, nearest, FORMULAS | RIGHTS)


def _blocks(
    title: str,
    texts: list[str],
    columns: np.ndarray,
    node_columns: np.ndarray,
    nearest: np.ndarray,
    seen: int,
) -> Blocks:
    """Make Blocks of COLUMNS, [columns, blocks], and of NODE_COLUMNS, [columns, nodes]."""
    by_name = dict(zip((*COLUMNS, *NODE_COLUMNS), (*columns, *node_columns), strict=True))
    return Blocks(title, texts, nearest=nearest, seen=seen, **by_name)


def _classify_nodes(
    parents: list[int], first: list[int], last: list[int], opened: list[tuple[str, str]]
) -> "tuple[list[array[int]], list[str]]":
    """Return for each node the innermost node of each group around it, and its signature: its name and hints.

    A node without blocks has those of its parent, and its name alone.
    """
    nearest, signatures = [array("i", [-1]) * len(elements.GROUPS)], [""]
    for node in range(1, len(parents)):
        own, (signature, attributes) = nearest[parents[node]], opened[node]
        if first[node] < last[node]:
            signature, groups = _classify(signature, attributes[:1000])
            if groups:
                own = own[:]
            for group in groups:
                own[group] = node
        nearest.append(own)
        signatures.append(signature)
    return nearest, signatures
