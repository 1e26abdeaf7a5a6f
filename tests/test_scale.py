"""benchmarks/scale.py: memory and time of the stages, at sizes that tests can bear."""

import subprocess
import sys

import pytest
from conftest import ROOT
from in_process import load_script


@pytest.fixture(scope="module")
def scale():
    """The benchmark as a module."""
    return load_script(ROOT / "benchmarks/scale.py")


@pytest.mark.slow
def test_the_table_has_a_row_for_each_stage_and_size():
    sizes = ("--lines", "100", "--checkpoints", "10")
    command = [sys.executable, ROOT / "benchmarks/scale.py", *sizes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [text.split(" | ") for text in done.stdout.splitlines()[2:]]
    assert [row[0].removeprefix("| ") for row in rows] == [
        *("build", "tokenise", "score", "select", "plot")
    ]
    assert all(float(cell.rstrip(" |").replace(",", "")) >= 0 for row in rows for cell in row[2:])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["build", "tokenise", "score"])
def test_30000_lines_take_little_more_memory_than_3000(scale, tmp_path, stage):
    """They are 30 MB as text, and were some 70 to 400 MB in memory."""
    found = []
    for count in (3000, 30_000):
        scale.make_lines(tmp_path / str(count), count)
        found.append(scale.in_own_process(stage, tmp_path / str(count))["mebibytes"])
    assert found[1] < found[0] + 50


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["select", "plot"])
def test_2000_checkpoints_take_less_than_a_minute(scale, tmp_path, stage):
    scale.make_results(tmp_path, 2000)
    assert scale.in_own_process(stage, tmp_path)["cpu_seconds"] < 60
