"""Run CMMLU on a model: evaluate/cmmlu/outputs/<tag>/results.json.

    python evaluate/cmmlu/run.py --model_name_or_path RUN/checkpoint-33
    torchrun --nproc_per_node 2 evaluate/cmmlu/run.py --model_name_or_path MODEL --tag NAME

The answer is the likeliest of A, B, C, D as the next token. With the results come run.json and
per-sample results for each subject, <shots>-shot/<subject>.jsonl: question, logits of the letters,
prediction, gold, confidence. Results that are there already are kept: the same command resumes
after an interruption. The data is what `python data/download.py --datasets cmmlu` fetches.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import add_options, argument_parser, options_from, run_script
from growth.core.distributed import distributed_state
from growth.core.options import BenchmarkOptions, ModelOptions, PromptOptions
from growth.data.published import CMMLU_SHOTS
from growth.tasks.benchmark import read_exam
from growth.tasks.cmmlu import CMMLU


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, run the benchmark or dump its prompts."""
    parser = argument_parser(__doc__)
    for options in (BenchmarkOptions, ModelOptions, PromptOptions):
        add_options(parser, options)
    parser.add_argument(
        "--num_fewshot",
        type=int,
        nargs="+",
        choices=range(CMMLU_SHOTS + 1),
        default=[0, CMMLU_SHOTS],
        help="examples shown before the question, one or more settings",
    )
    args = parser.parse_args(argv)
    settings = [f"{shots}-shot" for shots in dict.fromkeys(args.num_fewshot)]
    what = options_from(args, BenchmarkOptions)
    exam = read_exam(CMMLU(), what.data_dir or Path("evaluate/cmmlu/data"), what.limit)
    # Imported here: flags and questions are checked before torch takes its seconds.
    from growth.tasks.benchmark_run import BenchmarkRun, run_benchmark

    how = options_from(args, ModelOptions), options_from(args, PromptOptions)
    run_benchmark(BenchmarkRun(CMMLU(), exam, settings, what, *how))
    distributed_state().leave()


if __name__ == "__main__":
    run_script(main)
