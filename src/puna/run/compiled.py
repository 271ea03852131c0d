"""What is compiled once and kept in the user's cache folder: C++ sources of this package, by the machine's
own compiler, and torch.compile's blocks.

Light: no torch.
"""

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

FLAGS = "-O3 -march=native -fno-math-errno -fno-trapping-math -std=c++17 -fopenmp -fPIC -shared"
# Of arguments: pointer, size, float, int.
KINDS = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "f": ctypes.c_float, "i": ctypes.c_int}
INCLUDE = re.compile('^#include "(.+)"', re.MULTILINE)
_PROBLEMS: dict[Path, str] = {}  # why a library could not be built
SWITCH = "PUNA_KERNELS"  # "off" in the environment: the slower code that is always there


def compiler() -> list[str]:
    """The command of the C++ compiler, which may have words behind it as in CXX="ccache g++"; [] where there
    is none, or where kernels are switched off."""
    if os.environ.get(SWITCH) == "off":
        return []
    named = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or ""
    try:
        return shlex.split(named)
    except ValueError:  # a quotation mark alone: no such program
        return [named]


def kind(source: Path) -> str:
    """Which code computes here, for the fingerprint of what is computed: a digest of the source where its
    library can be built and loaded, else "torch"."""
    return hashlib.sha256(_text(source).encode()).hexdigest()[:12] if _opened(source) else "torch"


def _opened(source: Path) -> Any:
    """The library of a C++ source, through ctypes; None where it cannot be built or loaded."""
    path = library(source)
    try:
        return ctypes.CDLL(str(path)) if path else None
    except OSError:
        return None


def problem(source: Path) -> str:
    """Why the library of a C++ source cannot be used here, for people; "" where it can, or is switched
    off."""
    if os.environ.get(SWITCH) == "off" or _opened(source):
        return ""
    if not compiler():
        return "there is no C++ compiler"
    return _PROBLEMS.get(source, "the library does not load")


def _text(source: Path) -> str:
    """A source and the headers next to it that it includes."""
    own = source.read_text("utf-8")
    return "".join([own, *((source.parent / name).read_text("utf-8") for name in INCLUDE.findall(own))])


def cache() -> Path:
    """The user's folder for what is compiled once and kept between runs. Raises OSError where there is
    none."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "puna"
    except RuntimeError as error:  # a user whom the system does not know, as in containers
        raise OSError("this user has no home folder, and XDG_CACHE_HOME is not set") from error


def keep_blocks() -> str:
    """Have torch.compile keep its results in `cache()` too; by itself it takes a temporary folder. Before the
    first compilation.

    Returns the folder, which is another where the environment names one.
    """
    return os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache() / "inductor"))


def library(source: Path) -> Path | None:
    """The shared library of a C++ source for this compiler and processor, from the cache or built now; None
    where that fails."""
    command = compiler()
    if not command:
        return None
    try:
        path = cache() / f"{source.stem}-{_mark(source, command)}.so"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                part = Path(scratch) / "library.so"
                built = [*command, *FLAGS.split(), str(source), "-o", str(part)]
                subprocess.run(built, capture_output=True, check=True)
                os.replace(part, path)
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", b"") or b""
        last = output.decode(errors="replace").strip().splitlines()[-1:]
        _PROBLEMS[source] = f"{shlex.join(command)} does not build it: {last[0] if last else error}"
        return None
    return path


def _mark(source: Path, command: list[str]) -> str:
    """Names what a library is built from and for: source, compiler and processor."""
    version = subprocess.run([*command, "--version"], capture_output=True, check=True, text=True).stdout
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    parts = [_text(source), *FLAGS.split(), version, platform.machine(), processor]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def load(source: Path, signatures: dict[str, str]) -> Any:
    """The functions of a C++ source through ctypes, by their names; None where they cannot be built or are
    switched off.

    signatures: a letter of KINDS for each argument. A function gives back nothing; one whose signature ends
    in "->n", a size.
    """
    found = _opened(source)
    if found is None:
        return None
    for name, signature in signatures.items():
        arguments, _, result = signature.partition("->")
        function = getattr(found, name)
        function.argtypes = [KINDS[kind] for kind in arguments]
        function.restype = KINDS[result] if result else None
    return found
