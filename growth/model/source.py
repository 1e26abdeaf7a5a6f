"""Where a model comes from, and whether it is there and whole; no weights are read."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from growth.core.errors import InputError
from growth.core.files import LFS_ADVICE, content_digest, is_file, is_lfs_pointer, read_object
from growth.core.options import ModelOptions
from growth.model import lora
from growth.model.weight_cache import entry_of, is_whole
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
DIGEST_KIND = "xxh3-"  # of every byte; those without it are of versions that read samples
# Fields of a config that say how it came to be, not what the model is; an adapter's base counts by
# its own digest.
_INCIDENTAL = ("_name_or_path", "transformers_version", "base_model_name_or_path", "peft_version")
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
        source = Source(str(path.parent), path.name, options)
        # Reading a large vocabulary takes seconds: of a file that was converted, it went well.
        if not is_whole(entry_of("config", files_digest([path]))):
            from growth.model.gguf_file import read_gguf  # gguf is needed for such files alone

            read_gguf(path)
        return source
    # os.path, as a name of any length and with any character is none of a file
    if os.path.isdir(path):
        for inner in path.iterdir():
            is_file(inner, or_folder=True)  # transformers would wait for a FIFO, or read a device
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
        from growth.model.gguf_file import read_gguf

        return sum(
            int(tensor.n_elements) for tensor in read_gguf(Path(source.name_or_path)).tensors
        )
    if source.folder is None:
        return None
    shapes = (tensor_shapes(source.folder / name) for name in weight_files(source.folder))
    return sum(math.prod(shape) for of_file in shapes for shape in of_file.values())


def model_file(source: Source, name: str) -> Path | None:
    """The file `name` of a model, in its folder or in the hub's cache; None where it has none."""
    if source.folder is not None:
        path = source.folder / name
        if not path.is_file():
            return None
        if is_lfs_pointer(path):
            raise InputError(f"{path}: {LFS_ADVICE}")
        return path
    found = cached_file(
        source.name,
        name,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def fingerprint(name_or_path: Model) -> str:
    """A digest that changes when what is loaded of a model changes, its tokenizer apart.

    That is every byte of its weight files, its config by what it says (not how it is written), and
    the code that --trust_remote_code runs. A model of the hub goes by its commit.
    """
    source = find_model(name_or_path)
    if source.folder is None:
        commit = extract_commit_hash(str(model_file(source, CONFIG)), None)
        return f"hub:{source.name}" + (f"@{commit}" if commit else "")
    if source.gguf_file:
        return files_digest([source.folder / source.gguf_file])
    if source.is_adapter:
        files = [source.folder / name for name in (lora.CONFIG, lora.WEIGHTS)]
        return files_digest(files, fingerprint(source.base()))
    files = [source.folder / name for name in (CONFIG, *weight_files(source.folder))]
    if source.options.trust_remote_code:
        files += sorted(source.folder.glob("*.py"))
    return files_digest(files)


def files_digest(paths: Iterable[Path], about: str = "") -> str:
    """A digest of files by name and content; a model's or adapter's config by what it says.

    Args:
        paths: of the files.
        about: anything else that it covers.
    """
    found = hashlib.sha256(about.encode())
    for path in paths:
        if path.name in (CONFIG, lora.CONFIG):
            said = read_object(path, remedy=FETCH)
            content = {name: value for name, value in said.items() if name not in _INCIDENTAL}
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        else:
            digest = content_digest(path)
        found.update(f"{path.name} {digest}\n".encode())
    return f"{DIGEST_KIND}{found.hexdigest()}"
