"""The 19 settings: counts, nesting, independence of everything but lines and seed."""

import copy
import functools
import itertools
import json
import random
import shutil

import pytest
from conftest import ABILITY_NAMES, FACTS, ROOT, STUDY, line, read_lines, run, write_lines

from growth.core.errors import InputError
from growth.core.files import sha256
from growth.data import settings
from growth.data.published import DOIT_FULL
from growth.data.settings import build_setting, check_build, write_build

DATA_TYPES = list(STUDY.recipes)
CURATED_SIZES, SYNTHETIC_SIZES = (STUDY.series[name].sizes for name in ("curated", "synthetic"))
OPEN_ENDED = {"ethics": 64, "role_play": 64, "creative_writing": 1000}


def building(data_type, data_dir, seed=0):
    return build_setting(STUDY, STUDY.recipe(data_type), data_dir, seed)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """DoIT's layout with its published numbers of lines, each line different, all short."""
    folder = tmp_path_factory.mktemp("published")

    def write(path, kind, count):
        messages = '"messages": [{"role": "user", "content": "问"}, '
        text = "".join(
            f'{{{messages}{{"role": "assistant", "content": "{kind}{i}"}}], "type": "{kind}"}}\n'
            for i in range(count)
        )
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")

    for ability in ABILITY_NAMES:
        write(f"curated/1000/{ability}_1000.json", ability, 1000)
        write(f"curated/full/{ability}_full.json", ability, DOIT_FULL[ability])
    write("synthetic/40960/general_instruction_gpt4_41k.json", "synthetic", 40960)
    return folder


@pytest.fixture(scope="module")
def built(published):
    """The 19 settings; each file is read once for all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "_lines_of", functools.cache(settings._lines_of))
        return {name: building(name, published) for name in DATA_TYPES}


def test_there_are_the_19_settings():
    assert len(DATA_TYPES) == len(set(DATA_TYPES)) == 19


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_the_place_on_the_axis_is_the_number_of_lines(built, data_type):
    assert sum(map(len, built[data_type].values())) == STUDY.recipes[data_type].samples


@pytest.fixture(params=FACTS)
def data_set(request):
    """One in DoIT's format and numbers: made up, and a real one where it is."""
    return request.getfixturevalue("proxy" if request.param == "shared" else "published")


def test_a_data_set_builds(data_set):
    built = building("reconstruct", data_set, 0)
    first = read_lines(data_set / "curated/full/chinese_full.json")[:1306]
    assert built["chinese"] == first
    assert sorted(built) == sorted(ABILITY_NAMES)


@pytest.mark.parametrize("size", CURATED_SIZES)
def test_curated_holds_a_tenth_of_each_ability(built, size):
    assert {name: len(lines) for name, lines in built[f"curated-{size}"].items()} == dict.fromkeys(
        sorted(ABILITY_NAMES), size // 10
    )


@pytest.mark.parametrize("size", SYNTHETIC_SIZES)
def test_synthetic_is_not_split_by_ability(built, size):
    assert [len(lines) for lines in built[f"synthetic-{size}"].values()] == [size]


@pytest.mark.parametrize("source", ["curated", "synthetic"])
def test_subsets_are_nested(built, source):
    sizes = CURATED_SIZES if source == "curated" else SYNTHETIC_SIZES
    for small, large in itertools.pairwise(sizes):
        for name, lines in built[f"{source}-{small}"].items():
            assert built[f"{source}-{large}"][name][: len(lines)] == lines


def test_baseline_and_mix_0_are_what_they_repeat(built):
    assert built["baseline"] == built["curated-10000"]
    assert built["mix-0"] == built["maximum"]


def test_reconstruct_and_maximum_take_the_first_lines(built, published):
    full = {
        name: read_lines(published / f"curated/full/{name}_full.json") for name in ABILITY_NAMES
    }
    for name, lines in built["maximum"].items():
        assert lines == full[name][: OPEN_ENDED.get(name)]
    quotas = OPEN_ENDED | {"biology": None, "chinese": 1306}
    for name, lines in built["reconstruct"].items():
        assert lines == full[name][: quotas.get(name, 1305)]


@pytest.mark.parametrize("size", [2560, 40960])
def test_mix_is_maximum_and_synthetic(built, size):
    mix = dict(built[f"mix-{size}"])
    assert mix.pop("synthetic") == built[f"synthetic-{size}"]["synthetic"]
    assert mix == built["maximum"]


def test_another_seed_samples_other_lines(built, published):
    assert building("curated-160", published, 1) != built["curated-160"]


def test_other_files_and_file_names_do_not_change_a_sample(published, tmp_path, built):
    """Same lines under other names, one ability in two files, read in another order."""
    source = published / "curated/1000"
    files = list(source.glob("*.json"))
    random.Random(0).shuffle(files)
    target = tmp_path / "curated/1000"
    target.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, target / f"z{path.name}")
    lines = (source / "math_1000.json").read_bytes().splitlines(keepends=True)
    (target / "zmath_1000.json").unlink()
    (target / "a_1000.json").write_bytes(b"".join(lines[:400]))
    (target / "b_1000.json").write_bytes(b"".join(lines[400:]))
    assert building("curated-160", tmp_path, 0) == built["curated-160"]


def test_build_writes_the_table_and_replaces_an_older_folder(tiny_data, checkout):
    stale = write_lines(checkout / "data/curated-10/stale.json", [line()])
    done = run("data/build.py", "--data_type", "curated-10", "--data_dir", tiny_data, cwd=checkout)
    assert not stale.exists()
    folder = checkout / "data/curated-10"
    names = [*(f"{n}.json" for n in ABILITY_NAMES), "build.record"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)
    assert (
        f"{folder.relative_to(checkout)}: replaced other lines, of an unknown seed" in done.stderr
    )
    characters = sum(len(m["content"]) for m in read_lines(folder / "biology.json")[0]["messages"])
    row = next(text for text in done.stdout.splitlines() if text.startswith("biology.json"))
    assert row.split() == ["biology.json", "1", str(characters)]


def test_all_that_comes_to_another_total_is_said(tiny_data, tmp_path):
    (tmp_path / "own.toml").write_text(
        'name = "own"\n[[abilities]]\nname = "biology"\nkind = "letter"\n'
        '[pools.p]\npath = "curated/1000/biology_1000.json"\n'
        '[[series]]\nname = "all"\nsizes = [4, 6]\ntake = [{ pool = "p", lines = "all" }]\n'
        '[[settings]]\nname = "again"\nsame_as = "all-6"\n',
        encoding="utf-8",
    )
    build = (ROOT / "data/build.py", "--study", "own.toml", "--data_dir", tiny_data)
    done = run(*build, "--data_type", "all", cwd=tmp_path)
    said = [text for text in done.stderr.splitlines() if text.startswith("data/")]
    assert said == [
        f"data/{name}: 4 lines, while own.toml gives {name} 6 samples, which is where figures draw "
        "it"
        for name in ("all-6", "again")
    ]


def test_another_seed_in_the_same_folder_is_said(checkout):
    path = write_lines(
        checkout / "own/curated/1000/x_1000.json",
        [line(name, f"{number}") for name in ABILITY_NAMES for number in range(9)],
    )
    command = ("data/build.py", "--data_type", "curated-10", "--data_dir", path.parents[2])
    assert not run(*command, cwd=checkout).stderr
    assert not run(*command, cwd=checkout).stderr
    done = run(*command, "--seed", "1", cwd=checkout)
    assert done.stderr == "data/curated-10: replaced other lines, of seed 0\n"
    record = checkout / "data/curated-10/build.record"
    record.write_text(record.read_text().replace('"doit"', '"theirs"'))
    done = run(*command, cwd=checkout)
    assert done.stderr == "data/curated-10: replaced other lines, of seed 1 of the study theirs\n"
    run(*command, "--seed", "1", cwd=checkout)
    built = json.loads(record.read_text())
    assert (built["study"], built["setting"], built["seed"]) == ("doit", "curated-10", 1)
    assert len(built["files"]) == 10


@pytest.fixture
def curated_10(tmp_path):
    """A folder built as curated-10, with what a run reads of its files."""
    lines = dict.fromkeys(ABILITY_NAMES, 1)
    for name in lines:
        write_lines(tmp_path / f"{name}.json", [line(name)])
    write_build(tmp_path, STUDY, STUDY.recipe("curated-10"), 1, lines)
    return tmp_path


def of_run(folder):
    return {
        path.name: {"lines": len(read_lines(path)), "sha256": sha256(path)}
        for path in folder.glob("*.json")
    }


def test_what_is_trained_on_is_the_setting_that_is_recorded(curated_10, caplog):
    built = check_build(curated_10, of_run(curated_10), STUDY, "curated-10", 1)
    assert built["seed"] == 1
    assert not caplog.records
    # a name of the user's is his own
    assert check_build(curated_10, of_run(curated_10), STUDY, "mine", 1) == built
    check_build(curated_10, of_run(curated_10), STUDY, "curated-10", 0)
    assert "lines are those of seed 1, and the run has --seed 0" in caplog.text
    with pytest.raises(InputError, match=r"holds curated-10, .* recorded as curated-40; give"):
        check_build(curated_10, of_run(curated_10), STUDY, "curated-40", 1)
    other = copy.copy(STUDY)
    other.name = "law"
    with pytest.raises(InputError, match="built for the study doit, and this run is of law"):
        check_build(curated_10, of_run(curated_10), other, "curated-10", 1)


def test_settings_of_the_same_lines_stand_for_each_other(tmp_path):
    write_build(tmp_path, STUDY, STUDY.recipe("baseline"), 0, {})
    assert STUDY.recipe("maximum").same_as == STUDY.recipe("mix-0").same_as
    check_build(tmp_path, {}, STUDY, STUDY.recipe("baseline").same_as, 0)


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_built_files_that_have_changed_are_refused(curated_10, change):
    name = "code.json"
    if change == "edit":
        write_lines(curated_10 / name, [line("code", "B")])
    elif change == "add":
        name = "more.json"
        write_lines(curated_10 / name, [line("code")])
    else:
        (curated_10 / name).unlink()
    with pytest.raises(InputError, match=rf"changed: {name}\).*remove its build.record"):
        check_build(curated_10, of_run(curated_10), STUDY, "curated-10", 1)
    (curated_10 / "build.record").unlink()
    assert check_build(curated_10, of_run(curated_10), STUDY, "curated-10", 1) is None


def test_another_number_of_lines_than_the_settings_is_said(curated_10, caplog):
    (curated_10 / "build.record").unlink()
    check_build(curated_10, of_run(curated_10), STUDY, "curated-10", 0)
    assert not caplog.records
    check_build(curated_10, of_run(curated_10), STUDY, "curated-160", 0)
    assert "10 lines, recorded as curated-160, which has 160" in caplog.text


def test_a_damaged_record_of_a_build_is_named(curated_10):
    (curated_10 / "build.record").write_text("{}")
    with pytest.raises(InputError, match=r"build\.record.*build the setting again"):
        check_build(curated_10, of_run(curated_10), STUDY, "curated-10", 0)


def test_a_short_file_says_which_and_how_many(tiny_data, checkout):
    done = run(
        *("data/build.py", "--data_type", "curated-160", "--data_dir", tiny_data),
        cwd=checkout,
        check=False,
    )
    assert done.returncode == 2
    for words in ("asks for 16 lines of biology", "holds 4", "curated/1000", "download"):
        assert words in done.stderr
    assert not (checkout / "data/curated-160").exists()


def test_an_unknown_setting_lists_the_known_ones_nearest_first(checkout):
    done = run("data/build.py", "--data_type", "curated-16", cwd=checkout, check=False)
    assert done.returncode == 2
    listed = done.stderr.partition("nearest first: ")[2].partition(". For")[0].strip().split(", ")
    assert listed[0] in ("curated-160", "curated-10")
    assert sorted(listed) == sorted(DATA_TYPES)


@pytest.mark.parametrize(
    ("parameters", "size"),
    [(6_885_486_592, "7b"), (13_250_000_000, "13b"), (270_000_000, "270m"), (1_303_680, "1.3m"),
     (2_000_000, "2m"), (950, "950")],
)  # fmt: skip
def test_sizes_as_people_say_them(parameters, size):
    from growth.runs.record import shortened

    assert shortened(parameters) == size


def test_small_totals_train_longer():
    """The rule that the published script meant and that a typo kept from firing."""
    longer = {"curated-10": 25, "synthetic-40": 20, "curated-160": 18}
    epochs = {name: STUDY.run.epochs_for(recipe.samples) for name, recipe in STUDY.recipes.items()}
    assert {name: epochs[name] for name in longer} == longer
    assert {e for name, e in epochs.items() if not name.endswith(("-10", "-40", "-160"))} == {15}


OWN = """
name = "own"
[[abilities]]
name = "biology"
kind = "letter"
[pools.p]
path = "train"
[[settings]]
name = "{}"
samples = 2
take = [{{ pool = "p", lines = {{ biology = 2 }} }}]
"""


@pytest.mark.parametrize(
    ("setting", "held"),
    [("train", {}), ("valid", {}), ("s", {"thesis.txt": "x"}), ("s", {"raw.json": "{}\n"})],
)
def test_a_build_replaces_nothing_but_builds(checkout, setting, held):
    """Neither the pool it takes from, nor lines to evaluate on, nor what is not its own."""
    (checkout / "own.toml").write_text(OWN.format(setting), encoding="utf-8")
    for name in ("train", "valid"):
        write_lines(checkout / f"lines/{name}/biology.json", [line(idx=i) for i in range(4)])
    for name, text in held.items():
        write_lines(checkout / f"lines/{setting}/{name}", [text])
    before = {path: path.read_bytes() for path in checkout.rglob("lines/*/*")}
    flags = ("--data_type", setting, "--data_dir", "lines", "--output_dir", "lines")
    done = run("data/build.py", "--study", "own.toml", *flags, cwd=checkout, check=False)
    assert done.returncode == 2
    assert f"--output_dir lines: lines/{setting} would be replaced" in done.stderr
    assert {path: path.read_bytes() for path in checkout.rglob("lines/*/*")} == before


def test_a_build_goes_where_a_link_points(checkout):
    (checkout / "own.toml").write_text(OWN.format("s"), encoding="utf-8")
    write_lines(checkout / "lines/train/biology.json", [line(idx=i) for i in range(4)])
    (checkout / "disk").mkdir()
    (checkout / "lines/s").symlink_to(checkout / "disk")
    flags = ("--data_type", "s", "--data_dir", "lines", "--output_dir", "lines")
    for seed in (0, 1):
        run("data/build.py", "--study", "own.toml", *flags, "--seed", seed, cwd=checkout)
    assert (checkout / "lines/s").is_symlink()
    assert len(read_lines(checkout / "disk/biology.json")) == 2


def test_builds_of_before_there_was_a_record_are_replaced(checkout, tiny_data):
    flags = ("--data_type", "curated-10", "--data_dir", tiny_data, "--output_dir", "out")
    write_lines(checkout / "out/curated-10/biology.json", [line()])
    run("data/build.py", *flags, cwd=checkout)
    assert (checkout / "out/curated-10/build.record").is_file()
