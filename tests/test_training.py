"""Ways to train that change no result: micro-batches, processes, engines; LoRA; memory."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, STUDY, TEXTS, copy_scripts, read_lines, run, write_lines
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from test_benchmarks import write_cmmlu
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.trainer_pt_utils import safe_globals

from growth.core.device import Compute
from growth.core.errors import InputError
from growth.export import checkpoint_files
from growth.model.chat_tokenizer import IGNORED_LABEL
from growth.model.loading import load_model, load_tokenizer
from growth.model.source import find_model
from growth.packing.batches import pad_rows, supervised_tokens, tokenised
from growth.packing.forward import supports_packing
from growth.runs.checkpoints import (
    DEEPSPEED,
    FSDP,
    ResumeNeeds,
    candidates,
    checkpoints,
    resumable_checkpoint,
    resume_problems,
)
from growth.runs.resolve import resolve_models
from growth.training import memory, trainer
from growth.training.run import default_epochs
from growth.training.sampler import StepSampler
from growth.training.step import published_rate, summed_loss
from growth.training.trainer import InstructionTrainer

FSDP2 = ("--fsdp_config", str(ROOT / "train/configs/fsdp2.json"))
HYPERPARAMETERS = (
    *("--total_batch_size", "7", "--epochs", "2", "--precision", "fp32", "--seed", "3"),
    *("--learning_rate", "1e-2"),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_model):
    """The scripts, 22 lines of unlike lengths to train on, 3 to validate."""
    root = copy_scripts(tmp_path_factory.mktemp("training"))

    def line(length, answer):
        turns = [("user", "甲乙" * length), ("assistant", answer)]
        return {"messages": [{"role": role, "content": text} for role, text in turns], "idx": 0}

    fields = {"type": "biology", "question_format": 0}
    write_lines(
        root / "train_lines/biology.json",
        [line(1 + n % 9, "丙" * (1 + n % 4)) | fields for n in range(22)],
    )
    write_lines(root / "valid_lines/biology.json", [line(n, "A") | fields for n in (1, 5, 3)])
    return root


def command(model, name, *flags):
    """The script and its flags, to train in a folder of that name."""
    script = ["train/finetune.py", "--model_name_or_path", str(model)]
    script += ["--train_dir", "train_lines", "--valid_dir", "valid_lines"]
    return [
        *script,
        "--output_dir",
        f"runs/{name}",
        "--model_size",
        "tiny",
        *HYPERPARAMETERS,
        *flags,
    ]


def launch(study, model, name, *flags, script="train/finetune.py"):
    """Begin to train in two processes."""
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    return subprocess.Popen(
        [sys.executable, *torchrun, script, *command(model, name, *flags)[1:]],
        cwd=study,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finetune(study, model, name, *flags):
    """Train to the end; returns the folder."""
    run(*command(model, name, *flags), cwd=study)
    return study / "runs" / name


def finetune_in_two(study, model, name, *flags, **options):
    """As `finetune`, in two processes."""
    process = launch(study, model, name, *flags, **options)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr[-3000:]
    return study / "runs" / name


@pytest.fixture(scope="module")
def alone(study, tiny_model):
    """The run in one process."""
    return finetune(study, tiny_model, "alone")


@pytest.fixture(scope="module")
def sharded(study, tiny_model):
    """The run in two processes that split the model."""
    return finetune_in_two(study, tiny_model, "fsdp2", *FSDP2)


def curve(run_dir):
    """Losses of steps and validations, in order."""
    lines = read_lines(run_dir / "metrics.jsonl")
    return [line.get("loss", line.get("eval_loss")) for line in lines]


def final_weights(run_dir):
    return load_file(checkpoints(run_dir)[-1] / "model.safetensors")


def test_the_loss_by_ability_adds_up_to_the_loss(tmp_path, tiny_model):
    """By a line's type, else by its file's name; lines of no ability are in the whole loss only."""
    root = copy_scripts(tmp_path)
    answers = {"biology": "甲乙丙", "math": "丁", None: "戊己"}

    def lines(types):
        messages = [[{"role": "user", "content": "问" * (2 + place)},
                     {"role": "assistant", "content": answers[name]}]
                    for place, name in enumerate(types)]  # fmt: skip
        return [
            {"messages": turns} | ({"type": name} if name else {})
            for turns, name in zip(messages, types, strict=True)
        ]

    write_lines(root / "train_lines/biology.json", lines(["biology"] * 4))
    write_lines(root / "valid_lines/mine.json", lines(["biology", "math", "biology"]))
    write_lines(root / "valid_lines/history_valid.json", lines([None]))
    write_lines(root / "valid_lines/other.json", lines([None]))
    run_dir = finetune(root, tiny_model, "r", "--tokens_per_micro_batch", "20")
    for measured in (m for m in read_lines(run_dir / "metrics.jsonl") if "eval_loss" in m):
        losses = measured["eval_loss_by_ability"]
        assert list(losses) == ["biology", "history", "math"]
        source = find_model(str(run_dir / f"checkpoint-{measured['step']}"))
        chat = load_tokenizer(source)
        model = load_model(source, torch.float32, chat)
        read = {"biology": [], "math": [], "history": [], None: []}
        for name, file in (("biology", "mine"), (None, "other"), ("history", "history_valid")):
            for record in read_lines(root / f"valid_lines/{file}.json"):
                example = tokenised(record["messages"], chat, 100)
                with torch.no_grad():
                    loss = summed_loss(model, [example], packed=False).item()
                read[record.get("type", name)].append((loss, supervised_tokens([example])))
        for name, found in losses.items():
            expected = sum(loss for loss, _ in read[name]) / sum(count for _, count in read[name])
            assert found == pytest.approx(expected, rel=1e-4), name
        everything = [pair for pairs in read.values() for pair in pairs]
        whole = sum(loss for loss, _ in everything) / sum(count for _, count in everything)
        assert measured["eval_loss"] == pytest.approx(whole, rel=1e-4)


def test_micro_batches_change_no_result(study, tiny_model, alone):
    small = finetune(study, tiny_model, "small", "--tokens_per_micro_batch", "40")
    assert curve(small) == pytest.approx(curve(alone), rel=1e-5)
    one = finetune(study, tiny_model, "one", "--batch_size", "1", "--gradient_checkpointing", "on")
    assert curve(one) == pytest.approx(curve(alone), rel=1e-5)


# The last of an epoch's four steps has one sample: a process without any computes a dummy.
@pytest.mark.parametrize("engine", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_two_processes_give_the_loss_curve_of_one(study, tiny_model, alone, engine, request):
    if engine == "ddp":
        together = finetune_in_two(study, tiny_model, "ddp")
    else:
        together = request.getfixturevalue("sharded")
    assert curve(together) == pytest.approx(curve(alone), rel=1e-4)
    lines = {d: read_lines(d / "metrics.jsonl") for d in (alone, together)}
    by_ability = [
        [m["eval_loss_by_ability"]["biology"] for m in of_run if "eval_loss" in m]
        for of_run in lines.values()
    ]
    assert by_ability[0] == pytest.approx(by_ability[1], rel=1e-4)
    for field in ("tokens", "supervised_tokens", "useful_tokens"):
        values = [[m.get(field) for m in of_run] for of_run in lines.values()]
        assert values[0] == values[1], field
    weights, expected = final_weights(together), final_weights(alone)
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)
    checkpoint = checkpoints(together)[-1]
    run(
        *("evaluate/predict.py", "--model_name_or_path", checkpoint),
        *("--eval_data_path", "valid_lines", "--max_new_tokens", "2"),
        *("--pred_data_path", f"predictions-{engine}"),
        cwd=study,
    )
    (predicted,) = (study / f"predictions-{engine}").rglob("pred_biology.json")
    assert len(read_lines(predicted)) == 3


IN_CHUNKS = """
import runpy
from growth.packing import loss

loss.LOGITS_WHOLE, loss._TOKENS_AT_ONCE = 0, {"cpu": 1}
runpy.run_path("train/finetune.py", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", [(), FSDP2], ids=["ddp", "fsdp2"])
def test_two_processes_with_logits_in_chunks(study, tiny_model, alone, engine):
    """As training has it where a micro-batch has many logits: here one token at a time."""
    script = study / "train/in_chunks.py"
    script.write_text(IN_CHUNKS)
    name = f"chunks-{len(engine)}"
    together = finetune_in_two(study, tiny_model, name, *engine, script="train/in_chunks.py")
    assert curve(together) == pytest.approx(curve(alone), rel=1e-4)
    weights, expected = final_weights(together), final_weights(alone)
    for weight, known in zip(weights.values(), expected.values(), strict=True):
        torch.testing.assert_close(weight, known, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_killed_launch_resumes(study, tiny_model, sharded):
    """Two processes, shards: what the sharding engine alone writes is read again."""
    assert (checkpoints(sharded)[-1] / "pytorch_model_fsdp.bin").is_file()
    killed = launch(study, tiny_model, "killed", *FSDP2)
    state = study / "runs/killed/checkpoint-4/trainer_state.json"
    deadline = time.monotonic() + 200
    while not state.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert state.exists()
    resumed = finetune_in_two(study, tiny_model, "killed", *FSDP2, "--resume")
    assert curve(resumed) == pytest.approx(curve(sharded), rel=1e-6)


def test_the_tokenizer_is_converted_once_for_all_checkpoints(study, tiny_model, monkeypatch):
    converted = []
    convert = checkpoint_files.portable_form

    def counting(tokenizer):
        converted.append(tokenizer)
        return convert(tokenizer)

    monkeypatch.setattr(checkpoint_files, "portable_form", counting)
    run_dir = finetune(study, tiny_model, "once")
    first, last = checkpoints(run_dir)
    assert len(converted) == 1
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
        assert (first / name).read_bytes() == (last / name).read_bytes()


def test_steps_hold_the_same_samples_for_any_number_of_processes():
    lengths = [5, 50, 7, 31, 8, 90, 12, 3, 44, 6, 21]

    def steps(processes):
        samplers = [StepSampler(lengths, 4, 1, rank, processes) for rank in range(processes)]
        shares = list(zip(*(list(sampler) for sampler in samplers), strict=True))
        return [sorted(sample for share in step for sample in share) for step in shares]

    assert steps(1) == steps(2) == steps(3) == steps(5)
    assert sorted(sample for step in steps(2) for sample in step) == list(range(11))
    other_epoch = StepSampler(lengths, 4, 1, 0, 1)
    other_epoch.epoch = 1
    assert [sorted(step) for step in other_epoch] != steps(1)


def test_the_samples_of_a_step_are_dealt_out_by_length():
    lengths = [100, 1, 90, 2, 80, 3, 70, 4]
    shares = [next(iter(StepSampler(lengths, 8, 0, rank, 2))) for rank in (0, 1)]
    work = [sum(lengths[sample] for sample in share) for share in shares]
    assert max(work) < 1.2 * min(work)


# Samples that truncation leaves without an answer

CUT_LABELS = ROOT / "tests/cases/cut_labels"


def test_answers_that_are_cut_are_counted(study, tiny_model):
    shutil.copytree(CUT_LABELS, study / "cut_labels", dirs_exist_ok=True)
    again = command(tiny_model, "cut", "--epochs", "1", "--total_batch_size", "8")
    again[again.index("train_lines")] = "cut_labels"
    done = run(*again, cwd=study)
    # The tiny model's 256 positions bound a line.
    said = "of 8 lines, 0 lose the end of their answer and 7 all of it beyond 256 tokens"
    assert f"cut_labels/x.json: {said}" in done.stderr
    record = json.loads((study / "runs/cut/run.json").read_text())
    assert (record["train"]["answers_cut"], record["train"]["answers_lost"]) == (0, 7)
    assert (record["valid"]["answers_cut"], record["valid"]["answers_lost"]) == (0, 0)
    steps = [m for m in read_lines(study / "runs/cut/metrics.jsonl") if "loss" in m]
    assert sum(m["answers_lost"] for m in steps) == 7
    assert all(m["supervised_tokens"] for m in steps)


def test_answers_that_are_cut_are_counted_in_dumped_examples(study, tiny_model):
    shutil.copytree(CUT_LABELS, study / "cut_labels", dirs_exist_ok=True)
    flags = ("--model_name_or_path", tiny_model, "--dump_examples", "dumped.jsonl")
    done = run("train/finetune.py", *flags, "--train_dir", "cut_labels", cwd=study)
    said = "of 8 lines, 0 lose the end of their answer and 7 all of it beyond 256 tokens"
    assert f"cut_labels/x.json: {said}" in done.stderr
    dumped = read_lines(study / "dumped.jsonl")
    assert sum(set(line["labels"]) == {-100} for line in dumped) == 7
    done = run("train/finetune.py", *flags, "--train_dir", "train_lines", cwd=study)
    assert "of their answer" not in done.stderr


def test_part_of_an_answer_that_is_cut_is_counted(study, tiny_model):
    shorter = finetune(study, tiny_model, "part", "--max_length", "20", "--epochs", "1")
    chat = load_tokenizer(str(tiny_model))
    records = read_lines(study / "train_lines/biology.json")
    cut = lost = 0
    for record in records:
        _, labels = chat.encode_conversation(record["messages"])
        supervised = [place for place, label in enumerate(labels) if label != IGNORED_LABEL]
        cut += supervised[0] < 20 <= supervised[-1]
        lost += supervised[0] >= 20
    assert cut
    record = json.loads((shorter / "run.json").read_text())["train"]
    assert (record["answers_cut"], record["answers_lost"]) == (cut, lost)
    steps = [m for m in read_lines(shorter / "metrics.jsonl") if "loss" in m]
    assert sum(m["answers_cut"] for m in steps) == cut


def test_a_step_without_a_supervised_token_is_refused(study, tiny_model):
    shutil.copytree(CUT_LABELS, study / "cut_labels", dirs_exist_ok=True)
    again = command(tiny_model, "never", "--total_batch_size", "2")
    again[again.index("train_lines")] = "cut_labels"
    done = run(*again, cwd=study, check=False)
    assert done.returncode == 2
    assert "7 of 8 lines of --train_dir lose all of their answer" in done.stderr
    assert "of epoch 1 would hold no others" in done.stderr
    assert not (study / "runs/never").exists()


def test_the_first_step_of_given_samples_only():
    sampler = StepSampler([1] * 5, 2, 0, 0, 1)
    last = list(sampler)[-1]
    assert sampler.first_step_within(set(last), 1) == (1, 3)
    assert sampler.first_step_within(set(), 4) is None
    assert sampler.first_step_within(set(range(5)), 1) == (1, 1)
    sampler.epoch = 3
    later = list(sampler)[-1]
    assert later not in [list(last)]  # another sample is left over
    assert sampler.first_step_within(set(later), 3) is None
    assert sampler.first_step_within(set(later), 4) == (4, 3)


# LoRA


@pytest.fixture(scope="module")
def adapted(study, tiny_model):
    """A run with adapters."""
    return finetune(study, tiny_model, "lora", "--lora_rank", "4", "--lora_dropout", "0")


def test_adapters_train_and_leave_the_base_alone(study, adapted, tiny_model):
    losses = [m["loss"] for m in read_lines(adapted / "metrics.jsonl") if "loss" in m]
    assert min(losses[-4:]) < losses[0]
    checkpoint = checkpoints(adapted)[-1]
    assert not (checkpoint / "model.safetensors").exists()
    config = json.loads((checkpoint / "adapter_config.json").read_text())
    assert config["r"] == 4
    assert config["lora_alpha"] == 8
    tensors = load_file(checkpoint / "adapter_model.safetensors")
    moved = [name for name, tensor in tensors.items() if "lora_B" in name and tensor.any()]
    assert len(moved) == 7  # every linear layer of the one block
    record = json.loads((adapted / "run.json").read_text())["hyperparameters"]
    assert record["lora"] == {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
    assert record["learning_rate"] == 1e-2


def test_the_control_tokens_rows_are_trained(adapted, tiny_model):
    checkpoint = str(checkpoints(adapted)[-1])
    chat = load_tokenizer(checkpoint)
    tuned = load_model(checkpoint, torch.float32, chat).get_input_embeddings().weight
    before = load_model(str(tiny_model), torch.float32, chat).get_input_embeddings().weight
    changed = (tuned != before).any(1).nonzero().squeeze(1).tolist()
    assert changed == sorted([chat.user_id, chat.assistant_id, chat.eot_id])


def test_merged_predicts_what_the_adapters_predict(study, adapted):
    checkpoint = checkpoints(adapted)[-1]
    run("scripts/merge_lora.sh", checkpoint, "merged", cwd=study)
    predict = ("evaluate/predict.py", "--eval_data_path", "valid_lines", "--max_new_tokens", "4")
    where = ("--pred_data_path", "predictions-lora", "--precision", "fp32")
    run(*predict, *where, "--model_name_or_path", checkpoint, cwd=study)
    names = ("--model_size", "tiny", "--tag", "merged")
    run(*predict, *where, "--model_name_or_path", "merged", *names, cwd=study)
    lines = [read_lines(p) for p in (study / "predictions-lora").rglob("pred_biology.json")]
    assert len(lines) == 2
    for one, other in zip(*lines, strict=True):
        assert one["generated_response"] == other["generated_response"]
        assert one["choice_logits"] == pytest.approx(other["choice_logits"], rel=1e-4)
    export = ("evaluate/export.py", "--model_name_or_path", checkpoint, "--output_dir", "merged")
    again = run(*export, cwd=study, check=False)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_the_benchmark_runners_load_adapters(study, adapted):
    write_cmmlu(study / "cmmlu", {"anatomy": 2})
    run(
        *("evaluate/cmmlu/run.py", "--model_name_or_path", checkpoints(adapted)[-1]),
        *("--data_dir", "cmmlu", "--output_dir", "answers", "--num_fewshot", 0),
        cwd=study,
    )
    results = json.loads((study / "answers/results.json").read_text())
    assert results["settings"]["0-shot"]["over_examples"]["n"] > 0


def test_adapters_without_their_base_are_reported(adapted, tmp_path):
    lost = tmp_path / "lost"
    shutil.copytree(checkpoints(adapted)[-1], lost)
    config = json.loads((lost / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (lost / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="say where the base model is with --base_model"):
        find_model(str(lost)).base()
    (lost / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="a LoRA adapter without adapter_model"):
        find_model(str(lost))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--lora_alpha", "4"), "--lora_alpha needs --lora_rank"),
        (("--lora_rank", "4", "--lora_dropout", "1"), "not a number of at least 0 and below 1"),
        (("--lora_rank", "4", "--lora_target_modules", "nowhere"), "linear layers of this model"),
        (("--lora_rank", "4", "--deepspeed", "x.json"), "goes without"),
        (("--fsdp_config", "x.json"), "needs several processes"),
        (("--deepspeed", "x.json"), "x.json: no such file"),
        (("--report_to", "wandb"), "wandb is not installed: pip install wandb"),
    ],
)
def test_bad_flags_are_reported(study, tiny_model, flags, message):
    done = run(*command(tiny_model, "never", *flags), cwd=study, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (study / "runs/never").exists()


# As published


def plain_loop(model_path, lines, rates, *, betas=(0.9, 0.999), decay_all=True):
    """Two epochs of plain torch on padded batches, at the given rates; losses and weights."""
    chat = load_tokenizer(str(model_path))
    model = load_model(str(model_path), torch.float32, chat).train()
    samples = [tokenised(line["messages"], chat, 256) for line in lines]
    decayed = [p for p in model.parameters() if decay_all or p.ndim > 1]
    others = [p for p in model.parameters() if not decay_all and p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=betas, eps=1e-8)
    sampler = StepSampler([len(sample["labels"]) for sample in samples], 7, 3, 0, 1)
    losses, rates = [], iter(rates)
    for epoch in range(2):
        sampler.epoch = epoch
        for step in sampler:
            batch = pad_rows([samples[place] for place in step], chat.pad_id)
            labels = batch.pop("labels")[:, 1:]
            logits = model(**batch).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = next(rates) if group is optimizer.param_groups[0] else group["lr"]
            optimizer.param_groups[1]["lr"] = optimizer.param_groups[0]["lr"]
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses, model.state_dict()


# Of 8 steps, as WarmupDecayLR of DeepSpeed 0.9.5 has them: without warm-up steps it makes two.
PUBLISHED_RATES = [1e-2 * factor for factor in (1, 0, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6)]


@pytest.fixture(scope="module")
def as_published(study, tiny_model):
    """A run with the preset."""
    return finetune(study, tiny_model, "as-published", "--as_published")


def largest_difference(weights, expected):
    return max((weights[name] - expected[name]).abs().max().item() for name in weights)


def test_as_published_is_held_to_a_plain_loop(study, tiny_model, as_published):
    steps = [m for m in read_lines(as_published / "metrics.jsonl") if "loss" in m]
    assert [m["learning_rate"] for m in steps] == pytest.approx(PUBLISHED_RATES, abs=1e-12)
    lines = read_lines(study / "train_lines/biology.json")
    losses, expected = plain_loop(tiny_model, lines, PUBLISHED_RATES)
    assert [m["loss"] for m in steps] == pytest.approx(losses, rel=1e-5)
    ours = final_weights(as_published)
    assert largest_difference(ours, expected) < 2e-5
    # Each of the three differences is seen by this comparison.
    meant = [1e-2 - 9e-3 * step / 7 for step in range(8)]
    for other in (
        {"rates": PUBLISHED_RATES, "betas": (0.9, 0.95)},
        {"rates": PUBLISHED_RATES, "decay_all": False},
        {"rates": meant},
    ):
        _, weights = plain_loop(tiny_model, lines, **other)
        assert largest_difference(ours, weights) > 1e-3


def test_the_defaults_are_held_to_the_same_loop(study, tiny_model, alone):
    lines = read_lines(study / "train_lines/biology.json")
    meant = [1e-2 - 9e-3 * step / 7 for step in range(8)]
    losses, expected = plain_loop(tiny_model, lines, meant, betas=(0.9, 0.95), decay_all=False)
    steps = [m for m in read_lines(alone / "metrics.jsonl") if "loss" in m]
    assert [m["loss"] for m in steps] == pytest.approx(losses, rel=1e-5)
    assert largest_difference(final_weights(alone), expected) < 2e-5


def test_the_preset_is_recorded(study, tiny_model, as_published, alone):
    preset, default = (
        json.loads((run_dir / "run.json").read_text())["hyperparameters"]
        for run_dir in (as_published, alone)
    )
    changed = {name: value for name, value in preset.items() if value != default[name]}
    assert changed == {
        "as_published": True,
        "adam_beta2": 0.999,
        "decay_all": True,
        "schedule": "warmup_decay",
        "end_learning_rate": 0.0,
    }
    done = run(*command(tiny_model, "as-published", "--resume"), cwd=study, check=False)
    assert done.returncode == 2
    assert "as_published True, now False" in done.stderr


def test_a_record_without_the_new_fields_is_of_the_defaults(study, tiny_model, alone):
    old = shutil.copytree(alone, study / "runs/older")
    record = json.loads((old / "run.json").read_text())
    for name in ("as_published", "decay_all", "schedule"):
        del record["hyperparameters"][name]
    (old / "run.json").write_text(json.dumps(record))
    assert "is finished" in run(*command(tiny_model, "older", "--resume"), cwd=study).stderr


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 100])
def test_the_published_rates_fall_and_never_reach_their_end(steps):
    """DeepSpeed's own formula, asked after each step."""

    def gamma(asked):
        if asked < 2:
            return math.log(asked + 1) / math.log(2)
        return max(0.0, float(steps - asked) / float(max(1.0, steps - 2)))

    expected = [1.0, *(gamma(asked) for asked in range(steps - 1))]
    found = [published_rate(step, steps) for step in range(steps)]
    assert found == expected
    assert found[:4] == [1.0, 0.0, 1.0, 1.0][:steps]
    assert found[-1] > 0 or steps == 2


def test_the_preset_has_15_epochs_for_few_lines_too():
    for lines, epochs in ((40, [15, 20]), (640, [15, 15])):
        assert [default_epochs(STUDY, preset, lines) for preset in (True, False)] == epochs


@pytest.mark.parametrize("flags", [("--lora_rank", "4"), ("--end_learning_rate", "1e-4")])
def test_the_preset_leaves_no_room_for_what_it_sets(study, tiny_model, flags):
    done = run(*command(tiny_model, "never", "--as_published", *flags), cwd=study, check=False)
    assert done.returncode == 2
    assert f"--as_published goes without {flags[0]}" in done.stderr


# Precision


@pytest.mark.parametrize("value", ["bf16", "fp16", "BF16"])
def test_the_launchers_precision_is_not_taken(study, tiny_model, alone, monkeypatch, value):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", value)
    done = run(*command(tiny_model, f"launcher-{value}", "--epochs", "1"), cwd=study)
    assert f"ACCELERATE_MIXED_PRECISION={value}" in done.stderr
    run_dir = study / f"runs/launcher-{value}"
    assert json.loads((run_dir / "run.json").read_text())["hyperparameters"]["precision"] == "fp32"
    assert curve(run_dir)[:1] == curve(alone)[:1]  # bit for bit: later rates are of more epochs


def test_what_is_asked_for_is_computed_whatever_the_launcher_says(study, tiny_model, monkeypatch):
    flags = ("--epochs", "1", "--precision", "bf16")
    asked = finetune(study, tiny_model, "bf16", *flags)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    launched = finetune(study, tiny_model, "bf16-no", *flags)
    assert curve(launched) == curve(asked)


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_an_engine_that_only_the_launcher_names_is_refused(study, tiny_model, monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    done = run(*command(tiny_model, "never"), cwd=study, check=False)
    assert done.returncode == 2
    assert f"ACCELERATE_USE_{name}=true" in done.stderr
    assert not (study / "runs/never").exists()


# Resuming


@pytest.fixture(scope="module")
def interrupted(study, tiny_model):
    """A run that ended in its second epoch: its only checkpoint is the first epoch's."""
    whole = InstructionTrainer.training_step

    def until_the_sixth(self, *arguments, **named):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return whole(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InstructionTrainer, "training_step", until_the_sixth)
        done = run(*command(tiny_model, "interrupted"), cwd=study, check=False)
    assert done.returncode == 130
    return study / "runs/interrupted"


STATE = ("model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt")


def resume_of(study, tiny_model, interrupted, spoil, *flags, digests=False):
    """Resume a copy of the interrupted run after `spoil` has had its checkpoint.

    Without `digests` it is one of an earlier version, of which less is known.
    """
    shutil.rmtree(study / "runs/copy", ignore_errors=True)
    shutil.copytree(interrupted, study / "runs/copy")
    checkpoint = study / "runs/copy/checkpoint-4"
    if not digests:
        (checkpoint / "digests.json").unlink()
    spoil(checkpoint)
    return run(*command(tiny_model, "copy", "--resume", *flags), cwd=study, check=False)


@pytest.mark.parametrize("name", STATE)
def test_a_run_is_not_resumed_without_a_file_that_exactness_needs(
    study, tiny_model, interrupted, name
):
    def damage(checkpoint):
        data = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(data[:-20])

    for spoil, says in ((lambda c: (c / name).unlink(), "missing"), (damage, "damaged")):
        before = (interrupted / "metrics.jsonl").read_bytes()
        done = resume_of(study, tiny_model, interrupted, spoil)
        assert done.returncode == 2
        assert f"checkpoint-4: {name} is {says}" in done.stderr
        assert (study / "runs/copy/metrics.jsonl").read_bytes() == before


def test_one_wrong_bit_of_the_optimizer_is_seen(study, tiny_model, interrupted):
    def flip(checkpoint):
        data = bytearray((checkpoint / "optimizer.pt").read_bytes())
        data[len(data) // 2] ^= 1
        (checkpoint / "optimizer.pt").write_bytes(data)

    done = resume_of(study, tiny_model, interrupted, flip)
    assert done.returncode == 2
    assert "checkpoint-4: optimizer.pt is damaged" in done.stderr


def one_bit(path):
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def of_another_step(path):
    """Whole, of the same shapes, and not what was saved."""
    if path.suffix == ".safetensors":
        save_file({k: w * 1.01 for k, w in load_file(path).items()}, path, {"format": "pt"})
        return
    with safe_globals():
        content = torch.load(path, weights_only=True)
    torch.save(content | {"of": "another step"}, path)


@pytest.mark.parametrize("spoil", [one_bit, of_another_step])
@pytest.mark.parametrize("name", [*STATE, "config.json"])
def test_what_was_not_saved_is_not_resumed(study, tiny_model, interrupted, name, spoil):
    if spoil is of_another_step and name == "config.json":
        spoil = lambda path: path.write_text("{}")  # noqa: E731
    done = resume_of(study, tiny_model, interrupted, lambda c: spoil(c / name), digests=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"checkpoint-4: {name} is " in done.stderr
    assert "damaged" in done.stderr or "not what was saved (see digests.json)" in done.stderr


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "scheduler.pt"])
def test_no_flipped_byte_of_an_archive_is_an_error_of_ours(interrupted, tmp_path, name):
    """zipfile raises UnicodeDecodeError, EOFError, NotImplementedError ..., by the byte."""
    path = shutil.copytree(interrupted / "checkpoint-4", tmp_path / "checkpoint-4") / name
    (path.parent / "digests.json").unlink()
    whole = path.read_bytes()
    found = []
    for place in range(0, len(whole), max(len(whole) // 200, 1)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        found += resume_problems(path.parent, ResumeNeeds())
    assert len(found) > 50  # in the rest are names and times that nobody reads
    assert all(problem.startswith(name) for problem in found)


def test_damaged_digests_are_named(study, tiny_model, interrupted):
    def spoil(checkpoint):
        (checkpoint / "digests.json").write_text("[]")

    done = resume_of(study, tiny_model, interrupted, spoil, digests=True)
    assert done.returncode == 2
    assert "digests.json is damaged" in done.stderr


def test_a_finished_run_without_its_last_weights_is_not_finished(study, tiny_model, alone):
    for spoil in (os.unlink, one_bit):
        shutil.rmtree(study / "runs/finished", ignore_errors=True)
        copy = shutil.copytree(alone, study / "runs/finished")
        last = checkpoints(copy)[-1]
        spoil(last / "model.safetensors")
        done = run(*command(tiny_model, "finished", "--resume"), cwd=study, check=False)
        assert done.returncode == 2
        assert f"{last.name}: model.safetensors is" in done.stderr
        assert "is finished" not in done.stderr


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model"])
def test_predictions_are_of_what_was_saved(study, alone, name):
    copy = shutil.copytree(alone, study / f"runs/bit-{name}")
    checkpoint = checkpoints(copy)[-1]
    one_bit(checkpoint / name)
    done = run(
        *("evaluate/predict.py", "--model_name_or_path", checkpoint, "--split", "valid"),
        *("--eval_data_path", "valid_lines", "--max_new_tokens", "2"),
        cwd=study,
        check=False,
    )
    assert done.returncode == 2
    assert f"{name} is not what was saved" in done.stderr
    assert "remove digests.json" in done.stderr


def test_what_rounds_otherwise_after_a_resume_is_said_and_recorded(study, tiny_model, interrupted):
    for flags, name in (
        (("--batch_size", "1"), "batch_size"),
        (("--tokens_per_micro_batch", "64"), "tokens_per_micro_batch"),
        (("--attn_implementation", "per_sample"), "attn_implementation"),
    ):
        done = resume_of(study, tiny_model, interrupted, lambda _: None, *flags, digests=True)
        assert done.returncode == 0, done.stderr
        assert "computed otherwise than before step 4" in done.stderr
        record = json.loads((study / "runs/copy/run.json").read_text())
        before = json.loads((interrupted / "run.json").read_text())
        (change,) = record["resumed_otherwise"]
        old, new = before["hyperparameters"][name], record["hyperparameters"][name]
        assert (change["step"], change["changes"]) == (4, {name: [old, new]})


def test_what_a_run_was_begun_with_is_kept_when_it_is_resumed(study, tiny_model, interrupted):
    """Not given again, --batch_size is that of before, as the tokens of a micro-batch are."""
    copy = shutil.copytree(interrupted, study / "runs/begun-otherwise")
    record = json.loads((copy / "run.json").read_text())
    record["hyperparameters"] |= {"batch_size": 1, "tokens_per_micro_batch": 99}
    (copy / "run.json").write_text(json.dumps(record))
    done = run(*command(tiny_model, "begun-otherwise", "--resume"), cwd=study)
    assert "computed otherwise" not in done.stderr
    resumed = json.loads((copy / "run.json").read_text())
    assert resumed["hyperparameters"] == record["hyperparameters"]
    assert "resumed_otherwise" not in resumed


def test_lost_metrics_are_said(study, tiny_model, interrupted):
    def lose(checkpoint):
        path = checkpoint.parent / "metrics.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[2:]))

    done = resume_of(study, tiny_model, interrupted, lose)
    assert done.returncode == 0
    assert "metrics.jsonl lacks 2 of the 4 steps" in done.stderr
    done = resume_of(study, tiny_model, interrupted, lambda _: None, digests=True)
    assert "lacks" not in done.stderr


def rewritten(**fields):
    def spoil(checkpoint):
        path = checkpoint / "trainer_state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return spoil


def state_of(text):
    return lambda checkpoint: (checkpoint / "trainer_state.json").write_text(text)


def archived(name, change):
    def spoil(checkpoint):
        with safe_globals():
            content = torch.load(checkpoint / name, weights_only=True)
        torch.save(change(content), checkpoint / name)

    return spoil


def other_moments(content):
    for moments in content["state"].values():
        moments["exp_avg"] = torch.ones(3)
    return content


def of_other_weights(checkpoint):
    save_file({"x": torch.ones(1)}, checkpoint / "model.safetensors")


# What is done to the only checkpoint, and what is said of it.
WRONG = [
    (state_of("[]"), "trainer_state.json is missing or damaged"),
    (state_of("{}"), "trainer_state.json is missing or damaged"),
    (state_of(""), "trainer_state.json is missing or damaged"),
    (state_of("[" * 100_000), "trainer_state.json is missing or damaged"),
    (rewritten(global_step=10**9), "trainer_state.json is missing or damaged"),
    (rewritten(global_step="4"), "trainer_state.json is missing or damaged"),
    (rewritten(global_step=-1), "trainer_state.json is missing or damaged"),
    (rewritten(epoch=None), "trainer_state.json is missing or damaged"),
    (rewritten(log_history=3), "trainer_state.json is missing or damaged"),
    (rewritten(stateful_callbacks=[1]), "trainer_state.json is missing or damaged"),
    (rewritten(odd=1), "trainer_state.json has unknown fields, such as 'odd'"),
    (archived("optimizer.pt", lambda _: [1]), "optimizer.pt is none that"),
    (archived("optimizer.pt", lambda _: {}), "optimizer.pt is none that"),
    (archived("optimizer.pt", lambda c: c | {"param_groups": []}), "its optimizer or schedule"),
    (archived("optimizer.pt", lambda c: c | {"param_groups": [1]}), "its optimizer or schedule"),
    (archived("optimizer.pt", other_moments), "its optimizer or schedule"),
    (archived("scheduler.pt", lambda c: c | {"last_epoch": "x"}), "scheduler.pt is none that"),
    (archived("rng_state.pth", lambda _: 3), "rng_state.pth is none that"),
    (archived("rng_state.pth", lambda c: c | {"python": (1,)}), "its random numbers"),
    (archived("rng_state.pth", lambda c: c | {"cpu": torch.ones(2)}), "its random numbers"),
    (of_other_weights, "of the model"),
]


@pytest.mark.parametrize(("spoil", "says"), WRONG, ids=[says[:40] for _, says in WRONG])
def test_a_checkpoint_of_wrong_content_is_named(study, tiny_model, interrupted, spoil, says):
    done = resume_of(study, tiny_model, interrupted, spoil)
    assert "Traceback" not in done.stderr
    assert says in done.stderr
    if "trainer_state.json is missing" in says:  # as a kill leaves it: from the beginning
        assert "passed over: checkpoint-4" in done.stderr
        assert done.returncode == 0
    else:
        assert done.returncode == 2
        assert "checkpoint-4" in done.stderr


def test_a_damaged_trainer_state_is_named(adapted, tmp_path):
    copy = shutil.copytree(adapted, tmp_path / "copy")
    (copy / "checkpoint-8/trainer_state.json").write_text("{")
    with pytest.raises(
        InputError, match=r"checkpoint-8: trainer_state.json is missing or dam"
    ) as e:
        resumable_checkpoint(copy, ResumeNeeds(adapter=True))
    assert "checkpoint-4: optimizer.pt is missing" in str(e.value)


def test_the_random_numbers_of_every_process_are_needed(interrupted, adapted):
    checkpoint = interrupted / "checkpoint-4"
    assert resume_problems(checkpoint, ResumeNeeds()) == []
    (first, second, other) = resume_problems(checkpoint, ResumeNeeds(world_size=2))
    assert first == "rng_state_0.pth is missing"
    assert second == "rng_state_1.pth is missing"
    assert other.startswith("rng_state.pth is of another number of processes than the 2")


def test_each_engine_has_files_of_its_own(interrupted, adapted):
    checkpoint = interrupted / "checkpoint-4"
    assert resume_problems(checkpoint, ResumeNeeds(engine=FSDP)) == [
        "optimizer.bin is missing",
        "pytorch_model_fsdp.bin is missing",
    ]
    assert resume_problems(checkpoint, ResumeNeeds(engine=DEEPSPEED)) == ["global_step* is missing"]
    assert resume_problems(checkpoint, ResumeNeeds(loss_scale=True)) == ["scaler.pt is missing"]
    of_adapters = checkpoints(adapted)[-1]
    assert resume_problems(of_adapters, ResumeNeeds(adapter=True)) == []
    assert resume_problems(of_adapters, ResumeNeeds()) == ["model.safetensors is missing"]


def test_an_older_checkpoint_that_is_whole_serves(study, interrupted, tmp_path):
    copy = shutil.copytree(interrupted, tmp_path / "copy")
    newer = shutil.copytree(copy / "checkpoint-4", copy / "checkpoint-5")
    state = newer / "trainer_state.json"
    state.write_text(state.read_text().replace('"global_step": 4', '"global_step": 5'))
    (newer / "scheduler.pt").unlink()
    found, passed_over = resumable_checkpoint(copy, ResumeNeeds())
    assert found == copy / "checkpoint-4"
    assert passed_over == ["checkpoint-5: scheduler.pt is missing"]


def leftovers_of(checkpoint):
    """What a kill can leave in the folder of a run whose checkpoint this is."""
    (checkpoint / ".tmpAbC123").write_bytes(b"weights of safetensors, under way")
    older = shutil.copytree(checkpoint, checkpoint.with_name("checkpoint-2"))
    state = older / "trainer_state.json"
    state.write_text(state.read_text().replace('"global_step": 4', '"global_step": 2'))
    half = checkpoint.with_name("checkpoint-7")
    half.mkdir()
    (half / ".tmpDeF456").write_bytes(b"half")
    removed = shutil.copytree(half, checkpoint.with_name(".checkpoint-1"))
    return older / "optimizer.pt", half / ".tmpDeF456", checkpoint / ".tmpAbC123", removed


def test_what_a_kill_left_goes_when_the_run_is_resumed(study, tiny_model, interrupted):
    left = []
    done = resume_of(study, tiny_model, interrupted, lambda c: left.extend(leftovers_of(c)))
    assert done.returncode == 0, done.stderr
    assert len(left) == 4
    assert [path for path in left if path.exists()] == []
    assert (study / "runs/copy/checkpoint-2/model.safetensors").exists()


def test_what_a_kill_left_at_the_very_end_goes_too(study, tiny_model, alone):
    copy = shutil.copytree(alone, study / "runs/ended")
    last = checkpoints(copy)[-1]
    (last / ".tmpAbC123").write_bytes(b"half")
    (checkpoints(copy)[0] / "optimizer.pt").write_bytes(b"state")
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | {"ended": None}))
    assert "is finished" in run(*command(tiny_model, "ended", "--resume"), cwd=study).stderr
    assert not (last / ".tmpAbC123").exists()
    assert not (checkpoints(copy)[0] / "optimizer.pt").exists()
    assert json.loads((copy / "run.json").read_text())["ended"] is not None


@pytest.mark.parametrize("name", ["checkpoint-4", "metrics.jsonl"])
def test_a_folder_with_checkpoints_of_no_known_run_is_refused(study, tiny_model, interrupted, name):
    stale = study / "runs/stale"
    shutil.rmtree(stale, ignore_errors=True)
    shutil.copytree(interrupted, stale)
    for path in stale.iterdir():
        if path.name != name:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for flags in ((), ("--resume",)):
        done = run(*command(tiny_model, "stale", *flags), cwd=study, check=False)
        assert done.returncode == 2
        assert f"--output_dir runs/stale: holds {name} without the run.json" in done.stderr
    assert [path.name for path in stale.iterdir()] == [name]


def test_a_full_disk_is_named_with_the_checkpoint(study, tiny_model, interrupted, monkeypatch):
    def save(*_):
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    monkeypatch.setattr(InstructionTrainer, "_save", save)
    done = resume_of(study, tiny_model, interrupted, lambda checkpoint: None)
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: runs/copy/checkpoint-8: No space left on device (the disk is f")
    assert "--resume" in said


def test_no_older_state_goes_before_the_new_one_is_on_the_disk(
    study, tiny_model, interrupted, monkeypatch
):
    done = []
    for name in ("sync", "drop_resume_state", "remove_checkpoint"):
        real = getattr(trainer, name)

        def noted(path, name=name, real=real):
            done.append((name, path.name))
            real(path)

        monkeypatch.setattr(trainer, name, noted)
    resume = (*command(tiny_model, "copy", "--resume"), "--save_total_limit")
    for limit, dropped in (("2", "drop_resume_state"), ("1", "remove_checkpoint")):
        done.clear()
        shutil.rmtree(study / "runs/copy", ignore_errors=True)
        shutil.copytree(interrupted, study / "runs/copy")
        run(*resume, limit, cwd=study)
        # all but trainer_state.json, which makes it a checkpoint; then that too
        synced = ("sync", "checkpoint-8")
        assert done == [synced, ("sync", "digests.json"), synced, (dropped, "checkpoint-4")]
    left = sorted(path.name for path in (study / "runs/copy").iterdir())
    assert left == ["checkpoint-8", "metrics.jsonl", "run.json"]


def test_a_damaged_candidate_is_not_left_out_in_silence(alone, tmp_path):
    copy = shutil.copytree(alone, tmp_path / "copy")
    first, last = checkpoints(copy)
    assert candidates(copy, 2, ended=True) == [first, last]
    state = (last / "trainer_state.json").read_bytes()
    (last / "trainer_state.json").write_bytes(state[:-3])
    assert candidates(copy, 2, ended=False) == [first]  # it may be under way
    with pytest.raises(InputError, match=f"{last.name}: trainer_state.json is missing or damaged"):
        candidates(copy, 2, ended=True)
    (last / "trainer_state.json").write_bytes(state)
    (first / "trainer_state.json").unlink()
    for ended in (True, False):
        with pytest.raises(InputError, match=f"{first.name}: trainer_state.json is missing"):
            candidates(copy, 2, ended)


def test_a_copy_of_a_checkpoint_is_no_candidate(alone, tmp_path, caplog):
    copy = shutil.copytree(alone, tmp_path / "copy")
    before = candidates(copy, 2, True)
    for name in (
        f"{before[-1].name} (1)",
        f"{before[0].name}-old",
        "checkpoint-copy",
        "checkpoint-08",
    ):
        shutil.copytree(before[-1], copy / name)
    assert candidates(copy, 2, True, 8) == before
    assert resumable_checkpoint(copy, ResumeNeeds())[0] == before[-1]
    assert f"{before[-1].name} (1)" in caplog.text
    assert "no candidate" in caplog.text


def test_a_checkpoint_beyond_the_runs_last_step_is_refused(alone, tmp_path):
    copy = shutil.copytree(alone, tmp_path / "copy")
    shutil.copytree(checkpoints(copy)[-1], copy / "checkpoint-99")
    state = json.loads((copy / "checkpoint-99/trainer_state.json").read_text())
    (copy / "checkpoint-99/trainer_state.json").write_text(json.dumps(state | {"global_step": 99}))
    with pytest.raises(InputError, match="checkpoint-99: of step 99, and the run has 8"):
        resolve_models(str(copy), None, None)


def test_a_model_is_the_same_wherever_it_lies(study, tiny_model, interrupted, alone):
    moved = shutil.copytree(tiny_model, study / "moved")
    names = (f"{tiny_model}/", os.path.relpath(tiny_model, study), "./moved", f"{moved}")
    for place, name in enumerate(names):
        shutil.copytree(interrupted, study / f"runs/as-{place}")
        resumed = finetune(study, name, f"as-{place}", "--resume")
        for weight, expected in final_weights(alone).items():
            assert torch.equal(final_weights(resumed)[weight], expected)
    # A record of before has no fingerprint; its name leads to the model.
    old = shutil.copytree(interrupted, study / "runs/old")
    record = json.loads((old / "run.json").read_text())
    del record["model_fingerprint"], record["train"]["tokens_sha256"]
    (old / "run.json").write_text(json.dumps(record))
    finetune(study, "moved", "old", "--resume")


def test_another_model_behind_the_same_name_is_refused(study, tiny_model, interrupted):
    model = shutil.copytree(tiny_model, study / "changed")
    shutil.copytree(interrupted, study / "runs/of-changed")
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    done = run(*command(model, "of-changed", "--resume"), cwd=study, check=False)
    assert done.returncode == 2
    assert "the model's weights or config" in done.stderr


def test_another_tokenizer_is_refused(study, tiny_model, interrupted):
    model = shutil.copytree(tiny_model, study / "retokenised")
    shutil.copytree(interrupted, study / "runs/of-retokenised")
    from growth.sample.pocket import make_pocket

    make_pocket(study / "other-words", ["甲乙甲乙丙丙丙A" * 9, *TEXTS] * 20, seed=0, vocabulary=380)
    shutil.copy(study / "other-words/tokenizer.model", model)
    done = run(*command(model, "of-retokenised", "--resume"), cwd=study, check=False)
    assert done.returncode == 2
    assert "the tokens of --train_dir" in done.stderr
    # the same tokens, so far: what the checkpoints hold to predict with is another
    shutil.copy(tiny_model / "tokenizer.model", model)
    with open(model / "tokenizer_config.json", "a", encoding="utf-8") as file:
        file.write("\n")
    done = run(*command(model, "of-retokenised", "--resume"), cwd=study, check=False)
    assert done.returncode == 2
    assert "(the files of its tokenizer)" in done.stderr


# Memory

SHAPE = LlamaConfig(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=4,
    num_attention_heads=4,
)
CPU = Compute(torch.device("cpu"), "fp32", "")


def test_activations_are_counted_as_a_real_pass_keeps_them():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(SHAPE)
    estimate = memory.activation_bytes(model, CPU)
    assert supports_packing(model)  # the count left the model as it was
    model.set_attn_implementation(memory.VARLEN)
    kept = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor
        return tensor

    ids = torch.zeros(1, 256, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=ids, sample_lengths=[64] * 4, use_cache=False, logits_to_keep=1)
    measured = sum(t.untyped_storage().nbytes() for t in kept.values()) / 256
    assert estimate == pytest.approx(measured, rel=0.2)


def test_less_memory_means_checkpointing_then_smaller_micro_batches(monkeypatch):
    model = AutoModelForCausalLM.from_config(SHAPE)

    def plan(megabytes, **options):
        monkeypatch.setattr(memory, "free_bytes", lambda device: megabytes * 10**6)
        return memory.plan_memory(model, CPU, longest=200, **options)

    plenty, some, little = plan(2000), plan(10), plan(5)
    assert (plenty.tokens_per_micro_batch, plenty.gradient_checkpointing) == (1024, False)
    assert some.gradient_checkpointing
    assert little.gradient_checkpointing
    assert little.tokens_per_micro_batch < some.tokens_per_micro_batch < 1024
    assert "may not fit" in little.reason
    assert "may not fit" not in plenty.reason
    assert plan(10, gradient_checkpointing="off").gradient_checkpointing is False
    assert plan(5, tokens_per_micro_batch=512).tokens_per_micro_batch == 512


def test_frozen_weights_need_no_moments():
    model = AutoModelForCausalLM.from_config(SHAPE)
    full = memory.static_bytes(model, CPU)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert memory.static_bytes(model, CPU) == 0
    assert full == 12 * model.num_parameters()


def test_a_plan_is_described_in_one_line():
    plan = memory.MemoryPlan(512, True, "why", peak_bytes=0)
    assert plan.describe() == "512 tokens per micro-batch, gradient checkpointing on: why"
