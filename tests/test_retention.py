"""Runs that keep their selected checkpoint only."""

import json
import os
import shutil

import pytest
from conftest import copy_scripts, run

from growth.core.errors import InputError
from growth.core.files import read_json, write_json
from growth.runs import retention
from growth.runs.retention import keep_selected

EPOCHS = 7  # of one step; candidates are those of epoch 5, 6, 7
PLACE = "tiny/curated-10/r"
RUN = f"runs/runs-{PLACE}"
EVALUATE = ("evaluate/run.py", "--run_dir", RUN, "--max_new_tokens", "4")
SELECTION = f"evaluate/results/valid/{PLACE}/selected-checkpoint.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model, tiny_data):
    """A run with all its checkpoints, evaluated."""
    root = copy_scripts(tmp_path_factory.mktemp("whole"))
    shutil.copytree(tiny_data / "curated", root / "data/curated")
    (root / "model").symlink_to(tiny_model)
    run("data/build.py", "--data_type", "curated-10", cwd=root)
    run(*TRAIN, cwd=root)
    run(*EVALUATE, cwd=root)
    return root


TRAIN = (
    *("train/finetune.py", "--model_name_or_path", "model", "--model_size", "tiny"),
    *("--train_dir", "data/curated-10", "--valid_dir", "data/curated/valid"),
    *("--output_dir", RUN, "--epochs", str(EPOCHS), "--data_type", "curated-10"),
)


@pytest.fixture(params=["checkpoint-5", "checkpoint-7"])
def root(request, whole, tmp_path, monkeypatch):
    """A copy, with an earlier or the last checkpoint selected; the current folder."""
    return copy_with(whole, tmp_path, monkeypatch, request.param)


@pytest.fixture
def earlier(whole, tmp_path, monkeypatch):
    """A copy with an earlier checkpoint selected."""
    return copy_with(whole, tmp_path, monkeypatch, "checkpoint-5")


def copy_with(whole, tmp_path, monkeypatch, selected):
    """A copy of the run in which `selected` is the best: the answers of its rivals are wrong."""
    copy = shutil.copytree(whole, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(copy)
    for path in (copy / f"evaluate/pred-data/valid/{PLACE}").glob("*/pred_biology_valid.json"):
        right = path.parent.name == selected
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        for line in lines:
            line["generated_response"] = "A" if right else "D"
        path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    run(*EVALUATE, cwd=copy)
    assert read_json(copy / SELECTION)["checkpoint"] == selected
    return copy


def files_below(folder):
    """Contents by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def checkpoints_of(root):
    return sorted(path.name for path in (root / RUN).iterdir() if path.is_dir())


def test_only_the_selected_checkpoint_stays_and_nothing_is_done_again(root):
    before, weights = files_below(root / "evaluate"), files_below(root / RUN)
    selected = read_json(root / SELECTION)["checkpoint"]
    done = run(*EVALUATE, "--keep_checkpoints", "chosen", cwd=root)
    assert f"{RUN}: {selected} is kept, 6 others are removed" in done.stdout
    kept = {
        name: content
        for name, content in weights.items()
        if name.startswith((f"{selected}/", "metrics")) and "optimizer" not in name
    }
    after = files_below(root / RUN)
    record = json.loads(after.pop("run.json"))
    assert after == kept
    removed = record.pop("removed_checkpoints")
    assert record == json.loads(weights["run.json"])
    assert removed["kept"] == [selected]
    assert [entry["epoch"] for entry in removed["removed"]] == [
        epoch for epoch in range(1, EPOCHS + 1) if f"checkpoint-{epoch}" != selected
    ]
    for command in (EVALUATE, (*EVALUATE, "--keep_checkpoints", "chosen")):
        done = run(*command, cwd=root)
        assert "files predicted" not in done.stdout
    assert "is finished" in run(*TRAIN, "--resume", cwd=root).stderr
    assert files_below(root / RUN) == after | {"run.json": (root / RUN / "run.json").read_bytes()}
    assert read_json(root / RUN / "run.json")["removed_checkpoints"] == removed
    assert files_below(root / "evaluate") == before


def test_the_later_stages_say_the_same(earlier):
    def later():
        run("evaluate/score.py", "--pred_data_path", "evaluate/pred-data/valid", cwd=earlier)
        choice = ("evaluate/select_checkpoint.py", "--results_path", "evaluate/results/valid")
        said = run(*choice, cwd=earlier).stdout
        run("evaluate/plot.py", "--plot_type", "all", cwd=earlier)
        run("evaluate/report.py", cwd=earlier)
        report = read_json(earlier / "evaluate/report/report.json")
        numbers = (earlier / "evaluate/plots/all/overview.csv").read_text()
        return said, numbers, report

    before = later()
    keep_selected(earlier / RUN)
    assert later() == before


def test_a_removed_checkpoint_is_not_taken_for_a_lost_one(earlier):
    keep_selected(earlier / RUN)
    for command in (
        ("evaluate/predict.py", "--eval_data_path", "data/curated/valid"),
        ("evaluate/export.py", "--output_dir", "exported"),
    ):
        for name in (f"{RUN}/checkpoint-6", f"{RUN}/checkpoint-6/"):
            done = run(*command, "--model_name_or_path", name, cwd=earlier, check=False)
            assert done.returncode == 2
            assert f"error: {name}: removed once checkpoint-5 was selected" in done.stderr
    with pytest.raises(InputError, match="removed once checkpoint-5 was selected"):
        retention.refuse_removed(f"{RUN}/checkpoint-6")
    retention.refuse_removed(f"{RUN}/checkpoint-8")  # never was one; others know what to say


def test_a_run_as_a_model_is_what_is_left_of_it(earlier):
    keep_selected(earlier / RUN)
    where = ("--eval_data_path", "data/curated/valid", "--pred_data_path", "other")
    done = run("evaluate/predict.py", "--model_name_or_path", RUN, *where, "--limit", "1",
               "--max_new_tokens", "1", cwd=earlier)  # fmt: skip
    assert f"{RUN}: checkpoint-5 was selected, and is all that is left" in done.stderr
    assert os.listdir(earlier / f"other/valid/{PLACE}") == ["checkpoint-5-limit1"]


@pytest.mark.parametrize("at", range(16))
def test_a_kill_at_any_moment_is_put_in_order(earlier, monkeypatch, at):
    """Before and after each change of the file system."""
    calls = iter(range(1000))

    def dying(change):
        def changed(*arguments, **keywords):
            for before in (True, False):
                if next(calls) == at:
                    raise KeyboardInterrupt
                if before:
                    change(*arguments, **keywords)

        return changed

    with monkeypatch.context() as patch:
        for name in ("write_run", "remove_checkpoint", "drop_resume_state"):
            patch.setattr(retention, name, dying(getattr(retention, name)))
        with pytest.raises(KeyboardInterrupt):
            keep_selected(earlier / RUN)
    half = earlier / RUN / ".checkpoint-3"  # a kill amid its removal
    if at % 2:
        half.mkdir()
        (half / "model.safetensors").touch()
    run(*EVALUATE, cwd=earlier)
    assert "is finished" in run(*TRAIN, "--resume", cwd=earlier).stderr
    keep_selected(earlier / RUN)
    assert checkpoints_of(earlier) == ["checkpoint-5"]
    assert not (earlier / RUN / "checkpoint-5/optimizer.pt").exists()
    removed = read_json(earlier / RUN / "run.json")["removed_checkpoints"]
    assert removed["kept"] == ["checkpoint-5"]
    assert [entry["epoch"] for entry in removed["removed"]] == [1, 2, 3, 4, 6, 7]
    assert keep_selected(earlier / RUN) == []


def without(path):
    """What removes a file below the root."""
    return lambda root: (root / path).unlink()


def unfinished(root):
    write_json(root / RUN / "run.json", read_json(root / RUN / "run.json") | {"ended": None})


def unscored(root):
    (root / f"evaluate/results/valid/{PLACE}/checkpoint-6-results.json").unlink()
    run("evaluate/select_checkpoint.py", "--results_path", "evaluate/results/valid", cwd=root)


def damaged(root):
    path = root / RUN / "checkpoint-5/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def chosen_with(**fields):
    """What changes fields of the choice; None removes one."""

    def change(root):
        choice = read_json(root / SELECTION) | fields
        write_json(root / SELECTION, {k: v for k, v in choice.items() if v is not None})

    return change


PREDICTIONS = "evaluate/pred-data"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (unfinished, "not trained to its end yet"),
        (without(f"{RUN}/run.json"), r"no run\.json in it"),
        (without(SELECTION), r"selected-checkpoint\.json: no such file"),
        (unscored, r"candidates without a result \(checkpoint-6\)"),
        (
            without(f"{PREDICTIONS}/valid/{PLACE}/checkpoint-6/pred_biology_valid.json"),
            r"checkpoint-6: predictions are missing \(pred_biology_valid\.json\)",
        ),
        (
            without(f"{PREDICTIONS}/test/{PLACE}/checkpoint-5/pred_math_test.json"),
            r"checkpoint-5: predictions are missing \(pred_math_test\.json\)",
        ),
        (without(f"{PREDICTIONS}/test/{PLACE}/checkpoint-5/run.json"), "no predictions"),
        (damaged, r"checkpoint-5: model\.safetensors is not what was saved"),
        (chosen_with(candidates=None), "its candidates lack checkpoint-5; select again"),
        (chosen_with(candidates=[]), "its candidates lack checkpoint-5"),
        (chosen_with(timestamp="other"), "is the choice of tiny/curated-10/other, limit None"),
        (chosen_with(limit=1), f"is the choice of {PLACE}, limit 1"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_nothing_goes_before_all_is_there(earlier, harm, said):
    harm(earlier)
    before = files_below(earlier / RUN)
    with pytest.raises(InputError, match=said):
        keep_selected(earlier / RUN)
    assert files_below(earlier / RUN) == before


def test_candidates_that_training_removed_are_not_waited_for(whole, tmp_path):
    """--save_total_limit leaves fewer candidates than the epochs say."""
    copy = shutil.copytree(whole, tmp_path / "copy", symlinks=True)
    for made in ("runs", "evaluate/pred-data", "evaluate/results"):
        shutil.rmtree(copy / made)
    run(*TRAIN, "--save_total_limit", "2", cwd=copy)
    assert checkpoints_of(copy) == ["checkpoint-6", "checkpoint-7"]
    for _ in range(2):
        done = run(*EVALUATE, "--keep_checkpoints", "chosen", cwd=copy)
        assert checkpoints_of(copy) == [read_json(copy / SELECTION)["checkpoint"]]
    assert "is kept, 0 others are removed" in done.stdout


def test_results_of_two_runs_in_one_folder_choose_nothing(earlier):
    """A copy that somebody made to be safe."""
    folder = earlier / f"evaluate/results/valid/{PLACE}"
    shutil.copytree(folder, folder.with_name("copy"))
    folder.with_name("copy").rename(folder / "copy")
    done = run(*EVALUATE, "--keep_checkpoints", "chosen", cwd=earlier, check=False)
    assert done.returncode == 2
    assert "holds results of several runs, in folders below it" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(checkpoints_of(earlier)) == EPOCHS


def test_a_selection_of_some_lines_removes_nothing(earlier):
    done = run(*EVALUATE, "--keep_checkpoints", "chosen", "--limit", "1", cwd=earlier)
    assert "chosen:" in done.stdout
    assert len(checkpoints_of(earlier)) == EPOCHS


def test_what_is_kept_stays_when_another_is_selected_later(earlier, caplog):
    keep_selected(earlier / RUN)
    choice = read_json(earlier / SELECTION)
    write_json(earlier / SELECTION, choice | {"checkpoint": "checkpoint-6", "step": 6, "epoch": 6})
    tested = earlier / f"{PREDICTIONS}/test/{PLACE}"
    shutil.copytree(tested / "checkpoint-5", tested / "checkpoint-6")
    assert keep_selected(earlier / RUN) == []
    assert "checkpoint-6 is selected now, and was removed when checkpoint-5 was" in caplog.text
    assert checkpoints_of(earlier) == ["checkpoint-5"]


def test_a_selection_among_fewer_is_refused(earlier):
    """The predictions of a removed candidate are lost."""
    keep_selected(earlier / RUN)
    shutil.rmtree(earlier / f"{PREDICTIONS}/valid/{PLACE}/checkpoint-6")
    before = files_below(earlier / "evaluate")
    done = run(*EVALUATE, cwd=earlier, check=False)
    assert done.returncode == 2
    assert "checkpoint-6 was removed once checkpoint-5 was selected" in done.stderr
    assert f"--model_name_or_path {RUN}/checkpoint-5" in done.stderr
    assert files_below(earlier / "evaluate") == before


def test_a_kept_checkpoint_that_is_lost_is_missed(earlier):
    keep_selected(earlier / RUN)
    shutil.rmtree(earlier / RUN / "checkpoint-5")
    for command in (EVALUATE, (*TRAIN, "--resume")):
        done = run(*command, cwd=earlier, check=False)
        assert done.returncode == 2
        assert "checkpoint-5: missing or damaged, and the others were removed" in done.stderr
