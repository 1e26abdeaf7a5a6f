"""Folders of strangers and our own files when damaged: refused in one line, or read.

The checks that stand before anything is built get most cases; some hundreds are whole loads.
"""

import json
import math
import shutil
import struct

import pytest
import torch
from families import make_gguf_llama3
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fuzz.conftest import _SETTINGS, EXAMPLES, fuzz_case, fuzzed
from growth.core import schemas
from growth.core.options import LoraOptions
from growth.export.model_card import checkpoint_results, write_checkpoint_card
from growth.model.gguf_file import read_gguf
from growth.model.loading import load_model, load_tokenizer
from growth.model.lora import CONFIG, WEIGHTS, add_lora
from growth.model.source import find_model, fingerprint
from growth.report.results_table import read_results
from growth.runs.checkpoints import ResumeNeeds, resumable_checkpoint
from growth.runs.layout import METRICS, RUN_RECORD, read_run
from growth.runs.record import check_same_setting, forget_metrics_after, read_metrics
from growth.runs.resolve import resolve_models
from growth.scoring.checkpoint_selection import choose_checkpoints


def fewer(strategy):
    """As `fuzzed`, for whole loads, which take a tenth of a second or more each."""
    return lambda test: settings(_SETTINGS, max_examples=max(1, EXAMPLES // 10))(
        given(strategy)(test)
    )


# Values that files were found to hold, or that break what reads them.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**6, 10**9, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, -(10**30)]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", ".", "..", "/", "a/b", "x" * 300, "\0", "\ud800", "(a|a)*b", "os.system"]),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=3),
    st.sampled_from([[[[]]], {"a": {"b": {}}}, [None], {"": None}]),
)
FORMS = ("field", "field", "field", "field", "cut", "bytes", "whole")


def places(value, path=()):
    """The path of every value in a JSON value, but for its own."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value[:8]))
    else:
        return []
    return [place for key, each in items for place in [(*path, key), *places(each, (*path, key))]]


def changed(value, path, odd, drop):
    """A copy of `value` with another value at `path`, or none."""
    copy = json.loads(json.dumps(value))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    if drop:
        del holder[path[-1]]
    else:
        holder[path[-1]] = odd
    return copy


@st.composite
def mutated(draw, value):
    """The bytes of a JSON file whose right content is `value`."""
    form = draw(st.sampled_from(FORMS))
    if form == "bytes":
        return draw(st.binary(max_size=64))
    if form == "whole":
        return json.dumps(draw(ODD)).encode()
    for _ in range(draw(st.integers(1, 2))):
        if found := places(value):
            value = changed(value, draw(st.sampled_from(found)), draw(ODD), draw(st.booleans()))
    data = json.dumps(value).encode()
    if form == "cut":
        at = draw(st.integers(0, len(data)))
        return data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 4)) :]
    return data


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    return shutil.copytree(tiny_model, tmp_path_factory.mktemp("fuzz") / "model")


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "adapter"
    chat = load_tokenizer(tiny_model)
    model = load_model(tiny_model, torch.float32, chat)
    lora = LoraOptions(rank=2, target_modules=("q_proj", "up_proj"))
    add_lora(model, lora, chat, str(tiny_model)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    return make_gguf_llama3(tmp_path_factory.mktemp("fuzz") / "gguf")


@pytest.fixture
def kept():
    """Puts back what a test changes of a file, by its path."""
    before = {}

    def write(path, data):
        before.setdefault(path, path.read_bytes() if path.is_file() else None)
        path.write_bytes(data)

    yield write
    for path, data in before.items():
        path.unlink() if data is None else path.write_bytes(data)


def load(folder):
    source = find_model(folder)
    load_model(source, torch.float32, load_tokenizer(source))


def json_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


@fuzzed(st.data())
def test_a_model_s_config(model, kept, data):
    config = model / "config.json"
    before = config.read_bytes()
    kept(config, data.draw(mutated(json.loads(before))))
    with fuzz_case("config.json"):
        find_model(model)
    config.write_bytes(before)


INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a": "model.safetensors", "b": "b.bin"}}


@fuzzed(st.data())
def test_an_index(model, kept, data):
    index = model / "model.safetensors.index.json"
    kept(index, data.draw(mutated(INDEX)))
    with fuzz_case("model.safetensors.index.json"):
        find_model(model)
    index.unlink()
    kept(index, b"{}")


@fuzzed(st.data())
def test_an_adapter_s_configuration(adapter, kept, data):
    config = adapter / CONFIG
    before = config.read_bytes()
    kept(config, data.draw(mutated(json.loads(before))))
    with fuzz_case(CONFIG):
        find_model(adapter).base()
    config.write_bytes(before)


HEADER = {"a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}, "__metadata__": {}}


@fuzzed(st.data(), st.integers(-8, 8))
def test_a_safetensors_header(model, kept, data, off):
    weights = model / "model.safetensors"
    before = weights.read_bytes()
    header = data.draw(mutated(HEADER))
    size = max(0, len(header) + data.draw(st.sampled_from([0, 0, 0, off, 2**40, 2**63])))
    kept(weights, struct.pack("<Q", size) + header + bytes(8))
    with fuzz_case("model.safetensors"):
        fingerprint(model)
    weights.write_bytes(before)


@fuzzed(st.data())
def test_a_gguf_header(gguf, tmp_path, data):
    whole = gguf.read_bytes()
    start = bytearray(whole[: 2000 if data.draw(st.booleans()) else 120])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(start) - 1))
        new = data.draw(
            st.one_of(
                st.binary(min_size=1, max_size=4),
                st.sampled_from([2**63 - 1, 2**40, 10**6, 0, 8, 9]).map(
                    lambda n: struct.pack("<Q", n)
                ),
            )
        )
        start[at : at + len(new)] = new
    path = tmp_path / "x.gguf"
    path.write_bytes(bytes(start) + (whole[len(start) :] if data.draw(st.booleans()) else b""))
    with fuzz_case("a GGUF header", seconds=5.0):
        read_gguf(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_whole_loads(model, kept, name):
    path = model / name
    right = json_of(path) if path.is_file() else {"do_sample": False, "eos_token_id": [2, 7]}

    @fewer(st.data())
    def case(data):
        kept(path, data.draw(mutated(right)))
        with fuzz_case(f"a model whose {name} is changed", seconds=20.0):
            load(model)

    case()


def test_whole_loads_of_adapters(adapter, kept):
    right, weights = json_of(adapter / CONFIG), load_file(adapter / WEIGHTS)

    @fewer(st.data())
    def case(data):
        kept(adapter / CONFIG, data.draw(mutated(right)))
        named = dict(weights)
        if data.draw(st.booleans()):
            name = data.draw(st.sampled_from(sorted(named)))
            named[name] = torch.zeros(data.draw(st.lists(st.integers(0, 3), max_size=3)))
        save_file(named, adapter / WEIGHTS)
        with fuzz_case("an adapter that is changed", seconds=20.0):
            load(adapter)

    case()


# Our own files

RUN = {
    "model_size": "7b",
    "data_type": "curated-10",
    "timestamp": "t0",
    "seed": 0,
    "model_name_or_path": "model",
    "model_fingerprint": "a",
    "study": {"name": "name", "digest": "digest", "asked": "asked", "file": "file"},
    "tokenizer_fingerprint": "b",
    "parameters": 1000,
    "hyperparameters": {"epochs": 6, "tokens_per_micro_batch": 8, "learning_rate": 1e-5},
    "train": {"dir": "d", "files": {"a": {"lines": 3, "sha256": "x"}}, "samples": 3},
    "valid": {"dir": "v", "files": {"b": {"lines": 3, "sha256": "y"}}, "samples": 3},
    "steps_per_epoch": 1,
    "steps": 6,
    "device": "CPU",
    "started": "2026-11-26T00:00:00+00:00",
    "git": {"commit": None, "dirty": None},
    "versions": {"torch": "2"},
}
RUN["train"]["tokens_sha256"] = RUN["valid"]["tokens_sha256"] = "t"
STATE = {"global_step": 6, "epoch": 6.0, "log_history": [{"loss": 1.0, "step": 1}]}
LINE = {"step": 6, "eval_loss": 1.0, "eval_perplexity": 2.7}
RESULTS = {
    "run": {
        **{"model_size": "7b", "data_type": "curated-10", "timestamp": "t0", "limit": None},
        **{"checkpoint": "checkpoint-6", "step": 6, "epoch": 6, "epochs": 6, "split": "valid"},
    },
    "average": 40.0,
    "average_low": 30.0,
    "average_high": 50.0,
    "expected_average": 25.0,
    "files": {
        "biology_valid": {
            **{"type": "biology", "n": 4, "score": 40.0, "expected": 25.0},
            **{"low": 30.0, "high": 50.0, "digest": "d"},
        }
    },
}
SELECTION = {
    **{"model_size": "7b", "data_type": "curated-10", "timestamp": "t0", "limit": None},
    **{"checkpoint": "checkpoint-6", "step": 6, "epoch": 6, "average": 40.0},
}


@pytest.fixture
def run_dir(tmp_path):
    """A run of one checkpoint, its weights a few bytes."""
    checkpoint = tmp_path / "run/checkpoint-6"
    checkpoint.mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, checkpoint / "model.safetensors")
    (checkpoint / "config.json").write_text('{"model_type": "llama"}')
    (checkpoint / "trainer_state.json").write_text(json.dumps(STATE))
    (tmp_path / "run/run.json").write_text(json.dumps(RUN))
    (tmp_path / "run/metrics.jsonl").write_text(json.dumps(LINE) + "\n")
    return tmp_path / "run"


@fuzzed(st.data())
def test_a_run_record(run_dir, data):
    (run_dir / RUN_RECORD).write_bytes(data.draw(mutated(RUN)))
    with fuzz_case("run.json, its model and its card"):
        run = read_run(run_dir)
        resolve_models(str(run_dir), None, None)
        write_checkpoint_card(run_dir / "checkpoint-6", run_dir / "card", {})
        if run["steps"] == RUN["steps"]:
            check_same_setting(run, RUN, run_dir, True)


@fuzzed(st.data())
def test_a_trainer_state(run_dir, data):
    (run_dir / "checkpoint-6/trainer_state.json").write_bytes(data.draw(mutated(STATE)))
    with fuzz_case("trainer_state.json"):
        resolve_models(str(run_dir), None, None)
    with fuzz_case("trainer_state.json, resumed"):
        resumable_checkpoint(run_dir, ResumeNeeds())


@fuzzed(st.data())
def test_metrics(run_dir, data):
    """Whatever a line holds, the whole lines beside it are read and kept, and nothing raises."""
    odd = data.draw(mutated(LINE)).replace(b"\n", b" ")
    whole = json.dumps(LINE).encode()
    (run_dir / METRICS).write_bytes(b"\n".join([whole, odd, whole, odd[:7]]))
    with fuzz_case("metrics.jsonl"):
        assert read_metrics(run_dir).count(LINE) >= 2
        forget_metrics_after(run_dir, 6)
        assert read_metrics(run_dir).count(LINE) >= 2
        lines = (run_dir / METRICS).read_text(encoding="utf-8").splitlines()
        assert all(json.loads(line)["step"] <= 6 for line in lines)
        write_checkpoint_card(run_dir / "checkpoint-6", run_dir / "card", {})


@fuzzed(st.data())
def test_results(run_dir, tmp_path, data):
    path = tmp_path / "results/valid/7b/curated-10/t0/checkpoint-6-results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.draw(mutated(RESULTS)))
    with fuzz_case("results, chosen among"):
        choose_checkpoints(tmp_path / "results").check()
    with fuzz_case("results, as a table"):
        read_results(tmp_path / "results", tmp_path / "none")
    with fuzz_case("results, in a card"):
        found = checkpoint_results(run_dir / "checkpoint-6", tmp_path / "results")
        write_checkpoint_card(run_dir / "checkpoint-6", run_dir / "card", found)


@fuzzed(st.data())
def test_a_selection(tmp_path, data):
    path = tmp_path / "results/7b/curated-10/t0/checkpoint-6-results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(RESULTS))
    selection = tmp_path / "selections/selected-checkpoint.json"
    selection.parent.mkdir(exist_ok=True)
    selection.write_bytes(data.draw(mutated(SELECTION)))
    with fuzz_case("a selection"):
        read_results(tmp_path / "results", tmp_path / "selections")


@pytest.mark.parametrize(
    ("schema", "right"),
    [
        (schemas.TrainingRecord, RUN),
        (schemas.TrainerStateRecord, STATE),
        (schemas.ResultsRecord, RESULTS),
        (schemas.SelectionRecord, SELECTION),
        (schemas.PredictionRecord, RESULTS["run"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_schema_lets_pass_can_be_written_again(tmp_path, schema, right):
    path = tmp_path / "x.json"

    @fuzzed(st.data())
    def case(data):
        path.write_bytes(data.draw(mutated(right)))
        with fuzz_case(schema.__name__):
            record = schemas.read_record(path, schema, "make it anew")
            json.dumps(record, allow_nan=False, ensure_ascii=False).encode("utf-8")
            numbers = [value for value in record.values() if isinstance(value, float)]
            assert all(map(math.isfinite, numbers))

    case()
