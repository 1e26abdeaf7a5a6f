"""Predict the valid or test lines: evaluate/pred-data/<split>/.../<checkpoint>/pred_<file>.json.

    python evaluate/predict.py --model_name_or_path RUN/checkpoint-33 \\
        --eval_data_path data/curated/valid

Questions are answered greedily; of open-ended lines the perplexity of each choice is taken. A
checkpoint of ours says by itself where its predictions go; any other model needs --model_size and
--tag. Given a run's folder, all its checkpoints that selection considers are predicted. What is
there already is kept: the same command resumes after an interruption, amid a file too. On
several GPUs, `torchrun --nproc_per_node N evaluate/predict.py ...` spreads the lines over N
processes and writes the same files.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import add_options, argument_parser, options_from, run_script
from growth.core.distributed import distributed_state
from growth.core.options import DecodingOptions, ModelOptions, PredictionOptions, StudyOptions
from growth.data.records import read_evaluation_files
from growth.runs.recorded_study import study_of_models


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, predict what is missing."""
    parser = argument_parser(__doc__)
    for options in (PredictionOptions, ModelOptions, DecodingOptions, StudyOptions):
        add_options(parser, options)
    args = parser.parse_args(argv)
    what = options_from(args, PredictionOptions)
    study = study_of_models(what.model_name_or_path, args.study)
    files = read_evaluation_files(what.eval_data_path, "--eval_data_path", study, what.limit)
    # Imported here: flags and data files are checked before torch takes its seconds.
    from growth.tasks.prediction_run import predict

    decoding = options_from(args, DecodingOptions, defaults=study.run.decoding())
    predict(files, what, options_from(args, ModelOptions), decoding, study)
    distributed_state().leave()


if __name__ == "__main__":
    run_script(main)
