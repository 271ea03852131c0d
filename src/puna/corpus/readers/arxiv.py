"""arXiv papers in LaTeX, as the paper prepared them (section 2.1): the text from the first section on, without bibliography and
comments, with the author's own macros expanded inline.

A paper is a folder, a tar archive (packed or not) or a single file. Its roots are the files with \\documentclass that no other
file reads in; each folder's root with the longest text counts.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from puna.corpus.document import Found, Skipped, digest
from puna.corpus.readers import streams
from puna.corpus.readers.latex import expand_macros, strip_comments
from puna.errors import UserError

IDENTITY = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/?\d{7})(v\d+)?")
ROOT = re.compile(r"\\document(?:class|style)\b")
INPUT = re.compile(
    r"\\(?:input|include|subfile)\s*\{\s*([^{}]+?)\s*\}|\\(?:sub)?import\s*\{([^{}]*)\}\s*\{([^{}]+)\}|\\input\s+([^\s{}\\]+)"
)
FIRST_SECTION = re.compile(r"\\(?:section|chapter)\*?\s*[\[{]")
BEGIN = re.compile(r"\\begin\s*\{document\}")
END = re.compile(r"\\end\s*\{document\}")
ABSTRACT_END = re.compile(r"\\end\s*\{abstract\}")
BIBLIOGRAPHY = re.compile(
    r"\\begin\s*\{thebibliography\}.*?(?:\\end\s*\{thebibliography\}|\Z)|\\(?:bibliography|bibliographystyle|printbibliography)\b"
    r"(?:\[[^\]]*\])?(?:\{[^{}]*\})?",
    re.DOTALL,
)
NOISE = re.compile(
    r"\\(?:label|includegraphics|vspace|hspace|index)\*?\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}|\\(?:maketitle|tableofcontents|newpage|clearpage)\b"
)
TITLE = re.compile(r"\\title\s*(?:\[[^\]]*\])?\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
DEEPEST, LONGEST = 20, 20_000_000


@dataclass(frozen=True)
class _Source:
    """TeX files of a paper by their path inside it, decoded, comments stripped."""

    files: dict[str, str]
    raw_digest: str


def read(path: Path) -> Iterator[Found | Skipped]:
    """Every paper of a folder or archive, in the order of their folders' names."""
    source = _load(path)
    if not source.files:
        yield Skipped("no TeX file", path.name, 0)
        return
    identity = IDENTITY.fullmatch(path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tex"))
    base = f"https://arxiv.org/abs/{identity[0]}" if identity else path.name
    roots = _roots(source.files)
    if not roots:
        yield Skipped("no \\documentclass", base, 0)
    for number, root in enumerate(roots):
        text, title = paper_text(source.files, root)
        url = base if identity and len(roots) == 1 else f"{base}/{root}"
        yield Found(url, text, number, source.raw_digest, title) if text else Skipped("no text", url, number)


def _load(path: Path) -> _Source:
    raw: dict[str, bytes] = {}
    if path.is_dir():
        for child in sorted(child for child in path.rglob("*") if child.is_file()):
            if child.suffix.lower() in (".tex", ".ltx", ".bbl", ".latex"):
                raw[child.relative_to(path).as_posix()] = child.read_bytes()
    else:
        content = b"".join(streams.chunks(path))
        if content[257:262] == b"ustar":
            try:
                with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                    for item in archive.getmembers():
                        if (
                            item.isfile()
                            and item.name.lower().endswith((".tex", ".ltx", ".latex"))
                            and (opened := archive.extractfile(item))
                        ):
                            raw[PurePosixPath(item.name).as_posix()] = opened.read()
            except (tarfile.TarError, EOFError, OSError) as error:
                raise UserError(f"the tar archive is damaged or ends early ({len(content):,} bytes)") from error
        else:
            raw[path.name] = content
    files = {
        name: text for name, content in sorted(raw.items()) if (text := streams.text_of(content)) is not None and not name.endswith(".bbl")
    }
    whole = digest(b"\0".join(name.encode() + b"\0" + content for name, content in sorted(raw.items())))
    return _Source({name: strip_comments(text.replace("\r\n", "\n").replace("\r", "\n")) for name, text in files.items()}, whole)


def _roots(files: dict[str, str]) -> list[str]:
    """One root a folder: of the files with \\documentclass that no other file reads in, the one with the longest expansion."""
    included = {target for name, text in files.items() for target in _targets(files, name, text) if target != name}
    candidates = [name for name, text in files.items() if ROOT.search(text) and name not in included]
    best: dict[str, str] = {}
    for name in candidates:
        folder = str(PurePosixPath(name).parent)
        if folder not in best or len(_joined(files, name)) > len(_joined(files, best[folder])):
            best[folder] = name
    return [best[folder] for folder in sorted(best)]


def _resolve(files: dict[str, str], reader: str, wanted: str) -> str | None:
    """The file that \\input{wanted} means: relative to the paper's root folder or to the reading file, with or without .tex."""
    folder = PurePosixPath(reader).parent
    for place in (folder / wanted, PurePosixPath(wanted)):
        parts: list[str] = []
        for part in place.parts:
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
    return match[1] or match[4] or (f"{match[2].rstrip('/')}/{match[3]}" if match[3] else "")


def _targets(files: dict[str, str], name: str, text: str) -> set[str]:
    return {target for match in INPUT.finditer(text) if (target := _resolve(files, name, _wanted(match))) is not None}


def _joined(files: dict[str, str], name: str, above: tuple[str, ...] = ()) -> str:
    """A file with all that it reads in, in order; a file that reads itself, at whatever remove, is read once."""
    if name in above or len(above) > DEEPEST:
        return ""
    out, at, size = [], 0, 0
    text = files[name]
    for match in INPUT.finditer(text):
        target = _resolve(files, name, _wanted(match)) or _resolve(files, above[0] if above else name, _wanted(match))
        out.append(text[at : match.start()])
        if target is not None and size < LONGEST:
            inner = _joined(files, target, (*above, name))
            size += len(inner)
            out.append(inner)
        at = match.end()
    return "".join(out) + text[at:]


def paper_text(files: dict[str, str], root: str) -> tuple[str, str]:
    """(text, title) of the paper whose root file is `root`. files: TeX files without comments."""
    whole = _joined(files, root)
    title = TITLE.search(whole)
    begin = BEGIN.search(whole)
    preamble, body = (whole[: begin.start()], whole[begin.end() :]) if begin else ("", whole)
    if end := END.search(body):
        body = body[: end.start()]
    # Macros first: a section may be hidden in one. What stands before the first section is cut after that.
    body = expand_macros(preamble, body)
    section = FIRST_SECTION.search(body)
    if section:
        body = body[section.start() :]
    elif abstract := ABSTRACT_END.search(body):
        body = body[abstract.end() :]
    body = NOISE.sub("", BIBLIOGRAPHY.sub("", body))
    body = re.sub(r"\n[ \t]*(?:\n[ \t]*)+", "\n\n", body).strip()
    return body, " ".join(title[1].split()) if title else ""
