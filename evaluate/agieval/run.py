"""Run AGIEval's ten Chinese choice sets on a model: evaluate/agieval/outputs/<tag>/results.json.

    python evaluate/agieval/run.py --model_name_or_path RUN/checkpoint-33
    torchrun --nproc_per_node 2 evaluate/agieval/run.py --model_name_or_path MODEL --tag NAME

The answer is the likeliest of A, B, C, D as the next token. With the results come run.json and
per-sample results for each set, <setting>/<set>.jsonl: question, logits of the letters, prediction,
gold, confidence. Results that are there already are kept: the same command resumes after an
interruption. The data is what `python data/download.py --datasets agieval` fetches.
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
from growth.tasks.agieval import AGIEval
from growth.tasks.benchmark import read_exam


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, run the benchmark or dump its prompts."""
    parser = argument_parser(__doc__)
    for options in (BenchmarkOptions, ModelOptions, PromptOptions):
        add_options(parser, options)
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=AGIEval.settings,
        default=list(AGIEval.settings),
        help="without demonstrations, or with the published ones as turns of the chat",
    )
    args = parser.parse_args(argv)
    settings = list(dict.fromkeys(args.settings))
    what = options_from(args, BenchmarkOptions)
    exam = read_exam(AGIEval(), what.data_dir or Path("evaluate/agieval/data"), what.limit)
    # Imported here: flags and questions are checked before torch takes its seconds.
    from growth.tasks.benchmark_run import BenchmarkRun, run_benchmark

    how = options_from(args, ModelOptions), options_from(args, PromptOptions)
    run_benchmark(BenchmarkRun(AGIEval(), exam, settings, what, *how))
    distributed_state().leave()


if __name__ == "__main__":
    run_script(main)
