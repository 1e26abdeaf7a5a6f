"""Talk with a model: answers come as they are generated, the conversation goes on.

    python evaluate/chat.py --model_name_or_path RUN/checkpoint-33
    echo "1+1=?" | python evaluate/chat.py --model_name_or_path RUN/checkpoint-33

Greedy, unless --temperature says otherwise. On a terminal, /reset begins anew, /help tells more,
Ctrl-C stops an answer and Ctrl-D ends. From a pipe all of the input is one message. The format has
the roles user and assistant only: what you would say in a system message belongs into your first.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from growth.core.cli import (
    add_options,
    argument_parser,
    options_from,
    positive_float,
    positive_int,
    run_script,
)
from growth.core.errors import InputError
from growth.core.options import ModelOptions

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
    once = None if sys.stdin.isatty() else read_message()
    # torch takes its seconds only once there is something to answer
    dialogue = load_dialogue(args)
    if once is not None:
        dialogue.say(once, tell)
        print()
        return
    import readline  # noqa: F401  (line editing and history for input())

    print("/help tells the commands", file=sys.stderr)
    converse(dialogue, input)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--model_name_or_path", required=True, help="folder, LoRA patch, hub id or .gguf"
    )
    add_options(parser, ModelOptions)
    parser.add_argument(
        "--temperature", type=positive_float, help="sample at this temperature; default: greedy"
    )
    parser.add_argument(
        "--top_p", type=positive_float, help="sample among the likeliest with this probability"
    )
    parser.add_argument("--top_k", type=positive_int, help="sample among so many likeliest")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    parser.add_argument(
        "--max_new_tokens", type=positive_int, default=1024, help="tokens of an answer, at most"
    )
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of the model"
    )
    parser.add_argument("--system", help="refused: " + NO_SYSTEM)
    args = parser.parse_args(argv)
    if args.system is not None:
        raise InputError(f"--system: {NO_SYSTEM}")
    if args.temperature is None and (args.top_p is not None or args.top_k is not None):
        raise InputError("--top_p and --top_k choose what is sampled from: give --temperature too")
    if args.top_p is not None and args.top_p > 1:
        raise InputError(f"--top_p {args.top_p}: a probability, at most 1")
    return args


def read_message() -> str:
    """All of a pipe, as one message."""
    try:
        text = sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise InputError(f"standard input: not UTF-8 ({error.reason})") from None
    if not text:
        raise InputError("standard input: empty; pipe a message in, or run this on a terminal")
    return text


def load_dialogue(args: argparse.Namespace) -> Any:
    """The model, ready to talk."""
    from transformers import set_seed
    from transformers.utils import logging as transformers_logging

    from growth.core.device import choose_compute
    from growth.inference.chat_session import ChatSession, Sampling
    from growth.model.loading import load_model, load_tokenizer
    from growth.model.source import find_model

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    source = find_model(args.model_name_or_path, options_from(args, ModelOptions))
    compute = choose_compute(args.precision)
    chat = load_tokenizer(source)
    model = load_model(source, compute.dtype, chat).to(compute.device).eval()
    set_seed(args.seed)
    names = Sampling.__dataclass_fields__
    return ChatSession(model, chat, Sampling(**{n: v for n, v in vars(args).items() if n in names}))


def tell(piece: str) -> None:
    """Show a piece of an answer at once."""
    print(piece, end="", flush=True)


def converse(dialogue: Any, read: Callable[[str], str]) -> None:
    """Turn after turn, until `read` raises EOFError or `/exit` comes."""
    while True:
        try:
            text = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        match text.partition(" ")[0]:
            case "":
                continue
            case "/exit":
                return
            case "/reset":
                dialogue.reset()
                print("(a new conversation)")
            case "/help":
                print(HELP)
            case "/system":
                print(f"(sorry: {NO_SYSTEM})")
            case _:
                answer(dialogue, text)


def answer(dialogue: Any, text: str) -> None:
    """One turn; Ctrl-C stops the answer, not the conversation."""
    before = dialogue.forgotten
    try:
        dialogue.say(text, tell)
    except KeyboardInterrupt:
        tell(" ...")
    except InputError as error:
        tell(f"({error})")
    print()
    if dialogue.forgotten > before:
        print("(the beginning of the conversation no longer fits and was left out)")


if __name__ == "__main__":
    run_script(main)
