"""Run tasks on a model: plan, compute in batches, survive kills, share among processes.

The batches are planned from the requests alone and dealt out whole, so that the numbers are the
same however many processes there are and whatever was interrupted. Each process notes its batches;
a file is written once all its responses are known.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from growth.core.device import Compute, choose_compute, out_of_memory_explained
from growth.core.distributed import DistributedState
from growth.core.options import DecodingOptions
from growth.inference.backends import generator_of
from growth.inference.prediction_store import ResultFile
from growth.inference.predictor import Predictor
from growth.inference.progress import Progress
from growth.inference.requests import Request, Response
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.loading import load_model
from growth.model.source import Source
from growth.tasks.task import Prompting, Task

T = TypeVar("T", bound=Task)

# The bar's unit is cost, not questions: these differ a thousandfold.
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Batch(NamedTuple):
    """Questions of one task that are computed together."""

    task: int
    indices: list[int]


def load_predictor(
    source: Source, chat: ChatTokenizer, decoding: DecodingOptions, precision: str
) -> tuple[Predictor, Compute]:
    """The model, ready to respond, and what it computes on."""
    transformers_logging.set_verbosity_error()
    compute = choose_compute(precision)
    with out_of_memory_explained("take a larger device, or --precision bf16"):
        model = load_model(source, compute.dtype, chat)
        model.to(compute.device)  # type: ignore[arg-type] # its decorator hides the method's type
    generate = generator_of(decoding.backend, model, chat, source.name, decoding.max_length)
    return Predictor(model, chat, decoding, generate), compute


def missing_tasks(tasks: Sequence[T], folder: Path) -> list[T]:
    """The tasks whose results are not in `folder` yet.

    Raises:
        InputError: results are there of other questions.
    """
    missing = []
    for task in tasks:
        path = folder / task.file
        if path.is_file():
            task.check_results(path)
            ResultFile(path, ()).remove_notes()
        else:
            missing.append(task)
    return missing


class TaskRun:
    """Tasks under way on one model, in this process and the launch's others.

    Args:
        tasks: whose results are not there yet.
        folder: of the model's results.
        prompting: how their questions become requests.
        state: this process among the launch's.
    """

    def __init__(
        self, tasks: Sequence[Task], folder: Path, prompting: Prompting, state: DistributedState
    ) -> None:
        self.tasks, self.prompting, self.state = tasks, prompting, state
        self.files = [
            ResultFile(folder / task.file, [task.digest(i) for i in range(len(task))])
            for task in tasks
        ]
        self._requests: list[dict[int, Request]] = [{} for _ in tasks]
        self._known: list[dict[int, Response]] = [{} for _ in tasks]
        if state.is_main_process:  # which plans, and therefore needs all
            total = sum(map(len, tasks))
            with tqdm(total=total, desc="tokenise", unit="question", delay=5) as bar:
                for place, task in enumerate(tasks):
                    for index in range(len(task)):
                        self._request(place, index)
                        bar.update()

    def cut_prompts(self) -> list[int]:
        """How many prompts of each task lose their beginning; on the main process only."""
        return [sum(r.was_cut for r in requests.values()) for requests in self._requests]

    def cut_answers(self) -> tuple[int, int]:
        """How many answers ended because their room did, and of how many; on the main process."""
        answers = cut = 0
        for requests, known in zip(self._requests, self._known, strict=True):
            answers += sum(request.kind == "generate" for request in requests.values())
            cut += sum(response.was_cut for response in known.values())
        return cut, answers

    def run(self, predictor: Predictor, description: str) -> None:
        """Compute what is missing and write the files; every process of the launch calls it."""
        # The main process looks what is there, and plans; nobody writes before all know of it.
        plan: tuple[list[dict[int, Response]], list[list[Batch]]] = ([], [])
        if self.state.is_main_process:
            self._known = [file.recover() for file in self.files]
            plan = self._known, self._dealt_out(predictor)
        self._known, shards = self.state.gather(plan)[0]
        mine = shards[self.state.rank]
        costs = [self._request(b.task, i).cost for b in mine for i in b.indices]
        with tqdm(
            desc=description,
            bar_format=_BAR,
            smoothing=0,
            disable=not self.state.is_main_process,
            file=sys.stderr,
        ) as bar:
            progress, done = Progress(bar, costs), 0
            for batch in mine:
                label = self.tasks[batch.task].label
                bar.set_postfix_str(f"{done:,} of {len(costs):,} questions, {label}", refresh=False)
                self._run_batch(predictor, batch, progress)
                done += len(batch.indices)
            bar.set_postfix_str(f"{done:,} of {len(costs):,} questions")
        for others in self.state.gather(self._known):
            for known, theirs in zip(self._known, others, strict=True):
                known |= theirs
        if self.state.is_main_process:
            for place in range(len(self.tasks)):
                self._write_if_complete(place)
        self.state.wait()

    def _request(self, place: int, index: int) -> Request:
        """The request of a question, made once."""
        requests = self._requests[place]
        if index not in requests:
            requests[index] = self.tasks[place].request(index, self.prompting)
        return requests[index]

    def _run_batch(self, predictor: Predictor, batch: Batch, progress: Progress) -> None:
        requests = [self._request(batch.task, index) for index in batch.indices]
        found = {
            # the tokens are in its text, and would be most of the memory of a long run
            batch.indices[place]: replace(response, ids=[])
            for place, response in predictor.run_batch(requests, progress)
        }
        self._known[batch.task] |= found
        if not self._write_if_complete(batch.task):
            self.files[batch.task].note(self.state.rank, found)

    def _write_if_complete(self, place: int) -> bool:
        """Write the file of a task all of whose responses are known here; whether it was."""
        task, known, file = self.tasks[place], self._known[place], self.files[place]
        if len(known) < len(task):
            return False
        if not file.path.is_file():
            results = (task.result(i, self._request(place, i), r) for i, r in sorted(known.items()))
            file.write(results)
        return True

    def _dealt_out(self, predictor: Predictor) -> list[list[Batch]]:
        """The batches of each process, by turn, the longest first.

        A batch of which a response is missing is computed whole again, so that its numbers are
        the same.
        """
        batches = []
        for place, task in enumerate(self.tasks):
            requests = [self._request(place, index) for index in range(len(task))]
            for indices in predictor.plan(requests):
                if not self._known[place].keys() >= set(indices):
                    cost = sum(requests[index].cost.most for index in indices)
                    batches.append(((task.turn, -cost), Batch(place, indices)))
        batches.sort(key=lambda item: item[0])
        dealt = [batch for _, batch in batches]
        count = self.state.world_size
        return [list(DistributedState(rank, count).shard(dealt)) for rank in range(count)]
