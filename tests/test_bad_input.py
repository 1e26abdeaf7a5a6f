"""Bad input: exit code 2, one message saying what, where and what to do, nothing half written."""

import json
import os
import shutil
import sys

import pytest
import torch
from conftest import TEXTS, TRAINING_RECORD, line, run, write_lines
from safetensors.torch import save_file

from growth.sample.pocket import make_pocket

GOOD = line("biology", "A")
MODEL_FLAG = "--model_name_or_path"


def contents(folder):
    """Every file with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(checkout, *command, says):
    """Run a command that must be refused, in one message, and write nothing."""
    before = contents(checkout)
    done = run(*command, cwd=checkout, check=False)
    assert done.returncode == 2, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for words in says:
        assert words in errors[0]
    assert contents(checkout) == before
    return errors[0]


def dump(checkout, model="no-model-is-loaded"):
    return (
        *("train/finetune.py", "--model_name_or_path", model),
        *("--train_dir", "in", "--dump_examples", "out.jsonl"),
    )


def messages(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([GOOD, '{"messages": ['], ["x.json:2", "malformed JSON"]),
        ([GOOD, '{"a": NaN}'], ["x.json:2", "NaN"]),
        ([GOOD, "[1]"], ["x.json:2", "JSON object", "[1]"]),
        ([GOOD, b"\xff\xfe\n"], ["x.json:2", "not UTF-8", "0xff"]),
        ([{"idx": 1}], ["x.json:1", "`messages`", "none"]),
        ([{"messages": "text"}], ["x.json:1", "`messages`", '"text"']),
        ([{"messages": ["text"]}], ["x.json:1", "messages[0]", '"text"']),
        ([messages(("assistant", "A"))], ["x.json:1", "messages[0]", "'user'"]),
        ([messages(("user", "q"), ("user", "q"))], ["x.json:1", "messages[1]", "'assistant'"]),
        ([messages(("system", "s"), ("user", "q"))], ["x.json:1", '"system"']),
        ([messages(("user", "q"))], ["x.json:1", "last message", "assistant"]),
        ([messages(("user", " \n"), ("assistant", "A"))], ["x.json:1", "content is empty"]),
        ([messages(("user", "q"), ("assistant", ""))], ["x.json:1", "messages[1].content"]),
        ([messages(("user", 3), ("assistant", "A"))], ["x.json:1", "must be a string", "3"]),
        ([messages(("user", "\ud800"), ("assistant", "A"))], ["x.json:1", "surrogate"]),
        ([], ["x.json", "no line"]),
        (["", "  "], ["x.json", "no line"]),
    ],
)
def test_training_lines(checkout, lines, says):
    # as JSON escapes, which can say what UTF-8 can't
    lines = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    write_lines(checkout / "in/x.json", lines)
    refused(checkout, *dump(checkout), says=says)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (line("astrology", "A"), ["x.json:1", '"astrology"', "biology", "nearest"]),
        (line(None, "A"), ["x.json:1", "unknown type null"]),
        (line("biology", "A", None), ["x.json:1", "question_format", "null"]),
        (line("biology", "A", "0"), ["x.json:1", "question_format", '"0"']),
        (line("biology", "E"), ["x.json:1", "A B C D", '"E"']),
        (line("biology", "AB"), ["x.json:1", "A B C D", '"AB"']),
        (line("history", "也许"), ["x.json:1", "正确", "也许"]),
        (line("ethics", "无"), ["x.json:1", "A B C D E F"]),
        (line("math", "3"), ["x.json:1", "`answer`", "null"]),
        (line("math", "3", answer=3), ["x.json:1", "`answer`", "found 3"]),
        (line("code", "x", 0), ["x.json:1", "code", "question_format 1"]),
        (line("biology", "A", 1, choices=["a", "b", "c"]), ["x.json:1", "question_format 0"]),
        (line("code", "x", 1), ["x.json:1", "`choices`", "3 strings"]),
        (line("code", "x", 1, choices=["a", "b"]), ["x.json:1", "`choices`", "found 2"]),
        (line("code", "x", 1, choices=["a", "", "c"]), ["x.json:1", "choices[1]", "empty"]),
    ],
)
def test_evaluation_lines(checkout, record, says):
    write_lines(checkout / "in/x.json", [record])
    predict = ("evaluate/predict.py", "--model_name_or_path", "m", "--eval_data_path", "in")
    refused(checkout, *predict, says=says)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (GOOD, ["`generated_response`", "predict.py"]),
        (GOOD | {"generated_response": ""}, ["`choice_logits`"]),
        (GOOD | {"generated_response": "", "choice_logits": {"A": 1}}, ["`choice_logits`"]),
        (line("code", "x", 1, choices=["a", "b", "c"]), ["`generated_ppl`"]),
        (line("astrology", "A"), ["unknown type"]),
    ],
)
def test_prediction_lines(checkout, record, says):
    write_lines(checkout / "in/pred_x.json", [GOOD | {"generated_response": "A", "choice_logits": dict.fromkeys("ABCD", 0)}, record])  # fmt: skip  # noqa: E501
    score = ("evaluate/score.py", "--pred_data_path", "in", "--results_path", "out")
    refused(checkout, *score, says=["pred_x.json:2", *says])


def test_byte_order_mark_crlf_and_blank_lines_are_read_without_fuss(checkout, tiny_model):
    text = json.dumps(GOOD, ensure_ascii=False)
    separator = "\u2028"  # ends a line for Python's splitlines, not for JSON Lines
    odd = json.dumps(messages(("user", f"a{separator}b"), ("assistant", "A")), ensure_ascii=False)
    data = f"\ufeff{text}\r\n\r\n  \n{text}\n{odd}"
    write_lines(checkout / "in/x.json", [data.encode()])
    done = run(*dump(checkout, tiny_model), cwd=checkout)
    assert "3 examples" in done.stdout


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("data/build.py", "--data_type", "curated-10", "--data_dir", "nowhere"), ["--data_dir"]),
        (("data/build.py", "--data_type", "curated-10", "--data_dir", "."), ["curated/1000"]),
        (("evaluate/predict.py", "--model_name_or_path", "m", "--eval_data_path", "nowhere"),
         ["--eval_data_path nowhere", "no such folder"]),
        (("evaluate/score.py", "--pred_data_path", "nowhere"), ["nowhere", "predict.py"]),
        (("evaluate/select_checkpoint.py", "--results_path", "nowhere"), ["nowhere", "score.py"]),
        (("evaluate/plot.py", "--plot_type", "all", "--results_path", "nowhere"), ["nowhere"]),
        (("scripts/run_train.sh", "--data_type", "curated-11", "--model_size", "7b"),
         ["curated-11", "nearest first: curated-10"]),
        (("scripts/run_train.sh", "--data_type", "curated-10", "--model_size", "7b"),
         ["data/curated-10", "data/build.py --data_type curated-10"]),
        (("scripts/run_train.sh", "--model_size", "7b"), ["--data_type is missing"]),
        (("scripts/run_train.sh", "--data_type", "curated-10"), ["--model_size is missing"]),
        (("scripts/run_evaluate.sh", "--run_dir", "nowhere"), ["nowhere", "run.json"]),
    ],
)  # fmt: skip
def test_missing_things(checkout, command, says):
    refused(checkout, *command, says=says)


@pytest.fixture
def prepared(checkout, tiny_data):
    """A checkout with curated-10 built."""
    shutil.copytree(tiny_data / "curated", checkout / "data/curated")
    run("data/build.py", "--data_type", "curated-10", cwd=checkout)
    return checkout


def test_a_missing_split_is_reported_before_any_prediction(prepared):
    shutil.rmtree(prepared / "data/curated/test")
    (prepared / "runs/x").mkdir(parents=True)
    run_record = TRAINING_RECORD | {"data_type": "curated-10", "timestamp": "x"}
    (prepared / "runs/x/run.json").write_text(json.dumps(run_record))
    evaluate = ("scripts/run_evaluate.sh", "--run_dir", "runs/x")
    refused(prepared, *evaluate, says=["--data_dir data/curated/test", "no such folder"])


def finetune(model, *flags):
    return (
        *("train/finetune.py", "--model_name_or_path", model, "--train_dir", "data/curated-10"),
        *("--valid_dir", "data/curated/valid", "--output_dir", "runs/x", *flags),
    )


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: shutil.rmtree(folder), [MODEL_FLAG, "no such folder"]),
        (lambda folder: (folder / "config.json").unlink(), [MODEL_FLAG, "config.json"]),
        (lambda folder: (folder / "config.json").write_text("{"), ["config.json", "not JSON"]),
        (lambda folder: (folder / "model.safetensors").unlink(), [MODEL_FLAG, "incomplete"]),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
         [MODEL_FLAG, "pickled weights", "safetensors"]),
        (lambda folder: (folder / "model.safetensors").rename(
            folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})),
         [MODEL_FLAG, "incomplete", "model-00001-of-00002.safetensors"]),
        (lambda folder: save_file(
            {"model.norm.weight": torch.ones(16)}, folder / "model.safetensors", {"format": "pt"}),
         [MODEL_FLAG, "incomplete", "would be random"]),
        (lambda folder: [path.unlink() for path in folder.glob("tokenizer.*")],
         [MODEL_FLAG, "tokenizer can't be loaded"]),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"cut"),
         [MODEL_FLAG, "model.safetensors", "cut off"]),
        (lambda folder: (folder / "config.json").write_text(json.dumps(
            {"model_type": "odd", "auto_map": {"AutoModelForCausalLM": "odd.Odd"}})),
         [MODEL_FLAG, "can't be loaded", "code"]),
    ],
)  # fmt: skip
def test_models(prepared, tiny_model, spoil, says):
    shutil.copytree(tiny_model, prepared / "model")
    (prepared / "model/odd.py").write_text("raise SystemExit('code of a model folder was run')")
    spoil(prepared / "model")
    refused(prepared, *finetune("./model"), says=says)
    assert not (prepared / "runs").exists()


def test_a_run_folder_of_another_setting(prepared, tiny_model):
    run(*finetune(tiny_model, "--epochs", "1"), cwd=prepared)
    again = finetune(tiny_model, "--epochs", "1")
    refused(prepared, *again, says=["--output_dir runs/x", "--resume"])
    other = finetune(tiny_model, "--epochs", "2", "--resume")
    refused(prepared, *other, says=["--output_dir runs/x", "another setting", "epochs 1, now 2"])
    write_lines(prepared / "data/curated-10/biology.json", [line("biology", "B")])
    refused(prepared, *again, "--resume", says=["build.record", "changed: biology.json", "remove"])
    (prepared / "data/curated-10/build.record").unlink()
    refused(prepared, *again, "--resume", says=["another setting", "files of --train_dir"])


def test_predictions_of_another_model_in_the_output_folder(prepared, tiny_model):
    predict = ("evaluate/predict.py", "--model_name_or_path", tiny_model)
    flags = ("--eval_data_path", "data/curated/valid", "--max_new_tokens", "2")
    refused(prepared, *predict, *flags, says=["--model_size", "--tag"])
    name = ("--model_size", "tiny", "--tag", "base")
    run(*predict, *flags, *name, "--limit", "1", cwd=prepared)
    (folder,) = prepared.glob("evaluate/pred-data/valid/tiny/*/base/checkpoint-0-limit1")
    assert len(list(folder.glob("pred_*.json"))) == 13  # the limit stands in the name
    other = prepared / "other"
    shutil.copytree(tiny_model, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    command = ("evaluate/predict.py", "--model_name_or_path", other, *flags, *name, "--limit", "1")
    refused(prepared, *command, says=["another model", "fingerprint", "--pred_data_path"])
    # weights and config as they were, and other tokens
    retokenised = prepared / "retokenised"
    shutil.copytree(tiny_model, retokenised)
    make_pocket(prepared / "words", ["甲乙甲乙丙丙丙A" * 9, *TEXTS] * 20, seed=0, vocabulary=380)
    shutil.copy(prepared / "words/tokenizer.model", retokenised)
    command = (*command[:2], retokenised, *command[3:])
    refused(prepared, *command, says=["another model", "different: tokenizer)", "--pred_data_path"])
    write_lines(prepared / "data/curated/valid/math_valid.json", [line("math", "4", answer="4")])
    changed = (*predict, *flags, *name, "--limit", "1")
    refused(prepared, *changed, says=["pred_math_valid.json", "other lines", "remove"])


def test_no_write_permission(prepared):
    locked = prepared / "locked"
    locked.mkdir(mode=0o500)
    command = ("data/build.py", "--data_type", "curated-10", "--output_dir", "locked/x")
    if os.geteuid() == 0:  # root may write everywhere, unless it gives that up
        unprivileged = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        command = (*unprivileged, sys.executable, *command)
    refused(prepared, *command, says=["locked"])


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("data/build.py", "--data_type", "curated-10", "--output_dir", "file/x"), ["file/x"]),
        (("evaluate/predict.py", "--model_name_or_path", "m", "--eval_data_path",
          "data/curated/valid", "--pred_data_path", "file/x"),
         ["--pred_data_path file/x", "file is a file"]),
        (("evaluate/score.py", "--pred_data_path", "in", "--results_path", "file/x"),
         ["--results_path file/x", "file is a file"]),
        (("train/finetune.py", "--model_name_or_path", "m", "--train_dir", "data/curated-10",
          "--valid_dir", "data/curated/valid", "--output_dir", "file/x"),
         ["--output_dir file/x", "file is a file"]),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_written_to(prepared, command, says):
    """A folder below a file: what root can't write either."""
    (prepared / "file").write_text("")
    record = GOOD | {"generated_response": "A", "choice_logits": dict.fromkeys("ABCD", 0)}
    write_lines(prepared / "in/pred_x.json", [record])
    refused(prepared, *command, says=says)


def test_a_folder_without_permission_is_reported_before_any_work(tmp_path, monkeypatch):
    from growth.core.errors import InputError
    from growth.core.files import check_writable

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"--output_dir .*no permission to write"):
        check_writable(tmp_path / "a/b", "--output_dir")


def test_scoring_an_empty_folder(checkout):
    (checkout / "empty").mkdir()
    refused(checkout, "evaluate/score.py", "--pred_data_path", "empty", says=["empty", "pred_"])
