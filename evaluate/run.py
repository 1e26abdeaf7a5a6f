"""Evaluate a run: its checkpoints on valid, the choice among them, the chosen one on test.

    python evaluate/run.py --run_dir runs/runs-7b/curated-160/20261122-101500

That is predict.py, score.py and select_checkpoint.py on valid, then predict.py and score.py on
test, in one process. Writes evaluate/pred-data/{valid,test}/... and
evaluate/results/{valid,test}/...; resumes where it was interrupted. `bash scripts/run_evaluate.sh`
starts it, on several GPUs if asked to.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import add_options, argument_parser, options_from, run_script
from growth.core.distributed import distributed_state
from growth.core.errors import InputError
from growth.core.options import (
    CHOSEN,
    DecodingOptions,
    ModelOptions,
    PredictionOptions,
    RetentionOptions,
    StudyOptions,
)
from growth.data.records import read_evaluation_files
from growth.data.study import OF_RUNS, study_of
from growth.runs.layout import PREDICTIONS, RESULTS, RUN_RECORD, run_folder

# What the run's folder and --data_dir say.
_FIXED = ("model_name_or_path", "eval_data_path", "split", "pred_data_path", "model_size", "tag")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, go through the stages on valid, then on test."""
    args = make_parser().parse_args(argv)
    # Imported here: Ctrl-C is answered from now on.
    from growth.runs.layout import read_run
    from growth.runs.retention import check_candidates_predicted, keep_selected
    from growth.scoring.checkpoint_selection import description
    from growth.scoring.results import results_table, score_predictions

    run = read_run(args.run_dir)
    if run is None:
        raise InputError(
            f"--run_dir {args.run_dir}: no {RUN_RECORD} in it; give the folder of a run"
        )
    check_candidates_predicted(args.run_dir, run, args.limit)
    study = study_of(run, args.study, args.run_dir, OF_RUNS)
    files = {  # both now, not after an hour on valid
        split: read_evaluation_files(args.data_dir / folder, "--data_dir", study, args.limit)
        for split, folder in study.splits.items()
    }
    # Imported here: flags and data files are checked before torch takes its seconds.
    from growth.tasks.prediction_run import predict

    folder, state = run_folder(run), distributed_state()
    decoding = options_from(args, DecodingOptions, defaults=study.run.decoding())
    how = options_from(args, ModelOptions), decoding

    def predict_and_score(model: Path, split: str) -> None:
        what = replace(
            options_from(args, PredictionOptions), model_name_or_path=(str(model),), split=split
        )
        predict(files[split], what, *how, study)
        if state.is_main_process:
            predictions, results = (base / split / folder for base in (PREDICTIONS, RESULTS))
            scored = score_predictions(
                predictions, results, details=True, study=args.study, wait=args.wait
            )
            if len(scored) == 1:
                print(results_table(scored[0]))

    predict_and_score(args.run_dir, "valid")
    checkpoint = None
    if state.is_main_process:
        choice = choice_of_run(RESULTS / "valid" / folder, args.limit, args.wait)
        print("chosen:", description(choice), flush=True)
        checkpoint = choice["checkpoint"]
    predict_and_score(args.run_dir / state.gather(checkpoint)[0], "test")
    keep_all = args.keep_checkpoints != CHOSEN or args.limit is not None
    if state.is_main_process and not keep_all:
        removed = keep_selected(args.run_dir, wait=args.wait)
        print(f"{args.run_dir}: {checkpoint} is kept, {len(removed)} others are removed")
    state.leave()


def choice_of_run(results: Path, limit: int | None, wait: bool) -> dict[str, Any]:
    """Choose among a run's results on `limit` lines of valid, which lie in the folder `results`.

    Raises:
        InputError: there is nothing to choose among, or results of other runs lie there, too.
    """
    from growth.scoring.checkpoint_selection import choose_checkpoints

    choices = choose_checkpoints(results, wait)
    found = [choice for choice in choices.chosen if choice["limit"] == limit]
    if not found:
        choices.check()
    if len(found) > 1:
        raise InputError(
            f"{results}: holds results of several runs, in folders below it; move what is "
            "no result of this run elsewhere"
        )
    return found[0]


def make_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument("--run_dir", type=Path, required=True, help="folder of a run of ours")
    parser.add_argument(
        "--data_dir", type=Path, default=Path("data"), help="holds the lines of valid and test"
    )
    add_options(parser, PredictionOptions, leave_out=_FIXED)
    for options in (ModelOptions, DecodingOptions, RetentionOptions, StudyOptions):
        add_options(parser, options)
    return parser


if __name__ == "__main__":
    run_script(main)
