"""Folders of predictions -> results files: verdicts, entries, averages.

A results file is one JSON object: `run`, the averages, and in `files` an entry for each file.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from growth.core.errors import InputError
from growth.core.files import check_writable, read_json, write_json, write_json_lines
from growth.core.locks import locked
from growth.data.abilities import Kind, ability_of
from growth.data.copies import check_no_copies, lines_digest
from growth.data.records import (
    Record,
    check_prediction,
    common_type,
    read_records,
    reads_letter,
)
from growth.runs.layout import PREDICTION_PREFIX, PREDICTIONS, RESULTS, RESULTS_SUFFIX, RUN_RECORD
from growth.scoring.intervals import mean_score, percentages, rounded
from growth.scoring.verdicts import Verdict, judge

Results = dict[str, Any]  # the content of a results file

SECOND_OPINIONS = ("math_verify", "extracted")  # of `Verdict`: reported, never averaged
MIXED = "mixed"  # the `type` of a file whose lines are of several types
# What a results file repeats of the run record that lies with the predictions.
RUN_FIELDS = (
    *("model_size", "data_type", "timestamp", "checkpoint", "step", "epoch", "epochs", "seed"),
    *("samples", "limit", "split", "model_name_or_path", "fingerprint", "decoding"),
    *("git", "versions"),
)


class Scored(NamedTuple):
    """The results of one folder of predictions, and where they were written."""

    path: Path
    results: Results


def score_predictions(
    pred_data_path: Path,
    results_path: Path | None = None,
    *,
    details: bool = False,
    wait: bool = False,
    report: Callable[[str], None] = tqdm.write,
) -> list[Scored]:
    """Score every folder of predictions at any depth and write its results file.

    The results of `<pred_data_path>/a/b` are `<results_path>/a/b-results.json`. A progress bar goes
    to stderr.

    Args:
        pred_data_path: folder below which `pred_*.json` files lie.
        results_path: folder to write to; None for the place below evaluate/results that mirrors
            `pred_data_path`.
        details: write the verdict on each line too, as `<results_path>/a/b-details/<file>.jsonl`.
        wait: where another process scores the same folder, for it to end.
        report: gets one line on each folder as soon as it is scored.

    Returns:
        One entry for each folder, by path.

    Raises:
        InputError: there are no predictions, one is malformed (file:line), or `results_path` can't
            be written, or is another process's at the moment.
    """
    folders = sorted({path.parent for path in pred_data_path.rglob(f"{PREDICTION_PREFIX}*.json")})
    if not folders:
        raise InputError(
            f"--pred_data_path {pred_data_path}: no {PREDICTION_PREFIX}*.json below it; "
            "evaluate/predict.py writes them"
        )
    root = results_path or mirrored_results_path(pred_data_path)
    check_writable(root, "--results_path")
    scored = []
    for folder in tqdm(folders, desc="score", unit="checkpoint", file=sys.stderr):
        base = root / folder.relative_to(pred_data_path)
        if base == root and results_path is not None:
            # A folder of predictions itself has no relative path; it goes by its name.
            base = root / pred_data_path.resolve().name
        path = base.with_name(base.name + RESULTS_SUFFIX)
        with locked(path, "--results_path", wait):
            results, verdicts = score_folder(folder)
            if details:
                write_details(base.with_name(f"{base.name}-details"), verdicts)
            write_json(path, results)
        scored.append(Scored(path, results))
        report(summary_line(path, results))
    return scored


def mirrored_results_path(pred_data_path: Path) -> Path:
    """The place below evaluate/results that mirrors `pred_data_path`."""
    try:
        return RESULTS / pred_data_path.resolve().relative_to(PREDICTIONS.resolve())
    except ValueError:
        return RESULTS / pred_data_path.resolve().name


def score_folder(folder: Path) -> tuple[Results, dict[str, list[Verdict]]]:
    """The results of one folder of predictions, and the verdicts behind them by file.

    Raises:
        InputError: a line is malformed (file:line), lines are missing, or two files are copies of
            each other.
    """
    record = folder / RUN_RECORD
    run = read_json(record) if record.is_file() else {}
    # Answers that were stopped once they could not be one letter hold no more than their beginning.
    cut_short = run.get("decoding", {}).get("full_responses") is False
    paths = sorted(folder.glob(f"{PREDICTION_PREFIX}*.json"))
    predictions = {path.name: read_records(path, check_prediction) for path in paths}
    for name, records in predictions.items():
        expected = run.get("lines", {}).get(Path(name).stem.removeprefix(PREDICTION_PREFIX))
        if expected not in (None, len(records)):
            raise InputError(
                f"{folder / name}: holds {len(records)} lines, {expected} were predicted; remove "
                "it, and run evaluate/predict.py again"
            )
    check_no_copies(predictions, f"--pred_data_path {folder}")
    files, verdicts = {}, {}
    for name, records in predictions.items():
        stem = Path(name).stem.removeprefix(PREDICTION_PREFIX)
        verdicts[stem] = [judge(record) for record in records]
        if cut_short and any(reads_letter(record) for record in records if _is_generated(record)):
            verdicts[stem] = [_without_extracted(verdict) for verdict in verdicts[stem]]
        files[stem] = score_file(records, verdicts[stem])
    results = {"run": {name: run[name] for name in RUN_FIELDS if name in run}}
    return results | summarise(files) | {"files": files}, verdicts


def _is_generated(record: Record) -> bool:
    return record["question_format"] == 0


def _without_extracted(verdict: Verdict) -> Verdict:
    return replace(verdict, extracted=None, extracted_answer=None)


def write_details(folder: Path, verdicts: Mapping[str, Sequence[Verdict]]) -> None:
    """Write `<folder>/<file>.jsonl`, a verdict a line, for each file."""
    for stem, judged in verdicts.items():
        write_json_lines(folder / f"{stem}.jsonl", [details_line(verdict) for verdict in judged])


def details_line(verdict: Verdict) -> dict[str, Any]:
    """A verdict as --details writes it; second opinions are there where there is one."""
    line = {name: getattr(verdict, name) for name in ("score", "expected", "parsed", "gold")}
    if verdict.math_verify is not None:
        line["math_verify"] = verdict.math_verify
    if verdict.extracted is not None:
        line |= {"extracted": verdict.extracted, "extracted_answer": verdict.extracted_answer}
    return line


def score_file(records: Sequence[Record], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """One file's entry of a results file: type, n, score, expected, low, high; per cent.

    `digest` tells files of other lines from each other.
    """
    n = len(verdicts)
    entry = {
        "type": common_type(records) or MIXED,
        "n": n,
        **percentages(sum(verdict.score for verdict in verdicts), n),
        "expected": rounded(100 * sum(verdict.expected for verdict in verdicts) / n),
        "digest": lines_digest(records),
    }
    for opinion in SECOND_OPINIONS:
        second = [getattr(verdict, opinion) for verdict in verdicts]
        second = [right for right in second if right is not None]
        if second:
            for name, value in percentages(sum(second), len(second)).items():
                entry[opinion if name == "score" else f"{opinion}_{name}"] = value
    return entry


def summarise(files: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The averages of a results file: the ten abilities, the OOD sets, all files as published."""
    groups: dict[str, list[Mapping[str, Any]]] = {"average": [], "ood_average": [], "overall": []}
    for entry in files.values():
        ability = ability_of(entry["type"])
        if ability is not None:
            groups["ood_average" if ability.out_of_domain else "average"].append(entry)
        groups["overall"].append(entry)
    summary: dict[str, float] = {}
    for name, entries in groups.items():
        if entries:
            summary |= mean_score(name, entries)
    return summary


def summary_line(path: Path, results: Results) -> str:
    """One line on one folder."""
    name = "average" if "average" in results else "overall"
    return (
        f"{path}: {name} {results[name]:.2f} [{results[name + '_low']:.2f}, "
        f"{results[name + '_high']:.2f}], chance {results['expected_' + name]:.2f}"
    )


def results_table(results: Results) -> str:
    """The score of each file, a line each below a header."""
    lines = [
        f"{'file':<42}{'n':>6}{'score':>9}{'95 % interval':>18}{'chance':>10}"
        f"{'extracted':>11}{'verify':>8}"
    ]
    for stem, entry in results["files"].items():
        interval = f"[{entry['low']:.2f}, {entry['high']:.2f}]"
        read, second = (
            f"{entry[name]:.2f}" if name in entry else "" for name in ("extracted", "math_verify")
        )
        lines.append(
            f"{stem:<42}{entry['n']:>6,}{entry['score']:>9.2f}{interval:>18}"
            f"{entry['expected']:>10.2f}{read:>11}{second:>8}"
        )
    if any(_lacks_extracted(entry) for entry in results["files"].values()):
        lines.append(
            "extracted: not of files with letter answers, which ended once they could not be one "
            "letter; predict with --full_responses for it"
        )
    return "\n".join(lines)


def _lacks_extracted(entry: Mapping[str, Any]) -> bool:
    ability = ability_of(entry["type"])
    generated = ability is not None and ability.kind is not Kind.CHOICE
    return generated and "extracted" not in entry
