"""What ends a command early: an error a person is meant to read, or a wish to stop."""


class UserError(Exception):
    """Something the user can put right: the message says what is wrong, where, and what would be right.

    The command line prints it without a traceback and ends with exit code 2.
    """


class Stopped(Exception):
    """A long piece of work was asked to stop and has saved what it did."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped and saved at step {step}")
        self.step = step
