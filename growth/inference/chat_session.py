"""A conversation with a model, its answers streamed as they are generated."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from growth.core.errors import InputError
from growth.core.options import MAX_LENGTH, SamplingOptions
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.loading import max_positions

_UNFINISHED = "\ufffd"  # what bytes of a character that is not complete yet decode to


@dataclass
class ChatSession:
    """The turns so far, and the model that answers.

    Attributes:
        forgotten: the oldest messages that found no place in the last prompt.
    """

    model: PreTrainedModel
    chat: ChatTokenizer
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    messages: list[dict[str, str]] = field(default_factory=list)
    forgotten: int = 0

    def reset(self) -> None:
        """Forget all turns."""
        self.messages, self.forgotten = [], 0

    def reply(self, text: str, on_token: Callable[[str], object] = lambda piece: None) -> str:
        """Answer a user message; `on_token` gets each piece of the answer as soon as it is there.

        If the answer is interrupted, what was generated of it stays in the conversation.

        Raises:
            InputError: the message alone is longer than the model's positions.
        """
        prompt = self._prompt([*self.messages, {"role": "user", "content": text}])
        self.messages.append({"role": "user", "content": text})
        streamer = _Streamer(self.chat, on_token)
        try:
            self.model.generate(  # type: ignore[operator] # a mixin that its stubs don't show
                torch.tensor([prompt], device=self.model.device),
                attention_mask=torch.ones(1, len(prompt), device=self.model.device).long(),
                generation_config=self._generation(len(prompt)),
                streamer=streamer,
            )
        finally:
            self.messages.append({"role": "assistant", "content": streamer.text})
        return streamer.text

    def _room(self) -> int:
        return min(MAX_LENGTH, max_positions(self.model) or MAX_LENGTH)

    def _prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """The ids of the newest turns that leave room for an answer, oldest ones left out."""
        for forgotten in range(0, len(messages), 2):
            prompt = self.chat.encode_prompt(messages[forgotten:])
            if len(prompt) < self._room():
                self.forgotten = forgotten
                return prompt
        raise InputError(
            f"the message has {len(prompt):,} tokens; with this model {self._room():,} hold "
            "message and answer together"
        )

    def _generation(self, prompt_tokens: int) -> GenerationConfig:
        sampling = self.sampling
        drawn = {}
        if sampling.temperature is not None:
            drawn = {
                "temperature": sampling.temperature,
                "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
                "top_k": sampling.top_k or 0,
            }
        return GenerationConfig(
            do_sample=bool(drawn),
            max_new_tokens=min(sampling.max_new_tokens, self._room() - prompt_tokens),
            eos_token_id=sorted(self.chat.stop_ids),
            pad_token_id=self.chat.pad_id,
            **drawn,
        )


class _Streamer(BaseStreamer):
    """Turns generated tokens into pieces of text; `text` is all of it so far."""

    def __init__(self, chat: ChatTokenizer, on_token: Callable[[str], object]) -> None:
        self.chat, self.on_token = chat, on_token
        self.ids: list[int] | None = None  # until the prompt, which comes first, has come
        self.text = ""

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, then each token."""
        if self.ids is None:
            self.ids = []
            return
        self.ids += value.flatten().tolist()
        text = self.chat.decode(self.ids)
        if not text.endswith(_UNFINISHED):
            self._emit(text)

    def end(self) -> None:
        """Emit what was held back."""
        self._emit(self.chat.decode(self.ids or []))

    def _emit(self, text: str) -> None:
        if text.startswith(self.text) and text != self.text:
            piece, self.text = text[len(self.text) :], text
            self.on_token(piece)
