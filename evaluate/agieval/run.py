"""Ask a model AGIEval's ten Chinese choice sets: evaluate/agieval/outputs/<tag>/results.json.

    python evaluate/agieval/run.py --model_name_or_path RUN/checkpoint-33
    torchrun --nproc_per_node 2 evaluate/agieval/run.py --model_name_or_path MODEL --tag NAME

The answer is the likeliest of A, B, C, D as the next token. Beside the results stand run.json and
an answer sheet a set, <setting>/<set>.jsonl: question, logits of the letters, prediction, gold,
confidence. Sheets that are there already are kept, so the same command goes on after an
interruption. The data is what `python data/download.py --datasets agieval` fetches.
"""

from collections.abc import Sequence

from growth.core.cli import run_script
from growth.tasks.agieval import AGIEval
from growth.tasks.runner import benchmark_parser, run_benchmark


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, ask."""
    parser = benchmark_parser(AGIEval(), __doc__)
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=AGIEval.settings,
        default=list(AGIEval.settings),
        help="without demonstrations, or with the published ones as turns of the chat",
    )
    args = parser.parse_args(argv)
    run_benchmark(AGIEval(), args.settings, args)


if __name__ == "__main__":
    run_script(main)
