"""arXiv papers: every form in which they come, and which part of one is its text."""

import gzip
import io
import random
import tarfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.corpus.readers.latex import arxiv
from puna.corpus.record import RawDocument, SkippedRecord
from puna.errors import UserError
from tests.timing import within

PAPER = (
    r"\documentclass{article}\title{On llamas}\begin{document}Front.\section{One}They graze.\end{document}"
)


def paper_text(files: dict[str, str], root: str) -> tuple[str, str]:
    return arxiv.text_and_title(arxiv.Joined(files, root, arxiv.Names(files)))


def text_of(source: str, **others: str) -> str:
    files = {"main.tex": source, **{f"{name}.tex": text for name, text in others.items()}}
    return paper_text(files, "main.tex")[0]


def document(body: str, preamble: str = "") -> str:
    return f"\\documentclass{{article}}{preamble}\\begin{{document}}{body}\\end{{document}}"


def tar(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            item = tarfile.TarInfo(name.replace("__", "/").replace("_dot_", "."))
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return packed.getvalue()


def read(path: Path, content: bytes) -> list[RawDocument | SkippedRecord]:
    path.write_bytes(content)
    return list(arxiv.read(path))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (r"Front.\section{One}a", r"\section{One}a"),
        (r"Front.\section*{One}a", r"\section*{One}a"),
        (r"Front.\chapter{One}a\section{Two}b", r"\chapter{One}a\section{Two}b"),
        (r"Front.\section[short]{One}a", r"\section[short]{One}a"),
        (r"\begin{abstract}x\end{abstract}\maketitle A letter.", "A letter."),
        (
            r"\maketitle A letter.\section*{Acknowledgments}Thanks.",
            r"A letter.\section*{Acknowledgments}Thanks.",
        ),
        ("Only text.", "Only text."),
        (
            r"\section{One}a\begin{thebibliography}{9}\bibitem{x}y\end{thebibliography}\appendix b",
            r"\section{One}a\appendix b",
        ),
        (r"\section{One}a\begin{references}\bibitem{x}y", r"\section{One}a"),
        (r"\section{One}a\bibliographystyle{plain}\bibliography{refs}b", r"\section{One}ab"),
        (
            r"\section{One}a\section*{References}\begin{itemize}\item x\end{itemize}\section{Two}b",
            r"\section{One}a\section{Two}b",
        ),
        ("\\section{One}\n\\label{one}\nSee \\ref{one}.", "\\section{One}\nSee \\ref{one}."),
        ("\\section{One}\\iffalse hidden\\fi a", r"\section{One} a"),
        (
            "\\section{One}\na\n\\begin{figure}\n\\centering\n\\begin{center}\n\\includegraphics[width=1cm]{b}\n"
            "\\end{center}\n\\caption{c}\n\\end{figure}\n\\markright{Notes}\\theendnotes\n\\raggedright",
            "\\section{One}\na\n\\begin{figure}\n\\caption{c}\n\\end{figure}",
        ),
    ],
)
def test_the_text_starts_at_the_first_section_and_has_no_references(body: str, text: str) -> None:
    assert text_of(document(body)) == text


def test_files_in_the_order_in_which_they_are_read() -> None:
    assert (
        text_of(document(r"\section{A}\input{two}\input one"), one="1", two=r"2\input{one}")
        == r"\section{A}211"
    )
    only = document(r"\section{A}\include{one}\include{two}\input{one}", r"\includeonly{two}")
    assert text_of(only, one="1", two="2") == r"\section{A}21"
    alone = document("\\section{B}b", r"\newcommand{\x}{no}")
    assert text_of(document(r"\section{A}a\subfile{one}c"), one=alone) == r"\section{A}a\section{B}bc"
    assert (
        text_of(r"\def\size{10pt}\input{one}", one=document(r"\section{A}\x", r"\newcommand{\x}{yes}"))
        == r"\section{A}yes"
    )
    assert text_of(document(r"\section{A}\iffalse\input{one}\fi a"), one="1") == r"\section{A} a"


def test_titles_are_plain() -> None:
    source = (
        r"\documentclass{a}\newcommand{\p}{Puna}\title[short]{On \p\thanks{A fund} and\\ more~{x}}"
        r"\begin{document}a\end{document}"
    )
    assert paper_text({"m.tex": source}, "m.tex")[1] == "On Puna and more {x}"


@pytest.mark.parametrize("form", ["tex", "gz", "tar", "tar.gz"])
def test_a_paper_in_every_form(tmp_path: Path, form: str) -> None:
    content = (
        tar(main_dot_tex=PAPER.encode(), figure_dot_eps=bytes(9000)) if "tar" in form else PAPER.encode()
    )
    (found,) = read(tmp_path / f"2101.00001.{form}", gzip.compress(content) if "gz" in form else content)
    assert isinstance(found, RawDocument) and found.text == r"\section{One}They graze."
    assert (found.url, found.title) == ("https://arxiv.org/abs/2101.00001", "On llamas")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"%PDF-1.4", "PDF without source"),
        (b"%!PS-Adobe", "PostScript without source"),
        (b"%auto-ignore\n", "withdrawn"),
        (b"plain words", "no \\documentclass"),
        (b"\0\1", "no TeX file"),
    ],
)
def test_papers_without_source(tmp_path: Path, content: bytes, reason: str) -> None:
    assert read(tmp_path / "2101.00001.gz", gzip.compress(content)) == [
        SkippedRecord(reason, "https://arxiv.org/abs/2101.00001", 0)
    ]


def test_a_bulk_archive_gives_paper_by_paper(tmp_path: Path) -> None:
    inner = {
        "2101__2101.00001_dot_gz": gzip.compress(PAPER.encode()),
        "2101__2101.00002_dot_gz": gzip.compress(tar(main_dot_tex=PAPER.encode())),
        "2101__2101.00003_dot_pdf": b"%PDF-1.4",
        "2101__2101.00004_dot_gz": gzip.compress(PAPER.encode())[:40],
        "2101__2101.00005_dot_gz": b"\x1f\x8b\x08 no gzip at all",
    }
    items = read(tmp_path / "arXiv_src_2101_001.tar", tar(**inner))
    assert [item.offset for item in items] == list(range(5))
    assert [item.url[-1] for item in items] == ["1", "2", "3", "4", "5"]
    assert [item.reason if isinstance(item, SkippedRecord) else "" for item in items[:3]] == [
        "",
        "",
        "PDF without source",
    ]
    assert items[4] == SkippedRecord("damaged gzip member", "https://arxiv.org/abs/2101.00005", 4)


def test_a_cut_archive_is_named_after_what_could_be_read(tmp_path: Path) -> None:
    whole = tar(**{f"2101.0000{number}_dot_gz": gzip.compress(PAPER.encode()) for number in range(3)})
    path = tmp_path / "bulk.tar"
    path.write_bytes(whole[:1700])
    seen = []
    with pytest.raises(UserError, match="damaged or ends early"):
        for item in arxiv.read(path):
            seen.append(item)
    assert len(seen) >= 1 and isinstance(seen[0], RawDocument)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=8)), max_size=4), packed=st.booleans()
)
def test_no_damage_breaks_it(tmp_path: Path, cuts: list[tuple[int, bytes]], packed: bool) -> None:
    content = tar(main_dot_tex=PAPER.encode(), **{"2101.00001_dot_gz": gzip.compress(PAPER.encode())})
    content = gzip.compress(content) if packed else content
    for place, written in cuts:
        content = (
            content[: place % (len(content) + 1)]
            + written
            + content[place % (len(content) + 1) + len(written) :]
        )
    path = tmp_path / "2101.00001"
    path.write_bytes(content)
    try:
        assert all(isinstance(item, RawDocument | SkippedRecord) for item in arxiv.read(path))
    except UserError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("option", "encoding"),
    [("latin2", "iso8859-2"), ("cp1251", "cp1251"), ("T1,koi8-r", "koi8-r"), ("utf8", "cp1252")],
)
def test_the_encoding_that_a_paper_names(tmp_path: Path, option: str, encoding: str) -> None:
    words = {"iso8859-2": "źródło", "cp1252": "Größe"}.get(encoding, "лама")
    source = document(f"\\section{{A}}{words}", f"\\usepackage[{option}]{{inputenc}}")
    for form in (encoding, "utf-8"):
        (found,) = read(tmp_path / "x.tex", source.encode(form))
        assert isinstance(found, RawDocument) and found.text == f"\\section{{A}}{words}"


def test_old_identifiers_get_their_slash(tmp_path: Path) -> None:
    for name, url in (
        ("hep-th9901001", "hep-th/9901001"),
        ("math.AG0212001v2", "math.AG/0212001v2"),
        ("0704.0001", "0704.0001"),
    ):
        (found,) = read(tmp_path / f"{name}.gz", gzip.compress(PAPER.encode()))
        assert found.url == f"https://arxiv.org/abs/{url}"


def test_files_that_read_each_other_again_and_again_come_to_an_end() -> None:
    files = {f"f{number}.tex": f"\\input{{f{number + 1}}}" * 2 for number in range(60)}
    files["f0.tex"] = document(r"\section{A}\input{f1}")
    assert paper_text(files, "f0.tex")[0] == r"\section{A}"


REPEATED = [
    "\\begin{verbatim}", "\\verb|x ", "\\url{", "\\iffalse ", "\\a{", "\\a", "\\b{x", "\\b ", "\\c[",
    "\\begin{e}", "\\newcommand{\\x}{", "\\def\\x#1", "\\def\\x\\y", "\\long", "\\let\\x\\y", "$",
    "\\ensuremath{", "\\title{", "\\title[", "\\begin{references}", "\\label{", "\\label[",
    "\\bibliography[", "\\section{References}", "%", "\\", "{", "}", "[", "\n", " ", "\\input{ ",
    "\\input{x}", "#1", "\\if", "\\a{\\a{x}{y}}{z}", "\\b{\\b{x;};};",
]  # fmt: skip


@pytest.mark.parametrize("pattern", REPEATED)
def test_no_text_takes_long(tmp_path: Path, pattern: str) -> None:
    preamble = r"\newcommand{\a}[2]{#1}\def\b#1;{#1#1}\newcommand{\c}[1][x]{\a{#1}}\newenvironment{e}{<}{>}"
    many = pattern * (60_000 // len(pattern))
    for source in (
        document(r"\section{A}" + many, preamble),
        document(r"\section{A}\x\a{b}{c}", preamble + many),
    ):
        # A hundred times what the slowest takes; quadratic work takes minutes.
        assert len(within(3, partial(read, tmp_path / "x.tex", source.encode()))) == 1


TEXT = "The ferry leaves at seven. "


def read_folder(tmp_path: Path, **files: str) -> list[RawDocument | SkippedRecord]:
    folder = tmp_path / "paper"
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.tex"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(arxiv.read(folder))


@pytest.mark.parametrize(
    ("preamble", "call"),
    [
        (r"\makeatletter\def\input@path{{sections/}}\makeatother", r"\input{intro}"),
        (r"\makeatletter\def\input@path{{a/}{./sections/}}\makeatother", r"\include{intro}"),
        (r"\newcommand{\sect}[1]{\input{sections/#1}}", r"\sect{intro}"),
        (r"\newcommand{\sect}[2][sections]{\input{#1/#2}}", r"\sect{intro}"),
        (r"\def\sect#1{\input{sections/#1.tex}}", r"\sect{intro}"),
        (r"\newcommand{\one}[1]{\input{sections/#1}}\newcommand{\sect}[1]{\one{#1}}", r"\sect{intro}"),
        (r"\newcommand{\sect}{\input{sections/intro}}", r"\sect"),
        (r"\newcommand{\dir}{sections}", r"\input{\dir/intro}"),
        (r"\def\dir{sections/}\newcommand\name{intro}", r"\input{\dir\name}"),
        ("", r"\import{sections/}{intro}"),
        ("", r"\subimport*{sections}{intro.tex}"),
        ("", r"\subfile{sections/intro}"),
        ("", r"\input{./sections/../sections/intro}"),
        ("", r"\InputIfFileExists{sections/intro}{}{}"),
        ("", '\\input "sections/intro"'),
    ],
)
def test_files_are_found_however_they_are_named(tmp_path: Path, preamble: str, call: str) -> None:
    main = document(f"\n\\section{{Zero}}{TEXT}\n{call}\nEnd.", preamble)
    (found,) = read_folder(tmp_path, main=main, sections__intro=f"\\section{{Intro}}\n{TEXT}")
    assert isinstance(found, RawDocument)
    assert "\\section{Intro}\nThe ferry" in found.text and found.text.endswith("End.")


def test_a_file_that_is_not_there_leaves_a_row(tmp_path: Path) -> None:
    main = document(f"\\section{{A}}{TEXT}\\input{{b}}\\input{{x.bbl}}\\input{{fig.pdf_tex}}\\include{{c/d}}")
    text, *rows = read_folder(tmp_path, main=main)
    assert isinstance(text, RawDocument)
    assert [(row.reason, row.url) for row in rows if isinstance(row, SkippedRecord)] == [
        ("file read in is not there", "paper/b"),
        ("file read in is not there", "paper/c/d"),
    ]


def test_a_second_root_says_something_else_or_leaves_a_row(tmp_path: Path) -> None:
    sentences = [f"\nSentence {number} of the appendix is a long one of its own." for number in range(60)]
    main = document("\\section{A}" + TEXT * 300)
    items = read_folder(
        tmp_path,
        main=main,
        supplement=document("\\section{S}" + "".join(sentences)),
        version1=document("\\section{A}" + TEXT * 290 + "\n" + TEXT * 2),
        figure=document("\\section{F}x"),
    )
    kinds = {item.url: item.reason if isinstance(item, SkippedRecord) else "text" for item in items}
    other = "other root of the same folder"
    texts = ("paper/main.tex", "paper/supplement.tex", "paper/version1.tex")
    assert kinds == {**dict.fromkeys(texts, "text"), "paper/figure.tex": other}


LISTINGS = {
    "": ("verbatim", "lstlisting", "minted", "Verbatim", "BVerbatim", "verbatim*", "filecontents*"),
    r"\lstnewenvironment{code}[1][]{}{}": ("code",),
    r"\DefineVerbatimEnvironment{Code}{Verbatim}{}": ("Code",),
    r"\newminted{python}{}": ("pythoncode",),
    r"\newtcblisting{shell}{}": ("shell",),
}


@pytest.mark.parametrize(
    ("preamble", "name"), [(preamble, name) for preamble, names in LISTINGS.items() for name in names]
)
@pytest.mark.parametrize(
    "inside",
    [
        "\\end{document}",
        "\\documentclass{article}\\begin{document}x\\end{document}",
        "\\begin{thebibliography}{9}",
        "\\bibliography{a}",
        "\\input{nowhere}",
        "\\iffalse",
        "\\newcommand{\\ferry}{ship}",
        "\\section{References}",
        "{ $ \\vspace{1em} % no comment",
    ],
)
def test_inside_verbatim_text_is_text(preamble: str, name: str, inside: str) -> None:
    listing = f"\\begin{{{name}}}\n{inside}\n\\end{{{name}}}"
    found = text_of(
        strip(document(f"\\section{{A}}{TEXT}\n{listing}\n\\section{{B}} \\ferry after", preamble))
    )
    assert found.endswith(f"{listing}\n\\section{{B}} \\ferry after")


def strip(source: str) -> str:
    from puna.corpus.readers.latex.latex import blocks, strip_comments

    return strip_comments(source, blocks([source]), mask=True)


def test_inline_verbatim_is_text_and_left_out_comments_go() -> None:
    for inline in (
        r"\verb|\end{document}|",
        r"\lstinline!\begin{thebibliography}!",
        r"\mintinline{tex}|\iffalse|",
    ):
        assert text_of(strip(document(f"\\section{{A}} {inline} after"))).endswith(f"{inline} after")
    notes = "\\begin{notes}secret \\end{document}\\end{notes}"
    assert "secret" not in text_of(strip(document(f"\\section{{A}}{notes} after", "\\excludecomment{notes}")))
    assert "secret" in text_of(strip(document("\\section{A}\\begin{n}secret\\end{n}", "\\includecomment{n}")))


def test_a_bibliography_that_never_ends_does_not_take_the_rest() -> None:
    opened = "\\begin{thebibliography}{9}\\bibitem{a} Nobody."
    assert (
        text_of(document(f"\\section{{A}}x\n{opened}\n\\section{{B}}after"))
        == "\\section{A}x\n\\section{B}after"
    )
    twice = f"\\section{{A}}x\n{opened}\n\\appendix y {opened}\\end {{thebibliography}} z"
    assert text_of(document(twice)).split() == ["\\section{A}x", "\\appendix", "y", "z"]
    assert text_of(document(f"\\section{{A}}x {opened}")) == "\\section{A}x"


def test_what_the_author_redefines_and_asks_of_arguments() -> None:
    preamble = (
        r"\renewcommand{\eqref}[1]{Eq.~(\ref{#1})}"
        r"\NewDocumentCommand{\foo}{s o m}{\IfBooleanTF{#1}{star }{}\IfNoValueTF{#2}{none}{with #2} #3}"
    )
    found = text_of(document(r"\section{A} \eqref{a}, \foo{x}, \foo*[y]{z}", preamble))
    assert found.endswith(r"Eq.~(\ref{a}), none x, star with y z")
    source = PAPER.replace("{On llamas}", r"{\vspace{-1cm}On \vspace*{2pt}llamas\thanksref{a}}")
    assert paper_text({"main.tex": source}, "main.tex")[1] == "On llamas"


def test_a_second_root_that_reads_the_same_files_is_the_same_text_again(tmp_path: Path) -> None:
    chapter = "\\section{A}\n" + "".join(
        f"Sentence {number} of a chapter of some length.\n" for number in range(99)
    )
    items = read_folder(
        tmp_path,
        book=document("\\input{one}\\section{More} x"),
        ebook=document("\\input{one}"),
        one=chapter,
    )
    reasons = [item.reason if isinstance(item, SkippedRecord) else "" for item in items]
    assert reasons == ["", "other root of the same folder"]


@pytest.mark.parametrize("form", ["folder", "tar", "single", "bulk"])
def test_what_is_too_long_for_a_paper_has_a_row(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arxiv, "LONGEST", 2_000)
    root, long = PAPER.encode(), b"% " + b"x" * 3_000
    if form == "folder":
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "main.tex").write_bytes(root)
        (tmp_path / "p" / "z.tex").write_bytes(long)
        items = list(arxiv.read(tmp_path / "p"))
    elif form == "tar":
        items = read(tmp_path / "p.tar", tar(main_dot_tex=root, z_dot_tex=long))
    elif form == "single":
        items = read(tmp_path / "p.tex", long)
    else:
        packed = {"2401.00001_dot_gz": gzip.compress(root), "2401.00002_dot_gz": gzip.compress(long)}
        items = read(tmp_path / "p.tar", tar(**packed))
    reasons = [item.reason for item in items if isinstance(item, SkippedRecord)]
    texts = [item for item in items if isinstance(item, RawDocument)]
    assert reasons == [arxiv.TOO_LONG] and len(texts) == (form != "single")
    assert all(text.whole > len(text.text) and text.cut for text in texts)


def test_large_pictures_and_a_damaged_paper_cost_a_bulk_archive_no_other_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arxiv, "LONGEST", 20_000)
    monkeypatch.setattr(arxiv, "READ_AT_ONCE", 700)
    noise = random.Random(1).randbytes(50_000)
    figures = gzip.compress(tar(a_dot_eps=bytes(90_000), b_dot_png=noise, main_dot_tex=PAPER.encode()))
    bulk = {
        "2401.00001_dot_gz": figures,
        "2401.00002_dot_gz": figures[: len(figures) // 2],
        "2401.00003_dot_gz": figures,
        "2401.00004_dot_pdf": b"%PDF" + noise,
    }
    items = read(tmp_path / "p.tar", tar(**bulk))
    assert items[1] == SkippedRecord("damaged gzip member", "https://arxiv.org/abs/2401.00002", 1)
    assert items[3] == SkippedRecord("PDF without source", "https://arxiv.org/abs/2401.00004", 3)
    assert [item.text for item in items if isinstance(item, RawDocument)] == [r"\section{One}They graze."] * 2


def test_files_that_go_beyond_a_paper_or_lie_too_deep_have_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"f{number}.tex": rf"\input{{f{number + 1}}}" for number in range(30)} | {"f30.tex": "End."}
    joined = arxiv.Joined(files, "f0.tex", arxiv.Names(files))
    assert "End." not in joined.text and joined.missing == {"f21.tex": "files lie too deep in each other"}
    monkeypatch.setattr(arxiv, "LONGEST", 2_000)
    files = {"m.tex": r"\input{a}\input{b}", "a.tex": "x" * 3_000, "b.tex": "y"}
    assert arxiv.Joined(files, "m.tex", arxiv.Names(files)).missing == {"b.tex": arxiv.TOO_LONG}
