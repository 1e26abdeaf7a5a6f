"""Requests -> responses: batches that depend on nothing but the requests."""

import contextlib
import functools
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from growth.core.errors import InputError
from growth.core.options import BATCHED, VARLEN, DecodingOptions
from growth.inference.backends import Generate, backend_answers
from growth.inference.generation import Generator, check_batching, plan_batches
from growth.inference.kv_cache import buffered_cache
from growth.inference.limits import Limits
from growth.inference.loglikelihood import continuation_example, next_token_logits, perplexities
from growth.inference.progress import Progress
from growth.inference.requests import Kind, Request, Response
from growth.model.chat_tokenizer import ChatTokenizer
from growth.packing.attention import attending
from growth.packing.forward import supports_packing
from growth.packing.loss import bound_of_logits

_KINDS: tuple[Kind, ...] = ("generate", "letters", "choices")  # in the order they are computed


class Predictor:
    """A model that responds to requests.

    Args:
        model: any causal language model.
        chat: its tokenizer.
        decoding: how much is computed at once, and by which backend.
        generate: what answers instead of the batched path, if `decoding.backend` says so.

    Raises:
        InputError: answers of this architecture depend on their batch.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: ChatTokenizer,
        decoding: DecodingOptions,
        generate: Generate | None = None,
    ) -> None:
        self.model, self.chat = model.eval(), chat
        self._generate = generate if decoding.backend != BATCHED else None
        self._packed = supports_packing(self.model)
        if self._generate is None and (not self._packed or buffered_cache(self.model) is None):
            check_batching(Generator(self.model, frozenset(), [1], chat.pad_id, self._packed))
        self._rows = decoding.batch_size
        limits = Limits.of_device(self.model, decoding.batch_size, decoding.tokens_per_batch)
        tokens = decoding.cache_tokens or limits.tokens
        self._limits = replace(limits, tokens=tokens)

    @functools.cached_property
    def _logits_at_once(self) -> int | None:
        """Asked where there are choices alone: it takes a forward and a backward pass."""
        model, packed = self.model, self._packed
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            attending(model, VARLEN) if packed else contextlib.nullcontext(),
        ):
            return bound_of_logits(model, packed, self._limits.prefill_tokens, model.device)

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Indices of the requests in batches for `run_batch`, longest first.

        The requests of a batch are of one kind, and the same tokens are read of them.
        """
        alike: dict[tuple[Hashable, ...], list[int]] = {}
        for index, request in enumerate(requests):
            read = tuple(request.read_ids), tuple(request.read_after)
            alike.setdefault((_KINDS.index(request.kind), *read), []).append(index)
        planned = {key: self._planned(requests, alike[key]) for key in sorted(alike)}
        return [batch for batches in planned.values() for batch in batches]

    def _planned(self, requests: Sequence[Request], alike: list[int]) -> list[list[int]]:
        """Those `alike` in batches."""
        kind = requests[alike[0]].kind
        if kind == "letters":
            return [alike]  # all at once: shots that questions share are computed once
        if kind == "choices":
            rated = sorted(alike, key=lambda i: requests[i].cost.prompt, reverse=True)
            return [rated[start : start + self._rows] for start in range(0, len(rated), self._rows)]
        if self._generate is not None:
            return [alike]
        batches = plan_batches([requests[i] for i in alike], self._limits)
        return [[alike[place] for place in batch] for batch in batches]

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """The response to each request, in order."""
        responses: dict[int, Response] = {}
        for batch in self.plan(requests):
            for place, response in self.run_batch([requests[i] for i in batch]):
                responses[batch[place]] = response
        return [responses[index] for index in range(len(requests))]

    def run_batch(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> Iterator[tuple[int, Response]]:
        """The responses to one planned batch, with their places in it; `progress` counts them.

        Raises:
            InputError: the model gives no numbers, or memory does not suffice for one request.
        """
        respond = {
            "generate": self._answers,
            "letters": self._letters,
            "choices": self._choices,
        }[requests[0].kind]
        for place, response in respond(requests, progress):
            _check_finite(response)
            if progress is not None:
                progress.finished(requests[place].cost, len(response.ids))
            yield place, response

    def _answers(
        self, requests: Sequence[Request], progress: Progress | None
    ) -> Iterator[tuple[int, Response]]:
        responses: dict[int, Response] = {}
        for place, response in self._generated(requests, progress):
            response.text = self.chat.decode(response.ids)
            response.was_cut = requests[place].would_go_on(response.ids, self.chat.stop_ids)
            if response.logits and not requests[place].read_after:
                yield place, response
            else:
                responses[place] = response
        # Other backends give no logits; some tokenizers begin every letter with the same tokens.
        places = list(responses)
        prompts = [
            [*requests[i].prompt_ids, *requests[i].read_after][-requests[i].max_length :]
            for i in places
        ]
        for index, logits in self._next_token_logits(prompts, requests[0].read_ids):
            responses[places[index]].logits = logits
            yield places[index], responses[places[index]]

    def _generated(
        self, requests: Sequence[Request], progress: Progress | None
    ) -> Iterator[tuple[int, Response]]:
        stop_ids, read_ids = self.chat.stop_ids, requests[0].read_ids
        if self._generate is None:
            generator = Generator(self.model, stop_ids, read_ids, self.chat.pad_id, self._packed)
            yield from generator.answers(requests, self._limits, progress)
            return
        for place, ids in backend_answers(self._generate, requests, stop_ids):
            if progress is not None:
                progress.computed(len(requests[place].prompt_ids), len(ids))
            yield place, Response(ids)

    def _letters(
        self, requests: Sequence[Request], progress: Progress | None
    ) -> Iterator[tuple[int, Response]]:
        prompts = [request.prompt_ids for request in requests]
        for place, logits in self._next_token_logits(prompts, requests[0].read_ids):
            if progress is not None:
                progress.computed(len(prompts[place]))
            yield place, Response(logits=logits)

    def _next_token_logits(
        self, prompts: Sequence[Sequence[int]], read_ids: Sequence[int]
    ) -> Iterator[tuple[int, list[float]]]:
        return next_token_logits(
            self.model, prompts, read_ids, self._limits, self._packed, self.chat.pad_id
        )

    def _choices(
        self, requests: Sequence[Request], progress: Progress | None
    ) -> Iterator[tuple[int, Response]]:
        examples, owners = [], []
        for place, request in enumerate(requests):
            for choice, continuation in enumerate(request.continuations):
                owners.append((place, choice))
                examples.append(
                    continuation_example(request.prompt_ids, continuation, request.max_length)
                )
        found: list[dict[int, float]] = [{} for _ in requests]
        for index, value in perplexities(
            self.model, examples, self._limits, self._packed, self.chat.pad_id, self._logits_at_once
        ):
            place, choice = owners[index]
            found[place][choice] = value
            if len(found[place]) == len(requests[place].continuations):
                if progress is not None:
                    progress.computed(requests[place].cost.prompt)
                yield place, Response(perplexities=[found[place][c] for c in sorted(found[place])])


def _check_finite(response: Response) -> None:
    for value in (*response.logits, *response.perplexities):
        if not math.isfinite(value):
            raise InputError(
                f"the model's output is {value}, no number; its precision overflows or its weights "
                "are broken: try --precision bf16 or fp32"
            )
