"""arXiv papers in LaTeX, as the paper prepared them (section 2.1).

That is the text from the first section on, without bibliography and comments, with the author's own macros
expanded inline.

A paper is a folder, a tar archive (packed or not) or a single file. Its roots are the files with
\\documentclass that no other file reads in; of each folder's, the one with the longest text counts, and those
that say something else. What a paper reads in and does not bring is reported, and so is a root that is left
out. arXiv's own bulk archives, tar files of packed papers, are read paper by paper.
"""

import functools
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from puna.corpus.readers.latex.latex import blocks, resolve_conditionals, strip_comments, unmask
from puna.corpus.readers.latex.macros import Macros, expand_macros, expand_only, macros_that
from puna.corpus.record import RawDocument, SkippedRecord, digest
from puna.corpus.sources import streams
from puna.errors import UserError
from puna.text.lists import listed

IDENTITY = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/?\d{7})(v\d+)?")
ENDINGS = (".tex", ".ltx", ".latex")
CLASS = re.compile(r"\\document(?:class|style)\b")
ROOT = re.compile(r"\\document(?:class|style)\b|\\begin\s*\{document\}")
INPUT = re.compile(
    r"\\(?:@?input|(?P<include>include)|subfile|subfileinclude|InputIfFileExists)\s*\{(?P<file>[^{}]{1,500})\}"
    r"|\\(?:sub)?(?:import|includefrom|inputfrom)\*?\s*\{(?P<folder>[^{}]{0,500})\}\s*\{(?P<inside>[^{}]{1,500})\}"
    r"|\\input\s+(?P<bare>\"[^\"\n]{1,500}\"|[^\s{}\\]+)"
)
# A macro's body that reads in a file which an argument names.
MACRO_OF_INPUT = re.compile(
    r"\\(?:@?input|include|(?:sub)?import|subfile)\*?\s*(?:\{[^{}\n]{0,200}\}\s*)?\{[^{}\n]{0,200}#\d"
)
INPUT_PATH = re.compile(r"\\def\s*\\input@path\s*\{((?:\s*\{[^{}]{0,500}\}){1,50})\s*\}")
NAME_MACRO = re.compile(
    r"\\(?:(?:re|provide)?newcommand|providecommand|[gex]?def)\*?\s*\{?\s*\\([A-Za-z@]+)\s*\}?\s*\{([^{}\\#\n]{0,200})\}"
)
# Read in, but no text: bibliographies, pictures, packages, what LaTeX writes itself.
NO_TEXT = re.compile(
    r"\.(?:bbl|bib|pgf|tikz|tkz|pdf_tex|pstex_t|eps_tex|pspdftex|sty|cls|clo|cfg|def|ldf|aux|toc|lof|lot|ind|gls|acr|fd|rtx)$"
    r"|#\d|\\",
    re.IGNORECASE,
)
SHORTEST_OTHER_ROOT = 1_500  # characters of a second root's text; shorter ones are pictures and covers
INCLUDE_ONLY = re.compile(r"\\includeonly\s*\{([^{}]*)\}")
FIRST_SECTION = re.compile(r"\\(?:section|chapter)\*?\s*[\[{]")
# A letter without sections may end in one of these; its text stands before it.
LAST_SECTION = re.compile(
    r"\\(?:section|chapter)\*?\s*\{\s*(?:acknowled|references|bibliography|appendix|supplement|funding)",
    re.IGNORECASE,
)
BEGIN = re.compile(r"\\begin\s*\{document\}")
END = re.compile(r"\\end\s*\{document\}")
FRONT_END = re.compile(r"\\end\s*\{(?:abstract|frontmatter|titlepage|keywords?)\}|\\maketitle\b")
BIBLIOGRAPHY = re.compile(
    r"\\begin\s*\{(?P<list>thebibliography|references|biblist|thereferences)\}"
    r"|\\(?:section|chapter)\*?\s*"
    r"\{\s*(?:\\\w+\s+)?(?P<heading>references|bibliography|literature cited)\s*\}"
    r"|\\(?:bibliography|bibliographystyle|printbibliography|addbibresource|nocite)(?![A-Za-z])"
    r"(?:\s*\[[^\]]{0,1000}\])?(?:\s*\{[^{}]*\})?",
    re.IGNORECASE,
)
AFTER_HEADING = re.compile(r"\\(?:section|chapter)\*?\s*[\[{]|\\appendix\b")
_NOISE = (
    r"(?:\\(?:label|includegraphics|epsfig|epsfbox|plotone|vspace|hspace|vskip|index|thispagestyle|pagestyle|graphicspath|markright)\*?\s*"
    r"(?:\[[^\]]{0,1000}\]\s*){0,4}\{[^{}]*\}"
    r"|\\(?:maketitle|tableofcontents|listoffigures|listoftables|newpage|clearpage|cleardoublepage|pagebreak|linebreak|noindent|bigskip"
    r"|medskip|smallskip|mainmatter|frontmatter|backmatter|FloatBarrier|centering|raggedright|raggedbottom|sloppy|allowdisplaybreaks"
    r"|theendnotes)(?![A-Za-z])(?:\[\d\])?)"
)
NOISE = re.compile(rf"(?<=\n)[ \t]*{_NOISE}[ \t]*\n|{_NOISE}")
EMPTY = re.compile(r"\\begin\{(center|flushleft|flushright)\}\s*\\end\{\1\}[ \t]*\n?")  # of pictures
TITLE = re.compile(r"\\title\s*(?:\[[^\]]{0,1000}\])?\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
THANKS = re.compile(
    r"\\[vh](?:space|skip)\*?\s*(?:\{[^{}]*\}|-?[\d.]+ ?(?:pt|cm|mm|in|ex|em)\b)"
    r"|\\(?:footnotemark|thanksref|tnoteref|corref)(?:\[[^\]]*\])?(?:\{[^{}]*\})?"
    r"|\\(?:thanks|footnote|titlenote)\s*(?:\[[^\]]{0,1000}\])?\{(?:[^{}]|\{[^{}]*\})*\}|\\\\(?:\[[^\]]*\])?|~"
)
# Encodings by their names in \\usepackage[...]{inputenc}, for files that are not UTF-8.
INPUTENC = re.compile(
    rb"\\(?:usepackage|RequirePackage)\s*\[([^\]]{0,200})\]\s*\{inputenc\}|\\inputencoding\s*\{(\w+)\}"
)
ENCODINGS: dict[str, str] = listed(__file__, "names.json")["encodings"]
# First bytes of what arXiv has in place of a paper's source, and the reason to skip it.
NOT_SOURCE = {
    b"%PDF": "PDF without source",
    b"%!PS": "PostScript without source",
    b"%auto-ignore": "withdrawn",
}
DEEPEST, LONGEST = 20, 20_000_000  # files inside files; characters, and bytes, of a paper
TOO_LONG = "paper over 20 MB"
READ_AT_ONCE = 1 << 20
CUT = "preamble, title page and bibliography"


@dataclass(frozen=True)
class _Paper:
    """One paper as it was submitted.

    files: its TeX files by their path inside it, decoded and without comments. skip_reason: why it is skipped
    where it has none.
    """

    name: str
    files: dict[str, str]
    raw_digest: str
    skip_reason: str = "no TeX file"
    skipped: tuple[tuple[str, str], ...] = ()  # (file, reason) of TeX files that are not in `files`


def read(path: Path) -> Iterator[RawDocument | SkippedRecord]:
    """Read every paper of a folder or archive; the texts of one paper in the order of their folders."""
    number = 0
    for paper in _papers(path):
        for item in _texts(paper, number):
            yield item
            number += 1


def _texts(paper: _Paper, number: int) -> Iterator[RawDocument | SkippedRecord]:
    identity = IDENTITY.fullmatch(re.sub(r"(\.tar)?\.gz$|\.tar$|\.tgz$|\.tex$", "", paper.name))
    base = paper.name
    if identity:  # file names leave out the slash of identifiers before 2007
        base = "https://arxiv.org/abs/" + re.sub(r"\A([a-z-]+(?:\.[A-Z]{2})?)(\d)", r"\1/\2", identity[0])
    names = Names(paper.files)
    roots = _roots(paper.files, names)
    if not roots:
        yield SkippedRecord("no \\documentclass" if paper.files else paper.skip_reason, base, number)
    missing: dict[str, str] = {}
    mains = sum(root.kind == "main" for root in roots)
    lines: set[str] = set()  # long ones of the texts so far
    for offset, root in enumerate(roots, number):
        url = base if identity and mains == 1 and root.kind == "main" else f"{base}/{root.name}"
        text, title, whole = "", "", 0
        if root.kind != "again":
            joined = Joined(paper.files, root.name, names)
            missing |= joined.missing
            whole = len(joined.text)
            text, title = text_and_title(joined)
            del joined
        own = {line for line in text.split("\n") if len(line) > 40} if len(roots) > 1 else set()
        if root.kind != "main" and (len(text) < SHORTEST_OTHER_ROOT or 2 * len(own & lines) > len(own)):
            yield SkippedRecord("other root of the same folder", url, offset)
        elif text:
            lines |= own
            yield RawDocument(url, text, offset, paper.raw_digest, title, whole=whole, cut=CUT)
        else:
            yield SkippedRecord("no text", url, offset)
    for offset, (name, reason) in enumerate(missing.items(), number + len(roots)):
        yield SkippedRecord(reason, f"{base}/{name}", offset)
    skipped = paper.skipped if paper.files else ()
    for offset, (name, reason) in enumerate(skipped, number + len(roots) + len(missing)):
        yield SkippedRecord(reason, f"{base}/{name}", offset)


def _paper(
    name: str, raw: dict[str, bytes], skip_reason: str = "no TeX file", too_long: Sequence[str] = ()
) -> _Paper:
    """Decode a paper's files. raw: their content by path. too_long: files that were too large to be read."""
    named = next((match for content in raw.values() if (match := INPUTENC.search(content))), None)
    options = (named[1] or named[2]).decode("latin-1").split(",") if named else []
    encoding = next((ENCODINGS[option.strip()] for option in options if option.strip() in ENCODINGS), "")
    files: dict[str, str] = {}
    skipped = [(inside, TOO_LONG) for inside in too_long]
    for inside, content in sorted(raw.items()):
        text = streams.decode(content, encoding)
        if text is None:
            skipped.append((inside, "not text"))
        else:
            files[inside] = text.replace("\r\n", "\n").replace("\r", "\n")
    known = blocks(files.values())
    files = {inside: strip_comments(text, known, mask=True) for inside, text in files.items()}
    joined = b"\0".join(inside.encode() + b"\0" + content for inside, content in sorted(raw.items()))
    return _Paper(name, files, digest(joined), TOO_LONG if too_long else skip_reason, tuple(skipped))


def _papers(path: Path) -> Iterator[_Paper]:
    if path.is_dir():
        children = sorted(child for child in path.rglob("*") if child.suffix.lower() in ENDINGS)
        raw, too_long, room = {}, [], LONGEST
        for file in filter(Path.is_file, children):
            inside, size = file.relative_to(path).as_posix(), file.stat().st_size
            if size > room:
                too_long.append(inside)
                continue
            raw[inside] = file.read_bytes()
            room -= size
        yield _paper(path.name, raw, too_long=too_long)
        return
    unpacked = _Reader(streams.chunks(path))
    head = unpacked.peek(512)
    if head[257:262] == b"ustar":
        yield from _from_tar(path.name, unpacked)
    else:
        yield _single(path.name, unpacked.read(LONGEST + 1))


def _single(name: str, content: bytes) -> _Paper:
    """Return a paper that came as one file, or the reason to skip it where that is not its source."""
    start = content.lstrip()
    for magic, reason in NOT_SOURCE.items():
        if start.startswith(magic):
            return _paper(name, {}, reason)
    return _paper(name, {}, TOO_LONG) if len(content) > LONGEST else _paper(name, {name: content})


def _from_tar(name: str, unpacked: "_Reader") -> Iterator[_Paper]:
    """Read the papers packed inside an archive, then the paper that its own TeX files make, if any."""
    raw: dict[str, bytes] = {}
    too_long: list[str] = []
    size = papers = 0
    try:
        with tarfile.open(fileobj=unpacked, mode="r|", errorlevel=0) as archive:
            for item in archive:
                inside = PurePosixPath(item.name)
                if not item.isfile() or not (opened := archive.extractfile(item)):
                    continue
                if inside.suffix.lower() in (".gz", ".pdf") and IDENTITY.fullmatch(inside.stem):
                    papers += 1
                    pieces = iter(functools.partial(opened.read, READ_AT_ONCE), b"")
                    yield _packed_paper(inside.name, _Reader(pieces))
                elif inside.suffix.lower() in ENDINGS and size + item.size > LONGEST:
                    too_long.append(inside.as_posix())
                elif inside.suffix.lower() in ENDINGS:
                    raw[inside.as_posix()] = opened.read()
                    size += item.size
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"the tar archive is damaged or ends early, at byte {unpacked.position:,} of what it unpacks to"
        ) from error
    if raw or too_long or not papers:
        yield _paper(name, raw, too_long=too_long)


def _packed_paper(name: str, packed: "_Reader") -> _Paper:
    if packed.peek(2) != b"\x1f\x8b":
        return _tar_or_single(name.removesuffix(".pdf"), packed)
    import zlib

    try:
        return _tar_or_single(name, _Reader(_unpacked(packed)))
    except (zlib.error, UserError):
        return _paper(name, {}, "damaged gzip member")


def _tar_or_single(name: str, unpacked: "_Reader") -> _Paper:
    if unpacked.peek(512)[257:262] == b"ustar":
        return next(_from_tar(name, unpacked), _paper(name, {}))
    return _single(name, unpacked.read(LONGEST + 1))


def _unpacked(packed: "_Reader") -> Iterator[bytes]:
    """Unpack a gzip member piece by piece: its pictures may be any size, and only TeX files are kept."""
    import zlib

    unpacker = zlib.decompressobj(31)
    while not unpacker.eof and (piece := unpacker.unconsumed_tail or packed.read(READ_AT_ONCE)):
        if made := unpacker.decompress(piece, READ_AT_ONCE):
            yield made


class _Reader(io.RawIOBase):
    """A file of pieces, which tarfile reads forward. position: bytes read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest, self.position = pieces, b"", 0

    def peek(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        return self._rest[:size]

    def read(self, size: int = -1) -> Any:
        parts, missing = [], size
        while missing > 0 and (self._rest or (piece := next(self._pieces, b""))):
            self._rest = self._rest or piece
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        self.position += size - missing
        return b"".join(parts)


class _Root(NamedTuple):
    """A file with a document class. kind: main of its folder; other; again, mostly of files read before."""

    name: str
    kind: Literal["main", "other", "again"]


def _roots(files: dict[str, str], names: "Names") -> list[_Root]:
    """Return the files with \\documentclass that no other file reads in, by folder, the main one first.

    That is the one with the longest expansion.
    """
    included = set().union(*(_targets(files, name, text, names) - {name} for name, text in files.items()))
    by_folder: dict[str, list[tuple[int, str, set[str]]]] = {}
    for name in files:
        if name not in included and ROOT.search((joined := Joined(files, name, names)).text):
            folder = str(PurePosixPath(name).parent)
            by_folder.setdefault(folder, []).append((-len(joined.text), name, joined.read))
    roots: list[_Root] = []
    seen: set[str] = set()
    for folder in sorted(by_folder):
        main, *others = sorted(by_folder[folder])
        roots.append(_Root(main[1], "main"))
        seen |= main[2]
        for _, name, read in others:
            size, common = (sum(len(files[inner]) for inner in inside) for inside in (read, read & seen))
            roots.append(_Root(name, "again" if 2 * common > size else "other"))
            seen |= read
    return roots


class Names:
    """What a paper says of where its files are: \\input@path, macros in names, macros that read files in."""

    def __init__(self, files: dict[str, str]) -> None:
        texts = files.values()
        found = (match for text in texts if "input@path" in text for match in INPUT_PATH.finditer(text))
        self.folders = [name for match in found for name in re.findall(r"\{([^{}]*)\}", match[1])]
        self.macros: dict[str, str] = {}
        in_name = re.compile(r"\\(?:input|include|subfile|(?:sub)?import)\*?\s*\{[^{}]*\\[A-Za-z@]")
        if any(in_name.search(text) for text in texts):
            self.macros = {match[1]: match[2] for text in texts for match in NAME_MACRO.finditer(text)}
        self.readers = Macros()
        if any(MACRO_OF_INPUT.search(text) for text in texts):
            self.readers = macros_that(INPUT.search, texts)

    def expanded(self, text: str) -> str:
        """Expand the macros that read files in."""
        return expand_only(self.readers, text) if self.readers.commands else text

    def plain(self, wanted: str) -> str:
        """Return a file's name with macros in it replaced."""
        for _ in range(3):
            if "\\" not in wanted:
                break
            wanted = re.sub(r"\\([A-Za-z@]+)\s*", lambda match: self.macros.get(match[1], match[0]), wanted)
        return wanted.strip().strip('"')


def _resolve(files: dict[str, str], reader: str, wanted: str, folders: Sequence[str] = ()) -> str | None:
    """Return the file that \\input{wanted} means in the file `reader`, with or without .tex.

    It is relative to the reading file, to the paper's root folder, or to one of `folders`.
    """
    folder = PurePosixPath(reader).parent
    others = (start / name / wanted for name in folders for start in (folder, PurePosixPath()))
    for path in (folder / wanted, PurePosixPath(wanted), *others):
        parts: list[str] = []
        for part in path.parts:
            if part == ".." and parts:
                parts.pop()
            elif part not in (".", ".."):
                parts.append(part)
        name = "/".join(parts)
        for candidate in (name, f"{name}.tex"):
            if candidate in files:
                return candidate
    return None


def _wanted(match: re.Match[str]) -> str:
    """Return the file name that an \\input or \\import gives."""
    return (match["file"] or match["bare"] or f"{match['folder'].rstrip('/')}/{match['inside']}").strip()


def _targets(files: dict[str, str], name: str, text: str, names: Names) -> set[str]:
    """Return the files that a file reads in."""
    inputs = INPUT.finditer(names.expanded(text))
    targets = (_resolve(files, name, names.plain(_wanted(match)), names.folders) for match in inputs)
    return {target for target in targets if target is not None}


class Joined:
    """A root file with all that it reads in, in order."""

    def __init__(self, files: dict[str, str], root: str, names: Names) -> None:
        self.files, self.root, self.names, self.room = files, root, names, LONGEST
        self.read = {root}
        self.missing: dict[str, str] = {}  # files that are read in and left out, and why
        only = INCLUDE_ONLY.search(files[root])
        self.only = {name.strip() for name in only[1].split(",")} if only else None
        self._parts: dict[tuple[str, bool], tuple[bool, list[tuple[str, str | None]]]] = {}
        self.text = self._of(root, ())

    def _of(self, name: str, above: tuple[str, ...], alone: bool = False) -> str:
        """Return a file with all that it reads in; one that reads itself, at whatever remove, is read once.

        above: the files that it is read by. alone: one of them has a preamble, so its own is left out.
        """
        if name in above or len(above) > DEEPEST or self.room < 0:
            if name not in above:
                self.missing[name] = TOO_LONG if self.room < 0 else "files lie too deep in each other"
            return ""
        if (name, alone) not in self._parts:
            self._parts[name, alone] = self._split(name, alone)
        has_class, parts = self._parts[name, alone]
        out: list[str] = []
        self.room -= 100  # so that small files that read each other twice come to an end too
        for text, target in parts:
            out.append(text)
            self.room -= len(text)
            if target is not None:
                out.append(self._of(target, (*above, name), alone or has_class))
        return "".join(out)

    def _split(self, name: str, alone: bool) -> tuple[bool, list[tuple[str, str | None]]]:
        """Split a file: (whether it names a document class, its pieces: (text, file read in behind it))."""
        text = self.names.expanded(self.files[name])
        has_class = CLASS.search(text) is not None
        if alone and (begin := BEGIN.search(text)):
            end = END.search(text, begin.end())
            text = text[begin.end() : end.start() if end else len(text)]
        parts: list[tuple[str, str | None]] = []
        at = 0
        for match in INPUT.finditer(text):
            wanted = self.names.plain(_wanted(match))
            folders = self.names.folders
            target = _resolve(self.files, name, wanted, folders) or _resolve(
                self.files, self.root, wanted, folders
            )
            if target is not None:
                self.read.add(target)
            elif not NO_TEXT.search(wanted):
                self.missing[wanted] = "file read in is not there"
            if match["include"] and self.only is not None and wanted.removesuffix(".tex") not in self.only:
                target = None
            parts.append((text[at : match.start()], target))
            at = match.end()
        return has_class, [*parts, (text[at:], None)]


def text_and_title(joined: Joined) -> tuple[str, str]:
    """Return the text and the title of a paper."""
    title, *parts = _split_document(resolve_conditionals(joined.text))
    # Macros first: a section may be hidden in one. What stands before the first section is cut after that.
    # The body is popped, for it may have many megabytes and is not to be kept beside its expansion.
    body = expand_macros(parts[0], parts.pop())
    section = FIRST_SECTION.search(body)
    fronts = [match.end() for match in FRONT_END.finditer(body)]
    begins_with_section = section and not (LAST_SECTION.match(body, section.start()) and fronts)
    start = section.start() if section and begins_with_section else fronts[-1] if fronts else 0
    del section
    body = body[start:]
    body = EMPTY.sub("", NOISE.sub("", _without_bibliography(body)))
    body = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in body.split("\n"))).strip()
    return unmask(body), unmask(title)


def _split_document(text: str) -> tuple[str, str, str]:
    """Split a paper: (title, preamble, body)."""
    begin = BEGIN.search(text)
    end = END.search(text, begin.end() if begin else 0)
    preamble = text[: begin.start()] if begin else ""
    named = TITLE.search(text)
    title = THANKS.sub(" ", expand_macros(preamble, named[1])) if named else ""
    body = text[begin.end() if begin else 0 : end.start() if end else len(text)]
    return " ".join(title.split()), preamble, body


def _bibliography_end(text: str, at: int, name: str) -> int:
    """Return where a bibliography that is open at `at` ends; one without an end, at the next heading."""
    end = re.compile(rf"\\end\s*\{{{name}\}}").search(text, at)
    again = re.compile(rf"\\begin\s*\{{{name}\}}").search(text, at, end.start() if end else len(text))
    if end and not again:
        return end.end()
    heading = AFTER_HEADING.search(text, at)
    return heading.start() if heading else end.end() if end else len(text)


def _without_bibliography(text: str) -> str:
    """Leave out references: bibliography environments, commands that print one, and sections of that name."""
    out = io.StringIO()
    at = 0
    while match := BIBLIOGRAPHY.search(text, at):
        out.write(text[at : match.start()])
        at = match.end()
        if match["list"]:
            at = _bibliography_end(text, at, match["list"])
        elif match["heading"]:
            following = AFTER_HEADING.search(text, at)
            at = following.start() if following else len(text)
    out.write(text[at:])
    return out.getvalue()
