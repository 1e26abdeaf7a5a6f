"""GPUs that several jobs share."""

import os
import select
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from growth.core.errors import InputError
from growth.core.slots import gpu_slots

# Takes GPUs, says which, and holds them until its stdin ends.
HOLDS = """
import sys
from pathlib import Path
from growth.core.slots import gpu_slots
gpus, count, folder = sys.argv[1:]
with gpu_slots(gpus.split(","), int(count), Path(folder)) as ids:
    print(",".join(ids), flush=True)
    sys.stdin.read()
"""


def job(folder, gpus, count):
    """A process that takes `count` of `gpus` and holds them until its stdin ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDS, gpus, str(count), str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def given(process):
    """The GPUs that a job got."""
    ready, _, _ = select.select([process.stdout], [], [], 60)
    assert ready, "the job waits for ever"
    return process.stdout.readline().strip().split(",")


def end(*processes):
    for process in processes:
        process.communicate("")
        assert process.returncode == 0


def test_no_two_jobs_have_one_gpu_and_the_third_waits(tmp_path):
    first, second = (job(tmp_path, "0,1", 1) for _ in range(2))
    held = {id_: process for process in (first, second) for id_ in given(process)}
    assert set(held) == {"0", "1"}
    third = job(tmp_path, "0,1", 1)
    assert "waits for 1 of them" in third.stderr.readline()
    end(held["1"])
    assert given(third) == ["1"]
    end(held["0"], third)
    assert not list(tmp_path.iterdir())  # not even a lock file stays


def test_a_dead_jobs_gpu_is_free_at_once(tmp_path):
    killed = job(tmp_path, "0", 1)
    assert given(killed) == ["0"]
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    with gpu_slots(["0"], 1, tmp_path) as ids:
        assert ids == ["0"]


def test_jobs_of_several_gpus_never_wait_for_one_another(tmp_path):
    """With one GPU each in hand, both would wait for ever."""
    one = job(tmp_path, "0,1,2", 1)
    assert given(one) == ["0"]
    pairs = [job(tmp_path, "0,1,2", 2) for _ in range(2)]
    (first, *_), _, _ = select.select([process.stdout for process in pairs], [], [], 60)
    ready, waits = sorted(pairs, key=lambda process: process.stdout is not first)
    assert given(ready) == ["1", "2"]
    end(ready)
    assert given(waits) == ["1", "2"]
    end(one, waits)


def test_the_machines_of_a_shared_folder_have_gpus_of_their_own(tmp_path, monkeypatch):
    with gpu_slots(["0"], 1, tmp_path):
        monkeypatch.setattr("growth.core.slots.socket.gethostname", lambda: "another")
        with gpu_slots(["0"], 1, tmp_path) as ids:
            assert ids == ["0"]


def test_an_error_in_the_job_frees_its_gpus(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), gpu_slots(["0", "1"], 2, tmp_path) as ids:
            assert ids == ["0", "1"]
            raise ZeroDivisionError


@pytest.mark.parametrize(
    ("gpus", "count", "message"),
    [
        ([], 1, r"--gpus : 0 GPUs, and a job takes 1; name as many at least"),
        (["0", "1"], 3, r"--gpus 0,1: 2 GPUs, and a job takes 3"),
        (["0", "0"], 1, r"--gpus 0,0: names a GPU twice"),
        (["0", ""], 1, r"--gpus 0,: '' is no GPU; .* nvidia-smi -L"),
        (["../0"], 1, r"'\.\./0' is no GPU"),
    ],
)
def test_gpus_that_cannot_be_had(tmp_path, gpus, count, message):
    with pytest.raises(InputError, match=message), gpu_slots(gpus, count, tmp_path):
        pass
    assert not os.listdir(tmp_path)
