"""Books: what their makers added, and where lines belong together."""

import random
import textwrap
from pathlib import Path

import pytest

from puna.corpus.readers.plain import book
from puna.corpus.record import RawDocument, SkippedRecord
from puna.corpus.sources import streams

SENTENCE = (
    "On the high plain the wind blows all day long, and nobody who lives there would call it anything but "
)
PROSE = f"{SENTENCE}still air. " * 4
WRAPPED = textwrap.fill(PROSE.strip(), 70)
FRAME = (
    "The Project Gutenberg EBook of Puna\n\nTitle: Puna\n\n"
    "*** START OF THIS PROJECT GUTENBERG EBOOK PUNA ***\n\n\n"
    "{}\n\n\n*** END OF THIS PROJECT GUTENBERG EBOOK PUNA ***\n"
)


def text_of(tmp_path: Path, body: str) -> str:
    path = tmp_path / "1.txt"
    path.write_text(FRAME.format(body))
    (found,) = book.read(path)
    assert isinstance(found, RawDocument)
    return found.text


@pytest.mark.parametrize("width", [55, 65, 75, 90])
def test_hard_wrapped_prose_becomes_one_line_a_paragraph(width: int) -> None:
    paragraphs = [PROSE.strip(), ("A second paragraph, " * 9).strip(), "A short one."]
    assert book.unwrap("\n\n".join(textwrap.fill(part, width) for part in paragraphs)) == "\n\n".join(
        paragraphs
    )


def test_a_margin_on_the_left_is_no_verse() -> None:
    assert (
        book.unwrap(textwrap.indent(f"{WRAPPED}\n\n{WRAPPED}", "   "))
        == f"{PROSE.strip()}\n\n{PROSE.strip()}"
    )


def test_first_lines_may_be_indented() -> None:
    assert book.unwrap(f"{WRAPPED}\n\n  {WRAPPED}").split("\n\n")[1].strip() == PROSE.strip()


LETTERS = random.Random(1)
HAN = [
    "，".join(
        "".join(chr(LETTERS.randint(0x4E00, 0x9FA5)) for _ in range(LETTERS.randint(4, 15)))
        for _ in range(12)
    )
    + "。"
    for _ in range(30)
]


@pytest.mark.parametrize("width", [30, 36, 40])
@pytest.mark.parametrize("indent", ["", "\u3000\u3000"])
def test_lines_of_scripts_without_spaces_are_joined_without(width: int, indent: str) -> None:
    lines = [
        "\n".join((indent + part)[at : at + width] for at in range(0, len(indent + part), width))
        for part in HAN
    ]
    assert book.unwrap(("\n" if indent else "\n\n").join(lines)) == "\n\n".join(HAN)


def wrapped(text: str, width: int) -> str:
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


def test_a_heading_right_above_its_text_keeps_its_line() -> None:
    for heading, text, lines in (
        ("第2章 山上", "".join(HAN[:3]), wrapped("".join(HAN[:3]), 36)),
        ("CHAPTER TWO", PROSE.strip(), WRAPPED),
    ):
        assert book.unwrap("\n\n".join(f"{heading}\n{lines}" for _ in range(3))) == "\n\n".join(
            [f"{heading}\n{text}"] * 3
        )


def test_entries_on_lines_of_their_own_are_no_paragraph() -> None:
    text = "\n".join(
        f"2024年{number}月{number}日 {part[: LETTERS.randint(20, 32)]}。"
        for number, part in enumerate(HAN, start=1)
    )
    assert book.unwrap(text) == text


@pytest.mark.parametrize("indent", [" ", "    "])
def test_indented_lines_begin_paragraphs_where_no_empty_line_does(indent: str) -> None:
    parts = [PROSE.strip(), ("Another of them, " * 19).strip(), "One more. " * 30]
    text = "\n".join(textwrap.fill(indent + part.strip(), 70) for part in parts * 3)
    assert book.unwrap(text) == "\n\n".join(part.strip() for part in parts * 3)
    verse = "\n".join([VERSE.replace("\n", "\n" + indent)] * 3)
    assert book.unwrap(f"{WRAPPED}\n\n{verse}") == f"{PROSE.strip()}\n\n{verse}"


def test_sentences_on_lines_of_their_own_stay_in_scripts_without_spaces() -> None:
    text = "\n".join(sentence + "。" for part in HAN for sentence in part.rstrip("。").split("，"))
    assert book.unwrap(text) == text
    assert book.unwrap("\n".join(HAN)) == "\n".join(HAN)


def test_a_space_stays_beside_words_of_other_scripts() -> None:
    lines = [part[:33] + " Puna" for part in HAN]
    assert book.unwrap("\n".join(lines)).split("\n") == [" ".join(lines)]


VERSE = "The llama goes up,\nThe llama goes down,\nAnd all of the year\nIt stays out of town."
LIST = "1. The first chapter      3\n2. The second chapter     9"


@pytest.mark.parametrize("kept", [VERSE, LIST, "CHAPTER ONE\nThe Wind", "name:  value\nother: value of it"])
def test_verse_tables_and_headings_keep_their_lines(kept: str) -> None:
    assert book.unwrap(f"{WRAPPED}\n\n{kept}\n\n{WRAPPED}").split("\n\n")[1] == kept


def test_a_book_of_verse_is_not_joined() -> None:
    assert book.unwrap("\n\n".join([VERSE] * 20)) == "\n\n".join([VERSE] * 20)


def test_what_the_makers_added_goes(tmp_path: Path) -> None:
    body = (
        "Produced by Nobody and the Team\n\n(This file was produced from images of a library)\n\n"
        "Note: Project Gutenberg also has an HTML version of this\n      file. See 1-h.htm\n\n"
        f"PUNA\n\nBY NOBODY\n\n[Illustration: The plain in June]\n\n{WRAPPED}\n\n"
        f"[Transcriber's Note: a word was added here.]\n\n[Illustration]\n\n{WRAPPED}\n\n"
        + f"{WRAPPED}\n\n" * 5
        + "Transcriber's Notes\n\nPage 1: changed a to b"
    )
    assert text_of(tmp_path, body) == "\n\n".join(
        ["PUNA", "BY NOBODY", "The plain in June", *[PROSE.strip()] * 7]
    )


def test_the_frame_of_a_book_in_html_goes_too(tmp_path: Path) -> None:
    paragraphs = FRAME.format(f"Produced by Nobody\n\n{PROSE}\n\n{PROSE}").split("\n\n")
    path = tmp_path / "1.html"
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    path.write_text(f"<html><head><title>Puna</title></head><body>{body}</body></html>")
    (found,) = book.read(path)
    assert isinstance(found, RawDocument)
    assert (found.title, found.licence) == ("Puna", "public domain (Project Gutenberg)")
    assert found.text.split() == (PROSE * 2).split()


@pytest.mark.parametrize(
    ("named", "encoding", "word"),
    [
        ("ISO-8859-2", "iso8859-2", "źródło"),
        ("windows-1251", "cp1251", "лама"),
        ("ISO-8859-1", "cp1252", "“Größe”"),
        ("hex", "cp1252", "é"),
    ],
)
def test_the_encoding_that_a_book_names(tmp_path: Path, named: str, encoding: str, word: str) -> None:
    path = tmp_path / "1.txt"
    path.write_bytes(
        FRAME.replace("Title: Puna", f"Title: Puna\n\nCharacter set encoding: {named}")
        .format(word)
        .encode(encoding)
    )
    (found,) = book.read(path)
    assert isinstance(found, RawDocument) and found.text == word


def test_a_transcriber_in_the_story_stays(tmp_path: Path) -> None:
    body = f"{WRAPPED}\n\nThe transcriber's notes were lost.\n\n{WRAPPED}"
    assert "The transcriber's notes were lost." in text_of(tmp_path, body)


def test_a_book_too_large_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LARGEST_RECORD", 100)
    path = tmp_path / "1.txt"
    path.write_text(PROSE)
    assert list(book.read(path)) == [SkippedRecord(streams.TOO_LARGE, "1.txt", 0)]


VOLUME = f"{PROSE}\n\n{PROSE}\n"
LICENCE = (
    "*** START: FULL LICENSE ***\n\nTHE FULL PROJECT GUTENBERG LICENSE\nPLEASE READ THIS\n\n"
    "To protect the Project Gutenberg-tm mission you agree.\n\n"
    "Section 1. General Terms of Project Gutenberg-tm.\n\n"
)
MARKS = [
    "End of the Project Gutenberg EBook of Puna, v1, by A. Nobody",
    "End of Project Gutenberg's Puna, Vol. 1, by A. Nobody",
    "End of this Project Gutenberg Etext of Puna, Vol. 1",
    "The End of the Project Gutenberg Etext of Puna, Vol. 1",
    "*** END OF THE PROJECT GUTENBERG EBOOK PUNA, VOL. 1 ***",
    "***END OF THIS PROJECT GUTENBERG EBOOK PUNA***",
]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("between", ["", "Title: Puna\n\nAuthor: A. Nobody\n\n", LICENCE])
def test_all_volumes_of_a_book_stay(tmp_path: Path, mark: str, between: str) -> None:
    volumes = [f"VOLUME {number}\n\n{VOLUME}" for number in (1, 2, 3)]
    found = text_of(tmp_path, f"\n\n{mark}\n\n{between}".join(volumes))
    assert found.count("still air") == 3 * VOLUME.count("still air")
    assert [f"VOLUME {number}" in found for number in (1, 2, 3)] == [True] * 3
    assert "Gutenberg" not in found and "Author:" not in found


@pytest.mark.parametrize(
    "small_print",
    [
        "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy is this here?\n\n"
        "You know: lawyers.\n\n"
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n",
        LICENCE,
        "The Project Gutenberg Etext of Puna by A. Nobody\n\nThis etext was made by volunteers.\n",
    ],
)
def test_small_print_between_plays_and_at_the_end_goes(tmp_path: Path, small_print: str) -> None:
    found = text_of(
        tmp_path, f"FIRST PLAY\n\n{VOLUME}\n\n{small_print}\n\nSECOND PLAY\n\n{VOLUME}\n\n{small_print}"
    )
    assert found.count("still air") == 2 * VOLUME.count("still air")
    assert "SECOND PLAY" in found and found.endswith("air.")
    assert not any(word in found for word in ("lawyers", "Gutenberg", "volunteers", "SMALL PRINT"))


@pytest.mark.parametrize(
    "note",
    [
        "[Transcriber's Note: One line.\n\nA second paragraph, with [sic] in it.\n\nA third.]",
        "[Note du transcripteur: les fautes\n\nont été corrigées.]",
        "[Anmerkungen zur Transkription: Fehler\n\nwurden behoben.]",
        "[Nota del transcriptor: se corrigieron.]",
        "[Nota do transcritor: erros.]",
        "[Opmerkingen van de bewerker: fouten.]",
        "[Nota del Trascrittore: errori.]",
    ],
)
def test_notes_of_transcribers_in_other_languages_go(tmp_path: Path, note: str) -> None:
    found = text_of(tmp_path, f"{PROSE}\n\n{note}\n\n{PROSE}")
    assert found == "\n\n".join([PROSE.strip()] * 2)


@pytest.mark.parametrize(
    "heading",
    [
        *(
            "Transcriber's Notes:",
            "*** TRANSCRIBER'S ENDNOTE ***",
            "Note du transcripteur",
            "ERRATA",
            "Druckfehler",
        ),
        *(
            "Anmerkungen zur Transkription",
            "Notas del transcriptor",
            "List of corrections",
            "| Transcriber's note |",
        ),
    ],
)
def test_lists_at_the_end_go(tmp_path: Path, heading: str) -> None:
    found = text_of(
        tmp_path, f"{PROSE}\n\n{PROSE * 6}\n\n{heading}\n\np. 3: teh -> the\n\np. 4: adn -> and\n"
    )
    assert found.endswith("still air.") and "teh" not in found


@pytest.mark.parametrize(
    ("picture", "left"),
    [
        ("[Illustration]", ""), ("[Illustration: A [small] llama.]", "A [small] llama."),
        ("[Vignette: Hills]", "Hills"), ("[Illus. 12]", ""), ("[Frontispiece]", ""),
        ("[Tailpiece]", ""),
        ("[Abbildung: Lama]", "Lama"), ("[Map]", ""),
        ("* * * * *", ""), ("       *       *       *", ""), ("***", ""), ("• • •", ""),
        ("[a remark]", "[a remark]"), ("[Mapped by A]", "[Mapped by A]"),
    ],
)  # fmt: skip
def test_places_of_pictures_and_ornaments_go_and_captions_stay(
    tmp_path: Path, picture: str, left: str
) -> None:
    found = text_of(tmp_path, f"{PROSE}\n\n{picture}\n\n{PROSE}")
    assert found == "\n\n".join([PROSE.strip(), *filter(None, [left]), PROSE.strip()])
