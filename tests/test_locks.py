"""A folder that one launch at a time works in."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from conftest import ROOT, copy_scripts, line, run, write_lines

from growth.core.errors import InputError
from growth.core.files import write_json
from growth.core.locks import LockedError, lock_path, locked

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


def test_who_removes_the_lock_file_lets_nobody_in(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    process = holder(folder)
    lock_path(folder).unlink()
    with (
        pytest.raises(InputError, match=r"--output_dir .*/run: another process, whose lock file"),
        locked(folder, "--output_dir"),
    ):
        pass
    process.communicate("")
    with locked(folder, "--output_dir"):
        pass


def test_a_folder_is_made_to_be_locked_and_goes_if_it_is_empty(tmp_path):
    folder = tmp_path / "runs/run"
    with locked(folder, "--output_dir", make=True):
        assert folder.is_dir()
        lock_path(folder).unlink()
        with pytest.raises(InputError, match="whose lock file"), locked(folder, "--output_dir"):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(folder, "--output_dir", make=True):
        (folder / "x").touch()
    assert (folder / "x").exists()


def test_a_lock_that_is_not_ours_any_more_stays(tmp_path):
    """The folder is made in between, so that nothing but its file can be locked twice."""
    with locked(tmp_path / "run", "--output_dir"):
        lock_path(tmp_path / "run").unlink()
        other = holder(tmp_path / "run")
    assert lock_path(tmp_path / "run").exists()
    with pytest.raises(InputError, match=f"process {other.pid}"), locked(tmp_path / "run", "-"):
        pass
    other.communicate("")


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK])
def test_where_folders_have_no_locks_the_file_alone_has(tmp_path, monkeypatch, number):
    """As on NFS, where a lock needs a file that is open for writing."""
    plain = fcntl.flock

    def of_files(descriptor, operation):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        plain(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", of_files)
    with (
        locked(tmp_path, "--output_dir"),
        pytest.raises(InputError, match="is at work"),
        locked(tmp_path, "--output_dir"),
    ):
        pass


def test_a_dead_owners_lock_is_taken_over(tmp_path):
    process = holder(tmp_path / "run")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert lock_path(tmp_path / "run").exists()
    with locked(tmp_path / "run", "--output_dir"):
        assert f'"pid": {os.getpid()}' in lock_path(tmp_path / "run").read_text()


def test_a_full_disk_leaves_no_lock_behind(tmp_path, monkeypatch):
    """It can't say who holds it; whoever comes next would wait for itself."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        with locked(tmp_path / "run", "--output_dir"):
            assert lock_path(tmp_path / "run").exists()
            with pytest.raises(LockedError), locked(tmp_path / "run", "--output_dir"):
                pass


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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    said = r"--output_dir .*/run: its file system has no locks"
    with pytest.raises(InputError, match=said), locked(tmp_path / "run", "--output_dir"):
        pass


def test_waiting_ends_with_the_owner(tmp_path, caplog):
    process = holder(tmp_path / "run")
    threading.Timer(0.3, process.stdin.close).start()
    with locked(tmp_path / "run", "--output_dir", wait=True):
        assert f"waits for process {process.pid} on" in caplog.text
    assert process.wait() == 0
    process.stdout.close()
    assert not lock_path(tmp_path / "run").exists()


FORKS = """
import os, sys
from pathlib import Path
from growth.core.locks import locked
with locked(Path(sys.argv[1]), "--output_dir"):
    reads, writes = os.pipe()
    if not os.fork():
        os.write(writes, b"forked")
        sys.stdin.read()
        os._exit(0)
    os.read(reads, 6)
    os.kill(os.getpid(), 9)
"""


def test_a_worker_that_outlives_the_owner_holds_no_lock(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS, str(tmp_path / "run")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.wait() == -signal.SIGKILL
    with locked(tmp_path / "run", "--output_dir"):
        pass
    process.communicate()


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, tiny_data):
    """Inputs for each stage that writes."""
    root = copy_scripts(tmp_path_factory.mktemp("place"))
    shutil.copytree(tiny_data / "curated", root / "curated")
    (root / "model").symlink_to(tiny_model)
    (root / "points.csv").write_text("curve,samples,value\na,10,3\na,40,2\n")
    scored = {"x": {"type": "biology", "n": 1, "score": 0.0, "expected": 25.0}}
    for name in ("one", "two"):
        write_json(root / f"{name}-results.json", {"run": {}, "files": scored})
        verdict = {"score": 0, "question": "q", "passages": []}
        write_lines(root / f"{name}-details/x.jsonl", [verdict])
    write_lines(
        root / "predictions/c/pred_biology.json",
        [line("biology", "A", generated_response="A", choice_logits=[0.0] * 4)],
    )
    named = {"model_size": "s", "data_type": "d", "timestamp": "t", "checkpoint": "c"}
    numbers = {"step": 1, "epoch": 1, "epochs": 1}
    scores = {"average": 1.0, "average_low": 0.0, "average_high": 2.0}
    results = {"run": named | numbers, **scores, "files": {}}
    write_json(root / "results/c-results.json", results)
    return root


# What a stage writes, by the command: a second one is refused while that is locked.
OUTPUTS = {
    "data/build.py --data_type curated-10 --data_dir . --output_dir out": "out/curated-10",
    "data/design.py --total 20 --data_dir . --output_dir designed": "designed",
    "data/make_sample.py --output_dir sample": "sample",
    "data/make_example.py --output_dir example": "example",
    "data/import.py --input curated/1000 --output_dir imported": "imported",
    "data/download.py --datasets doit --data_dir .": "doit",
    "train/finetune.py --model_name_or_path model --train_dir curated/1000 --valid_dir "
    "curated/valid --output_dir runs/x": "runs/x",
    "train/pretrain_pocket.py --output_dir pocket --steps 1": "pocket",
    "evaluate/predict.py --model_name_or_path model --model_size x --tag t --pred_data_path out "
    "--eval_data_path curated/valid": "out/valid/x/untuned/t/checkpoint-0",
    "evaluate/score.py --pred_data_path predictions --results_path scores": "scores/c-results.json",
    "evaluate/select_checkpoint.py --results_path results": "results/selected-checkpoint.json",
    "evaluate/plot.py --plot_type all --results_path results --plots_path plots": "plots",
    "evaluate/fit.py --points points.csv --output_dir laws": "laws",
    "evaluate/plan.py --budget 9 --mixtures mixtures.csv --output_dir plan": "plan",
    "evaluate/compare.py one-results.json two-results.json --output_dir compared": "compared",
    "evaluate/export.py --model_name_or_path model --output_dir exported": "exported",
    "evaluate/export.py --model_name_or_path model --gguf model.gguf": "model.gguf",
    "evaluate/cmmlu/run.py --model_name_or_path model --data_dir cmmlu --output_dir ans": "ans",
}


@pytest.mark.parametrize("command", OUTPUTS, ids=lambda command: command.partition(" --")[0])
def test_every_stage_locks_what_it_writes(place, command):
    for split in ("dev", "test"):
        rows = ",Question,A,B,C,D,Answer\n0,q,a,b,c,d,A\n"
        write_lines(place / f"cmmlu/{split}/arts.csv", [rows.encode()])
    with locked(place / OUTPUTS[command], "test"):
        done = run(*command.split(), cwd=place, check=False)
    assert done.returncode == 2, done.stderr
    assert f": process {os.getpid()} on {os.uname().nodename}, since 20" in done.stderr
    assert done.stderr.count("\nerror: ") + done.stderr.startswith("error: ") == 1
    assert not (place / OUTPUTS[command]).exists()
    assert "--wait" in run(command.split()[0], "--help", cwd=place).stdout
