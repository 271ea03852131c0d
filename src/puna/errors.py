"""What ends a command early: an error a person is meant to read, or a wish to stop."""

import signal

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # which ask for a stop


class UserError(Exception):
    """Something the user can put right: the message says what is wrong, where, and what would be right.

    The command line prints it without a traceback and ends with exit code 2.
    """


class Ended(UserError):
    """A training of several processes has ended, and why has been said. code: that of the process's exit."""

    def __init__(self, code: int) -> None:
        super().__init__("another process has ended the run")
        self.code = code


class Stopped(Exception):
    """A long piece of work was asked to stop and has saved what it did. signal: which asked for it, in any
    process, 0 where that is not known; told: in words."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped and saved at step {step}")
        self.step, self.signal, self.told = step, 0, ""
