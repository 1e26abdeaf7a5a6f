"""evaluate/fit.py: the laws of growth curves, their intervals, and the files they are read from."""

import csv

import numpy as np
import pytest
from conftest import ABILITY_NAMES, ROOT, run
from test_plots import write

from growth.report.growth_law import (
    DECLINES,
    FLAT,
    GROWS,
    SATURATED,
    UNKNOWN,
    Curve,
    fit,
    interval,
    share_of_gain,
)
from growth.report.laws import (
    curves_of_results,
    held_out_lines,
    held_out_points,
    held_out_table,
    line_in_log_samples,
)

FIT = ROOT / "evaluate/fit.py"
SIZES = np.array([10.0, 40, 160, 640, 2560])


def law(start, plateau, half_way, slope, sizes=SIZES):
    return start + (plateau - start) * share_of_gain(sizes, half_way, slope)


def scores(values, n=100, chance=None, sizes=SIZES):
    values = np.asarray(values, float)
    return Curve("c", np.asarray(sizes, float), values, np.full(len(values), n), chance)


def losses(values, sizes=SIZES):
    return Curve("c", np.asarray(sizes, float), np.asarray(values, float))


def points_file(folder, text):
    path = folder / "points.csv"
    path.write_text(text, encoding="utf-8")
    return path


def fitted(folder, text, *flags, check=True):
    path = points_file(folder, text)
    return run(FIT, "--points", path, *flags, cwd=folder, check=check)


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines_of(curve, values, sizes=SIZES, n=""):
    rows = zip(sizes, values, strict=True)
    return "".join(f"{curve},{size:g},{value},{n}\n" for size, value in rows)


# The law


def test_share_of_gain_from_no_data_to_all():
    done = share_of_gain(np.array([0.0, 100.0, 1e15]), np.float64(100), np.float64(1))
    assert done == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize("start", [3.0, 300.0])
def test_a_loss_on_the_law_is_predicted(start):
    curve = losses(law(start, start / 3, 500, 0.7))
    for factor, tolerance in ((4, 0.1), (16, 0.2)):
        found = interval(fit(curve).at(2560 * factor))
        truth = law(start, start / 3, 500, 0.7, 2560 * factor)
        assert found.low <= truth <= found.high
        assert found.value == pytest.approx(truth, rel=tolerance)


def test_losses_in_another_unit_have_the_same_law():
    values = law(3, 1, 500, 0.7) * [1.01, 0.99, 1, 1.01, 0.99]
    one, other = (interval(fit(losses(values * unit)).at(10240)) for unit in (1, 1000))
    assert np.array(other) == pytest.approx(1000 * np.array(one))


def test_scores_with_many_questions_are_predicted():
    found = interval(fit(scores(law(25, 80, 300, 1), n=1000, chance=25)).at(10240))
    assert found.low <= law(25, 80, 300, 1, 10240) <= found.high
    assert found.high - found.low < 15


def test_more_questions_narrow_the_interval():
    few, many = (fit(scores(law(25, 80, 300, 1), n=n)).at(10240) for n in (20, 500))
    assert np.ptp(interval(many)) < 0.7 * np.ptp(interval(few))


def test_repeats_that_differ_widen_the_interval():
    sizes, values = np.repeat(SIZES, 3), np.repeat(law(25, 80, 300, 1), 3)
    spread = np.tile([-12, 0, 12], len(SIZES))
    alike, apart = (fit(scores(v, n=400, sizes=sizes)) for v in (values, values + spread))
    assert interval(apart.noise).low > interval(alike.noise).high
    assert np.ptp(interval(apart.at(10240))) > 1.3 * np.ptp(interval(alike.at(10240)))


def test_noise_of_losses_is_estimated():
    noise = np.random.default_rng(0).normal(size=(3, 40))
    sizes = np.tile(np.geomspace(10, 10240, 40), 3)
    small, large = (
        interval(fit(losses(law(3, 1, 300, 0.8, sizes) * np.exp(s * noise.ravel()), sizes)).noise)
        for s in (0.005, 0.04)
    )
    assert small.high < 0.01 < 0.03 < large.low
    assert large.high < 0.05


def test_the_untuned_model_fixes_the_start():
    values = law(40, 80, 300, 1)
    without = fit(scores(values, n=1000))
    known = fit(scores([40, *values], n=1000, sizes=[0, *SIZES]))
    assert np.ptp(interval(known.start)) < np.ptp(interval(without.start))
    assert interval(known.start).low <= 40 <= interval(known.start).high


def test_chance_tells_of_the_start():
    values = law(25, 80, 30, 1)
    known, unknown = (interval(fit(scores(values, chance=c)).start) for c in (25.0, None))
    assert np.ptp(known) < np.ptp(unknown)
    assert known.low <= 25 <= known.high


def test_a_new_measurement_is_less_certain_than_the_curve():
    for curve in (scores(law(25, 80, 300, 1)), losses(law(3, 1, 500, 0.7))):
        posterior = fit(curve)
        assert np.ptp(interval(posterior.measured_at(10240))) > np.ptp(
            interval(posterior.at(10240))
        )


def test_data_for_90_per_cent_of_the_gain():
    posterior = fit(scores(law(25, 80, 300, 1), n=1000))
    done = share_of_gain(posterior.data_for_90, posterior.half_way, posterior.slope)
    assert done == pytest.approx(0.9)


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_scores_that_are_all_the_same_extreme(value):
    posterior = fit(scores(np.full(5, value), n=200))
    low, middle, high = interval(posterior.at(10240))
    assert 0 <= low <= middle <= high <= 100
    assert abs(middle - value) < 5
    assert posterior.word() in (FLAT, UNKNOWN)


@pytest.mark.parametrize(
    ("curve", "word"),
    [
        (scores(law(20, 90, 5000, 1.5), n=3000), GROWS),
        (scores(law(25, 80, 60, 2), n=20000), SATURATED),
        (scores(law(80, 30, 300, 1), n=1000), DECLINES),
        (scores(np.full(5, 50.0), n=20000), FLAT),
        (scores([30, 60], n=20, sizes=[10, 40]), UNKNOWN),
        (losses(law(4, 0.5, 20000, 0.8)), GROWS),
        (losses(law(2, 3, 500, 1)), DECLINES),
    ],
)
def test_words(curve, word):
    assert fit(curve).word() == word


def test_the_same_seed_gives_the_same_draws():
    curve = scores(law(25, 80, 300, 1))
    same, other = fit(curve, 0).start, fit(curve, 1).start
    assert (fit(curve, 0).start == same).all()
    assert (other != same).any()
    assert interval(other) == pytest.approx(interval(same), abs=2)


def test_intervals_cover_simulated_curves():
    """benchmarks/growth_laws.py has 500; of 60 at 90 %, below 48 are covered in 1 of 200 draws."""
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(60):
        start, plateau = rng.uniform(5, 60), rng.uniform(5, 95)
        half_way, slope = np.exp(rng.uniform(np.log(10), np.log(10240))), rng.uniform(0.5, 2)
        curve = scores(rng.binomial(100, law(start, plateau, half_way, slope) / 100))
        found = interval(fit(curve).at(10240))
        covered.append(found.low <= law(start, plateau, half_way, slope, 10240) <= found.high)
    assert sum(covered) >= 48


# Held out


def test_held_out_sizes_are_counted_by_place():
    curves = [losses(law(3, 1, 500, 0.7)), scores(law(25, 80, 300, 1))]
    found = held_out_table(held_out_points(curves, 2, 0))
    assert [*zip(found["kind"], found["place"], strict=True)] == [
        ("loss", 1), ("loss", 2), ("score", 1), ("score", 2)
    ]  # fmt: skip
    first = found.iloc[0]
    truth = law(3, 1, 500, 0.7)
    assert first["as_it_is_median"] == pytest.approx(100 * (truth[2] / truth[3] - 1))
    line = line_in_log_samples(curves[0].up_to(160), 640)
    assert first["log_line_median"] == pytest.approx(100 * abs(line / truth[3] - 1))
    assert first["law_median"] < first["as_it_is_median"]
    assert first["coverage"] == 100


def test_what_is_held_out_is_not_fitted():
    values = law(3, 1, 500, 0.7)
    changed = [*values[:4], 2 * values[4]]
    assert held_out_table(held_out_points([losses(values)], 1, 0))["coverage"].item() == 100
    assert held_out_table(held_out_points([losses(changed)], 1, 0))["coverage"].item() == 0


def test_each_curve_says_what_was_predicted_and_what_came():
    """Three seeds of one size, two of them far off."""
    curve = scores(law(25, 80, 300, 1))
    samples = np.append(curve.samples, [2560, 2560])
    values = np.append(curve.values, [5.0, 1.0])
    questions = np.append(curve.questions, [100.0, 100.0])
    points = held_out_points([Curve("biology", samples, values, questions)], 1, 0)
    assert points["covered"].tolist() == [True, False, False]
    (line,) = held_out_lines(points)
    first = points.iloc[0]
    assert line.startswith(f"biology, 2560 samples: {first['value']:.4g} ({first['low']:.4g} to ")
    assert line.endswith(f"measured {first['measured']:.4g}, 5 (outside), 1 (outside)")


def test_hold_out_prints_errors_and_writes_nothing(tmp_path):
    text = "curve,samples,value\n" + lines_of("a", law(3, 1, 500, 0.7)).replace(",\n", "\n")
    done = fitted(tmp_path, text, "--hold_out", "1", "--output_dir", "o")
    for name in ("law_median", "law_p90", "as_it_is_median", "log_line_p90", "coverage"):
        assert name in done.stdout
    assert not (tmp_path / "o").exists()


def test_holding_out_more_than_there_is(tmp_path):
    text = "curve,samples,value\na,10,3\na,40,2\n"
    done = fitted(tmp_path, text, "--hold_out", "1", check=False)
    assert done.returncode == 2
    assert "--hold_out 1: no curve has 3 sizes" in done.stderr


# Files


def test_laws_and_predictions_are_written(tmp_path):
    text = "curve,samples,value,n\n" + lines_of("math", law(25, 80, 300, 1), n=100)
    text += lines_of("loss", law(3, 1, 500, 0.7))
    done = fitted(tmp_path, text, "--output_dir", "o", "--sizes", "5000", "10240")
    laws = {row["curve"]: row for row in table(tmp_path / "o/laws.csv")}
    assert [laws[name]["kind"] for name in ("math", "loss")] == ["score", "loss"]
    for row in laws.values():
        for name in ("start", "plateau", "half_way", "slope", "data_for_90", "noise"):
            assert float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"])
    predicted = table(tmp_path / "o/predictions.csv")
    # 4 and 16 times the largest, and those asked for, each once
    asked = [(row["curve"], float(row["samples"])) for row in predicted]
    assert asked == [(name, size) for name in ("math", "loss") for size in (5000, 10240, 40960)]
    for row in predicted:
        assert float(row["measured_low"]) <= float(row["low"]) <= float(row["value"])
    # the screen says the unit, and what the interval is of
    said = {line.partition(": ")[0]: line for line in done.stdout.splitlines()}
    assert "scores in per cent" in done.stdout
    assert "90 % interval" in done.stdout
    assert f"{laws['math']['word']}; 10,240 samples would give" in said["math"]
    row = next(row for row in predicted if row["curve"] == "math" and row["samples"] == "10240")
    numbers = tuple(float(row[name]) for name in ("value", "low", "high"))
    assert said["math"].endswith("give {:.1f} % ({:.1f} to {:.1f})".format(*numbers))
    assert "%" not in said["loss"]


def test_repeats_have_a_column(tmp_path):
    text = "curve,samples,value,n,repeat\n"
    for repeat in (0, 1):
        rows = zip(SIZES, (30, 40, 50, 60, 70), strict=True)
        text += "".join(f"a,{size:g},{value + repeat},100,{repeat}\n" for size, value in rows)
    fitted(tmp_path, text, "--output_dir", "o")
    (row,) = table(tmp_path / "o/laws.csv")
    assert (row["sizes"], row["points"]) == ("5", "10")


def test_results_are_read_with_their_repeats(tmp_path):
    results = tmp_path / "results/test"
    for setting, score in (("curated-10", 25.0), ("curated-40", 31.0), ("curated-160", 44.0)):
        for seed in (0, 1):
            write(results, setting, score + seed, timestamp=f"t{seed}", seed=seed)
    done = run(FIT, "--results_path", results, "--output_dir", "o", cwd=tmp_path)
    rows = {row["curve"]: row for row in table(tmp_path / "o/laws.csv")}
    names = ("biology", "code", "ceval_physician_fshot", "average", "ood_average")
    assert rows.keys() == {f"{name}/7b/curated" for name in names}
    assert {(row["sizes"], row["points"]) for row in rows.values()} == {("3", "6")}
    assert "biology/7b/curated: " in done.stdout


def test_a_smoke_run_does_not_pass_for_a_result(tmp_path):
    results = tmp_path / "results/test"
    for setting in ("curated-10", "curated-40"):
        write(results, setting, 25.0, limit=5)
    run(FIT, "--results_path", results, "--output_dir", "o", cwd=tmp_path)
    assert all(row["curve"].endswith("-limit5") for row in table(tmp_path / "o/laws.csv"))


def test_curves_of_one_size_are_noted(tmp_path):
    text = "curve,samples,value,n\na,10,30,100\na,40,60,100\nb,10,30,100\n"
    done = fitted(tmp_path, text, "--output_dir", "o")
    assert "b: left out, one size only (10 samples)" in done.stderr
    assert "a: two sizes only" in done.stderr
    (row,) = table(tmp_path / "o/laws.csv")
    assert (row["curve"], row["word"]) == ("a", UNKNOWN)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lacks the column curve, samples, value"),
        ("curve,samples\na,1\n", "lacks the column value"),
        ("curve,samples,value,value\na,1,2,3\n", "names once each"),
        ("curve,samples,value\n", "no curve has two sizes"),
        ("curve,samples,value\na,10,2\n", "a: left out, one size only"),
        (
            "curve,samples,value\n" + "".join(f"{c},10,2\n" for c in "abcde"),
            "a; b; c; and 2 more: left out, one size only (10 samples)",
        ),
        ("curve,samples,value\na,10,2\na,40,nan\n", ":3: value is 'nan'"),
        ("curve,samples,value\na,10,2\na,40,inf\n", ":3: value is 'inf'"),
        ("curve,samples,value\na,10,2\na,-40,1\n", ":3: samples is '-40'"),
        ("curve,samples,value\na,10,2\na,nan,1\n", ":3: samples is 'nan'"),
        ("curve,samples,value\na,10,2\na,x,1\n", ":3: samples is 'x'"),
        ("curve,samples,value\na,10,2\na,40,0\n", ":3: value is '0'"),
        ("curve,samples,value\na,10,2\na,40,-1\n", ":3: value is '-1'"),
        ("curve,samples,value\na,10,2\na,10,3\n", ":3: a has a value for 10 samples in line 2"),
        ("curve,samples,value,repeat\na,10,2,1\na,10,3,1\n", ":3: a has a value for 10 samples"),
        ("curve,samples,value\na,10,2\na,40\n", ":3: has more or fewer fields"),
        ("curve,samples,value\na,10,2\na,40,1,5\n", ":3: has more or fewer fields"),
        ("curve,samples,value\n,10,2\n", ":2: curve is ''"),
        ("curve,samples,value,n\na,10,20,100\na,40,101,100\n", ":3: value is '101'"),
        ("curve,samples,value,n\na,10,20,100\na,40,-1,100\n", ":3: value is '-1'"),
        ("curve,samples,value,n\na,10,20,100\na,40,30,0\n", ":3: n is '0'"),
        ("curve,samples,value,n\na,10,20,100\na,40,30,2.5\n", ":3: n is '2.5'"),
        ("curve,samples,value,n\na,10,20,100\na,40,30,\n", ":3: a has n in some of its lines"),
        ('curve,samples,value\n"a,10,2\n', "not CSV"),
        ("curve,samples,value\n" + "".join(f"a,{i},2\n" for i in range(201)), "at most 200"),
    ],
)
def test_bad_files(tmp_path, text, says):
    done = fitted(tmp_path, text, "--output_dir", "o", check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o/laws.csv").exists()


def test_a_file_in_another_encoding(tmp_path):
    path = tmp_path / "points.csv"
    path.write_bytes("curve,samples,value\n數,10,2\n".encode("utf-16"))
    done = run(FIT, "--points", path, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "not UTF-8" in done.stderr


@pytest.mark.parametrize("size", ["0", "-4", "nan", "x", "1e99"])
def test_sizes_that_are_none(tmp_path, size):
    text = "curve,samples,value\na,10,3\na,40,2\n"
    done = fitted(tmp_path, text, "--sizes", size, check=False)
    assert done.returncode == 2
    assert "--sizes" in done.stderr


def test_points_and_results_together(tmp_path):
    done = fitted(tmp_path, "", "--results_path", "r", check=False)
    assert done.returncode == 2
    assert "--points" in done.stderr
    assert "--results_path" in done.stderr


def test_public_curves_of_losses(monkeypatch):
    """The goals that benchmarks/growth_laws.py prints, here as bounds on errors and coverage."""
    import conftest

    folder = conftest._shared("data/scaling")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from growth_laws import losses as public

    curves = [curve for name in ("flan", "gigaword") for curve in public(folder / f"{name}.csv")]
    seen = [curve.up_to(204800) for curve in curves]
    found = held_out_table(held_out_points(seen, 2, 0)).set_index("place")
    assert len(curves) == 60
    assert (found["law_median"] < [1.25, 3.5]).all()
    assert (found["law_p90"] < [4.1, 11]).all()
    assert (found["coverage"].between(85, 97)).all()


def test_the_table_of_real_curves_is_what_is_found():
    """docs/laws.md against the results files that are in the repository."""
    example = ROOT / "evaluate/example/test"
    points = held_out_points(curves_of_results(example, example, None).curves, 1, 0)
    found = {str(name).split("/")[0]: own for name, own in points.groupby("curve")}
    text = (ROOT / "docs/laws.md").read_text(encoding="utf-8").split("### On real curves")[1]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [name for name, *_ in rows[1:]] == list(ABILITY_NAMES)
    inside = 0
    for name, _, predicted, interval_, measured, covered in rows[1:]:
        own = found[name]
        low, high = map(float, interval_.split(" to "))
        assert float(predicted) == pytest.approx(own["value"].iloc[0], abs=1)
        assert (low, high) == pytest.approx((own["low"].iloc[0], own["high"].iloc[0]), abs=1)
        assert [float(value) for value in measured.split(", ")] == own["measured"].tolist()
        assert int(covered[0]) == own["covered"].sum()
        inside += own["covered"].sum()
    assert f"**{inside} of 30 measurements" in text
