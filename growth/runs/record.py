"""The record of a training run (run.json): what was tuned, on what, how; one run per folder."""

import dataclasses
import logging
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from growth.core.errors import InputError
from growth.core.files import Object, is_file, parse_json, sha256, write_text
from growth.core.options import Hyperparameters
from growth.core.schemas import MetricsLine, check_schema
from growth.data.lines import Record
from growth.data.study import Study, recorded
from growth.runs.checkpoints import CHECKPOINT
from growth.runs.layout import METRICS, RUN_RECORD, Run, now

# Of models and tensors more is imported where a run begins: reports read records without torch.
if TYPE_CHECKING:
    from growth.model.source import Source
    from growth.packing.batches import Example

logger = logging.getLogger(__name__)
_RECORDED_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "sentencepiece")


def provenance() -> dict[str, Any]:
    """What a result depends on besides its inputs: git commit, dirty or not, versions."""
    return {
        "git": _git_state(),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in _RECORDED_LIBRARIES},
    }


def _git_state() -> dict[str, Any]:
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}  # a copy without git


def check_owned(run_dir: Path) -> None:
    """Check that what `run_dir` holds of a run has its record.

    Raises:
        InputError: there are checkpoints or metrics and no run.json: they would pass for those of
            the run that begins.
    """
    if is_file(run_dir / RUN_RECORD):
        return
    others = sorted(
        path.name for name in (f"{CHECKPOINT}*", METRICS) for path in run_dir.glob(name)
    )
    if others:
        raise InputError(
            f"--output_dir {run_dir}: holds {', '.join(others[:3])} without the {RUN_RECORD} that "
            "says of which run; choose another folder, or remove what is in this one"
        )


# What makes two runs the same, and hyper-parameters that only say how a step is computed: those
# that change the order of its sums, and one that does not.
_IDENTITY = ("model_size", "data_type")
SUMMATION = ("batch_size", "tokens_per_micro_batch", "attn_implementation")
RESUMED_OTHERWISE = "resumed_otherwise"
_FREE = (*SUMMATION, "gradient_checkpointing")


def new_record(
    run_dir: Path,
    source: "Source",
    parameters: int,
    data: Mapping[str, Any],
    hyperparameters: Hyperparameters,
    *,
    model_size: str | None,
    data_type: str | None,
    device: str,
    study: Study,
) -> Run:
    """What run.json says of a run that begins now.

    Args:
        run_dir: its name stands for the run.
        source: of the foundation model, of `parameters` parameters.
        data: `data_record` of "train" and "valid".
        hyperparameters: with nothing left open.
        model_size: by default counted; `data_type` by default the name of the training folder.
        data_type: the setting.
        device: what was computed on.
        study: whose setting it is.
    """
    from growth.model.source import fingerprint
    from growth.model.tokenizer_files import tokenizer_fingerprint

    steps = math.ceil(data["train"]["samples"] / hyperparameters.total_batch_size)
    return {
        "model_size": model_size or shortened(parameters),
        "data_type": data_type or setting_name(Path(data["train"]["dir"])),
        "timestamp": run_dir.resolve().name,
        "model_name_or_path": source.name_or_path,
        "model_fingerprint": fingerprint(source),
        "tokenizer_fingerprint": tokenizer_fingerprint(source),
        "parameters": parameters,
        "study": study.record(),
        **data,
        "seed": hyperparameters.seed,
        "hyperparameters": dataclasses.asdict(hyperparameters),
        "steps_per_epoch": steps,
        "steps": steps * hyperparameters.epochs,
        **provenance(),
        "device": device,
        "started": now(),
        "ended": None,
    }


def setting_name(train_dir: Path) -> str:
    """The setting that a run is recorded as where --data_type is not given."""
    return train_dir.resolve().name


def data_record(
    folder: Path, files: Mapping[str, Sequence[Record]], examples: Sequence["Example"]
) -> dict[str, Any]:
    """What a run was trained or validated on, down to the digest of each file.

    Raises:
        InputError: no token of it is supervised.
    """
    from growth.packing.batches import cut_answers, digest, supervised_tokens, token_lengths

    supervised = supervised_tokens(examples)
    if not supervised:
        raise InputError(
            f"{folder}: within --max_length no answer has a token left to learn; raise --max_length"
        )
    cut, lost = cut_answers(examples)
    return {
        "dir": str(folder),
        "files": {
            name: {"lines": len(records), "sha256": sha256(folder / name)}
            for name, records in files.items()
        },
        "samples": len(examples),
        "tokens": sum(token_lengths(examples)),
        "supervised_tokens": supervised,
        "tokens_sha256": digest(examples),
        # lines that truncation left with part of their answer, and with none of it
        "answers_cut": cut,
        "answers_lost": lost,
    }


def shortened(parameters: int) -> str:
    """A model size in short: 6,885,486,592 parameters are 7b, 1,303,680 are 1.3m."""
    for unit, name in ((10**9, "b"), (10**6, "m"), (10**3, "k")):
        if parameters >= unit:
            digits = f"{parameters / unit:.{1 if parameters < 3 * unit else 0}f}"
            return digits.removesuffix(".0") + name
    return str(parameters)


def check_same_setting(earlier: Run, run: Run, run_dir: Path, resume: bool) -> None:
    """Two runs never share a folder.

    Raises:
        InputError: `run_dir` holds a run of another setting, or `resume` is not set.
    """
    before, after = _identity(earlier), _identity(run)
    changed = [
        name if name.startswith("files") else f"{name} {before.get(name)!r}, now {value!r}"
        for name, value in after.items()
        if before.get(name) != value
    ]
    changed += _changed_content(earlier, run)
    if recorded(earlier)["name"] != run["study"]["name"]:
        changed.append(f"study {recorded(earlier)['name']}, now {run['study']['name']}")
    if changed:
        changes = ", ".join(changed)
        raise InputError(
            f"--output_dir {run_dir}: holds a run of another setting ({changes}); choose another "
            "folder"
        )
    if not resume:
        raise InputError(
            f"--output_dir {run_dir}: holds this run already; --resume resumes it, or choose "
            "another folder"
        )


def computed_otherwise(earlier: Run, run: Run) -> dict[str, list[Any]]:
    """What of a run's computing differs from before, and rounds sums otherwise: old and new."""
    before, after = (_computing(record) for record in (earlier, run))
    return {name: [old, after[name]] for name, old in before.items() if old != after[name]}


def _computing(run: Run) -> dict[str, Any]:
    known = dataclasses.asdict(Hyperparameters()) | run["hyperparameters"]
    return {name: known[name] for name in SUMMATION} | {
        "device": run["device"].partition(": ")[0],  # without the reason for it
        "torch": run.get("versions", {}).get("torch"),
    }


def missing_steps(run_dir: Path, step: int) -> int:
    """How many of a run's first `step` optimizer steps metrics.jsonl has no loss of."""
    found = {line["step"] for line in read_metrics(run_dir) if "loss" in line}
    return sum(number not in found for number in range(1, step + 1))


def _changed_content(earlier: Run, run: Run) -> list[str]:
    """What differs by content: the model, wherever it lies, and the tokens of the lines."""
    changed = []
    if _fingerprint_of(earlier) not in (run["model_fingerprint"], None):
        changed.append(
            f"the model's weights or config, of model_name_or_path "
            f"{earlier['model_name_or_path']!r}, now {run['model_name_or_path']!r}"
        )
    if earlier.get("tokenizer_fingerprint") not in (run["tokenizer_fingerprint"], None):
        changed.append("the files of its tokenizer")
    for part in ("train", "valid"):
        before = earlier[part].get("tokens_sha256")
        same_files = earlier[part]["files"] == run[part]["files"]
        if same_files and before not in (run[part]["tokens_sha256"], None):
            changed.append(f"the tokens of --{part}_dir, as the tokenizer is another")
    return changed


def _fingerprint_of(earlier: Run) -> str | None:
    """Of a run's foundation model; None if it is unknown.

    Earlier records have only its name, or a digest of another kind, which no longer says anything.
    """
    from growth.model.source import DIGEST_KIND, fingerprint

    found = str(earlier.get("model_fingerprint"))
    if found.startswith(DIGEST_KIND) or "@" in found:  # of all bytes, or of a commit of the hub
        return found
    try:
        return fingerprint(earlier["model_name_or_path"])
    except InputError:
        return None


def _identity(run: Run) -> dict[str, Any]:
    # Those that a record of before lacks had their defaults.
    known = dataclasses.asdict(Hyperparameters()) | run["hyperparameters"]
    hyperparameters = {k: v for k, v in known.items() if k not in _FREE}
    files = {f"files of --{part}_dir": run[part]["files"] for part in ("train", "valid")}
    return {name: run[name] for name in _IDENTITY} | hyperparameters | files


def read_metrics(run_dir: Path) -> list[Object]:
    """The lines of metrics.jsonl, in order; what a kill or another program left is passed over."""
    path = run_dir / METRICS
    if not is_file(path):
        return []
    found = (_metrics_line(line) for line in path.read_bytes().split(b"\n"))
    return [line for line in found if line is not None]


def _metrics_line(line: bytes) -> Object | None:
    try:
        value = parse_json(line.decode("utf-8"), finite=False)
        check_schema(value, MetricsLine, METRICS, "")
    except (ValueError, InputError):
        return None
    return value


def forget_metrics_after(run_dir: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl that a resumed run will write again, and what are none."""
    path = run_dir / METRICS
    if not is_file(path):
        return
    lines = path.read_bytes().splitlines(keepends=True)
    read = [(line, _metrics_line(line)) for line in lines if line.strip()]
    # A line cut off by a kill is no JSON; it may have met the next one's beginning.
    unreadable = sum(value is None for _, value in read)
    if unreadable:
        logger.warning("%s: %s lines that can't be read are dropped", path, unreadable)
    kept = [line for line, value in read if value is not None and value["step"] <= step]
    write_text(path, b"".join(kept).decode("utf-8"))
