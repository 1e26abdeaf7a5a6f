"""Talking with a model: from a pipe, on a terminal, and what each turn is answered from."""

import os
import pty
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, greedy_answers, run
from in_process import load_script
from test_bad_input import refused

from growth.core.errors import InputError
from growth.core.options import SamplingOptions
from growth.export.checkpoint_files import save_tokenizer
from growth.inference.chat_session import ChatSession
from growth.inference.requests import Request
from growth.model.loading import load_model, load_tokenizer

QUESTION = "题目：下列哪一项正确？\nA. 甲"


@pytest.fixture(scope="module")
def talking(tiny_model, tmp_path_factory):
    """A model that says pieces of text; the tiny one says bytes that make no character."""
    folder = tmp_path_factory.mktemp("models") / "talking"
    chat = load_tokenizer(tiny_model)
    model = load_model(tiny_model, torch.float32, chat)
    model.get_input_embeddings().weight.data[
        : chat.tokenizer.sp_model.piece_to_id("<0xFF>") + 1
    ] = 0
    model.save_pretrained(folder)
    save_tokenizer(chat.tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def loaded(talking):
    chat = load_tokenizer(talking)
    return load_model(talking, torch.float32, chat).eval(), chat


def chat_command(talking, tokens):
    return [
        *(sys.executable, "evaluate/chat.py", "--model_name_or_path", str(talking)),
        *("--max_new_tokens", str(tokens), "--precision", "fp32"),
    ]


def greedy(loaded, messages, tokens):
    model, chat = loaded
    prompt = Request("generate", chat.encode_prompt(messages), tokens)
    (answer,) = greedy_answers(model, [prompt], chat.stop_ids, chat.pad_id)
    return chat.decode(answer.ids)


def test_each_turn_is_answered_from_the_whole_conversation(loaded):
    dialogue = ChatSession(*loaded, SamplingOptions(max_new_tokens=12))
    pieces = []
    first = dialogue.reply(QUESTION, pieces.append)
    assert len(pieces) > 1  # told as it comes
    assert "".join(pieces) == first
    turns = [{"role": "user", "content": QUESTION}]
    assert first == greedy(loaded, turns, 12)
    turns += [{"role": "assistant", "content": first}, {"role": "user", "content": "答案"}]
    assert dialogue.reply("答案") == greedy(loaded, turns, 12)
    assert [m["role"] for m in dialogue.messages] == ["user", "assistant"] * 2
    dialogue.reset()
    assert dialogue.reply("答案") == greedy(loaded, turns[2:], 12)


def test_the_oldest_turns_go_when_there_is_no_room(loaded):
    model, chat = loaded
    dialogue = ChatSession(*loaded, SamplingOptions(max_new_tokens=3))
    text = "春风又绿江南岸，明月何时照我还。" * 12
    tokens = len(chat.encode_content(text))
    assert model.config.max_position_embeddings == 256 < 6 * tokens
    for _ in range(6):
        dialogue.reply(text)
    assert dialogue.forgotten > 0
    kept = dialogue.messages[dialogue.forgotten : -1]
    assert kept[0]["role"] == "user"
    assert dialogue.messages[-1]["content"] == greedy(loaded, kept, 3)
    with pytest.raises(InputError, match="hold message and answer"):
        dialogue.reply(text * 10)
    assert len(dialogue.messages) == 12  # a message that was refused leaves nothing behind


def test_sampling_depends_on_seed_and_flags(loaded):
    def said(seed, **flags):
        torch.manual_seed(seed)
        return ChatSession(*loaded, SamplingOptions(max_new_tokens=16, **flags)).reply(QUESTION)

    assert said(0, temperature=2.0) == said(0, temperature=2.0) != said(1, temperature=2.0)
    assert said(0, temperature=2.0, top_k=1) == said(1) == said(0)
    assert said(0, temperature=2.0, top_p=1e-6) == said(0)


def test_an_interrupted_answer_stays_as_far_as_it_was_told(loaded):
    dialogue = ChatSession(*loaded, SamplingOptions(max_new_tokens=30))

    def interrupt(piece):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dialogue.reply(QUESTION, interrupt)
    assert [m["role"] for m in dialogue.messages] == ["user", "assistant"]
    assert len(dialogue.messages[1]["content"]) >= 1


def test_from_a_pipe(loaded, talking):
    done = subprocess.run(
        chat_command(talking, 12),
        cwd=ROOT,
        input=f"{QUESTION}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    expected = greedy(loaded, [{"role": "user", "content": QUESTION}], 12)
    assert done.stdout == f"{expected}\n"
    assert done.stderr == ""


def test_on_a_terminal(loaded, talking):
    """Two turns, a system message, a new conversation, the end: through a pseudo-terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        chat_command(talking, 5),
        cwd=ROOT,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(ours, "答案\n/system be kind\n\n/reset\n答案\n/exit\n".encode())
    out, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, err
    expected = greedy(loaded, [{"role": "user", "content": "答案"}], 5)
    assert out.count(expected) == 2, out
    assert "no system message" in out
    assert "(a new conversation)" in out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--system", "be kind"), ["--system", "no system message", "first message"]),
        (("--top_k", "3"), ["--top_k", "--temperature"]),
        ((), ["standard input", "empty"]),
    ],
)
def test_refused(checkout, flags, says):
    refused(checkout, "evaluate/chat.py", "--model_name_or_path", "m", *flags, says=says)


def test_help():
    assert "/reset" in run("evaluate/chat.py", "--help", cwd=ROOT).stdout


def test_a_line_that_is_no_text_is_asked_for_again(loaded, capsys):
    """Bytes of another encoding: input() raises, or hands over halves of surrogate pairs."""
    script = load_script(ROOT / "evaluate/chat.py")
    session = ChatSession(*loaded, SamplingOptions(max_new_tokens=2))
    typed = iter(
        [UnicodeDecodeError("utf-8", b"\xc4", 0, 1, ""), RuntimeError("lost"), "\udcc4", QUESTION]
    )

    def read(prompt):
        line = next(typed, EOFError())
        if isinstance(line, Exception):
            raise line
        return line

    script.converse(session, read)
    assert capsys.readouterr().out.count("type the message again") == 3
    assert [m["content"] for m in session.messages[::2]] == [QUESTION]
