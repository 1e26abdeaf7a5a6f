"""evaluate/publish.py: the copies give the same figures and tests, and hold no text of the data."""

import json

import pytest
from conftest import ROOT, read_lines, run, write_lines
from report_tree import Tree, write

from growth.data.study import published_study

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
                write_lines(path, [line | texts for line in read_lines(path)])
    answers = tree.benchmark("cmmlu", {"0-shot": 36.2}, run)
    write_lines(answers.parent / "0-shot/arts.jsonl", [{"question": SECRET}])
    return tree


def publish(tree, *flags, check=True):
    return run(
        *(ROOT / "evaluate/publish.py", "--results_path", "results/test", "--output_dir", "public"),
        *flags,
        cwd=tree.folder,
        check=check,
    )


def test_the_copies_give_the_same_report_and_the_same_tests(tree):
    done = publish(tree)
    files = [path for path in (tree.folder / "public").rglob("*") if path.is_file()]
    assert done.stdout.startswith(f"public: {len(files)} files, ")
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
        assert SECRET not in json.dumps(path.read_text(encoding="utf-8"), ensure_ascii=False)


def test_absolute_paths_are_named_and_a_copy_can_be_made_again(tree):
    record = tree.folder / "runs/runs-7b/curated-10/seed-0/run.json"
    write(record, json.loads(record.read_text()) | {"model_name_or_path": "/home/me/llama"})
    for _ in range(2):
        (line,) = publish(tree).stderr.splitlines()
        assert line == (
            "public/runs/runs-7b/curated-10/seed-0/run.json: names /home/me/llama, a place on this "
            "machine"
        )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--results_path", "runs"), "no *-results.json in runs and valid"),
        (("--output_dir", "results/test/public"), "--output_dir results/test/public: lies in"),
        (("--output_dir", "runs"), "--output_dir runs: lies in runs, which is copied"),
    ],
)
def test_refused(tree, flags, says):
    before = sorted(tree.folder.rglob("*"))
    done = publish(tree, *flags, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert sorted(tree.folder.rglob("*")) == before


def test_a_damaged_verdict_is_named(tree):
    path = next((tree.folder / "results/test").rglob("*.jsonl"))
    path.write_text("{", encoding="utf-8")
    done = publish(tree, check=False)
    assert done.returncode == 2
    assert f"{path.relative_to(tree.folder)}:1:" in done.stderr
