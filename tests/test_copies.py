"""Nothing counts twice: copied files, as the scripts meet them."""

import json
import shutil

import pytest
from conftest import ROOT, line, read_lines, run, write_lines

from growth.core.errors import InputError
from growth.data.copies import check_no_copies, repeated_files

CASE = ROOT / "tests/cases/copied_file"
ORIGINAL, COPY = "understanding_valid.json", "understanding_valid (1).json"


def records(count, type_="biology", start=0):
    lines = [line(type_, idx=i) for i in range(start, start + count)]
    for i, record in enumerate(lines, start):
        record["messages"][0]["content"] += f"\n第{i}题"
    return lines


def predicted(path):
    logits = {"A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0}
    answer = {"generated_response": "A", "choice_logits": logits}
    return [json.loads(text) | answer for text in path.read_text().splitlines()]


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
    assert repeated_files(files) == [f"{name} is named as a copy of x.json"]
    assert repeated_files({name: records(4), "y.json": records(4, start=10)}) == []


@pytest.mark.parametrize("name", ["x_copyright.json", "x1.json", "x_2.json", "(1).json"])
def test_other_names_are_no_copies(name):
    assert repeated_files({"x.json": records(4), name: records(4, start=10)}) == []


@pytest.mark.parametrize(("shared", "found"), [(4, True), (2, True), (1, False), (0, False)])
def test_half_of_the_lines_make_a_copy(shared, found):
    files = {"a.json": records(8), "b.json": records(4, start=8 - shared)}
    expected = [f"a.json and b.json share {shared} lines"] if found else []
    assert repeated_files(files) == expected
    if found:
        with pytest.raises(InputError, match=r"--flag here: a\.json and b\.json"):
            check_no_copies(files, "--flag here")


def test_a_copy_with_other_numbers_and_other_predictions_is_one():
    copied = [record | {"idx": 99, "generated_response": "B"} for record in records(3)]
    assert repeated_files({"a.json": records(3), "b.json": copied})


def test_the_same_question_of_another_type_is_none():
    assert not repeated_files({"a.json": records(3), "b.json": records(3, "reasoning")})


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
