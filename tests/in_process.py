"""A script run inside the tests' own process, as good as in one of its own, without its start.

Starting Python and importing torch and transformers takes a script some seconds, and its work on a
tiny model a fraction of one. `run_in_process` calls what the script calls as `__main__`,
`run_script(main)`, and puts back all that a script may change in a process.
"""

import contextlib
import gc
import importlib.util
import io
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from growth.core.cli import run_script

ROOT = Path(__file__).resolve().parents[1]
# Levels that libraries of ours set; the libraries' own are those of a process that just began.
_FRESH_LEVELS = {"transformers": logging.WARNING, "accelerate": logging.NOTSET}
_modules: dict[Path, ModuleType] = {}


def script_of_the_repository(script: str, cwd: Path) -> Path | None:
    """The repository's script that `script`, as named from `cwd`, is or is a plain copy of."""
    named = Path(cwd, script).resolve()
    original = named if named.is_relative_to(ROOT) else ROOT / script
    if not original.is_file() or "def main(" not in original.read_text(encoding="utf-8"):
        return None
    if named != original and named.read_bytes() != original.read_bytes():
        return None
    return original


def run_in_process(
    script: Path, argv: Sequence[str], cwd: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository in this process, in the folder `cwd`.

    Returns:
        What `subprocess.run` returns of a process: exit code, stdout and stderr.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _redirected(out.fileno(), err.fileno()), _restored():
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = [str(script), *argv]
            sys.path.insert(0, str(script.parent))
            returncode = exit_code(script)
        texts = []
        for file in (out, err):
            file.seek(0)
            with io.TextIOWrapper(file, encoding="utf-8") as text:  # any line end as "\n"
                texts.append(text.read())
    return subprocess.CompletedProcess([str(script), *argv], returncode, *texts)


def exit_code(script: Path) -> int:
    """Run a script of the repository with sys.argv as it is; its exit code."""
    try:
        run_script(load_script(script).main)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def load_script(script: Path) -> ModuleType:
    """A script of the repository as a module, imported once."""
    if script not in _modules:
        name = "script_" + "_".join(script.relative_to(ROOT).with_suffix("").parts)
        spec = importlib.util.spec_from_file_location(name, script)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # where pickled functions of the script are looked up
        spec.loader.exec_module(module)
        _modules[script] = module
    return _modules[script]


def _stream(descriptor: int):
    return open(descriptor, "w", encoding="utf-8", buffering=1, closefd=False)


# Kept for good: a handler made during one run writes to where the descriptor leads in the next.
_STDOUT, _STDERR = _stream(1), _stream(2)


@contextlib.contextmanager
def _redirected(out: int, err: int) -> Iterator[None]:
    """Descriptors 1 and 2, which processes started by the script inherit, lead to these files."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(out, 1)
    os.dup2(err, 2)
    try:
        with open(os.devnull) as nothing:
            sys.stdin, sys.stdout, sys.stderr = nothing, _STDOUT, _STDERR
            yield
    finally:
        _STDOUT.flush()
        _STDERR.flush()
        sys.stdin, sys.stdout, sys.stderr = streams
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Begin as a new process does; afterwards, put back what the script changed."""
    place, argv, path = os.getcwd(), sys.argv, list(sys.path)
    environment, state, threshold = dict(os.environ), random.getstate(), gc.get_threshold()
    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
        if (handler := signal.getsignal(number)) is not None
    }
    try:
        with _warnings(), _logging(), _numpy(), _torch(), _accelerate():
            yield
    finally:
        os.chdir(place)
        sys.argv, sys.path[:] = argv, path
        os.environ.clear()
        os.environ.update(environment)
        random.setstate(state)
        gc.set_threshold(*threshold)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    """Python's own filters, and warnings on stderr: pytest collects them otherwise."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", category)
        for category in (ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = lambda message, category, name, number, *_: sys.stderr.write(
            warnings.formatwarning(message, category, name, number)
        )
        yield


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """A root logger without handlers (pytest's would keep basicConfig from adding any)."""
    root = logging.getLogger()
    before = {root: (list(root.handlers), root.level)}
    for logger in list(root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            before[logger] = (list(logger.handlers), logger.level)
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    streams = {}
    for logger, (handlers, _) in before.items():
        if logger is not root:
            for handler in handlers:
                if type(handler) is logging.StreamHandler:
                    streams[handler] = handler.setStream(sys.stderr)
    for name, level in _FRESH_LEVELS.items():
        if name in sys.modules:
            logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for handler, stream in streams.items():
            if stream is not None:
                handler.setStream(stream)
        for logger, (handlers, level) in before.items():
            logger.handlers[:] = handlers
            logger.setLevel(level)
        for name, level in _FRESH_LEVELS.items():
            logger = logging.getLogger(name)
            if name in sys.modules and logger not in before:
                logger.setLevel(level)


@contextlib.contextmanager
def _numpy() -> Iterator[None]:
    numpy = sys.modules.get("numpy")
    state = numpy.random.get_state() if numpy else None
    yield
    if state is not None:
        numpy.random.set_state(state)


@contextlib.contextmanager
def _torch() -> Iterator[None]:
    """Precision, threads and the generator's state."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        if torch := sys.modules.get("torch"):
            torch.set_float32_matmul_precision("highest")
            torch.use_deterministic_algorithms(False)
        return
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    state, deterministic = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
        torch.use_deterministic_algorithms(deterministic)


@contextlib.contextmanager
def _accelerate() -> Iterator[None]:
    """accelerate's singletons, which say once a process what it computes on."""

    def shared() -> list[dict]:
        state = sys.modules.get("accelerate.state")
        names = ("PartialState", "AcceleratorState", "GradientState") if state else ()
        return [getattr(state, name)._shared_state for name in names]

    before = [dict(values) for values in shared()]
    for values in shared():
        values.clear()
    try:
        yield
    finally:
        for index, values in enumerate(shared()):
            values.clear()
            values.update(before[index] if before else {})
