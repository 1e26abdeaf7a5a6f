"""How often evaluate/compare.py sees a difference where there is none, and where there is one.

    python benchmarks/compare_false_alarms.py
    python benchmarks/compare_false_alarms.py --results_path evaluate/results/test

Simulated: the runs of one model are split in two halves and compared. Questions differ in
difficulty, those of one passage have some of it in common, and each run is better or worse at all
questions, and at each passage, than the next one (standard deviations in logits; 0.1 is about 2
points of per cent, 0.3 about 6). Prints a table in Markdown: the share of studies in which p is
below 0.05 for an ability, by the two-level test, by the questions alone, for the mean over
abilities, and for ten abilities that differ by unlike amounts; and how often the interval of a true
difference of 10 points holds it; then the same shares for probabilities in place of verdicts. With
--results_path: the shares of a study's own repeats, every way to halve those of each setting.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from growth.report.answers import RunAnswers, read_answers
from growth.report.comparison import Side, compare_answers, side_of_rows
from growth.report.paired import (
    LEVEL,
    Array,
    Paired,
    draws_of_mean,
    noise_of,
    noise_of_mean,
    p_of_draws,
    spread_of,
    t_test,
)
from growth.report.results_table import SETTING, read_results

DIFFICULTY, PASSAGE, RUN_PASSAGE = 1.5, 1.0, 0.4  # standard deviations, logits
RUN_QUESTION = 0.3  # the same, of a probability: between the runs at one question
ABILITIES = 3  # of a simulated mean
SPREAD = 10  # abilities that may differ by unlike amounts
GAIN = 0.1  # of a true difference


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table of simulated studies, or that of a study's repeats."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results_path", type=Path, help="a results folder with repeats")
    parser.add_argument("--selection_path", type=Path, help="default: valid next to it")
    parser.add_argument("--studies", type=int, default=4000, help="simulated, a row")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.results_path:
        selection = args.selection_path or args.results_path.parent / "valid"
        repeats_of_a_study(args.results_path, selection, args.seed)
    else:
        simulated_studies(args.studies, args.seed)
        print()
        simulated_probabilities(args.studies, args.seed)


def halves(
    rng: np.random.Generator,
    studies: int,
    runs: tuple[int, int],
    questions: int,
    passages: int,
    run_noise: float,
    gain: float = 0.0,
) -> Paired:
    """The verdicts of `studies` studies on one ability, (studies, runs, questions) each side.

    Args:
        rng: what draws.
        studies: how many.
        runs: of A and of B, all of one model unless there is a gain.
        questions: in all.
        passages: that they are shared among; as many as questions for none.
        run_noise: standard deviation between runs, logits.
        gain: of A, a share: its chance on each question is that much higher where there is room.
    """
    clusters = np.sort(np.arange(questions) % passages)
    easy = rng.normal(0.5, DIFFICULTY, (studies, 1, questions))
    logits = easy + rng.normal(0, run_noise, (studies, sum(runs), 1))
    if passages < questions:
        logits = logits + rng.normal(0, PASSAGE, (studies, 1, passages))[..., clusters]
        own = rng.normal(0, RUN_PASSAGE, (studies, sum(runs), passages))
        logits = logits + own[..., clusters]
    chances = 1 / (1 + np.exp(-logits))
    chances[:, : runs[0]] += gain * (rng.random((studies, 1, questions)) < 0.5) * 2
    right = (rng.random(chances.shape) < chances).astype(float)
    return Paired(right[:, : runs[0]], right[:, runs[0] :], clusters)


def rejected(paired: Paired) -> Array:
    """(studies,): whether p of the two-level test is below 0.05."""
    return t_test(paired.by_question.mean(-1), noise_of(paired)) < LEVEL


def rejected_by_questions(paired: Paired) -> Array:
    """(studies,): the same by the questions' variance alone, as if the runs were all there are."""
    noise = noise_of(paired)
    z = paired.by_question.mean(-1) / np.sqrt(noise.questions)
    return 2 * stats.t.sf(np.abs(z), noise.question_df) < LEVEL


def rejected_means(abilities: Sequence[Paired], seed: int, resamples: int) -> Array:
    """(studies,): whether p of the mean over abilities is below 0.05."""
    p = []
    for place in range(abilities[0].a.shape[0]):
        own = [_study(paired, place) for paired in abilities]
        p.append(p_of_draws(draws_of_mean(own, noise_of_mean(own), seed + place, resamples)[1]))
    return np.array(p) < LEVEL


def rejected_spread(abilities: Sequence[Paired]) -> Array:
    """(studies,): whether p of abilities that differ by unlike amounts is below 0.05."""
    return spread_of(abilities).p < LEVEL


def _study(paired: Paired, place: int) -> Paired:
    return Paired(paired.a[place], paired.b[place], paired.clusters)


def simulated_studies(studies: int, seed: int) -> None:
    """A row for each number of runs, kind of questions and noise of training."""
    rng = np.random.default_rng(seed)
    apart = np.random.default_rng((seed, SPREAD))  # whatever else the rows draw
    print(
        "| runs | questions, passages | noise | two-level | questions alone | mean | spread "
        "| coverage |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for runs in ((2, 2), (3, 3), (1, 3), (5, 5), (1, 1)):
        for questions, passages in ((100, 100), (100, 25), (20, 20)):
            for noise in (0.0, 0.1, 0.3):
                made = rng, studies, runs, questions, passages, noise
                paired = halves(*made)
                abilities = [
                    halves(rng, max(1, studies // 10), *made[2:]) for _ in range(ABILITIES)
                ]
                shares = [rejected(paired), rejected_by_questions(paired)]
                shares.append(rejected_means(abilities, seed, 500))
                shares.append(rejected_spread([halves(apart, *made[1:]) for _ in range(SPREAD)]))
                shares.append(_covers(rng, *made[1:]))
                cells = " | ".join(f"{100 * np.mean(share):.1f} %" for share in shares)
                print(
                    f"| {runs[0]} and {runs[1]} | {questions}, {passages} | {noise} | {cells} |",
                    flush=True,
                )


def simulated_probabilities(studies: int, seed: int) -> None:
    """A row for each number of runs and noise of training: one ability, and the spread of ten."""
    rng = np.random.default_rng((seed, SPREAD, 1))
    print("| runs | noise | two-level | spread |\n|---|---|---|---|")
    for runs in ((1, 1), (2, 2), (3, 3), (1, 3)):
        for noise in (0.0, 0.1, 0.3):
            abilities = [probabilities(rng, studies, runs, noise) for _ in range(SPREAD)]
            shares = [rejected(abilities[0]), rejected_spread(abilities)]
            cells = " | ".join(f"{100 * np.mean(share):.1f} %" for share in shares)
            print(f"| {runs[0]} and {runs[1]} | {noise} | {cells} |")


def probabilities(
    rng: np.random.Generator, studies: int, runs: tuple[int, int], run_noise: float
) -> Paired:
    """As `halves`: probabilities of the gold answers to 100 questions."""
    logits = rng.normal(-1, DIFFICULTY, (studies, 1, 100))
    logits = logits + rng.normal(0, run_noise, (studies, sum(runs), 1))
    logits = logits + rng.normal(0, RUN_QUESTION, (studies, sum(runs), 100))
    chances = 1 / (1 + np.exp(-logits))
    return Paired(chances[:, : runs[0]], chances[:, runs[0] :], np.arange(100), graded=True)


def _covers(rng: np.random.Generator, studies: int, *made: object) -> Array:
    """(studies,): whether the interval holds the true difference, the mean of all studies'."""
    paired = halves(rng, studies, *made, gain=GAIN)  # type: ignore[arg-type]
    found = paired.by_question.mean(-1)
    variance, df = noise_of(paired).total()
    return np.abs(found - found.mean()) <= stats.t.isf(LEVEL / 2, df) * np.sqrt(variance)


def splits(repeats: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every way to halve so many runs, each once; the first half is no smaller."""
    everyone = range(repeats)
    for half in combinations(everyone, (repeats + 1) // 2):
        if repeats % 2 or 0 in half:
            yield half, tuple(place for place in everyone if place not in half)


def repeats_of_a_study(results_path: Path, selection_path: Path, seed: int) -> None:
    """A row for each setting with repeats: how many of its halves differ, by ability and in all."""
    results = read_results(results_path, selection_path, None)
    print("| setting | halves | abilities: p below 0.05 | by Holm | mean |")
    print("|---|---|---|---|---|")
    every: list[pd.DataFrame] = []
    for names, rows in results.rows.groupby(SETTING, sort=False):
        side = side_of_rows(rows, "/".join(map(str, names)))
        if len(side.repeats) < 2:
            continue
        answers = [[read_answers(path) for path in paths] for paths in side.repeats]
        found = [
            compare_answers(*(_half(side, answers, half) for half in both), seed, None).rows
            for both in splits(len(side.repeats))
        ]
        sizes = (len(side.repeats) + 1) // 2, len(side.repeats) // 2
        every += found
        print(_outcome(f"{side.label} ({sizes[0]} and {sizes[1]})", found))
    if every:
        print(_outcome("all", every))
    else:
        print("no setting has two runs or more")


def _half(
    side: Side, answers: list[list[RunAnswers]], chosen: tuple[int, ...]
) -> tuple[Side, list[list[RunAnswers]]]:
    own = Side(
        side.label,
        tuple(side.repeats[place] for place in chosen),
        tuple(side.seeds[place] for place in chosen),
    )
    return own, [answers[place] for place in chosen]


def _outcome(name: str, found: Sequence[pd.DataFrame]) -> str:
    rows = pd.concat(found)
    abilities, means = rows[rows["p_holm"].notna()], rows[rows["p_holm"].isna()]
    cells = [f"{sum(abilities[p] < LEVEL)} of {len(abilities)}" for p in ("p", "p_holm")]
    cells.append(f"{sum(means['p'] < LEVEL)} of {len(means)}")
    return f"| {name} | {len(found)} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
