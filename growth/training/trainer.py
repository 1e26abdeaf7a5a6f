"""Instruction tuning on the Trainer: optimizer steps of a fixed set of samples.

Source: paper section 4.1 and the published training script (README, "Training").
"""

import contextlib
import dataclasses
import functools
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from transformers.trainer_callback import PrinterCallback

from growth.core.device import Compute
from growth.core.errors import InputError
from growth.core.files import json_line, sync, sync_names, write_errors
from growth.core.options import WARMUP_DECAY, Hyperparameters
from growth.export.checkpoint_files import TokenizerFiles
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.loading import check_weights_are_numbers
from growth.model.lora import AdaptedModel, without_adapters
from growth.packing.batches import Example, supervised_counts, token_lengths
from growth.packing.forward import supports_packing
from growth.packing.loss import bound_of_logits
from growth.runs.checkpoints import (
    CHECKPOINT,
    DIGESTS,
    checkpoints,
    drop_resume_state,
    remove_checkpoint,
    write_digests,
)
from growth.runs.layout import LOSS_BY_ABILITY, METRICS, now
from growth.training.engine import AccelerateEngine, enable_fsdp_on_cpu
from growth.training.progress_bar import ProgressBar
from growth.training.sampler import StepLoader, StepSampler
from growth.training.step import (
    StepLoss,
    StepMeasures,
    linear_decay,
    perplexity,
    published_rate,
)
from growth.training.trainer_import import Trainer, TrainingArguments

logger = logging.getLogger(__name__)
_LAUNCHER_PRECISION = "ACCELERATE_MIXED_PRECISION"


def training_arguments(
    hyperparameters: Hyperparameters, compute: Compute, run_dir: Path, **options: Any
) -> TrainingArguments:
    """The Trainer's arguments of a run; `options` are passed on."""
    h = hyperparameters
    _override_launcher(compute.precision)
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


def _override_launcher(precision: str) -> None:
    """Set the precision that accelerate takes from its launcher, or from its configuration file.

    It would be used where the arguments ask for fp32.
    """
    wanted = "no" if precision == "fp32" else precision
    launcher = os.environ.get(_LAUNCHER_PRECISION, wanted)
    if launcher.lower() != wanted:
        logger.warning(
            "%s=%s, as accelerate launch --mixed_precision sets it, is not taken: --precision "
            "decides, and that is %s",
            *(_LAUNCHER_PRECISION, launcher, precision),
        )
    os.environ[_LAUNCHER_PRECISION] = wanted


@contextlib.contextmanager
def _reading(checkpoint: str | None, what: str) -> Iterator[None]:
    """Around what the libraries do with a part of a checkpoint, which may be damaged in any way.

    Raises:
        InputError: they failed, but for lack of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"--resume {checkpoint}: its {what} can't be restored ({type(error).__name__}: "
            f"{reason}); put its files back, remove it to resume from the checkpoint before it if "
            "that one still has its optimizer.pt, or train anew in another --output_dir"
        ) from error


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Check that the optimizer's state is of these weights; torch finds out in the next step."""
    for parameter, moments in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            shape = getattr(moments.get(name), "shape", None)
            if shape != parameter.shape:
                raise ValueError(f"{name} of shape {shape} for weights of {parameter.shape}")


class InstructionTrainer(Trainer):
    """The Trainer, given a whole optimizer step at a time (the loss: `growth.training.step`).

    Args:
        model: on the CPU; a PEFT model for LoRA.
        chat: its tokenizer, saved in every checkpoint.
        train: examples to learn from; `valid`: to measure the loss on.
        hyperparameters: with nothing left open.
        compute: what to train on.
        run_dir: gets metrics.jsonl and the checkpoints.
        valid_abilities: of each example of `valid`, for its loss by ability; None for those
            without one. Empty: none is recorded.
        save_total_limit: keep the newest so many checkpoints; None for all.
        options: more of `TrainingArguments`, such as `fsdp_config`.
    """

    def __init__(
        self,
        model: AdaptedModel,
        chat: ChatTokenizer,
        train: Sequence[Example],
        valid: Sequence[Example],
        hyperparameters: Hyperparameters,
        compute: Compute,
        run_dir: Path,
        valid_abilities: Sequence[str | None] = (),
        save_total_limit: int | None = None,
        **options: Any,
    ) -> None:
        base = without_adapters(model)
        packed = supports_packing(base)
        if packed:
            base.set_attn_implementation(hyperparameters.attn_implementation)
        arguments = training_arguments(hyperparameters, compute, run_dir, **options)
        super().__init__(
            model=model,
            args=arguments,
            # sequences serve as datasets with random access
            train_dataset=cast(Dataset, train),
            eval_dataset=cast(Dataset, valid),
        )
        wanted = "no" if compute.precision == "fp32" else compute.precision
        if self.accelerator.mixed_precision != wanted:
            raise InputError(
                f"--precision {compute.precision}: accelerate would compute with mixed precision "
                f"{self.accelerator.mixed_precision!r}; remove that from the file of --fsdp_config "
                "or --deepspeed, or ask for it with --precision"
            )
        self.remove_callback(PrinterCallback)
        self.progress_bar = ProgressBar()
        self.add_callback(self.progress_bar)
        self.train_examples, self.valid_examples = train, valid
        self.valid_abilities = valid_abilities
        self._loss_by_ability: dict[str, float] = {}
        self.save_total_limit = save_total_limit
        self.chat, self.hyperparameters, self.run_dir = chat, hyperparameters, run_dir
        self.step_loss = StepLoss(
            packed,
            hyperparameters.tokens_per_micro_batch,
            hyperparameters.batch_size,
            chat.pad_id,
            bound_of_logits(model, packed, hyperparameters.tokens_per_micro_batch, compute.device),
            AccelerateEngine(
                self.accelerator, hyperparameters.precision, self.compute_loss_context_manager
            ),
        )
        self._measures = StepMeasures()

    def create_accelerator_and_postprocess(self) -> None:
        """Create the Trainer's accelerator; shards on CPUs too."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and enable_fsdp_on_cpu(self.accelerator, self.args.fsdp_plugin_args):
            self.is_fsdp_enabled = True

    def get_train_dataloader(self) -> StepLoader:
        """Batches that are this rank's share of whole optimizer steps."""
        h, processes = self.hyperparameters, self.args.world_size
        lengths = token_lengths(self.train_examples)
        sampler = StepSampler(
            lengths, h.total_batch_size, h.seed, self.args.process_index, processes
        )
        return StepLoader(
            cast(Dataset, self.train_examples),
            batch_sampler=sampler,
            collate_fn=lambda step: {"examples": step},
        )

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """The parameters with weight decay: all but norms and biases, unless `decay_all`."""
        if self.hyperparameters.decay_all:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Linear from `learning_rate` at the first step to `end_learning_rate` at the last.

        With the schedule WARMUP_DECAY as `published_rate` says.
        """
        h = self.hyperparameters
        end_factor = h.end_learning_rate / h.learning_rate
        published = h.schedule == WARMUP_DECAY
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or cast(torch.optim.Optimizer, self.optimizer),
            lambda step: (
                published_rate(step, num_training_steps)
                if published
                else linear_decay(step, num_training_steps, end_factor)
            ),
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Gradients of one optimizer step; returns its loss, in nats per supervised token."""
        model.train()
        began = time.perf_counter()
        # A process has only its own part of the loss; the Trainer averages over processes.
        loss, measures = self.step_loss.backward(model, inputs["examples"])
        if not torch.isfinite(loss):
            if self.state.global_step == 0:  # of the model as it was given
                check_weights_are_numbers(self.accelerator.unwrap_model(model), "the model")
            raise self._diverged("loss", loss.item(), self.state.global_step + 1)
        self._measures = dataclasses.replace(measures, seconds=time.perf_counter() - began)
        return loss

    def _diverged(self, name: str, value: float, step: int) -> InputError:
        return InputError(
            f"{self.run_dir}: {name} is {value} at optimizer step {step}; lower --learning_rate "
            f"({self.hyperparameters.learning_rate:g}), or take --precision fp32. Checkpoints that "
            "were finished are kept; train with other values in another --output_dir"
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss (nats per supervised token, mean over all) and perplexity on validation lines."""
        began = time.perf_counter()
        # DDP's wrapper would exchange buffers; engines that shard the weights need theirs.
        wrapped = self.model_wrapped
        model = wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped
        assert self.model is not None  # it was given
        self.model.eval()
        shard = slice(self.args.process_index, None, self.args.world_size)
        total, losses, measures = self.step_loss.total(model, self.valid_examples[shard])
        total = self.accelerator.reduce(total, reduction="sum")
        self._loss_by_ability = self._by_ability(losses, self.valid_abilities[shard])
        loss = total.item() / measures.supervised
        metrics = {
            "eval_loss": loss,
            "eval_perplexity": perplexity(loss),
            "eval_supervised_tokens": measures.supervised,
            "eval_runtime": round(time.perf_counter() - began, 3),
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _by_ability(
        self, losses: torch.Tensor, abilities: Sequence[str | None]
    ) -> dict[str, float]:
        """The loss of each ability, in nats per supervised token, over all processes.

        Args:
            losses: (examples,), of this process's share of the validation lines.
            abilities: of these lines.
        """
        supervised: Counter[str] = Counter()
        counts = supervised_counts(self.valid_examples)
        for ability, count in zip(self.valid_abilities, counts, strict=bool(self.valid_abilities)):
            if ability is not None:
                supervised[ability] += count
        names = sorted(name for name, count in supervised.items() if count)
        if not names:
            return {}
        masks = [[own == name for own in abilities] for name in names]
        sums = torch.stack([losses[torch.tensor(mask, dtype=torch.bool)].sum() for mask in masks])
        sums = self.accelerator.reduce(sums, reduction="sum")
        return {
            name: total / supervised[name] for name, total in zip(names, sums.tolist(), strict=True)
        }

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the study's measures, and append the line to metrics.jsonl.

        Raises:
            InputError: a measure is not finite, which no later step can mend.
        """
        if self.accelerator.scaler is not None and not math.isfinite(logs.get("grad_norm", 0)):
            del logs["grad_norm"]  # the loss scale of fp16 was too large: it skips the step
        for name, value in logs.items():
            if not math.isfinite(value):
                raise self._diverged(name, value, self.state.global_step)
        if "loss" in logs:
            step = self._measures
            logs |= {
                "perplexity": perplexity(logs["loss"]),
                "supervised_tokens": step.supervised,
                "tokens": step.tokens,
                "answers_cut": step.answers_cut,
                "answers_lost": step.answers_lost,
                "tokens_per_second": round(step.tokens / step.seconds, 1),
                # The rest is padding: none where samples are packed.
                "useful_tokens": round(step.tokens / step.computed, 4),
            }
        super().log(logs, start_time)
        if self.is_world_process_zero() and ("loss" in logs or "eval_loss" in logs):
            line: dict[str, Any] = {"step": self.state.global_step, **logs}
            if "eval_loss" in logs and self._loss_by_ability:
                line[LOSS_BY_ABILITY] = self._loss_by_ability
            line["time"] = now()
            path = self.run_dir / METRICS
            with write_errors(path), open(path, "a", encoding="utf-8") as file:
                file.write(json_line(line))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Weights as safetensors and the tokenizer; no pickled arguments: run.json has them."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.run_dir)
        model = self.accelerator.unwrap_model(self.model)
        if state_dict is not None:
            # Gathered from shards, a shared weight is there under both its names.
            shared = getattr(model, "all_tied_weights_keys", {})
            state_dict = {name: w for name, w in state_dict.items() if name not in shared}
        model.save_pretrained(folder, state_dict=state_dict)
        self._tokenizer_files.write(folder)

    @functools.cached_property
    def _tokenizer_files(self) -> TokenizerFiles:
        """The same for all checkpoints: converted, and tested on random texts, once per run."""
        return TokenizerFiles(self.chat.tokenizer)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save all; then drop the optimizer's state, twice the weights, from older checkpoints.

        Raises:
            OSError: the disk is full, or failed; it names the checkpoint.
        """
        checkpoint = self.run_dir / f"{CHECKPOINT}{self.state.global_step}"
        with write_errors(checkpoint):
            super()._save_checkpoint(model, trial)
            if not self.args.should_save:
                return
            # Nothing older goes before the new state is on the disk.
            sync(checkpoint)
            sync_names(self.run_dir)
        older = checkpoints(self.run_dir)[:-1]
        keep = self.save_total_limit
        for number, path in enumerate(reversed(older), start=2):
            if keep is not None and number > keep:
                remove_checkpoint(path)
            else:
                drop_resume_state(path)

    def _save_rng_state(self, output_dir: str) -> None:
        """As it is; then all but trainer_state.json, which makes a checkpoint, to the disk.

        Each process syncs, since on a network file system it has written on a machine of its own;
        the first adds a file only when the others have looked through the folder.
        """
        super()._save_rng_state(output_dir)
        folder = Path(output_dir)
        self.accelerator.wait_for_everyone()  # their random numbers are part of it
        sync(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_digests(folder)
            sync(folder / DIGESTS)
            sync_names(folder)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        with _reading(resume_from_checkpoint, "weights"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """The Trainer warns of weights that a checkpoint lacks; trained on, it would be another."""
        super()._issue_warnings_after_load(load_result)
        model = self.accelerator.unwrap_model(self.model)
        tied = {*(getattr(model, "_keys_to_ignore_on_save", None) or ())}
        tied |= {*getattr(model, "all_tied_weights_keys", {})}
        if missing := sorted({*load_result.missing_keys} - tied):
            raise ValueError(f"it lacks weights of the model, such as {missing[0]}")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _reading(checkpoint, "optimizer or schedule"):
            super()._load_optimizer_and_scheduler(checkpoint)
            if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):  # shards of their own
                _check_moments(cast(torch.optim.Optimizer, self.optimizer))

    def _load_scaler(self, checkpoint: str | None) -> None:
        with _reading(checkpoint, "loss scale"):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _reading(checkpoint, "random numbers"):
            super()._load_rng_state(checkpoint)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """The Trainer's estimate needs padded batches; tokens/s in metrics.jsonl says it better."""
        return 0
