"""Scripts run in the tests' process leave the files and the words of a process of their own."""

import logging
import os
import random
import re
import shutil

import pytest
import torch
from conftest import copy_scripts, run

# What differs between any two runs: clocks, what is computed from them, and whether the checkout is
# clean at that moment, in which other tests are at work.
TIMES = re.compile(
    rb"\"dirty\": \w+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
    rb"|\"(?:tokens_per_second|peak_memory_bytes|\w+_runtime|\w+_per_second)\": [\d.]+"
)


def stages(root, model, process):
    """Build, train, predict and score in `root`; what each printed to stdout."""
    shared = {"cwd": root, "process": process}
    commands = (
        ("data/build.py", "--data_type", "curated-10"),
        ("train/finetune.py", "--model_name_or_path", model, "--train_dir", "data/curated-10",
         "--valid_dir", "data/curated/valid", "--output_dir", "runs/x", "--epochs", "1",
         "--precision", "fp32", "--model_size", "tiny"),
        ("evaluate/predict.py", "--model_name_or_path", "runs/x/checkpoint-1", "--limit", "1",
         "--eval_data_path", "data/curated/valid", "--max_new_tokens", "4"),
        ("evaluate/score.py", "--pred_data_path", "evaluate/pred-data", "--details"),
    )  # fmt: skip
    return [run(*command, **shared).stdout for command in commands]


@pytest.mark.slow  # the wrappers' test in test_chain.py compares weights and predictions always
def test_the_files_are_those_of_processes_bit_for_bit(tmp_path, tiny_model, tiny_data):
    found, said = [], []
    for process in (False, True):
        root = tmp_path / f"process-{process}"
        root.mkdir()
        copy_scripts(root)
        shutil.copytree(tiny_data / "curated", root / "data/curated")
        said.append(stages(root, tiny_model, process))
        files = [p for d in ("data", "runs", "evaluate") for p in (root / d).rglob("*.*")]
        found.append({
            str(p.relative_to(root)): TIMES.sub(b"", p.read_bytes())
            for p in files if p.is_file() and "__pycache__" not in p.parts
        })  # fmt: skip
    assert said[0] == said[1]
    here, apart = found
    assert here.keys() == apart.keys()
    assert [name for name in here if here[name] != apart[name]] == []
    assert any(name.endswith("model.safetensors") for name in here)


def surroundings():
    """What a script could leave changed."""
    root = logging.getLogger()
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "handlers": list(root.handlers),
        "levels": [root.level, *(logging.getLogger(n).level for n in ("transformers", "growth"))],
        "random": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
        "precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
    }


def test_nothing_of_a_script_stays_behind(checkout, tiny_model, tiny_data):
    import transformers.utils.logging  # so that its level is one before the run and after

    transformers.utils.logging.set_verbosity_info()
    shutil.copytree(tiny_data / "curated", checkout / "data/curated")
    try:
        before = surroundings()
        stages(checkout, tiny_model, process=False)
        assert surroundings() == before
    finally:
        transformers.utils.logging.set_verbosity_warning()


@pytest.mark.parametrize("process", [False, True])
@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--pred_data_path", "nowhere"), 2, "error: --pred_data_path nowhere"),
        (("--pred_data_path",), 2, "argument --pred_data_path: expected one argument"),
        (("--help",), 0, ""),
    ],
)
def test_exit_codes_and_words_are_those_of_a_process(checkout, flags, code, words, process):
    done = run("evaluate/score.py", *flags, cwd=checkout, check=False, process=process)
    assert done.returncode == code
    assert words in done.stderr
    assert ("usage: score.py" in done.stdout) == (flags == ("--help",))
    assert "Traceback" not in done.stderr


def test_an_exception_that_a_script_does_not_explain_is_a_traceback(checkout, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", broken)
    done = run("evaluate/score.py", "--help", cwd=checkout, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "ZeroDivisionError: a bug" in done.stderr
