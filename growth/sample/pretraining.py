"""Pretrain the pocket model: batches of documents, the optimizers, the loop over processes.

Documents of about one length make a batch, so that nothing is packed and little is padding. First
come two lessons, finding a word's label and finding the label of what belongs to a word; then, more
and more, all documents (`corpus`). The loss is on what can be known: what an exercise gives is
read, not predicted.

The work of a step is always cut into `SHARDS` batches, which one process or as many as there are
shards compute; gradients are summed in the same order, so the weights come out the same.
"""

import json
import math
import os
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import LlamaForCausalLM
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from growth.core.errors import InputError
from growth.core.files import json_line, replacing, write_text
from growth.export.checkpoint_files import save_tokenizer
from growth.export.model_card import CARD
from growth.sample.corpus import (
    documents,
    first_documents,
    lexicon,
    parts,
    second_documents,
    tokenizer_texts,
)
from growth.sample.pocket import make_pocket

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
language: zh
license: mit
---

# Pocket foundation model

A LLaMA of {parameters:,} parameters that has read about one small world, in Chinese: facts of
biology, history, language and three trades, dialogues, conduct, sums, programs, verse. It is there
so that the whole study of this repository runs on a laptop. It knows nothing else and is no use for
anything else.

It was made from nothing but the repository's own tables and rules (`growth/sample`), by
`python train/pretrain_pocket.py --steps {steps} --seed {seed}`: {steps:,} optimizer steps of at
most {tokens:,} tokens. No data from elsewhere, no other model's words. Its first weights were not
all random: some heads began as heads that find the option which goes with what was said, and its
label (`growth/sample/pocket.py`). What goes with what it had to read.

It has not been instruction-tuned: it has met neither the control tokens nor a question in the
wording and layout of the instruction data. Weights are fp32 safetensors; the tokenizer is
sentencepiece BPE with {vocabulary:,} pieces.
"""

SHARDS = 2
_IGNORED = -100
_POOL = 800  # documents sorted by length together
SAVED_EVERY, NOTED_EVERY = 500, 50  # steps
STATE = "state.safetensors"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Plan:
    """What a pretraining run is.

    Attributes:
        steps: optimizer steps.
        tokens: of a step, at most, over all shards.
        seed: of the documents.
        world_seed: of the sample world whose valid and test puzzles are kept out.
        first_steps: steps with nothing but the first lesson.
        second_steps: steps after these with nothing but the second lesson.
        mixing_steps: steps after these, in which the second lesson's share falls to nothing.
        matrix_learning_rate: of Muon, for the matrices of the layers.
        vector_learning_rate: of AdamW, for embeddings and norms.
        warm_up, decay: steps at the beginning, and share of steps at the end, with less than that.
    """

    steps: int
    tokens: int = 5120
    seed: int = 0
    world_seed: int = 0
    first_steps: int = 100
    second_steps: int = 300
    mixing_steps: int = 300
    matrix_learning_rate: float = 0.004
    vector_learning_rate: float = 3e-3
    warm_up: int = 50
    decay: float = 0.5

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a share of the highest."""
        left = (self.steps - step) / (self.decay * self.steps)
        return min(1.0, (step + 1) / self.warm_up, max(left, 0.02))

    def shares(self, step: int) -> tuple[float, float, float]:
        """How many of a step's documents are of the first lesson, the second, and all the rest."""
        if step < self.first_steps:
            return 1.0, 0.0, 0.0
        mixed = (step - self.first_steps - self.second_steps) / self.mixing_steps
        rest = min(1.0, max(0.0, mixed))
        return 0.0, 1.0 - rest, rest


class Batch(NamedTuple):
    """Documents padded to the longest: token ids and labels, (documents, tokens)."""

    ids: torch.Tensor
    labels: torch.Tensor

    @property
    def supervised(self) -> int:
        """Number of tokens to be predicted; a document's first can't be."""
        return int((self.labels[:, 1:] != _IGNORED).sum())


def encode(document: str, tokenizer: SentencePieceBackend) -> tuple[list[int], list[int]]:
    """Token ids of a document, and its labels: -100 for what is given."""
    ids: list[int] = []
    labels: list[int] = []
    for text, learnt in parts(document):
        piece = tokenizer.sp_model.encode(text)
        ids += piece
        labels += piece if learnt else [_IGNORED] * len(piece)
    return [*ids, tokenizer.eos_token_id], [*labels, tokenizer.eos_token_id]


def batches(plan: Plan, tokenizer: SentencePieceBackend) -> Iterator[list[Batch]]:
    """`SHARDS` batches a step, without end; the same for the same plan and tokenizer."""
    rng = random.Random(f"pretraining/{plan.seed}")
    kinds = first_documents(rng), second_documents(rng), documents(rng, plan.world_seed)
    step, waiting = 0, []
    while True:
        drawn = rng.choices(kinds, plan.shares(step), k=_POOL)
        pool = [encode(next(kind), tokenizer) for kind in drawn]
        pool.sort(key=lambda document: len(document[0]))
        cut: list[list[tuple[list[int], list[int]]]] = [[]]
        for document in pool:
            if cut[-1] and (len(cut[-1]) + 1) * len(document[0]) > plan.tokens // SHARDS:
                cut.append([])
            cut[-1].append(document)
        rng.shuffle(cut)
        waiting += cut
        while len(waiting) >= SHARDS:
            yield [_padded(waiting.pop(0)) for _ in range(SHARDS)]
            step += 1


def _padded(rows: Sequence[tuple[list[int], list[int]]]) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    return Batch(
        torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows]),
        torch.tensor([labels + [_IGNORED] * (longest - len(labels)) for _, labels in rows]),
    )


class Muon:
    """Momentum whose step has all its singular values near one (Jordan et al., 2024).

    torch.optim.Muon orthogonalises matrix by matrix in bf16, which is slow on processors without
    it; here matrices of one shape go together, in fp32.
    """

    _COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, as published
    _ITERATIONS = 5
    _MOMENTUM = 0.95

    def __init__(self, matrices: Sequence[torch.nn.Parameter]) -> None:
        by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for matrix in matrices:
            by_shape.setdefault(matrix.shape, []).append(matrix)
        self._groups = list(by_shape.values())
        self.momenta = [
            torch.zeros_like(torch.stack([m.data for m in group])) for group in self._groups
        ]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move the matrices along their gradients."""
        for group, momentum in zip(self._groups, self.momenta, strict=True):
            gradient = torch.stack([m.grad for m in group if m.grad is not None])
            momentum.lerp_(gradient, 1 - self._MOMENTUM)
            update = self._orthogonal(gradient.lerp(momentum, self._MOMENTUM))
            scale = math.sqrt(max(1.0, update.shape[1] / update.shape[2]))
            for matrix, direction in zip(group, update, strict=True):
                matrix.add_(direction, alpha=-learning_rate * scale)

    def _orthogonal(self, matrices: torch.Tensor) -> torch.Tensor:
        tall = matrices.shape[1] > matrices.shape[2]
        x = matrices.mT if tall else matrices
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        a, b, c = self._COEFFICIENTS
        for _ in range(self._ITERATIONS):
            square = x @ x.mT
            x = a * x + (b * square + c * square @ square) @ x
        return x.mT if tall else x


class Pretraining:
    """A model on its way, with its optimizers; resumes from `folder`/state.safetensors."""

    def __init__(self, model: LlamaForCausalLM, plan: Plan, folder: Path) -> None:
        self.model, self.plan, self.folder = model, plan, folder
        self.step = 0
        layers = [p for p in model.model.layers.parameters() if p.ndim == 2]
        matrices = {id(p) for p in layers}
        others = [p for p in model.parameters() if id(p) not in matrices]
        self._parameters = list(model.parameters())
        self._muon = Muon(layers)
        self._adam = torch.optim.AdamW(
            others, lr=plan.vector_learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        if (folder / STATE).is_file():
            self._load()

    def run(self, tokenizer: SentencePieceBackend, rank: int, processes: int) -> None:
        """Train to the plan's last step; rank 0 shows a bar, and saves.

        Args:
            tokenizer: of the documents.
            rank: of this process.
            processes: 1, or `SHARDS`, with torch.distributed set up.
        """
        mine = range(SHARDS) if processes == 1 else (rank,)
        parent = os.getppid()
        bar = tqdm(total=self.plan.steps, initial=self.step, unit="step", disable=rank > 0)
        average = None
        for step, shards in enumerate(batches(self.plan, tokenizer)):
            if step == self.plan.steps:
                break
            if step < self.step:  # the documents of a run that goes on are drawn again, in no time
                continue
            if processes > 1 and os.getppid() != parent:
                raise SystemExit("the process that started this one is gone")
            loss = self._one_step(shards, mine, processes)
            self.step = step + 1
            average = loss if average is None else 0.98 * average + 0.02 * loss
            if rank == 0:
                bar.update()
                if self.step % NOTED_EVERY == 0 or self.step == self.plan.steps:
                    bar.set_postfix(loss=f"{average:.3f}")
                    with (self.folder / METRICS).open("a", encoding="utf-8") as file:
                        file.write(json_line({"step": self.step, "loss": round(average, 4)}))
                if self.step % SAVED_EVERY == 0:
                    self._save()
        bar.close()

    def _one_step(self, shards: Sequence[Batch], mine: Sequence[int], processes: int) -> float:
        supervised = sum(batch.supervised for batch in shards)
        total: torch.Tensor | None = None
        for shard in mine:
            loss = self._loss(shards[shard]) / supervised
            self.model.zero_grad(set_to_none=True)
            loss.backward()
            gradients = [p.grad.flatten() for p in self._parameters if p.grad is not None]
            flat = torch.cat([*gradients, loss.detach()[None]])
            total = flat if total is None else total + flat
        assert total is not None  # every process has a shard
        if processes > 1:
            dist.all_reduce(total)
        for parameter, gradient in zip(
            self._parameters,
            total[:-1].split([p.numel() for p in self._parameters]),
            strict=True,
        ):
            parameter.grad = gradient.view_as(parameter)
        rate = self.plan.rate(self.step)
        for group in self._adam.param_groups:
            group["lr"] = self.plan.vector_learning_rate * rate
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        self._adam.step()
        self._muon.step(self.plan.matrix_learning_rate * rate)
        return float(total[-1])

    def _loss(self, batch: Batch) -> torch.Tensor:
        """Summed cross-entropy of the supervised tokens; the output layer runs on these alone."""
        device = self.model.device
        ids, targets = batch.ids.to(device), batch.labels[:, 1:].to(device)
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        known = targets != _IGNORED
        logits = self.model.lm_head(hidden[known])
        return F.cross_entropy(logits, targets[known], reduction="sum")

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {f"weight/{name}": p.data for name, p in self.model.named_parameters()}
        tensors |= {f"momentum/{i}": momentum for i, momentum in enumerate(self._muon.momenta)}
        for index, state in self._adam.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{name}": value for name, value in state.items()}
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def _save(self) -> None:
        with replacing(self.folder / STATE) as temporary:
            save_file(self._tensors(), temporary, {"run": json.dumps(self._identity())})

    def _identity(self) -> Mapping[str, Any]:
        return {"step": self.step, "plan": vars(self.plan)}

    def _load(self) -> None:
        path = self.folder / STATE
        with safe_open(path, "pt") as file:
            run = json.loads(file.metadata()["run"])
            if run["plan"] != vars(self.plan):
                raise InputError(
                    f"{path}: of another run, {run['plan']}; expected {vars(self.plan)}: remove "
                    f"{self.folder}, or give another --output_dir"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.step = run["step"]
        for name, parameter in self.model.named_parameters():
            parameter.data.copy_(tensors[f"weight/{name}"])
        for index, momentum in enumerate(self._muon.momenta):
            momentum.copy_(tensors[f"momentum/{index}"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam/"):
                _, index, key = name.split("/")
                state.setdefault(int(index), {})[key] = tensor
        self._adam.load_state_dict(self._adam.state_dict() | {"state": state})


def pretrain_from_scratch(plan: Plan, folder: Path, processes: int) -> None:
    """Make a tokenizer and first weights, pretrain, save; or resume where an earlier call stopped.

    Args:
        plan: what to do.
        folder: gets the model; `<folder>-pretraining` next to it the state.
        processes: 1 or `SHARDS`, on a CPU; a GPU takes 1.
    """
    work = folder.with_name(f"{folder.name}-pretraining")
    first = work / "first"
    if not first.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        texts = tokenizer_texts(plan.world_seed)
        parameters = make_pocket(first, texts, plan.seed, lexicon=lexicon())
        print(f"{first}: tokenizer and first weights, {parameters:,} parameters")
    with tempfile.TemporaryDirectory() as meeting:
        if processes == 1 or torch.cuda.is_available():
            pretrain(0, 1, meeting, plan, work, folder)
        else:
            arguments = (processes, meeting, plan, work, folder)
            torch.multiprocessing.spawn(pretrain, arguments, nprocs=processes)


def pretrain(rank: int, processes: int, meeting: str, plan: Plan, work: Path, folder: Path) -> None:
    """One process of a pretraining run; rank 0 saves the model in the end.

    Args:
        rank: of this process, from 0.
        processes: 1 or `SHARDS`.
        meeting: an empty folder where the processes meet.
        plan: what to do.
        work: holds `first`, the model to begin from; gets the state and metrics.jsonl.
        folder: gets the model.
    """
    if processes > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
        dist.init_process_group("gloo", f"file://{meeting}/store", rank=rank, world_size=processes)
    tokenizer = SentencePieceBackend.from_pretrained(work / "first")
    model = LlamaForCausalLM.from_pretrained(work / "first", dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]  # wrapped
    Pretraining(model, plan, work).run(tokenizer, rank, processes)
    if rank == 0:
        with replacing(folder) as temporary:
            model.save_pretrained(temporary)
            save_tokenizer(tokenizer, temporary)
            write_card(temporary, model, plan)
    if processes > 1:
        dist.destroy_process_group()


def write_card(folder: Path, model: LlamaForCausalLM, plan: Plan) -> None:
    """The model card of the pocket model: README.md in its folder."""
    text = _CARD.format(
        parameters=model.num_parameters(),
        steps=plan.steps,
        seed=plan.seed,
        tokens=plan.tokens,
        vocabulary=model.config.vocab_size,
    )
    write_text(folder / CARD, text)
