"""Ask a model CMMLU's questions: evaluate/cmmlu/outputs/<tag>/results.json.

    python evaluate/cmmlu/run.py --model_name_or_path RUN/checkpoint-33
    torchrun --nproc_per_node 2 evaluate/cmmlu/run.py --model_name_or_path MODEL --tag NAME

The answer is the likeliest of A, B, C, D as the next token. Beside the results stand run.json and
an answer sheet a subject, <shots>-shot/<subject>.jsonl: question, logits of the letters,
prediction, gold, confidence. Sheets that are there already are kept, so the same command goes on
after an interruption. The data is what `python data/download.py --datasets cmmlu` fetches.
"""

from collections.abc import Sequence

from growth.core.cli import run_script
from growth.data.hub import CMMLU_SHOTS
from growth.tasks.cmmlu import CMMLU
from growth.tasks.runner import benchmark_parser, run_benchmark


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, ask."""
    parser = benchmark_parser(CMMLU(), __doc__)
    parser.add_argument(
        "--num_fewshot",
        type=int,
        nargs="+",
        choices=range(CMMLU_SHOTS + 1),
        default=[0, CMMLU_SHOTS],
        help="examples shown before the question, one or more settings",
    )
    args = parser.parse_args(argv)
    run_benchmark(CMMLU(), [f"{shots}-shot" for shots in args.num_fewshot], args)


if __name__ == "__main__":
    run_script(main)
