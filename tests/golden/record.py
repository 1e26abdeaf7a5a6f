"""Record facts to test against: tests/golden/{tokenised_conversations,predictions}.jsonl.

    python tests/golden/record.py [--output_dir tests/golden]

Nothing of the library is used: token ids are those of sentencepiece itself, losses, answers and
perplexities those of transformers' LlamaForCausalLM, one sequence at a time and without a cache.
The texts are written below, for this purpose. tiny-llama/, whose weights are random, is made where
it is missing; its files are kept otherwise, for other versions draw other random numbers.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).resolve().parent
CONTROLS = ("<user>", "<assistant>", "<eot>", "<pad>")
IGNORED, PIECES, NEW_TOKENS = -100, 1000, 8
Messages = list[dict[str, str]]

SUBJECTS = ("月亮", "水稻", "长城", "蝴蝶", "火车", "茶叶", "海洋", "竹子", "铁矿", "棉花")
QUESTIONS = (
    "下面关于{}的说法，哪一项是正确的？\nA. 它会飞\nB. 它能吃\nC. 它很重\nD. 以上都不对",
    "判断题：{}在中国很常见。（请回答“正确”或“错误”）",
    "请用一句话介绍{}。",
    "一箱{}卖 3.5 元，买 12 箱一共要多少元？",
)
ANSWERS = (
    "D",
    "正确",
    "{}是人们熟悉的东西，很多故事里都写到它。",
    "解：3.5×12=42\n答案\n$42$",
)
# Spaces, lines, bytes without a piece, words of other languages, mark-up.
ODD = (
    ("1+1=?", "$1+1=2$\n# 答案\n2"),
    ("🙂", "表情 emoji 🙂🀄"),
    ("  前后有空格  ", "\n换行也去掉\n\n"),
    ("<b>加粗</b>的文字", "a < b > c"),
    ("写一个函数", "def f(x):\n    return x + 1\n\n\nprint(f(2))"),
    ("Translate: the cat sat on the mat.", "猫坐在垫子上。"),
    ("全角ＡＢＣ，１２３", "Ａ"),
    ("化简 $\\frac{6}{8}$", "答案\n$\\frac{3}{4}$"),
    ("\t制表\t符\u3000全角空格", "制表符\tA"),
    ("龘靐齉爩", "鱻"),
    ("A", "A"),
    ("多选：哪些是水果？\nA. 苹果\nB. 石头\nC. 梨\nD. 桃", "ACD"),
)


def question(index: int) -> Messages:
    """The conversation of two turns of that number."""
    subject, kind = SUBJECTS[index % len(SUBJECTS)], index % len(QUESTIONS)
    return [
        {"role": "user", "content": f"问题 {index}：{QUESTIONS[kind].format(subject)}"},
        {"role": "assistant", "content": ANSWERS[kind].format(subject)},
    ]


def conversations() -> list[Messages]:
    """43 conversations: of 12, 8, 4 and 2 turns, and odd ones."""
    several = [
        [turn for index in range(first, first + turns // 2) for turn in question(index)]
        for first, turns in ((0, 12), (3, 12), (7, 12), (11, 8), (12, 8), (17, 8), (20, 4), (25, 4))
    ]
    two = [question(index) for index in range(43 - len(several) - len(ODD))]
    odd = [
        [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        for asked, answered in ODD
    ]
    return [*several, *two, *odd]


def prompts() -> list[Messages]:
    """20 conversations that end in a question, of 11, 7, 3 and 1 turns."""
    turns = (11, 1, 7, 1, 3, 1, 1, 11, 1, 1, 3, 1, 7, 1, 1, 3, 1, 1, 7, 1)
    return [
        [turn for i in range(start, start + (count + 1) // 2) for turn in question(i)][:-1]
        for start, count in enumerate(turns)
    ]


def choices() -> list[list[str]]:
    """Three continuations for each of `prompts`, of unlike lengths."""
    contents = [question(index)[1]["content"] for index in range(60)]
    return [[contents[i], contents[i + 21] * 2, contents[i + 39] + "，好吗？"] for i in range(20)]


def make_tiny_llama(folder: Path) -> None:
    """A LLaMA of random weights with a sentencepiece model of the texts above."""
    folder.mkdir(parents=True)
    texts = [turn["content"] for index in range(400) for turn in question(index)]
    texts += [text for pair in ODD[4:] for text in pair]
    with open(folder / "tokenizer.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(line for text in texts for line in text.split("\n")),
            model_writer=file,
            model_type="bpe",
            vocab_size=PIECES,
            byte_fallback=True,
            split_digits=True,
            character_coverage=0.995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")).get_piece_size()
    ids = {token: pieces + index for index, token in enumerate(CONTROLS)}
    config = LlamaConfig(
        vocab_size=pieces + len(ids),
        hidden_size=32,
        intermediate_size=88,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.35,
        tie_word_embeddings=True,
        pad_token_id=ids["<pad>"],
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    special |= {"additional_special_tokens": list(CONTROLS[:3])}
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "model_max_length": 2048}
    settings |= {"add_bos_token": True, "add_eos_token": False}
    for name, value in (
        ("added_tokens", ids),
        ("special_tokens_map", special),
        ("tokenizer_config", settings | special),
    ):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")


def rounded(number: torch.Tensor) -> float:
    """As many digits as fp32 has."""
    return float(f"{number.item():.7g}")


class Recorder:
    """The model and the tokenizer of a folder, and what they say."""

    def __init__(self, folder: Path) -> None:
        self.pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        controls = json.loads((folder / "added_tokens.json").read_text())
        self.user, self.assistant, self.eot, _ = (controls[token] for token in CONTROLS)
        self.stops = {self.user, self.assistant, self.eot, 0, 1, 2}  # <unk>, <s>, </s>

    def encode(self, messages: Messages) -> tuple[list[int], list[int]]:
        """Input ids and labels."""
        ids: list[int] = []
        labels: list[int] = []
        for message in messages:
            answer = message["role"] == "assistant"
            content = [*self.pieces.encode(message["content"].strip()), self.eot]
            ids += [self.assistant if answer else self.user, *content]
            labels += [IGNORED, *(content if answer else [IGNORED] * len(content))]
        return ids, labels

    def logits(self, ids: Sequence[int], last: int = 0) -> torch.Tensor:
        """`(tokens, vocabulary)`, of all tokens or the `last` ones."""
        with torch.no_grad():
            return self.model(input_ids=torch.tensor([ids]), logits_to_keep=last).logits[0]

    def losses(self, ids: Sequence[int], labels: Sequence[int]) -> torch.Tensor:
        """Of each supervised token, the first of the sequence aside."""
        wanted = torch.tensor(labels[1:])
        kept = wanted != IGNORED
        return cross_entropy(self.logits(ids)[:-1][kept], wanted[kept], reduction="none")

    def conversation(self, messages: Messages) -> dict:
        """Tokens of a conversation, and the loss over the answers in its first 2,048."""
        ids, labels = self.encode(messages)
        losses = self.losses(ids[:2048], labels[:2048])
        fact = {"messages": messages, "input_ids": ids, "labels": labels}
        return fact | {"loss_sum": rounded(losses.sum()), "loss_tokens": len(losses)}

    def generation(self, messages: Messages) -> dict:
        """The greedy answer, and the logits of the letters in its first step."""
        prompt = [*self.encode(messages)[0], self.assistant]
        letters = {letter: self.pieces.encode(letter)[-1] for letter in "ABCD"}
        first = self.logits(prompt, last=1)[-1]
        answer: list[int] = []
        while len(answer) < NEW_TOKENS and not (answer and answer[-1] in self.stops):
            answer.append(int(self.logits([*prompt, *answer], last=1)[-1].argmax()))
        logits = {letter: rounded(first[token]) for letter, token in letters.items()}
        fact = {"kind": "generate", "messages": messages}
        return fact | {"choice_logits": logits, "generated_ids": answer}

    def perplexity(self, messages: Messages, continuations: Sequence[str]) -> dict:
        """The perplexity of each continuation as the answer."""
        found = []
        for text in continuations:
            ids, _ = self.encode(messages)
            answer = [*self.pieces.encode(text.strip()), self.eot]
            labels = [IGNORED] * (len(ids) + 1) + answer
            losses = self.losses([*ids, self.assistant, *answer], labels)
            found.append(rounded(losses.mean().exp()))
        fact = {"kind": "perplexity", "messages": messages}
        return fact | {"choices": list(continuations), "generated_ppl": found}


def record(folder: Path) -> dict[str, list[dict]]:
    """All facts of the model in `folder`, by file name."""
    recorder = Recorder(folder)
    generations = [recorder.generation(messages) for messages in prompts()]
    rated = zip(prompts(), choices(), strict=True)
    return {
        "tokenised_conversations.jsonl": [recorder.conversation(m) for m in conversations()],
        "predictions.jsonl": [*generations, *(recorder.perplexity(*each) for each in rated)],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=HERE, help="where the files go")
    output = parser.parse_args(argv).output_dir
    if not (output / "tiny-llama").exists():
        make_tiny_llama(output / "tiny-llama")
    for name, facts in record(output / "tiny-llama").items():
        lines = [json.dumps(fact, ensure_ascii=False) + "\n" for fact in facts]
        (output / name).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
