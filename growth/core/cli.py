"""What every script shares at its edge: help that teaches, errors that end in exit code 2."""

import argparse
import dataclasses
import errno
import functools
import gc
import math
import os
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from growth.core.errors import InputError

T = TypeVar("T")
_LARGEST = 2**63  # no count that a library takes is larger
_FIRST_WORD = 5  # seconds that the main process of a launch has for an error


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description; adds the default to each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        about = action.help or ""
        if action.default is None or isinstance(action.default, bool) or "default: " in about:
            return about
        return super()._get_help_string(action) or ""


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help opens with `description`, the docstring of the script."""
    return argparse.ArgumentParser(
        description=(description or "").strip(), formatter_class=_Help, allow_abbrev=False
    )


def add_options(
    parser: argparse._ActionsContainer,
    options: type[Any],
    *,
    prefix: str = "",
    leave_out: Container[str] = (),
    only: Container[str] | None = None,
) -> None:
    """Add a flag for each field of an options dataclass that says how (see `growth.core.options`).

    Args:
        parser: a parser or a group of one.
        options: a dataclass whose fields are made with `option`; others get no flag.
        prefix: in front of each flag's name, such as "lora_".
        leave_out: names of fields that get no flag here.
        only: names of the fields that get one; None for all.
    """
    types = get_type_hints(options)
    for field in dataclasses.fields(options):
        about = field.metadata
        if not about or field.name in leave_out or (only is not None and field.name not in only):
            continue
        names = [f"--{prefix}{name}" for name in (field.name, about["alias"]) if name]
        kinds = _kinds(types[field.name])
        if bool in kinds:
            parser.add_argument(*names, action="store_true", help=about["help"])
            continue
        unset = about["unset"]
        default = f"default: {field.default if unset is None else unset}"
        notes = [about["unit"], "required" if about["required"] else default]
        arguments: dict[str, Any] = {
            "dest": f"{prefix}{field.name}",
            "default": field.default if unset is None else None,
            "help": f"{about['help']} ({'; '.join(note for note in notes if note)})",
        }
        if about["choices"]:
            arguments["choices"] = about["choices"]
        elif int in kinds or float in kinds:
            bounds = {name: about[name] for name in ("minimum", "maximum", "below")}
            kind = int if int in kinds else float
            arguments["type"] = functools.partial(_number, kind, **bounds)
        elif Path in kinds:
            arguments["type"] = Path
        elif about["plain_name"]:
            arguments["type"] = plain_name
        if tuple in kinds:
            arguments["nargs"] = "+"
        if about["required"]:
            arguments |= {"required": True, "default": None}
        if about["metavar"]:
            arguments["metavar"] = about["metavar"]
        if about["bare"]:
            arguments |= {"nargs": "?", "const": about["bare"]}
        parser.add_argument(*names, **arguments)


def _kinds(annotation: Any) -> set[Any]:
    """The types that a field may have, `tuple` for any tuple."""
    origin = get_origin(annotation)
    if origin is tuple:
        return {tuple}
    alternatives = get_args(annotation) if origin is not None else (annotation,)
    return {tuple if get_origin(kind) is tuple else kind for kind in alternatives}


def given_options(
    args: argparse.Namespace, options: type[Any], *, prefix: str = ""
) -> dict[str, Any]:
    """The fields of an options dataclass that the parsed flags set, by name."""
    named = {
        field.name: getattr(args, f"{prefix}{field.name}", None)
        for field in dataclasses.fields(options)
        if field.metadata
    }
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in named.items()
        if value is not None
    }


def options_from(
    args: argparse.Namespace,
    options: type[T],
    *,
    prefix: str = "",
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> T:
    """The options dataclass of parsed flags.

    A field whose flag is not set is that of `defaults`, by name, or else keeps its own default.
    """
    return options(**(dict(defaults) | given_options(args, options, prefix=prefix)))


def _number(
    kind: type[int] | type[float],
    text: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> float:
    """The type of a flag that counts or measures something; bounds as in `option`.

    Raises:
        argparse.ArgumentTypeError: `text` is no such number.
    """
    if kind is int:
        minimum = 1 if minimum is None else minimum
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    # a whole number may have more digits than a float can hold
    finite = isinstance(number, int) or math.isfinite(number)
    high_enough = number > 0 if minimum is None else number >= minimum
    largest = _LARGEST if kind is int and below is None else below
    low_enough = (largest is None or number < largest) and (maximum is None or number <= maximum)
    if finite and high_enough and low_enough:
        return number
    noun = "a whole number" if kind is int else "a number"
    bound = "above 0" if minimum is None else f"of at least {minimum}"
    too_large = finite and largest is not None and number >= largest
    bound += f" and below {largest}" if below is not None or too_large else ""
    bound += f" and at most {maximum}" if maximum is not None else ""
    raise argparse.ArgumentTypeError(f"{_shortened(text)!r} is not {noun} {bound}")


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def positive_int(text: str) -> int:
    """The type of a flag that counts something, of at least 1."""
    return int(_number(int, text))


def plain_name(text: str) -> str:
    """The type of a flag whose value becomes the name of a folder.

    Raises:
        argparse.ArgumentTypeError: no folder can have this name, or it would lie elsewhere.
    """
    if text.strip() in ("", ".", "..") or "/" in text or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"{_shortened(text)!r} is not a plain name, as a folder has it"
        )
    return text


def run_script(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run a script's `main`: bad input ends in one message on stderr and exit code 2."""
    # Importing torch and transformers makes a million objects and no garbage; to look through them
    # as often as by default takes a tenth of the import's time.
    gc.set_threshold(10_000)
    try:
        _check_encoding(sys.argv)
        main(None)
    except InputError as error:
        if os.environ.get("RANK", "0") not in ("0", ""):
            # All processes of a launch meet most errors; it ends them once the first has said so.
            time.sleep(_FIRST_WORD)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # A full disk, a folder without permission: the system's words and the file say it all.
        words = f"{error.filename or 'file system'}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            words += (
                " (the disk is full); make room, and run the same command again (training: with "
                "--resume): what was finished is kept"
            )
        print(f"error: {words}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; the same command resumes", file=sys.stderr)
        sys.exit(130)


def _check_encoding(words: Sequence[str]) -> None:
    """Records name files and flags, in UTF-8.

    Raises:
        InputError: a word of the command line has bytes that are no text.
    """
    for word in words:
        try:
            word.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(
                f"{os.fsencode(word)!r}: not text in the encoding of this shell; set LC_ALL to the "
                "one that the name is in, or rename the file"
            ) from None
