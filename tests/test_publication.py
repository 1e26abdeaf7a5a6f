"""evaluate/publish.py: the copies give the same figures and tests, and hold no text of the data."""

import json
import shutil
import subprocess

import pytest
from conftest import ROOT, read_lines, run, write_lines
from report_tree import Tree, small_tree, write

from growth.data.study import published_study, read_study

SECRET = "秘密的题目"
SIDES = ("7b/curated-160", "7b/curated-10")


@pytest.fixture
def tree(tmp_path):
    """Two settings with two seeds, one benchmark; verdicts and predictions hold texts."""
    tree = Tree(tmp_path, published_study())
    for place, data_type in enumerate(("curated-10", "curated-160")):
        for seed in (0, 1):
            run = tree.run("7b", data_type, seed)
            write_lines(tree.train(run) / "checkpoint-6/model.safetensors", ["weights"])
            tree.select(run, 40.0)
            scored = tree.score(run, 30 + 20 * place + seed)
            for path in scored.parent.rglob("*.jsonl"):
                texts = {"parsed": SECRET, "gold": SECRET, "extracted_answer": SECRET}
                lines = [line | texts | {"idx": SECRET} for line in read_lines(path)]
                write_lines(path, [{**lines[0], "idx": 7}, *lines[1:]])
            write_lines(scored.with_name(f"._{scored.name}"), ["of a file system"])
    answers = tree.benchmark("cmmlu", {"0-shot": 36.2}, run)
    settings = json.loads(answers.read_text())
    settings["settings"]["0-shot"]["left_out"] = {"arts": [SECRET, SECRET]}
    write(answers, settings)
    write(answers.with_name("run.json"), {"read": {"0-shot": {"arts": {"left_out": [SECRET]}}}})
    write_lines(answers.parent / "0-shot/arts.jsonl", [{"question": SECRET}])
    return tree


def originals(tree):
    return {
        path: path.read_bytes()
        for path in tree.folder.rglob("*")
        if path.is_file() and "public" not in path.parts
    }


def publish(tree, *flags, check=True):
    return run(
        *(ROOT / "evaluate/publish.py", "--results_path", "results/test", "--output_dir", "public"),
        *flags,
        cwd=tree.folder,
        check=check,
    )


def test_the_copies_give_the_same_report_and_the_same_tests(tree):
    done = publish(tree)
    verdicts = len(published_study().abilities)
    assert done.stdout.splitlines() == [
        f"public/test: {4 * (1 + verdicts)} files",
        "public/valid: 4 files",
        "public/runs: 8 files",
        "public/benchmarks/cmmlu/outputs: 2 files",
    ]
    assert done.stderr == ""
    found = []
    for name, root, benchmarks in (
        ("own", "", "evaluate"),
        ("copy", "public/", "public/benchmarks"),
    ):
        results = f"{root}test" if root else "results/test"
        places = ("--results_path", results, "--runs_dir", f"{root}runs")
        places += ("--benchmarks_dir", benchmarks, "--output_dir", f"{name}/report")
        run(ROOT / "evaluate/report.py", *places, cwd=tree.folder)
        compared = ("--results_path", results, "--output_dir", f"{name}/compare")
        run(ROOT / "evaluate/compare.py", *SIDES, *compared, cwd=tree.folder)
        report = json.loads((tree.folder / name / "report/report.json").read_bytes())
        report["benchmarks"] = report["benchmarks"]["rows"]  # its other part names files
        tests = (tree.folder / name / "compare/compare.csv").read_bytes()
        parts = ("overview", "curves", "noise", "compared", "benchmarks", "costs")
        found.append([tests, *(report[part] for part in parts)])
    assert found[0] == found[1]
    assert all(found[0])


def test_nothing_of_the_data_and_no_weights_are_copied(tree):
    publish(tree)
    names = {path.name for path in (tree.folder / "public").rglob("*") if path.is_file()}
    assert {"run.json", "metrics.jsonl", "selected-checkpoint.json", "results.json"} <= names
    assert not {name for name in names if name.endswith((".safetensors", ".log"))}
    assert "arts.jsonl" not in names
    for path in (tree.folder / "public").rglob("*.json*"):
        assert SECRET not in path.read_text(encoding="utf-8")
    (answers,) = (tree.folder / "public/benchmarks").rglob("results.json")
    assert json.loads(answers.read_text())["settings"]["0-shot"]["left_out"] == {"arts": 2}
    path = next((tree.folder / "public/test").rglob("*.jsonl"))
    assert [line.get("idx") for line in read_lines(path)] == [7] + [None] * 99


def test_absolute_paths_are_named_and_a_copy_can_be_made_again(tree):
    record = tree.folder / "runs/runs-7b/curated-10/seed-0/run.json"
    places = {"model_name_or_path": "/models/llama", "train": {"dir": "/home/me/data"}}
    write(record, json.loads(record.read_text()) | places)
    for _ in range(2):
        (line,) = publish(tree).stderr.splitlines()
        copy = "public/runs/runs-7b/curated-10/seed-0/run.json"
        assert line == f"{copy}: names /home/me/data, /models/llama, of this machine"


def test_predictions_made_again_can_be_checked_by_their_digests(tree):
    first, second, other = (
        tree.folder / f"evaluate/pred-data/test/7b/curated-10/{seed}/checkpoint-6/pred_{name}.json"
        for seed, name in ((0, "math_test"), (1, "math_test"), (0, "ethics_test"))
    )
    for path in (first, second):
        write_lines(path, [{"answer": SECRET, "of": str(path)}])
    write_lines(first.with_name("pred_code_test.json.partial"), [{"answer": SECRET}])
    said = publish(tree).stdout.splitlines()
    assert said[-1] == "public/predictions.sha256: digests of 2 files of predictions"
    check = ["sha256sum", "--check", "--strict", "public/predictions.sha256"]
    subprocess.run(check, cwd=tree.folder, check=True)
    second.unlink()  # as on another machine, later
    write_lines(other, [{"answer": SECRET}])
    publish(tree)
    listed = (tree.folder / "public/predictions.sha256").read_text().splitlines()
    assert [line.partition("  ")[2] for line in listed] == [
        str(path.relative_to(tree.folder)) for path in (other, first, second)
    ]
    subprocess.run([*check, "--ignore-missing"], cwd=tree.folder, check=True)
    write_lines(first, [{"answer": "another"}])
    assert subprocess.run([*check, "--ignore-missing"], cwd=tree.folder, check=False).returncode


def test_a_study_of_ones_own_brings_its_file(tmp_path):
    study = shutil.copy(ROOT / "data/example.toml", tmp_path / "mine.toml")
    tree = small_tree(tmp_path, read_study(study))
    tree.benchmarks.mkdir()
    recorded = {"file": "mine.toml"}
    for path in tree.results.rglob("*-results.json"):
        results = json.loads(path.read_text())
        results["run"]["study"] |= recorded
        write(path, results)
    done = publish(tree)
    copy = f"public/{tree.study.name}.toml"
    assert done.stdout.splitlines()[-1].startswith(f"{copy}: give it with --study")
    study.unlink()
    flags = ("--results_path", "public/test", "--plots_path", "plots", "--study", copy)
    run(ROOT / "evaluate/plot.py", "--plot_type", "all", *flags, cwd=tmp_path)
    assert (tmp_path / "plots/all/overview.png").is_file()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--results_path", "results/tset"), "--results_path results/tset: no *-results.json in"),
        (("--results_path", "runs"), "--results_path runs: no *-results.json in it"),
        (("--output_dir", "results/test/public"), "its part test and results/test"),
        (("--output_dir", "results"), "its part test and results/test, which is copied, overlap"),
        (("--output_dir", "linked"), "its part test and results/test, which is copied, overlap"),
        (("--output_dir", "."), "--output_dir .: its part runs and runs, which is copied"),
        (("--output_dir", "runs"), "--output_dir runs: its part"),
        (("--runs_dir", "nope"), "--runs_dir nope: no such folder"),
        (("--benchmarks_dir", "nope"), "--benchmarks_dir nope: no such folder"),
    ],
)
def test_refused(tree, flags, says):
    (tree.folder / "linked").mkdir()
    (tree.folder / "linked/test").symlink_to(tree.folder / "results/test")
    before = originals(tree)
    done = publish(tree, *flags, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert originals(tree) == before
    assert not (tree.folder / "public/test").exists()


def test_a_damaged_record_is_named_where_it_is(tree):
    record = tree.folder / "runs/runs-7b/curated-10/seed-0/run.json"
    record.write_text(record.read_text()[:100])
    done = publish(tree, check=False)
    assert done.returncode == 2
    assert f"error: {record.relative_to(tree.folder)}: not JSON" in done.stderr
    assert not (tree.folder / "public" / record.relative_to(tree.folder)).exists()


def test_a_damaged_verdict_is_named(tree):
    path = next((tree.folder / "results/test").rglob("*.jsonl"))
    path.write_text("{", encoding="utf-8")
    done = publish(tree, check=False)
    assert done.returncode == 2
    assert f"{path.relative_to(tree.folder)}:1:" in done.stderr
