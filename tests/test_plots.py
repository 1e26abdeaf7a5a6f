"""evaluate/plot.py and the numbers behind its figures, on results files written here."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from conftest import ABILITIES, OUT_OF_DOMAIN, STUDY
from conftest import run as run_script
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from in_process import load_script
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.font_manager import fontManager
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from growth.core.errors import InputError
from growth.data.study import read_study
from growth.report.axes import look_of
from growth.report.curves import growth_points, size_key, sizes_of, smooth
from growth.report.plots import drawings, fonts_of, title_of
from growth.report.results_table import read_results
from growth.report.style import COLOURS, CURVE_ORDER, figure_style
from growth.report.values import with_value

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "evaluate" / "plot.py"
TYPES = ("biology", "code")
CEVAL = "ceval_physician"
SEVEN_B = [int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]  # red, green, blue


plot = load_script(SCRIPT)


def scored(kind, score, expected=25.0, n=100):
    low, high = max(0.0, score - 9.5), min(100.0, score + 9.25)
    return {"type": kind, "n": n, "score": score, "expected": expected, "low": low, "high": high}


def results_of(score, types=(*TYPES, CEVAL), **run):
    """The content of a results file; every ability scores `score`, more by its place."""
    files = {f"{kind}_test": scored(kind, score + i, 25.0 + i) for i, kind in enumerate(types)}
    value = {"run": run, "files": files}
    for name, abroad in (("average", False), ("ood_average", True)):
        own = [f for f in files.values() if STUDY.ability_of(f["type"]).out_of_domain == abroad]
        if own:
            mean = sum(file["score"] for file in own) / len(own)
            ends = {f"{name}_low": max(0.0, mean - 5), f"{name}_high": min(100.0, mean + 5)}
            value |= {name: mean} | ends
            value |= {f"expected_{name}": sum(file["expected"] for file in own) / len(own)}
    return value


def write(folder, data_type, score, size="7b", timestamp="t0", checkpoint="checkpoint-3", **more):
    types = more.pop("types", (*TYPES, CEVAL))
    run = {"model_size": size, "data_type": data_type, "timestamp": timestamp}
    run |= {"checkpoint": checkpoint, "seed": 0, "limit": None} | more
    limit = f"-limit{run['limit']}" if run["limit"] else ""
    path = folder / size / data_type / timestamp / f"{checkpoint}{limit}-results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results_of(score, types, **run)), encoding="utf-8")
    return path


def select(folder, checkpoint, data_type="curated-10", limit=None):
    name = f"selected-checkpoint-limit{limit}.json" if limit else "selected-checkpoint.json"
    path = folder / "7b" / data_type / "t0" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    selection = {"model_size": "7b", "data_type": data_type, "timestamp": "t0", "limit": limit}
    path.write_text(json.dumps(selection | {"checkpoint": checkpoint, "reason": "best"}))


@pytest.fixture
def results(tmp_path):
    """Two sizes; curated at both, synthetic at 7b."""
    folder = tmp_path / "results" / "test"
    for data_type, score in (("curated-10", 20.0), ("curated-40", 31.0), ("baseline", 52.5)):
        write(folder, data_type, score)
    write(folder, "curated-10", 26.0, size="13b")
    write(folder, "synthetic-40", 24.0)
    write(folder, "synthetic-40960", 29.0)
    return folder


def run(results, tmp_path, plot_type, *flags):
    plots = tmp_path / "plots"
    places = (f"--results_path={results}", f"--plots_path={plots}")
    plot.main([f"--plot_type={plot_type}", *places, *flags])
    return plots


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def pairs(folder, *stems):
    return {f"{folder}/{stem}.{end}" for stem in stems for end in ("png", "csv")}


def points_of(results, selection=None):
    return growth_points(read_results(results, selection or results.parent / "valid").rows)


def texts(figure):
    """What titles and notes say, wherever their lines end."""
    parts = [
        text.get_text() for ax in figure.axes for text in [ax.title, ax._left_title, *ax.texts]
    ]
    return " ".join(" ".join([*parts, figure.get_suptitle()]).split())


OVERALL = pairs("overall", *TYPES, "average")
VERSUS = pairs("curated_vs_synthetic-7b", *TYPES, "average")
OOD = pairs("ood", "ceval_physician_fshot", "ood_average")


@pytest.mark.parametrize(
    ("plot_type", "expected"),
    [
        ("overall", OVERALL),
        ("curated_vs_synthetic-7b", VERSUS),
        ("ood", OOD),
        ("overview", pairs("all", "overview")),
        ("all", OVERALL | VERSUS | OOD | pairs("all", "overview")),
    ],
)
def test_a_plot_type_writes_exactly_its_files(results, tmp_path, capsys, plot_type, expected):
    plots = run(results, tmp_path, plot_type)
    assert files(plots) == expected
    printed = capsys.readouterr().out.splitlines()
    assert {str(Path(line).relative_to(plots)) for line in printed} == expected
    last = "all/overview.png" if plot_type in ("overview", "all") else "average.png"
    assert printed[-1].endswith(last)
    for path in plots.rglob("*.png"):
        pixels = (255 * imread(path)[..., :3]).round().astype(int)
        assert (pixels == SEVEN_B).all(axis=-1).any(), f"{path}: the curve of 7b is not seen"


def test_formats_are_the_same_bytes_whatever_the_machine(results, tmp_path):
    formats = ("--format", "png,svg,pdf")
    plots = run(results, tmp_path, "ood", *formats)
    stems = ("ceval_physician_fshot", "ood_average")
    assert files(plots) == {f"ood/{s}.{e}" for s in stems for e in ("csv", "png", "svg", "pdf")}
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\nsavefig.dpi: 40\n")
    other = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "MATPLOTLIBRC": str(tmp_path)}
    command = [sys.executable, SCRIPT, "--plot_type", "ood", "--plots_path", tmp_path / "other"]
    command += ["--results_path", results, *formats]
    subprocess.run(command, check=True, env=os.environ | other, capture_output=True)
    for name in files(plots):
        assert (plots / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name
    figure = (plots / "ood/ood_average.svg").read_text()
    assert "<text" not in figure  # no font is needed to read it
    assert (plots / "ood/ood_average.pdf").read_bytes()[:5] == b"%PDF-"


@pytest.mark.parametrize("formats", ["jpg", "png,", ""])
def test_a_format_that_there_is_not_is_refused(results, tmp_path, formats):
    with pytest.raises(InputError, match="is no format of figures; expected png, svg, pdf"):
        run(results, tmp_path, "ood", f"--format={formats}")
    assert not (tmp_path / "plots").exists()


def test_series_whose_names_begin_alike_are_told_apart(tmp_path):
    """b_vs_c-7-7b is b against c-7 at 7b, not against c at a size 7-7b."""
    series = "".join(
        f'[[series]]\nname = "{name}"\nsizes = [10]\ntake = [{{ pool = "p" }}]\n'
        for name in ("b", "c", "c-7")
    )
    path = tmp_path / "own.toml"
    path.write_text(
        f'name = "own"\n[pools.p]\npath = "p"\n[[abilities]]\nname = "a"\nkind = "text"\n{series}'
    )
    points = pd.DataFrame(
        {"model_size": "7b", "source": ["b", "c", "c-7"], "ability": "a", "parts": 1, "samples": 10}
        | {"limit": None, "value": "score"}
    )
    drawn = drawings(points, "all", read_study(path))
    pairs_drawn = {d.folder: set(d.points["source"]) for d in drawn if "_vs_" in d.folder}
    assert pairs_drawn == {"b_vs_c-7b": {"b", "c"}, "b_vs_c-7-7b": {"b", "c-7"}}


def test_csv_holds_the_numbers_of_the_results(results, tmp_path):
    plots = run(results, tmp_path, "overall")
    table = pd.read_csv(plots / "overall" / "biology.csv")
    assert table["model_size"].tolist() == ["7b", "7b", "7b", "13b"]
    assert table["samples"].tolist() == [10, 40, 10000, 10]
    assert table["data_type"].tolist() == [
        "curated-10",
        "curated-40",
        "curated-10000",
        "curated-10",
    ]
    assert table["score"].tolist() == [20.0, 31.0, 52.5, 26.0]
    assert table["low"].tolist() == [10.5, 21.5, 43.0, 16.5]
    assert table["high"].tolist() == [29.25, 40.25, 61.75, 35.25]
    assert set(table["chance"]) == {25.0}
    assert set(table["runs"]) == {1}
    assert set(table["n"]) == {100}
    assert table["run_scores"].tolist() == table["score"].tolist()
    assert table["checkpoints"].iloc[2] == "baseline/t0/checkpoint-3"
    assert "smoothed_score" not in table
    average = pd.read_csv(plots / "overall" / "average.csv")
    assert average["score"].tolist() == [20.5, 31.5, 53.0, 26.5]
    assert average["low"].tolist() == [15.5, 26.5, 48.0, 21.5]
    assert set(average["chance"]) == {25.5}


def test_samples_stand_at_their_true_places(results):
    (drawing, *_) = drawings(points_of(results), "curated_vs_synthetic-7b", STUDY)
    (ax,) = drawing.draw().axes
    lines = [
        line for line in ax.lines if len(line.get_xdata()) > 1 and line.get_zorder() == CURVE_ORDER
    ]
    curated, synthetic = (line.get_xdata().tolist() for line in lines)
    assert curated == [10, 40, 10000]
    assert synthetic == [40, 40960]
    place = ax.transData.transform
    assert place((curated[1], 0))[0] == place((synthetic[0], 0))[0]
    steps = np.diff([place((x, 0))[0] for x in (10, 40, 160, 640, 2560)])
    assert np.allclose(steps, steps[0])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [
        *("10", "40", "160", "640", "2,560", "10k", "41k")
    ]
    assert ax.get_xticks().tolist() == [10, 40, 160, 640, 2560, 10000, 40960]
    assert [line.get_linestyle() for line in lines] == ["-", "--"]
    assert ax.get_ylabel() == "score (%)"


def test_chance_is_a_dashed_line_with_a_label(results):
    (drawing, *_) = drawings(points_of(results), "overall", STUDY)
    figure = drawing.draw()
    (chance,) = [line for line in figure.axes[0].lines if line.get_label() == "chance"]
    assert set(chance.get_ydata()) == {25.0}
    assert chance.get_linestyle() != "-"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["7b curated", "13b curated", "chance"]
    assert "Biology" in texts(figure)
    assert "95 % interval" in texts(figure)


@pytest.mark.parametrize("join", ["raw", "law"])
def test_nothing_drawn_lies_outside_the_axes(tmp_path, join):
    for data_type, score in (("curated-10", 0.0), ("curated-40", 98.0), ("mix-40960", 99.0)):
        write(tmp_path / "test", data_type, score, types=("biology",))
    for drawing in drawings(points_of(tmp_path / "test"), "overall", STUDY, join):
        ax = drawing.draw().axes[0]
        assert ax.get_ylim() == (0, 100)
        left, right = ax.get_xlim()
        drawn = [line for line in ax.lines if line.get_label() != "chance"]
        places = np.concatenate([line.get_xdata() for line in drawn])
        assert left < places.min()
        assert places.max() < right
        assert (
            places.max() > (4 if join == "law" else 1) * 40
        )  # mix-40960 stands right of all curves and laws
    write(tmp_path / "low", "curated-10", 3.0, types=("biology",))
    ax = drawings(points_of(tmp_path / "low"), "overall", STUDY)[0].draw().axes[0]
    assert 27 < ax.get_ylim()[1] < 40  # the chance line and the interval fit


def test_the_overview_has_ten_panels_and_one_scale(results):
    overview = drawings(points_of(results), "all", STUDY)[-1]
    assert (overview.folder, overview.stem) == ("all", "overview")
    figure = overview.draw()
    titles = [" ".join(ax._left_title.get_text().split()) for ax in figure.axes]
    assert titles == [ability.title for ability in ABILITIES]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["7b curated", "13b curated", "7b synthetic", "chance"]
    assert sum("no results" in texts.get_text() for ax in figure.axes for texts in ax.texts) == 8
    assert set(overview.points["source"]) == {"curated", "synthetic"}
    write(results, "maximum", 60.0)
    overview = drawings(points_of(results), "all", STUDY)[-1]
    assert set(overview.points["source"]) == {"curated", "synthetic", "other"}


def test_settings_on_no_curve_stand_apart_by_name(results):
    write(results, "reconstruct", 60.0)
    write(results, "mix-0", 61.0)
    write(results, "mix-2560", 61.0)  # its lines are 7 % more than those of maximum
    points = points_of(results)
    biology = drawings(points, "overall", STUDY)[0]
    other = biology.points[biology.points["source"] == "other"]
    assert list(zip(other["data_type"], other["samples"], strict=True)) == [
        *(("reconstruct", 10000), ("maximum", 39564), ("mix-2560", 42124))
    ]
    figure = biology.draw()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["7b curated", "13b curated", "chance"]
    (ax,) = figure.axes
    named = dict(zip(ax.get_xticks(), [t.get_text() for t in ax.get_xticklabels()], strict=True))
    for name, marker in (("reconstruct", "*"), ("maximum", "P"), ("mix-2560", "X")):
        (line,) = [line for line in ax.lines if line.get_marker() == marker]
        assert named[line.get_xdata()[0]] == name
    for plot_type in ("curated_vs_synthetic-7b", "ood"):
        assert all(
            "other" not in set(d.points["source"]) for d in drawings(points, plot_type, STUDY)
        )


def test_repeats_are_averaged_and_each_is_shown(results, tmp_path):
    write(results, "curated-10", 30.0, timestamp="t1", seed=1)
    plots = run(results, tmp_path, "overall")
    first = pd.read_csv(plots / "overall" / "biology.csv", dtype={"run_scores": str}).iloc[0]
    # both noises: tests/test_repeats.py
    found = {"score": 25.0, "low": 4.955, "high": 44.791}
    assert first[list(found)].astype(float).to_dict() == pytest.approx(found, abs=1e-2)
    assert first["sd"] == pytest.approx(50**0.5)
    assert (first["runs"], first["n"], first["run_scores"]) == (2, 100, "20.0 30.0")
    assert first["checkpoints"] == "curated-10/t0/checkpoint-3 curated-10/t1/checkpoint-3"
    figure = drawings(points_of(results), "overall", STUDY)[0].draw()
    drawn = [line.get_ydata() for line in figure.axes[0].lines if line.get_xdata()[0] == 10]
    assert any(list(ys) == [20.0, 30.0] for ys in drawn)
    assert "training noise at several seeds only; marks: means, dashes: runs" in texts(figure)
    alone = points_of(results)[lambda points: points["samples"] > 10]
    assert "training noise is not in it" in texts(drawings(alone, "overall", STUDY)[0].draw())
    both = points_of(results)[lambda points: points["runs"] == 2]
    assert "of questions and training" in texts(drawings(both, "overall", STUDY)[0].draw())


@pytest.mark.parametrize(("seed", "runs"), [(0, 1), (1, 2), (None, 2)])
def test_two_names_of_one_setting_are_repeats_only_with_other_seeds(
    results, tmp_path, capsys, seed, runs
):
    write(results, "curated-10000", 72.5, timestamp="t1", seed=seed)
    write(results, "curated-10000", 42.5, timestamp="t2", seed=2)
    table = pd.read_csv(run(results, tmp_path, "overall") / "overall/biology.csv")
    point = table[table["samples"] == 10000].iloc[0]
    assert point["runs"] == runs + 1
    # seed 0: the mean of 52.5 and 72.5 is one repeat, so seed 2 counts as much as both
    assert point["score"] == pytest.approx(52.5 if runs == 1 else (52.5 + 72.5 + 42.5) / 3)
    assert point["checkpoints"].count("checkpoint-3") == 3
    note = "baseline/t0, curated-10000/t1 have the seed 0 in common"
    assert (note in capsys.readouterr().err) == (runs == 1)


def test_maximum_and_mix_0_of_one_seed_are_one_repeat(results):
    write(results, "maximum", 60.0)
    write(results, "mix-0", 64.0)
    points = points_of(results).set_index(["ability", "data_type"])
    point = points.loc[("biology", "maximum")]
    assert (point["score"], point["runs"], point["run_scores"]) == (62.0, 1, (62.0,))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.pop("code_test"), "without code_test"),
        (lambda files: files["code_test"].update(n=40), "40 lines of code_test"),
        (lambda files: files["code_test"].update(digest="b"), "other lines of code_test"),
        (lambda files: files.update(math_test=scored("math", 90.0)), "with math_test"),
    ],
)
def test_a_run_scored_on_other_files_is_not_on_the_curve_of_the_average(
    results, tmp_path, capsys, change, words
):
    for path in results.rglob("*-results.json"):
        value = json.loads(path.read_text())
        for entry in value["files"].values():
            entry["digest"] = "a"
        if "curated-40/" in str(path):
            change(value["files"])
        path.write_text(json.dumps(value))
    plots = run(results, tmp_path, "overall")
    average = pd.read_csv(plots / "overall/average.csv")
    assert average["samples"].tolist() == [10, 10000, 10]
    assert pd.read_csv(plots / "overall/biology.csv")["samples"].tolist() == [10, 40, 10000, 10]
    notes = capsys.readouterr().err
    assert "curated-40/t0/checkpoint-3-results.json: left out of average" in notes
    assert words in notes


FP32 = {"precision": "fp32", "max_new_tokens": 1024, "full_responses": False}
BF16 = {"precision": "bf16", "max_new_tokens": 4, "full_responses": True}


def test_runs_predicted_differently_are_not_on_one_curve(results, tmp_path, capsys):
    for data_type, score, decoding in (
        ("curated-10", 20.0, FP32),
        ("curated-40", 31.0, BF16),
        ("synthetic-40", 24.0, FP32 | {"full_responses": True}),  # no score depends on it
        ("synthetic-40960", 29.0, FP32 | {"precision": "auto"}),  # of older versions: not known
    ):
        write(results, data_type, score, decoding=decoding)
    write(results, "curated-10", 90.0, timestamp="t1", seed=1, decoding=BF16)
    write(results, "curated-10", 26.0, size="13b", decoding=BF16)
    plots = run(results, tmp_path, "all")
    table = pd.read_csv(plots / "overall/biology.csv")
    assert table["samples"].tolist() == [10, 10000, 10]  # `baseline` does not say; 13b is its own
    assert (table["runs"][0], table["score"][0]) == (1, 20.0)  # no repeat
    assert pd.read_csv(plots / "curated_vs_synthetic-7b/biology.csv")["samples"].tolist() == [
        *(10, 10000, 40, 40960)
    ]
    notes = capsys.readouterr().err
    for place in ("curated-40/t0", "curated-10/t1"):
        said = "-results.json: left out, as it was predicted in another way than most runs: "
        assert f"7b/{place}/checkpoint-3{said}max_new_tokens 4 and 1024, precision bf16" in notes
    assert "13b and 7b were predicted in different ways: max_new_tokens 4 and 1024" in notes


def test_one_run_against_one_is_not_most_runs(tmp_path, capsys):
    folder = tmp_path / "results/test"
    kept = write(folder, "curated-10", 20.0, decoding=FP32)
    write(folder, "curated-40", 31.0, decoding=BF16)
    run(folder, tmp_path, "overall")
    assert f"predicted in another way than {kept}: max" in capsys.readouterr().err
    write(folder, "curated-40", 31.0, decoding=FP32, types=("biology",))
    run(folder, tmp_path, "overall")
    notes = capsys.readouterr().err
    assert f"on other files than {kept}: without code_test" in notes
    assert "most runs" not in notes


@pytest.mark.parametrize(
    "name",
    [
        "selected-checkpoint (1).json",
        "selected-checkpoint_old.json",
        "selected-checkpoint.old.json",
        "selected-checkpoints.json",
        "selected-checkpoint-limit.json",
    ],
)
def test_a_stray_copy_of_a_choice_decides_nothing(results, tmp_path, capsys, name):
    write(results, "curated-10", 77.0, checkpoint="checkpoint-9")
    choices = results.parent / "valid"
    select(choices, "checkpoint-3")
    stray = next(choices.rglob("selected-checkpoint.json")).with_name(name)
    select(choices, "checkpoint-9")
    path = next(choices.rglob("selected-checkpoint.json"))
    path.rename(stray)
    select(choices, "checkpoint-3")
    run(results, tmp_path, "overall")
    assert f"{name}: not read" in capsys.readouterr().err
    assert points_of(results)["score"].iloc[0] == 20.0


def test_two_choices_for_one_run_are_refused(results, tmp_path):
    choices = results.parent / "valid"
    select(choices, "checkpoint-3")
    select(choices / "copied", "checkpoint-9")
    with pytest.raises(InputError, match=r"has chosen checkpoint-3 and .* checkpoint-9; remove"):
        run(results, tmp_path, "overall")
    select(choices / "copied", "checkpoint-3")
    run(results, tmp_path, "overall")
    path = next(choices.rglob("selected-checkpoint.json"))
    path.rename(path.with_name("selected-checkpoint-limit5.json"))
    with pytest.raises(InputError, match="is a choice with the limit None by its content"):
        run(results, tmp_path, "overall")


def test_an_ability_scored_on_other_lines_is_noted(results, tmp_path, capsys):
    path = next(results.rglob("13b/**/*-results.json"))
    value = json.loads(path.read_text())
    value["files"]["biology_valid"] = value["files"].pop("biology_test")
    path.write_text(json.dumps(value))
    run(results, tmp_path, "overall")
    notes = capsys.readouterr().err
    assert (
        "biology: one curve holds runs scored on different lines (biology_test, biology_v" in notes
    )
    assert "code: one curve" not in notes


def test_what_results_lack_is_noted(results, tmp_path, capsys):
    path = next(results.rglob("13b/**/*-results.json"))
    value = json.loads(path.read_text())
    value["files"]["biology_test"]["type"] = "mixed"
    path.write_text(json.dumps(value | {"missing_files": ["math_test"]}))
    run(results, tmp_path, "overall")
    notes = capsys.readouterr().err
    assert f"{path}: biology_test has lines of several types, so it is on no curve" in notes
    assert f"{path}: predictions of math_test are not in it" in notes
    assert notes.count("several types") == notes.count("predictions of") == 1


def test_two_files_of_one_ability_are_pooled_by_their_questions(tmp_path):
    path = write(tmp_path / "test", "curated-10", 20.0, types=("biology",))
    value = json.loads(path.read_text())
    value["files"]["biology_more_test"] = scored("biology", 60.0, n=300)
    path.write_text(json.dumps(value))
    points = points_of(tmp_path / "test").set_index("ability")
    assert points.loc["biology", ["score", "n"]].tolist() == [50.0, 400]
    # Wilson's interval of 200 of 400, as of one file
    assert points.loc["biology", ["low", "high"]].tolist() == [45.12, 54.88]


def test_the_selected_checkpoint_is_drawn(results, tmp_path):
    write(results, "curated-10", 77.0, checkpoint="checkpoint-9")
    select(results.parent / "valid", "checkpoint-9")
    select(tmp_path / "elsewhere", "checkpoint-3")
    table = Path("ood", "ceval_physician_fshot.csv")
    plots = run(results, tmp_path, "ood")
    assert pd.read_csv(plots / table)["score"].iloc[0] == 77.0 + len(TYPES)
    plots = run(results, tmp_path, "ood", f"--selection_path={tmp_path / 'elsewhere'}")
    assert pd.read_csv(plots / table)["score"].iloc[0] == 20.0 + len(TYPES)


def test_a_smoke_run_selects_for_itself_only(tmp_path):
    folder = tmp_path / "test"
    for score, checkpoint in ((20.0, "checkpoint-3"), (30.0, "checkpoint-6")):
        write(folder, "curated-10", score, checkpoint=checkpoint, limit=5)
    select(tmp_path / "valid", "checkpoint-3")
    select(tmp_path / "valid", "checkpoint-6", limit=5)
    assert points_of(folder)["score"].iloc[0] == 30.0
    for score, checkpoint in ((40.0, "checkpoint-3"), (50.0, "checkpoint-6")):
        write(folder, "curated-10", score, checkpoint=checkpoint)
    assert points_of(folder)["score"].iloc[0] == 40.0
    (tmp_path / "valid" / "7b" / "curated-10" / "t0" / "selected-checkpoint.json").unlink()
    with pytest.raises(InputError, match="none was selected"):
        points_of(folder)


def test_an_only_checkpoint_that_was_not_selected_is_drawn_with_a_note(results, tmp_path, capsys):
    select(results.parent / "valid", "checkpoint-9")
    run(results, tmp_path, "ood")
    assert "checkpoint-9 was selected" in capsys.readouterr().err


def test_limits_are_stated_in_title_and_name(results, tmp_path):
    write(results, "curated-160", 50.0, limit=5)
    plots = run(results, tmp_path, "ood")
    assert files(plots) == pairs("ood", "ceval_physician_fshot-limit5", "ood_average-limit5")
    for drawing in drawings(points_of(results), "all", STUDY):
        assert drawing.stem.endswith("-limit5")
        if drawing.folder == "all" or drawing.stem.startswith("biology"):
            assert "limit 5: smoke run, not a result" in texts(drawing.draw())


def test_a_smoke_run_beside_a_complete_one_does_not_count(results, tmp_path, capsys):
    write(results, "curated-10", 80.0, limit=5)
    write(results, "curated-10000", 80.0, timestamp="t1", limit=5)
    plots = run(results, tmp_path, "ood")
    assert files(plots) == OOD
    table = pd.read_csv(plots / "ood" / "ceval_physician_fshot.csv")
    assert 99.0 + len(TYPES) not in table["score"].tolist()
    assert "checkpoint-3-limit5-results.json" in capsys.readouterr().err


def test_smoothing_is_stated_and_the_points_stay_raw(results, tmp_path):
    points = points_of(results)
    raw, smoothed = (drawings(points, "all", STUDY, join) for join in ("raw", "smooth"))
    for drawing in (raw[0], raw[-1]):
        assert "smoothed" not in texts(drawing.draw())
    for drawing in (smoothed[0], smoothed[-1]):
        figure = drawing.draw()
        assert "smoothed (sigma 0.8)" in texts(figure)
        markers = [line for line in figure.axes[0].lines if line.get_marker() in ("o", "s")]
        drawn = {place for line in markers for place in zip(*line.get_data(), strict=True)}
        assert {(10.0, 20.0), (40.0, 31.0), (10000.0, 52.5)} <= drawn
    table = pd.read_csv(run(results, tmp_path, "overall", "--smooth") / "overall" / "biology.csv")
    expected = smooth([0, 1, 2], [20.0, 31.0, 52.5], steps=1)[1]
    assert np.allclose(table["smoothed_score"][:3], expected, atol=1e-4)
    assert table["score"].tolist() == [20.0, 31.0, 52.5, 26.0]


def signals(path, **fields):
    """Add fields to the entries of a results file: name=(of biology, of code)."""
    content = json.loads(path.read_text())
    for name, values in fields.items():
        for entry, value in zip(content["files"].values(), values, strict=False):
            if value is not None:
                entry[name] = value
    path.write_text(json.dumps(content))


@pytest.fixture
def signalled(tmp_path):
    """Two sizes of data, of the first two seeds, with the signals that have less noise."""
    folder = tmp_path / "results" / "test"
    for data_type, seed, loss in (
        ("curated-10", 0, 2.0),
        ("curated-10", 1, 1.8),
        ("curated-40", 0, 0.5),
    ):
        path = write(folder, data_type, 30.0, timestamp=f"t{seed}", seed=seed)
        ends = {"gold_probability_low": (40.0,), "gold_probability_high": (60.0,)}
        more = {"gold_probability": (50.0,), "gold_probability_n": (80,), **ends}
        signals(path, loss=(loss, 3 * loss), **more)
    return folder


def test_losses_are_drawn_on_request(signalled, tmp_path):
    plots = run(signalled, tmp_path, "all", "--value", "loss")
    names = ("biology-loss", "code-loss", "average-loss")
    assert files(plots) == pairs("overall", *names) | pairs("all", "overview-loss")
    table = pd.read_csv(plots / "overall/average-loss.csv")
    assert table["loss"].tolist() == pytest.approx([3.8, 1.0])  # (1 + 3) / 2 times that of biology
    assert table["run_loss"][0] == "4.0 3.6"
    # Student's: 12.706 * .2828 / sqrt(2); one seed has none
    assert table["high"][0] == pytest.approx(3.8 + 2.5412, abs=1e-3)
    assert np.isnan(table["high"][1])
    points = growth_points(read_results(signalled, tmp_path, value="loss").rows)
    figure = drawings(points, "overall", STUDY)[0].draw()
    assert figure.axes[0].get_ylabel() == "loss (nats per token)"
    assert "loss of the validation lines" in texts(figure)
    assert "questions" not in texts(figure)
    # half of the runs' span is what the interval of two gets, with a margin; 0.63 is its low end
    assert figure.axes[0].get_ylim() == pytest.approx((0.5 - 0.075, 2 + 0.75 + 0.075))
    (bar,) = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    ends = [segment[:, 1] for segment in bar.get_segments()]  # no band: 40 samples have one seed
    assert ends == [pytest.approx([1.9 - 1.2706, 1.9 + 1.2706], abs=1e-3)]
    with warnings.catch_warnings(action="error"):  # no range of no height
        drawings(
            points.assign(score=0.0, run_scores=[(0.0,)] * len(points), low=np.nan, high=np.nan),
            "overall",
            STUDY,
        )[0].draw()
    lone = points[points["samples"] == 40]
    assert "how noisy it is, is not known" in texts(drawings(lone, "overall", STUDY)[0].draw())


def test_probabilities_are_drawn_of_what_has_them(signalled, tmp_path):
    plots = run(signalled, tmp_path, "overall", "--value=gold_probability")
    assert files(plots) == pairs("overall", "biology-gold_probability", "average-gold_probability")
    table = pd.read_csv(plots / "overall/biology-gold_probability.csv")
    assert table["gold_probability"].tolist() == [50.0, 50.0]
    assert table["n"].tolist() == [80, 80]
    assert table["low"].tolist() == pytest.approx([40.0, 40.0])
    points = growth_points(read_results(signalled, tmp_path, value="gold_probability").rows)
    overview = drawings(points, "overview", STUDY)[0].draw()
    labels = {ax.get_ylabel() for ax in overview.axes}  # history, first of its row, has no results
    assert labels == {"p(gold answer) (%)", ""}


def test_signals_of_two_files_of_an_ability_are_pooled_by_their_lines(signalled, tmp_path):
    path = signalled / "7b/curated-40/t0/checkpoint-3-results.json"
    content = json.loads(path.read_text())
    more = scored("biology", 10.0) | {"gold_probability": 80.0, "gold_probability_n": 40}
    content["files"]["biology_more"] = more | {"loss": 0.5}
    path.write_text(json.dumps(content))
    points = {
        value: growth_points(read_results(signalled, tmp_path, value=value).rows)
        .set_index(["ability", "samples"])["score"]
        for value in ("loss", "gold_probability")
    }  # fmt: skip
    assert points["gold_probability"]["biology", 40] == pytest.approx(60.0)
    assert points["loss"]["biology", 40] == pytest.approx(0.5)
    assert with_value(content, "loss", STUDY)["average"] == pytest.approx(1.0)


def test_laws_are_drawn_on_request(signalled, tmp_path):
    write(signalled, "curated-160", 60.0)
    plots = run(signalled, tmp_path, "all", "--laws")
    table = pd.read_csv(plots / "overall/biology.csv")
    assert (table["law_low"] < table["law"]).all()
    assert (table["law"] < table["law_high"]).all()
    assert table["score"].tolist() == [30.0, 30.0, 60.0]
    for drawing in (found := drawings(points_of(signalled), "all", STUDY, "law"))[0], found[-1]:
        figure = drawing.draw()
        assert "fitted law with its 90 % interval" in texts(figure)
        assert "bars: 95 % interval" in texts(figure)
        ax = figure.axes[0]
        lines = [line for line in ax.lines if line.get_zorder() == CURVE_ORDER]
        line = max(lines, key=lambda line: len(line.get_xdata()))
        assert (line.get_xdata()[0], line.get_xdata()[-1]) == pytest.approx((10, 4 * 160))
        (band,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() < line.get_ydata().min()
        assert heights.max() > line.get_ydata().max()


def test_a_single_size_has_no_law(results, tmp_path):
    """13b has one: its point is drawn, with its interval."""
    plots = run(results, tmp_path, "overall", "--laws")
    table = pd.read_csv(plots / "overall/biology.csv").set_index("model_size")
    assert np.isnan(table.loc["13b", "law"])
    assert table.loc["7b", "law"].notna().all()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--smooth", "--laws"), "joined in one way"),
        (("--smooth", "--value=loss"), "published figures are of scores"),
        (("--laws", "--value=loss"), "laws of curves are of scores"),
        (("--value=loss",), "no loss of an ability"),
    ],
)
def test_flags_that_do_not_go_together(results, tmp_path, flags, words):
    with pytest.raises(InputError, match=words):
        run(results, tmp_path, "all", *flags)
    assert not (tmp_path / "plots").exists()


def test_smooth_is_the_published_filter_without_overshoot():
    # By hand: weights exp(-k^2 / 1.28) over k = -3..3, the ends mirrored (d c b a | a b c d).
    weights = np.exp(-(np.arange(-3, 4) ** 2) / 1.28)
    mirrored = np.array([20, 40, 10, 10, 40, 20, 60, 60, 20, 40])
    filtered = [mirrored[i : i + 7] @ weights / weights.sum() for i in range(4)]
    places = [1.0, 2.0, 3.0, 5.0]
    assert np.allclose(smooth(places, [10, 40, 20, 60], steps=1)[1], filtered)
    xs, ys = smooth(places, [10, 40, 20, 60], steps=50)
    assert (np.diff(xs) > 0).all()
    assert np.allclose(ys[::50], filtered)
    for i in range(3):
        piece = ys[50 * i : 50 * (i + 1) + 1]
        assert piece.min() >= min(piece[[0, -1]]) - 1e-9
        assert piece.max() <= max(piece[[0, -1]]) + 1e-9
    assert np.allclose(smooth([0, 1, 2, 4], [7, 7, 7, 7])[1], 7)
    assert [list(part) for part in smooth([3], [5])] == [[3], [pytest.approx(5)]]
    assert (np.diff(smooth([0, 1], [2, 8])[1]) > 0).all()


def test_names_and_order():
    assert sorted(["33b", "tiny", "7b", "270m", "13b", "1.8b"], key=size_key) == [
        *("270m", "1.8b", "7b", "13b", "33b", "tiny")
    ]
    recipes = [STUDY.recipe(t) for t in ("baseline", "curated-10", "synthetic-10", "mix-0")]
    assert [recipe.series for recipe in recipes] == ["curated", "curated", "synthetic", ""]
    assert title_of("ceval_physician_fshot", STUDY) == OUT_OF_DOMAIN[0].title
    assert title_of("average", STUDY, 10) == "Average of the ten abilities"
    assert title_of("average", STUDY, 2) == "Average of 2 of the ten abilities"
    sizes = [f"{size}b" for size in range(1, 13)]
    points = pd.DataFrame({"model_size": sizes, "source": "synthetic", "samples": 160})
    points["value"] = "score"
    points.loc[5, "samples"], points.loc[6, "samples"] = 40, 10000
    look = look_of(STUDY, points)
    assert len(set(look.sizes.values())) == 12
    assert look.ticks == (40, 160, 640, 2560, 10000)
    assert set(look.markers) == {"reconstruct", "maximum", "mix-2560", "mix-40960"}


def test_unplaceable_and_custom_results_are_left_out_with_a_note(results, tmp_path, capsys):
    (results / "nameless-results.json").write_text(json.dumps(results_of(80.0)))
    write(results, "curated-11", 80.0)
    (results / ".hidden-results.json").write_text("not JSON")
    run(results, tmp_path, "ood")
    notes = capsys.readouterr().err
    assert "nameless-results.json: left out" in notes
    assert "curated-11 is not one of the 19 settings" in notes
    assert sizes_of(points_of(results)) == ["7b", "13b"]


def test_models_that_are_no_run_of_ours_stand_beside_the_curves_by_their_tags(
    results, tmp_path, capsys
):
    write(results, "untuned", 12.0, timestamp="untuned", checkpoint="checkpoint-0", seed=None)
    write(results, "untuned", 60.0, timestamp="chat", checkpoint="checkpoint-0", seed=None)
    read = read_results(results, results.parent / "valid")
    points = growth_points(read.rows)
    own = points[(points["ability"] == "average") & (points["source"] == "other")]
    assert [(p.data_type, p.samples, p.score, p.runs) for p in own.itertuples()] == [
        ("chat", 0, 60.5, 1),
        ("untuned", 0, 12.5, 1),
    ]
    (drawing, *_) = drawings(points, "overall", read.study)
    labels = [label.get_text() for label in drawing.draw().axes[0].get_xticklabels()]
    assert labels[-2:] == ["chat", "untuned"]
    write(results, "untuned", 80.0, timestamp="curated-40")
    run(results, tmp_path, "overall")
    notes = capsys.readouterr().err
    assert "its tag curated-40 is the name of a setting; predict it with another --tag" in notes


def no_folder(results):
    return results / "nowhere"


def empty_folder(results):
    (results.parent / "empty").mkdir()
    return results.parent / "empty"


def only_nameless(results):
    folder = empty_folder(results)
    (folder / "nameless-results.json").write_text(json.dumps(results_of(1.0)))
    return folder


def several_checkpoints(results):
    write(results, "curated-40", 40.0, checkpoint="checkpoint-9")
    return results


def selected_one_missing(results):
    select(results.parent / "valid", "checkpoint-12", "curated-40")
    return several_checkpoints(results)


def the_same_twice(results):
    copy = results / "copy-results.json"
    copy.write_text(next(results.rglob("*-results.json")).read_text())
    return results


def not_json(results):
    (results / "x-results.json").write_text("{")
    return results


def not_results(results):
    (results / "x-results.json").write_text('{"run": {}}')
    return results


def score_missing(results):
    value = results_of(1.0)
    del value["files"]["biology_test"]["score"]
    (results / "x-results.json").write_text(json.dumps(value))
    return results


def size_is_a_path(results):
    value = results_of(1.0, model_size="../up", data_type="curated-10")
    (results / "x-results.json").write_text(json.dumps(value))
    return results


def changed(**fields):
    """A results file of which one entry, or else the run, has other fields."""

    def arrange(results):
        value = results_of(1.0)
        target = value["run"] if "seed" in fields else value["files"]["biology_test"]
        target |= fields
        (results / "x-results.json").write_text(json.dumps(value))
        return results

    return arrange


def bad_selection(results):
    (results.parent / "valid").mkdir()
    (results.parent / "valid" / "selected-checkpoint.json").write_text('{"checkpoint": 3}')
    return results


@pytest.mark.parametrize(
    ("arrange", "plot_type", "words"),
    [
        (no_folder, "all", ["--results_path", "nowhere", "no such folder", "score.py"]),
        (empty_folder, "all", ["--results_path", "nothing to plot", "-results.json", "score.py"]),
        (only_nameless, "all", ["nameless-results.json", "model_size", "evaluate/predict.py"]),
        (lambda r: r, "curated_vs_synthetic-13b", ["nothing to plot", "13b curated"]),
        (lambda r: r, "curated_vs_synthetic-99b", ["nothing to plot", "7b synthetic"]),
        (
            lambda r: r,
            "overal",
            ["--plot_type overal", "overall", "ood", "curated_vs_synthetic-7b"],
        ),
        (lambda r: r, "curated_vs_synthetic-", ["no such plot", "13b", "all"]),
        (several_checkpoints, "all", ["7b/curated-40/t0", "checkpoint-9", "select_checkpoint.py"]),
        (selected_one_missing, "all", ["checkpoint-12 is not there", "--selection_path"]),
        (the_same_twice, "all", ["copy-results.json", "both results of"]),
        (not_json, "all", ["x-results.json", "not JSON"]),
        (not_results, "all", ["x-results.json", "`files`"]),
        (score_missing, "all", ["x-results.json", "biology_test", "`score`"]),
        (size_is_a_path, "all", ["x-results.json", "'../up'"]),
        (changed(score=-3.0), "all", ["x-results.json", ">= 0.0, got -3.0 - at `$.files['bio"]),
        (changed(high=1e308), "all", ["x-results.json", "<= 100.0, got 1e+308", "high"]),
        (changed(gold_probability=150), "all", ["x-results.json", "<= 100.0", "gold_prob"]),
        (changed(loss=-1.0), "all", ["x-results.json", ">= 0.0", "loss"]),
        (changed(seed="a"), "all", ["x-results.json", "`$.run.seed`", "score.py"]),
        (bad_selection, "all", ["selected-checkpoint.json", "checkpoint", "`str`"]),
    ],
)
def test_bad_input_is_reported_and_nothing_is_written(results, tmp_path, arrange, plot_type, words):
    folder = arrange(results)
    with pytest.raises(InputError) as caught:
        run(folder, tmp_path, plot_type)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "plots").exists()


def test_results_without_the_value_are_reported(results, tmp_path):
    with pytest.raises(InputError, match=r"OOD set\. What was trained, .* has no gold_probability"):
        run(results, tmp_path, "all", "--value=gold_probability")
    assert not (tmp_path / "plots").exists()


def test_a_plots_path_that_is_a_file_is_reported(results, tmp_path):
    (tmp_path / "plots").write_text("mine")
    with pytest.raises(InputError, match="--plots_path"):
        run(results, tmp_path, "all")


def test_the_script_ends_with_2_and_one_message(tmp_path):
    done = run_script(SCRIPT, "--plot_type", "all", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: --results_path evaluate/results/test: nothing to plot")
    assert done.stderr.count("\n") == 1
    assert files(tmp_path) == set()


def test_dollar_signs_are_no_formula(tmp_path):
    """Names and titles are whatever somebody has written."""
    folder = tmp_path / "results" / "test"
    write(folder, "curated-160", 30, size="$\\frac{$", types=TYPES)
    assert files(run(folder, tmp_path, "overall")) == OVERALL


def named_study(tmp_path, title):
    path = tmp_path / "own.toml"
    path.write_text(
        f'name = "own"\n[pools.p]\npath = "p"\n[[abilities]]\nname = "code"\ntitle = "{title}"\n'
        'kind = "text"\n[[series]]\nname = "s"\nsizes = [10]\ntake = [{ pool = "p" }]\n',
        encoding="utf-8",
    )
    return path


def make_font(path, family, characters):
    """A font with a filled square for each character."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = {ord(character): f"u{ord(character)}" for character in characters}
    order = [".notdef", *names.values()]
    font = FontBuilder(1000)
    font.setupGlyphOrder(order)
    font.setupCharacterMap(names)
    font.setupGlyf(dict.fromkeys(order, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(order, (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)


@pytest.fixture
def only_own_fonts(monkeypatch):
    """A machine that has no fonts but matplotlib's."""
    own = [font for font in fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(fontManager, "ttflist", own)


def titled(tmp_path, title):
    """The points of a study whose only ability has this title, and the study."""
    study = read_study(named_study(tmp_path, title))
    write(tmp_path / "in/test", "s-10", 30, types=("code",), study=study.record())
    return points_of(tmp_path / "in/test"), study


def test_a_title_that_the_default_font_lacks_is_drawn_with_one_that_has_it(
    tmp_path, only_own_fonts, recwarn, caplog
):
    """matplotlib's own lies beside; no box is drawn, and a figure without is as it was."""
    points, study = titled(tmp_path, "合同法 contracts")
    make_font(tmp_path / "han.ttf", "Han", "合同法书")
    make_font(tmp_path / "few.ttf", "Few", "合")
    for name in ("few", "han"):
        fontManager.addfont(tmp_path / f"{name}.ttf")
    fonts = fonts_of(points, study)
    assert fonts.families == ("sans-serif", "Few", "Han")
    assert not fonts.missing
    for drawing in drawings(points, "all", study, fonts=fonts):
        caplog.clear()
        drawing.write(tmp_path / "drawn", "raw")
        assert not caplog.messages  # of a bold form, say
        assert "合同法 contracts" in texts(drawing.draw()) or drawing.stem == "average"
    assert not [str(w.message) for w in recwarn if "Glyph" in str(w.message)]
    assert fonts_of(*titled(tmp_path, "Contracts")).families == ("sans-serif",)


def test_a_title_that_no_font_has_gives_way_to_the_name_and_is_said_once(
    tmp_path, only_own_fonts, capsys, recwarn
):
    points, study = titled(tmp_path, "合同法 contracts")
    fonts = fonts_of(points, study)
    assert fonts.missing == set("合同法")
    for drawing in drawings(points, "all", study, fonts=fonts):
        drawn = texts(drawing.draw())
        assert "code" in drawn or "Average" in drawn
        assert "合" not in drawn
    run(tmp_path / "in/test", tmp_path, "all")
    said = capsys.readouterr().err
    assert said.count("note: no font of this machine has 合 同 法; ") == 1
    assert said.count("\n") == 1
    assert "Glyph" not in said
    assert not [str(w.message) for w in recwarn if "Glyph" in str(w.message)]


def test_a_name_that_no_font_has_is_drawn_as_code_points(tmp_path, only_own_fonts, capsys, recwarn):
    """In legends, at axes and in what is said above them: boxes would say nothing."""
    folder = tmp_path / "in/test"
    for data_type in ("curated-10", "synthetic-10"):
        write(folder, data_type, 30, size="通义-7b")
    points = points_of(folder)
    fonts = fonts_of(points, STUDY)
    for drawing in drawings(points, "all", STUDY, fonts=fonts):
        figure = drawing.draw()
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert "\\u901a\\u4e49-7b curated" in legend
        assert not {"通", "义"} & {*texts(figure), *"".join(legend)}
        if "_vs_" in drawing.folder:
            assert "synthetic data, \\u901a\\u4e49-7b" in texts(figure)
    run(folder, tmp_path, "overall")
    notes = capsys.readouterr().err
    assert notes.count("no font of this machine has 义 通; ") == notes.count("\n") == 1
    assert not [str(w.message) for w in recwarn if "Glyph" in str(w.message)]


def test_controls_in_a_name_are_drawn_as_code_points(tmp_path):
    """No SVG may hold them, a terminal's commands neither."""
    folder = tmp_path / "in/test"
    for data_type in ("curated-10", "synthetic-10"):
        write(folder, data_type, 30, size="7b\x1b[1m\x0b")
    plots = run(folder, tmp_path, "overview", "--format=svg")
    (figure,) = plots.rglob("*.svg")
    ElementTree.parse(figure)
    assert "7b\\x1b[1m\\x0b curated" in figure.read_text()


def lightness(colour):
    """L* of CIELAB, 0 to 100, of a colour such as #0072B2."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


def test_four_models_can_be_told_apart_in_grey():
    """By colours alone; on white each of them is seen."""
    found = np.sort([lightness(colour) for colour in COLOURS[:4]])
    assert np.diff(found).min() > 20
    assert 100 - found.max() > 25


OWN = """
name = "own"
[pools.p]
path = "p"
{abilities}
[[series]]
name = "own"
sizes = [{sizes}]
take = [{{ pool = "p" }}]
[[series]]
name = "scraped-from-the-web"
line = "dashdot"
sizes = [40, 640]
take = [{{ pool = "p" }}]
[[settings]]
name = "what-is-left-over"
samples = 80
marker = "h"
take = [{{ pool = "p", lines = {{ a0 = 80 }} }}]
"""


def crowded(tmp_path, abilities, samples, models):
    """The points of a study of one's own, and the study."""
    word = "Rechtsschutzversicherungsgesellschaften"
    titles = ("Contract law of the provinces", "Sums", f"{word}-{word}", "合同法")
    each = "".join(
        f'[[abilities]]\nname = "a{i}"\ntitle = "{titles[i % 4]} {i}"\nkind = "text"\n'
        for i in range(abilities)
    )
    path = tmp_path / "own.toml"
    sizes = ", ".join(str(40 * 2**i) for i in range(samples))
    path.write_text(OWN.format(abilities=each, sizes=sizes), encoding="utf-8")
    study = read_study(path)
    names = [f"a{i}" for i in range(abilities)]
    rows = [
        {"ability": name, "model_size": f"model-of-{size}b", "source": recipe.series or "other"}
        | {"data_type": recipe.name, "samples": recipe.samples, "score": 50.0 + size}
        for name in names
        for size in range(1, models + 1)
        for recipe in study.recipes.values()
    ]
    same = {"low": 40.0, "high": 70.0, "chance": 25.0, "n": 100, "parts": 1, "runs": 1}
    same |= {"sd": np.nan, "sd_questions": 4.0, "limit": None, "value": "score"}
    points = pd.DataFrame(rows).assign(**same)
    return points.assign(run_scores=[(score,) for score in points["score"]]), study


@pytest.mark.parametrize(
    ("abilities", "samples", "models"), [(40, 12, 1), (5, 3, 1), (7, 12, 3), (3, 5, 6), (1, 1, 12)]
)
def test_no_text_lies_on_another_or_beyond_the_page(tmp_path, abilities, samples, models):
    points, study = crowded(tmp_path, abilities, samples, models)
    found = drawings(points, "all", study, fonts=fonts_of(points, study))
    for drawing in (found[0], found[-1]):
        with figure_style():
            figure = drawing.draw()
            figure.draw_without_rendering()
            shown = texts_drawn(figure)
            boxes = [text.get_window_extent() for text in shown]
        assert len(boxes) > 10
        for place, (text, box) in enumerate(zip(shown, boxes, strict=True)):
            assert figure.bbox.x0 <= box.x0, text
            assert box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0, text
            assert box.y1 <= figure.bbox.y1, text
            for other in range(place):
                shared = Bbox.intersection(box, boxes[other])
                assert shared is None or min(shared.size) < 1, (text, shown[other])


@pytest.mark.parametrize("models", [1, 2, 3, 4, 6])
def test_no_two_marks_of_a_figure_hide_each_other(tmp_path, models):
    """All models have one score here, and each panel at most four curves."""
    points, study = crowded(tmp_path, 2, 5, models)
    points = points.assign(score=50.0, run_scores=[(50.0,)] * len(points))
    drawing = drawings(points, "all", study)[-1]
    figure = drawing.draw()
    figure.draw_without_rendering()
    for ax in _on(figure):
        marks = [line for line in ax.lines if line.get_linestyle() == "None"]
        assert marks
        curves = [line for line in ax.lines if line.get_zorder() == CURVE_ORDER]
        assert len(curves) <= 4
        if len(curves) > 2:  # with fewer, bands tell them apart
            places = [
                tuple(line.get_transform().transform((x, y)).round(1))
                for line in marks
                for x, y in zip(*line.get_data(), strict=True)
            ]
            assert len(set(places)) == len(places)


def texts_drawn(figure):
    """All texts on a figure that is laid out."""
    hidden = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = axis.get_view_interval()
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            outside = [t for t in ticks if not ax.axison or not low <= t.get_loc() <= high]
            hidden |= {label for tick in outside for label in (tick.label1, tick.label2)}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and text not in hidden
    ]


def _on(figure):
    """The axes that are drawn."""
    return [ax for ax in figure.axes if ax.axison]
