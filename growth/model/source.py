"""Where a model comes from, and whether it is there and whole; no weights are read."""

import hashlib
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.options import ModelOptions
from growth.model import lora
from growth.model.gguf_file import read_gguf
from growth.model.weight_files import (
    CONFIG,
    FETCH,
    SINGLE,
    check_weights,
    tensor_shapes,
    weight_files,
)

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DEFAULT_OPTIONS = ModelOptions()
_STACKED = 8  # adapters on each other
_SHOWN = 200  # characters of a name in a message
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Source:
    """Where a model comes from, and how it may be loaded.

    Attributes:
        name: a folder or hub id.
        gguf_file: the GGUF file in it, if it is one.
        options: how it may be loaded.
    """

    name: str
    gguf_file: str | None = None
    options: ModelOptions = DEFAULT_OPTIONS

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for a hub id."""
        path = Path(self.name)
        return path if path.is_dir() else None

    @property
    def name_or_path(self) -> str:
        """What --model_name_or_path would say."""
        return str(Path(self.name) / self.gguf_file) if self.gguf_file else self.name

    @property
    def is_adapter(self) -> bool:
        """Whether it is a LoRA adapter, which needs a base."""
        return self.folder is not None and lora.is_adapter(self.folder)

    def base(self) -> "Source":
        """Where config and weights are loaded from: an adapter's base, any other model itself."""
        if not self.is_adapter:
            return self
        adapter, base_model = Path(self.name), self.options.base_model
        origin = "--base_model" if base_model is not None else f"{adapter / lora.CONFIG}:"
        found = find_model(
            lora.base_model_of(adapter, base_model),
            ModelOptions(origin=origin, trust_remote_code=self.options.trust_remote_code),
        )
        _check_ends(self, found)
        return found

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained` of the Auto classes."""
        # False, not None: transformers would ask on the terminal
        arguments: dict[str, Any] = {"trust_remote_code": self.options.trust_remote_code}
        return arguments | ({"gguf_file": self.gguf_file} if self.gguf_file else {})


def _check_ends(adapter: Source, base: Source) -> None:
    """Refuse an adapter whose base is an adapter ... of the first one, or of too many.

    Raises:
        InputError: it is.
    """
    seen = {os.path.realpath(adapter.name)}
    while base.is_adapter:
        place = os.path.realpath(base.name)
        if place in seen or len(seen) == _STACKED:
            what = "itself" if place in seen else f"more than {_STACKED} adapters"
            raise InputError(
                f"{adapter.options.origin} {adapter.name}: an adapter that builds on {what} "
                f"({lora.CONFIG}, base_model_name_or_path); say what its base is with --base_model"
            )
        seen.add(place)
        base = find_model(lora.base_model_of(Path(base.name), None), base.options)


Model = str | Path | Source  # what loading functions take: a name, or what is known of it


def find_model(name_or_path: Model, options: ModelOptions = DEFAULT_OPTIONS) -> Source:
    """Check, before anything heavy is loaded, that a model is there and whole.

    Args:
        name_or_path: a folder (of a model or of a LoRA adapter), a hub id, a .gguf file; a
            `Source` is returned as it is.
        options: how it may be loaded, and where its name was given.

    Raises:
        InputError: no such folder, no config, shards missing, or pickled weights only.
    """
    if isinstance(name_or_path, Source):
        return name_or_path
    origin = options.origin
    path = Path(name_or_path)
    if path.suffix == ".gguf":
        if not os.path.isfile(path):
            raise InputError(f"{origin} {name_or_path}: no such file")
        read_gguf(path)
        return Source(str(path.parent), path.name, options)
    # os.path, as a name of any length and with any character is none of a file
    if os.path.isdir(path):
        if lora.is_adapter(path):
            lora.check_adapter(path)
        else:
            try:
                _check_folder(path)
            except InputError as error:
                raise InputError(f"{origin} {error}") from None
        return Source(str(path), options=options)
    if os.path.exists(path):
        raise InputError(
            f"{origin} {name_or_path}: a file; expected a model's folder, a hub id or a .gguf file"
        )
    name = str(name_or_path)
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}... ({len(name):,} characters)"
        raise InputError(f"{origin} {shown}: no such folder, and no hub id (name/name) either")
    return Source(name, options=options)


def _check_folder(folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"{folder}: no {CONFIG} in it; expected a folder as save_pretrained writes it"
        )
    files = weight_files(folder)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: incomplete, {len(missing)} of {len(files)} weight files are "
            f"missing ({', '.join(missing[:3])}); {FETCH}"
        )
    if files:
        check_weights(folder)
        return
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{folder}: pickled weights only ({', '.join(pickles[:3])}), which can run "
            "code when they are loaded; convert them to safetensors on a machine you can lose "
            "(save_pretrained(..., safe_serialization=True))"
        )
    raise InputError(f"{folder}: incomplete, there is no {SINGLE} (nor an index of shards) in it")


def stored_elements(source: Source) -> int | None:
    """The number of elements of all tensors in a model's weight files; None if they aren't here."""
    if source.gguf_file is not None:
        return sum(
            int(tensor.n_elements) for tensor in read_gguf(Path(source.name_or_path)).tensors
        )
    if source.folder is None:
        return None
    shapes = (tensor_shapes(source.folder / name) for name in weight_files(source.folder))
    return sum(math.prod(shape) for of_file in shapes for shape in of_file.values())


def fingerprint(name_or_path: Model) -> str:
    """A digest that changes when a model's config or weights change.

    Of each weight file it reads the header and 64 KiB at 64 places, which no retrained model
    shares, instead of all of its gigabytes.
    """
    source = find_model(name_or_path)
    if source.folder is None:
        return f"hub:{source.name}"
    digest = hashlib.sha256()
    if source.is_adapter:
        digest.update(fingerprint(source.base()).encode())
    names = (
        [source.gguf_file] if source.gguf_file else ["config.json", lora.CONFIG, "*.safetensors"]
    )
    for path in sorted(path for name in names for path in source.folder.glob(name)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with open(path, "rb") as file:
            for place in range(64):
                file.seek(size * place // 64)
                digest.update(file.read(65536))
    return digest.hexdigest()
