"""A benchmark of one's own: everything it takes, from a JSONL file to scores."""

import json
from pathlib import Path

from conftest import write_lines

from growth.core.options import BenchmarkOptions, ModelOptions, PromptOptions
from growth.tasks.benchmark import Benchmark, Item, Subject, read_exam
from growth.tasks.benchmark_run import BenchmarkRun, run_benchmark


class Capitals(Benchmark):
    """Which city is a country's capital: `capitals.jsonl`, a line `{question, choices, answer}`."""

    name = "capitals"
    title = "Capitals"
    subjects = ("europe", "asia")

    def files(self, data_dir: Path, name: str) -> list[Path]:
        """One file per continent."""
        return [data_dir / f"{name}.jsonl"]

    def read(self, data_dir: Path, name: str) -> Subject:
        """The questions, in the order of the file."""
        lines = self.files(data_dir, name)[0].read_text(encoding="utf-8").strip().split("\n")
        rows = [json.loads(line) for line in lines]
        items = [
            Item(place, row["question"], tuple(row["choices"]), row["answer"])
            for place, row in enumerate(rows)
        ]
        return Subject(name, items, [])

    def text(self, item: Item) -> str:
        """The question, its four choices, and the words that ask for a letter."""
        choices = "\n".join(f"{k}. {v}" for k, v in zip("ABCD", item.choices, strict=True))
        return f"{item.question}\n{choices}\nAnswer:"


def test_a_benchmark_is_one_class(tmp_path, tiny_model):
    row = {"question": "法国的首都？", "choices": ["里昂", "巴黎", "马赛", "尼斯"], "answer": "B"}
    for name, count in (("europe", 3), ("asia", 2)):
        write_lines(tmp_path / f"{name}.jsonl", [row] * count)
    options = BenchmarkOptions((str(tiny_model),), output_dir=tmp_path / "out")
    exam = read_exam(Capitals(), tmp_path)
    job = BenchmarkRun(Capitals(), exam, ["0-shot"], options, ModelOptions(), PromptOptions())
    run_benchmark(job)
    result = json.loads((tmp_path / "out/results.json").read_text())["settings"]["0-shot"]
    assert {name: entry["n"] for name, entry in result["subjects"].items()} == {
        "europe": 3,
        "asia": 2,
    }
    answers = [
        json.loads(line) for line in (tmp_path / "out/0-shot/asia.jsonl").read_text().splitlines()
    ]
    assert [answer["gold"] for answer in answers] == ["B", "B"]
    right = sum(answer["prediction"] == "B" for answer in answers)
    assert result["subjects"]["asia"]["score"] == 100 * right / 2
