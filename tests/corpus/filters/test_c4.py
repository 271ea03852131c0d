"""C4's heuristics on pages made by hand."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.filters import c4
from puna.corpus.filters.c4 import BadWords, c4_clean
from puna.errors import UserError
from puna.text.sentences import sentences
from tests.timing import within

REASONS = (c4.LOREM_IPSUM, c4.CURLY_BRACKET, c4.BAD_WORD, c4.FEW_SENTENCES)

GOOD = "Llamas live on the high plain. They eat the short grass there.\nIn winter the herd moves down."


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("A line that has no end mark at all", None),
        ("This one trails off somewhere...", None),
        ("Only four words here.", None),
        ("Five words are in here.", "Five words are in here."),
        ("  Is it kept when indented?  ", "Is it kept when indented?"),
        ('She said "the grass is short."', 'She said "the grass is short."'),
        ("She said “the grass is short.”", "She said “the grass is short.”"),
        ("Please turn on JavaScript to go on.", None),
        ("Read the Terms of Use before you go.", None),
        ("Read our privacy policy before you go.", None),
        ("This site uses cookies on the plain.", None),
        ("The use of cookies is told here.", None),
        (
            "Herds are old[12] and large[citation needed] on the plain[].",
            "Herds are old and large on the plain.",
        ),
        ("A word of one " + "x" * 1001 + " is too long.", None),
        ("高い草原ではリャマが飼われています。", None),
    ],
)
def test_lines(line: str, kept: str | None) -> None:
    assert c4_clean(f"{GOOD}\n{line}") == (GOOD + (f"\n{kept}" if kept else ""), "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD + "\nLorem Ipsum stands on this line.", c4.LOREM_IPSUM),
        (GOOD + "\nHere a { bracket is on the line.", c4.CURLY_BRACKET),
        (GOOD + "\nfunction f() {", ""),
        ("One sentence is all there is. This is the second one of them.", c4.FEW_SENTENCES),
        ("", c4.FEW_SENTENCES),
    ],
)
def test_pages(text: str, reason: str) -> None:
    assert c4_clean(text) == (GOOD if not reason else "", reason)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two! Three? Four.", 4),
        ("It costs 3.50 at e.g. the shop.", 1),
        ("Mr. Smith met J. Doe there.", 1),
        ('He said "no." Then he left.', 2),
        ("草原。リャマ！山？", 3),
        ("", 0),
    ],
)
def test_sentences(line: str, count: int) -> None:
    found = sentences(line)
    assert len(found) == count and "".join(found) == line


def test_other_scripts() -> None:
    pages = {
        "ja": "高い草原ではリャマが飼われています。谷や町よりずっと高いところです。"
        "冬には群れが山を下ります。",
        "hi": "लामा ऊँचे मैदान पर रहते हैं। वे वहाँ छोटी घास खाते हैं। सर्दियों में झुंड नीचे जाता है।",
        "ur": "لاما اونچے میدان میں رہتے ہیں۔ وہ وہاں گھاس کھاتے ہیں۔ سردیوں میں ریوڑ نیچے جاتا ہے۔",
        "ru": "Ламы живут на высокой равнине. Они едят там короткую траву. Зимой стадо спускается вниз.",
    }
    for page in pages.values():
        assert c4_clean(page, every_script=True) == (page, "")
    assert [language for language, page in pages.items() if c4_clean(page)[1]] == ["ja", "hi", "ur"]
    short = "短い。短い。短い。"  # six characters count as three words, the run as another
    assert c4_clean(short, every_script=True) == ("", c4.FEW_SENTENCES)


def test_bad_words(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("Spit\nbad wool\n\n悪毛\nx-ray\n", "utf-8")
    words = BadWords(path)
    for text in ("llamas spit often", "it is bad wool", "これは悪毛です", "an x-ray of"):
        assert words.occurs_in(text), text
    for text in ("spite of it", "not bad woollen", "ax-ray", ""):
        assert not words.occurs_in(text), text
    assert c4_clean(GOOD + "\nLlamas SPIT when they are angry.", words) == ("", c4.BAD_WORD)
    assert c4_clean(GOOD + "\nspit", words) == (GOOD, "")
    with pytest.raises(UserError, match=r"nothing\.txt: no list of bad words there"):
        BadWords(tmp_path / "nothing.txt")
    path.write_bytes(b"a\n\xff")
    with pytest.raises(UserError, match="not UTF-8 at byte 2"):
        BadWords(path)
    path.write_bytes(b"")
    assert not BadWords(path).occurs_in("anything")


@given(st.text())
def test_any_text(text: str) -> None:
    cleaned, reason = c4_clean(text, every_script=True)
    assert (reason == "") != (cleaned == "") and reason in ("", *REASONS)


@pytest.mark.parametrize("piece", ["[", "a. ", ".", '."', "。", " ", "a\n", "A. A. A. ", '""""'])
def test_time_is_linear(piece: str) -> None:
    within(8, lambda: c4_clean(piece * 200_000, every_script=True))
