"""What fuzz tests share: how many cases, what a case may do and for how long, and a count of them.

    from fuzz.conftest import fuzz_case, fuzzed

    @fuzzed(st.text())
    def test_the_parser(text):
        with fuzz_case(f"parser, {len(text):,} characters"):
            parse(text)

GROWTH_FUZZ_EXAMPLES is the number of examples of each test: 200 by default, the same ones in each
run; with the variable set they are drawn anew, and `--hypothesis-seed` repeats a run.
"""

import contextlib
import os
import signal

import pytest
from hypothesis import HealthCheck, given, settings

from growth.core.errors import InputError

EXAMPLES = int(os.environ.get("GROWTH_FUZZ_EXAMPLES", "200"))
HANG_SECONDS = 120  # of wall clock, on a machine that does other work too: then a case never ends

_SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize="GROWTH_FUZZ_EXAMPLES" not in os.environ,
    database=None,  # a clone's own history is no part of a test
    deadline=None,  # `fuzz_case` measures, in CPU seconds
    print_blob=True,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
        HealthCheck.function_scoped_fixture,
    ],
)
_tally = {"cases": 0, "refused": 0, "slowest_s": 0.0, "slowest": "none"}


def fuzzed(*strategies, **named_strategies):
    """As `hypothesis.given`, with the settings of fuzz tests."""

    def decorate(test):
        return _SETTINGS(given(*strategies, **named_strategies)(test))

    return decorate


@contextlib.contextmanager
def fuzz_case(what, seconds=2.0):
    """One case, counted: it ends well or in an InputError of one line, within its time.

    Args:
        what: shown where the case is the slowest of all or fails.
        seconds: of CPU that it may take, the processes it waited for included.
    """

    def hangs(signum, frame):
        pytest.fail(f"{what}: not done after {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
    start, refusal = _cpu_seconds(), None
    try:
        yield
    except InputError as error:
        refusal = str(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        taken = _cpu_seconds() - start
        _add({"cases": 1, "refused": refusal is not None, "slowest_s": taken, "slowest": what})
    assert taken <= seconds, f"{what}: {taken:.2f} s of CPU, may take {seconds} s"
    if refusal is not None:
        assert "\n" not in refusal, f"{what}: refused in several lines: {refusal}"
        refusal.encode("utf-8")  # half a surrogate can't be printed


def _cpu_seconds():
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _add(other):
    _tally["cases"] += other["cases"]
    _tally["refused"] += other["refused"]
    if other["slowest_s"] > _tally["slowest_s"]:
        _tally.update(slowest_s=other["slowest_s"], slowest=other["slowest"])


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
        session.config.workeroutput["fuzz"] = _tally


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    counted = getattr(node, "workeroutput", {}).get("fuzz")
    if counted:
        _add(counted)


def pytest_terminal_summary(terminalreporter):
    if _tally["cases"]:
        terminalreporter.write_line(
            f"fuzz: {_tally['cases']:,} cases, {_tally['refused']:,} of them refused in one line; "
            f"slowest {_tally['slowest_s']:.2f} s of CPU ({_tally['slowest']})"
        )
