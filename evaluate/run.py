"""Evaluate a run: its checkpoints on valid, the choice among them, the chosen one on test.

    python evaluate/run.py --run_dir runs/runs-7b/curated-160/20261122-101500

That is predict.py, score.py and select_checkpoint.py on valid, then predict.py and score.py on
test, in one process; any other flag goes to predict.py (see its --help), such as --limit 5. Makes
evaluate/pred-data/{valid,test}/... and evaluate/results/{valid,test}/...; goes on where it was
interrupted. `bash scripts/run_evaluate.sh` starts it, on several GPUs if asked to.
"""

from collections.abc import Sequence
from pathlib import Path

import predict
import score
import select_checkpoint

from growth.core.cli import argument_parser, run_script
from growth.core.distributed import distributed_state
from growth.core.errors import InputError
from growth.data.records import data_files
from growth.runs.layout import PREDICTIONS, RESULTS, RUN_RECORD, run_folder
from growth.runs.record import read_run


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, go through the stages on valid, then on test."""
    parser = argument_parser(__doc__)
    parser.add_argument("--run_dir", type=Path, required=True, help="folder of a run of ours")
    parser.add_argument(
        "--data_dir", type=Path, default=Path("data"), help="holds curated/valid and curated/test"
    )
    args, predict_flags = parser.parse_known_args(argv)
    run = read_run(args.run_dir)
    if run is None:
        raise InputError(
            f"--run_dir {args.run_dir}: no {RUN_RECORD} in it; give the folder of a run"
        )
    for split in ("valid", "test"):  # now, not after an hour on valid
        data_files(args.data_dir / "curated" / split, "--data_dir")
    folder = run_folder(run)
    limit = predict_and_score(args.run_dir, folder, args.data_dir, "valid", predict_flags)
    state, checkpoint = distributed_state(), None
    if state.is_main_process:
        choices = select_checkpoint.choose(RESULTS / "valid" / folder)
        (choice,) = (choice for choice in choices if choice["limit"] == limit)
        print("chosen:", select_checkpoint.description(choice), flush=True)
        checkpoint = choice["checkpoint"]
    checkpoint = state.gather(checkpoint)[0]
    predict_and_score(args.run_dir / checkpoint, folder, args.data_dir, "test", predict_flags)
    state.leave()


def predict_and_score(
    model: Path, folder: Path, data_dir: Path, split: str, predict_flags: Sequence[str]
) -> int | None:
    """Predict a split and score all there is of the run in `folder`; the limit of lines, if any."""
    flags = ["--model_name_or_path", str(model), "--split", split]
    flags += ["--eval_data_path", str(data_dir / "curated" / split), *predict_flags]
    args = predict.parse_args(flags)
    predict.predict(args)
    if distributed_state().is_main_process:
        predictions, results = (str(base / split / folder) for base in (PREDICTIONS, RESULTS))
        score.main(["--pred_data_path", predictions, "--results_path", results, "--details"])
    return args.limit


if __name__ == "__main__":
    run_script(main)
