"""What a written answer says, and whether it is right: short answers, numbers, formulas, votes, pass@k."""

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from puna.text.lists import listed

# Quotation marks and dashes as people type them, beside those of ASCII.
PUNCTUATION = str.maketrans("", "", string.punctuation + "‘’‚‛“”„‟´…–—")
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
NEXT_QUESTION = re.compile(r"(?:^|\s)(?:Q|Question|Problem):")
# Thousands by commas, decimals; a minus after a digit or bracket is a difference's.
NUMBER = re.compile(
    r"(?<![\w)])(?P<minus>[-−–]?)\\?[$€£]?(?P<late>[-−]?)"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
)
MARKER = re.compile(r"(?:answer is|####|^A:)(?P<rest>[^\n]*)", re.IGNORECASE | re.MULTILINE)
FINAL_ANSWER = re.compile(r"Final Answer: The final answer is:?(.*?)(?:\.?\s*I hope it is|\n|\Z)", re.DOTALL)
MINERVA = listed(__file__, "minerva.json")
UNITS = re.compile(rf"(?<![\\A-Za-z])(?:{'|'.join(MINERVA['words'])})(?![A-Za-z])")
FRACTION, ROOT = re.compile(r"frac([^{\s])([^{\s]|(?={))"), re.compile(r"sqrt(\[[^\]]*\])?([^{\[\s])")
GROUPED = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def short_answer(text: str) -> str:
    """Return an answer to a question: its first line without one dot or comma at the end.

    The paper's rule, "the first line break, final dot or comma", read so that answers such as "St. Louis" can
    be given; `strict_answer` is the other reading.
    """
    line = text.strip().split("\n", 1)[0].strip()
    return line[:-1].rstrip() if line.endswith((".", ",")) else line


def strict_answer(text: str) -> str:
    """Return an answer up to the first line break, dot or comma."""
    return re.split(r"[\n.,]", text.strip(), maxsplit=1)[0].strip()


def plain(text: str) -> str:
    """Return a text in lower case without punctuation, articles and spare white space, in this order."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, aliases: Iterable[str]) -> bool:
    """Whether an answer is one of the aliases, all of them made plain; an answer that is nothing never is."""
    return bool(said := plain(answer)) and any(said == plain(alias) for alias in aliases)


def number(text: str) -> Decimal | None:
    """Return the number that a solution gives as its answer; None where it gives none.

    What follows the next question is not read. Where an answer is announced ("The answer is", "####", "A:"),
    the first announced number counts, behind the last equals sign of its sentence; else the last number.
    """
    own = NEXT_QUESTION.split(text, maxsplit=1)[0]
    for marker in MARKER.finditer(own):
        sentence = re.split(r"[.!?]\s", marker["rest"], maxsplit=1)[0]
        if found := NUMBER.search(sentence.rpartition("=")[2]) or NUMBER.search(sentence):
            return _decimal(found)
    numbers = list(NUMBER.finditer(own))
    return _decimal(numbers[-1]) if numbers else None


def _decimal(found: re.Match[str]) -> Decimal:
    value = Decimal(found["digits"].replace(",", ""))
    return -value if found["minus"] or found["late"] else value


def formula(text: str) -> str | None:
    """Return the final answer of a solution in its normal form; None where it gives none.

    The announced one ("Final Answer: The final answer is ...") before the next problem, else what stands in
    the last box. The normal form is that of Minerva (Lewkowycz et al. 2022, appendix D), but that words of
    units are cut where they stand alone, not inside LaTeX's names, and that a box or text may hold braces.
    """
    own = NEXT_QUESTION.split(text, maxsplit=1)[0]
    if announced := FINAL_ANSWER.search(own):
        return normal_form(announced[1]) or None
    start = max(own.rfind("\\boxed"), own.rfind("\\fbox"))
    if start < 0:
        return None
    rest = own[start:].split("ed" if own[start + 1] == "b" else "box", 1)[-1]
    boxed = _braced(rest.lstrip()) if rest.lstrip().startswith("{") else rest.split("$", 1)[0]
    return None if boxed is None else normal_form(boxed) or None


def _braced(text: str) -> str | None:
    """What stands between the first brace of a text and the one that closes it; None where none does."""
    depth = 0
    for place, sign in enumerate(text):
        if sign in "{}" and (not place or text[place - 1] != "\\"):
            depth += 1 if sign == "{" else -1
            if not depth:
                return text[text.index("{") + 1 : place]
    return None


def normal_form(answer: str) -> str:
    """Return a formula so that equal ones in other notations are mostly the same text."""
    answer = UNITS.sub("", answer.rpartition("=")[2])
    for old, new in MINERVA["replaced"]:
        answer = answer.replace(old, new)
    answer = UNITS.sub("", answer)
    for mark in MINERVA["marks"]:
        answer = answer.replace(mark, "")
    if inside := re.search(r"\$(.*?)\$", answer):
        answer = inside[1]
    for command in ("\\text", "\\textbf", "\\overline", "\\boxed", "\\fbox"):
        while (start := answer.find(command + "{")) >= 0:
            if (held := _braced(answer[start + len(command) :])) is None:
                break
            answer = answer[:start] + held + answer[start + len(command) + len(held) + 2 :]
    answer = FRACTION.sub(lambda found: f"frac{{{found[1]}}}" + (found[2] and f"{{{found[2]}}}"), answer)
    answer = ROOT.sub(lambda found: f"sqrt{found[1] or ''}{{{found[2]}}}", answer).replace("$", "")
    return answer.replace(",", "") if GROUPED.fullmatch(answer) else answer.rstrip(".")


class Vote(NamedTuple):
    """winner: the answer most often given; of several the one that came first. tied: how many had as many
    votes; 0 where there was no answer at all."""

    winner: object
    votes: int
    tied: int


def majority(answers: Sequence[object]) -> Vote:
    """Count answers as in self-consistency (Wang et al. 2022), maj1@k; None is no answer and no vote."""
    counts = Counter(answer for answer in answers if answer is not None).most_common()
    if not counts:
        return Vote(None, 0, 0)
    most = counts[0][1]
    return Vote(counts[0][0], most, sum(count == most for _, count in counts))


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Estimate without bias the chance that of k samples at least one is right (Chen et al. 2021, section
    2.1): 1 - C(samples - right, k) / C(samples, k), as a product that stays in range.

    Raises ValueError where there are fewer than k samples, or more right ones than samples.
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {right} right among {samples} samples")
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - right + 1, samples + 1))
