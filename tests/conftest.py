"""What the tests share: recorded facts, a clean copy of the repository, a tiny model."""

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import load_script, run_in_process, script_of_the_repository

from growth.data.study import published_study

ROOT = Path(__file__).resolve().parents[1]
# Before torch is imported: one thread gives one order of sums, in whatever order tests run.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["GROWTH_CACHE"] = ""  # what is converted is converted each time; tests of it set it
STUDY = published_study()
ABILITIES, OUT_OF_DOMAIN = STUDY.in_domain, STUDY.out_of_domain
ABILITY_NAMES = tuple(ability.name for ability in ABILITIES)
CASES = ROOT / "tests/cases"  # small inputs that failed once
gc.set_threshold(10_000)  # as in `run_script`: importing torch makes a million objects, no garbage
SHARED = Path(os.environ.get("GROWTH_SHARED", ROOT.parent / "shared"))

# Files that take long, the longest first: of processes that share the files among them, none has
# one of these still before it when the others have ended.
LONG_FILES = (
    "test_readme.py",
    "test_slurm.py",
    "test_text.py",
    "test_sweep.py",
    "test_training.py",
    "test_faults.py",
    "test_gemma.py",
    "test_wrappers.py",
    "test_benchmarks.py",
    "test_plots.py",
    "test_memory.py",
    "test_scale.py",
    "test_chain.py",
    "test_in_process.py",
    "test_training_benchmark.py",
    "test_pretraining.py",
    "test_prediction_store.py",
)


def pytest_collection_modifyitems(items):
    """The files that take long come first (`scripts/test.sh` keeps a file's tests together)."""
    place = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def _shared(folder):
    path = SHARED / folder
    if not path.is_dir():
        reason = f"recorded facts are not here ({path}; GROWTH_SHARED points elsewhere)"
        if os.environ.get("GROWTH_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


# Facts on texts of licensed data stay in ../shared; where it is missing, those of our own texts do.
FACTS = ["repository"]
if (SHARED / "golden").is_dir() or os.environ.get("GROWTH_REQUIRE_SHARED"):
    FACTS.append("shared")


@pytest.fixture(scope="session", params=FACTS)
def golden(request):
    """A folder of recorded facts, with the model tiny-llama."""
    return ROOT / "tests/golden" if request.param == "repository" else _shared("golden")


@pytest.fixture(scope="session")
def procedure():
    """tests/golden/record.py, which uses nothing of the library."""
    return load_script(ROOT / "tests/golden/record.py")


@pytest.fixture(scope="session")
def shared_golden():
    """The facts of ../shared, those on public benchmarks among them."""
    return _shared("golden")


@pytest.fixture(scope="session")
def proxy():
    """A real data set in DoIT's format."""
    return _shared("data/doit-proxy")


@pytest.fixture(scope="session")
def golden_benchmarks(golden, procedure, tmp_path_factory):
    """The questions of the facts in `golden`, as CMMLU and AGIEval have them, a folder each."""
    if golden.is_relative_to(ROOT):
        return procedure.make_benchmarks(tmp_path_factory.mktemp("benchmarks"))
    return _shared("data/benchmarks")


@pytest.fixture(scope="module", autouse=True)
def _freeze():
    """What is imported is no garbage: each training run looks for some, among a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _default_matmul_precision():
    """As in a new process: `choose_compute` lowers it, and on some CPUs other bits come out."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_float32_matmul_precision("highest")


def copy_scripts(folder):
    """Copy the scripts to `folder`, so that outputs land nowhere else; the model is linked."""
    for name in ("data", "train", "evaluate", "evaluate/cmmlu", "evaluate/agieval", "scripts"):
        (folder / name).mkdir()
        for script in (ROOT / name).iterdir():
            if script.suffix in (".py", ".sh", ".yaml") or script.name == "Snakefile":
                shutil.copy(script, folder / name)
    (folder / "train/pocket").symlink_to(ROOT / "train/pocket")
    return folder


@pytest.fixture
def checkout(tmp_path):
    """A copy of the scripts in a folder of their own."""
    return copy_scripts(tmp_path)


def run(*command, cwd, check=True, process=False):
    """Run a script as a user would; returns the finished process with its output.

    A Python script of the repository, or a copy of one, runs in this process (see `in_process`)
    unless `process` is true; shell scripts and all others run in a process of their own.
    """
    command = [str(part) for part in command]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "VIRTUAL_ENV": sys.prefix}
    script = None
    if command[0].endswith(".py"):
        script = None if process else script_of_the_repository(command[0], Path(cwd))
        command.insert(0, sys.executable)
    elif command[0].endswith(".sh"):
        command.insert(0, "bash")
    if script is not None:
        done = run_in_process(script, command[2:], Path(cwd), environment)
    else:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
    if check and done.returncode:
        raise AssertionError(f"{command} ended in {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def line(type_="biology", gold="A", question_format=0, **fields):
    """A line in DoIT's format."""
    messages = [
        {"role": "user", "content": "题目\nA. 甲\nB. 乙\nC. 丙\nD. 丁"},
        {"role": "assistant", "content": gold},
    ]
    return {
        "messages": messages,
        "idx": 0,
        "type": type_,
        "question_format": question_format,
    } | fields


def write_lines(path, lines):
    """Write JSON Lines; strings and bytes go in as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for part in lines:
        if not isinstance(part, (str, bytes)):
            part = json.dumps(part, ensure_ascii=False)
        parts.append(part if isinstance(part, bytes) else f"{part}\n".encode())
    path.write_bytes(b"".join(parts))
    return path


def read_lines(path):
    """Read JSON Lines; only line feeds end a line, not U+2028."""
    return [json.loads(text) for text in path.read_bytes().rstrip(b"\n").split(b"\n") if text]


def greedy_answers(model, prompts, stop_ids=frozenset(), pad_id=0):
    """The answers to `prompts`, computed together, in order."""
    from growth.inference.generation import Generator
    from growth.inference.limits import Limits
    from growth.packing.forward import supports_packing

    generator = Generator(model, stop_ids, [1], pad_id, supports_packing(model))
    answers = dict(generator.answers(prompts, Limits()))
    return [answers[index] for index in range(len(prompts))]


def prompting_of(model, chat, decoding):
    """How the lines of DoIT become requests, as evaluate/predict.py sets it up."""
    from growth.inference.prompting import ControlFormat
    from growth.model.loading import max_positions
    from growth.tasks.task import Prompting

    max_length = min(decoding.max_length, max_positions(model) or decoding.max_length)
    format_ = ControlFormat(chat, "answer")
    return Prompting(format_, max_length, decoding.max_new_tokens, decoding.full_responses)


def judged(record):
    """The verdict on a predicted line of the published study."""
    from growth.scoring.verdicts import judge

    return judge(record, STUDY.ability(record))


def predict_lines(predictor, prompting, records):
    """Each line with what the model says, in order."""
    from growth.tasks.doit import predicted_record, request_of

    responses = predictor.run([request_of(r, prompting, STUDY.ability(r)) for r in records])
    abilities = map(STUDY.ability, records)
    return [predicted_record(*line) for line in zip(records, responses, abilities, strict=True)]


TEXTS = [
    "题目：下列哪一项正确？\nA. 甲\nB. 乙\nC. 丙\nD. 丁",
    "答案是：A",
    "解：1+2=3\n答案\n$3$",
    "春风又绿江南岸，明月何时照我还。",
    "def f(x):\n    return x + 1",
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A LLaMA of a few thousand parameters with a sentencepiece tokenizer of its own."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def make_tiny_model(folder, tied=True):
    """Write that model; input and output share their weights if `tied`."""
    from growth.sample.pocket import make_pocket

    config = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": tied,
    }
    make_pocket(folder, TEXTS * 20, seed=0, vocabulary=380, config=config)
    return folder


# What run.json holds at least.
TRAINING_RECORD = {
    "model_size": "tiny",
    "data_type": "curated-160",
    "timestamp": "20261122-101500",
    "seed": 0,
    "model_name_or_path": "model",
    "parameters": 1000,
    "hyperparameters": {"epochs": 15},
    "train": {"files": {}, "samples": 64},
    "valid": {"files": {}, "samples": 30},
    "steps_per_epoch": 1,
    "steps": 15,
    "device": "CPU",
    "started": "2026-11-22T10:15:00+00:00",
}


def processes_of(session):
    """The live processes of a session: what its first one has started, wherever it went."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of_session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of_session) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A data folder in DoIT's layout: 4 lines an ability to train, 3 to validate, 2 to test."""
    from growth.data.abilities import Kind

    data = tmp_path_factory.mktemp("data")
    for ability in ABILITIES + OUT_OF_DOMAIN:
        gold = "解：1+2=3\n答案\n$3$" if ability.kind is Kind.DOIT_MATH else "A"
        for part, count in (("valid", 3), ("test", 2)):
            fields = {"question_format": ability.question_format}
            if ability.kind is Kind.DOIT_MATH:
                fields["answer"] = "3"
            if ability.kind is Kind.CHOICES:
                fields["choices"] = [gold, "甲乙", "丙丁"]
            write_lines(
                data / f"curated/{part}/{ability.name}_{part}.json",
                [line(ability.name, gold, idx=i, **fields) for i in range(count)],
            )
        if not ability.out_of_domain:
            write_lines(
                data / f"curated/1000/{ability.name}_1000.json",
                [line(ability.name, gold, idx=i) for i in range(4)],
            )
    return data
