"""The noise floor of each ability: how much scores differ between runs that differ in seed only."""

import math

import numpy as np
import pandas as pd
from scipy.stats import chi2, t

NOISE = (
    *("ability", "model_size", "settings", "runs", "sd", "sd_low", "sd_high"),
    *("sd_questions", "explained", "sd_training", "difference"),
)


def noise_floor(points: pd.DataFrame) -> pd.DataFrame:
    """A row for each ability and model size of which a setting has several seeds (columns `NOISE`).

    Args:
        points: as `growth.report.curves.growth_points` gives them.

    Returns:
        `settings` with several seeds and `runs` in all of them; in the unit of the scores: `sd`,
        the standard deviation between seeds, from the pooled variances of the settings, with its
        95 % interval by chi squared; `sd_questions`, what chance in single answers gives at most
        (the runs' own intervals say it; all answer the same questions, so that it is less by what
        is due to some being harder than others); `explained`, the per cent of the variance that
        this is at most; `sd_training`, what is left at least; `difference`, below which two single
        runs that differ in seed only lie in 95 % of cases (t times sqrt(2) sd). Where no two runs
        of a setting differ at all, the interval and `difference` are nan: a few runs that happen to
        agree do not say that there is no noise.
    """
    rows = []
    repeated = points[points["runs"] > 1]
    for (ability, model_size), own in repeated.groupby(["ability", "model_size"], sort=False):
        freedom = int((own["runs"] - 1).sum())
        variance, questions = (
            float(((own["runs"] - 1) * own[name] ** 2).sum(skipna=False) / freedom)
            for name in ("sd", "sd_questions")
        )
        sd = math.sqrt(variance)
        spread = sd or math.nan
        low, high = (spread * math.sqrt(freedom / chi2.ppf(q, freedom)) for q in (0.975, 0.025))
        explained = 100 * np.minimum(1.0, questions / variance) if variance else math.nan
        rows.append(
            {
                **{"ability": ability, "model_size": model_size},
                **{"settings": len(own), "runs": int(own["runs"].sum())},
                **{"sd": sd, "sd_low": low, "sd_high": high},
                **{"sd_questions": math.sqrt(questions), "explained": explained},
                "sd_training": np.sqrt(np.maximum(0.0, variance - questions)),
                "difference": t.ppf(0.975, freedom) * math.sqrt(2) * spread,
            }
        )
    return pd.DataFrame(rows, columns=NOISE)
