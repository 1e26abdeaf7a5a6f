"""What the growth laws reach: on public curves of losses, and on simulated studies of scores.

    python benchmarks/growth_laws.py --data_dir ../shared/data/scaling

`flan.csv` and `gigaword.csv` (arXiv 2402.02314) are read from --data_dir and never copied: 30
models each, fitted on the first --sizes sizes from 200 on, four times apart; the next size and the
one after are predicted. Simulated studies: scores of 100 questions at 10 to 2,560 samples, half of
them with noise of training and three runs a size; from below, at and above chance to plateaus
below, at and above it. And such studies in which all sizes and runs answer the same questions, as
real ones do. Prints three tables in Markdown.
"""

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from growth.report.growth_law import Array, Curve, fit, interval, share_of_gain
from growth.report.laws import line_in_log_samples

SIZES = np.array([10.0, 40, 160, 640, 2560])
QUESTIONS, CHANCE, TRAINING_NOISE = 100, 0.25, 0.03
DIFFICULTY, LUCK = 1.5, 0.1  # standard deviations of questions and of runs, in logits


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, help="folder of flan.csv and gigaword.csv")
    parser.add_argument("--files", nargs="+", default=["flan.csv", "gigaword.csv"])
    parser.add_argument("--sizes", type=int, default=4, help="that are fitted")
    parser.add_argument("--studies", type=int, default=500, help="simulated")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.data_dir:
        public_curves([args.data_dir / name for name in args.files], args.sizes)
    if args.studies:
        simulated_studies(args.studies, args.seed)
        same_questions(args.studies, args.seed)


def losses(path: Path) -> Iterator[Curve]:
    """The curves of one public file, sizes from 200 on, four times apart."""
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            sizes = [200 * 4**i for i in range(7)]
            values = [float(row[str(size)]) for size in sizes]
            yield Curve(row["config name"], np.array(sizes, float), np.array(values))


def public_curves(paths: list[Path], fitted: int) -> None:
    """Errors and coverage, of a new measurement, of the next size and the one after."""
    curves = [curve for path in paths for curve in losses(path)]
    started = time.perf_counter()
    posteriors = [fit(curve.up_to(curve.sizes[fitted - 1])) for curve in curves]
    found = [[interval(p.measured_at(p.curve.sizes[-1] * f)) for f in (4, 16)] for p in posteriors]
    seconds = time.perf_counter() - started
    print("| predicted | median error | 90th percentile | as it is | line in logs | coverage |")
    print("|---|---|---|---|---|---|")
    for step, name in enumerate(("next size", "16 times")):
        if fitted + step >= len(curves[0].sizes):
            continue
        truth = np.array([curve.values[fitted + step] for curve in curves])
        low, value, high = np.array([own[step] for own in found]).T
        as_is = np.array([p.curve.values[-1] for p in posteriors])
        at = [float(curve.sizes[fitted + step]) for curve in curves]
        line = np.array(
            [line_in_log_samples(p.curve, size) for p, size in zip(posteriors, at, strict=True)]
        )
        error, flat, straight = (100 * abs(x / truth - 1) for x in (value, as_is, line))
        print(
            f"| {name} | {np.median(error):.2f} % | {np.quantile(error, 0.9):.2f} % | "
            f"{_both(flat)} | {_both(straight)} | "
            f"{100 * np.mean((low <= truth) & (truth <= high)):.0f} % |"
        )
    print(f"\n{len(curves)} curves in {seconds:.1f} s\n", flush=True)


def _both(error: Array) -> str:
    return f"{np.median(error):.1f} / {np.quantile(error, 0.9):.1f} %"


def simulated_studies(studies: int, seed: int) -> None:
    """Coverage of the true values and errors at four times the largest size, by kind of curve."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[list[float]]] = {}
    for study in range(studies):
        noise = TRAINING_NOISE * (study % 2)
        starts = (CHANCE + rng.normal(0, 0.04), rng.uniform(0, 0.2), CHANCE + rng.uniform(0.1, 0.5))
        plateaus = (CHANCE + rng.uniform(0.1, 0.65), CHANCE, rng.uniform(0.02, 0.2))
        start, plateau = starts[study // 2 % 3], plateaus[study // 6 % 3]
        half_way, slope = np.exp(rng.uniform(np.log(10), np.log(10240))), rng.uniform(0.5, 2)
        ahead = np.array([4, 16]) * SIZES[-1]
        done = share_of_gain(np.append(SIZES, ahead), half_way, slope)
        truth = start + (plateau - start) * done
        curve = _simulated(truth[: len(SIZES)], noise, rng)
        row = _outcome(curve, 100 * np.array([start, plateau, *truth[-2:]]))
        place = ("above", "at", "below")[study // 6 % 3]
        for name in (
            "all",
            "rising" if plateau > start else "declining",
            f"plateau {place} chance",
            "with training noise" if noise else "without training noise",
        ):
            rows.setdefault(name, []).append(row)
    print("| simulated | start | plateau | 4x | 16x | error at 4x | as it is | line in logs |")
    print("|---|---|---|---|---|---|---|---|")
    for name, own in rows.items():
        *covered, law, as_is, straight = np.mean(own, axis=0)
        cells = " | ".join(f"{100 * share:.0f} %" for share in covered)
        print(f"| {name} ({len(own)}) | {cells} | {law:.1f} | {as_is:.1f} | {straight:.1f} |")


def _outcome(curve: Curve, truth: Array) -> list[float]:
    """Whether start, plateau, 4x and 16x are covered; errors at 4x of the law and both others."""
    posterior, more = fit(curve), 4 * SIZES[-1]
    draws = (posterior.start, posterior.plateau, posterior.at(more), posterior.at(4 * more))
    found = [interval(own) for own in draws]
    covered = [float(r.low <= t <= r.high) for r, t in zip(found, truth, strict=True)]
    guesses = (found[2].value, curve.mean_at(SIZES[-1]), line_in_log_samples(curve, more))
    return covered + [abs(guess - truth[2]) for guess in guesses]


def _simulated(p: Array, noise: float, rng: np.random.Generator) -> Curve:
    """One curve's scores: three runs a size if there is noise of training, one else."""
    runs = 3 if noise else 1
    own = np.repeat(p, runs)
    if noise:
        own = np.clip(own + rng.normal(0, noise, len(own)), 0, 1)
    values = 100 * rng.binomial(QUESTIONS, own) / QUESTIONS
    questions = np.full(len(own), QUESTIONS)
    return Curve("simulated", np.repeat(SIZES, runs), values, questions, 100 * CHANCE)


def same_questions(studies: int, seed: int) -> None:
    """Coverage of the score on the questions that were asked, and on all that might have been."""
    print("\n| runs per size | largest size: these questions | all | 4x: these questions | all |")
    print("|---|---|---|---|---|")
    for runs in (1, 3, 5):
        rng = np.random.default_rng(seed)
        covered = np.mean([_same_questions(runs, rng) for _ in range(studies)], axis=0)
        print(f"| {runs} | " + " | ".join(f"{100 * share:.0f} %" for share in covered) + " |")


def _same_questions(runs: int, rng: np.random.Generator) -> list[bool]:
    """Whether the score on these and on all questions is covered, at the largest size and at 4x."""
    start, plateau = rng.uniform(0.2, 0.4), rng.uniform(0.5, 0.95)
    half_way, slope = np.exp(rng.uniform(np.log(10), np.log(SIZES[-1]))), rng.uniform(0.5, 2)
    sizes = np.append(SIZES, 4 * SIZES[-1])
    truth = start + (plateau - start) * share_of_gain(sizes, half_way, slope)
    # The logit of a mean question at which all questions together have that score.
    logits = np.linspace(-12, 12, 1001)
    everything = DIFFICULTY * norm.ppf((np.arange(500) + 0.5) / 500)
    means = expit(logits[:, None] + everything).mean(1)
    level = np.interp(truth, means, logits)
    asked = DIFFICULTY * rng.normal(size=QUESTIONS)
    here = expit(level[:, None] + asked).mean(1)
    of_runs = np.repeat(level[:-1], runs)[:, None] + LUCK * rng.normal(size=(len(SIZES) * runs, 1))
    right = rng.random((len(of_runs), QUESTIONS)) < expit(of_runs + asked)
    questions = np.full(len(right), QUESTIONS)
    values = 100 * right.mean(1)
    posterior = fit(Curve("", np.repeat(SIZES, runs), values, questions, 100 * CHANCE))
    covered = []
    for place in (-2, -1):
        found = interval(posterior.at(sizes[place]))
        covered += [found.low <= 100 * true[place] <= found.high for true in (here, truth)]
    return covered


if __name__ == "__main__":
    main()
