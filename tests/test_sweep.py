"""The sweep: its plan, its checks, its runs by both engines, stopped and started again."""

import shutil

import pytest
from conftest import copy_scripts, run

SETTINGS = ("--data_types", "curated-10,curated-40", "--seeds", "0,1")
FLAGS = ("--train_flags", "--total_batch_size 8 --precision fp32 --epochs 2")
PREDICT = ("--predict_flags", "--max_new_tokens 2 --precision fp32")


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_data, tiny_model):
    """A folder with the scripts, lines and a model."""
    root = copy_scripts(tmp_path_factory.mktemp("sweep"))
    shutil.copytree(tiny_data / "curated", root / "data/curated")
    shutil.copytree(tiny_model, root / "model")
    return root


def sweep(root, *more, check=True):
    flags = ("--model_size", "tiny", "--model_name_or_path", "model", *SETTINGS, *FLAGS, *PREDICT)
    return run("scripts/sweep.py", *flags, *more, cwd=root, check=check)


def test_every_setting_and_seed_is_a_run(study):
    done = sweep(study)
    print(done.stdout, done.stderr)
    assert 0
