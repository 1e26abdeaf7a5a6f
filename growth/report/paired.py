"""Two sides that answered the same questions: what they differ by, and whether it is chance.

A side is one run or several (seeds). The difference D of two mean scores has two sources of noise:
the questions, which are a sample, and the training, which another seed repeats with another
outcome. With y the mean verdict of each question on side A less that on side B, m questions in
each of C clusters, n in all:

    V_q   sum over clusters of (sum of y - m D)^2 / n^2, times C / (C - 1): cluster-robust variance
    V_r   pooled variance of the runs' scores about their side's mean, times (1/R_A + 1/R_B)
    V_e   the part of both that is neither question nor run: the same from the residuals of verdicts
          less the mean of their question and of their run, clustered like V_q
    V     max(V_r, V_e) + max(0, V_q - V_e)

V_r holds everything that differs between runs, so where the two sides are equal D / sqrt(V_r) is
Student's t with the runs' few degrees of freedom, df_r = R_A + R_B - 2; what the questions add to
that is V_q - V_e. Runs can't truly differ by less than their answers do, so V_e bounds V_r below,
and where it does, more is known than df_r says: 1 + (df_r - 1) max(1, V_e / V_r)^2. (The formula
of Satterthwaite (1946) has df_r max(1, V_e / V_r)^2; the 1 keeps false alarms at 5 % with two or
three runs, by simulation: benchmarks/compare_false_alarms.py.) The sum's are Satterthwaite's. With
one run on each side V is V_q, and training noise is not in it.

Of verdicts, V_q counts two more questions, a half of one won by each side and one tied (Agresti &
Min 2005): where few questions differ their variance is too low by chance. Of probabilities, which
hardly ever are the same on both sides, it counts none.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEVEL, POWER = 0.05, 0.8
RESAMPLES = 10_000  # of the bootstrap and of the permutation test
_CHUNK = 2_000_000  # numbers drawn at once
_ADDED = 2
_LEAST = 1e-12  # variance of a difference: verdicts files have six digits


@dataclass(frozen=True)
class Paired:
    """What both sides answered to the same questions.

    Attributes:
        a: (..., runs of A, questions), verdicts from 0 to 1; further axes are further studies.
        b: (..., runs of B, questions).
        clusters: (questions,), for each question the number of its cluster, from 0 without gaps.
        graded: whether they are no verdicts, but numbers between, such as probabilities.
    """

    a: Array
    b: Array
    clusters: Array
    graded: bool = False

    @property
    def runs(self) -> tuple[int, int]:
        """How many there are of each side."""
        return self.a.shape[-2], self.b.shape[-2]

    @property
    def by_question(self) -> Array:
        """(..., questions): the mean verdict on A less that on B."""
        return self.a.mean(-2) - self.b.mean(-2)

    @property
    def added(self) -> int:
        """Questions that V_q adds; what they add to the sum of squares is half as much."""
        return 0 if self.graded else _ADDED


@dataclass(frozen=True)
class Noise:
    """The variances of a difference, each an array of the studies' shape.

    Attributes:
        questions: V_q.
        tied: V_q as it would be if the sides were equal: the rate of questions that they differ in.
        runs: V_r; 0 with one run on each side.
        answers: V_e; 0 with one run on each side.
        question_df: degrees of freedom of V_q.
        run_df: of V_r; 0 with one run on each side.
    """

    questions: Array
    tied: Array
    runs: Array
    answers: Array
    question_df: int
    run_df: int

    def between_runs(self) -> tuple[Array, Array]:
        """max(V_r, V_e) and its degrees of freedom; only with several runs."""
        floored = np.maximum(self.runs, self.answers)
        with np.errstate(divide="ignore", invalid="ignore"):
            # 0 / 0 where no verdict differs between any two runs: nothing more is known
            ratio = np.clip(np.fmax(1, floored / self.runs), 1, 1e6)
        df = 1 + (self.run_df - 1) * ratio**2
        return floored, np.minimum(df, max(self.run_df, self.question_df))

    def total(self, questions: Array | None = None) -> tuple[Array, Array]:
        """V and its degrees of freedom, with V_q or with `questions` in its place."""
        own = self.questions if questions is None else questions
        if not self.run_df:
            return own, np.full(np.shape(own), float(self.question_df))
        between, df = self.between_runs()
        rest = np.maximum(0, own - self.answers)
        total = between + rest  # above 0, as V_q is
        return total, total**2 / (between**2 / df + rest**2 / self.question_df)


def cluster_sums(values: Array, clusters: Array) -> Array:
    """Sums over the questions of each cluster, (..., questions) -> (..., clusters)."""
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    return np.add.reduceat(values[..., order], starts, axis=-1)


def noise_of(paired: Paired) -> Noise:
    """The variances of the difference of one ability."""
    y, clusters = paired.by_question, paired.clusters
    sizes = np.bincount(clusters)
    n, count = len(clusters), len(sizes)
    sums = cluster_sums(y, clusters)
    # one cluster says nothing of how clusters differ; what is left is that D itself may be chance
    centre = y.mean(-1, keepdims=True) if count > 1 else np.zeros((*y.shape[:-1], 1))
    correction = count / max(1, count - 1)
    more, added = paired.added / 2, (n + paired.added) ** 2
    questions = (((sums - sizes * centre) ** 2).sum(-1) * correction + more) / added
    tied = ((sums**2).sum(-1) * correction + more) / added
    questions, tied = np.maximum(questions, _LEAST), np.maximum(tied, _LEAST)
    run_df = sum(paired.runs) - 2
    none = np.zeros(y.shape[:-1])
    if not run_df:
        return Noise(questions, tied, none, none, max(1, count - 1), 0)
    repeated = sum(1 / runs for runs in paired.runs) / run_df
    between, within = none, none
    for side in (paired.a, paired.b):
        by_run = side.mean(-1, keepdims=True)
        mean = by_run.mean(-2, keepdims=True)
        residuals = side - by_run - side.mean(-2, keepdims=True) + mean
        between = between + ((by_run - mean) ** 2).sum((-2, -1))
        within = within + (cluster_sums(residuals, clusters) ** 2).sum((-2, -1))
    within = within * correction / n**2
    return Noise(questions, tied, between * repeated, within * repeated, max(1, count - 1), run_df)


@dataclass(frozen=True)
class Difference:
    """A difference of two scores, A less B, as shares from -1 to 1.

    Attributes:
        value: the difference.
        low: the lower end of its 95 % interval.
        high: the upper end.
        p: of the hypothesis that there is none.
        test: what p is of.
        detectable: the smallest difference that would be found with a power of 0.8.
    """

    value: float
    low: float
    high: float
    p: float
    test: str
    detectable: float


def t_test(value: Array, noise: Noise) -> Array:
    """p of a difference by its two-level variance; of many studies at once."""
    from scipy import stats

    variance, df = noise.total()
    return 2 * stats.t.sf(np.abs(value) / np.sqrt(variance), df)


def detectable_difference(noise: Noise) -> float:
    """The smallest difference that a t test at 0.05 would find four times in five.

    Its standard error is that of equal sides, from the rate of questions that they differ in
    (Miettinen 1968); power by the noncentral t. Not corrected for several abilities.
    """
    from statsmodels.stats.power import TTestPower

    variance, df = (float(part) for part in noise.total(noise.tied))
    effect = TTestPower().solve_power(nobs=df + 1, alpha=LEVEL, power=POWER)
    return min(1.0, float(np.squeeze(effect)) * float(np.sqrt((df + 1) * variance)))


def compare_ability(paired: Paired, seed: int, resamples: int = RESAMPLES) -> Difference:
    """The difference on one ability, (runs, questions) each.

    With one run on each side p is that of McNemar's exact test; where questions share a cluster or
    a verdict is no 0 or 1, that of the permutation test which swaps the sides of whole clusters.
    """
    from scipy import stats

    noise = noise_of(paired)
    value = float(paired.by_question.mean())
    variance, df = (float(part) for part in noise.total())
    half = float(stats.t.isf(LEVEL / 2, df)) * float(np.sqrt(variance))
    if noise.run_df:
        p, test = float(t_test(np.array(value), noise)), "two-level t"
    else:
        p, test = one_run_each(paired, seed, resamples)
    low, high = max(-1.0, value - half), min(1.0, value + half)
    return Difference(value, low, high, p, test, detectable_difference(noise))


def one_run_each(paired: Paired, seed: int, resamples: int) -> tuple[float, str]:
    """p and its test, with one run on each side."""
    (a,), (b,) = paired.a, paired.b
    alone = len(np.bincount(paired.clusters)) == len(paired.clusters)
    if alone and np.isin([a, b], (0, 1)).all():
        from statsmodels.stats.contingency_tables import mcnemar

        table = [[np.sum((a == i) & (b == j)) for j in (1, 0)] for i in (1, 0)]
        return float(mcnemar(table, exact=True).pvalue), "McNemar"
    from scipy import stats

    sums = [cluster_sums(side, paired.clusters) for side in (a, b)]
    if len(sums[0]) < 2:
        return 1.0, "permutation"
    found = stats.permutation_test(
        sums,
        _mean_difference,
        permutation_type="samples",
        n_resamples=resamples,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue), "permutation"


def _mean_difference(a: Array, b: Array, axis: int) -> Array:
    return np.mean(a - b, axis=axis)


def compare_mean(abilities: Sequence[Paired], seed: int, resamples: int = RESAMPLES) -> Difference:
    """The difference of the means over abilities, each of (runs, questions).

    Questions are resampled by the bootstrap within each ability, in whole clusters. Two or three
    runs can't be resampled: their part is drawn from Student's t, scaled by the variance of the
    runs' means over the abilities, and added. With one run on each side there is no such part.
    """
    noise = noise_of_mean(abilities)
    value, draws = draws_of_mean(abilities, noise, seed, resamples)
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    return Difference(
        value,
        max(-1.0, float(low)),
        min(1.0, float(high)),
        p_of_draws(draws),
        "bootstrap" if not noise.run_df else "bootstrap and t of the runs",
        detectable_difference(noise),
    )


def draws_of_mean(
    abilities: Sequence[Paired], noise: Noise, seed: int, resamples: int
) -> tuple[float, Array]:
    """The difference of the means over abilities and its distribution, (resamples,)."""
    rng = np.random.default_rng(seed)
    value = float(np.mean([paired.by_question.mean() for paired in abilities]))
    drawn = _bootstrap(abilities, resamples, rng)
    rest = np.maximum(0, noise.questions - noise.answers)
    draws = value + (drawn - drawn.mean()) * np.sqrt(rest / max(_LEAST, drawn.var()))
    if noise.run_df:
        between, df = noise.between_runs()
        draws = draws + np.sqrt(between) * rng.standard_t(df, resamples)
    return value, draws


def p_of_draws(draws: Array) -> float:
    """Twice the share of draws on the other side of 0; at least 2 / (draws + 1)."""
    beyond = min(np.sum(draws <= 0), np.sum(draws >= 0))
    return min(1.0, float(2 * (beyond + 1) / (len(draws) + 1)))


def noise_of_mean(abilities: Sequence[Paired]) -> Noise:
    """The variances of a mean over abilities; what runs have in common in all of them counts."""
    found, count = [noise_of(paired) for paired in abilities], len(abilities)
    questions, tied, answers = (
        np.sum([getattr(noise, name) for noise in found], axis=0) / count**2
        for name in ("questions", "tied", "answers")
    )
    runs, run_df = np.zeros(()), found[0].run_df
    if run_df:
        for side in ("a", "b"):
            by_run = np.mean([getattr(paired, side).mean(-1) for paired in abilities], axis=0)
            runs = runs + ((by_run - by_run.mean(-1, keepdims=True)) ** 2).sum(-1)
        runs = runs * sum(1 / n for n in abilities[0].runs) / run_df
    return Noise(questions, tied, runs, answers, sum(n.question_df for n in found), run_df)


@dataclass(frozen=True)
class Spread:
    """Whether the differences of several abilities differ from one another.

    Attributes:
        sd: standard deviation of the true differences, a share; 0 where chance explains them all.
        f: Welch's statistic.
        df: its degrees of freedom: of the abilities, and of what is known about their noise.
        p: of the hypothesis that A and B differ by the same in all abilities.
    """

    sd: Array
    f: Array
    df: tuple[int, Array]
    p: Array


def spread_of(abilities: Sequence[Paired]) -> Spread:
    """Whether two or more abilities differ by unlike amounts; of many studies at once.

    Welch's test (1951), in which the difference D of each ability has its own variance V and
    degrees of freedom; sd is the moment estimate of DerSimonian and Laird (1986). Two or three runs
    say little about the noise of one ability, but ten abilities have ten times as much to say:

        V_s   the mean over abilities of V_r, from scores less their run's mean over abilities
              (what a run has in common in all of them moves no ability against another): their
              sum of V_r less k times the V_r of the mean, over k - 1
        V     V_q or V_e, whichever is larger, plus the excess max(0, V_s - mean of V_e)

    The excess is the same for all abilities, so the error of its estimate is not averaged over
    them: (V_s / V)^2 / df_s, df_s = (k - 1) df_r, is added to one by Welch's degrees of freedom.
    """
    from scipy import stats

    count = len(abilities)
    noises = [noise_of(paired) for paired in abilities]
    values = np.array([paired.by_question.mean(-1) for paired in abilities])
    answers = np.array([noise.answers for noise in noises])
    own = np.maximum([noise.questions for noise in noises], answers)
    shared = noise_of_mean(abilities).runs
    runs = (np.sum([noise.runs for noise in noises], axis=0) - count * shared) / (count - 1)
    excess = np.maximum(0, runs - answers.mean(0))
    weights = 1 / (own + excess)
    whole = weights.sum(0)
    q = (weights * (values - (weights * values).sum(0) / whole) ** 2).sum(0)
    df = np.array([noise.question_df for noise in noises]).reshape(-1, *np.ones(own.ndim - 1, int))
    unequal = ((1 - weights / whole) ** 2 * (own * weights) ** 2 / df).sum(0)
    f = q / (count - 1) / (1 + 2 * (count - 2) * unequal / (count**2 - 1))
    one_by_df = 3 * unequal / (count**2 - 1)
    if noises[0].run_df:
        share = runs * (weights**2).sum(0) / whole
        one_by_df = one_by_df + share**2 / ((count - 1) * noises[0].run_df)
    beyond = np.maximum(0, q - (count - 1)) / (whole - (weights**2).sum(0) / whole)
    within = 1 / one_by_df
    return Spread(np.sqrt(beyond), f, (count - 1, within), stats.f.sf(f, count - 1, within))


def _bootstrap(abilities: Sequence[Paired], resamples: int, rng: np.random.Generator) -> Array:
    """Means over abilities of resampled clusters' mean differences, (resamples,).

    Verdicts have the two more questions of V_q, so that equal answers have a spread, too.
    """
    total = np.zeros(resamples)
    for paired in abilities:
        added = np.array([0.5**0.5, -(0.5**0.5)])[: paired.added]
        sums = np.append(cluster_sums(paired.by_question, paired.clusters), added)
        sizes = np.append(np.bincount(paired.clusters), np.ones(len(added)))
        step = max(1, _CHUNK // len(sums))
        for start in range(0, resamples, step):
            shape = min(step, resamples - start), len(sums)
            drawn = rng.integers(len(sums), size=shape)
            total[start : start + step] += sums[drawn].sum(1) / sizes[drawn].sum(1)
    return total / len(abilities)


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for how many there are (Holm 1979), in the same order."""
    from statsmodels.stats.multitest import multipletests

    if not ps:
        return []
    gc.freeze()  # multipletests collects garbage, among a million objects of ours, for some numbers
    try:
        return [float(p) for p in multipletests(list(ps), method="holm")[1]]
    finally:
        gc.unfreeze()
