"""Wikitext to text: what is kept, what is dropped, and that no text breaks it or makes it slow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.readers.wiki.wikitext import plain
from tests.timing import cpu_seconds, within

LONG = "1" * 5000  # digits, more than Python parses
BLOGS = "* [http://a.b C]\n=== Blogs ===\n* [http://a.b D]\n"
CASES = {
    "({{OldStyleDate|May 2|1905|April 19}} – 1982)": "(May 2 [O.S. April 19] 1905 – 1982)",
    # bold, links, files, categories
    "'''Puna''' is a ''high'' grassland.": "Puna is a high grassland.",
    "See [[Andes|the mountains]] and [[Lake Titicaca]].": "See the mountains and Lake Titicaca.",
    "[[Paris (Texas)|]] and [[:Category:Towns]]": "Paris and Category:Towns",
    "[[File:A.jpg|thumb|A [[llama]] at [[dawn|day]]break]]It grazes.": "It grazes.",
    "[[File:A.jpg|thumb|Two\n\nparagraphs]]It grazes.": "It grazes.",
    "[[Category:Grasslands]][[de:Puna]]Text.": "Text.",
    "[[Datei:A.jpg|mini|Bild]][[Catégorie:X]][[Файл:B.png]][[Kategoria:Y]]Text.": "Text.",
    "A[https://example.org the site]B [https://example.org] C": "Athe siteB C",
    "l'''Alpaca'' and '''x''''s '''''both'''''": "l'Alpaca and x's both",
    # comments, references, tags
    "One<ref name=a>A {{cite book|title=[[X]]}} note</ref> two<ref name=a /> three.": "One two three.",
    "One <!-- hidden [[ --> two": "One two",
    "* a\n<!-- hidden -->\n* b": "- a\n- b",
    "One <ref>never closed.\n\n== Next ==\nMore<ref>x</ref>.": "One never closed.\n\nNext\n\nMore.",
    "a<br/>b <span style='x'>c</span> &amp; &lt;d&gt;": "a\nb c & <d>",
    "<nowiki>[[not a link]]</nowiki> <code>''x''</code>": "[[not a link]] ''x''",
    "<pre>\n{{x}}\n  y  z\n</pre>": "{{x}}\n  y  z",
    "area <math>\\pi r^2\n </math> and\n<math display=block>a &lt; b</math>": (
        "area $\\pi r^2$ and\n$$a < b$$"
    ),
    "10<sup>6</sup> m<sup>2</sup>, H<sub>2</sub>O, 4<sup>th</sup>, <chem>H2O</chem>": (
        "10⁶ m², H₂O, 4th, $\\ce{H2O}$"
    ),
    "<gallery>\nFile:A.jpg|One\n</gallery>Text <poem>a\nb</poem>": "Text\na\nb",
    f"a&#{LONG};b <code>&#{LONG}</code>{{{{formatnum:{LONG}}}}}": f"ab {LONG}",
    "<ul><li>one</li><li>two</li></ul>": "- one\n- two",
    # tables
    "{|class=x\n|-\n| cell [[a]]\n{|\n| inner\n|}\n|}\nText after.": "Text after.",
    "{| class=x\n| cell\n\n| cell\n{{end}}\nText after.": "Text after.",
    "{| class=x\n| cell\n\nText [[after]].\n\nMore text.\n|}\n": "",
    "{| class=x\n| cell\n\n| cell\n\nText [[after]].\n\nMore text.": "Text after.\n\nMore text.",
    "{| class=x\n| cell\n{|\n| inner\n== Next ==\nText.": "Next\n\nText.",
    "{{Infobox|a={{nested|x}}|list=\n{|\n| cell\n|}\n}}Text.": "Text.",
    # sections and lists
    "Text.\n== Empty ==\n== Full ==\nMore.\n=== Last ===\n": "Text.\n\nFull\n\nMore.",
    f"Text.\n== See also ==\n* [[A]]\n* [[B]]\n\n== External links ==\n{{{{x}}}}\n{BLOGS}": "Text.",
    "Text.\n== Literatur ==\n* [[A]]: ''B''. 1990.\n== Leben ==\n* A.": "Text.\n\nLeben\n\n- A.",
    "Text.\n== Notes ==\nThese are notes of a singer, and prose.\n* A": (
        "Text.\n\nNotes\n\nThese are notes of a singer, and prose.\n- A"
    ),
    "* {{cite|x}}. A first book.\n* {{x}} – {{de}} [http://a.b Site]\n*-5 degrees": (
        "- A first book.\n- Site\n- -5 degrees"
    ),
    "* one\n** two\n# three\n: four\n; term : its meaning\n; word\n: meaning\n*\n----": (
        "- one\n- two\n- three\nfour\nterm: its meaning\nword\nmeaning"
    ),
    "Text.\n== Towns ==\nThese are they:\n{|\n| x\n|}\n== Kinds ==\nThere are two:\n=== One ===\nA.": (
        "Text.\n\nKinds\n\nThere are two:\n\nOne\n\nA."
    ),
    # templates inside sentences
    "Before {{Infobox|a={{nested|x}}|b=[[y]]}} after": "Before after",
    "It is {{convert|5|km|mi}} long, {{lang|es|altiplano}} or {{nowrap|high plain}}.": (
        "It is 5 km long, altiplano or high plain."
    ),
    "{{convert|3|to|5|km|mi}}, {{cvt|5|ft|10|in|m}}, {{convert|1200|sqmi}}": (
        "3 to 5 km, 5 ft 10 in, 1,200 square miles"
    ),
    "{{nowrap|1=E = mc}} and {{lang|1=fr|2=bonjour}}, {{langx|de|Hof}}, {{lang-la|aula}}": (
        "E = mc and bonjour, Hof, aula"
    ),
    "{{nowrap|a{{!}}b {{=}} c}}": "a|b = c",
    "{{hlist|a|b|c}}; {{plainlist|\n* d\n* e\n}}": "a, b, c;\n- d\n- e",
    "He said: {{quote|Rain comes.|A. Herder|Letters}}": "He said:\nRain comes.\n— A. Herder, Letters",
    "{{birth date|1950|5|1}}, {{start date|1950|5|1|df=y}}, {{as of|2010|lc=y}}": (
        "May 1, 1950, 1 May 1950, as of 2010"
    ),
    "{{circa|1500}}, {{frac|2|1|3}}, {{val|1.5|0.1|e=6|u=m}}, {{chem|H|2|O}}": (
        "c. 1500, 2 1/3, (1.5±0.1)×10⁶ m, H₂O"
    ),
    "{{formatnum:1234567}}, {{lc:ABC}}, {{#if:x|yes|no}}{{#if:|yes|no}}{{DEFAULTSORT:Puna}}": (
        "1,234,567, abc, yesno"
    ),
    "{{nihongo|Fox|狐|kitsune}} {{transl|ar|thalab}} {{USS|Vixen}} {{linktext|a|b}}": (
        "Fox (狐, kitsune) thalab USS Vixen ab"
    ),
    # what dropped templates leave behind
    "Puna ({{IPA-qu|puna}}; {{lang|qu|puna}}) and ({{audio|x}})": "Puna (puna) and",
    "Ana ({{audio|x}}; born 1950, {{x}}) ran , then ( {{x}} ) slept.": "Ana (born 1950) ran, then slept.",
    "Ana (Spanish: {{audio|x}}; born 1950) calls main() twice.": "Ana (born 1950) calls main() twice.",
    "an unclosed [[link and {{template": "an unclosed link and template",
    "One [[link never closed.\n\nTwo]] three.": "One link never closed.\n\nTwo three.",
    "{{Infobox never closed\n| a = b\n\nText.\n== Next ==\nMore {{x}}.": (
        "Infobox never closed\n\nText.\n\nNext\n\nMore."
    ),
    "__NOTOC__Text __KEIN_INHALTSVERZEICHNIS__ __БЕЗ_ОГЛАВЛЕНИЯ__ of __init__": "Text of __init__",
    "-{Пуна}- и -{R|Andi}-": "Пуна и Andi",
}
LOCAL_CASES = [
    (
        "fr",
        "Né au {{s-|XIX}}, {{date|12|mars|1890}}, à {{unité|1200|km|2}}, {{nobr|4,5|millions}}, "
        "{{84e}}, {{formatnum:98659.5}}",
        "Né au XIXe, 12 mars 1890, à 1 200 km², 4,5 millions, 84e, 98 659,5",
    ),
    (
        "fr",
        "{{citation|Il pleut}}, ''{{langue|de|texte=Berg}}'', {{lien|lang=de|Hans Berg}}, {{unité|25000 km}}",
        "« Il pleut », Berg, Hans Berg, 25 000 km",
    ),
    (
        "de",
        '{{"|Es regnet}} am Berg ({{Höhe|115|DE-NHN}}), {{enS|rain}}, {{formatnum:12345}}',
        "„Es regnet“ am Berg (115 m), rain, 12.345",
    ),
    (
        "ru",
        "Река ({{lang-de|Fluss}}), {{нп5|Гора|гора|de|Berg}}, {{s|малый}}, {{число|12345}}",
        "Река (Fluss), гора, малый, 12 345",
    ),
    ("sr", "Река ({{јез-нем|Fluss}})", "Река (Fluss)"),
    (
        "pt",
        "no {{séc|XI}}, {{fmtn|90000}} e {{fmtn|1000}}, {{link||2=http://a.b|3=Rio}}",
        "no século XI, 90.000 e 1000, Rio",
    ),
    ("ca", "del {{segle|XIII|s}}", "del segle XIII"),
    ("es", "unos 45{{esd}}km, el {{siglo|XX}}", "unos 45 km, el siglo XX"),
    ("it", "a {{TA|70 km}} {{senza fonte|di pioggia}}{{senza fonte|data=maggio}}", "a 70 km di pioggia"),
    ("ro", "un turn de {{conversie|150|m|ft|abbr=on}}", "un turn de 150 m"),
    ("cs", "slovo {{cizojazyčně|de|Berg}}", "slovo Berg"),
]


@pytest.mark.parametrize("wikitext", CASES)
def test_cases(wikitext: str) -> None:
    assert plain(wikitext) == CASES[wikitext]


@pytest.mark.parametrize(("language", "wikitext", "text"), LOCAL_CASES)
def test_templates_of_other_languages(language: str, wikitext: str, text: str) -> None:
    assert plain(wikitext, language=language) == text


def test_the_wikis_own_namespaces_and_title() -> None:
    assert plain("[[Bestand2:A.jpg|mini|Bild]]Text [[Groep:B]]", frozenset({"bestand2", "groep"})) == "Text"
    assert plain("{{PAGENAME}} = {{SEITENNAME}} {{CURRENTYEAR}}", title="Puna") == "Puna = Puna"


PARTS = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "[[",
            "]]",
            "{|",
            "\n|}",
            "|",
            "\n",
            "<ref>",
            "</ref>",
            "<ref/>",
            "<!--",
            "-->",
            "''",
            "'",
        ),
        *(
            "\n==",
            "==",
            "x",
            " ",
            "=",
            "<nowiki>",
            "</nowiki>",
            "<math>",
            "</math>",
            "(",
            ")",
            ",",
            ";",
            "*",
            "__",
        ),
        *("&#0;", "\x00", "\x01", "1", "-{", "}-", "formatnum:", "convert", "lang", "quote", "frac"),
        *("birth date", "val", "e=", "[//", "]", "<sup>", "</sup>", "!", "end"),
    ]
)
WORDS = st.text(st.characters(categories=("L", "Nd")), min_size=1, max_size=9)


@given(
    st.one_of(st.text(), st.lists(PARTS, max_size=60).map("".join)),
    st.sampled_from(["en", "de", "fr", "ru", "xx"]),
)
def test_no_text_breaks_it_and_no_bracket_is_left(text: str, language: str) -> None:
    result = plain(text, title="T", language=language)
    assert not set(result) & {"\x00", "\x01", "\x02"}
    if not any(tag in text for tag in ("nowiki", "math", "code", "pre>", "&")):
        assert not ("{{" in result and "}}" in result[result.index("{{") :])
        assert "<ref" not in result


def _nested(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    inner = st.lists(children, max_size=4).map(" ".join)
    templates = st.sampled_from(["nowrap", "lang|de", "convert", "x", "quote", "frac"])
    prefixes = st.sampled_from(["File:", "de:", ":a", "", "Category:"])
    return st.one_of(
        st.builds("{{{{{}|{}}}}}".format, templates, inner),
        st.builds("[[{}b|{}]]".format, prefixes, inner),
        inner.map(lambda text: f"<ref name=a>{text}</ref>"),
        inner.map(lambda text: f"\n{{|\n| {text}\n|}}\n"),
        inner.map(lambda text: f"\n== {text} ==\n'''{text}''' <!-- {text} -->"),
    )


@given(st.recursive(WORDS, _nested, max_leaves=30))
def test_of_balanced_brackets_none_is_left(text: str) -> None:
    result = plain(text)
    assert not any(mark in result for mark in ("[[", "]]", "{{", "}}", "{|", "<ref", "<!--", "''"))


SENTENCES = st.lists(WORDS, min_size=1, max_size=8).map(lambda words: " ".join(words) + ".")


@given(st.lists(SENTENCES, min_size=1, max_size=5).map("\n\n".join))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert plain(text) == text


@given(st.lists(PARTS, max_size=40).map(" ".join))
def test_lines_of_the_result_are_clean(text: str) -> None:
    lines = plain(text.replace("<nowiki>", "").replace("<math>", "")).split("\n")
    assert all(line == line.strip() and "  " not in line for line in lines)
    assert "\n\n\n" not in "\n".join(lines)


def test_text_inside_many_brackets_is_dropped_not_copied() -> None:
    assert plain("{{nowrap|" * 30 + "x" + "}}" * 30 + "y") == "xy"
    assert plain("{{nowrap|" * 60 + "x" + "}}" * 60 + "y") == "y"


HOSTILE = [
    *(
        "<ref>",
        "<ref name=a>x\n== h ==\n",
        "<math>",
        "<!--",
        "[[",
        "[[a|b\n\n",
        "{{",
        "{{nowrap|",
        "{|\n\na\n",
    ),
    *("\n==", "[//x ", "( ", ", ", "''' x ", "'' '' ", " \n", "__NOTOC__ ", "-{", "&", "<a ", "{{!}}"),
    *("[[a {{b", "(a: ", "\n; a : b"),
]


@pytest.mark.parametrize("part", HOSTILE)
@pytest.mark.parametrize("end", ["", "]]", "}}\n|}</ref>"])
def test_hostile_text_takes_linear_time(part: str, end: str) -> None:
    short, long = (part * (size // len(part)) + end for size in (10_000, 80_000))
    # Eight times the text; quadratic time would be 64 times as long.
    within(20 * cpu_seconds(lambda: plain(short)) + 0.3, lambda: plain(long))


@pytest.mark.parametrize(
    "text",
    [
        "<ref>" * 200_000,
        "{{nowrap|" * 60_000 + "x" * 500_000 + "}}" * 60_000,
        "[[" * 250_000 + "{{" * 250_000,
    ],
)
def test_a_megabyte_of_brackets_takes_seconds(text: str) -> None:
    within(10, lambda: plain(text))


RAISED = {
    "en": {
        "2.5{{x10^|-3}} kg, {{10^|12}} s, {{×10^|4}}, {{e|9}}": "2.5×10⁻³ kg, 10¹² s, ×10⁴, ×10⁹",
        "{{val|6.02|e=23|u=m3|up=s}}, {{val|1.5|(4)|u=kg}}, {{gaps|6.674|30|e=-11}}": (
            "6.02×10²³ m³/s, 1.5(4) kg, 6.67430×10⁻¹¹"
        ),
        "7&nbsp;&times;&nbsp;10<sup>&minus;6</sup> m, 10<sup class='a'>9</sup> m, 10<SUP>3</SUP>": (
            "7 × 10⁻⁶ m, 10⁹ m, 10³"
        ),
        "''x''<sub>max</sub>, 2<sup>''n''+1</sup>, e<sup>x<sup>2</sup></sup>, CO<sub>2</sub>": (
            "x_{max}, 2ⁿ⁺¹, e^{x²}, CO₂"
        ),
        "May<sup>[1]</sup> and June<sup>b)</sup>, the 21<sup>st</sup>, XVIII<sup>vet</sup>": (
            "May and June, the 21st, XVIIIvet"
        ),
        "{{su|p=+1|b=-2}}, {{pow|10|21}}, {{±|5}}, {{nuclide|U|235}}": "₋₂⁺¹, 10²¹, ±5, ²³⁵U",
        "H{{sub|2}}O, m{{sup|3}}, {{sup|a{{sub|1}}}}": "H₂O, m³, ᵃ₁".replace("ᵃ₁", "^{a₁}"),
        "[[File:A.jpg|thumb|Caption [https://a.example b]]] After [[a|b [c]]] d.": "After b [c] d.",
        "{{convert|5|km|mi}}, {{frac|1|2}}": "5 km, 1/2",
    },
    "fr": {
        "{{unité|2.5|e=6|kg}}, {{n°|7}}, {{p.|12-13}}, {{unité|5|m||s|-2}}": (
            "2,5×10⁶ kg, no 7, p. 12-13, 5 m⋅s⁻²"
        ),
        "{{nombre|12000|km}}, {{unité|2.5e6|m}}, m{{exp|2}}, H{{ind|2}}": "12 000 km, 2,5×10⁶ m, m², H₂",
    },
    "it": {"{{M|2000|u=m}}, {{M|1.5|0.2|kg|e=3}}, m{{apice|2}}": "2 000 m, (1,5 ± 0.2)×10³ kg, m²"},
    "ru": {"{{num|12000|человек}}, {{e|-5}}, {{s|10 км}}": "12 000 человек, ×10⁻⁵, 10 км"},
    "de": {"{{ZahlExp|3,14|21|suffix=kg}}, {{Bruch|1|2}}": "3,14×10²¹ kg, 1/2"},
    "es": {"{{unidad|12000|km}}, {{notación científica|3|5}}": "12 000 km, 3×10⁵"},
    "pt": {"{{fmtn|12000|km}}": "12.000 km"},
}


@pytest.mark.parametrize(("language", "wikitext"), [(key, text) for key in RAISED for text in RAISED[key]])
def test_numbers_keep_their_values(language: str, wikitext: str) -> None:
    assert plain(wikitext, language=language) == RAISED[language][wikitext]


VARIANTS = {
    "这个-{zh-hans:计算机;zh-hant:電腦}-会说话。": "这个计算机会说话。",
    "這個-{zh-hans:计算机;zh-hant:電腦}-會說話。": "這個電腦會說話。",
    "這個-{zh-cn:软件; zh-tw:軟體; zh-hk:軟件;}-。": "這個軟體。",
    "这-{H|zh-cn:甲;zh-tw:乙}-里-{T|zh-cn:题}--{-|x}-们-{N|zh}-": "这里们",
    "这-{A|zh-cn:甲;zh-tw:乙}-与-{R|原}-与-{zh|文}-与-{文}-": "这甲与原与文与文",
    "Река -{sr-ec:Дунав;sr-el:Dunav}-": "Река Дунав",
    "Reka -{sr-ec:Дунав;sr-el:Dunav}- teče": "Reka Dunav teče",
    "这-{zh-hans:[[甲|乙]];zh-hant:{{lang|zh|丙}}}-": "这乙",
    "这-{zh-hans:一-{zh-hans:二;zh-hant:三}-;zh-hant:四}-": "这一二",
    "<nowiki>-{a}-</nowiki> {{lang|de|x}}-{{lang|de|y}}": "-{a}- x-y",
}


@pytest.mark.parametrize("wikitext", VARIANTS)
def test_one_variant_of_several_scripts_is_shown(wikitext: str) -> None:
    assert plain(wikitext, language="zh") == VARIANTS[wikitext]


TEXT = "'''Puna''' is a high grassland in the Andes."
HATNOTES = [
    ": ''Hierdie artikel gaan oor die grasland. Sien [[Puna (stad)]].''\n\n{}",
    "''For the town, see [[Puna (town)]].''\n{}",
    ":For the town, see [[Puna (town)]].\n{}",
    "{{{{Infobox\n| a = b\n}}}}\n:''Siehe auch [[Puna (Stadt)]].''\n{}",
    "[[File:A.jpg|thumb|x]]\n:''A'', see [[B]].\n".replace(":''A'', see [[B]].\n", ":''See [[B]].''\n")
    + "{}",
    "→ ''Hauptartikel: [[Puna (Stadt)]]''\n{}",
    "{{{{a}}}}\n:''See [[B]].''\n:''See [[C]].''\n\n{}",
]


@pytest.mark.parametrize("wikitext", HATNOTES)
def test_hatnotes_go_and_the_article_stays(wikitext: str) -> None:
    assert plain(wikitext.format(TEXT)) == "Puna is a high grassland in the Andes."


def test_main_articles_behind_headings_go_and_quotations_stay() -> None:
    assert plain(f"{TEXT}\n== Climate ==\n:''Hovedartikel: [[Klima]]''\nCold.").endswith(
        "\n\nClimate\n\nCold."
    )
    assert plain(f"{TEXT}\n== Climate ==\n: Se også: [[Klima]] og [[Vær]]\nCold.").endswith(
        "\n\nClimate\n\nCold."
    )
    quoted = plain(f"{TEXT}\n== Song ==\n:''„O [[puna]], so high“''\nA verse.")
    assert "so high" in quoted
    assert "wind [of] the puna" in plain(f"{TEXT}\nIt says:\n:''wind [of] the [[puna]]''")
    assert "- Brave Llamas" in plain(f"{TEXT}\n== Novels ==\n* ''[[Brave Llamas]]''\n* ''[[Ape]]''")


def test_what_announces_a_dropped_table_goes() -> None:
    table = "{| class=a\n| x || y\n|}\n"
    for line in ("The herds are listed below.", "Die folgende Tabelle zeigt die Herden.", "Herds by year:",
                 "Ниже в таблице ниже приведены стада", "下表列出畜群"):  # fmt: skip
        assert plain(f"{TEXT}\n\n{line}\n{table}\nIt is cold.") == (
            "Puna is a high grassland in the Andes.\n\nIt is cold."
        )
    assert "It is dry." in plain(f"{TEXT}\n\nIt is dry.\n{table}\nIt is cold.")


def test_a_label_that_lost_its_value_goes_and_others_stay() -> None:
    items = ("1967: {{twin|A|B}}", "1970: [[Lima]]", "Names: {{lang|es|Puna}}", "1990 – {{x}}")
    found = plain("\n* ".join((TEXT, *items)))
    assert found.endswith("\n- 1970: Lima\n- Names: Puna")
    assert plain(f"{TEXT}\n* Animals:\n** Llamas").endswith("- Animals:\n- Llamas")


@pytest.mark.parametrize(
    "name",
    [
        *("Eksterne lenker", "Dış bağlantılar", "外部链接", "Liên kết ngoài", "関連項目"),
        *("Спасылкі", "Εξωτερικοί σύνδεσμοι", "Viungo vya nje", "बाहरी कड़ियाँ", "קישורים חיצוניים"),
    ],
)
def test_sections_of_links_in_many_languages_go(name: str) -> None:
    assert plain(f"{TEXT}\n== {name} ==\n* [http://a.example A]\n* [[B]]") == (
        "Puna is a high grassland in the Andes."
    )


LINKS = [
    *("* [http://a.example A]", "* ''[//b.example B]'' (in Quechua)"),
    *("* http://c.example", "* Map of [//d.example D]"),
]


@pytest.mark.parametrize("others", [[], ["* [[Llama]]"], ["The '''centre'''"]])
def test_a_last_section_of_links_to_other_sites_goes_whatever_its_name(others: list[str]) -> None:
    section = "\n".join(["== Wak wasikuna ==", *others, *LINKS])
    before, behind = f"{TEXT}\n== Grass ==\nIt is dry.", "== Notes ==\n<references/>\n[[Category:A]]"
    assert plain(f"{before}\n{section}\n{behind}") == plain(before)
    assert plain(f"{TEXT}\n=== A ===\n* [[B]]\n={section}=").endswith("A\n\n- B")


def test_other_lists_at_the_end_of_an_article_stay() -> None:
    quoted = "* [//a.example A] is what one of the herders wrote about the grass, which is dry and yellow."
    for item in ("* [[Llama]]", quoted):
        assert plain("\n".join([TEXT, "== Animals ==", *LINKS[:3], item])).count("\n- ") == 4
    before = "\n".join([TEXT, "== Schools ==", *LINKS, "== Grass ==", "It is dry."])
    assert "Schools\n\n- A\n- B (in Quechua)\n- http://c.example\n- Map of D\n\nGrass" in plain(before)


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("Puna ({{IPAc-en|a}}, {{IPAc-en|b}}, or occasionally {{IPAc-en|c}}), also dry", "Puna, also dry"),
        ("Puna (usually pronounced as: {{IPAc-en|a}}; {{lang|qu|sallqa}}) is dry", "Puna (sallqa) is dry"),
        ("Puna ({{lang|es|La Puna}} {{IPAc-en|a}}) is dry", "Puna (La Puna) is dry"),
        ("Puna ({{lang|ru|пуна}} {{IPAc-en|a}}; ''puna'' {{IPAc-en|b}}) is dry", "Puna (пуна; puna) is dry"),
        ("Puna is pronounced {{IPAc-en|a}} (and dry)", "Puna is pronounced (and dry)"),
    ],
)
def test_words_that_lead_to_a_lost_pronunciation_go_with_it(wikitext: str, text: str) -> None:
    assert plain(wikitext) == text


def test_a_link_in_a_superscript_is_that_superscript() -> None:
    assert plain("10<sup>[http://a.example 21]</sup> m") == plain("10<sup>21</sup> m") == "10²¹ m"


NEW_MARKUP = ("-{", ":''", "''[[", "<sup>", "<sub>x", "::", "}-", "-{zh-hans:a;", "\n:''[[a]]''", "* {{a}}:")
NEW_MARKUP += ("\n* [//a b]", "\n== a ==\n* [//a b]", "({{a}} ", "({{a}}, b ")


@pytest.mark.parametrize("piece", NEW_MARKUP)
def test_new_markup_takes_linear_time(piece: str) -> None:
    within(8, lambda: plain(piece * (300_000 // len(piece))))
