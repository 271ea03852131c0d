"""Which files are source code, by their names, and how comments are written in them."""

from pathlib import PurePosixPath

_HASH, _SLASH, _DASH = (("#",), ()), (("//",), (("/*", "*/"),)), (("--",), ())
_BY_STYLE: tuple[tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], str], ...] = (
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
)  # fmt: skip
_STYLES = {extension: style for style, extensions in _BY_STYLE for extension in extensions.split()}
_NAMES = ("makefile", "gnumakefile", "dockerfile", "rakefile", "gemfile", "cmakelists.txt")


def style_of(name: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]] | None:
    """(marks of line comments, pairs of marks of block comments) of a source file by its name; None for what
    is not known as one."""
    path = PurePosixPath(name)
    return _HASH if path.name.lower() in _NAMES else _STYLES.get(path.suffix.lstrip(".").lower())


def is_source_code(name: str) -> bool:
    """Whether a file's name is that of source code."""
    return style_of(name) is not None
