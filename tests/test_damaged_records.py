"""Our own files between stages when damaged: one message that names file and field."""

import json
import os
import subprocess
import sys

import pytest
from conftest import TRAINING_RECORD, run

from growth.core.errors import InputError
from growth.core.files import read_json, write_json
from growth.core.schemas import ResultsRecord, SelectionRecord, check_schema, read_record
from growth.export.model_card import last_evaluation
from growth.runs.layout import METRICS, read_run
from growth.runs.record import forget_metrics_after, read_metrics

GONE = object()


def record_with(path, **fields):
    write_json(path, {k: v for k, v in (TRAINING_RECORD | fields).items() if v is not GONE})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"hyperparameters": GONE}, "missing required field `hyperparameters`"),
        ({"hyperparameters": {}}, r"missing required field `epochs` - at `\$.hyperparameters`"),
        ({"hyperparameters": {"epochs": "15"}}, r"got `str` - at `\$.hyperparameters.epochs`"),
        ({"hyperparameters": {"epochs": 0}}, r"`int` >= 1, got 0 - at `\$.hyperparameters.epochs`"),
        ({"train": []}, r"got `array` - at `\$.train`"),
        ({"train": {"files": {"a": {"lines": 1}}, "samples": 1}}, r"\$.train.files\[...\]"),
        ({"model_size": 7}, r"got `int` - at `\$.model_size`"),
        ({"model_size": "a/b"}, r"at `\$.model_size`"),
        ({"timestamp": "x" * 300}, r"at `\$.timestamp`"),
        ({"steps": 10**30}, r"at `\$.steps`"),
        ({"git": 3}, r"at `\$.git`"),
    ],
)
def test_a_run_record_of_other_types(tmp_path, checkout, fields, says):
    record_with(tmp_path / "run.json", **fields)
    with pytest.raises(InputError, match=rf"run.json: .*{says}.*train anew") as caught:
        read_run(tmp_path)
    assert "\n" not in str(caught.value)
    for command in (
        ("evaluate/run.py", "--run_dir", tmp_path),
        ("evaluate/predict.py", "--model_name_or_path", tmp_path, "--eval_data_path", tmp_path),
    ):
        done = run(*command, cwd=checkout, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "found a list"),
        ("[" * 100_000, "not JSON"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "Infinity is not JSON"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": ' + "1" * 5000 + "}", "not JSON"),
        ('{"a": "\\ud800"}', "half a surrogate pair"),
        ('{"a": 1', "not JSON"),
        ("", "not JSON"),
        ("version https://git-lfs.github.com/spec/v1\noid x", "git lfs pull"),
    ],
)
def test_a_file_that_is_no_object(tmp_path, text, says):
    path = tmp_path / "selected-checkpoint.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"selected-checkpoint.json: .*{says}"):
        read_record(path, SelectionRecord, "make it anew")


def test_a_folder_or_a_pipe_in_place_of_a_file(tmp_path):

    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    for name in ("pipe.json", "folder.json"):
        with pytest.raises(InputError, match=f"{name}: is a (FIFO|folder|directory)"):
            read_json(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "nothing.json")


def test_the_key_of_what_is_wrong_is_named(tmp_path):
    from growth.report.results_table import read_results

    right = {"type": "biology", "n": 4, "score": 1.0, "expected": 2.0}
    run_of = {"model_size": "7b", "data_type": "curated-10", "timestamp": "t", "checkpoint": "c"}
    files = {"biology_test": right, "physics_test": right | {"score": "high"}}
    write_json(tmp_path / "a-results.json", {"run": run_of, "files": files})
    with pytest.raises(InputError, match=r"a-results.json: .*files\['physics_test'\].score"):
        read_results(tmp_path, tmp_path)


TORN = [
    b'{"step": 3, "lo',
    b"a line of another program",
    b"",
    b"\xff\xfe",
    b"[1]",
    b'{"step": "3"}',
    b'{"step": -1}',
    b'{"loss": 1.0}',
    b"[" * 100_000,
    b'{"step": 3, "eval_loss": "low"}',
    b'{"step": 3, "eval_loss": 1.0}',
]


@pytest.mark.parametrize("torn", TORN, ids=lambda torn: str(torn[:20]))
def test_a_torn_or_foreign_line_of_metrics_stops_nothing(tmp_path, torn):
    lines = [{"step": step, "loss": 1.0} for step in (1, 2)]
    lines += [{"step": 2, "eval_loss": 1.5, "eval_perplexity": 4.5}, {"step": 3, "loss": 0.5}]
    whole = [json.dumps(line).encode() for line in lines]
    (tmp_path / METRICS).write_bytes(b"\n".join([*whole[:2], torn, *whole[2:], torn]))
    assert [line for line in read_metrics(tmp_path) if line in lines] == lines
    assert last_evaluation(tmp_path) == lines[2]
    assert last_evaluation(tmp_path, 2) == lines[2]
    forget_metrics_after(tmp_path, 2)
    assert (tmp_path / METRICS).read_bytes() == b"".join(line + b"\n" for line in whole[:3])


def test_of_several_faults_the_one_that_is_told_is_at_its_place():
    files = {f"{name}_test": {"type": name, "n": 3, "score": 5} for name in ("a", "b")}
    files["a_test"] |= {"expected": 9}
    with pytest.raises(InputError, match=r"`expected` - at `\$.files\['b_test'\]`; score again"):
        check_schema({"run": {}, "files": files, "average": "x"}, ResultsRecord, "x", "score again")


@pytest.mark.parametrize(
    "module",
    ["scoring.checkpoint_selection", "scoring.results", "report.results_table", "core.schemas"],
)
def test_to_check_a_file_needs_no_torch(module):
    """Stages that compute nothing start at once."""
    code = f"import sys, growth.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
