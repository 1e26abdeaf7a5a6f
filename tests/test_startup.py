"""What a stage imports: only what it uses. Importing is most of what a small run waits for."""

import subprocess
import sys

import pytest
from conftest import ROOT, write_lines

# Takes a second or more together, and only few stages use any of it. accelerate and torch's
# compiler are no part of the list for stages with a model: transformers' model class needs them.
HEAVY = ("datasets", "pandas", "pyarrow", "matplotlib", "peft", "gguf", "sympy", "torch")
HEAVY += ("transformers", "transformers.trainer", "accelerate", "torch._dynamo", "scipy")
MODEL = {"torch", "transformers", "accelerate", "torch._dynamo", "sympy", "scipy"}
WHOLE = """
import runpy, sys
names, script = sys.argv[1].split(","), sys.argv[2]
sys.argv = sys.argv[2:]
try:
    runpy.run_path(script, run_name="__main__")
finally:
    print("imported:", *(name for name in names if name in sys.modules))
"""


def imported(*command, cwd, code=0):
    """Those of HEAVY that a script has imported when it ends, in a process of its own."""
    command = [str(part) for part in command]
    command[0] = str(ROOT / command[0])
    done = subprocess.run(
        [sys.executable, "-c", WHOLE, ",".join(HEAVY), *command],
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    *_, last = done.stdout.splitlines()
    return set(last.removeprefix("imported:").split())


SCRIPTS = [
    path.relative_to(ROOT)
    for folder in ("data", "train", "evaluate")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "run_script(main)" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_help_and_bad_flags_import_nothing_heavy(script, tmp_path):
    assert imported(script, "--help", cwd=tmp_path) <= {"scipy"}
    assert imported(script, "--no_such_flag", cwd=tmp_path, code=2) <= {"scipy"}


@pytest.mark.parametrize(
    "command",
    [
        "evaluate/predict.py --model_name_or_path M --eval_data_path in --model_size 7b --tag t",
        "train/finetune.py --model_name_or_path M --train_dir in --valid_dir in --output_dir out",
        "train/finetune.py --model_name_or_path M --train_dir in --dump_examples out.jsonl",
        "evaluate/cmmlu/run.py --model_name_or_path M --data_dir in",
        "evaluate/agieval/run.py --model_name_or_path M --data_dir in",
        "data/build.py --data_type curated-160 --data_dir in",
    ],
)
def test_faulty_lines_are_refused_before_anything_heavy(command, tmp_path):
    write_lines(tmp_path / "in/biology_1000.json", ["{"])
    assert imported(*command.split(), cwd=tmp_path, code=2) <= {"scipy"}


def test_prediction_imports_a_model_and_nothing_else(tiny_model, tiny_data, tmp_path):
    found = imported(
        *("evaluate/predict.py", "--model_name_or_path", tiny_model, "--model_size", "tiny"),
        *("--tag", "t", "--eval_data_path", tiny_data / "curated/valid", "--max_new_tokens", "2"),
        cwd=tmp_path,
    )
    assert found <= MODEL
    scored = imported("evaluate/score.py", "--pred_data_path", "evaluate/pred-data", cwd=tmp_path)
    assert not scored & (MODEL - {"scipy", "sympy"})
    assert not scored & {"datasets", "pandas", "pyarrow", "matplotlib", "peft", "gguf"}


def test_training_imports_neither_datasets_nor_pandas(tiny_model, tiny_data, tmp_path):
    found = imported(
        *("train/finetune.py", "--model_name_or_path", tiny_model, "--epochs", "1"),
        *("--train_dir", tiny_data / "curated/1000", "--valid_dir", tiny_data / "curated/valid"),
        *("--output_dir", tmp_path / "run"),
        cwd=tmp_path,
    )
    assert found <= MODEL | {"transformers.trainer", "peft"}  # the Trainer asks peft of its models


@pytest.mark.parametrize("script", ["plot.py --plot_type all", "report.py", "fit.py"])
def test_figures_import_no_model(script, tmp_path):
    """Of results that are none; and what imports it all, as a report of such results does not."""
    script, *flags = script.split()
    write_lines(tmp_path / "evaluate/results/test/x-results.json", ["{"])
    found = imported(f"evaluate/{script}", *flags, cwd=tmp_path, code=2)
    assert found <= {"pandas", "pyarrow", "scipy", "matplotlib"}  # pandas imports pyarrow


@pytest.mark.parametrize("lines", [None, ["{"], ["{}"]])
def test_results_are_refused_before_pandas_is_imported(lines, tmp_path):
    if lines is not None:
        write_lines(tmp_path / "evaluate/results/test/x-results.json", lines)
    assert imported("evaluate/plot.py", "--plot_type", "all", cwd=tmp_path, code=2) <= {"scipy"}


def test_records_and_reports_need_no_tensors(tmp_path):
    code = "import sys, growth.report.page, growth.report.summary, growth.report.plots, "
    code += "growth.report.laws, growth.runs.record, growth.export.model_card\n"
    code += "print(*({'torch', 'transformers', 'datasets', 'peft'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
