"""Designs, the law in amounts, and plans: data/design.py, evaluate/fit.py --design, plan.py."""

import csv
import re

import numpy as np
import pytest
from conftest import ABILITY_NAMES, ROOT, STUDY, run
from test_plots import write

from growth.core.errors import InputError
from growth.data.study import read_recipe, recipe_text
from growth.planning import amounts
from growth.planning.amounts import Measured, Outcome, fit_amounts
from growth.planning.plan import Budget, make_plan, utility
from growth.planning.shares import LEVELS, allotted, control_mixes, design, whole
from growth.report.growth_law import interval, share_of_gain

NAMES = ("a", "b", "c")
SIZES = (2.0, 8.0, 32.0, 128.0)


def designed(names=NAMES, runs=20, total=96, seed=0):
    pools = dict.fromkeys(names, 1000)
    mixtures = design(pools, total, runs, seed, target=total, repeats=1)
    return np.array([[mixture.lines[name] for name in names] for mixture in mixtures], float)


def curves(names=NAMES):
    return np.array([[size] * len(names) for size in SIZES])


# Shares and designs


def test_shares_within_bounds_sum_to_the_total():
    most = np.array([5.0, 100, 100])
    found = allotted(60, np.ones(3), most)
    assert found == pytest.approx([5, 27.5, 27.5])
    lines = whole(found, most)
    assert sorted(lines) == [5, 27, 28]
    assert allotted(300, np.ones(3), most) == pytest.approx(most)
    assert allotted(60, np.array([0.0, 1, 2]), most) == pytest.approx([0, 20, 40])


@pytest.mark.parametrize(("names", "runs"), [(NAMES, 24), (tuple("abcdefghij"), 40)])
def test_a_design_is_balanced(names, runs):
    lines = designed(names, runs, total=600)
    assert (lines.sum(1) == 600).all()
    # Each ability is left out, below, at and above its share about equally often.
    left_out = (lines == 0).mean(0)
    assert (abs(left_out - 1 / len(LEVELS)) < 0.15).all()
    correlation = np.corrcoef(lines.T)[~np.eye(len(names), dtype=bool)]
    assert abs(correlation.mean() + 1 / (len(names) - 1)) < 0.15  # the total is fixed
    assert len(np.unique(lines, axis=0)) > runs // 2


def test_a_line_repeats_as_often_as_in_the_target():
    pools = {"a": 40, "b": 1000}
    mixtures = design(pools, 100, 12, 0, target=400, repeats=4)
    assert max(mixture.lines["a"] for mixture in mixtures) <= 4 * 10
    repeated = [mixture for mixture in mixtures if mixture.lines["a"] > 10]
    assert repeated
    assert {mixture.distinct["a"] for mixture in repeated} == {10}


@pytest.mark.parametrize(
    ("pools", "total", "target", "says"),
    [
        ({"a": 9}, 8, 8, "there is only a"),
        ({"a": 9, "b": 9}, 1, 1, "below one line for each of the 2 abilities"),
        ({"a": 9, "b": 9}, 19, 19, r"there are 18 lines with --repeats 1 \(a 9, b 9\)"),
        ({"a": 90, "b": 90}, 40, 400, "the part of the pool for --target 400"),
        ({"a": 90, "b": 90}, 40, 20, "--target 20: below --total 40"),
        ({"a": 90, "b": 90, "c": 90}, 265, 265, "so near to the 270 lines there are that"),
    ],
)
def test_what_no_design_can_be_of(pools, total, target, says):
    with pytest.raises(InputError, match=says):
        design(pools, total, 4, 0, target=target, repeats=1)


def test_the_script_writes_recipes_of_the_study(checkout, tiny_data):
    command = ("data/design.py", "--total", "20", "--runs", "6", "--data_dir", tiny_data)
    done = run(*command, cwd=checkout)
    paths = sorted((checkout / "data/design").glob("*.toml"))
    assert [path.stem for path in paths] == [f"design-20-{i}" for i in range(1, 7)]
    recipes = [read_recipe(path, STUDY) for path in paths]
    assert {recipe.samples for recipe in recipes} == {20}
    assert max(share.quota for recipe in recipes for share in recipe.shares) == 4
    assert "design-20-6" in done.stdout
    run(*command, cwd=checkout)  # the same again
    again = run(*command[:-3], "7", *command[-2:], "--name", "x", cwd=checkout, check=False)
    assert again.returncode == 2
    assert "holds other recipes (design-20-1.toml" in again.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--name", "a b"), "--name: 'a b-20-01': expected a plain name without spaces"),
        (("--name", "x" * 300), "--name: 'xxx"),
        (("--name", ".x"), "--name: '.x-20-01'"),
        (("--repeats", str(2**63 - 1)), "--repeats"),
        (("--total", str(10**9)), "--total"),
    ],
)
def test_recipes_that_could_not_be_built_are_not_written(checkout, tiny_data, flags, says):
    command = ("data/design.py", "--total", "20", "--data_dir", tiny_data, *flags)
    done = run(*command, cwd=checkout, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (checkout / "data/design").exists()


def test_a_folder_where_a_recipe_should_be_is_named(checkout, tiny_data):
    (checkout / "data/design/design-20-01.toml").mkdir(parents=True)
    command = ("data/design.py", "--total", "20", "--data_dir", tiny_data)
    done = run(*command, cwd=checkout, check=False)
    assert done.returncode == 2
    assert "error: data/design/design-20-01.toml: is a folder; expected a file" in done.stderr


def test_control_mixes_hold_the_total():
    pools = dict.fromkeys(ABILITY_NAMES, 1000)
    mixes = control_mixes(STUDY.recipe("reconstruct"), pools, 640, seed=0)
    assert list(mixes) == ["scaled-reconstruct", "random"]
    assert {sum(lines.values()) for lines in mixes.values()} == {640}
    scaled = mixes["scaled-reconstruct"]
    assert (scaled["ethics"], scaled["math"]) == (4, 83)  # of 64 and 1,305 of 10,000
    assert scaled["biology"] in (66, 67)  # all there is: 1,041
    assert len(set(mixes["random"].values())) > 5


def test_a_recipe_as_text_is_read_again(tmp_path):
    path = tmp_path / "r.toml"
    text = recipe_text("r", "curated", {"math": 9, "code": 0, "biology": 2}, {"math": 3}, "About")
    path.write_text(text, encoding="utf-8")
    recipe = read_recipe(path, STUDY)
    assert {share.name: (share.quota, share.distinct) for share in recipe.shares} == {
        "math": (9, 3),
        "biology": (2, None),
    }


# The law in amounts


@pytest.mark.parametrize("is_score", [False, True])
def test_the_derivatives_are_those_of_the_law(is_score):
    rng = np.random.default_rng(0)
    lines = rng.gamma(1, size=(6, 4))
    lines[0, 1] = lines[1, 2] = 0
    curve = [20.0, 60, 0.1, -0.3, -0.7] if is_score else [1.0, -0.5, 0.1, -0.3, -0.7]
    p = np.append(curve, rng.normal(size=3))
    found = amounts._jacobian(p, lines, 2, is_score)
    for i in range(len(p)):
        step = 1e-6 * np.eye(len(p))[i]
        ends = [amounts._parts((p + s)[None], lines, 2, is_score).value[0] for s in (step, -step)]
        assert found[:, i] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-5)


def losses_of(lines, help=0.6, noise=0.01):
    """Losses of three abilities; b's lines help a."""
    effective = lines.copy()
    effective[:, 0] += help * lines[:, 1]
    rest = 0.4 + 2 / (1 + (effective / [10, 40, 160]) ** 0.8)
    return rest * np.exp(noise * np.random.default_rng(0).normal(size=lines.shape))


def measured(lines, values, questions=None, chance=None, names=NAMES):
    asked = None if questions is None else np.full(len(lines), float(questions))
    outcomes = [Outcome(n, lines, v, asked, chance) for n, v in zip(names, values.T, strict=True)]
    totals = lines.sum(1)
    reference = float(np.exp(np.log(totals / len(names)).mean()))
    return Measured(tuple(names), tuple(outcomes), reference)


@pytest.mark.parametrize("is_score", [True, False])
def test_what_an_optimizer_tries_overflows_nothing(is_score):
    """Fits that it led astray had changed what cross-validation chose."""
    lines = np.array([[0.0, 3, 40], [0.01, 0, 200]])
    for place in range(7):
        for size in (-30.0, 30.0):
            p = np.zeros(7)
            p[place] = size
            with np.errstate(over="raise", invalid="raise"):
                assert np.isfinite(amounts._jacobian(p, lines, 2, is_score)).all()


def test_a_design_says_what_helps_what():
    lines = np.concatenate([curves(), designed()])
    laws = fit_amounts(measured(lines, losses_of(lines)), draws=60)
    helps = {
        (law.ability, source): interval(law.transference[:, place])
        for law in laws
        for place, source in enumerate(NAMES)
    }
    assert helps["a", "b"].low > 0.25
    assert helps["a", "b"].high < 1.2
    others = [found for (to, of), found in helps.items() if to != of and (to, of) != ("a", "b")]
    assert max(found.low for found in others) < 0.1
    at = np.array([40.0, 60, 0])
    truth = losses_of(at[None], noise=0)[0]
    for law, value in zip(laws, truth, strict=True):
        low, _, high = interval(law.at(at))
        assert low / 1.01 <= value <= high * 1.01


def test_the_law_is_the_same_in_any_unit_of_lines():
    lines = curves()
    one, other = (
        fit_amounts(measured(lines * unit, losses_of(lines)), draws=40)[1] for unit in (1, 1000)
    )
    assert np.median(one.at(lines[2])) == pytest.approx(np.median(other.at(1000 * lines[2])))


def test_the_gradient_of_the_utility():
    lines = curves()
    laws = fit_amounts(measured(lines, losses_of(lines)), draws=20)
    at = np.array([12.0, 30, 50])
    for weights in (np.array([0.2, 0.5, 0.3]), None):
        budget = Budget(NAMES, 92.0, np.ones(3), np.full(3, 1e3), np.zeros(3), weights)
        gradient = utility(laws, budget, at)[1]
        for i in range(3):
            step = 1e-4 * np.eye(3)[i]
            ends = [utility(laws, budget, at + s)[0] for s in (step, -step)]
            assert gradient[:, i] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-3, abs=1e-6)


# Plans


def plan_of(values, lines=None, total=96, cost=(1, 1, 1), most=1e4, have=(0, 0, 0), weights=1 / 3):
    lines = curves() if lines is None else lines
    laws = fit_amounts(measured(lines, values, 1000, 25.0), draws=60)
    shares = None if weights is None else np.broadcast_to(weights, 3)
    budget = Budget(
        NAMES,
        float(total),
        np.array(cost, float),
        np.broadcast_to(float(most), 3),
        np.array(have, float),
        shares,
    )
    return make_plan(laws, budget)


def hills(half_way, plateau=(80, 80, 80), start=25):
    """Scores of curves that lie on the law."""
    done = share_of_gain(curves(), np.array(half_way, float), np.float64(1))
    return start + (np.array(plateau) - start) * done


def test_lines_go_where_they_are_worth_most():
    plan = plan_of(hills([0.5, 0.5, 60]))
    assert plan.moved
    assert plan.lines.sum() == plan.equal.sum() == 96
    assert plan.lines[2] > plan.equal[2] == 32
    assert plan.probability > 0.8
    assert plan.gain.value > 0


def test_there_is_no_evidence_where_all_are_alike():
    plan = plan_of(hills([30, 30, 30]))
    assert not plan.moved
    assert list(plan.lines) == list(plan.equal) == [32, 32, 32]
    assert plan.probability == 0.5


@pytest.mark.parametrize("level", [0.0, 100.0])
def test_scores_that_are_all_alike(level):
    assert not plan_of(np.full((4, 3), level)).moved


def test_no_line_is_bought_for_what_declines():
    plan = plan_of(hills([20, 20, 20], plateau=(90, 90, 5)))
    assert plan.moved
    assert plan.lines[2] < plan.lines[:2].min()
    assert np.isfinite(plan.table.select_dtypes("number").to_numpy()).all()


def test_bounds_costs_and_lines_at_hand():
    values = hills([0.5, 0.5, 60])
    bounded = plan_of(values, most=40)
    assert bounded.lines.max() <= 40
    dear = plan_of(values, cost=(1, 1, 4), total=300)
    assert (dear.lines * [1, 1, 4]).sum() <= 300
    assert list(dear.equal) == [50, 50, 50]
    more = plan_of(values, have=(8, 8, 8), total=30)
    assert (more.lines >= 8).all()
    assert more.lines.sum() == 54


def test_the_worst_ability_and_weights():
    values = hills([0.5, 60, 60], plateau=(80, 80, 80))
    worst = plan_of(values, weights=None)
    assert worst.lines[0] < 32
    only = plan_of(values, weights=np.array([0, 1.0, 0]))
    assert only.lines[1] > 60


# The scripts


def mixtures_file(folder, lines, values, n=""):
    rows = ["run,ability,value,n,a,b,c"]
    rows += [
        f"r{i},{name},{value:.6g},{n},{','.join(f'{x:g}' for x in own)}"
        for i, own in enumerate(lines)
        for name, value in zip(NAMES, values[i], strict=True)
    ]
    path = folder / "mixtures.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(amounts, "DRAWS", 40)


@pytest.mark.usefixtures("few_draws")
def test_fit_writes_the_matrix(tmp_path):
    lines = np.concatenate([curves(), designed(runs=10)])
    path = mixtures_file(tmp_path, lines, losses_of(lines))
    flags = ("--mixtures", path, "--output_dir", "out", "--format", "png,svg")
    done = run(ROOT / "evaluate/fit.py", *flags, cwd=tmp_path)
    pairs = table(tmp_path / "out/transference.csv")
    assert [(row["ability"], row["source"]) for row in pairs] == [
        (one, other) for one in NAMES for other in NAMES if one != other
    ]
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in pairs)
    assert "note" not in done.stderr
    halves = [float(row["half_way"]) for row in table(tmp_path / "out/complexity.csv")]
    assert halves == sorted(halves)
    assert (tmp_path / "out/transference.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "out/transference.svg").read_text().count("<svg") == 1
    assert "complexity.csv" in done.stdout


@pytest.mark.usefixtures("few_draws")
def test_curves_alone_do_not_say_what_helps_what(tmp_path):
    path = mixtures_file(tmp_path, curves(), losses_of(curves()))
    done = run(ROOT / "evaluate/fit.py", "--mixtures", path, cwd=tmp_path)
    assert "note: below 10 mixtures that are no multiples of each other" in done.stderr
    assert "no help is certain" in done.stdout


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--mixtures", "m.csv", "--points", "p.csv"), "--mixtures: goes without --points"),
        (("--design", "--hold_out", "1"), "--design: goes without --hold_out"),
        (("--design", "--sizes", "9"), "--design: goes without --sizes"),
        (("--value", "loss"), "--value: needs --design"),
        (("--mixtures", "m.csv", "--value", "loss"), "goes without --value"),
    ],
)
def test_flags_of_curves_and_designs(tmp_path, flags, says):
    done = run(ROOT / "evaluate/fit.py", *flags, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("run,ability", "name,ability"), "lacks the column run"),
        (("r0,a", "r0,x"), "mixtures.csv:2: ability is 'x', and there is no column of its lines"),
        ((",2,2,2", ",2,-2,2"), "mixtures.csv:2: b is '-2'; expected a number from 0"),
        ((",2,2,2", ",2,many,2"), "b is 'many'"),
        (("r1,a", "r0,a"), "mixtures.csv:5: r0 has a value of a in line 2"),
        (("r0,a,", "r0,a,-"), "mixtures.csv:2: value is"),
        ((",2,2,2", ",2,2"), "mixtures.csv:2: has more or fewer fields"),
        ((",2,2,2", ",2,2,3"), "mixtures.csv:3: r0 has other lines than in line 2"),
    ],
)
def test_rows_that_are_no_measurement(tmp_path, change, says):
    path = mixtures_file(tmp_path, curves(), losses_of(curves()))
    text = path.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change, 1), encoding="utf-8")
    done = run(ROOT / "evaluate/fit.py", "--mixtures", path, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("few_draws")
def test_names_with_dollar_signs_and_long_ones_are_drawn(tmp_path):
    path = mixtures_file(tmp_path, curves(), losses_of(curves()))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(",a,", ",$a^$,").replace(",b,", f",{'b' * 5000},"), "utf-8")
    done = run(ROOT / "evaluate/fit.py", "--mixtures", path, "--output_dir", "out", cwd=tmp_path)
    assert "Warning" not in done.stderr
    assert (tmp_path / "out/transference.png").read_bytes()[:4] == b"\x89PNG"


def test_what_no_matrix_can_be_of(tmp_path):
    def refused(text, script="fit.py", *flags):
        (tmp_path / "m.csv").write_text(text, encoding="utf-8")
        command = (ROOT / "evaluate" / script, "--mixtures", "m.csv", *flags)
        done = run(*command, cwd=tmp_path, check=False)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    one = "run,ability,value,a\n0,a,3,10\n1,a,2,20\n"
    assert "two abilities, and there is only a" in refused(one)
    for header in ("run,ability,value\n", "run,ability,value,a,b\n"):
        assert "m.csv: has no rows below its header" in refused(header)
        assert "m.csv: has no rows" in refused(header, "plan.py", "--budget", "9")


def test_too_little_was_measured(tmp_path):
    def refused(path):
        done = run(
            ROOT / "evaluate/plan.py", "--budget", 9, "--mixtures", path, cwd=tmp_path, check=False
        )
        assert done.returncode == 2
        return done.stderr

    lines = curves()
    one = mixtures_file(tmp_path, lines[:1], losses_of(lines[:1]))
    assert "a, b, c was measured on one size and mixture only; a law needs two" in refused(one)
    path = mixtures_file(tmp_path, lines, losses_of(lines))
    rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(r for r in rows if r.split(",")[1] != "c"), encoding="utf-8")
    assert "nothing was measured of c" in refused(path)


def plan_script(folder, *flags, budget=90, check=True):
    path = mixtures_file(folder, curves(), hills([0.5, 0.5, 60]), n=1000)
    command = (ROOT / "evaluate/plan.py", "--budget", budget, "--mixtures", path)
    return run(*command, *flags, cwd=folder, check=check)


@pytest.mark.usefixtures("few_draws")
def test_two_sizes_are_enough_for_a_plan(tmp_path):
    values = hills([0.5, 0.5, 60])[[0, 3]]
    path = mixtures_file(tmp_path, curves()[[0, 3]], values, n=1000)
    done = run(ROOT / "evaluate/plan.py", "--budget", 90, "--mixtures", path, cwd=tmp_path)
    assert "equal shares" in done.stdout
    rows = table(tmp_path / "evaluate/plan/plan.csv")
    assert sum(int(row["plan_lines"]) for row in rows) == 90
    assert {row["equal_lines"] for row in rows} == {"30"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--at_most", "x=3"), "--at_most x=3: 'x' is not one of the abilities a, b, c"),
        (("--at_most", "a"), "--at_most a: expected NAME=NUMBER, such as a=3"),
        (("--at_most", "a=10.5"), "--at_most a=10.5: expected a whole number of lines"),
        (("--at_most", "a=-1"), "--at_most a is '-1'; expected a number from 0"),
        (("--cost", "a=-3"), "--cost a is '-3'; expected a number from 1e-09"),
        (("--cost", "a=0"), "--cost a is '0'"),
        (("--cost", "a=nan"), "--cost a is 'nan'"),
        (("--cost", "a=100"), "below one line for each of the 3 abilities, which cost 102"),
        (("--at_most", "a=1", "b=1", "c=1"), "all lines that can be bought cost 3"),
        (("--objective", "best"), "--objective best: expected mean, worst, or a CSV file"),
        (("--objective", "w.csv"), "--objective w.csv: no such file; give a CSV file"),
        (("--cost", "a=3", "a=4"), "--cost a=4: a has a number already"),
        (("--at_most", "a=90", "a=4"), "--at_most a=4: a has a number already"),
        (("--have", "curated-640"), "--have curated-640: these abilities are of no study"),
        (("--repeats", "0"), "--repeats"),
    ],
)
def test_what_no_plan_can_be_made_of(tmp_path, flags, says):
    done = plan_script(tmp_path, *flags, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("few_draws")
def test_the_screen_says_what_its_numbers_are(tmp_path):
    """Units, intervals, costs where there are any; and no certainty from a few draws."""
    scores = plan_script(tmp_path, "--cost", "a=2", budget=192).stdout
    assert "scores in per cent, in brackets the law's 90 % interval" in scores
    assert "plan_cost" in scores
    # only c's lines are still worth something
    path = mixtures_file(tmp_path, curves(), 0.4 + 2 / (1 + curves() / [0.5, 0.5, 60]))
    done = run(ROOT / "evaluate/plan.py", "--mixtures", path, "--budget", 96, cwd=tmp_path)
    assert "predicted: losses, in brackets" in done.stdout
    assert "plan_cost" not in done.stdout
    said = r"probability (?:above )?(0\.\d\d): the mean by [\d.]+ per cent of the loss \(.*, 90 %\)"
    found = re.search(said, done.stdout)
    assert found is not None
    assert float(found[1]) <= 1 - 1 / (amounts.DRAWS // 2 + 1)


@pytest.mark.usefixtures("few_draws")
def test_values_far_apart_and_names_with_equals_signs(tmp_path):
    rows = ["r1,a=b,1e6,100,20", "r1,c,1e-9,100,20", "r2,a=b,1e-3,20,100", "r2,c,0.8,20,100"]
    text = "\n".join(["run,ability,value,a=b,c", *rows, ""])
    (tmp_path / "far.csv").write_text(text, encoding="utf-8")
    flags = ("--mixtures", "far.csv", "--budget", 50, "--at_most", "a=b=30", "--output_dir", "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/plan.toml").write_text("an earlier plan's")
    done = run(ROOT / "evaluate/plan.py", *flags, cwd=tmp_path)
    assert "Warning" not in done.stderr
    assert "no recipe: these abilities are of no study" in done.stderr
    assert not (tmp_path / "out/plan.toml").exists()
    lines = {row["ability"]: int(row["plan_lines"]) for row in table(tmp_path / "out/plan.csv")}
    assert lines["a=b"] <= 30


def test_a_start_of_scores_is_a_per_cent(few_draws):
    lines = curves()
    for law in fit_amounts(measured(lines, 0 * lines, 100, 0.0)):
        assert law.start.min() >= 0


@pytest.mark.usefixtures("few_draws")
def test_a_budget_far_beyond_what_was_measured(tmp_path):
    done = plan_script(tmp_path, budget=7680)
    assert "7,680 lines in all are 20 times the largest run measured (384)" in done.stderr
    assert "note" not in plan_script(tmp_path, budget=384).stderr


@pytest.mark.parametrize("budget", ["0", "-1", "2", "x"])
def test_budgets_below_one_line_each(tmp_path, budget):
    done = plan_script(tmp_path, budget=budget, check=False)
    assert done.returncode == 2
    assert "--budget" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ability,weight\nx,1\n", "w.csv:2: 'x' is not one of"),
        ("ability,weight\na,-1\n", "w.csv:2: weight is '-1'"),
        ("ability,weight\na,0\n", "no ability has a weight above 0"),
        ("ability,weight\na,1\na,2\n", "w.csv:3: a has a weight already"),
        ("ability\na\n", "lacks the column weight"),
    ],
)
def test_weights_that_are_none(tmp_path, text, says):
    (tmp_path / "w.csv").write_text(text, encoding="utf-8")
    done = plan_script(tmp_path, "--objective", "w.csv", check=False)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.fixture
def results(tmp_path):
    """Results of equal shares and of a recipe without biology; later abilities score higher."""
    recipe = {"samples": 90, "lines": dict.fromkeys(ABILITY_NAMES[1:], 10), "pools": {}}
    recipe["pools"] = dict.fromkeys(recipe["lines"], "curated/1000")
    folder = tmp_path / "results/test"
    for setting, score in (("curated-10", 20), ("curated-40", 30), ("curated-160", 60)):
        write(folder, setting, score, types=ABILITY_NAMES)
    write(folder, "synthetic-10", 30, types=ABILITY_NAMES)
    write(folder, "blend", 50, types=ABILITY_NAMES, recipe=recipe)
    write(folder, "untuned", 80, types=ABILITY_NAMES, timestamp="base", seed=None)
    return folder


@pytest.mark.usefixtures("few_draws")
def test_a_plan_from_results_is_a_recipe(results, tmp_path, tiny_data):
    command = (ROOT / "evaluate/plan.py", "--results_path", results, "--budget", 80)
    done = run(*command, "--have", "curated-10", "--data_dir", tmp_path, cwd=tmp_path)
    assert "synthetic-10: left out, its lines are not known by ability" in done.stderr
    assert "base" not in done.stderr
    recipe = read_recipe(tmp_path / "evaluate/plan/plan.toml", STUDY)
    assert (recipe.name, recipe.samples) == ("plan-90", 90)
    assert min(share.quota for share in recipe.shares) >= 1
    rows = table(tmp_path / "evaluate/plan/plan.csv")
    assert [row["ability"] for row in rows] == list(ABILITY_NAMES)
    assert {row["equal_lines"] for row in rows} == {"9"}
    for name in ("a b", "x" * 90, "curated-10"):
        refused = run(*command, "--name", name, cwd=tmp_path, check=False)
        assert refused.returncode == 2
        assert f"error: --name: {name!r}" in refused.stderr
    short = run(*command, "--data_dir", tiny_data, cwd=tmp_path, check=False)
    assert short.returncode == 2
    assert "--budget 80: all lines that can be bought cost 40" in short.stderr


def test_the_lines_of_each_run_are_read(results, tmp_path):
    from growth.core.options import MixtureOptions
    from growth.planning.measured import measured

    found = measured(MixtureOptions(results_path=results), None, "score").measured
    biology, history = found.outcomes[:2]
    place = found.names.index("biology")
    assert sorted(biology.amounts[:, place]) == [0, 1, 4, 16]
    assert sorted(history.amounts[:, found.names.index("history")]) == [1, 4, 10, 16]
    assert dict(zip(biology.amounts[:, place], biology.values, strict=True))[16] == 60
    assert biology.chance == 25
    with pytest.raises(InputError, match=r"loss: nothing was measured of biology"):
        measured(MixtureOptions(results_path=results, value="loss"), None, "loss")
    instead = measured(MixtureOptions(results_path=results), None, "loss")
    assert instead.notes[-1].endswith("no result has a loss, so scores are fitted")
    assert instead.measured.outcomes[0].is_score
    write(results, "curated-10", 30, size="13b", types=ABILITY_NAMES)
    with pytest.raises(InputError, match="results of 7b, 13b; choose one with --model_size"):
        measured(MixtureOptions(results_path=results), None, "score")
    with pytest.raises(InputError, match=r"--model_size 1b: .* has 7b, 13b"):
        measured(MixtureOptions(results_path=results, model_size="1b"), None, "score")
