"""Greedy answers: batched, sorted by length, each row stopping as early as it may."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from growth.forward import accepts

Stop = Callable[[list[int]], bool]


@dataclass
class Prompt:
    """One question to answer.

    Attributes:
        ids: prompt tokens.
        max_new_tokens: of the answer.
        is_settled: tells from the tokens so far that no further one can matter.
    """

    ids: list[int]
    max_new_tokens: int
    is_settled: Stop = field(default=lambda generated: False)


@dataclass
class Answer:
    """`ids`: generated tokens, the stop token included. `first_logits`: of the tokens asked for,
    at the first step.
    """

    ids: list[int] = field(default_factory=list)
    first_logits: list[float] = field(default_factory=list)


@torch.inference_mode()
def greedy_answers(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    stop_ids: frozenset[int],
    read_ids: Sequence[int],
    pad_id: int,
    batch_size: int,
) -> Iterator[tuple[int, Answer]]:
    """Answer each prompt greedily; yields (index of the prompt, answer) as batches finish.

    Args:
        model: in evaluation mode.
        prompts: any number, of any lengths.
        stop_ids: tokens that end an answer.
        read_ids: tokens whose logits are wanted at the first step of each answer.
        pad_id: a token to pad with.
        batch_size: prompts at once.
    """
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids), reverse=True)
    for start in range(0, len(by_length), batch_size):
        indices = by_length[start : start + batch_size]
        answers = _answer_batch(model, [prompts[i] for i in indices], stop_ids, read_ids, pad_id)
        yield from zip(indices, answers, strict=True)


def _answer_batch(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    stop_ids: frozenset[int],
    read_ids: Sequence[int],
    pad_id: int,
) -> list[Answer]:
    """Left-padded rows; a row that is done leaves the batch."""
    answers = [Answer() for _ in prompts]
    longest = max(len(prompt.ids) for prompt in prompts)
    pads = [longest - len(prompt.ids) for prompt in prompts]
    input_ids = torch.tensor(
        [[pad_id] * pad + prompt.ids for pad, prompt in zip(pads, prompts, strict=True)],
        device=model.device,
    )
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads], device=model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    # What some architectures do without, such as positions where ALiBi stands in for them.
    options: dict[str, Any] = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
    takes_positions = accepts(model, "position_ids")
    cache = DynamicCache(config=model.config)
    rows = list(range(len(prompts)))  # the prompt that each row of the batch answers
    first = True
    while True:
        if takes_positions:
            options["position_ids"] = positions
        output = model(
            input_ids=input_ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **options,
        )
        logits = output.logits[:, -1].float()
        if first:
            for answer, read in zip(answers, logits[:, list(read_ids)].tolist(), strict=True):
                answer.first_logits = read
            first = False
        tokens = logits.argmax(-1).tolist()
        for row, token in zip(rows, tokens, strict=True):
            answers[row].ids.append(token)
        going = [
            place
            for place, row in enumerate(rows)
            if tokens[place] not in stop_ids
            and len(answers[row].ids) < prompts[row].max_new_tokens
            and not prompts[row].is_settled(answers[row].ids)
        ]
        if not going:
            return answers
        if len(going) < len(rows):
            keep = torch.tensor(going, device=model.device)
            cache.batch_select_indices(keep)
            mask, positions = mask[keep], positions[keep]
            rows = [rows[place] for place in going]
            tokens = [tokens[place] for place in going]
        input_ids = torch.tensor(tokens, device=model.device)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1
