"""benchmarks/sweep_overhead.py: what a sweep costs besides its stages."""

import subprocess
import sys

import pytest
from conftest import ROOT
from in_process import load_script

SCRIPT = ROOT / "benchmarks/sweep_overhead.py"


def test_the_ratio_is_of_the_wall_clock_to_the_stages_over_the_cores():
    module = load_script(SCRIPT)
    stages = [("build", 1.0), ("train", 10.0), ("build", 2.0), ("train", 7.0)]
    said = module.table(stages, 10.5, 2)
    assert "| build | 2 | 3.0 |\n| train | 2 | 17.0 |\n| all | 4 | 20.0 |" in said
    assert "over 2 cores 10.0 s: 1.05 times, within the goal" in said
    assert "1.20 times, beyond the goal" in module.table(stages, 12.0, 2)


@pytest.mark.slow
def test_a_small_sweep_is_measured(tiny_model, tiny_data):
    small = ("--data_types", "curated-10", "--seeds", "0,1", "--epochs", "1")
    small += ("--data_dir", tiny_data, "--model_name_or_path", tiny_model)
    done = subprocess.run([sys.executable, SCRIPT, *small], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [row.split(" | ")[:2] for row in done.stdout.splitlines()[2:-2]]
    assert rows == [["| build", "2"], ["| train", "2"], ["| evaluate", "2"], ["| report", "1"],
                    ["| plot", "1"], ["| all", "8"]]  # fmt: skip
    assert "the stages' own time over 2 cores" in done.stdout
