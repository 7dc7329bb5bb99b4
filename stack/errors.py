"""What stops the launcher, in words for the person at the terminal."""


class StackError(Exception):
    """The message says what is wrong and what to do about it."""
