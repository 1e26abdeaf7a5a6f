"""What every script shares at its edge: help that teaches, errors that end in exit code 2."""

import argparse
import gc
import sys
from collections.abc import Callable, Sequence


class InputError(Exception):
    """Bad input, told to the user in one message.

    The message names the value, where it came from (flag, or file:line), what was expected and the
    remedy. Scripts print it and exit with 2.
    """


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description; adds the default to each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or isinstance(action.default, bool):
            return action.help or ""
        return super()._get_help_string(action) or ""


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help opens with `description`, the docstring of the script."""
    return argparse.ArgumentParser(
        description=(description or "").strip(), formatter_class=_Help, allow_abbrev=False
    )


def add_model_flags(parser: argparse._ActionsContainer) -> None:
    """The flags that say how --model_name_or_path may be loaded."""
    parser.add_argument(
        "--base_model",
        help="where --model_name_or_path is a LoRA patch: the model that it changes, if not the "
        "folder that the patch names",
    )
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run Python code that the model's folder brings along; it can do whatever you can",
    )


def positive_int(text: str) -> int:
    """The type of a flag that counts something.

    Raises:
        argparse.ArgumentTypeError: `text` is not a whole number of at least 1.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def positive_float(text: str) -> float:
    """The type of a flag that measures something.

    Raises:
        argparse.ArgumentTypeError: `text` is not a number above 0.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def run_script(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run a script's `main`: bad input ends in one message on stderr and exit code 2."""
    # Importing torch and transformers makes a million objects and no garbage; to look through them
    # as often as by default takes a tenth of the import's time.
    gc.set_threshold(10_000)
    try:
        main(None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # A full disk, a folder without permission: the system's words and the file say it all.
        print(
            f"error: {error.filename or 'file system'}: {error.strerror or error}", file=sys.stderr
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; the same command goes on", file=sys.stderr)
        sys.exit(130)
