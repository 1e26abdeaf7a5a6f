"""The loops that benchmarks/training.py compares, each in a worker process of its own.

All run through the same `Trainer.train()`: its callbacks, gradient clip, fused AdamW and schedule.
They differ in how the samples of an optimizer step become tensors, and losses:

- ours: `InstructionTrainer`, a packed row per micro-batch, logits of supervised tokens only.
- per_sample: the same with `--attn_implementation per_sample`.
- published: rows padded on the right to the longest of a batch of 8, activations computed again in
  the backward pass, logits and loss of every token inside the model.
- trl: SFTTrainer with packing (best fit, decreasing), packs of `--max_length` tokens.
"""

import multiprocessing.connection
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from growth.core.device import DTYPES, choose_compute, peak_memory
from growth.core.options import LEARNING_RATE, PER_SAMPLE, Hyperparameters
from growth.data.records import read_training_files
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.loading import load_tokenizer
from growth.packing.batches import Example, pad_rows, supervised_tokens, tokenised_files
from growth.training.trainer import InstructionTrainer

PUBLISHED_BATCH = 8  # samples per GPU and step, as published; padded to the longest of these
GEMM_SECONDS = 0.15  # of measuring, for each shape


@dataclass(frozen=True)
class Options:
    """What a worker needs to know."""

    data_dir: Path
    tokenizer: str
    shape: dict[str, int]  # fields of LlamaConfig
    max_length: int
    samples: int
    seed: int
    threads: int
    precision: str
    tokens_per_micro_batch: int
    trl_checkpointing: bool


class Finished(Exception):
    """The parent wants no more steps."""


class CommandedSteps:
    """The optimizer steps of a worker: each comes over a pipe, and is answered when it is done.

    Yields what `batch_of` makes of the step's samples. The clock runs from there until the Trainer
    asks for the next: batching, forward, backward, clip, optimizer, log. `prepare` runs before it,
    for what a loop does once for a whole data set.
    """

    def __init__(
        self,
        connection: multiprocessing.connection.Connection,
        examples: Sequence[Example],
        options: Options,
        device: torch.device,
    ) -> None:
        self.connection, self.examples = connection, examples
        self.options, self.device = options, device
        self.prepare: Callable[[list[Example]], Any] = lambda step: step
        self.batch_of: Callable[[Any], dict[str, Any]] = lambda step: {"examples": step}
        self.loss = torch.zeros(())
        self.flop_of: Callable[[Sequence[Example]], float] = lambda step: 0.0

    def __len__(self) -> int:
        return len(self.examples) // self.options.samples + 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (places := self.connection.recv()) is not None:
            step = [self.examples[place] for place in places]
            prepared = self.prepare(step)
            peak = {
                precision: gemm_peak(precision, self.options.shape, self.device)
                for precision in dict.fromkeys(("fp32", self.options.precision))
            }
            began = self._clocks()
            yield self.batch_of(prepared)
            ended = self._clocks()
            self.connection.send(
                {
                    "cpu_s": ended[0] - began[0],
                    "wall_s": ended[1] - began[1],
                    "loss": self.loss.item(),
                    "tokens": sum(len(example["input_ids"]) for example in step),
                    "supervised_tokens": supervised_tokens(step),
                    "useful_flop": self.flop_of(step),
                    "gemm_flop_s": peak,
                    "peak_memory_gib": peak_memory(self.device) / 2**30,
                }
            )
        raise Finished

    def _clocks(self) -> tuple[float, float]:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.process_time(), time.perf_counter()


class Commanded(Trainer):
    """A Trainer whose batches are the optimizer steps of a `CommandedSteps`."""

    steps: CommandedSteps

    def get_train_dataloader(self) -> Any:
        """The steps, which know their samples."""
        return self.steps

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loop's own, with the loss kept."""
        self.steps.loss = super().training_step(*args, **kwargs)
        return self.steps.loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Counted by `useful_flop`."""
        return 0


class Accumulating(Commanded):
    """Walks the micro-batches of a step as the Trainer does with gradient accumulation.

    With `num_items_in_batch` the Trainer's losses are sums over supervised tokens divided by the
    step's count of them, so that they add up to the mean over the step.
    """

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Gradients of all micro-batches; the sum of their losses."""
        micro_batches = inputs["micro_batches"]
        batches, count = self.get_batch_samples(
            iter(micro_batches), len(micro_batches), self.args.device
        )
        parts = [super(Accumulating, self).training_step(model, b, count) for b in batches]
        self.steps.loss = torch.stack(parts).sum()
        return self.steps.loss


def work(loop: str, options: Options, connection: multiprocessing.connection.Connection) -> None:
    """Build the model and the loop called `loop`; then one optimizer step per command."""
    torch.set_num_threads(options.threads)
    transformers_logging.set_verbosity_error()
    chat = load_tokenizer(options.tokenizer)
    files = read_training_files(options.data_dir, "--data_dir")
    examples = tokenised_files(files, chat, options.max_length)
    compute = choose_compute(options.precision)
    torch.manual_seed(options.seed)
    model = new_model(options, chat)
    with tempfile.TemporaryDirectory() as folder:
        make = {
            "ours": our_loop,
            "per_sample": partial(our_loop, attn_implementation=PER_SAMPLE),
            "published": published_loop,
            "trl": trl_loop,
        }[loop]
        steps = CommandedSteps(connection, examples, options, compute.device)
        steps.flop_of = lambda step: useful_flop(model, step)
        trainer = make(model, chat, steps, folder)
        trainer.steps = steps
        trainer.remove_callback(PrinterCallback)
        connection.send({"parameters": model.num_parameters()})
        try:
            trainer.train()
        except Finished:
            return


def new_model(options: Options, chat: ChatTokenizer) -> PreTrainedModel:
    """A LLaMA with random weights in float32, the same for every loop."""
    fields: dict[str, Any] = {
        **options.shape,
        "vocab_size": chat.vocabulary_size,
        "max_position_embeddings": options.max_length,
        "tie_word_embeddings": False,
        "pad_token_id": chat.pad_id,
        "bos_token_id": None,
        "eos_token_id": chat.eot_id,
        "attn_implementation": "sdpa",
    }
    return LlamaForCausalLM(LlamaConfig(**fields)).float()


def our_loop(
    model: PreTrainedModel,
    chat: ChatTokenizer,
    steps: CommandedSteps,
    folder: str,
    attn_implementation: str = Hyperparameters.attn_implementation,
) -> Commanded:
    """This repository's."""
    options = steps.options

    class Ours(Commanded, InstructionTrainer):
        """Whole steps are what it takes anyway."""

    hyperparameters = Hyperparameters(
        epochs=1,
        total_batch_size=options.samples,
        tokens_per_micro_batch=options.tokens_per_micro_batch,
        learning_rate=LEARNING_RATE,
        end_learning_rate=LEARNING_RATE,
        max_length=options.max_length,
        seed=options.seed,
        precision=options.precision,
        attn_implementation=attn_implementation,
    )
    compute = choose_compute(options.precision)
    few = steps.examples[:1]
    return Ours(model, chat, few, few, hyperparameters, compute, Path(folder))


def common_arguments(steps: CommandedSteps, folder: str) -> dict[str, Any]:
    """What the other loops share with ours: the study's optimizer, a constant learning rate."""
    options = steps.options
    return {
        "output_dir": folder,
        "max_steps": len(steps),
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": Hyperparameters.weight_decay,
        "adam_beta1": Hyperparameters.adam_beta1,
        "adam_beta2": Hyperparameters.adam_beta2,
        "adam_epsilon": Hyperparameters.adam_epsilon,
        "max_grad_norm": Hyperparameters.max_grad_norm,
        "optim": "adamw_torch_fused",
        "seed": options.seed,
        "bf16": options.precision == "bf16",
        "fp16": options.precision == "fp16",
        "use_cpu": steps.device.type == "cpu",
        "logging_steps": 1,
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": "none",
    }


def published_loop(
    model: PreTrainedModel, chat: ChatTokenizer, steps: CommandedSteps, folder: str
) -> Commanded:
    """The published one, on the current Trainer; its 8 GPUs of 8 samples one after another."""

    def batch_of(step: list[Example]) -> dict[str, Any]:
        starts = range(0, len(step), PUBLISHED_BATCH)
        return {
            "micro_batches": [pad_rows(step[s : s + PUBLISHED_BATCH], chat.pad_id) for s in starts]
        }

    steps.batch_of = batch_of
    arguments = TrainingArguments(
        **common_arguments(steps, folder),
        per_device_train_batch_size=PUBLISHED_BATCH,
        activation_checkpointing=True,
        remove_unused_columns=False,
    )
    return Accumulating(model=model, args=arguments, train_dataset=steps.examples[:1])


def trl_loop(
    model: PreTrainedModel, chat: ChatTokenizer, steps: CommandedSteps, folder: str
) -> Commanded:
    """TRL's SFTTrainer with packing, a pack a micro-batch.

    Packs are made beforehand, as TRL does, but of each step's samples, to keep the step's work the
    same. They are as long as the longest sample may be, as shorter ones would cut it; more than one
    at a time would cost more, since attention builds a mask of the whole row squared.
    """
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer
    from trl.data_utils import pack_dataset

    disable_progress_bars()

    class Packed(Accumulating, SFTTrainer):
        """SFTTrainer, fed whole steps."""

    def as_dataset(step: Sequence[Example]) -> Dataset:
        return Dataset.from_list([{k: v.tolist() for k, v in example.items()} for example in step])

    arguments = SFTConfig(
        **common_arguments(steps, folder),
        per_device_train_batch_size=1,
        packing=True,
        max_length=steps.options.max_length,
        gradient_checkpointing=steps.options.trl_checkpointing,
    )
    trainer = Packed(
        model=model,
        args=arguments,
        train_dataset=as_dataset(steps.examples[:2]),
        processing_class=chat.tokenizer,
    )
    steps.prepare = lambda step: list(
        pack_dataset(as_dataset(step), arguments.max_length, arguments.packing_strategy)
    )
    steps.batch_of = lambda packs: {
        "micro_batches": [trainer.data_collator([pack]) for pack in packs]
    }
    return trainer


def useful_flop(model: PreTrainedModel, step: Sequence[Example]) -> float:
    """Floating-point operations that the samples of an optimizer step need, padding left out.

    Forward and backward, two operations per multiply-add: 6 per weight of the layers and token; of
    the output layer and the last feed-forward part, whose output nothing else reads, 6 per weight
    and supervised token; for each layer, causal scores and their use, 6 x width x n(n+1) for a
    sample of n tokens. Optimizer, norms and activations aren't counted.
    """
    config = model.config
    last = sum(p.numel() for p in model.model.layers[-1].mlp.parameters())
    layers = sum(p.numel() for p in model.model.layers.parameters() if p.dim() == 2) - last
    output = model.get_output_embeddings().weight.numel() + last
    lengths = [len(example["input_ids"]) for example in step]
    width = config.num_attention_heads * config.head_dim
    scores = config.num_hidden_layers * width * sum(n * (n + 1) for n in lengths)
    return 6.0 * (layers * sum(lengths) + output * supervised_tokens(step) + scores)


def gemm_peak(precision: str, shape: dict[str, int], device: torch.device) -> float:
    """The fastest matrix product of the model's layers, in floating-point operations per second.

    Seconds are CPU seconds on a CPU, elapsed ones on a GPU.
    """
    dtype = DTYPES[precision]
    cuda = device.type == "cuda"
    tokens = 8192 if cuda else 1024
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    shapes = [(tokens, width, width), (tokens, width, inner), (tokens, inner, width)]
    if cuda:
        shapes.append((8192, 8192, 8192))
    return max(_gemm_rate(*sizes, dtype, device) for sizes in shapes)


def _gemm_rate(
    rows: int, inner: int, columns: int, dtype: torch.dtype, device: torch.device
) -> float:
    x = torch.randn(rows, inner, device=device).to(dtype)
    weight = torch.randn(columns, inner, device=device).to(dtype)
    cuda = device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    for _ in range(2):
        linear(x, weight)
    if cuda:
        torch.cuda.synchronize()
    began, products = clock(), 0
    while clock() - began < GEMM_SECONDS:
        for _ in range(10):
            linear(x, weight)
        products += 10
        if cuda:
            torch.cuda.synchronize()
    return 2.0 * rows * inner * columns * products / (clock() - began)
