"""Prediction files: whole or not at all, the same bytes whatever happened on the way."""

import json
import math
import random
import re
import shutil
import sys

import pytest
from conftest import ROOT, STUDY, copy_scripts, line, read_lines, run, write_lines
from safetensors.torch import load_file, save_file
from test_predictor import Predicting

from growth.core import device
from growth.core.distributed import DistributedState
from growth.core.errors import InputError
from growth.core.files import read_json
from growth.data.records import prediction_check, read_records
from growth.inference.prediction_store import ResultFile, check_same_model
from growth.inference.requests import Response
from growth.tasks.doit import DoITFile, request_of
from growth.tasks.runner import TaskRun, missing_tasks

FLAGS = (
    *("--eval_data_path", "lines", "--split", "valid", "--model_size", "toy", "--tag", "t"),
    *("--max_new_tokens", "24", "--batch_size", "4", "--max_length", "96"),
)
FOLDER = "valid/toy/untuned/t/checkpoint-0"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The scripts beside three files of lines, some of them longer than fits."""
    root = copy_scripts(tmp_path_factory.mktemp("place"))
    noise = random.Random(0)

    def asked(record, least=1, most=12):
        words = [noise.choice("甲乙丙丁题目答案是") for _ in range(noise.randint(least, most))]
        question = {"role": "user", "content": "".join(words)}
        return record | {"messages": [question, record["messages"][-1]]}

    lines = {
        "biology": [asked(line("biology", "A", idx=i)) for i in range(11)]
        + [asked(line("biology", gold), 300, 400) for gold in "AB"],
        "code": [
            asked(line("code", "甲", 1, choices=["甲", "乙" * i, "丙丙"])) for i in range(1, 10)
        ],
        "math": [asked(line("math", "1", idx=i, answer="1")) for i in range(17)],
    }
    for name, records in lines.items():
        write_lines(root / f"lines/{name}_valid.json", records)
    return root


def command(model, output):
    path = ("evaluate/predict.py", "--model_name_or_path", str(model))
    return [*path, "--pred_data_path", str(output), *FLAGS]


def contents(output):
    """The bytes of every file, but for whether the checkout was clean: other tests work in it."""
    files = sorted((output / FOLDER).iterdir())
    return {path.name: re.sub(rb'"dirty": \w+', b"", path.read_bytes()) for path in files}


@pytest.fixture(scope="module")
def quiet(place, tiny_model, tmp_path_factory):
    """One run that nothing interrupted: its output folder, and what it printed."""
    output = tmp_path_factory.mktemp("quiet")
    done = run(*command(tiny_model, output), cwd=place)
    return output, done.stdout


def test_cut_prompts_are_counted_in_the_summary_and_the_record(quiet):
    output, said = quiet
    assert "3 files predicted, 39 lines, 2 prompts cut" in said
    record = json.loads((output / FOLDER / "run.json").read_text())
    assert record["cut_prompts"] == {"biology_valid": 2, "code_valid": 0, "math_valid": 0}
    assert record["decoding"]["engine"] == "batched"


def test_cut_answers_are_counted_at_prediction_and_in_the_results(quiet, place, tiny_model):
    """By the tokens themselves: all room taken, and no stop token at the end."""
    output, said = quiet
    engine = Predicting(tiny_model, max_new_tokens=24, max_length=96)
    cut, answers = {}, 0
    for path in sorted((output / FOLDER).glob("pred_*.json")):
        records = read_lines(path)
        requests = [request_of(r, engine.prompting, STUDY.ability(r)) for r in records]
        responses = engine.predictor.run(requests)
        expected = [
            len(response.ids) == request.max_new_tokens > 0
            and response.ids[-1] not in engine.chat.stop_ids
            and not (request.is_settled and request.is_settled(response.ids))
            for request, response in zip(requests, responses, strict=True)
        ]
        assert [record.get("response_cut", False) for record in records] == expected
        answers += sum(request.kind == "generate" for request in requests)
        if any(expected):
            cut[path.name.removeprefix("pred_").removesuffix(".json")] = sum(expected)
    assert 0 < sum(cut.values()) < answers
    at = "at 24 tokens (--max_new_tokens, sooner where --max_length 96 left less room)"
    assert f"{sum(cut.values())} of {answers} answers cut {at}\n" in said
    scored = run("evaluate/score.py", "--pred_data_path", output, "--results_path", "r", cwd=place)
    results = read_json(place / "r" / FOLDER.replace("checkpoint-0", "checkpoint-0-results.json"))
    files = results["files"]
    assert {stem: e["cut_answers"] for stem, e in files.items() if "cut_answers" in e} == cut
    counts = ", ".join(f"{stem} {count} of {files[stem]['n']}" for stem, count in cut.items())
    assert f"  answers cut {at}: {counts}\n" in scored.stdout + scored.stderr


def test_every_prediction_can_be_scored_and_is_small(place, quiet):
    output, _ = quiet
    for path in (output / FOLDER).glob("pred_*.json"):
        asked = read_records(place / "lines" / path.name.removeprefix("pred_"))
        predicted = read_records(path, prediction_check(STUDY))
        for before, after in zip(asked, predicted, strict=True):
            added = len(json.dumps(after).encode()) - len(json.dumps(before).encode())
            assert 0 < added < 2048


def test_two_processes_write_the_files_of_one(place, quiet, tiny_model, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    output = tmp_path / "two"
    done = run(sys.executable, *launcher, *command(tiny_model, output), cwd=place)
    assert contents(output) == contents(quiet[0])
    assert done.stdout.count("files predicted") == 1


def math_file(folder, records):
    task = DoITFile("math", records, STUDY)
    return ResultFile(folder / task.file, [task.digest(i) for i in range(len(task))])


def test_what_an_interrupted_launch_noted_is_checked_line_by_line(tmp_path):
    records = [line("math", str(i), answer=str(i), idx=i) for i in range(4)]
    said = [Response(text=f"{i}", logits=[float(i)]) for i in range(4)]
    file = math_file(tmp_path, records)
    file.note(0, {0: said[0]})
    file.note(1, {2: said[2]})
    with open(file.partial(1), "a") as notes:
        notes.write('[]\n{"line": 9, "of": "", "response": {}}\n{"line": 1, "of": "00')
    ResultFile(tmp_path / "pred_other.json", file.digests).note(0, {3: said[3]})
    assert file.recover() == {0: said[0], 2: said[2]}
    assert not file.partial(1).exists()
    # Later notes follow what was whole, and none counts for a line that has changed since.
    file.note(0, {1: said[1]})
    assert file.recover().keys() == {0, 1, 2}
    changed = [*records[:2], records[2] | {"idx": 5}, records[3]]
    assert math_file(tmp_path, changed).recover().keys() == {0, 1}


def test_a_batch_that_was_noted_is_not_computed_again(tiny_model, tmp_path):
    engine = Predicting(tiny_model, max_new_tokens=4, batch_size=2)
    records = [line("math", "1", answer="1", idx=i) for i in range(6)]
    first, second, third = engine.predictor.plan([engine.request(r) for r in records])
    noted = Response(text="noted", logits=[0.0] * 4)
    # The second batch only in half: it is computed whole again.
    math_file(tmp_path, records).note(0, dict.fromkeys((*first, second[0]), noted))
    work = TaskRun(
        [DoITFile("math", records, STUDY)], tmp_path, engine.prompting, DistributedState()
    )
    work.run(engine.predictor, "test")
    written = read_lines(tmp_path / "pred_math.json")
    assert {i for i, r in enumerate(written) if r["generated_response"] == "noted"} == set(first)
    assert len(third) == 2
    assert not any(r.ids for r in work._known[0].values())  # memory grows with texts alone
    assert [path.name for path in tmp_path.iterdir()] == ["pred_math.json"]


def test_a_kill_behind_a_whole_file_leaves_nothing_for_long(place, quiet, tmp_path):
    output = shutil.copytree(quiet[0], tmp_path / "copy")
    folder = output / FOLDER
    ResultFile(folder / "pred_math_valid.json", ()).partial(1).write_text("{}")
    tasks = [DoITFile(path.stem, read_records(path), STUDY) for path in (place / "lines").iterdir()]
    assert missing_tasks(tasks, folder) == []
    assert contents(output) == contents(quiet[0])


def test_results_of_another_model_are_refused(tmp_path):
    run = {"fingerprint": "a", "decoding": {"max_length": 9}}
    fields = ("fingerprint", "decoding")
    assert check_same_model(tmp_path, run, fields, "*.json", "remove it") is None
    (tmp_path / "pred_x.json").write_text("{}")
    with pytest.raises(InputError, match=r"without a run.json.*remove it"):
        check_same_model(tmp_path, run, fields, "pred_*.json", "remove it")
    (tmp_path / "run.json").write_text(json.dumps(run | {"device": "CPU"}))
    assert check_same_model(tmp_path, run, fields, "*.json", "")["device"] == "CPU"
    with pytest.raises(InputError, match=r"another model.*different: fingerprint\)"):
        check_same_model(tmp_path, run | {"fingerprint": "b"}, fields, "*.json", "")


@pytest.mark.parametrize("count", ["0", "two"])
def test_a_number_of_processes_that_is_none_is_refused(count, tmp_path):
    flags = ("--run_dir", tmp_path, "--num_processes", count)
    done = run("scripts/run_evaluate.sh", *flags, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert f"--num_processes {count}" in done.stderr


def test_the_precision_that_was_computed_is_recorded_and_kept(
    place, tiny_model, tmp_path, monkeypatch
):
    """Machines differ in what `auto` is; a prediction is finished in the precision it began in."""
    again = command(tiny_model, tmp_path)
    monkeypatch.setattr(device, "_cpu_has_fast_bf16", lambda: False)
    run(*again, cwd=place)
    record = tmp_path / FOLDER / "run.json"
    assert json.loads(record.read_text())["decoding"]["precision"] == "fp32"
    (tmp_path / FOLDER / "pred_math_valid.json").unlink()
    run(*again, "--precision", "fp32", cwd=place)  # the same, said in another way
    (tmp_path / FOLDER / "pred_math_valid.json").unlink()
    monkeypatch.setattr(device, "_cpu_has_fast_bf16", lambda: True)
    for _ in range(2):
        done = run(*again, cwd=place, check=False)
        assert done.returncode == 2
        assert "decoding (precision 'fp32', now 'bf16')" in done.stderr
        # A record of before said "auto".
        old = json.loads(record.read_text())
        old["decoding"]["precision"] = "auto"
        record.write_text(json.dumps(old))
    monkeypatch.setattr(device, "_cpu_has_fast_bf16", lambda: False)
    run(*again, cwd=place)
    assert json.loads(record.read_text())["decoding"]["precision"] == "fp32"


def test_what_was_computed_is_what_is_said_and_recorded(place, tiny_model, tmp_path):
    """The reason for a precision that nobody gave; the tokens that the model has, not 2,048."""
    again = command(tiny_model, tmp_path)
    done = run(*again, "--max_length", "2048", cwd=place)
    assert "as asked for" not in done.stderr
    record = json.loads((tmp_path / FOLDER / "run.json").read_text())
    assert "as asked for" not in record["device"]
    assert record["decoding"]["max_length"] == 256
    run(*again, "--max_length", "256", cwd=place)  # the same, said in another way
    done = run(*again, "--max_length", "255", cwd=place, check=False)
    assert "decoding (max_length 256, now 255)" in done.stderr


@pytest.mark.parametrize("all_of_them", [True, False])
def test_weights_that_are_no_numbers_are_named(place, tiny_model, tmp_path, all_of_them):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    for name, weight in weights.items():
        if all_of_them or name.endswith("down_proj.weight"):
            weight.fill_(math.nan)
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    done = run(*command(model, tmp_path), cwd=place, check=False)
    assert done.returncode == 2
    assert "its weights hold NaN or infinity (model." in done.stderr
    train = ("train/finetune.py", "--model_name_or_path", model, "--train_dir", "lines")
    done = run(
        *train, "--valid_dir", "lines", "--output_dir", tmp_path / "out", cwd=place, check=False
    )
    assert done.returncode == 2
    assert "the model: its weights hold NaN or infinity (model." in done.stderr


def test_as_published_predicts_in_fp32(place, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "_cpu_has_fast_bf16", lambda: True)
    again = command(tiny_model, tmp_path)
    done = run(*again, "--as_published", "--precision", "bf16", cwd=place, check=False)
    assert done.returncode == 2
    assert "--precision bf16: --as_published computes in fp32" in done.stderr
    done = run(*again, "--as_published", cwd=place)
    assert "in fp32: as asked for" in done.stderr
    record = json.loads((tmp_path / FOLDER / "run.json").read_text())
    assert record["as_published"] is True
    assert record["decoding"]["precision"] == "fp32"
    done = run(*again, cwd=place, check=False)  # the default is bf16 here
    assert "decoding (precision 'fp32', now 'bf16')" in done.stderr
