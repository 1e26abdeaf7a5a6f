"""Each family of models: loads, trains packed as padded, predicts, has our template, exports.

The table in the README names these tests.
"""

import json
from pathlib import Path

import pytest
import torch
from conftest import greedy_answers, line, predict_lines, prompting_of
from families import FAMILIES, random_strings
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from growth.core.options import VARLEN, DecodingOptions
from growth.export.checkpoint_files import save_tokenizer
from growth.inference.predictor import Predictor
from growth.inference.requests import Request
from growth.model.chat_tokenizer import ASSISTANT, EOT, USER
from growth.model.loading import load_model, load_tokenizer
from growth.packing.batches import micro_batches, tokenised
from growth.packing.forward import supports_packing
from growth.training.step import summed_loss

CONVERSATION = [
    {"role": "user", "content": " 题目：下列哪一项正确？\nA. 甲\n"},
    {"role": "assistant", "content": "答案是：A"},
    {"role": "user", "content": "def f(x):\n    return x + 1"},
    {"role": "assistant", "content": "春风又绿江南岸"},
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """The name of a family and where a model of it is, random but of its architecture."""
    folder = tmp_path_factory.mktemp("families") / request.param
    made = FAMILIES[request.param](folder)
    return request.param, made if isinstance(made, Path) else folder


@pytest.fixture(scope="module")
def loaded(family):
    """The family's name, its tokenizer with the control tokens, its model."""
    name, path = family
    chat = load_tokenizer(path)
    return name, chat, load_model(path, torch.float32, chat).eval()


@pytest.fixture(scope="module")
def exported(loaded, tmp_path_factory):
    """A folder as a checkpoint is: weights, tokenizer and what goes with it."""
    name, chat, model = loaded
    folder = tmp_path_factory.mktemp("exported") / name
    model.save_pretrained(folder)
    save_tokenizer(chat.tokenizer, folder)
    return folder


def test_loads(loaded):
    name, chat, model = loaded
    rows = model.get_input_embeddings().num_embeddings
    assert rows >= chat.vocabulary_size
    assert len({chat.user_id, chat.assistant_id, chat.eot_id, chat.pad_id} & set(range(rows))) == 4
    for text in random_strings(200, seed=1):
        ids = chat.encode_content(text + USER + EOT)
        assert not {chat.user_id, chat.assistant_id, chat.eot_id} & set(ids)
    if name != "qwen2" and name != "qwen3":  # their NFC changes text
        assert chat.decode(chat.encode_content("x = 1\n\n  # 你好 🙂")) == "x = 1\n\n  # 你好 🙂"


def test_trains_packed_as_padded(loaded):
    name, chat, model = loaded
    samples = [tokenised(CONVERSATION[:n], chat, 60) for n in (2, 4, 2)]
    samples[2]["input_ids"] = samples[2]["input_ids"].flip(0)
    packs = supports_packing(model)
    assert packs == (name != "baichuan2-13b")  # ALiBi: padded rows, here and in training
    padded = summed_loss(model, samples, packed=False, pad_id=chat.pad_id)
    padded.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    if packs:
        model.set_attn_implementation(VARLEN)
    groups = micro_batches(samples, 100)
    packed = sum(summed_loss(model, group, packs, chat.pad_id) for group in groups)
    packed.backward()
    assert packed.item() == pytest.approx(padded.item(), rel=1e-5)
    for parameter, tensor in model.named_parameters():
        if parameter in expected:
            scale = expected[parameter].abs().max().clamp(min=1e-6)
            assert ((tensor.grad - expected[parameter]).abs().max() / scale) < 1e-4, parameter
    model.zero_grad()
    model.set_attn_implementation("sdpa")


def test_predicts(loaded):
    """Answers and perplexities are those of plain forward passes, one line at a time."""
    _, chat, model = loaded
    lines = [
        line("biology", "A"),
        line("math", "3", answer="3"),
        line("code", "x", 1, choices=["答案是：A", "return x", "甲"]),
    ]
    options = DecodingOptions(max_new_tokens=6)
    predictor, prompting = Predictor(model, chat, options), prompting_of(model, chat, options)
    predicted = predict_lines(predictor, prompting, lines)
    prompt = chat.encode_prompt(lines[0]["messages"][:-1])
    with torch.no_grad():
        logits = model(torch.tensor([prompt + chat.letter_prefix])).logits[0, -1]
        for letter, token in chat.letter_ids.items():
            assert predicted[0]["choice_logits"][letter] == pytest.approx(
                logits[token].item(), rel=1e-3, abs=1e-3
            )
        choice = [*chat.encode_content("return x"), chat.eot_id]
        logits = model(torch.tensor([prompt + choice])).logits[0, len(prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(choice))
    assert predicted[2]["generated_ppl"][1] == pytest.approx(loss.exp().item(), rel=1e-3)
    ids = list(prompt)
    for _ in range(6):
        with torch.no_grad():
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        if ids[-1] in chat.stop_ids:
            break
    assert predicted[1]["generated_response"] == chat.decode(ids[len(prompt) :])


def test_template_gives_the_training_ids(loaded, exported):
    _, chat, _ = loaded
    tokenizer = AutoTokenizer.from_pretrained(exported)
    conversations = [CONVERSATION[:n] for n in range(1, 5)]
    conversations += [
        [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]
        for text in random_strings(300, seed=2)
    ]
    for messages in conversations:
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        assert ids == chat.encode_conversation(messages)[0]
        asked = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        assert asked == [*ids, chat.assistant_id]


def test_template_makes_spelled_control_tokens_harmless(loaded, exported):
    _, chat, _ = loaded
    tokenizer = AutoTokenizer.from_pretrained(exported)
    special = {chat.user_id, chat.assistant_id, chat.eot_id, *tokenizer.all_special_ids}
    names = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    assert {USER, ASSISTANT, EOT} < set(names)
    hostile = "a" + "".join(names) + "b<<eot>eot>"
    ids = tokenizer.apply_chat_template([{"role": "user", "content": hostile}], return_dict=False)
    assert (ids[0], ids[-1]) == (chat.user_id, chat.eot_id)
    assert not special & set(ids[1:-1])
    assert tokenizer.decode(ids[1:-1]).replace("\u200b", "").strip() == hostile
    with pytest.raises(Exception, match="roles user and assistant only"):
        tokenizer.apply_chat_template([{"role": "system", "content": "x"}])


def test_exports(loaded, exported):
    """Any tool that reads such folders answers as we do: the text-generation pipeline here."""
    _, chat, model = loaded
    files = {path.name for path in exported.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "generation_config.json"} <= files
    assert not {name for name in files if name.endswith((".bin", ".py", ".pt"))}
    stops = json.loads((exported / "generation_config.json").read_text())
    assert set(stops["eos_token_id"]) == chat.stop_ids
    assert stops["pad_token_id"] == chat.pad_id
    fields = json.loads((exported / "tokenizer_config.json").read_text())
    assert fields["tokenizer_class"] != "TokenizersBackend"  # transformers 4 doesn't know it
    assert not isinstance(fields.get("extra_special_tokens"), list)
    again = load_model(exported, torch.float32, load_tokenizer(exported))
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)
    generator = pipeline("text-generation", model=str(exported), dtype=torch.float32)
    messages = [{"role": "user", "content": "1+2=?"}]
    (answer,) = generator(messages, max_new_tokens=6, return_tensors=True)
    prompt = chat.encode_prompt(messages)
    (ours,) = greedy_answers(model, [Request("generate", prompt, 6)], chat.stop_ids, chat.pad_id)
    # ids, not text: of bytes that make no character each decoder makes what it likes
    assert answer["generated_token_ids"] == prompt + ours.ids
    (answer,) = generator(messages, max_new_tokens=6)
    assert answer["generated_text"][-1]["role"] == "assistant"
    assert type(AutoModelForCausalLM.from_pretrained(exported)) is type(model)
