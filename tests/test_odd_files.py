"""What stands where a file of data, predictions or results should: one line, and no hang."""

import json
import os
import shutil
import socket

import pytest
from conftest import line, read_lines, run, write_lines

from growth.core.errors import InputError
from growth.core.files import LONGEST_NAME, open_file, parse_json, read_json, replacing, write_text
from growth.core.locks import locked
from growth.data.published import count_lines, count_single_answers, read_table
from growth.data.records import read_records
from growth.model.source import find_model
from growth.runs.layout import read_run
from growth.tasks.agieval import _demonstrations, _items
from growth.tasks.benchmark import read_results

CHOICES = {"A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0}
PREDICTED = line() | {"generated_response": "A", "choice_logits": CHOICES}


def make_folder(path):
    path.mkdir()


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def link_to_device(path):
    path.symlink_to("/dev/zero")


ODD = {"folder": make_folder, "FIFO": os.mkfifo, "socket": make_socket, "device": link_to_device}


@pytest.fixture(params=ODD)
def odd(request, tmp_path, monkeypatch):
    """Puts one of them at a path; its kind is `odd.kind`."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short

    def put(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(path.parent)
        ODD[request.param](path)
        monkeypatch.chdir(tmp_path)
        return path

    put.kind = request.param
    return put


@pytest.mark.parametrize(
    "read",
    [
        open_file,
        read_json,
        read_records,
        read_table,
        count_lines,
        count_single_answers,
        read_results,
        _items,
        lambda path: _demonstrations(path, "gaokao-physics"),
    ],
)
def test_every_reader_refuses_what_is_no_file(odd, tmp_path, read):
    with pytest.raises(InputError, match=rf"x\.json: is a {odd.kind}; expected a file"):
        read(odd(tmp_path / "x.json"))


COMMANDS = {
    "raw/curated/1000/biology_1000.json": ("data/build.py", "--data_type", "curated-10",
                                           "--data_dir", "raw"),
    "in/x.json": ("train/finetune.py", "--model_name_or_path", "m", "--train_dir", "in",
                  "--dump_examples", "out.jsonl"),
    "valid/x.json": ("evaluate/predict.py", "--model_name_or_path", "m", "--eval_data_path",
                     "valid"),
    "pred/a/pred_x.json": ("evaluate/score.py", "--pred_data_path", "pred", "--results_path", "o"),
    "pred/b/run.json": ("evaluate/score.py", "--pred_data_path", "pred", "--results_path", "o"),
    "results/x-results.json": ("evaluate/select_checkpoint.py", "--results_path", "results"),
    "test/x-results.json": ("evaluate/plot.py", "--plot_type", "all", "--results_path", "test"),
}  # fmt: skip


@pytest.mark.parametrize("place", COMMANDS)
def test_every_script_names_it(odd, checkout, place):
    odd(checkout / place)
    write_lines(checkout / "pred/b/pred_y.json", [PREDICTED])
    done = run(*COMMANDS[place], cwd=checkout, check=False)
    assert done.returncode == 2
    (message,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert f"{place}: is a {odd.kind}" in message
    assert not (checkout / "o").exists()


@pytest.mark.parametrize("name", ["adapter_config.json", "tokenizer.json", "run.json"])
def test_a_model_with_a_fifo_is_refused_at_once(tmp_path, tiny_model, name):
    """transformers would wait for it; a record is not passed over as if there was none."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name}: is a FIFO; expected a file"):
        find_model(folder)
    if name == "run.json":
        with pytest.raises(InputError, match="is a FIFO"):
            read_run(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": NaN}', "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("1e400", "too large"),
        (r'["\ud800"]', "half a surrogate"),
        (r'{"\udfff": 1}', "half a surrogate"),
        ("[" * 101 + "]" * 101, "deeper than 100"),
        ('{"a":' * 100_000, "deeper than 100"),
        ("9" * 5000, "digits"),
        ('["' + '\\"' * 100_000, "malformed"),
        ("[" * 101 + '"' + '\\"' * 300_000, "deeper than 100"),
    ],
)
def test_json_that_no_file_can_hold_again(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        parse_json(text)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=rf"x\.json: not JSON in UTF-8 .*{says}"):
        read_json(tmp_path / "x.json", finite=True)


@pytest.mark.parametrize(
    "text", ["[" * 100 + "]" * 100, '["' + "[" * 500 + '"]', r'"\ud83d\ude00"', '{"a": [0.1, 1e3]}']
)
def test_json_that_is_right(text):
    assert json.loads(json.dumps(parse_json(text))) == json.loads(text)


def test_a_foreign_file_may_hold_an_infinity(tmp_path):
    (tmp_path / "x.json").write_text('{"time_step_limit": [0.0, Infinity]}')
    assert read_json(tmp_path / "x.json") == {"time_step_limit": [0.0, float("inf")]}


@pytest.mark.parametrize(
    "cell",
    [
        r'{"question": "\ud800", "options": ["(A)a", "(B)b", "(C)c", "(D)d"], "label": "A"}',
        "{'question': '\\ud800', 'options': ['(A)a'], 'label': 'A'}",
        "{'question': 'q', 'options': {'A', 'B'}, 'label': 'A'}",
        "{'question': 'q', 'passage': ['p'], 'options': ['(A)a'], 'label': 'A'}",
        "(" * 5000 + ")" * 5000,
        "-" * 50_000 + "1",
        "1e999",
    ],
)
def test_agieval_cells_that_are_no_item_are_named(tmp_path, cell):
    column = json.dumps("{'question': 'q', 'options': ['(A)a'], 'label': 'A'}")
    quoted = '"' + cell.replace('"', '""') + '"'
    path = tmp_path / "shots.csv"
    path.write_text(f"x\n{column}\nwhy\n{quoted}\nwhy\n", encoding="utf-8")
    items, problems = _demonstrations(path, "x")
    assert len(items) == 1
    assert len(problems) == 1
    assert "sample 2: left out" in problems[0]


LONG = "长" * 80  # 240 bytes


def test_names_of_240_bytes(checkout, tiny_data, tiny_model):
    folder = checkout / "raw/curated/1000"
    shutil.copytree(tiny_data / "curated/1000", folder)
    (folder / "biology_1000.json").rename(folder / f"{LONG}.json")
    output = ("--output_dir", LONG)
    run("data/build.py", "--data_type", "curated-10", "--data_dir", "raw", *output, cwd=checkout)
    assert len(read_lines(checkout / LONG / "curated-10/biology.json")) == 1
    write_lines(checkout / f"valid/{LONG}.json", [line()])
    run(
        *("evaluate/predict.py", "--model_name_or_path", tiny_model, "--eval_data_path", "valid"),
        *("--model_size", "tiny", "--tag", LONG, "--max_new_tokens", "2"),
        *("--pred_data_path", "pred"),
        cwd=checkout,
    )
    (predicted,) = (checkout / "pred").rglob("pred_*.json")
    assert predicted.name == f"pred_{LONG}.json"
    score = ("evaluate/score.py", "--pred_data_path", "pred", "--results_path", "out", "--details")
    run(*score, cwd=checkout)
    assert [path.stem for path in (checkout / "out").rglob("*.jsonl")] == [LONG]


def test_a_name_that_leaves_no_room_for_predictions_is_refused_at_once(checkout):
    name = "x" * (LONGEST_NAME - len(".json"))
    write_lines(checkout / f"valid/{name}.json", [line()])
    predict = ("evaluate/predict.py", "--model_name_or_path", "train/pocket", "--model_size", "x")
    flags = ("--tag", "t", "--eval_data_path", "valid")
    done = run(*predict, *flags, cwd=checkout, check=False)
    assert done.returncode == 2
    assert f"{name}.json: too long a name" in done.stderr


@pytest.mark.parametrize("size", [180, 181, 240, 255])
def test_temporary_files_and_locks_of_long_names(tmp_path, size):
    name = "x" * size
    write_text(tmp_path / name, "old")
    other = tmp_path / f"{name[:-1]}y"  # the same beginning
    with (
        locked(tmp_path / name, "--flag"),
        locked(other, "--flag"),
        replacing(tmp_path / name) as first,
        replacing(other) as second,
    ):
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: "1",
        other.name: "2",
    }
