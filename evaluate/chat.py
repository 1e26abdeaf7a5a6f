"""Talk with a model: answers come as they are generated, the conversation continues.

    python evaluate/chat.py --model_name_or_path RUN/checkpoint-33
    echo "1+1=?" | python evaluate/chat.py --model_name_or_path RUN/checkpoint-33

Greedy, unless --temperature says otherwise. On a terminal, /reset starts over, /help lists the
commands, Ctrl-C stops an answer and Ctrl-D ends. From a pipe all of the input is one message. The
format has the roles user and assistant only: what you would say in a system message belongs into
your first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import (
    add_options,
    argument_parser,
    options_from,
    run_script,
)
from growth.core.errors import InputError
from growth.core.options import AUTO, PRECISIONS, ModelOptions, SamplingOptions

if TYPE_CHECKING:
    from growth.inference.chat_session import ChatSession

NO_SYSTEM = (
    "the format has no system message, and the model was not trained with any; put what you want "
    "to say into your first message"
)
HELP = """/reset   forget the conversation
/system  explains why there is none
/help    this
/exit    end, as Ctrl-D"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, load the model, talk."""
    args = parse_args(argv)
    once = None if sys.stdin is not None and sys.stdin.isatty() else read_message()
    # torch takes its seconds only once there is something to answer
    session = load_session(args)
    if once is not None:
        session.reply(once, show)
        print()
        return
    import readline  # noqa: F401  (line editing and history for input())

    print("/help lists the commands", file=sys.stderr)
    converse(session, input)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--model_name_or_path", required=True, help="folder, LoRA adapter, hub id or .gguf"
    )
    add_options(parser, ModelOptions)
    add_options(parser, SamplingOptions)
    parser.add_argument("--precision", choices=PRECISIONS, default=AUTO, help="of the model")
    parser.add_argument("--system", help="refused: " + NO_SYSTEM)
    args = parser.parse_args(argv)
    if args.system is not None:
        raise InputError(f"--system: {NO_SYSTEM}")
    if args.temperature is None and (args.top_p is not None or args.top_k is not None):
        raise InputError("--top_p and --top_k choose what is sampled from: give --temperature too")
    return args


def read_message() -> str:
    """All of a pipe, as one message."""
    if sys.stdin is None:  # closed by the shell: <&-
        raise InputError("standard input: closed; pipe a message in, or run this on a terminal")
    try:
        text = sys.stdin.read().strip()
        text.encode("utf-8")  # in the C locale, bytes that are no text come as half surrogates
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise InputError(f"standard input: not UTF-8 ({error.reason})") from None
    if not text:
        raise InputError("standard input: empty; pipe a message in, or run this on a terminal")
    return text


def load_session(args: argparse.Namespace) -> ChatSession:
    """The model, ready to talk."""
    from transformers import set_seed
    from transformers.utils import logging as transformers_logging

    from growth.core.device import choose_compute
    from growth.inference.chat_session import ChatSession
    from growth.model.loading import load_model, load_tokenizer
    from growth.model.source import find_model
    from growth.runs.retention import refuse_removed

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    refuse_removed(args.model_name_or_path)
    source = find_model(args.model_name_or_path, options_from(args, ModelOptions))
    compute = choose_compute(args.precision)
    chat = load_tokenizer(source)
    model = load_model(source, compute.dtype, chat).eval()
    model.to(compute.device)  # type: ignore[arg-type] # its decorator hides the method's type
    sampling = options_from(args, SamplingOptions)
    set_seed(sampling.seed)
    return ChatSession(model, chat, sampling)


def show(piece: str) -> None:
    """Show a piece of an answer at once."""
    print(piece, end="", flush=True)


def converse(session: ChatSession, read: Callable[[str], str]) -> None:
    """Turn after turn, until `read` raises EOFError or `/exit` comes."""
    while True:
        try:
            text = read("> ").strip()
            text.encode("utf-8")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        except (UnicodeError, RuntimeError):  # readline raises the latter on undecodable bytes
            print("(these bytes are no text in the terminal's encoding; type the message again)")
            continue
        match text.partition(" ")[0]:
            case "":
                continue
            case "/exit":
                return
            case "/reset":
                session.reset()
                print("(a new conversation)")
            case "/help":
                print(HELP)
            case "/system":
                print(f"(sorry: {NO_SYSTEM})")
            case _:
                answer(session, text)


def answer(session: ChatSession, text: str) -> None:
    """One turn; Ctrl-C stops the answer, not the conversation."""
    before = session.forgotten
    try:
        session.reply(text, show)
    except KeyboardInterrupt:
        show(" ...")
    except InputError as error:
        show(f"({error})")
    print()
    if session.forgotten > before:
        print("(the beginning of the conversation no longer fits and was left out)")


if __name__ == "__main__":
    run_script(main)
