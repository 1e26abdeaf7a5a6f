"""Nothing counts twice: copied files, as the scripts meet them."""

import json
import shutil

import pytest
from conftest import ROOT, STUDY, line, read_lines, run, write_lines

from growth.core.errors import InputError
from growth.data.copies import check_no_copies, find_repeats

CASE = ROOT / "tests/cases/copied_file"
ORIGINAL, COPY = "understanding_valid.json", "understanding_valid (1).json"


def records(count, type_="biology", start=0):
    lines = [line(type_, idx=i) for i in range(start, start + count)]
    for i, record in enumerate(lines, start):
        record["messages"][0]["content"] += f"\n第{i}题"
    return lines


ANSWER = {
    "generated_response": "A",
    "choice_logits": {"A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0},
}


def predicted(path):
    return [json.loads(text) | ANSWER for text in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "name",
    [
        "x (1).json",
        "x(2).json",
        "x copy.json",
        "x copy 2.json",
        "x - Copy.json",
        "x - Copy (3).json",
        "x_copy.json",
        "x 副本.json",
        "x~.json",
    ],
)
def test_a_file_named_as_a_copy_is_one_though_its_lines_have_changed(name):
    files = {"x.json": records(4), name: records(4, start=10)}
    assert find_repeats(files).copies == [f"{name} is named as a copy of x.json"]
    assert find_repeats({name: records(4), "y.json": records(4, start=10)}).copies == []


@pytest.mark.parametrize("name", ["x_copyright.json", "x1.json", "x_2.json", "(1).json"])
def test_other_names_are_no_copies(name):
    assert find_repeats({"x.json": records(4), name: records(4, start=10)}).copies == []


@pytest.mark.parametrize(("shared", "found"), [(4, True), (2, True), (1, False), (0, False)])
def test_half_of_the_lines_make_a_copy(shared, found):
    files = {"a.json": records(8), "b.json": records(4, start=8 - shared)}
    expected = [f"a.json and b.json share {shared} lines"] if found else []
    assert find_repeats(files).copies == expected
    if found:
        with pytest.raises(InputError, match=r"--flag here: a\.json and b\.json"):
            check_no_copies(files, "--flag here")


def test_a_copy_with_other_numbers_and_other_predictions_is_one():
    copied = [record | {"idx": 99, "generated_response": "B"} for record in records(3)]
    assert find_repeats({"a.json": records(3), "b.json": copied}).copies


def with_note(record):
    return record | {"source": "v2"}


def with_spaces(record):
    question, answer = record["messages"]
    spaced = question | {"content": question["content"].replace("\n", " \r\n") + "\n"}
    return record | {"messages": [spaced, answer | {"weight": 1}]}


def with_wider_choices(record):
    return record | {"choices": ["A ", "\u3000B", "C"]}


@pytest.mark.parametrize("change", [with_note, with_spaces, with_wider_choices])
def test_a_copy_under_any_name_is_one_whatever_was_noted_in_it(change):
    lines = [record | {"choices": ["A", "B", "C"]} for record in records(4)]
    copied = [with_wider_choices(change(record)) for record in lines]
    assert find_repeats({"a.json": lines, "b.json": copied}).copies == [
        "a.json and b.json share 4 lines"
    ]


@pytest.mark.parametrize("field", ["choices", "answer"])
def test_a_question_with_other_choices_or_another_answer_is_another(field):
    for value, other in ((["A", "B"], ["A", "C"]), ({"value": "5"}, {"value": "6"}), (1, 2)):
        lines = [record | {field: value} for record in records(4)]
        others = [record | {field: other} for record in records(4)]
        assert find_repeats({"a.json": lines, "b.json": others}).copies == []


def test_repeats_that_make_no_copy_are_counted():
    files = {"a.json": [*records(8), *records(3)], "b.json": records(4, start=7)}
    repeats = find_repeats(files)
    assert repeats.copies == []
    assert repeats.within == {"a.json": 3}
    assert repeats.described() == (
        "3 of the 11 lines of a.json repeat another one of it; a.json and b.json share 1 lines"
    )
    assert find_repeats({"a.json": records(8)}).described() == ""


def test_repeats_of_many_files_are_not_all_named():
    files = {f"{number}.json": records(1, start=number) * 2 for number in range(9)}
    assert find_repeats(files).described().endswith("; and 4 more files alike")


def test_the_same_question_of_another_type_is_none():
    assert not find_repeats({"a.json": records(3), "b.json": records(3, "reasoning")}).copies


def test_predicting_a_folder_with_a_copy_is_refused(checkout):
    flags = ("--model_name_or_path", "train/pocket", "--model_size", "x", "--tag", "c")
    done = run("evaluate/predict.py", *flags, "--eval_data_path", CASE, "--split", "valid",
               cwd=checkout, check=False)  # fmt: skip
    assert done.returncode == 2
    assert f"{COPY} and {ORIGINAL} share 4 lines" in done.stderr
    assert "--eval_data_path" in done.stderr


def test_scoring_a_folder_with_a_copy_is_refused(checkout):
    for path in CASE.glob("understanding*.json"):
        write_lines(checkout / f"in/pred_{path.name}", predicted(path))
    flags = ("--pred_data_path", "in", "--results_path", "out")
    done = run("evaluate/score.py", *flags, cwd=checkout, check=False)
    assert done.returncode == 2
    assert f"pred_{COPY} and pred_{ORIGINAL}" in done.stderr
    assert not (checkout / "out").exists()
    (checkout / f"in/pred_{COPY}").unlink()
    run("evaluate/score.py", *flags, cwd=checkout)


def test_a_pool_with_a_copy_is_refused(checkout, tiny_data):
    shutil.copytree(tiny_data / "curated/1000", checkout / "raw/curated/1000")
    copied = checkout / "raw/curated/1000/biology_1000 copy.json"
    shutil.copy(checkout / "raw/curated/1000/biology_1000.json", copied)
    flags = ("--data_type", "curated-10", "--data_dir", "raw")
    done = run("data/build.py", *flags, cwd=checkout, check=False)
    assert done.returncode == 2
    assert "biology_1000 copy.json and biology_1000.json" in done.stderr
    copied.unlink()
    run("data/build.py", *flags, cwd=checkout)
    assert len(read_lines(checkout / "data/curated-10/biology.json")) == 1


def test_training_on_a_copy_is_warned_of(tmp_path, capsys):
    from growth.data.records import read_training_files

    for name in ("a.json", "b.json"):
        write_lines(tmp_path / name, records(4))
    assert len(read_training_files(tmp_path, "--train_dir")) == 2
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: --train_dir {tmp_path}: a.json and b.json share 4 lines")


def test_a_repeated_line_is_said_where_it_is_predicted_and_scored(checkout, capsys):
    from growth.data.records import read_evaluation_files

    lines = [record | ANSWER for record in records(3)]
    write_lines(checkout / "data/biology_test.json", lines * 2)
    assert len(read_evaluation_files(checkout / "data", "--flag", STUDY)["biology_test"]) == 6
    said = "3 of the 6 lines of biology_test.json repeat another one of it: each counts as often"
    assert said in capsys.readouterr().err
    write_lines(checkout / "in/c/pred_biology_test.json", lines * 2)
    flags = ("--pred_data_path", "in", "--results_path", "out")
    done = run("evaluate/score.py", *flags, cwd=checkout)
    assert said.replace("lines of ", "lines of pred_") in done.stderr
    entry = json.loads((checkout / "out/c-results.json").read_text())["files"]["biology_test"]
    assert (entry["n"], entry["repeated"]) == (6, 3)
    write_lines(checkout / "in/c/pred_biology_test.json", lines)
    assert "repeat" not in run("evaluate/score.py", *flags, cwd=checkout).stderr


def test_a_setting_built_from_repeated_lines_says_so(checkout, tiny_data):
    shutil.copytree(tiny_data / "curated/1000", checkout / "raw/curated/1000")
    for path in (checkout / "raw/curated/1000").glob("*.json"):
        type_ = path.stem.removesuffix("_1000")
        write_lines(path, records(2, type_) * 2 if type_ == "biology" else records(4, type_))
    flags = ("--data_type", "curated-40", "--data_dir", "raw")
    done = run("data/build.py", *flags, cwd=checkout)
    assert "--data_type curated-40" in done.stderr
    assert "2 of the 4 lines of biology repeat another one of it" in done.stderr
    assert len(read_lines(checkout / "data/curated-40/biology.json")) == 4
