"""Instruction tuning on the Trainer: optimizer steps of a fixed set of samples.

Source: paper section 4.1 and the published training script (README, "Training").
"""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState
from peft import PeftModel
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from growth.core.device import DTYPES, Compute
from growth.core.files import json_line
from growth.core.options import Hyperparameters
from growth.export.checkpoint_files import save_tokenizer
from growth.model.chat_tokenizer import ChatTokenizer
from growth.packing.batches import Example, computed_tokens, micro_batches, supervised_tokens
from growth.packing.forward import supports_packing
from growth.runs.checkpoints import _DEEPSPEED_STATE, RESUME_STATE, checkpoints
from growth.runs.layout import METRICS
from growth.runs.record import now
from growth.training.progress_bar import ProgressBar
from growth.training.sampler import StepLoader, StepSampler
from growth.training.step import DUMMY_EXAMPLE, StepMeasures, linear_decay, perplexity, summed_loss


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
        self.packed = supports_packing(base)
        if self.packed:
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
            sum(computed_tokens(group, self.packed) for group in groups),
        ]
        by_process = self.accelerator.gather(torch.tensor([counts], device=self.args.device))
        sums = by_process.sum(0).tolist()
        return groups, int(by_process[:, 0].max()), StepMeasures(*sums[1:])

    def _loss(self, model: torch.nn.Module, groups: list[list[Example]], turn: int) -> torch.Tensor:
        """The summed loss of the micro-batch whose turn it is; 0 where this process has none."""
        with self.compute_loss_context_manager():
            if turn < len(groups):
                return summed_loss(model, groups[turn], self.packed, self.chat.pad_id)
            return 0 * summed_loss(model, [DUMMY_EXAMPLE], self.packed, self.chat.pad_id)

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
                # The rest is padding: none where samples are packed.
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
