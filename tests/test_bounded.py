"""The process that bounds time and memory: what it answers, what ends it, what it leaves."""

import contextlib
import doctest
import signal
import subprocess
import sys
import threading

import psutil
import pytest

import growth.core.bounded
from growth.core.bounded import BoundedWorker, OverBoundError


@pytest.fixture(scope="module")
def power():
    with BoundedWorker("builtins:pow", warm_up=(1, 1), cpu_seconds=0.5) as worker:
        yield worker


@pytest.fixture(scope="module")
def product():
    with BoundedWorker("operator:mul", warm_up=(1, 1), memory_bytes=64 * 2**20) as worker:
        yield worker


def test_the_example_in_the_docstring_holds():
    assert doctest.testmod(growth.core.bounded) == (0, 1)


def test_too_much_time_ends_one_call_and_no_other(power):
    assert power.call(2, 10) == 1024
    with pytest.raises(OverBoundError, match="CPU time"):
        power.call(3, 10**9)
    assert power.call(2, 11) == 2048


def test_time_is_counted_from_call_to_call(power):
    large = 10**700
    for _ in range(30):  # 0.025 s each
        assert power.call(7, large, large + 7) == pow(7, large, large + 7)


@pytest.mark.parametrize("characters", [10**10, 10**8])
def test_too_much_memory_ends_one_call_and_no_other(product, characters):
    assert product.call("x", 10**7) == "x" * 10**7
    with pytest.raises(OverBoundError, match="memory"):
        product.call("x", characters)
    assert product.call("x", 3) == "xxx"


def test_a_fault_of_the_function_is_raised_with_its_trace(power):
    with pytest.raises(RuntimeError, match="unsupported operand"):
        power.call("x", "y")
    assert power.call(2, 2) == 4


def test_a_killed_process_costs_no_call(power):
    power.call(1, 1)
    power._process.kill()
    power._process.wait()
    assert power.call(2, 3) == 8


def test_a_function_that_is_not_there(capfd):
    with BoundedWorker("operator:nothing", warm_up=()) as worker:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="could not be started"):
                worker.call()
    assert "operator" in capfd.readouterr().err


def test_threads_share_it(power):
    answers = {}

    def square(number):
        answers[number] = power.call(number, 2)

    threads = [threading.Thread(target=square, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number**2 for number in range(20)}


def test_it_ends_with_its_owner_and_ignores_files_where_it_runs(tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
    script = (
        "import os, sys\n"
        "from growth.core.bounded import BoundedWorker\n"
        "worker = BoundedWorker('operator:pow', warm_up=(1, 1))\n"
        "print(worker.call(2, 3), worker._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9) if sys.argv[1] == 'killed' else None"
    )
    for how in ("ends", "killed"):
        owner = subprocess.run(
            [sys.executable, "-P", "-c", script, how], cwd=tmp_path, capture_output=True, text=True
        )
        answer, process = owner.stdout.split()
        assert answer == "8", owner.stderr
        assert owner.returncode == (-signal.SIGKILL if how == "killed" else 0)
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(process)).wait(timeout=60)
        assert owner.stderr == ""
