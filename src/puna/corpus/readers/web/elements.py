"""What the elements of a page are for: kinds by their names, and groups by the words of their attributes."""

import re

from puna.text.lists import listed


def names(text: str) -> tuple[str, ...]:
    """Split names at white space."""
    return tuple(text.split())


# Kinds of elements and blocks; 0 is an inline element, which makes no block.
CONTAINER, PARAGRAPH, ITEM, HEADING, CELL, ROW, PRE, SKIP, LINK, BREAK, TITLE, RULE = range(1, 13)
RAISED, CODE, MATH, ABOUT = range(13, 17)
LINES = (CONTAINER, PARAGRAPH, ITEM)  # of code, inside <pre>
CONTAINERS = names("""
    div section article main aside nav header footer form table thead tbody tfoot ul ol dl menu dir
    blockquote figure figcaption caption fieldset details summary address center dialog hgroup search legend
""")
INLINE = names("""
    span b i u em strong img font small input label path use g source picture time script
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
    **dict.fromkeys(("sup", "sub"), RAISED),
    "code": CODE,  # inline, but where its lines are kept by style
    **dict.fromkeys(("math", "m:math", "mml:math"), MATH),  # inline
    **dict.fromkeys(("meta", "link"), ABOUT),  # of the page: no text
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
LIMITS = (MAX_DEPTH, MAX_NODES, MAX_BLOCKS, MAX_CLOSED)

# Words of an element's class, id and role, found anywhere inside a word or (^, $) at its start or end.
_LISTS = listed(__file__, "elements.json")
WORDS: dict[str, str] = _LISTS["words"]
TAGS: dict[str, str] = _LISTS["tags"]
TAG_GROUPS = names(
    "dialog nav footer aside header form article main table ul ol dl figure blockquote tr li p"
)
# What elements are for, by the words of their attributes and by their names.
GROUPS = tuple(dict.fromkeys((*WORDS, *TAG_GROUPS)))
GROUP_INDEX = {name: index for index, name in enumerate(GROUPS)}
PATTERNS = [(1 << GROUP_INDEX[name], re.compile(words)) for name, words in WORDS.items()]
CONTENT, PROSE = 1 << GROUP_INDEX["content"], 1 << GROUP_INDEX["prose"]
GROUPS_OF_TAG = {name: 1 << GROUP_INDEX[name] for name in TAG_GROUPS}
for _name, _group in TAGS.items():
    GROUPS_OF_TAG[_name] = GROUPS_OF_TAG.get(_name, 0) | 1 << GROUP_INDEX[_group]
# Inside the tag of a link to the page before, the page after or the one above.
_TURNS = re.compile("""rel=["']?(?:prev|next)|accesskey=["']?[pnuPNU]""")


def turns_page(attributes: str) -> bool:
    """Tell whether a link leads from one page of a book or manual to its neighbours."""
    return bool(_TURNS.search(attributes))
