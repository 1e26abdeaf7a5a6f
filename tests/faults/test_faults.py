"""Faults on every stage: some of them always, the whole campaign with the slow tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).with_name("campaign.py")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """Where the first campaign leaves its quiet run, for all others."""
    return tmp_path_factory.mktemp("faults") / "quiet"


def survived(quiet, *flags):
    """Run the campaign; how many faults were survived, of how many."""
    done = subprocess.run(
        [sys.executable, CAMPAIGN, "--quiet", quiet, *flags],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    found = re.search(r"seed \d+: (\d+) of (\d+) faults survived", done.stdout)
    assert found, done.stderr
    assert done.returncode == 0, done.stdout
    return int(found[1]), int(found[2])


def test_eight_faults_are_survived(quiet):
    assert survived(quiet, "--faults", "8", "--seed", "0") == (8, 8)


@pytest.mark.slow
def test_eighty_other_faults_are_survived(quiet):
    """`scripts/reliability.sh` tries 400."""
    assert survived(quiet, "--faults", "80", "--seed", "1") == (80, 80)


def test_a_fault_that_is_not_survived_is_seen(quiet, tmp_path):
    """Two faults on an output that is there and is another: nothing of it may be left."""
    program = f"""
import sys
sys.path.insert(0, {str(CAMPAIGN.parent)!r})
import campaign, study
contents = study.contents
lost = {{"lost": b""}}
study.contents = lambda path: contents(path) | (lost if "quiet" in str(path) else {{}})
sys.argv[1:] = ["--faults", "2", "--folder", {str(tmp_path)!r}, "--quiet", {str(quiet)!r}]
campaign.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "seed 0: 0 of 2 faults survived" in done.stdout
    assert "not those of a quiet run: lost" in done.stdout
