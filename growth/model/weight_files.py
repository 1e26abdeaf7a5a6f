"""The files of a model's folder that hold weights, and whether its config.json fits them.

Weights are safetensors, under plain names: an index can name any file of the disk, a pickle among
them. Numbers of a config.json that would take for ever or all memory are refused by what the
weights themselves say, before anything is built.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from growth.core.errors import InputError
from growth.core.files import LFS_ADVICE, Object, is_lfs_pointer, read_object

# What transformers and ourselves read of a tokenizer, whatever its class.
TOKENIZER_FILES = (
    *("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json"),
    *("special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model"),
    *("sentencepiece.bpe.model", "tekken.json", "chat_template.jinja", "chat_template.json"),
)
CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
FETCH = "fetch the model again"
_EXPLICIT = "transformers_weights"  # a field of config.json that names the file of weights
# Numbers that a library makes as many objects of, by what their names hold, and how large they can
# be at most. None: as many as there are tensors in the weight files.
_LOOPED = (
    (re.compile(r"layers?$|blocks$"), None),
    (re.compile(r"experts?$|heads?$|num_labels$"), 1 << 16),
    (re.compile(r"positions?(_embeddings)?$|_ctx$|seq_len(gth)?$"), 1 << 27),
)
_FEW_LAYERS = 1000  # are built in a second or two, whatever the files hold


def weight_files(folder: Path) -> list[str]:
    """The names of the weight files that a model's folder means, there or not; empty for none.

    Raises:
        InputError: its index is damaged, or names what is no plain name of a safetensors file.
    """
    config = folder / CONFIG
    explicit = read_object(config, remedy=FETCH).get(_EXPLICIT) if config.is_file() else None
    if explicit is not None:
        _check_name(explicit, f"{config}: {_EXPLICIT}")
        return [explicit]
    index = folder / INDEX
    if index.is_file():
        shards = read_object(index, remedy=FETCH).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise InputError(
                f"{index}: not an index of weight shards, it has no object weight_map; {FETCH}"
            )
        for name in shards.values():
            _check_name(name, str(index))
        # transformers takes the single file where there is one, and lets the index be
        if not (folder / SINGLE).is_file() or SINGLE in shards.values():
            return sorted(set(shards.values()))
    return [SINGLE] if (folder / SINGLE).is_file() else []


def _check_name(name: object, where: str) -> None:
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        raise InputError(
            f"{where} names {str(name)[:80]!r} as a file of weights; expected the plain name of a "
            "file in the same folder that ends in .safetensors: others can run code when they are "
            f"loaded, or are not this model's; {FETCH}"
        )


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a safetensors file; of the file, its header alone is read.

    Raises:
        InputError: it is no safetensors file, cut off, or a pointer of Git LFS.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; {FETCH}")
    if is_lfs_pointer(path):
        raise InputError(f"{path}: {LFS_ADVICE}")
    try:
        with safe_open(path, framework="pt") as weights:
            return {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: no safetensors file, or cut off ({error}); {FETCH}") from None


def check_weights(folder: Path) -> None:
    """Check the headers of a model's weight files, and the numbers of its config.json by them.

    Raises:
        InputError: a file is damaged, or config.json is of another model than the weights.
    """
    shapes: dict[str, list[int]] = {}
    for name in weight_files(folder):
        shapes |= tensor_shapes(folder / name)
    config = folder / CONFIG
    for name, number in _numbers(read_object(config, remedy=FETCH)):
        for pattern, bound in _LOOPED:
            most = max(len(shapes), _FEW_LAYERS) if bound is None else bound
            if pattern.search(name) and number > most:
                raise InputError(
                    f"{config}: {name} is {number}; expected at most {most:,}, with the "
                    f"{len(shapes):,} tensors of its weight files; {FETCH}"
                )


def _numbers(config: Object) -> Iterator[tuple[str, float]]:
    """Every number in a config, with the name of its field."""
    left: list[tuple[str, Any]] = [("", config)]
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(name, each) for each in value]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value
