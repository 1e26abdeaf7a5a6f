"""Instruction tuning on the Trainer: optimizer steps of a fixed set of samples.

Source: paper section 4.1 and the published training script (README, "Training").
"""

import contextlib
import dataclasses
import math
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState
from peft import PeftModel
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from growth.adapters import Lora
from growth.attention import VARLEN
from growth.batches import Example, computed_tokens, micro_batches, supervised_tokens
from growth.chat import IGNORED_LABEL, ChatTokenizer
from growth.command_line import InputError
from growth.devices import DTYPES, Compute
from growth.files import json_line, write_text
from growth.forward import can_flatten, supervised_logits
from growth.layout import METRICS, checkpoints, now
from growth.models import save_tokenizer

# What a checkpoint holds for going on only; FSDP writes the latter three, the weights once more.
RESUME_STATE = ("optimizer.pt", "optimizer.bin", "pytorch_model_fsdp.bin")
_DEEPSPEED_STATE = ("global_step*",)

# What a process computes, without effect, while others still have a micro-batch: engines that
# gather weights or gradients need every process in every pass.
_NOTHING: Example = {"input_ids": torch.tensor([0, 0]), "labels": torch.tensor([IGNORED_LABEL, 0])}


@dataclass(frozen=True)
class Hyperparameters:
    """The study's hyper-parameters (paper section 4.1); `train/finetune.py --help` explains them.

    `total_batch_size` counts samples an optimizer step over all processes: the study's variable of
    control. How many of them are computed at once is bounded by `tokens_per_micro_batch` and
    `batch_size` (samples; None for no bound), and changes no result.
    """

    epochs: int
    total_batch_size: int = 64
    batch_size: int | None = None
    tokens_per_micro_batch: int = 1024
    learning_rate: float = 1e-5
    end_learning_rate: float = 1e-6
    weight_decay: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    max_length: int = 2048
    seed: int = 0
    precision: str = "auto"
    gradient_checkpointing: bool = False
    attn_implementation: str = VARLEN
    lora: Lora | None = None


class StepSampler(Sampler[list[int]]):
    """A rank's share of the samples of each optimizer step.

    Which samples a step holds depends on seed and epoch alone, so that they are the same for any
    number of processes and after an interruption. The last step of an epoch holds what is left.
    Within a step the samples are dealt by length, so that the processes have about equal work.
    """

    def __init__(
        self, lengths: Sequence[int], step_size: int, seed: int, rank: int, world_size: int
    ) -> None:
        self.lengths, self.step_size, self.seed = lengths, step_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.step_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed}/epoch {self.epoch}").shuffle(order)
        for start in range(0, len(order), self.step_size):
            step = order[start : start + self.step_size]
            step.sort(key=lambda sample: self.lengths[sample], reverse=True)
            yield step[self.rank :: self.world_size]


class StepLoader(DataLoader):
    """Batches that are whole optimizer steps; the Trainer tells it the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the samples (called by the Trainer as an epoch begins)."""
        self.batch_sampler.epoch = epoch


def linear_decay(step: int, steps: int, end_factor: float) -> float:
    """The factor on the learning rate: 1 at the first optimizer step, `end_factor` at the last."""
    return 1 - (1 - end_factor) * min(1.0, step / max(1, steps - 1))


def summed_loss(
    model: torch.nn.Module, examples: Sequence[Example], flat: bool, pad_id: int = 0
) -> torch.Tensor:
    """The sum of the cross-entropies of the supervised tokens of `examples`, in nats."""
    logits, targets, _ = supervised_logits(model, examples, flat, pad_id)
    return cross_entropy(logits.float(), targets, reduction="sum")


@dataclass(frozen=True)
class StepMeasures:
    """Sums over the processes of a step: tokens that are `supervised`, `tokens` in all, tokens
    `computed` (padding included), and the `seconds` that it took.
    """

    supervised: int = 0
    tokens: int = 0
    computed: int = 1
    seconds: float = 1.0


def training_arguments(
    hyperparameters: Hyperparameters, compute: Compute, run_dir: Path, **options: Any
) -> TrainingArguments:
    """The Trainer's arguments of a run; `options` are passed on."""
    h = hyperparameters
    return TrainingArguments(
        output_dir=str(run_dir),
        num_train_epochs=h.epochs,
        # For the Trainer's own record; the loader gives whole steps.
        per_device_train_batch_size=h.total_batch_size,
        learning_rate=h.learning_rate,
        weight_decay=h.weight_decay,
        adam_beta1=h.adam_beta1,
        adam_beta2=h.adam_beta2,
        adam_epsilon=h.adam_epsilon,
        max_grad_norm=h.max_grad_norm,
        optim="adamw_torch_fused",
        seed=h.seed,
        bf16=compute.precision == "bf16",
        fp16=compute.precision == "fp16",
        use_cpu=compute.device.type == "cpu",
        activation_checkpointing=h.gradient_checkpointing,
        ddp_find_unused_parameters=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,  # our own bar says more
        remove_unused_columns=False,
        **options,
    )


class InstructionTrainer(Trainer):
    """The Trainer, fed a whole optimizer step at a time.

    The loss of a step is the mean over its supervised tokens, over all micro-batches and processes.

    Args:
        model: on the CPU; a PEFT model for LoRA.
        chat: its tokenizer, saved along.
        train: examples to learn from; `valid`: to measure the loss on.
        hyperparameters: with nothing left open.
        compute: what to train on.
        run_dir: gets metrics.jsonl and the checkpoints.
        options: more of `TrainingArguments`, such as `fsdp_config`.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        chat: ChatTokenizer,
        train: Sequence[Example],
        valid: Sequence[Example],
        hyperparameters: Hyperparameters,
        compute: Compute,
        run_dir: Path,
        **options: Any,
    ) -> None:
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        self.flat = can_flatten(base)
        if self.flat:
            base.set_attn_implementation(hyperparameters.attn_implementation)
        arguments = training_arguments(hyperparameters, compute, run_dir, **options)
        super().__init__(model=model, args=arguments, train_dataset=train, eval_dataset=valid)
        self.remove_callback(PrinterCallback)
        self.add_callback(ProgressBar())
        self.chat, self.hyperparameters, self.run_dir = chat, hyperparameters, run_dir
        self._step = StepMeasures()

    def create_accelerator_and_postprocess(self) -> None:
        """The engine; accelerate shards on accelerators only, without a word, torch on CPUs too."""
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        if self.args.fsdp and state.distributed_type == DistributedType.MULTI_CPU:
            # Both: the one is filled from the other again and again.
            PartialState().distributed_type = state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    def get_train_dataloader(self) -> StepLoader:
        """Batches that are this rank's share of whole optimizer steps."""
        h, processes = self.hyperparameters, self.args.world_size
        lengths = [len(example["input_ids"]) for example in self.train_dataset]
        sampler = StepSampler(
            lengths, h.total_batch_size, h.seed, self.args.process_index, processes
        )
        return StepLoader(
            self.train_dataset, batch_sampler=sampler, collate_fn=lambda step: {"examples": step}
        )

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Linear from `learning_rate` at the first step to `end_learning_rate` at the last."""
        end_factor = self.hyperparameters.end_learning_rate / self.hyperparameters.learning_rate
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer,
            lambda step: linear_decay(step, num_training_steps, end_factor),
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, list[Example]],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Gradients of one optimizer step; returns its loss, nats a supervised token."""
        model.train()
        began = time.perf_counter()
        groups, rounds, totals = self._shared_out(inputs["examples"])
        # Data-parallel engines average gradients over processes; the loss is a mean over tokens.
        scale = self.args.world_size / max(1, totals.supervised)
        step_loss = torch.zeros((), device=self.args.device)
        with self._weights_cast_once():
            for turn in range(rounds):
                last = turn == rounds - 1
                # DeepSpeed's engine takes its optimizer step with the last backward pass.
                self.accelerator.gradient_state._set_sync_gradients(last)
                with self._gradients_stay_here(model) if not last else contextlib.nullcontext():
                    loss = self._loss(model, groups, turn) * scale
                    self.accelerator.backward(loss)
                step_loss += loss.detach()
        # A process has only its own part of the loss; the Trainer averages over processes.
        if not torch.isfinite(step_loss):
            raise FloatingPointError(
                f"the loss is {step_loss.item()} at optimizer step {self.state.global_step + 1}: "
                "lower --learning_rate, or take --precision fp32"
            )
        self._step = dataclasses.replace(totals, seconds=time.perf_counter() - began)
        return step_loss

    def _weights_cast_once(self) -> contextlib.AbstractContextManager:
        """Around a step, so that autocast's copies of the weights serve all its micro-batches.

        Engines that shard the weights gather them for each: their copies would all be kept.
        """
        precision = self.hyperparameters.precision
        if precision == "fp32" or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return contextlib.nullcontext()
        return torch.autocast(self.args.device.type, DTYPES[precision])

    def _gradients_stay_here(self, model: torch.nn.Module) -> contextlib.AbstractContextManager:
        """Between micro-batches DDP need not exchange gradients; sharded engines free memory."""
        if isinstance(model, DistributedDataParallel):
            return model.no_sync()
        return contextlib.nullcontext()

    def _shared_out(
        self, examples: Sequence[Example]
    ) -> tuple[list[list[Example]], int, "StepMeasures"]:
        """This process's micro-batches, the most that any process has, and sums over them all."""
        h = self.hyperparameters
        groups = list(micro_batches(examples, h.tokens_per_micro_batch, h.batch_size))
        counts = [
            len(groups),
            supervised_tokens(examples),
            sum(len(example["input_ids"]) for example in examples),
            sum(computed_tokens(group, self.flat) for group in groups),
        ]
        by_process = self.accelerator.gather(torch.tensor([counts], device=self.args.device))
        sums = by_process.sum(0).tolist()
        return groups, int(by_process[:, 0].max()), StepMeasures(*sums[1:])

    def _loss(self, model: torch.nn.Module, groups: list[list[Example]], turn: int) -> torch.Tensor:
        """The summed loss of the micro-batch whose turn it is; 0 where this process has none."""
        with self.compute_loss_context_manager():
            if turn < len(groups):
                return summed_loss(model, groups[turn], self.flat, self.chat.pad_id)
            return 0 * summed_loss(model, [_NOTHING], self.flat, self.chat.pad_id)

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss (nats a supervised token, mean over all) and perplexity on the validation lines."""
        began = time.perf_counter()
        self.model.eval()
        share = self.eval_dataset[self.args.process_index :: self.args.world_size]
        groups, rounds, measures = self._shared_out(share)
        # DDP's wrapper would exchange buffers; engines that shard the weights need theirs.
        wrapped = self.model_wrapped
        model = wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped
        total = torch.zeros((), dtype=torch.float64, device=self.args.device)
        for turn in range(rounds):
            total += self._loss(model, groups, turn)
        total = self.accelerator.reduce(total, reduction="sum")
        count = measures.supervised
        loss = total.item() / count
        metrics = {
            "eval_loss": loss,
            "eval_perplexity": perplexity(loss),
            "eval_supervised_tokens": count,
            "eval_runtime": round(time.perf_counter() - began, 3),
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the study wants to know, and append the line to metrics.jsonl."""
        if "loss" in logs:
            step = self._step
            logs |= {
                "perplexity": perplexity(logs["loss"]),
                "supervised_tokens": step.supervised,
                "tokens": step.tokens,
                "tokens_per_second": round(step.tokens / step.seconds, 1),
                # The rest is padding: none where samples are flattened.
                "useful_tokens": round(step.tokens / step.computed, 4),
            }
        super().log(logs, start_time)
        if self.is_world_process_zero() and ("loss" in logs or "eval_loss" in logs):
            line = {"step": self.state.global_step, **logs, "time": now()}
            with open(self.run_dir / METRICS, "a", encoding="utf-8") as file:
                file.write(json_line(line))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Weights as safetensors, the tokenizer; no pickle of the arguments: run.json has them."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model)
        if state_dict is not None:
            # Gathered from shards, a shared weight is there under both its names.
            shared = getattr(model, "all_tied_weights_keys", {})
            state_dict = {name: w for name, w in state_dict.items() if name not in shared}
        model.save_pretrained(folder, state_dict=state_dict)
        save_tokenizer(self.chat.tokenizer, folder)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save all; then drop the optimizer's state, twice the weights, from older checkpoints."""
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            for older in checkpoints(self.run_dir)[:-1]:
                for name in RESUME_STATE:
                    (older / name).unlink(missing_ok=True)
                for name in _DEEPSPEED_STATE:
                    for folder in older.glob(name):
                        shutil.rmtree(folder)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """The Trainer's estimate needs padded batches; tokens/s in metrics.jsonl says it better."""
        return 0


def perplexity(loss: float) -> float:
    """The exponential of a mean cross-entropy in nats, bounded so that JSON can hold it."""
    return math.exp(min(loss, 700.0))


def check_resumable(checkpoint: Path) -> None:
    """Only the newest checkpoint of a run can be gone on from exactly.

    Raises:
        InputError: `checkpoint` holds no state of the optimizer.
    """
    known = [*RESUME_STATE[:2], *_DEEPSPEED_STATE]
    if not any(True for name in known for _ in checkpoint.glob(name)):
        raise InputError(
            f"--resume {checkpoint}: has no optimizer state, which only a run's newest checkpoint "
            "keeps, so the run can't go on exactly; train it anew in another --output_dir"
        )


def forget_metrics_after(run_dir: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl that a resumed run will write again."""
    path = run_dir / METRICS
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    # A line cut off by a kill is no JSON; it is the last, and past the checkpoint.
    kept = [line for line in lines if line.endswith("}\n") and _step_of(line) <= step]
    write_text(path, "".join(kept))


def _step_of(line: str) -> int:
    return int(line.removeprefix('{"step": ').partition(",")[0])


class ProgressBar(TrainerCallback):
    """One bar over the whole run: step, time left, loss, tokens/s; a line for each epoch."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar on the first process."""
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="train",
                unit="step",
                dynamic_ncols=True,
                # In a log file a bar is a line; few of them.
                mininterval=0.2 if sys.stderr.isatty() else 30,
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict, **_: Any) -> None:
        """Move the bar; print the validation result."""
        if self.bar is None:
            return
        if "loss" in logs:
            self.bar.set_postfix(
                loss=f"{logs['loss']:.4f}",
                tokens_per_s=f"{logs['tokens_per_second']:,.0f}",
                useful=f"{logs['useful_tokens']:.0%}",
                refresh=False,
            )
            self.bar.update(state.global_step - self.bar.n)
        elif "eval_loss" in logs:
            self.bar.write(
                f"epoch {state.epoch:g}: step {state.global_step}, validation loss "
                f"{logs['eval_loss']:.4f}, perplexity {logs['eval_perplexity']:.2f}",
                file=sys.stderr,
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
