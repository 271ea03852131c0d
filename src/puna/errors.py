"""The one error a person is meant to read."""


class UserError(Exception):
    """Something the user can put right: the message says what is wrong, where, and what would be right.

    The command line prints it without a traceback and ends with exit code 2.
    """
