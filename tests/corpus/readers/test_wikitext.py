"""Wikitext to text: what stays, what goes, and that no text breaks it or makes it slow."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.readers.wikitext import plain

CASES = {
    "'''Puna''' is a ''high'' grassland.": "Puna is a high grassland.",
    "See [[Andes|the mountains]] and [[Lake Titicaca]].": "See the mountains and Lake Titicaca.",
    "[[Paris (Texas)|]] and [[:Category:Towns]]": "Paris and Category:Towns",
    "[[File:A.jpg|thumb|A [[llama]] at [[dawn|day]]break]]It grazes.": "It grazes.",
    "[[Category:Grasslands]][[de:Puna]]Text.": "Text.",
    "A[https://example.org the site]B [https://example.org] C": "Athe siteB C",
    "One<ref name=a>A {{cite book|title=[[X]]}} note</ref> two<ref name=a /> three.": "One two three.",
    "One <!-- hidden [[ --> two": "One two",
    "Before {{Infobox|a={{nested|x}}|b=[[y]]}} after": "Before after",
    "It is {{convert|5|km|mi}} long, {{lang|es|altiplano}} or {{nowrap|high plain}}.": "It is 5 km long, altiplano or high plain.",
    "{{nowrap|1=E = mc}} and {{lang|1=fr|2=bonjour}}": "E = mc and bonjour",
    "{|class=x\n|-\n| cell [[a]]\n{|\n| inner\n|}\n|}\nText after.": "Text after.",
    "Text.\n== Empty ==\n== Full ==\nMore.\n=== Last ===\n": "Text.\n\nFull\n\nMore.",
    "* one\n** two\n# three\n: four": "- one\n- two\n- three\nfour",
    "a<br/>b <span style='x'>c</span> &amp; &lt;d&gt;": "a\nb c & <d>",
    "<nowiki>[[not a link]]</nowiki> <code>''x''</code>": "[[not a link]] ''x''",
    "Puna ({{IPA|puna}}; {{lang|qu|puna}}) and ({{audio|x}})": "Puna (puna) and",
    "an unclosed [[link and {{template": "an unclosed link and template",
    "__NOTOC__Text": "Text",
}


@pytest.mark.parametrize("wikitext", CASES)
def test_cases(wikitext: str) -> None:
    assert plain(wikitext) == CASES[wikitext]


def test_the_wikis_own_namespaces_are_dropped() -> None:
    assert plain("[[Datei:A.jpg|mini|Bild]]Text [[Kategorie:B]]", frozenset({"datei", "kategorie"})) == "Text"


PARTS = st.sampled_from(
    ["{{", "}}", "[[", "]]", "{|", "|}", "|", "\n", "<ref>", "</ref>", "<!--", "-->", "''", "==", "x", " ", "=", "<nowiki>", "</nowiki>"]
)


@given(st.one_of(st.text(), st.lists(PARTS, max_size=60).map("".join)))
def test_no_text_breaks_it_and_no_template_is_left(text: str) -> None:
    result = plain(text)
    assert "\x00" not in result
    if "nowiki" not in text:
        assert not ("{{" in result and "}}" in result[result.index("{{") :])


def test_deep_nesting_takes_linear_time() -> None:
    def seconds(depth: int) -> float:
        started = time.process_time()
        assert plain("{{a|" * depth + "x" + "}}" * depth + "y") == "y"
        return time.process_time() - started

    assert seconds(80_000) < 40 * seconds(8_000) + 0.5
