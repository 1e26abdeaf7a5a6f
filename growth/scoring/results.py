"""Folders of predictions -> results files: verdicts, entries, averages.

A results file is one JSON object: `run`, the averages, and in `files` an entry for each file.
"""

import contextlib
import math
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from growth.core.bounded import CPU_SECONDS, MEMORY_BYTES
from growth.core.errors import InputError
from growth.core.files import check_writable, json_line, replacing, write_json
from growth.core.intervals import mean_interval, mean_score, percentages, pooled_score, rounded
from growth.core.locks import locked
from growth.core.schemas import PredictionRecord, read_record
from growth.data.copies import (
    COUNTED_AGAIN,
    RESPONSE_CUT,
    LinesDigest,
    check_no_copies,
    warn_of_repeats,
)
from growth.data.lines import Lines, Record, index_lines
from growth.data.questions import question_keys
from growth.data.records import prediction_check, reads_letter
from growth.data.study import (
    AVERAGE,
    OF_PREDICTIONS,
    OOD_AVERAGE,
    Study,
    read_study,
    study_of,
)
from growth.runs.layout import (
    LOSS_BY_ABILITY,
    MIXED,
    PARTIAL_SUFFIX,
    PREDICTION_PREFIX,
    PREDICTIONS,
    RESULTS,
    RESULTS_SUFFIX,
    RUN_RECORD,
    Run,
    cut_at,
    details_folder,
)
from growth.scoring.verdicts import Verdict, has_second_reading, judge

Results = dict[str, Any]  # the content of a results file

SECOND_OPINIONS = ("math_verify", "extracted")  # of `Verdict`: reported, never averaged
OVER_BOUND = "over_bound"  # of an entry: lines without a second opinion, which took too much for it
GOLD_PROBABILITY = "gold_probability"  # of a verdict and an entry
LOSS = "loss"  # of an entry: that of its ability's validation lines, in nats per supervised token
CUT_ANSWERS = "cut_answers"  # of an entry: lines whose answer ended because its room did
REPEATED = "repeated"  # of an entry: lines that are there already
_COLUMNS = ("extracted", "math_verify", GOLD_PROBABILITY)  # of the screen
# What a results file repeats of the run record that lies with the predictions.
RUN_FIELDS = (
    *("model_size", "data_type", "timestamp", "checkpoint", "step", "epoch", "epochs", "seed"),
    *("samples", "limit", "split", "model_name_or_path", "fingerprint", "decoding"),
    *("git", "versions", "study", "recipe"),
)


class Scored(NamedTuple):
    """The results of one folder of predictions, where they were written, and of which study."""

    path: Path
    results: Results
    study: Study


def score_predictions(
    pred_data_path: Path,
    results_path: Path | None = None,
    *,
    details: bool = False,
    study: Path | None = None,
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
        study: the file of the study that they are of; None for what each folder's run.json says.
        wait: where another process scores the same folder, for it to end.
        report: gets one line on each folder as soon as it is scored.

    Returns:
        One entry for each folder, by path.

    Raises:
        InputError: there are no predictions, one is malformed (file:line), or `results_path` can't
            be written or is another process's at the moment, or predictions are of another study
            than `study`.
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
            verdicts = details_folder(path) if details else None
            results, found = score_folder(folder, verdicts, study)
            write_json(path, results)
        scored.append(Scored(path, results, found))
        notes = (*_lacking(results, found), *_cut_answers(results))
        report("\n".join([summary_line(path, results), *notes]))
    return scored


def mirrored_results_path(pred_data_path: Path) -> Path:
    """The place below evaluate/results that mirrors `pred_data_path`."""
    try:
        return RESULTS / pred_data_path.resolve().relative_to(PREDICTIONS.resolve())
    except ValueError:
        return RESULTS / pred_data_path.resolve().name


def score_folder(
    folder: Path, details: Path | None = None, flag: Path | None = None
) -> tuple[Results, Study]:
    """The results of one folder of predictions, and their study; lines are held one at a time.

    Args:
        folder: of `pred_*.json` files.
        details: folder for the verdict on each line, as `<file>.jsonl`; None for no such files.
        flag: the value of --study; None for the study that the run's record says.

    Raises:
        InputError: a line is malformed (file:line), lines are missing, or two files are copies of
            each other; nothing is written then.
    """
    record = folder / RUN_RECORD
    remedy = "put back what evaluate/predict.py wrote, or predict again in another folder"
    run = read_record(record, PredictionRecord, remedy) if record.exists() else {}
    # Answers that were stopped once they could not be one letter hold no more than their beginning.
    study = read_study(flag) if flag and not run else study_of(run, flag, record, OF_PREDICTIONS)
    cut_short = run.get("decoding", {}).get("full_responses") is False
    paths = sorted(folder.glob(f"{PREDICTION_PREFIX}*.json"))
    predictions = {path.name: index_lines(path, prediction_check(study)) for path in paths}
    for name, lines in predictions.items():
        expected = run.get("lines", {}).get(Path(name).stem.removeprefix(PREDICTION_PREFIX))
        if expected not in (None, len(lines)):
            raise InputError(
                f"{folder / name}: holds {len(lines)} lines, {expected} were predicted; remove "
                "it, and run evaluate/predict.py again"
            )
    where = f"--pred_data_path {folder}"
    repeats = check_no_copies(predictions, where)
    warn_of_repeats(repeats, where, COUNTED_AGAIN)
    files = {}
    with contextlib.ExitStack() as written:
        for name, lines in predictions.items():
            stem = Path(name).stem.removeprefix(PREDICTION_PREFIX)
            judged = _judged(lines, study, cut_short)
            if details is not None:
                judged = _noted(judged, written.enter_context(replacing(details / f"{stem}.jsonl")))
            files[stem] = score_file(judged)
            ability = study.ability_of(files[stem]["type"])
            if ability is not None and ability.name in run.get(LOSS_BY_ABILITY, {}):
                files[stem][LOSS] = run[LOSS_BY_ABILITY][ability.name]
            if name in repeats.within:
                files[stem][REPEATED] = repeats.within[name]
    repeated = {name: run[name] for name in RUN_FIELDS if name in run}
    # The study as it is now: its rules gave these scores.
    results: Results = {"run": repeated | {"study": study.record()}}
    if missing := _missing_files(folder, run, files):
        results["missing_files"] = missing
    return results | summarise(files, study) | {"files": files}, study


def _missing_files(folder: Path, run: Run, files: Mapping[str, Any]) -> list[str]:
    """The files that were to be predicted and are not there, by what their record says.

    A record of an older version does not; then those that are under way.
    """
    expected = run.get("lines") or [
        path.name.removeprefix(PREDICTION_PREFIX).partition(".json")[0]
        for path in folder.glob(f"{PREDICTION_PREFIX}*{PARTIAL_SUFFIX}")
    ]
    return sorted(set(expected) - files.keys())


def _judged(lines: Lines, study: Study, cut_short: bool) -> Iterator[tuple[Record, Verdict]]:
    """Each line of a file with its verdict."""
    no_readings = cut_short and any(reads_letter(r, study.ability(r)) for r in lines)
    for record in lines:
        verdict = judge(record, study.ability(record))
        if no_readings:
            verdict = replace(verdict, extracted=None, extracted_answer=None)
        yield record, verdict


def _noted(
    judged: Iterable[tuple[Record, Verdict]], path: Path
) -> Iterator[tuple[Record, Verdict]]:
    """Pass lines and verdicts on, and write the verdicts to `path`, one a line."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        for record, verdict in judged:
            file.write(json_line(details_line(verdict) | question_keys(record)))
            yield record, verdict


def details_line(verdict: Verdict) -> dict[str, Any]:
    """A verdict as --details writes it; second opinions are there where there is one."""
    line = {name: getattr(verdict, name) for name in ("score", "expected", "parsed", "gold")}
    if verdict.math_verify is not None:
        line["math_verify"] = verdict.math_verify
    if verdict.extracted is not None:
        line |= {"extracted": verdict.extracted, "extracted_answer": verdict.extracted_answer}
    if verdict.over_bound:
        line[OVER_BOUND] = True
    if verdict.gold_probability is not None:
        line[GOLD_PROBABILITY] = round(verdict.gold_probability, 6)
    return line


def score_file(judged: Iterable[tuple[Record, Verdict]]) -> dict[str, Any]:
    """One file's entry of a results file: type, n, score, expected, low, high; per cent.

    `digest` tells files of other lines from each other; `types` counts the lines of each type where
    there are several. `gold_probability` is the mean over the lines that have one, of which there
    are `gold_probability_n`.
    """
    digest, right, expected = LinesDigest(), 0, array("d")
    probabilities = array("d")
    types, marked = Counter[str](), Counter[str]()
    second: dict[str, list[int]] = {opinion: [0, 0] for opinion in SECOND_OPINIONS}  # right, of all
    for record, verdict in judged:
        types[record["type"]] += 1
        digest.add(record)
        right += verdict.score
        marked[OVER_BOUND] += verdict.over_bound
        marked[CUT_ANSWERS] += record.get(RESPONSE_CUT) is True
        expected.append(verdict.expected)
        if verdict.gold_probability is not None:
            probabilities.append(verdict.gold_probability)
        for opinion, counts in second.items():
            if (value := getattr(verdict, opinion)) is not None:
                counts[0] += value
                counts[1] += 1
    n = len(expected)
    entry = {
        "type": next(iter(types)) if len(types) == 1 else MIXED,
        "n": n,
        **percentages(right, n),
        "expected": rounded(100 * sum(expected) / n),
        "digest": digest.hexdigest(),
    }
    for opinion, (agreed, given) in second.items():
        if given:
            for name, value in percentages(agreed, given).items():
                entry[opinion if name == "score" else f"{opinion}_{name}"] = value
    if probabilities:
        entry |= _gold_probability(probabilities)
    if len(types) > 1:
        entry["types"] = dict(types.most_common())
    return entry | {name: count for name, count in marked.items() if count}


def _gold_probability(values: Sequence[float]) -> dict[str, float]:
    """The fields of an entry on the probabilities of its lines' gold answers; per cent."""
    mean = 100 * math.fsum(values) / len(values)
    found = {GOLD_PROBABILITY: rounded(mean), f"{GOLD_PROBABILITY}_n": len(values)}
    if len(values) > 1:
        low, high = mean_interval(values)
        found[f"{GOLD_PROBABILITY}_low"] = rounded(100 * max(0.0, low))
        found[f"{GOLD_PROBABILITY}_high"] = rounded(100 * min(1.0, high))
    return found


def summarise(files: Mapping[str, Mapping[str, Any]], study: Study) -> dict[str, float]:
    """The averages of a results file: the abilities, the OOD sets, all files as published.

    The files of one ability count as one, by their questions. In the published study, where each
    has one, every file counts, as published.
    """
    of_ability: dict[str, list[Mapping[str, Any]]] = {}
    for stem, entry in files.items():
        ability = study.ability_of(entry["type"])
        if ability is not None:
            key = stem if study.is_published else ability.name
            of_ability.setdefault(key, []).append(entry)
    groups: dict[str, list[Mapping[str, Any]]] = {AVERAGE: [], OOD_AVERAGE: []}
    for entries in of_ability.values():
        ability = study.ability_of(entries[0]["type"])
        out_of_domain = ability is not None and ability.out_of_domain
        groups[OOD_AVERAGE if out_of_domain else AVERAGE].append(pooled_score(entries))
    groups["overall"] = list(files.values())
    summary: dict[str, float] = {}
    for name, scores in groups.items():
        if scores:
            summary |= mean_score(name, scores)
    return summary


def summary_line(path: Path, results: Results) -> str:
    """One line on one folder."""
    name = "average" if "average" in results else "overall"
    over_bound = sum(entry.get(OVER_BOUND, 0) for entry in results["files"].values())
    lacking = f"; no second opinion on {over_bound:,} math answers" if over_bound else ""
    return (
        f"{path}: {name} {results[name]:.2f} [{results[name + '_low']:.2f}, "
        f"{results[name + '_high']:.2f}], chance {results['expected_' + name]:.2f}{lacking}"
    )


def _lacking(results: Results, study: Study) -> Iterator[str]:
    """What of the predictions is not in the average, a line each."""
    for stem, entry in results["files"].items():
        if entry["type"] == MIXED:
            types = ", ".join(f"{name} {count:,}" for name, count in entry["types"].items())
            yield f"  {stem}: in `overall` only, as its lines are of several types: {types}"
    if "missing_files" in results:
        yield f"  predictions that are not there: {', '.join(results['missing_files'])}"
    abilities = map(study.ability_of, (entry["type"] for entry in results["files"].values()))
    found = {ability.name for ability in abilities if ability is not None}
    missing = [ability.name for ability in study.in_domain if ability.name not in found]
    if "average" in results and missing:
        yield (
            f"  the average is over {len(study.in_domain) - len(missing)} of the "
            f"{len(study.in_domain)} abilities, without {', '.join(missing)}"
        )


def _cut_answers(results: Results) -> Iterator[str]:
    """One line on the answers that ended because their room did, if there are any."""
    entries = results["files"].items()
    cut = [f"{s} {e[CUT_ANSWERS]:,} of {e['n']:,}" for s, e in entries if CUT_ANSWERS in e]
    if cut:
        yield f"  answers cut{cut_at(results['run'])}: {', '.join(cut)}"


def results_table(scored: Scored) -> str:
    """The score of each file, a line each below a header."""
    results = scored.results
    lines = [
        f"{'file':<42}{'n':>6}{'score':>9}{'95 % interval':>18}{'chance':>10}"
        f"{'extracted':>11}{'verify':>8}{'p(gold)':>9}{'loss':>8}"
    ]
    for stem, entry in results["files"].items():
        interval = f"[{entry['low']:.2f}, {entry['high']:.2f}]"
        read, second, probability, loss = (
            f"{entry[name]:.{places}f}" if name in entry else ""
            for name, places in (*((name, 2) for name in _COLUMNS), (LOSS, 3))
        )
        lines.append(
            f"{stem:<42}{entry['n']:>6,}{entry['score']:>9.2f}{interval:>18}"
            f"{entry['expected']:>10.2f}{read:>11}{second:>8}{probability:>9}{loss:>8}"
        )
    if any(_lacks_extracted(entry, scored.study) for entry in results["files"].values()):
        lines.append(
            "extracted: not of files with letter answers, which ended once they could not be one "
            "letter; predict with --full_responses for it"
        )
    lines += [
        f"verify: {entry[OVER_BOUND]:,} of the {entry['n']:,} answers of {stem} are not in it, as "
        f"math-verify took more than {CPU_SECONDS:g} s or {MEMORY_BYTES >> 20:,} MiB for each"
        for stem, entry in results["files"].items()
        if entry.get(OVER_BOUND)
    ]
    return "\n".join(lines)


def _lacks_extracted(entry: Mapping[str, Any], study: Study) -> bool:
    ability = study.ability_of(entry["type"])
    return ability is not None and has_second_reading(ability) and "extracted" not in entry
