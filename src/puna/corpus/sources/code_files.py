"""Which files are source code, by their names, and how comments are written in them."""

from pathlib import PurePosixPath

# (what begins a line comment, what begins and ends a block comment)
CommentMarks = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]

_HASH, _SLASH, _DASH = (("#",), ()), (("//",), (("/*", "*/"),)), (("--",), ())
_MARKS_AND_SUFFIXES: tuple[tuple[CommentMarks, str], ...] = (
    ((("#",), (('"""', '"""'), ("'''", "'''"), ('r"""', '"""'))), "py pyx pxd pyi"),
    (_HASH, "rb pl pm sh bash zsh r jl cmake mk tcl ex exs nim awk"),
    ((("#",), (("<#", "#>"),)), "ps1 psm1"),
    (_SLASH, "c h cc cpp cxx hh hpp hxx inl cu cuh m mm v sv glsl proto"),
    (_SLASH, "js jsx mjs cjs ts tsx rs go java kt kts scala cs swift dart zig groovy"),
    ((("//", "#"), (("/*", "*/"),)), "php"),
    (((), (("/*", "*/"),)), "css"),
    ((("//",), (("/*", "*/"),)), "scss less"),
    (_DASH, "ada adb ads vhd vhdl"),
    ((("--",), (("--[[", "]]"), ("--[==[", "]==]"))), "lua"),
    ((("--",), (("{-", "-}"),)), "hs lhs elm"),
    ((("--",), (("/*", "*/"),)), "sql"),
    ((("//",), (("(*", "*)"),)), "fs fsi fsx"),
    (((), (("(*", "*)"),)), "ml mli sml"),
    ((("//",), (("(*", "*)"),)), "pas"),
    (((";",), (("#|", "|#"),)), "lisp el clj cljs scm rkt cl"),
    (((";", "#", "//"), (("/*", "*/"),)), "asm s"),
    ((("%",), ()), "tex erl hrl sty cls"),
    ((("!",), ()), "f90 f95 f03 f08"),
    ((("'",), ()), "vb bas"),
    (((), (("<!--", "-->"),)), "html htm md markdown vue svelte"),
    (((".. ",), ()), "rst"),
)
MARKS_BY_SUFFIX = {suffix: marks for marks, suffixes in _MARKS_AND_SUFFIXES for suffix in suffixes.split()}
_NAMES = ("makefile", "gnumakefile", "dockerfile", "rakefile", "gemfile", "cmakelists.txt")


def comment_marks(name: str) -> CommentMarks | None:
    """Return the comment marks of a source file, by its name; None for what is not known as one."""
    path = PurePosixPath(name)
    return _HASH if path.name.lower() in _NAMES else MARKS_BY_SUFFIX.get(path.suffix.lstrip(".").lower())


def is_source_code(name: str) -> bool:
    """Whether a file's name is that of source code."""
    return comment_marks(name) is not None
