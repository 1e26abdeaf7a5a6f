"""Digests of everything that a change of the code's structure must leave alone, as one JSON file.

    python benchmarks/unchanged.py --output before.json      # on the commit before
    python benchmarks/unchanged.py --output after.json       # on the commit after
    python benchmarks/unchanged.py --compare before.json after.json

It goes through the scripts' documented flags only, so that it runs unchanged on either side of a
change: the 19 settings for seeds 0 to 2 on a real-sized data set and the sample, the tokens and
labels of every curated/1000 line, all CMMLU and AGIEval prompts, the weights of a short run,
predictions, verdicts, results, and the plots' CSV files of `scripts/demo.sh --quick`. Both sides
have to be made on one machine: another CPU rounds other sums.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SEEDS = (0, 1, 2)
# What a results file says of the moment it was made, not of the result.
VOLATILE = ("git", "versions")


def main() -> int:
    """Make the digests, or compare two files of them; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="file to write the digests to")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="recorded facts")
    parser.add_argument("--skip_demo", action="store_true", help="leave the demo (minutes) out")
    args = parser.parse_args()
    if args.compare:
        return compare(*args.compare)
    if args.output is None:
        parser.error("give --output, or --compare")
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        digests |= settings(work, args.shared / "data/doit-proxy", "doit-proxy")
        run("data/make_sample.py", "--output_dir", str(work / "sample"))
        digests |= settings(work, work / "sample", "sample")
        digests |= tree(work / "sample", "sample-data")
        digests |= examples(work, args.shared)
        digests |= prompts(work, args.shared)
        digests |= short_run(work, args.shared)
    if not args.skip_demo:
        digests |= demo()
    args.output.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
    print(f"{args.output}: {len(digests):,} digests")
    return 0


def run(*words: str) -> None:
    """Run a script of the repository; a failure ends this one."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, env=environment)


def digest(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def tree(folder: Path, name: str, pattern: str = "*.*") -> dict[str, str]:
    """The digest of every file below `folder`, by its path there."""
    return {
        f"{name}/{path.relative_to(folder)}": digest(path.read_bytes())
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }


def settings(work: Path, data_dir: Path, name: str) -> dict[str, str]:
    """The 19 settings for each seed."""
    digests = {}
    for seed in SEEDS:
        output = work / "settings"
        arguments = ("--data_dir", str(data_dir), "--output_dir", str(output), "--seed", str(seed))
        if name == "sample":  # it has lines for these only
            for data_type in ("curated-10", "curated-160", "curated-2560", "synthetic-640"):
                run("data/build.py", "--data_type", data_type, *arguments)
        else:
            run("data/build.py", "--data_type", "all", *arguments)
        digests |= tree(output, f"settings/{name}/seed-{seed}", "*.json")
        shutil.rmtree(output)
    return digests


def examples(work: Path, shared: Path) -> dict[str, str]:
    """Tokens and labels, as a model would be trained on them."""
    digests = {}
    for model in (shared / "golden/tiny-llama", Path("train/pocket")):
        output = work / f"{model.name}.jsonl"
        run(
            *("train/finetune.py", "--model_name_or_path", str(model)),
            *("--train_dir", str(shared / "data/doit-proxy/curated/1000")),
            *("--dump_examples", str(output)),
        )
        digests[f"examples/{model.name}"] = digest(output.read_bytes())
    return digests


def prompts(work: Path, shared: Path) -> dict[str, str]:
    """Every prompt of both benchmarks, at two lengths."""
    digests = {}
    for benchmark in ("cmmlu", "agieval"):
        for length in ("2048", "300"):
            output = work / "prompts.jsonl"
            run(
                *(f"evaluate/{benchmark}/run.py", "--max_length", length),
                *("--model_name_or_path", str(shared / "golden/tiny-llama")),
                *("--data_dir", str(shared / "data/benchmarks" / benchmark)),
                *("--dump_prompts", str(output)),
            )
            digests[f"prompts/{benchmark}-{length}"] = digest(output.read_bytes())
    return digests


def short_run(work: Path, shared: Path) -> dict[str, str]:
    """A short run of full fine-tuning and one of LoRA; predictions, verdicts, benchmark results."""
    data, model = shared / "data/doit-proxy", shared / "golden/tiny-llama"
    digests = {}
    built = work / "built"
    run(
        *("data/build.py", "--data_type", "curated-160", "--data_dir", str(data)),
        *("--output_dir", str(built)),
    )
    small = work / "small"  # a few lines of each valid file
    for split in ("valid", "test"):
        (small / "curated" / split).mkdir(parents=True)
        for path in (data / "curated" / split).glob("*.json"):
            lines = path.read_text(encoding="utf-8").split("\n")[:6]
            (small / "curated" / split / path.name).write_text("\n".join(lines), encoding="utf-8")
    for name, flags in (("full", ()), ("lora", ("--lora_rank", "4", "--lora_dropout", "0.1"))):
        folder = work / name
        run(
            *("train/finetune.py", "--model_name_or_path", str(model)),
            *("--train_dir", str(built / "curated-160"), "--precision", "fp32"),
            *("--valid_dir", str(small / "curated/valid"), "--output_dir", str(folder)),
            *("--epochs", "2", "--learning_rate", "1e-3", "--tokens_per_micro_batch", "1024"),
            *("--model_size", "tiny", *flags),
        )
        checkpoint = folder / "checkpoint-6"
        for path in sorted(checkpoint.iterdir()):
            if path.name in ("adapter_config.json", "trainer_state.json"):  # paths, times
                continue
            if path.suffix in (".safetensors", ".json", ".jinja", ".model"):
                digests[f"run/{name}/{path.name}"] = digest(path.read_bytes())
        kept = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for line in kept:
            for volatile in ("time", "tokens_per_second", "eval_runtime"):
                line.pop(volatile, None)
        digests[f"run/{name}/metrics.jsonl"] = digest(json.dumps(kept).encode())
        predictions, results = work / f"{name}-predictions", work / f"{name}-results"
        run(
            *("evaluate/predict.py", "--model_name_or_path", str(checkpoint)),
            *("--eval_data_path", str(small / "curated/valid"), "--precision", "fp32"),
            *("--pred_data_path", str(predictions), "--max_new_tokens", "24"),
        )
        run(
            *("evaluate/score.py", "--pred_data_path", str(predictions)),
            *("--results_path", str(results), "--details"),
        )
        digests |= outcome(predictions, results, f"run/{name}")
        for benchmark, settings_flags in (("cmmlu", ("--num_fewshot", "0", "5")), ("agieval", ())):
            output = work / f"{name}-{benchmark}"
            run(
                *(f"evaluate/{benchmark}/run.py", "--model_name_or_path", str(checkpoint)),
                *("--data_dir", str(shared / "data/benchmarks" / benchmark), "--limit", "5"),
                *("--output_dir", str(output), "--precision", "fp32", *settings_flags),
            )
            digests |= tree(output, f"run/{name}/{benchmark}", "*.jsonl")
            for path in output.glob("results*.json"):
                value = json.loads(path.read_text())["settings"]
                digests[f"run/{name}/{benchmark}/results"] = digest(json.dumps(value).encode())
    digests |= recorded(work, shared)
    return digests


def recorded(work: Path, shared: Path) -> dict[str, str]:
    """The verdicts on the recorded answers of every type."""
    digests = {}
    for name in ("scoring", "scoring_adversarial"):
        folder = work / name
        folder.mkdir()
        by_format: dict[str, list[str]] = {}
        for line in (shared / f"golden/{name}.jsonl").read_text(encoding="utf-8").split("\n"):
            if line.strip():
                sample = json.loads(line)["sample"]
                text = json.dumps(sample, ensure_ascii=False)
                by_format.setdefault(sample["type"], []).append(text)
        for type_, lines in by_format.items():
            (folder / f"pred_{type_}.json").write_text("\n".join(lines), encoding="utf-8")
        results = work / f"{name}-results"
        run(
            *("evaluate/score.py", "--pred_data_path", str(folder)),
            *("--results_path", str(results), "--details"),
        )
        digests |= outcome(folder, results, name)
    return digests


def outcome(predictions: Path, results: Path, name: str) -> dict[str, str]:
    """Predictions, verdicts, and results files without the moment they were made in."""
    digests = tree(predictions, f"{name}/predictions", "pred_*.json")
    digests |= tree(results, f"{name}/details", "*.jsonl")
    for path in sorted(results.rglob("*-results.json")):
        value = json.loads(path.read_text(encoding="utf-8"))
        for field in (*VOLATILE, "model_name_or_path", "fingerprint", "tokenizer"):
            value.get("run", {}).pop(field, None)
        digests[f"{name}/results/{path.relative_to(results)}"] = digest(
            json.dumps(value, sort_keys=True).encode()
        )
    return digests


def demo() -> dict[str, str]:
    """`scripts/demo.sh --quick`: weights, predictions, results, the numbers of its figures."""
    for folder in (
        *Path("runs").glob("runs-pocket-quick"),
        *Path("evaluate").glob("*/*/pocket-quick"),
        *Path("evaluate/plots").glob("*"),
    ):
        shutil.rmtree(folder)
    environment = os.environ | {"PYTHONPATH": "."}
    command = ["bash", "scripts/demo.sh", "--quick"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    digests = {}
    for split in ("valid", "test"):
        digests |= outcome(
            Path("evaluate/pred-data") / split / "pocket-quick",
            Path("evaluate/results") / split / "pocket-quick",
            f"demo/{split}",
        )
    digests |= tree(Path("runs/runs-pocket-quick"), "demo/runs", "*.safetensors")
    digests |= tree(Path("evaluate/plots"), "demo/plots", "*.csv")
    digests |= tree(Path("evaluate/plots"), "demo/plots", "*.png")
    return digests


def compare(before: Path, after: Path) -> int:
    """Print what differs; 0 where nothing does."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    names = old.keys() | new.keys()
    different = sorted(name for name in names if old.get(name) != new.get(name))
    for name in different:
        state = (
            "differs" if name in old and name in new else "only before" if name in old else "new"
        )
        print(f"{state:<12}{name}")
    print(f"{len(old):,} digests before, {len(new):,} after, {len(different):,} different")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
