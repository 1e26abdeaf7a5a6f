"""What a sweep will cost, held against what its runs really take."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from conftest import STUDY, copy_scripts, line, read_lines, run, write_lines

from growth.core.files import read_json, write_json
from growth.core.options import CHOSEN, EngineOptions, LoraOptions
from growth.runs.retention import keep_selected
from growth.sweep import costs, rates
from growth.sweep.costs import Conditions, PlannedRun, cost_lines, plan_costs
from growth.training import trainer

GIVEN = {"epochs": 3, "total_batch_size": 16, "max_length": 40}
FLAGS = ("--epochs", "3", "--total_batch_size", "16", "--max_length", "40")


@pytest.fixture
def root(tmp_path, tiny_data, monkeypatch):
    """A copy of the scripts with data, the current folder."""
    copy_scripts(tmp_path)
    shutil.copytree(tiny_data / "curated", tmp_path / "data/curated")
    for path in (tmp_path / "data/curated/1000").iterdir():  # of many lengths
        name = path.stem.removesuffix("_1000")
        write_lines(path, [line(name, "甲" * (len(name) * count)) for count in (1, 2, 3, 4)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(model, setting="curated-40", seed=0):
    place = f"tiny/{setting}/seed-{seed}"
    return PlannedRun(place, str(model), STUDY.recipe(setting), seed)


def conditions(**changes):
    return Conditions(**({"study": STUDY, "data_dir": Path("data"), "given": GIVEN} | changes))


def train(root, model, setting="curated-40", seed=0, flags=()):
    """A real run of what is planned; returns its folder."""
    run("data/build.py", "--data_type", setting, "--seed", seed, cwd=root)
    folder = root / f"runs/runs-tiny/{setting}/seed-{seed}"
    where = ("--train_dir", f"data/{setting}", "--valid_dir", "data/curated/valid")
    run("train/finetune.py", "--model_name_or_path", model, "--model_size", "tiny", *where,
        "--data_type", setting, "--output_dir", folder, "--seed", seed, *FLAGS, *flags,
        cwd=root)  # fmt: skip
    return folder


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("setting", "seed"), [("curated-10", 0), ("curated-40", 1)])
def test_samples_tokens_and_steps_are_those_of_the_run(root, tiny_model, setting, seed):
    (cost,) = plan_costs([planned(tiny_model, setting, seed)], conditions()).runs
    folder = train(root, tiny_model, setting, seed)
    record = read_json(folder / "run.json")
    assert (cost.samples, cost.tokens, cost.tokens_exact, cost.steps, cost.epochs) == (
        record["train"]["samples"],
        record["train"]["tokens"],
        True,
        record["steps"],
        record["hyperparameters"]["epochs"],
    )
    assert record["train"]["answers_cut"] or record["train"]["answers_lost"]  # --max_length cuts
    metrics = [entry for entry in read_lines(folder / "metrics.jsonl") if "loss" in entry]
    assert cost.tokens_trained == sum(entry["tokens"] for entry in metrics)
    assert cost.steps == len(metrics)


def test_epochs_are_the_studys_where_no_flag_gives_them(root, tiny_model):
    plan = plan_costs([planned(tiny_model, "curated-10")], conditions(given={}))
    assert (plan.runs[0].epochs, plan.runs[0].steps) == (25, 25)
    published = plan_costs(
        [planned(tiny_model, "curated-10")], conditions(given={"as_published": True})
    )
    assert published.runs[0].epochs == 15


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("limit", [None, 1])
def test_the_disk_is_that_of_the_run_within_a_tenth(root, tiny_model, monkeypatch, rank, limit):
    lora = LoraOptions(rank=rank) if rank else None
    engine = EngineOptions(save_total_limit=limit)
    (cost,) = plan_costs([planned(tiny_model)], conditions(lora=lora, engine=engine)).runs
    sizes = []

    def measured(function):
        def measure(path):
            sizes.append(size_of(path.parent))
            function(path)

        return measure

    for name in ("drop_resume_state", "remove_checkpoint"):
        monkeypatch.setattr(trainer, name, measured(getattr(trainer, name)))
    flags = ("--lora_rank", rank) if rank else ()
    flags += ("--save_total_limit", limit) if limit else ()
    folder = train(root, tiny_model, flags=flags)
    assert cost.peak_bytes == pytest.approx(max(sizes), rel=0.1)
    assert cost.end_bytes == pytest.approx(size_of(folder), rel=0.1)


def test_the_disk_of_a_selected_checkpoint_alone(root, tiny_model):
    (cost,) = plan_costs([planned(tiny_model)], conditions(keep_checkpoints=CHOSEN)).runs
    folder = train(root, tiny_model)
    evaluate = ("evaluate/run.py", "--run_dir", folder, "--max_new_tokens", "1")
    run(*evaluate, "--keep_checkpoints", "chosen", cwd=root)
    assert keep_selected(folder) == []
    assert cost.end_bytes == pytest.approx(size_of(folder), rel=0.1)


def test_runs_at_the_same_time_add_to_the_peak(root, tiny_model):
    runs = [planned(tiny_model, seed=seed) for seed in range(3)]
    one, two, many = (
        plan_costs(runs, conditions(jobs=jobs, keep_checkpoints=CHOSEN)) for jobs in (1, 2, 8)
    )
    peak, end = one.runs[0].peak_bytes, one.runs[0].end_bytes
    assert [plan.end_bytes for plan in (one, two, many)] == [3 * end] * 3
    assert one.peak_bytes == 2 * end + peak
    assert two.peak_bytes == end + 2 * peak
    assert many.peak_bytes == 3 * peak


def test_time_is_by_earlier_runs_on_this_device(root, tiny_model):
    assert plan_costs([planned(tiny_model)], conditions()).seconds is None
    folder = train(root, tiny_model, "curated-10")
    record = read_json(folder / "run.json")
    # A run of 12 s, 2 s of which in its steps: 100 tokens in each second of them.
    metrics = [
        {"step": step, "loss": 1.0, "tokens": 50, "tokens_per_second": 100.0}
        for step in range(1, 5)
    ]
    write_lines(folder / "metrics.jsonl", metrics)
    times = {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:00:12+00:00"}
    write_json(folder / "run.json", record | times)
    plan = plan_costs([planned(tiny_model, seed=1), planned(tiny_model)], conditions(jobs=2))
    cost = plan.runs[0]
    expected = round(cost.tokens_trained / 100 + 3 * 10 / 3, 1)
    assert cost.seconds == expected
    assert plan.seconds == 2 * expected
    assert plan.wall_seconds == expected
    said = "\n".join(cost_lines(plan))
    assert f"{tiny_model}: 100 tokens/s (computing on CPU" in said
    assert "by 1 earlier run" in said
    # One that was resumed had a pause: only its steps count.
    write_json(folder / "run.json", record | times | {"resumed": times["ended"]})
    cost = plan_costs([planned(tiny_model)], conditions()).runs[0]
    assert cost.seconds == round(cost.tokens_trained / 100, 1)
    # Another device, and one that this machine need not have.
    write_json(folder / "run.json", record | times | {"device": "computing on H100 in bf16: x"})
    assert plan_costs([planned(tiny_model)], conditions()).seconds is None
    there = plan_costs([planned(tiny_model)], conditions(elsewhere=True))
    assert there.rates[str(tiny_model)].device == "computing on H100 in bf16"
    # Another model.
    write_json(folder / "run.json", record | times | {"parameters": 1 + record["parameters"]})
    assert plan_costs([planned(tiny_model)], conditions()).seconds is None


@pytest.mark.parametrize("lora", [None, LoraOptions(rank=2)])
def test_a_probe_tells_where_nothing_else_does(root, tiny_model, monkeypatch, lora):
    before = sorted(root.rglob("*"))
    plan = plan_costs([planned(tiny_model)], conditions(probe=True, lora=lora))
    rate = plan.rates[str(tiny_model)]
    assert rate.tokens_per_second > 0
    assert "a probe of 3 steps, without validation" in "\n".join(cost_lines(plan))
    assert plan.seconds == round(plan.runs[0].tokens_trained / rate.tokens_per_second, 1)
    assert sorted(root.rglob("*")) == before
    monkeypatch.setattr(costs, "CHEAP", 10)
    assert plan_costs([planned(tiny_model)], conditions(probe=True, lora=lora)).seconds is None


def test_the_probe_computes_the_steps_of_the_run(root, tiny_model, monkeypatch):
    """Its first loss is that of the first step of a run on the same samples."""
    losses = []
    plain = rates.StepLoss.backward

    def noted(self, model, examples):
        loss, measures = plain(self, model, examples)
        losses.append((loss.item(), measures.tokens))
        return loss, measures

    monkeypatch.setattr(rates.StepLoss, "backward", noted)
    all_at_once = {"given": GIVEN | {"total_batch_size": 40, "max_length": 256}, "probe": True}
    plan_costs([planned(tiny_model)], conditions(**all_at_once))
    probed, losses[:] = losses[0], []
    train(root, tiny_model, flags=("--total_batch_size", "40", "--max_length", "256"))
    assert probed[1] == losses[0][1]
    assert probed[0] == pytest.approx(losses[0][0], rel=1e-2)  # another order of the samples


def test_a_setting_without_lines_keeps_no_other_from_its_costs(root, tiny_model):
    plan = plan_costs([planned(tiny_model, "curated-160"), planned(tiny_model)], conditions())
    assert [cost.place for cost in plan.runs] == ["tiny/curated-40/seed-0"]
    assert "asks for 16 lines" in plan.failed["tiny/curated-160/seed-0"]
    assert "tiny/curated-160/seed-0: its lines can't be taken:" in "\n".join(cost_lines(plan))


def test_of_many_lines_a_sample_is_counted(root, tiny_model, monkeypatch):
    (exact,) = plan_costs([planned(tiny_model)], conditions()).runs
    monkeypatch.setattr(costs, "COUNTED", 20)
    plan = plan_costs([planned(tiny_model)], conditions())
    (sampled,) = plan.runs
    assert not sampled.tokens_exact
    assert sampled.tokens == pytest.approx(exact.tokens, rel=0.25)  # 2 of 4 lines of each ability
    assert f"about {sampled.tokens:,}" in "\n".join(cost_lines(plan))


def test_the_plan_is_a_table_and_json(root, tiny_model):
    plan = plan_costs([planned(tiny_model), planned(tiny_model, "curated-10")], conditions())
    head, *table = next(cost_lines(plan)).splitlines()
    assert head.split() == ["run", "samples", "tokens", "epochs", "steps", "trained", "on", "disk,",
                            "peak", "disk,", "end", "training", "time"]  # fmt: skip
    assert [row.split()[0] for row in table] == [cost.place for cost in plan.runs]
    write_json(root / "plan.json", plan.record())
    assert read_json(root / "plan.json")["runs"][0] == dataclasses.asdict(plan.runs[0])


def test_a_disk_with_too_little_room_is_said(root, tiny_model, monkeypatch):
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(costs.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "1.0 kB are free: too little" in "\n".join(
        cost_lines(plan_costs([planned(tiny_model)], conditions()))
    )
