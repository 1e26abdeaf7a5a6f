"""Other backends that generate answers: a second opinion, or more speed on a large GPU.

They answer as the batched path does, up to near-ties between two tokens, which move with the shape
of any batch. The letters' logits and the perplexities do not come from them.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

from growth.core.errors import InputError
from growth.core.options import BATCHED, CONTINUOUS, VLLM
from growth.inference.requests import Request
from growth.model.chat_tokenizer import ChatTokenizer

# These backends can't stop when an answer is settled; nearly all letter answers are by then.
FIRST_TOKENS = 8
_PAGE, _CPU_ROWS = 64, 16  # on a CPU: tokens of a page of the cache, and requests it has room for
_VLLM_SHARE = 0.5  # of a GPU's memory: the model itself is there too, for letters and perplexities
# Prompts and the room of each -> generated tokens.
Generate = Callable[[Sequence[Sequence[int]], Sequence[int]], list[list[int]]]


def check_backend(backend: str) -> None:
    """Find out before a model is loaded whether a backend is there.

    Raises:
        InputError: it is not installed.
    """
    if backend == VLLM and importlib.util.find_spec("vllm") is None:
        raise InputError(
            f"--backend {VLLM}: vllm is not installed; `pip install vllm` on a machine with a GPU, "
            f"or take --backend {BATCHED} or {CONTINUOUS}"
        )


def generator_of(
    backend: str, model: PreTrainedModel, chat: ChatTokenizer, name_or_path: str, max_length: int
) -> Generate | None:
    """What generates the answers of `model` in place of the batched path; None for that itself."""
    if backend == CONTINUOUS:
        return continuous_generator(model, chat.stop_ids, chat.pad_id)
    if backend == VLLM:
        return vllm_generator(name_or_path, chat.stop_ids, max_length, model.dtype)
    return None


def backend_answers(
    generate: Generate, requests: Sequence[Request], stop_ids: frozenset[int]
) -> Iterator[tuple[int, list[int]]]:
    """Answer by another backend; yields (index, tokens), cut where the batched path stops.

    Prompts whose answer may be settled early are asked for a few tokens first; those that are not
    at their end then are asked again, with all their room.

    Raises:
        RuntimeError: an answer ended before its end.
    """
    waiting = list(range(len(requests)))
    for most in (FIRST_TOKENS, None):
        asked = [i for i in waiting if most is None or requests[i].is_settled is not None]
        if not asked:
            continue
        rooms = [min(most or requests[i].max_new_tokens, requests[i].max_new_tokens) for i in asked]
        generated = generate([requests[i].prompt_ids for i in asked], rooms)
        for index, tokens in zip(asked, generated, strict=True):
            answer = _until_done(requests[index], tokens, stop_ids)
            if answer is not None:
                waiting.remove(index)
                yield index, answer
    if waiting:
        raise RuntimeError(
            f"{len(waiting)} of {len(requests)} answers ended without a stop token and before "
            f"their room did; use --backend {BATCHED}"
        )


def _until_done(
    request: Request, tokens: Sequence[int], stop_ids: frozenset[int]
) -> list[int] | None:
    for count in range(1, len(tokens) + 1):
        if request.is_done(list(tokens[:count]), stop_ids):
            return list(tokens[:count])
    return None


def continuous_generator(model: PreTrainedModel, stop_ids: frozenset[int], pad_id: int) -> Generate:
    """transformers' continuous batching: finished rows are replaced at once.

    Meant for GPUs and long answers. On a CPU it works, in a cache sized for what is asked.

    Raises (when called):
        RuntimeError: a request failed; transformers itself only logs it.
    """

    def generate(prompts: Sequence[Sequence[int]], rooms: Sequence[int]) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in prompts]
        for room in sorted(set(rooms)):  # nearly always one: what --max_new_tokens says
            asked = [i for i in range(len(prompts)) if rooms[i] == room]
            config = GenerationConfig(
                max_new_tokens=room,
                do_sample=False,
                eos_token_id=sorted(stop_ids),
                pad_token_id=pad_id,
            )
            for index, output in zip(
                asked, _generate_batch(model, [prompts[i] for i in asked], config), strict=True
            ):
                answers[index] = list(output.generated_tokens)
        return answers

    return generate


def _generate_batch(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], config: GenerationConfig
) -> list[Any]:
    before = model.config._attn_implementation
    sized: dict[str, Any] = {}
    if model.device.type == "cpu":
        # By default it takes most of a machine's memory: room for some of the longest is enough.
        longest = max(map(len, prompts)) + config.max_new_tokens
        blocks = _CPU_ROWS * -(-longest // _PAGE)
        sized = {"page_size": _PAGE, "num_blocks": blocks, "max_batch_tokens": max(512, longest)}
    try:
        outputs = model.generate_batch(  # type: ignore[operator] # a mixin's
            [list(prompt) for prompt in prompts],
            generation_config=config,
            continuous_batching_config=ContinuousBatchingConfig(**sized),
        )
    finally:
        model.set_attn_implementation(before)
    if len(outputs) != len(prompts):
        raise RuntimeError(
            f"continuous batching answered {len(outputs)} of {len(prompts)} requests; "
            f"use --backend {BATCHED}"
        )
    for output in outputs.values():
        if output.error is not None:
            raise RuntimeError(
                f"continuous batching failed on a prompt of {len(output.prompt_ids):,} tokens: "
                f"{output.error}; use --backend {BATCHED}"
            )
    return list(outputs.values())


def vllm_generator(
    name_or_path: str, stop_ids: frozenset[int], max_length: int, dtype: torch.dtype
) -> Generate:
    """vLLM, which is no requirement: imported only here."""
    vllm: Any = importlib.import_module("vllm")
    llm = vllm.LLM(
        model=name_or_path,
        skip_tokenizer_init=True,
        max_model_len=max_length,
        dtype=str(dtype).removeprefix("torch."),
        gpu_memory_utilization=_VLLM_SHARE,
    )

    def generate(prompts: Sequence[Sequence[int]], rooms: Sequence[int]) -> list[list[int]]:
        parameters = [
            vllm.SamplingParams(
                temperature=0.0,
                max_tokens=room,
                stop_token_ids=sorted(stop_ids),
                ignore_eos=True,  # the tokens that stop are those of `stop_ids`, all of them
                detokenize=False,
            )
            for room in rooms
        ]
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = llm.generate(asked, parameters, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    return generate
