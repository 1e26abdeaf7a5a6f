"""The benchmarks run, and the loops that they compare do the same work."""

import importlib.util
import json

import pytest
from conftest import ROOT, run

TRAINING = ROOT / "benchmarks/training.py"


@pytest.mark.slow
def test_the_loops_compared_have_one_loss(tiny_model, tiny_data, tmp_path):
    done = run(
        TRAINING,
        *("--loops", "ours", "published", "--steps", 1, "--samples", 16),
        *("--data_dir", tiny_data / "curated/1000", "--tokenizer", tiny_model),
        *("--layers", 2, "--hidden", 32, "--heads", 4, "--kv_heads", 2, "--intermediate", 48),
        *("--output", "results.json"),
        cwd=tmp_path,
        process=True,  # its workers import it
    )
    assert "| ours |" in done.stdout
    assert "| published |" in done.stdout
    (table,) = json.loads((tmp_path / "results.json").read_text())["measured"]
    for ours, published in zip(*table["steps"].values(), strict=True):
        assert ours["loss"] == pytest.approx(published["loss"], rel=1e-5)
        assert ours["tokens"] == published["tokens"] > 0
        assert ours["useful_flop"] == published["useful_flop"] > 0
        assert ours["cpu_s"] > 0
        assert ours["peak_memory_gib"] > 0


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="TRL is installed")
def test_a_missing_library_is_named_with_its_remedy(tmp_path):
    done = run(TRAINING, "--loops", "trl", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "pip install -r benchmarks/requirements-training.txt" in done.stderr


def test_too_few_lines_for_the_steps_asked_for(tiny_data, tmp_path):
    done = run(
        TRAINING,
        *("--loops", "ours", "--steps", 9, "--data_dir", tiny_data / "curated/1000"),
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "40 lines" in done.stderr
