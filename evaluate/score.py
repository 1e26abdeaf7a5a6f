"""Score predictions: evaluate/results/<split>/.../<checkpoint>-results.json.

    python evaluate/score.py --pred_data_path evaluate/pred-data/valid --details

Every folder below --pred_data_path that holds pred_*.json is scored, by nothing but those files.
Scores are per cent, beside each the score of random guessing and a 95 % Wilson interval; math also
by the math-verify library, in a column of its own. --details writes the verdict on each line.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from growth.core.cli import argument_parser, run_script
from growth.core.errors import InputError
from growth.core.files import check_writable, read_json, write_json, write_json_lines
from growth.data.records import check_prediction, read_records
from growth.runs.layout import PREDICTION_PREFIX, PREDICTIONS, RESULTS, RESULTS_SUFFIX, RUN_RECORD
from growth.scoring.results import score_file, summarise
from growth.scoring.verdicts import Verdict, judge

# What a results file repeats of the record beside the predictions.
RUN_FIELDS = (
    *("model_size", "data_type", "timestamp", "checkpoint", "step", "epoch", "epochs", "seed"),
    *("samples", "limit", "split", "model_name_or_path", "fingerprint", "decoding"),
    *("git", "versions"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, score each folder, print what came out."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--pred_data_path", type=Path, required=True, help="folder of predictions, at any depth"
    )
    parser.add_argument(
        "--results_path",
        type=Path,
        help="where results are written; default: the same place below evaluate/results",
    )
    parser.add_argument(
        "--details", action="store_true", help="write score, expected, parsed, gold of each line"
    )
    args = parser.parse_args(argv)

    root: Path = args.pred_data_path
    found = {path.parent for path in root.rglob(f"{PREDICTION_PREFIX}*.json")}
    if not found:
        raise InputError(
            f"--pred_data_path {root}: no {PREDICTION_PREFIX}*.json below it; "
            "evaluate/predict.py writes them"
        )
    results_path = args.results_path or default_results_path(root)
    check_writable(results_path, "--results_path")
    for folder in tqdm(sorted(found), desc="score", unit="checkpoint", file=sys.stderr):
        results, details = score_folder(folder)
        relative = folder.relative_to(root)
        # A folder that was named itself has no relative path; it goes by its name.
        base = results_path / relative if relative.parts else results_path / root.resolve().name
        if args.results_path is None and not relative.parts:
            base = results_path
        if args.details:
            for stem, verdicts in details.items():
                path = base.with_name(base.name + "-details") / f"{stem}.jsonl"
                write_json_lines(path, [as_line(verdict) for verdict in verdicts])
        path = base.with_name(base.name + RESULTS_SUFFIX)
        write_json(path, results)
        tqdm.write(summary_line(path, results))
    if len(found) == 1:
        print_table(results)


def default_results_path(pred_data_path: Path) -> Path:
    """The place below evaluate/results that mirrors `pred_data_path`."""
    try:
        return RESULTS / pred_data_path.resolve().relative_to(PREDICTIONS.resolve())
    except ValueError:
        return RESULTS / pred_data_path.resolve().name


def score_folder(folder: Path) -> tuple[dict[str, Any], dict[str, list[Verdict]]]:
    """The results of one folder of predictions, and the verdicts behind them by file."""
    record = folder / RUN_RECORD
    run = read_json(record) if record.is_file() else {}
    files, details = {}, {}
    for path in sorted(folder.glob(f"{PREDICTION_PREFIX}*.json")):
        stem = path.stem.removeprefix(PREDICTION_PREFIX)
        records = read_records(path, check_prediction)
        details[stem] = [judge(record) for record in records]
        files[stem] = score_file(records, details[stem])
    results = {"run": {name: run[name] for name in RUN_FIELDS if name in run}}
    return results | summarise(files) | {"files": files}, details


def as_line(verdict: Verdict) -> dict[str, Any]:
    """A verdict as --details writes it."""
    line = {name: getattr(verdict, name) for name in ("score", "expected", "parsed", "gold")}
    return line if verdict.math_verify is None else line | {"math_verify": verdict.math_verify}


def summary_line(path: Path, results: dict[str, Any]) -> str:
    """One line on one folder."""
    name = "average" if "average" in results else "overall"
    return (
        f"{path}: {name} {results[name]:.2f} [{results[name + '_low']:.2f}, "
        f"{results[name + '_high']:.2f}], guessing {results['expected_' + name]:.2f}"
    )


def print_table(results: dict[str, Any]) -> None:
    """The score of each file."""
    print(f"{'file':<42}{'n':>6}{'score':>9}{'95 % interval':>18}{'guessing':>10}{'verify':>8}")
    for stem, entry in results["files"].items():
        interval = f"[{entry['low']:.2f}, {entry['high']:.2f}]"
        second = f"{entry['math_verify']:.2f}" if "math_verify" in entry else ""
        print(
            f"{stem:<42}{entry['n']:>6,}{entry['score']:>9.2f}{interval:>18}"
            f"{entry['expected']:>10.2f}{second:>8}"
        )


if __name__ == "__main__":
    run_script(main)
