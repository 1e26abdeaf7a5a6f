"""Intervals of several seeds, and the noise floor: both sources of noise, simulated."""

import functools
import math

import numpy as np
import pandas as pd
import pytest

from growth.core.intervals import percentages, repeated_score, standard_error
from growth.report.noise import noise_floor

once = functools.cache(percentages)  # a score of so many of so many questions, with its interval


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class World:
    """Questions of unlike difficulty, and runs of unlike luck; all runs answer the same questions.

    A run answers a question rightly with probability sigmoid(level + difficulty + luck).
    """

    def __init__(self, seed, level, difficulty, luck):
        self.rng, self.level = np.random.default_rng(seed), level
        self.difficulty, self.luck = difficulty, luck
        spread = math.hypot(difficulty, luck)
        self.truth = 100 * sigmoid(level + spread * self.rng.normal(size=400_000)).mean()

    def study(self, questions, runs):
        """The results of a setting: an entry a run."""
        difficulty = self.difficulty * self.rng.normal(size=questions)
        luck = self.luck * self.rng.normal(size=(runs, 1))
        right = self.rng.random((runs, questions)) < sigmoid(self.level + difficulty + luck)
        return [once(int(count), questions) for count in right.sum(1)]

    def coverage(self, questions, runs, interval, studies=500):
        """How often the interval holds the expected score of a new run on new questions."""
        found = [interval(self.study(questions, runs)) for _ in range(studies)]
        return np.mean([one["low"] <= self.truth <= one["high"] for one in found])


def mean_of_intervals(entries):
    """What stood on figures before: the negative control."""
    return {end: np.mean([entry[end] for entry in entries]) for end in ("low", "high")}


@pytest.mark.parametrize("runs", [3, 5])
@pytest.mark.parametrize("luck", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("questions", [100, 500])
def test_the_interval_of_several_seeds_holds_what_it_says(questions, runs, luck):
    world = World(1, 0.8, 1.0, luck)
    assert world.coverage(questions, runs, functools.partial(repeated_score, most=100)) >= 0.92


def test_the_mean_of_intervals_does_not():
    world = World(1, 0.8, 1.0, 0.5)
    assert world.coverage(500, 3, mean_of_intervals) < 0.75


def test_two_seeds_hold_a_little_less():
    """One degree of freedom: where training is nearly all of the noise, docs say 85 %."""
    world = World(2, 0.8, 1.0, 0.5)
    assert world.coverage(500, 2, functools.partial(repeated_score, most=100)) >= 0.85


def test_the_formula():
    """By hand: v_q = ((5 + 4) / 2 / z)^2, v_r = 9 / 3, df = (v_q + v_r)^2 / (v_r^2 / 2)."""
    entries = [{"score": s, "low": s - 5, "high": s + 4} for s in (47.0, 50.0, 53.0)]
    found = repeated_score(entries)
    # v_q = 5.2715, v_r = 3, df = 15.203, t = 2.1289
    assert found["score"] == 50.0
    assert found["low"] == pytest.approx(50 - 2.1289 * math.sqrt((5 / 1.96) ** 2 + 3), abs=1e-3)
    assert found["high"] == pytest.approx(50 + 2.1289 * math.sqrt((4 / 1.96) ** 2 + 3), abs=1e-3)
    assert standard_error(entries) == pytest.approx(4.5 / 1.96, abs=1e-4)


def test_alike_runs_have_the_interval_of_one():
    one = {"score": 50.0, "low": 41.0, "high": 60.0}
    assert repeated_score([one]) == one
    assert repeated_score([one] * 3) == pytest.approx(one)
    tiny = [one | {"score": 50.0 + place * 1e-160} for place in range(3)]
    assert repeated_score(tiny) == pytest.approx(one)


def test_values_without_an_interval_of_their_own_have_students():
    """Losses: the mean of .5, .6 and .7 and 4.3027 * .1 / sqrt(3)."""
    losses = [{"score": loss, "low": math.nan, "high": math.nan} for loss in (0.5, 0.6, 0.7)]
    found = repeated_score(losses)
    assert [found[end] for end in ("low", "score", "high")] == pytest.approx(
        [0.6 - 0.24842, 0.6, 0.6 + 0.24842], abs=1e-4
    )
    assert math.isnan(standard_error(losses))


def test_no_interval_leaves_the_scale():
    entries = [{"score": s, "low": s - 1, "high": s + 1} for s in (1.0, 99.0)]
    found = repeated_score(entries, most=100)
    assert (found["low"], found["high"]) == (0.0, 100.0)


def points(runs_of, ability="biology"):
    """Places on a curve, from the entries of the runs of each."""
    rows = []
    for entries in runs_of:
        scores = [entry["score"] for entry in entries]
        rows.append(
            {"ability": ability, "model_size": "7b", "runs": len(entries)}
            | {"sd": np.std(scores, ddof=1) if len(scores) > 1 else math.nan}
            | {"sd_questions": standard_error(entries)}
        )
    return pd.DataFrame(rows)


def test_the_noise_floor_tells_training_from_questions():
    """Simulated, 200 settings of 3 runs; with luck 0.4 the truth is counted from the same world."""
    quiet, noisy = (World(3, 0.0, 1.0, luck) for luck in (0.0, 0.4))
    floors = [noise_floor(points([w.study(400, 3) for _ in range(200)])) for w in (quiet, noisy)]
    (still,), (loud,) = (floor.to_dict("records") for floor in floors)
    assert still["explained"] == 100
    assert still["sd_training"] == 0
    rng = np.random.default_rng(4)
    spread = [
        100 * sigmoid(rng.normal(size=20_000) + 0.4 * rng.normal()).mean() for _ in range(300)
    ]
    assert loud["sd_training"] == pytest.approx(np.std(spread), rel=0.12)
    assert loud["sd_low"] < loud["sd"] < loud["sd_high"]
    assert loud["explained"] < 12
    assert (loud["settings"], loud["runs"]) == (200, 600)
    # two further runs of a setting
    pairs = [np.subtract(*(one["score"] for one in noisy.study(400, 2))) for _ in range(400)]
    assert np.mean(np.abs(pairs) <= loud["difference"]) == pytest.approx(0.95, abs=0.03)


def test_settings_of_one_seed_say_nothing_of_noise():
    assert noise_floor(points([[once(50, 100)], [once(60, 100)]])).empty
    alike = noise_floor(points([[once(50, 100)] * 3])).iloc[0]
    assert alike["sd"] == 0
    # a few runs that agree do not say that any difference is real
    unknown = alike[["sd_low", "sd_high", "difference", "explained"]]
    assert unknown.isna().all()
