"""The launcher's error, whose message is shown at the terminal."""


class StackError(Exception):
    """The message says what is wrong and what to do about it."""
