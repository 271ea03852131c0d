"""Local names in the 20 Wikipedias of the paper: namespaces, magic words, sections, disambiguation pages.

Names are in lower case. The namespaces and magic words are those of the wikis' own MediaWiki settings, with
aliases. languages.json has the lists.
"""

import re

from puna.text import lists

_LISTS = lists.listed(__file__, "languages.json")


def names(listed: str) -> frozenset[str]:
    """Split names at commas, with white space collapsed."""
    return frozenset(name for field in listed.split(",") if (name := " ".join(field.split())))


# Links into these show an image, a sound or nothing at all: files, then categories.
DROPPED_NAMESPACES = frozenset(_LISTS["dropped_namespaces"])
PAGE_NAMES = frozenset(_LISTS["page_names"])
FORMAT_NUMBER = frozenset(_LISTS["format_number"])
# Group and decimal separators of numbers, and the languages that do not group a number of four digits.
SEPARATORS = {
    **dict.fromkeys(("ca", "da", "de", "hr", "it", "nl", "pt", "ro", "sl", "sr"), (".", ",")),
    **dict.fromkeys(("bg", "cs", "es", "fr", "hu", "pl", "ru", "sv", "uk"), (" ", ",")),
    "en": (",", "."),
}
UNGROUPED_THOUSANDS = frozenset({"bg", "es", "pl", "pt"})

# Sections of sources and links, which are dropped where they are nothing but lists.
LINK_SECTIONS = frozenset(_LISTS["link_sections"])

# Words that a line which announces a table has, as beginnings or whole words.
TABLE_WORDS = frozenset(_LISTS["table_words"])

# Names of citation templates in the 20 languages of the paper, and of those that stand for <ref>.
CITATION = re.compile(rf"(?:{'|'.join(_LISTS['citation_templates'])})\b", re.IGNORECASE)
# Addresses of copies of pages; behind the host stands the address of the page.
ARCHIVE = re.compile(
    rf"https?://(?:{'|'.join(_LISTS['page_archives'])})(?::\d+)?(?:[/?]|\Z)(.*)", re.IGNORECASE | re.DOTALL
)

DISAMBIGUATION_TEMPLATES = frozenset(_LISTS["disambiguation_templates"])
_DISAMBIGUATION_NAMES = "|".join(map(re.escape, sorted(DISAMBIGUATION_TEMPLATES)))
DISAMBIGUATION = re.compile(
    rf"\{{\{{[ \t\n_]*(?:{_DISAMBIGUATION_NAMES})[ \t\n]*(?:\||\}}\}})|__DISAMBIG__", re.IGNORECASE
)
