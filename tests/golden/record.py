"""Record facts to test against: tests/golden/{tokenised_conversations,predictions}.jsonl, and
{cmmlu_prompts,cmmlu_predictions,agieval_prompts}.jsonl on questions as the benchmarks have them.

    python tests/golden/record.py [--output_dir tests/golden]

Nothing of the library is used: token ids are those of sentencepiece itself, losses, answers and
perplexities those of transformers' LlamaForCausalLM, one sequence at a time and without a cache.
The texts are written below, for this purpose. tiny-llama/, whose weights are random, is made where
it is missing; its files are kept otherwise, for other versions draw other random numbers.
"""

import argparse
import csv
import json
from collections.abc import Callable, Sequence
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


# CMMLU and AGIEval: layout and prompts as published, with questions of our own.
CMMLU_SUBJECTS = {"agronomy": "农学", "arts": "艺术学"}
CMMLU_LENGTHS = ((2048, (0, 5)), (400, (5,)))
AGIEVAL_SETS = ("logiqa-zh", "gaokao-biology")
AGIEVAL_REQUEST = "答案：从A到D, 我们应选择"
Row = list[str]


def choice_question(index: int) -> Row:
    """A question, its four choices, the letter of the right one."""
    things = [SUBJECTS[(index + 3 * i) % len(SUBJECTS)] for i in range(4)]
    text = f"第{index}题：哪一个最像{SUBJECTS[index % 7]}？" + "请想清楚再回答。" * (index % 4)
    return [text, *things, "ABCD"[index % 4]]


def cmmlu_rows(subject: str, split: str) -> list[Row]:
    """The five shots of a subject, or its four questions."""
    first = 20 * list(CMMLU_SUBJECTS).index(subject)
    places = range(first, first + 5) if split == "dev" else range(first + 5, first + 9)
    return [choice_question(i) for i in places]


def agieval_items(name: str, few_shot: bool) -> list[dict]:
    """Four demonstrations of a set, the second with two right answers, or its three questions."""
    first, items = 50 + 20 * AGIEVAL_SETS.index(name), []
    for index in range(first, first + 7):
        text, *choices, gold = choice_question(index)
        options = [f"({letter}){choice}" for letter, choice in zip("ABCD", choices, strict=True)]
        passage = (None, "", "先看一段话。")[index % 3]
        items.append({"passage": passage, "question": text, "options": options, "label": gold})
    items[1]["label"] = ["A", "C"]
    return items[:4] if few_shot else items[4:]


def make_benchmarks(folder: Path) -> Path:
    """Write the questions as the benchmarks have them: `folder/cmmlu` and `folder/agieval`."""
    for split in ("dev", "test"):
        (folder / f"cmmlu/{split}").mkdir(parents=True)
        for subject in CMMLU_SUBJECTS:
            rows = [[i, *row] for i, row in enumerate(cmmlu_rows(subject, split))]
            with open(
                folder / f"cmmlu/{split}/{subject}.csv", "w", encoding="utf-8", newline=""
            ) as file:
                csv.writer(file).writerows([["", "Question", *"ABCD", "Answer"], *rows])
    (folder / "agieval/v1").mkdir(parents=True)
    for name in AGIEVAL_SETS:
        lines = [json.dumps(item, ensure_ascii=False) for item in agieval_items(name, False)]
        (folder / f"agieval/v1/{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = [agieval_items(name, True) for name in AGIEVAL_SETS]
    with open(folder / "agieval/few_shot_prompts.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", *AGIEVAL_SETS])
        for number, (one, other) in enumerate(zip(*columns, strict=True)):
            table.writerow([f"sample {number}", repr(one), json.dumps(other, ensure_ascii=False)])
            table.writerow([f"explanation {number}", "", ""])
    return folder


def cmmlu_text(row: Row) -> str:
    """A question as it is asked."""
    text, *choices, _ = row
    lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=True)]
    return "\n".join([f"题目：{text}", *lines, "答案是："])


def published_prompt(
    pieces: Callable[[str], Sequence],
    header: str,
    shots: Sequence[str],
    asked: str,
    max_length: int,
) -> str:
    """CMMLU's prompt as the published runner builds it; `pieces` cuts a text into tokens."""

    def cost(text: str) -> int:
        return 1 + len(pieces(text))  # a BOS

    room = max_length - cost(f"{header}\n\n") - cost(asked)
    if room < 0:
        return asked
    lengths = {shot: cost(f"{shot}\n\n") for shot in shots}
    while lengths and sum(lengths.values()) >= room:
        longest = max(lengths.values())
        lengths = {shot: n for shot, n in lengths.items() if n != longest}
    return "\n\n".join([header, *lengths, asked])


def cmmlu_prompts(pieces: Callable[[str], Sequence]) -> list[dict]:
    """The prompt of each question, with none and five shots, and with few tokens for these."""
    facts = []
    for subject, name in CMMLU_SUBJECTS.items():
        header = f"以下是关于{name}的单项选择题，请直接给出正确答案的选项。"
        demonstrations = [cmmlu_text(row) + row[-1] for row in cmmlu_rows(subject, "dev")]
        for max_length, settings in CMMLU_LENGTHS:
            for shots in settings:
                for number, row in enumerate(cmmlu_rows(subject, "test")):
                    place = {"subject": subject, "row": number, "shots": shots}
                    prompt = published_prompt(
                        pieces, header, demonstrations[:shots], cmmlu_text(row), max_length
                    )
                    place |= {"max_length": max_length, "prompt": prompt, "label": row[-1]}
                    facts.append(place)
    return facts


def agieval_prompts() -> list[dict]:
    """The turns of each question, with the demonstrations of one right answer and without."""

    def numbered(item: dict, number: int) -> str:
        options = " ".join(item["options"])
        text = f"问题 {number}.   {item['passage'] or ''} {item['question']}\n"
        return f"{text}从以下选项中选择:    {options}\n{AGIEVAL_REQUEST}"

    facts = []
    for name in AGIEVAL_SETS:
        shown = [
            turn
            for number, item in enumerate(agieval_items(name, True), start=1)
            if isinstance(item["label"], str)
            for turn in (
                {"role": "user", "content": numbered(item, number)},
                {"role": "assistant", "content": item["label"]},
            )
        ]
        for line, item in enumerate(agieval_items(name, False)):
            options = " ".join(item["options"])
            text = f"{item['passage'] or ''}问题：{item['question']} 选项：{options}"
            last = numbered(item, len(shown) // 2 + 1)
            turns = {
                "zero-shot": [{"role": "user", "content": f"{text}\n{AGIEVAL_REQUEST}"}],
                "few-shot": [*shown, {"role": "user", "content": last}],
            }
            for setting, messages in turns.items():
                fact = {"dataset": name, "setting": setting, "line": line, "label": item["label"]}
                facts.append(fact | {"messages": messages})
    return facts


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

    def letters_of(self, fact: dict) -> dict:
        """What a question of CMMLU is answered with: as `encode` writes letters, and as pieces."""
        prompt = [*self.encode([{"role": "user", "content": fact["prompt"]}])[0], self.assistant]
        logits = self.logits(prompt, last=1)[-1]
        found = {name: fact[name] for name in ("subject", "row", "shots")}
        for prefix, name, ids in (
            ("", "choice_logits", [self.pieces.encode(letter)[-1] for letter in "ABCD"]),
            ("bare_", "bare_logits", [self.pieces.piece_to_id(letter) for letter in "ABCD"]),
        ):
            found[name] = [rounded(logits[token]) for token in ids]
            found[f"{prefix}prediction"] = "ABCD"[int(logits[ids].argmax())]
        return found


def record(folder: Path) -> dict[str, list[dict]]:
    """All facts of the model in `folder`, by file name."""
    recorder = Recorder(folder)
    generations = [recorder.generation(messages) for messages in prompts()]
    rated = zip(prompts(), choices(), strict=True)
    asked = cmmlu_prompts(recorder.pieces.encode)
    return {
        "tokenised_conversations.jsonl": [recorder.conversation(m) for m in conversations()],
        "predictions.jsonl": [*generations, *(recorder.perplexity(*each) for each in rated)],
        "cmmlu_prompts.jsonl": asked,
        "cmmlu_predictions.jsonl": [
            recorder.letters_of(fact) for fact in asked if fact["max_length"] == 2048
        ],
        "agieval_prompts.jsonl": agieval_prompts(),
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
