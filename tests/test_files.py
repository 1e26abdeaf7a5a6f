"""Files that are there whole or not at all."""

import errno
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from safetensors import SafetensorError

from growth.core.cli import run_script
from growth.core.errors import InputError
from growth.core.files import replacing, write_errors, write_json, write_text


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


@pytest.fixture
def old_and_new(tmp_path):
    """A folder that is to be replaced, and what replaces it."""
    folder = tmp_path / "setting"
    with replacing(folder) as temporary:
        write_text(temporary / "old.json", "old")

    def replace():
        with replacing(folder) as temporary:
            write_text(temporary / "new.json", "new")

    return folder, replace


def failing_renames(monkeypatch, fail, *numbers):
    """Let renames of these numbers, from 1, fail; files have theirs before the folder."""
    rename, calls = os.replace, []

    def replace(source, target):
        calls.append((source, target))
        if len(calls) in numbers:
            fail()
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    return calls


def fail_with(error):
    def fail():
        raise error

    return fail


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_fault_at_any_rename_leaves_the_old_folder(old_and_new, monkeypatch, error, number):
    folder, replace = old_and_new
    with monkeypatch.context() as patch:
        failing_renames(patch, fail_with(error), number)
        with pytest.raises(type(error)):
            replace()
    assert names(folder) == ["old.json"]
    assert names(folder.parent) == ["setting"]
    replace()
    assert names(folder) == ["new.json"]


def test_a_disk_that_fails_from_the_second_rename_on_keeps_the_old_folder(old_and_new, monkeypatch):
    folder, replace = old_and_new
    with monkeypatch.context() as patch:
        failing_renames(patch, fail_with(OSError(errno.EIO, "I/O error")), 3, 4)
        with pytest.raises(OSError, match="I/O error"):
            replace()
    assert [name[-4:] for name in names(folder.parent) if name.endswith(".old")] == [".old"]


def test_a_kill_between_the_renames_and_then_a_full_disk_keep_the_old_folder(old_and_new):
    folder, replace = old_and_new
    if not (child := os.fork()):
        with pytest.MonkeyPatch.context() as patch:
            failing_renames(patch, lambda: os._exit(0), 3)
            replace()
    os.waitpid(child, 0)
    assert "setting" not in names(folder.parent)
    with pytest.raises(OSError, match="full") as raised, replacing(folder) as temporary:
        temporary.mkdir()
        raise OSError(errno.ENOSPC, "full")
    assert raised.value.filename == str(folder)
    assert names(folder.parent) == ["setting"]
    assert names(folder) == ["old.json"]


def test_a_folder_with_the_same_files_is_not_touched(old_and_new):
    folder, replace = old_and_new
    replace()
    before = folder.stat().st_ino
    replace()
    assert folder.stat().st_ino == before
    assert names(folder.parent) == ["setting"]


def test_all_is_on_the_disk_before_it_has_its_name(old_and_new, monkeypatch):
    folder, replace = old_and_new
    done = failing_renames(monkeypatch, lambda: None)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(inode(file)), fsync(file)))

    def inode(file):
        return os.fstat(file).st_ino

    replace()
    renamed = next(
        i for i, call in enumerate(done) if isinstance(call, tuple) and call[1] == folder
    )
    for path in (folder / "new.json", folder):
        assert path.stat().st_ino in done[:renamed], path
    assert folder.parent.stat().st_ino in done[renamed:]


def test_names_of_240_characters(tmp_path):
    path = tmp_path / ("名" * 80)
    write_text(path, "a")
    with replacing(path) as temporary:
        temporary.write_text("b")
    assert path.read_text() == "b"
    assert names(tmp_path) == [path.name]


def test_messages_name_the_file_that_was_to_be_written(tmp_path):
    """And not the temporary one, which nobody knows."""
    longest = tmp_path / ("x" * 300)
    with pytest.raises(OSError, match="File name too long") as caught:
        write_text(longest, "a")
    assert caught.value.filename == str(longest)
    with pytest.raises(OSError, match="No such file") as caught, replacing(tmp_path / "x") as made:
        (made / "y/z").write_text("a")
    assert caught.value.filename == str(tmp_path / "x/y/z")


def test_a_folder_where_a_file_is_to_be_written_stays(tmp_path):
    (tmp_path / "x.json/inner").mkdir(parents=True)
    with pytest.raises(InputError, match=r"x\.json: is a folder; expected a file"):
        write_text(tmp_path / "x.json", "new")
    assert names(tmp_path) == ["x.json"]
    assert names(tmp_path / "x.json") == ["inner"]


TORCH = "[enforce fail at inline_container.cc:662] . PytorchStreamWriter failed writing file data/0"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            ),
            "the disk is full",
        ),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "the disk is full"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the disk is full"),
        (SafetensorError("I/O error (os error 5)"), os.strerror(errno.EIO)),
        (Exception("No space left on device (os error 28)"), "the disk is full"),  # tokenizers'
        (RuntimeError(TORCH), os.strerror(errno.EIO)),
    ],
)
def test_whoever_finds_the_disk_full_the_place_is_named(tmp_path, capsys, error, says):
    def main(_):
        with write_errors(tmp_path / "checkpoint-3"):
            raise error

    with pytest.raises(SystemExit, match="2"):
        run_script(main)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {tmp_path}/checkpoint-3: ")
    assert says in said


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (RuntimeError("shape"), SafetensorError("header"), OSError("hub")):
        with pytest.raises(type(error), match=str(error)), write_errors(tmp_path):
            raise error


def test_what_a_process_left_that_nobody_has_waited_for_goes(tmp_path):
    path = tmp_path / "x.json"
    if not (child := os.fork()):
        with replacing(path) as temporary:
            temporary.write_text("half")
            os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    write_text(path, "whole")
    assert names(tmp_path) == ["x.json"]
    os.waitpid(child, 0)


def test_a_fifo_to_write_to_is_refused_and_stays(tmp_path):
    """A device likewise; `/dev/null` would be a plain file from then on."""
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    for path in (fifo, link):
        with pytest.raises(InputError, match="is a FIFO; expected a file"):
            write_text(path, "new")
    assert fifo.is_fifo()
    assert {path.name for path in tmp_path.iterdir()} == {"fifo", "link"}


def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path):
    """Such as a folder on another disk."""
    (tmp_path / "disk/folder").mkdir(parents=True)
    for name in ("folder", "file"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    with replacing(tmp_path / "folder") as temporary:
        write_text(temporary / "a", "new")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "folder").is_symlink()
    assert (tmp_path / "file").is_symlink()
    assert [(tmp_path / "disk" / name).read_text() for name in ("folder/a", "file")] == ["new"] * 2
