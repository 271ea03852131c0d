"""C4's heuristics on one page (Raffel et al. 2020, section 2.2), for pages that are not from C4.

Where the paper and the released code (tensorflow_datasets, text/c4_utils.py), which made the data set,
differ:

| | paper | code | here |
|---|---|---|---|
| words a line | at least 5 (arXiv v1: 3) | 5 | 5 |
| sentences a page | at least 3 (arXiv v1: 5) | 3 | 3 |
| line ends in | . ! ? or an end quotation mark | . ? ! " and not ... | the code's and typographic quotes |
| lorem ipsum, { | anywhere in the page | in a line that passes the tests before | the code's |
| bad words | anywhere in the page | in the lines kept, after deduplication | in the lines kept |
| words over 1,000 characters | not named | line dropped | the code's |
| pages over 190,000 characters | not named | dropped | kept |
| duplicates | spans of three sentences | lines | the paper's, in dedup/sentences.py |

Sentences are counted by their end marks; the code uses NLTK's Punkt, an English model.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from puna.corpus.record import Record
from puna.errors import UserError
from puna.text.sentences import sentences

MINIMUM_WORDS, MINIMUM_SENTENCES, MAXIMUM_WORD = 5, 3, 1000
END_MARKS = (".", "?", "!", '"', "”", "’", "»")
# Chinese and Japanese, Arabic and Urdu, Indic, Burmese, Ethiopic, Khmer, Armenian.
OTHER_END_MARKS = tuple("。！？．｡؟۔।॥။።፧።៕՜՞։…」』）")
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
LOREM_IPSUM, CURLY_BRACKET, BAD_WORD = "C4: lorem ipsum", "C4: curly bracket", "C4: bad word"
FEW_SENTENCES = "C4: fewer than 3 sentences"

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
# Two characters of these scripts without spaces count as a word: Han, kana, Thai, Lao, Burmese, Khmer. Fewer
# ranges than in text/characters.py, since a character more would change which lines are kept.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
)


@dataclass(frozen=True)
class C4Heuristics:
    """Step: clean pages as C4 does, or drop them. bad_words: their file. every_script: see c4_clean."""

    bad_words: Path | None
    every_script: bool

    def apply(self, records: list[Record]) -> None:
        bad_words = _load_bad_words(self.bad_words) if self.bad_words else None
        for record in records:
            text, reason = c4_clean(record.text, bad_words, self.every_script)
            if reason:
                record.drop(reason)
            else:
                record.change(text, "lines that are no sentences")


class BadWords:
    """A list of words, one a line in a UTF-8 file: a page with any of them is dropped. The package has none.

    An entry counts where it is a word, or several, by itself, in upper or lower case; one in a script without
    spaces counts anywhere.
    """

    def __init__(self, path: Path) -> None:
        try:
            entries = {line.strip().lower() for line in path.read_text("utf-8-sig").splitlines()} - {""}
        except OSError as error:
            raise UserError(f"{path}: no list of bad words there ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: not UTF-8 at byte {error.start}; a list of bad words has one word a line in UTF-8"
            ) from error
        unspaced = {entry for entry in entries if _UNSPACED.search(entry)}
        self.words = {entry for entry in entries - unspaced if re.fullmatch(r"\w+", entry)}
        anywhere = sorted(map(re.escape, unspaced))
        phrases = sorted(map(re.escape, entries - unspaced - self.words))
        alternatives = [*anywhere, *(rf"(?<!\w){phrase}(?!\w)" for phrase in phrases)]
        self.others = re.compile("|".join(alternatives)) if alternatives else None

    def occurs_in(self, lower: str) -> bool:
        """Whether a text, in lower case, has one of the words."""
        if not self.words.isdisjoint(re.findall(r"\w+", lower)):
            return True
        return bool(self.others and self.others.search(lower))


@functools.cache
def _load_bad_words(path: Path) -> BadWords:
    """Read a list of words, once a process."""
    return BadWords(path)


def c4_clean(text: str, bad_words: BadWords | None = None, every_script: bool = False) -> tuple[str, str]:
    """Return (cleaned page, ""), or ("", reason) when the page is dropped; reason is one of those above.

    every_script: end marks of other scripts count too, and two characters of a script without spaces
    count as one word; without it only languages that end sentences as English does pass.
    """
    end_marks = END_MARKS + OTHER_END_MARKS if every_script else END_MARKS
    kept = []
    for line in text.splitlines():
        line = _CITATION.sub("", line.strip())
        if not line.endswith(end_marks) or line.endswith("..."):
            continue
        words = line.split()
        count = len(words) + (len(_UNSPACED.findall(line)) // 2 if every_script else 0)
        if count < MINIMUM_WORDS:
            continue
        if len(line) > MAXIMUM_WORD and any(len(word) > MAXIMUM_WORD for word in words):
            continue
        lower = line.lower()
        if "lorem ipsum" in lower:
            return "", LOREM_IPSUM
        if "javascript" in lower:
            continue
        if "{" in line:
            return "", CURLY_BRACKET
        if any(phrase in lower for phrase in POLICY):
            continue
        kept.append(line)
    if sum(len(sentences(line)) for line in kept) < MINIMUM_SENTENCES:
        return "", FEW_SENTENCES
    if bad_words is not None and bad_words.occurs_in("\n".join(kept).lower()):
        return "", BAD_WORD
    return "\n".join(kept).strip(), ""
