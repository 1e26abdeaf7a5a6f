"""The one exception that stands for bad input."""


class InputError(Exception):
    """Bad input, reported to the user in one message.

    The message names the value, where it came from (flag, or file:line), what was expected and the
    remedy. Scripts print it and exit with 2.
    """
