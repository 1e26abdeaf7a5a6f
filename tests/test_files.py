"""Files that are there whole or not at all."""

import subprocess
import sys

import pytest
from conftest import ROOT

from growth.core.files import replacing, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.json"]
    with pytest.raises(ValueError):
        write_json(path, float("nan"))
    assert path.read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "setting"
    for content in ("a", "b"):
        with replacing(folder) as temporary:
            write_text(temporary / f"{content}.json", content)
        assert names(folder) == [f"{content}.json"]
    with pytest.raises(ZeroDivisionError), replacing(folder) as temporary:
        write_text(temporary / "c.json", "c")
        raise ZeroDivisionError
    assert names(folder) == ["b.json"]
    assert names(tmp_path) == ["setting"]


def test_what_a_kill_left_behind_goes_the_next_time(tmp_path):
    killed = """
import os, signal, sys
from pathlib import Path
from growth.core.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.mkdir()
    (temporary / "half.json").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "setting")], cwd=ROOT)
    (left,) = names(tmp_path)
    assert left.startswith(".setting.")
    (tmp_path / ".setting.tmp").mkdir()  # of a version that had one name for all
    elsewhere = tmp_path / ".setting.00000000.1.0.tmp"  # of another machine: nobody knows
    elsewhere.mkdir()
    other = tmp_path / left.replace(".setting.", ".setting-2.")  # of another folder
    other.mkdir()
    with replacing(tmp_path / "setting") as temporary:
        write_text(temporary / "a.json", "a")
    assert names(tmp_path) == sorted(["setting", elsewhere.name, other.name])
    assert names(tmp_path / "setting") == ["a.json"]


def test_two_that_write_the_same_file_share_no_temporary_name(tmp_path):
    path = tmp_path / "x.json"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert names(tmp_path) == ["x.json"]
    assert path.read_text() == "1"  # the outer one ends last


def test_two_processes_that_replace_one_folder_leave_it_whole(tmp_path):
    program = """
import sys
from pathlib import Path
from growth.core.files import replacing
for _ in range(300):
    with replacing(Path(sys.argv[1])) as temporary:
        temporary.mkdir()
        for name in "ab":
            (temporary / name).write_text(sys.argv[2])
"""
    folder = str(tmp_path / "setting")
    begun = [
        subprocess.Popen([sys.executable, "-c", program, folder, word], cwd=ROOT)
        for word in ("one", "two")
    ]
    assert [process.wait() for process in begun] == [0, 0]
    assert names(tmp_path) == ["setting"]
    assert len({(tmp_path / "setting" / name).read_text() for name in "ab"}) == 1
