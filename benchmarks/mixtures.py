"""What the law in amounts reaches on public mixtures, beside simple methods.

    python benchmarks/mixtures.py --data_dir ../shared/data/scaling

`regmix_*_1m.csv` (arXiv 2407.01492) are read from --data_dir and never copied: losses of a model of
1M parameters on 13 domains after training on mixtures of 17. Each method is fitted on --runs of the
512 mixtures, drawn --repeats times, and predicts the losses of 256 others. Prints a table in
Markdown: the median over losses of the rank correlation of predicted and measured loss, for the law
also the median relative error, the coverage of its 90 % intervals and the seconds of a fit; all are
means over the draws of runs. The simple methods are ridge regressions by cross-validation.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from growth.planning.amounts import Measured, Outcome, fit_amounts
from growth.report.growth_law import Array, interval

BUDGET = 1000.0  # any unit: only shares are published
RIDGES = np.logspace(-4, 3, 22)
Predict = Callable[[Array, Array, Array], Array]  # shares, log losses, new shares: log losses


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--runs", type=int, nargs="+", default=[20, 35], help="that are fitted on")
    parser.add_argument("--repeats", type=int, default=3, help="draws of the runs")
    parser.add_argument("--draws", type=int, default=100, help="of each posterior")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    shares, losses, names, measured = read(args.data_dir, "train")
    new, truth, _, _ = read(args.data_dir, "test")
    print("| runs | method | rank correlation | error | coverage | seconds |")
    print("|---|---|---|---|---|---|")
    for runs in args.runs:
        rows: dict[str, list[list[float]]] = {}
        for repeat in range(args.repeats):
            rng = np.random.default_rng((args.seed, repeat))
            chosen = rng.permutation(len(shares))[:runs]
            seen = shares[chosen], np.log(losses[chosen])
            for name, predict in SIMPLE.items():
                rows.setdefault(name, []).append([_rank(predict(*seen, new), truth)])
            found = _law(shares[chosen], losses[chosen], names, measured, new, truth, args.draws)
            rows.setdefault("law in amounts", []).append(found)
        for name, own in rows.items():
            correlation, *more = np.mean(own, axis=0)
            cells = [f"{x:{form}}" for x, form in zip(more, (".1f", ".0f", ".0f"), strict=False)]
            error, coverage, seconds = cells or ("", "", "")
            unit = " %" if cells else ""
            print(
                f"| {runs} | {name} | {correlation:.3f} | {error}{unit} | {coverage}{unit} | "
                f"{seconds} |",
                flush=True,
            )


def read(folder: Path, part: str) -> tuple[Array, Array, list[str], list[str]]:
    """Shares (mixtures, domains), losses (mixtures, measured), the names of both."""
    mixtures = pd.read_csv(folder / f"regmix_{part}_mixture_1m.csv", index_col="index")
    losses = pd.read_csv(folder / f"regmix_{part}_pile_loss_1m.csv", index_col="index")
    losses = losses.loc[mixtures.index]
    names = [name.removeprefix("train_the_pile_") for name in mixtures]
    measured = [name.removeprefix("metric/the_pile_").removesuffix("_val_loss") for name in losses]
    return mixtures.to_numpy(), losses.to_numpy(), names, measured


def _rank(log_losses: Array, truth: Array) -> float:
    """The median over the losses of the rank correlation."""
    pairs = zip(log_losses.T, truth.T, strict=True)
    return float(np.median([spearmanr(*pair).statistic for pair in pairs]))


def _law(
    shares: Array,
    losses: Array,
    names: list[str],
    measured: list[str],
    new: Array,
    truth: Array,
    draws: int,
) -> list[float]:
    """Rank correlation, median error and coverage in per cent, seconds."""
    started = time.perf_counter()
    outcomes = [
        Outcome(name, BUDGET * shares, own) for name, own in zip(measured, losses.T, strict=True)
    ]
    laws = fit_amounts(Measured(tuple(names), tuple(outcomes), BUDGET / len(names)), draws=draws)
    seconds = time.perf_counter() - started
    found = np.array([[interval(law.at(BUDGET * mixture)) for law in laws] for mixture in new])
    low, value, high = np.moveaxis(found, 2, 0)
    covered = 100 * np.mean((low <= truth) & (truth <= high))
    return [_rank(value, truth), 100 * float(np.median(abs(value / truth - 1))), covered, seconds]


def linear(shares: Array, logs: Array, new: Array) -> Array:
    """Loss linear in the shares."""
    return np.log(np.maximum(_ridge_regression(shares, np.exp(logs), new), 1e-3))


def exponential(shares: Array, logs: Array, new: Array) -> Array:
    """Log loss linear in the shares: the data mixing law without its constant."""
    return _ridge_regression(shares, logs, new)


def of_logs(shares: Array, logs: Array, new: Array) -> Array:
    """Log loss linear in log(share + 0.01)."""
    return _ridge_regression(np.log(shares + 0.01), logs, np.log(new + 0.01))


def _ridge_regression(x: Array, y: Array, new: Array) -> Array:
    """Each column of y by ridge regression, its strength chosen by cross-validation."""
    fold = np.arange(len(x)) % 5
    found = []
    for own in y.T:
        errors = [
            sum(
                (
                    (_ridge(x[fold != i], own[fold != i], x[fold == i], r) - own[fold == i]) ** 2
                ).sum()
                for i in range(5)
            )
            for r in RIDGES
        ]
        found.append(_ridge(x, own, new, RIDGES[int(np.argmin(errors))]))
    return np.array(found).T


def _ridge(x: Array, y: Array, new: Array, strength: float) -> Array:
    mean, spread = x.mean(0), x.std(0) + 1e-9
    a = (x - mean) / spread
    gram = a.T @ a + strength * len(y) * np.eye(a.shape[1])
    weights = np.linalg.solve(gram, a.T @ (y - y.mean()))
    return np.asarray(y.mean() + (new - mean) / spread @ weights)


SIMPLE: dict[str, Predict] = {
    "linear in shares": linear,
    "log loss linear in shares": exponential,
    "log loss linear in log(share + 0.01)": of_logs,
}


if __name__ == "__main__":
    main()
