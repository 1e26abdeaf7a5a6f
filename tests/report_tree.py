"""The folders of a study that was run, without running it: results, choices, runs, benchmarks.

    python tests/report_tree.py FOLDER [STUDY.toml]

writes them below FOLDER; `evaluate/report.py` makes its report of them. All scores are made up.
"""

import json
import random
import sys
from pathlib import Path

from growth.core.intervals import mean_score, percentages
from growth.data.study import Study, published_study, read_study

COMMIT = "0123456789abcdef0123456789abcdef01234567"
VERSIONS = {"python": "3.11.7", "torch": "2.13.0"}
SETTINGS = (
    "curated-10",
    "curated-160",
    "curated-2560",
    "synthetic-160",
    "synthetic-2560",
    "maximum",
)


def write(path: Path, value) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
    return path


class Tree:
    """Writes what each stage would write for one run after the other."""

    def __init__(self, folder: Path, study: Study):
        self.folder, self.study = folder, study
        self.results = folder / "results/test"
        self.valid = folder / "results/valid"
        self.runs = folder / "runs"
        self.benchmarks = folder / "evaluate"

    def flags(self) -> list[str]:
        """Of evaluate/report.py, as run from `folder`."""
        places = {"results_path": self.results, "runs_dir": self.runs}
        places |= {"benchmarks_dir": self.benchmarks, "output_dir": self.folder / "report"}
        return [f"--{name}={path.relative_to(self.folder)}" for name, path in places.items()]

    def run(self, size, data_type, seed=0, **more):
        """The identity of a run, as records repeat it."""
        run = {"model_size": size, "data_type": data_type, "timestamp": f"seed-{seed}"}
        return run | {"seed": seed, "study": self.study.record()} | more

    def train(self, run, *, ended=True, steps=6, **more):
        """A folder of a training run; with `ended` false it was stopped half-way."""
        samples = self.study.recipes[run["data_type"]].samples if not more.get("samples") else 64
        part = {"dir": f"data/{run['data_type']}", "samples": samples, "tokens": 60 * samples}
        part |= {"files": {"a.json": {"lines": samples, "sha256": "ab" * 32}}}
        part |= {"tokens_sha256": "cd" * 32, "supervised_tokens": 20 * samples}
        name = "/".join(run[key] for key in ("model_size", "data_type", "timestamp"))
        folder = self.runs / f"runs-{name}"
        record = run | {
            "model_name_or_path": "models/base",
            "model_fingerprint": "ef" * 32,
            "parameters": 7_000_000_000,
            "hyperparameters": {"epochs": 3, "learning_rate": 2e-5},
            "train": part,
            "valid": part,
            "steps_per_epoch": steps // 3,
            "steps": steps,
            "git": {"commit": COMMIT, "dirty": False},
            "versions": VERSIONS,
            "device": "computing on 1 GPU in bf16",
            "started": "2026-11-20T10:00:00+00:00",
            "ended": "2026-11-20T13:25:00+00:00" if ended else None,
        }
        if ended:
            record["peak_memory_bytes"] = 30 * 2**30
        write(folder / "run.json", record | more)
        lines = [
            {"step": step, "loss": 2.0, "tokens": 4000, "supervised_tokens": 900}
            | {"tokens_per_second": 100.0}
            for step in range(1, (steps if ended else steps // 2) + 1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        folder.with_name(f"{folder.name}.log").write_text("")
        return folder

    def score(self, run, score, checkpoint="checkpoint-6", limit=None, skip=()):
        """A results file on test: `score` of the first ability, more of each further one."""
        files = {}
        for place, ability in enumerate(self.study.abilities):
            if ability.name not in skip:
                right = min(100, int(score) + 3 * (place % 7))
                numbers = percentages(right, 100) | {"expected": 25.0, "digest": "0" * 16}
                files[f"{ability.name}_test"] = {"type": ability.name, "n": 100} | numbers
        results = {
            "run": run | {"checkpoint": checkpoint, "limit": limit, "fingerprint": "12" * 32}
        }
        results["run"] |= {"git": {"commit": COMMIT, "dirty": True}, "versions": VERSIONS}
        groups = (("average", self.study.in_domain), ("ood_average", self.study.out_of_domain))
        for name, abilities in groups:
            own = [f for f in files.values() if f["type"] in {a.name for a in abilities}]
            results |= mean_score(name, own) if own else {}
        suffix = f"-limit{limit}" if limit else ""
        name = "/".join(run[key] for key in ("model_size", "data_type", "timestamp"))
        path = self.results / f"{name}/{checkpoint}{suffix}-results.json"
        for stem, entry in files.items():
            self.verdicts(path, stem, round(entry["score"]))
        return write(path, results | {"files": files})

    def verdicts(self, results, stem, right):
        """The details beside a results file: which `right` of its 100 questions are answered."""
        order = random.Random(f"{results.parent.name} {stem}").sample(range(100), 100)
        chosen = set(order[:right])
        lines = [
            {"score": int(i in chosen), "question": f"{stem} {i}", "passages": []}
            for i in range(100)
        ]
        folder = results.with_name(results.name.replace("-results.json", "-details"))
        path = folder / f"{stem}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def select(self, run, average, checkpoint="checkpoint-6"):
        """The choice among two checkpoints."""
        candidates = [{"checkpoint": "checkpoint-4", "step": 4, "epoch": 2, "average": average - 1}]
        chosen = {"checkpoint": checkpoint, "step": 6, "epoch": 3, "average": average}
        reason = f"best mean valid score ({average:.2f}) of 2 checkpoints from epoch 1 on"
        choice = run | chosen | {"limit": None, "reason": reason}
        choice |= {"candidates": [*candidates, chosen]}
        name = "/".join(run[key] for key in ("model_size", "data_type", "timestamp"))
        return write(self.valid / name / "selected-checkpoint.json", choice)

    def benchmark(self, benchmark, settings, run, suffix="", **more):
        """A benchmark's results.json; `settings` are their averages."""
        scored = {
            setting: {"average": score, "average_low": score - 2, "average_high": score + 2}
            | {"subjects": {"one": {}, "two": {}}, "missing": []}
            for setting, score in settings.items()
        }
        record = run | {"benchmark": benchmark, "checkpoint": "checkpoint-5", "epoch": 5} | more
        name = f"{run['model_size']}-{run['data_type']}-{run['timestamp']}"
        path = self.benchmarks / benchmark / "outputs" / name / f"results{suffix}.json"
        return write(path, {"run": record, "settings": scored})


def sample_tree(folder: Path) -> Tree:
    """The published study: three sizes, two series, a lone setting, three seeds, some failures."""
    tree = Tree(folder, published_study())
    for place, size in enumerate(("7b", "13b", "33b")):
        for growth, data_type in enumerate(SETTINGS):
            for seed in (0, 1, 2):
                run = tree.run(size, data_type, seed)
                score = 28 + 5 * place + 7 * (growth % 3) * (growth < 3) + seed
                tree.train(run)
                tree.select(run, score + 1.0)
                tree.score(run, score)
    tree.train(tree.run("7b", "curated-640"), ended=False)
    tree.train(tree.run("7b", "curated-40", 4))
    tree.score(tree.run("7b", "mix-0"), 40, limit=5)
    base = tree.run("7b", "maximum", 0)
    tree.benchmark("cmmlu", {"0-shot": 36.2, "5-shot": 35.1}, base)
    tree.benchmark("agieval", {"zero-shot": 34.0, "few-shot": 33.5}, base)
    tree.benchmark("cmmlu", {"0-shot": 30.0}, tree.run("7b", "baseline", 0), "-limit3")
    return tree


def small_tree(folder: Path, study: Study) -> Tree:
    """Any study: each setting of it once, without benchmarks."""
    tree = Tree(folder, study)
    for place, data_type in enumerate(study.recipes):
        run = tree.run("pocket", data_type)
        tree.train(run)
        tree.score(run, 30 + 6 * place)
    return tree


if __name__ == "__main__":
    where, *study = map(Path, sys.argv[1:])
    made = small_tree(where, read_study(study[0].resolve())) if study else sample_tree(where)
    print("python evaluate/report.py", *made.flags())
