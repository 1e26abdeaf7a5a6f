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
    run = json.loads(record.read_text())
    command = "finetune.py --data_dir ~/data/a --n 1/2 --model_size 7b/x --cache='/srv/my/cache'"
    run["train"]["dir"] = "/home/me/data"
    write(record, run | {"model_name_or_path": "/models/llama", "command": command})
    for _ in range(2):
        (line,) = publish(tree).stderr.splitlines()
        copy = "public/runs/runs-7b/curated-10/seed-0/run.json"
        places = "/home/me/data, /models/llama, /srv/my/cache, ~/data/a"
        assert line == f"{copy}: names {places}, of this machine"


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


def test_digests_of_odd_names_can_be_checked(tree):
    path = tree.folder / "evaluate/pred-data/test/a\nb\\c/pred_math_test.json"
    write_lines(path, [{"answer": SECRET}])
    for _ in range(2):
        publish(tree)
        check = ["sha256sum", "--check", "--strict", "public/predictions.sha256"]
        done = subprocess.run(check, cwd=tree.folder, check=True, capture_output=True, text=True)
        assert done.stdout.count("OK") == 1


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
        (("--selection_path", "nope"), "--selection_path nope: no such folder"),
        (("--pred_data_path", "nope"), "--pred_data_path nope: no such folder"),
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


def changed(path, **fields):
    write(path, json.loads(path.read_text()) | fields)


def own_study(name, file):
    return lambda path: changed(path, run={"study": {**OWN, "name": name, "file": file}})


OWN = {"digest": "d", "asked": "a"}
RUN = "runs/runs-7b/curated-160/seed-1/run.json"
SCORED = "results/test/7b/curated-160/seed-1/checkpoint-6-results.json"
VERDICTS = SCORED.replace("-results.json", "-details/math_test.jsonl")
CHOICE = "results/valid/7b/curated-160/seed-1/selected-checkpoint.json"
ANSWERED = "evaluate/cmmlu/outputs"


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        (RUN, lambda path: path.write_text(path.read_text()[:100]), "not JSON"),
        (RUN, lambda path: changed(path, model_size=7), "$.model_size"),
        (SCORED, lambda path: path.write_text(path.read_text()[:100]), "ends early"),
        (SCORED, lambda path: path.write_text('{"average": NaN}'), "NaN is not JSON"),
        (SCORED, lambda path: changed(path, run="x"), "$.run"),
        (SCORED, lambda path: changed(path, average=101.0), "<= 100.0, got 101.0 - at `$.average`"),
        (SCORED, own_study("../../escaped", "data/doit.toml"), "$.run.study.name"),
        (SCORED, own_study("mine", "mine.toml"), "whose file mine.toml is no longer there"),
        (SCORED, own_study("mine", ""), "which names no file; give it with --study FILE"),
        (VERDICTS, lambda path: path.write_text("{"), ":1: malformed JSON"),
        (CHOICE, lambda path: changed(path, checkpoint=3), "$.checkpoint"),
        (ANSWERED, lambda path: changed(path, settings=3), "$.settings"),
    ],
)
def test_what_is_damaged_is_named_and_nothing_is_copied(tree, file, damage, says):
    path = tree.folder / file
    damage(next(path.rglob("results.json")) if path.is_dir() else path)
    done = publish(tree, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {file}")
    assert says in done.stderr
    assert sorted(tree.folder.glob("public/**/*.*")) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: write_lines(path, read_lines(path)[:50]),
        lambda path: write_lines(path, [line | {"score": 0} for line in read_lines(path)]),
        lambda path: write_lines(path, [line | {"score": "x"} for line in read_lines(path)]),
        lambda path: write_lines(path, [{"question": "q"}, *read_lines(path)[1:]]),
    ],
)
def test_verdicts_are_those_of_their_results(tree, damage):
    damage(tree.folder / VERDICTS)
    done = publish(tree, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {VERDICTS}:")
    assert "evaluate/score.py" in done.stderr
    assert not (tree.folder / "public/test").exists()


def test_results_without_verdicts_are_copied_with_a_note(tree):
    shutil.rmtree((tree.folder / VERDICTS).parent)
    (line,) = publish(tree).stderr.splitlines()
    assert line.startswith(f"note: {SCORED}: no verdicts beside it")
    assert (tree.folder / "public" / SCORED.removeprefix("results/")).is_file()


def test_losses_without_a_record_are_left_out_with_a_note(tree):
    (tree.folder / RUN).unlink()
    metrics = RUN.replace("run.json", "metrics.jsonl")
    (line,) = publish(tree).stderr.splitlines()
    assert line.startswith(f"note: {metrics}: left out, as no run.json")
    assert not (tree.folder / "public" / metrics).exists()


def test_a_list_of_digests_that_is_none_is_named(tree):
    path = tree.folder / "public/predictions.sha256"
    path.parent.mkdir()
    path.write_bytes(b"\xff")
    done = publish(tree, check=False)
    assert done.returncode == 2
    assert "error: public/predictions.sha256: not UTF-8" in done.stderr
    assert path.read_bytes() == b"\xff"


def test_what_of_metrics_is_whole_is_copied(tree):
    """A kill leaves a part of a line, and a run that diverges has losses that are no numbers."""
    path = tree.folder / RUN.replace("run.json", "metrics.jsonl")
    path.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "lo')
    (line,) = publish(tree).stderr.splitlines()
    assert line.endswith("metrics.jsonl: 1 of 2 lines can't be read and are left out")
    copy = tree.folder / "public" / path.relative_to(tree.folder)
    assert copy.read_text() == '{"step": 1, "loss": NaN}\n'
