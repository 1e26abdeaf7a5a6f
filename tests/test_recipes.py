"""A setting in a file of its own: built, tuned and drawn though the study does not list it."""

import json

import pytest
from conftest import ABILITY_NAMES, STUDY, copy_scripts, line, read_lines, run, write_lines

from growth.core.errors import InputError
from growth.data.settings import build_setting, setting_of
from growth.data.study import read_recipe
from growth.report.results_table import read_results

RECIPE = """
name = "blend"
[[take]]
pool = "curated"
[take.lines]
math = 3
biology = 2
"""


@pytest.fixture
def pool(tmp_path):
    for name in ABILITY_NAMES:
        lines = [line(name, f"{number}") for number in range(4)]
        write_lines(tmp_path / f"curated/1000/{name}_1000.json", lines)
    return tmp_path


def recipe_of(folder, text):
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path, STUDY)


def test_a_recipe_holds_the_first_lines_of_the_settings_sample(pool):
    built = build_setting(STUDY, recipe_of(pool, RECIPE), pool, 1)
    whole = build_setting(STUDY, STUDY.recipe("curated-40"), pool, 1)
    assert {name: len(lines) for name, lines in built.items()} == {"biology": 2, "math": 3}
    assert all(lines == whole[name][: len(lines)] for name, lines in built.items())


def test_lines_repeat_where_the_recipe_says_so_and_only_there(pool, capsys):
    more = RECIPE.replace("math = 3", "math = 9")
    with pytest.raises(InputError, match=r"asks for 9 lines of math.*holds 4.*distinct"):
        build_setting(STUDY, recipe_of(pool, more), pool, 0)
    recipe = recipe_of(pool, f"{more}[take.distinct]\nmath = 4\n")
    math = list(build_setting(STUDY, recipe, pool, 0)["math"])
    assert math == [*math[:4], *math[:4], math[0]]
    assert len({json.dumps(record) for record in math}) == 4
    assert recipe.samples == 11
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("math = 3", "maths = 3"), r"take\[0\].lines: maths: expected abilities"),
        (("math = 3", "math = -3"), r"expected numbers above 0 or 'all', found {'math': -3}"),
        (("math = 3", "math = 0"), "expected numbers above 0"),
        (("math = 3", "math = 1.5"), r"take\[0\].lines"),
        (("math = 3", "ceval_planner = 3"), "that are not out of domain"),
        (('"blend"', '"curated-40"'), "name: 'curated-40' is the name of a setting already"),
        (('"blend"', '"a/b"'), "expected a plain name"),
        (('pool = "curated"', 'pool = "mine"'), "no such pool; pools: curated"),
        (('pool = "curated"', 'pot = "curated"'), "unknown field 'pot'; expected pool, lines"),
        (('name = "blend"', 'name = "blend"\nseries = 1'), "expected name, samples, take"),
        (('name = "blend"', ""), "missing required field 'name'"),
        (('name = "blend"', 'name = "blend"\nsamples = 9'), "takes 5 lines but stands at 9"),
        (('name = "blend"', 'name = "blend"\nsame_as = "baseline"'), "same_as: only a setting"),
        (('name = "blend"', 'name = "blend"\nextends = "max"'), "extends: max: no such setting"),
        (("math = 3", 'math = "all"'), "expected the same number"),
        (("biology = 2", "biology = 2\n[take.distinct]\nmath = 4"), "distinct: math = 4"),
        (("biology = 2", "biology = 2\n[take.distinct]\ncode = 1"), "found none"),
        (('name = "blend"', "name = "), "not TOML.*line 2"),
        (("math = 3", f"math = {10**9}"), "a setting of more than 100,000,000 lines"),
        (("math = 3", f"math = {10**20}"), "a setting of more than 100,000,000 lines"),
        (
            ('name = "blend"', f'name = "blend"\nsamples = {10**400}\nextends = "maximum"'),
            "a setting of more than 100,000,000 lines",
        ),
    ],
)
def test_what_is_no_recipe(pool, change, says):
    text = RECIPE.replace(*change)
    assert text != RECIPE
    with pytest.raises(InputError, match=f"--recipe .*recipe.toml.*{says}"):
        recipe_of(pool, text)


def test_a_recipe_may_hold_a_setting_and_all_there_is(pool):
    text = 'name = "more"\nextends = "curated-10"\ntake = [{ pool = "synthetic", lines = 4 }]'
    assert recipe_of(pool, text).samples == 14
    text = 'name = "x"\nsamples = 4\n[[take]]\npool = "curated"\nlines = { math = "all" }'
    assert recipe_of(pool, text).samples == 4
    with pytest.raises(InputError, match=r"x.samples: expected how many lines"):
        recipe_of(pool, text.replace("samples = 4\n", ""))


def test_two_recipes_of_one_name(checkout, pool):
    for name in ("a", "b"):
        (checkout / f"{name}.toml").write_text(RECIPE, encoding="utf-8")
    command = ("data/build.py", "--data_dir", pool, "--output_dir", "out", "--recipe", "a.toml")
    done = run(*command, "b.toml", cwd=checkout, check=False)
    assert done.returncode == 2
    assert "--recipe b.toml: name: 'blend' is the name of a setting already" in done.stderr
    done = run(*command, "--data_type", "all", cwd=checkout, check=False)
    assert done.returncode == 2
    assert "not allowed with" in done.stderr


OWN = """
name = "own"
[run]
epochs = 1
max_length = 128
max_new_tokens = 4
[[abilities]]
name = "one"
kind = "letter"
[[abilities]]
name = "two"
kind = "letter"
[pools.p]
path = "train"
[[series]]
name = "own"
sizes = [2, 4]
take = [{ pool = "p" }]
"""
BLEND = 'name = "blend"\n[[take]]\npool = "p"\nlines = { one = 5, two = 1 }\ndistinct = { one = 2 }'


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, tiny_model):
    """A folder in which a run of a recipe was built, tuned, evaluated and drawn."""
    root = copy_scripts(tmp_path_factory.mktemp("blend"))
    (root / "own.toml").write_text(OWN, encoding="utf-8")
    (root / "blend.toml").write_text(BLEND, encoding="utf-8")
    for part, count in (("train", 3), ("valid", 2), ("test", 3)):
        for name in ("one", "two"):
            lines = [line(name, "B", idx=i, n=i) for i in range(count)]
            write_lines(root / f"lines/{part}/{name}.json", lines)
    study = ("--study", "own.toml")
    build = ("--recipe", "blend.toml", "--data_dir", "lines", "--output_dir", "data")
    run("data/build.py", *study, *build, cwd=root)
    run(
        *("train/finetune.py", *study, "--model_name_or_path", tiny_model),
        *("--train_dir", "data/blend", "--valid_dir", "lines/valid", "--model_size", "tiny"),
        *("--data_type", "blend", "--output_dir", "runs/r"),
        cwd=root,
    )
    run("evaluate/run.py", "--run_dir", "runs/r", "--data_dir", "lines", cwd=root)
    return root


def test_all_stages_know_the_recipe(tuned):
    assert len(read_lines(tuned / "data/blend/one.json")) == 5
    table = read_results(
        tuned / "evaluate/results/test", tuned / "evaluate/results/valid", tuned / "own.toml"
    )
    assert set(table.rows["source"]) == {"other"}
    assert set(table.rows["samples"]) == {6}
    assert not table.notes
    recipe = table.study.recipe("blend")
    assert {share.name: share.quota for share in recipe.shares} == {"one": 5, "two": 1}
    assert {share.name: share.distinct for share in recipe.shares} == {"one": 2, "two": None}
    done = run("evaluate/plot.py", "--plot_type", "all", cwd=tuned)
    assert "note" not in done.stderr
    assert (tuned / "evaluate/plots/overall/average.png").is_file()
    run("evaluate/report.py", "--runs_dir", "runs", cwd=tuned)


def test_another_recipe_of_the_same_name_is_left_out(tuned, tmp_path):
    source = next((tuned / "evaluate/results/test").rglob("*-results.json"))
    results = json.loads(source.read_text(encoding="utf-8"))
    (tmp_path / "a-results.json").write_text(json.dumps(results), encoding="utf-8")
    results["run"]["timestamp"] = "later"
    results["run"]["recipe"]["lines"]["one"] = 4
    (tmp_path / "b-results.json").write_text(json.dumps(results), encoding="utf-8")
    table = read_results(tmp_path, tmp_path, tuned / "own.toml")
    assert set(table.rows["timestamp"]) == {"r"}
    (note,) = table.notes
    assert "b-results.json: left out, blend names other lines, too" in note


def test_a_run_is_recorded_as_the_recipe_that_was_built(tuned, tiny_model):
    from growth.data.study import read_study

    study = read_study(tuned / "own.toml")
    assert setting_of(study, "blend", tuned / "data/blend").samples == 6
    with pytest.raises(InputError, match="no such setting"):
        setting_of(study, "other", tuned / "data/blend")
    done = run(
        *("train/finetune.py", "--study", "own.toml", "--model_name_or_path", tiny_model),
        *("--train_dir", "data/blend", "--valid_dir", "lines/valid", "--data_type", "own-2"),
        *("--output_dir", "runs/other"),
        cwd=tuned,
        check=False,
    )
    assert done.returncode == 2
    assert "it holds blend, and the run would be recorded as own-2" in done.stderr
