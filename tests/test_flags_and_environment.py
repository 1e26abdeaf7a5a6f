"""Flags beyond their range, and odd environments: one line and exit code 2, before any work."""

import argparse
import dataclasses
import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, copy_scripts, run
from test_wrappers import PYTHON_THAT_NOTES, executable

from growth.core import options
from growth.core.cli import add_options, plain_name
from growth.core.device import out_of_memory_explained
from growth.core.distributed import distributed_state
from growth.core.errors import InputError
from growth.core.files import parse_json

SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("data", "train", "evaluate", "evaluate/cmmlu", "evaluate/agieval", "scripts")
    for path in (ROOT / folder).glob("*.py")
)
SEEDED = {
    "data/build.py": ("--data_type", "curated-10"),
    "data/design.py": ("--total", "20"),
    "data/import.py": ("--input", "x", "--output_dir", "o"),
    "data/make_example.py": (),
    "data/make_sample.py": (),
    "train/pretrain_pocket.py": (),
    "train/finetune.py": ("--model_name_or_path", "m", "--train_dir", "x"),
    "evaluate/chat.py": ("--model_name_or_path", "m"),
    "evaluate/compare.py": ("7b/curated-10", "7b/curated-40"),
    "evaluate/fit.py": (),
    "evaluate/plan.py": ("--budget", "20"),
    "scripts/sweep.py": ("--model_size", "s", "--model_name_or_path", "m"),
}


def refused(done, *says):
    """One line, without a traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (message,) = [text for text in done.stderr.splitlines() if "error: " in text]
    for words in says:
        assert words in message
    return message


# Numbers and names


@pytest.mark.parametrize("seed", ["-1", "99999999999", "4294967296", "0.5", "nan", "9" * 5000])
@pytest.mark.parametrize("script", SEEDED)
def test_seeds_that_no_generator_takes(checkout, script, seed):
    done = run(script, *SEEDED[script], "--seed", seed, cwd=checkout, check=False)
    refused(done, "--seed", "a whole number of at least 0 and below 4294967296")


def test_every_script_with_a_seed_is_among_these():
    with_seed = {
        script
        for script in SCRIPTS
        if "--seed" in run(script, "--help", cwd=ROOT).stdout.replace("--seed N", "--seed")
    }
    assert with_seed == SEEDED.keys()


def option_classes():
    return [
        value
        for value in vars(options).values()
        if dataclasses.is_dataclass(value) and isinstance(value, type)
    ]


def numeric_flags():
    """Every flag of a number, with the parser that has it."""
    for group in option_classes():
        parser = argparse.ArgumentParser(exit_on_error=False)
        add_options(parser, group)
        for action in parser._actions:
            if "_number" in repr(action.type):
                yield pytest.param(parser, action, id=f"{group.__name__}.{action.dest}")


@pytest.mark.parametrize(("parser", "action"), list(numeric_flags()))
def test_every_number_has_a_range(parser, action):
    below = action.type.keywords["below"] or math.inf
    for text in ("nan", "inf", "-inf", "-1", "1e400", "", "x", "9" * 400, "9" * 5000):
        with pytest.raises(argparse.ArgumentError, match=r"is not a (whole )?number"):
            parser._get_value(action, text)
    for number in (-1e-9, below):
        if math.isfinite(number):
            with pytest.raises(argparse.ArgumentError):
                parser._get_value(action, str(number))


def test_numbers_have_no_other_checks():
    """Scripts take their numbers from growth/core/options.py, which has the ranges."""
    loose = [
        f"{script}: {text.strip()}"
        for script in SCRIPTS
        for text in (ROOT / script).read_text(encoding="utf-8").splitlines()
        if "type=int" in text or "type=float" in text
    ]
    # with `choices`
    assert sorted(text.split(":")[0] for text in loose) == [
        "evaluate/cmmlu/run.py",
        "train/pretrain_pocket.py",
    ]


@pytest.mark.parametrize("flag", ["--weight_decay", "--learning_rate", "--max_grad_norm"])
@pytest.mark.parametrize("value", ["nan", "-1", "inf", "1e400"])
def test_hyper_parameters_that_no_optimizer_takes(checkout, flag, value):
    done = run("train/finetune.py", *SEEDED["train/finetune.py"], flag, value, cwd=checkout, check=False)  # fmt: skip  # noqa: E501
    refused(done, f"{flag}: '{value}' is not a number")


def test_a_probability_above_1(checkout):
    flags = ("--temperature", "1", "--top_p", "1.5")
    done = run("evaluate/chat.py", "--model_name_or_path", "m", *flags, cwd=checkout, check=False)
    refused(done, "--top_p: '1.5' is not a number above 0 and at most 1")


@pytest.mark.parametrize("name", ["7b/x", "../x", "", " ", ".", "..", "a\nb", "\x00", "\udcff"])
def test_names_that_no_folder_has(name):
    with pytest.raises(argparse.ArgumentTypeError, match="plain name"):
        plain_name(name)


@pytest.mark.parametrize("name", ["7b", "1.3b", "模型", "a b", "..x"])
def test_plain_names(name):
    assert plain_name(name) == name


PREDICT = ("evaluate/predict.py", "--model_name_or_path", "m", "--eval_data_path", "x")


@pytest.mark.parametrize(
    "command",
    [
        ("train/finetune.py", *SEEDED["train/finetune.py"], "--model_size"),
        (*PREDICT, "--model_size"),
        (*PREDICT, "--tag"),
        (*PREDICT, "--split"),
        ("evaluate/cmmlu/run.py", "--model_name_or_path", "m", "--tag"),
        ("evaluate/agieval/run.py", "--model_name_or_path", "m", "--tag"),
        ("scripts/run_train.sh", "--data_type", "curated-10", "--model_size"),
    ],
)
def test_a_name_that_is_a_path_is_refused_before_any_work(checkout, command):
    before = sorted(checkout.rglob("*"))
    refused(run(*command, "7b/x", cwd=checkout, check=False), command[-1], "7b/x", "plain name")
    assert sorted(checkout.rglob("*")) == before


# Training that fails


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_data):
    """A checkout with data."""
    root = copy_scripts(tmp_path_factory.mktemp("flags"))
    (root / "data/curated").symlink_to(tiny_data / "curated")
    run("data/build.py", "--data_type", "curated-40", cwd=root)
    return root


def finetune(study, model, name, *flags):
    command = (
        *("train/finetune.py", "--model_name_or_path", model, "--train_dir", "data/curated-40"),
        *("--valid_dir", "data/curated/valid", "--output_dir", f"runs/{name}"),
        *("--precision", "fp32", "--total_batch_size", "20", "--epochs", "3", *flags),
    )
    return run(*command, cwd=study, check=False)


@pytest.mark.parametrize("rate", ["1e4", "1e30"])
def test_a_run_that_diverges_says_so(study, tiny_model, rate):
    done = finetune(study, tiny_model, f"diverges-{rate}", "--learning_rate", rate)
    if done.returncode:  # the tiny model may bear the lower one
        refused(done, f"runs/diverges-{rate}", "at optimizer step", "lower --learning_rate", "kept")
    else:
        assert rate == "1e4"
    metrics = (study / f"runs/diverges-{rate}/metrics.jsonl").read_text().splitlines()
    assert all("step" in parse_json(text) for text in metrics)  # without a NaN


def with_measure(name, value, at):
    """A patch of `InstructionTrainer.log`: a measure of one step is `value`."""
    from growth.training.trainer import InstructionTrainer

    log = InstructionTrainer.log

    def patched(self, logs, start_time=None):
        if name in logs and self.state.global_step == at:
            logs[name] = value
        log(self, logs, start_time)

    return patched


@pytest.mark.parametrize(
    ("name", "at", "kept"), [("loss", 3, [2]), ("grad_norm", 3, [2]), ("eval_loss", 4, [2])]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_ends_the_run_and_keeps_what_was_finished(
    study, tiny_model, monkeypatch, name, at, kept, value
):
    from growth.training.trainer import InstructionTrainer

    monkeypatch.setattr(InstructionTrainer, "log", with_measure(name, value, at))
    run_dir = f"not-finite-{name}-{value}"
    refused(finetune(study, tiny_model, run_dir), f"{name} is {value} at optimizer step {at}")
    found = sorted((study / f"runs/{run_dir}").glob("checkpoint-*/model.safetensors"))
    assert [path.parent.name for path in found] == [f"checkpoint-{step}" for step in kept]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 99 bytes"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_names_the_remedy(study, tiny_model, monkeypatch, error):
    from growth.training.trainer import InstructionTrainer

    step = InstructionTrainer.training_step

    def full(self, *arguments, **named):
        if self.state.global_step == 2:
            raise error
        return step(self, *arguments, **named)

    monkeypatch.setattr(InstructionTrainer, "training_step", full)
    name = f"memory-{type(error).__name__}"
    done = finetune(study, tiny_model, name)
    refused(done, "out of memory", "--tokens_per_micro_batch", "--lora_rank", "--resume")
    monkeypatch.undo()
    resumed = finetune(study, tiny_model, name, "--resume", "--tokens_per_micro_batch", "64")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumes from" in resumed.stderr


def test_other_errors_of_torch_are_not_taken_for_it():
    with pytest.raises(RuntimeError, match="shape"), out_of_memory_explained("x"):
        raise RuntimeError("shape mismatch")


# The environment


LAUNCH = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def launch(monkeypatch):
    """Sets a launcher's variables, all others of them unset."""

    def put(variables):
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE=x: expected whole numbers"),
        ({"WORLD_SIZE": "-1"}, "expected whole numbers"),
        ({"WORLD_SIZE": "٣"}, "expected whole numbers"),
        ({"RANK": "1", **LAUNCH}, "RANK=1: expected ranks below"),
        ({"RANK": "2", "WORLD_SIZE": "2", **LAUNCH}, "expected ranks below"),
        ({"RANK": "0", "LOCAL_RANK": "7", "WORLD_SIZE": "2", **LAUNCH}, "expected ranks below"),
        ({"RANK": "0"}, "RANK=0 without MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "without MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "WORLD_SIZE=2 without MASTER_PORT"),
        ({"WORLD_SIZE": "0"}, "expected ranks below"),
    ],
)
def test_half_a_launch_is_refused(launch, variables, says):
    launch(variables)
    with pytest.raises(InputError, match=says):
        distributed_state()


def test_empty_variables_are_as_good_as_none(launch):
    launch({"WORLD_SIZE": "", "RANK": "", "LOCAL_RANK": "", "MASTER_ADDR": ""})
    assert distributed_state().world_size == 1
    assert "WORLD_SIZE" not in os.environ  # which accelerate would read as a number


@pytest.mark.parametrize(
    "backend", ["module://matplotlib_inline.backend_inline", "nonsense", "qtagg"]
)
def test_figures_need_no_notebook(checkout, backend):
    """In a process of its own: matplotlib reads the variable when it is imported."""
    program = (
        "import runpy, sys; sys.argv = ['plot.py', '--plot_type', 'all', '--results_path', 'no'];"
        "runpy.run_path('evaluate/plot.py', run_name='__main__')"
    )
    environment = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        **{"cwd": checkout, "env": environment, "capture_output": True, "text": True},
    )
    refused(done, "--results_path no: nothing to plot")


def test_a_proxy_that_needs_a_library(checkout, monkeypatch):
    for name in ("ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:1")
    done = run("data/download.py", "--datasets", "doit", cwd=checkout, check=False)
    refused(done, "no download of", "socks", "ALL_PROXY")


@pytest.mark.parametrize("mode", ["", "offline"])
def test_wandb_without_a_login(checkout, monkeypatch, mode):
    monkeypatch.syspath_prepend(checkout)
    (checkout / "wandb.py").write_text("")
    monkeypatch.setenv("NETRC", str(checkout / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", mode)
    flags = ("--valid_dir", "v", "--output_dir", "o", "--report_to", "wandb")
    command = ("train/finetune.py", *SEEDED["train/finetune.py"], *flags)
    done = run(*command, cwd=checkout, check=False)
    refused(done, "--train_dir x" if mode else "wandb login")
    (checkout / "netrc").write_text("machine api.wandb.ai login user password key\n")
    refused(run(*command, cwd=checkout, check=False), "--train_dir x")


@pytest.mark.parametrize(
    ("redirected", "says"),
    [("<&-", "standard input: closed"), (r"< <(printf '\xc4\xe3')", "standard input: not UTF-8")],
)
def test_chat_without_a_message_that_can_be_read(checkout, redirected, says):
    chat = f"{sys.executable} {ROOT}/evaluate/chat.py --model_name_or_path m {redirected}"
    environment = os.environ | {"LC_ALL": "C", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", chat], capture_output=True, text=True, env=environment)
    refused(done, says)


def test_a_flag_that_is_no_text(checkout):
    done = run("evaluate/score.py", "--pred_data_path", "\udcc4\udce3", cwd=checkout, check=False)
    refused(done, r"b'\xc4\xe3'", "LC_ALL")


# Ctrl-C


def test_scripts_begin_with_light_imports():
    """What takes seconds is imported in `main`, where Ctrl-C is answered."""
    program = """
import importlib.util, sys
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("script", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    heavy = {"torch", "transformers", "pandas", "matplotlib", "scipy"} & sys.modules.keys()
    assert not heavy, f"{path}: {heavy}"
"""
    subprocess.run([sys.executable, "-c", program, *SCRIPTS], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate/export.py", "--model_name_or_path", "m", "--gguf", "x.gguf"),
        (
            "evaluate/plot.py",
            "--plot_type",
            "all",
            "--results_path",
            ROOT / "evaluate/example/test",
        ),
        ("data/build.py", "--data_type", "curated-40"),
    ],
    ids=lambda command: command[0],
)
def test_ctrl_c_amid_the_imports(study, command, tmp_path):
    for name in ("numpy", "torch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(
            "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n"
        )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, ROOT / command[0], *command[1:]],
        **{"cwd": study, "env": environment, "capture_output": True, "text": True},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "interrupted" in done.stderr


# Several processes, other folders


def test_the_processes_of_a_launch_report_an_error_once(tmp_path):
    launch = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone")
    predict = ("--model_name_or_path", "m", "--eval_data_path", "nowhere")
    done = subprocess.run(
        [sys.executable, *launch, ROOT / "evaluate/predict.py", *predict],
        **{"cwd": ROOT, "capture_output": True, "text": True},
    )
    assert done.returncode
    assert done.stderr.count("error: --eval_data_path nowhere") == 1


def from_elsewhere(folder, script, *arguments, root):
    """Run a wrapper from another folder."""
    environment = os.environ | {"PATH": f"{root}/bin{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", root / script, *arguments],
        **{"cwd": folder, "env": environment, "capture_output": True, "text": True},
    )


@pytest.fixture
def recorded(tmp_path):
    """A checkout whose `python` notes its arguments in calls, and a folder elsewhere."""
    root = tmp_path / "root"
    root.mkdir()
    copy_scripts(root)
    (root / "bin").mkdir()
    executable(root / "bin/python", PYTHON_THAT_NOTES)
    (tmp_path / "elsewhere/model").mkdir(parents=True)
    (tmp_path / "elsewhere/run").mkdir()
    return root, tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("scripts/run_train.sh",
         ("--data_type", "curated-10", "--model_size", "s", "--model_name_or_path", "model",
          "--train_dir", "lines", "--valid_dir=v"),
         ("--model_name_or_path {0}/model", "--train_dir {0}/lines", "--valid_dir={0}/v",
          "--output_dir runs/runs-s/curated-10/")),
        ("scripts/run_train.sh",
         ("--data_type", "curated-10", "--model_size", "s", "--model_name_or_path", "hub/id",
          "--train_dir", "/lines"),
         ("--model_name_or_path hub/id", "--train_dir /lines")),
        ("scripts/run_evaluate.sh", ("run", "--limit", "5"), ("--run_dir {0}/run --limit 5",)),
        ("scripts/run_evaluate.sh", ("--run_dir", "./run", "--data_dir", "../d"),
         ("--run_dir {0}/./run --data_dir {0}/../d",)),
        ("scripts/merge_lora.sh", ("model", "merged"),
         ("--model_name_or_path {0}/model --output_dir {0}/merged",)),
        ("evaluate/cmmlu/run.sh", ("cpu", "model", "tag", "--data_dir", "d"),
         ("--model_name_or_path {0}/model --tag tag --data_dir {0}/d",)),
    ],
)  # fmt: skip
def test_relative_paths_are_the_callers(recorded, script, arguments, expected):
    root, elsewhere = recorded
    done = from_elsewhere(elsewhere, script, *arguments, root=root)
    calls = (root / "calls").read_text()
    for words in expected:
        assert words.format(elsewhere) in calls, f"{calls}\n{done.stderr}"
    # From the repository's own folder nothing changes.
    (root / "calls").unlink()
    from_elsewhere(root, script, *arguments, root=root)
    assert str(root) not in (root / "calls").read_text()


def test_a_run_from_elsewhere_says_where_its_output_is(recorded):
    root, elsewhere = recorded
    flags = ("--data_type", "curated-10", "--model_size", "s", "--train_dir", "model")
    done = from_elsewhere(elsewhere, "scripts/run_train.sh", *flags, root=root)
    assert done.stdout.splitlines()[-1].startswith(f"{root}/runs/runs-s/curated-10/")
