"""A folder that one launch at a time works in."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from growth.core.errors import InputError
from growth.core.locks import lock_path, locked

HOLDS = """
import sys
from pathlib import Path
from growth.core.locks import locked
with locked(Path(sys.argv[1]), "--output_dir"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder):
    """A process that holds the lock of `folder` until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_live_owner_is_named(tmp_path):
    folder = tmp_path / "run"
    process = holder(folder)
    said = rf"--output_dir .*/run: process {process.pid} on {os.uname().nodename}, since 20"
    with pytest.raises(InputError, match=said), locked(folder, "--output_dir"):
        pass
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match=said), locked(tmp_path / "link/run", "--output_dir"):
        pass
    process.communicate("")
    with locked(folder, "--output_dir"):
        pass
    assert not lock_path(folder).exists()


def test_a_dead_owners_lock_is_taken_over(tmp_path):
    process = holder(tmp_path / "run")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert lock_path(tmp_path / "run").exists()
    with locked(tmp_path / "run", "--output_dir"):
        assert f'"pid": {os.getpid()}' in lock_path(tmp_path / "run").read_text()


def test_a_lock_leaves_nothing_and_makes_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a/b/run", "--output_dir"):
        raise ZeroDivisionError
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a/b/run", "--output_dir"):
        (tmp_path / "a/b/run").mkdir()
    assert (tmp_path / "a/b/run").is_dir()


def test_a_lock_is_released_by_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / "run", "--output_dir"):
            raise ZeroDivisionError
