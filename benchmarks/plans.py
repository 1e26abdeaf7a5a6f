"""What plans are worth in simulated studies: true gain over equal shares, and whether they said so.

    python benchmarks/plans.py --studies 30

Six abilities on Hill curves of their own, some near their plateau and some far from it, a few of
whose lines help others; scores of 100 questions with noise of training (2 points). Measured: equal
shares of 12 to 768 lines, three runs each, and then 16 recipes of a design of 384 lines besides.
Planned: 384 lines. The last column is what knowing the truth would gain. Prints a table in
Markdown.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from growth.planning.amounts import Measured, Outcome, fit_amounts
from growth.planning.plan import Budget, make_plan
from growth.planning.shares import design
from growth.report.growth_law import Array

NAMES = tuple("abcdef")
EACH = (2.0, 8.0, 32.0, 128.0)  # lines of each ability
BUDGET, RUNS, POOL = 384, 16, 1000
QUESTIONS, CHANCE, TRAINING_NOISE = 100, 25.0, 2.0
TRIALS = 4000  # random divisions that the best one is found among


class Truth:
    """One study's scores of any division."""

    def __init__(self, rng: np.random.Generator) -> None:
        count = len(NAMES)
        self.plateau = rng.uniform(35, 95, count)
        self.half_way = np.exp(rng.uniform(np.log(4), np.log(400), count))
        self.slope = rng.uniform(0.6, 1.5, count)
        helps = rng.uniform(0, 0.5, (count, count)) * (rng.uniform(size=(count, count)) < 0.2)
        self.helps = helps * (1 - np.eye(count)) + np.eye(count)

    def scores(self, lines: Array) -> Array:
        """Per cent, (..., abilities), for lines of each."""
        effective = lines @ self.helps.T + 1e-9
        done = 1 / (1 + (self.half_way / effective) ** self.slope)
        return np.asarray(CHANCE + (self.plateau - CHANCE) * done)

    def best_gain(self, equal: Array, rng: np.random.Generator) -> float:
        """Of the mean score over that of equal shares."""
        trials = BUDGET * rng.dirichlet(np.ones(len(NAMES)), TRIALS)
        return float(self.scores(trials).mean(1).max() - self.scores(equal).mean())


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=30)
    parser.add_argument("--draws", type=int, default=100, help="of each posterior")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rows: dict[str, list[list[float]]] = {"growth curves": [], "and a design": []}
    for study in tqdm(range(args.studies), unit="study"):
        rng = np.random.default_rng((args.seed, study))
        truth = Truth(rng)
        lines = np.repeat([[each] * len(NAMES) for each in EACH], 3, axis=0)
        for name, own in rows.items():
            if name != "growth curves":
                pools = dict.fromkeys(NAMES, POOL)
                mixtures = design(pools, BUDGET, RUNS, study, target=BUDGET, repeats=1)
                more = [[mixture.lines[n] for n in NAMES] for mixture in mixtures]
                lines = np.concatenate([lines, np.array(more, float)])
            own.append(outcome(truth, lines, rng, args.draws))
    columns = ("measured", "plans", "true gain", "worse", "said to gain", "in its interval", "best")
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|")
    for name, own in rows.items():
        found = np.array(own)
        moved = found[found[:, 0] == 1]
        print(
            f"| {name} | {len(moved)} of {len(found)} | {moved[:, 1].mean():.2f} | "
            f"{(moved[:, 1] < 0).sum()} | {moved[:, 2].mean():.2f} | "
            f"{100 * moved[:, 3].mean():.0f} % | {found[:, 4].mean():.2f} |"
        )


def outcome(truth: Truth, lines: Array, rng: np.random.Generator, draws: int) -> list[float]:
    """Whether the plan moves lines; its true gain; that said; is it in the interval; the best."""
    true = truth.scores(lines) + rng.normal(0, TRAINING_NOISE, lines.shape)
    scores = 100 * rng.binomial(QUESTIONS, np.clip(true / 100, 0, 1)) / QUESTIONS
    questions = np.full(len(lines), float(QUESTIONS))
    outcomes = [
        Outcome(name, lines, own, questions, CHANCE)
        for name, own in zip(NAMES, scores.T, strict=True)
    ]
    reference = float(np.exp(np.log(lines.mean(1)).mean()))
    laws = fit_amounts(Measured(NAMES, tuple(outcomes), reference), draws=draws)
    count = len(NAMES)
    budget = Budget(
        NAMES,
        float(BUDGET),
        np.ones(count),
        np.full(count, float(POOL)),
        np.zeros(count),
        np.full(count, 1 / count),
    )
    plan = make_plan(laws, budget)
    gain = float(truth.scores(plan.lines).mean() - truth.scores(plan.equal).mean())
    said = plan.gain
    covered = float(said.low <= gain <= said.high)
    return [float(plan.moved), gain, said.value, covered, truth.best_gain(plan.equal, rng)]


if __name__ == "__main__":
    main()
