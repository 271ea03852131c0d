"""SIGINT and SIGTERM come through, whatever the code that they meet does with them."""

import re
import signal
import subprocess
import sys

import pytest

SIGNALS = """
import contextlib, os, signal, sys, time
from puna.cli.signals import Signals
signals, until = Signals(), time.monotonic() + 20
class Cleared:
    def __del__(self):
        for _ in range(3000): pass
class Drops:
    def __enter__(self): return self
    def __exit__(self, kind, *rest): return kind is KeyboardInterrupt
def send(*numbers):
    for number in numbers: os.kill(os.getpid(), number)
try:
    {}
    while time.monotonic() < until: pass
    print("lost")
except KeyboardInterrupt:
    signals.end()
    print("stopped", signals.received)
"""


@pytest.mark.parametrize(
    "work",
    [
        "send(15)",
        "send(15, 2)",
        "with Drops(): send(15)",
        "with Drops(): send(15); send(2)",
        "with signals.pausable(): send(15)",
        "with signals.pausable(), Drops(): send(15); time.sleep(0.6); send(15)",
        "print('ready', flush=True)\n    while not signals.received: Cleared()",
    ],
)
def test_a_stop_is_not_lost(work: str) -> None:
    """Python prints what a finalizer raises and goes on, libraries may drop what is raised in them; a stop
    comes through all the same."""
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALS.replace("{}", work)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if "ready" in work:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    printed, error = process.communicate(timeout=60)
    assert re.fullmatch(r"stopped (15|2)\n", printed) and not error


def test_cleaning_up_after_a_stop_is_not_interrupted() -> None:
    work = """try:
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: [time.sleep(0.1) for _ in range(25)] and print("cleaned"))
            send(15)
    finally:
        for _ in range(15): time.sleep(0.1)
        print("too")"""
    code = [sys.executable, "-c", SIGNALS.replace("{}", work)]
    result = subprocess.run(code, capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("cleaned\ntoo\nstopped 15\n", "")
