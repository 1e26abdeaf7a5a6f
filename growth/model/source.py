"""Where a model comes from, and whether it is there and whole; no weights are read."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.options import ModelOptions
from growth.model import lora

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DEFAULT_OPTIONS = ModelOptions()
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
        return find_model(
            lora.base_model_of(adapter, base_model),
            ModelOptions(origin=origin, trust_remote_code=self.options.trust_remote_code),
        )

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained` of the Auto classes."""
        # False, not None: transformers would ask on the terminal
        arguments: dict[str, Any] = {"trust_remote_code": self.options.trust_remote_code}
        return arguments | ({"gguf_file": self.gguf_file} if self.gguf_file else {})


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
        if not path.is_file():
            raise InputError(f"{origin} {name_or_path}: no such file")
        return Source(str(path.parent), path.name, options)
    if path.is_dir():
        if lora.is_adapter(path):
            lora.check_adapter(path)
        else:
            _check_folder(path, origin)
        return Source(str(path), options=options)
    if path.exists():
        raise InputError(
            f"{origin} {name_or_path}: a file; expected a model's folder, a hub id or a .gguf file"
        )
    name = str(name_or_path)
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        raise InputError(f"{origin} {name}: no such folder, and no hub id (name/name) either")
    return Source(name, options=options)


def _check_folder(folder: Path, origin: str) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{origin} {folder}: no config.json in it; expected a folder as save_pretrained writes "
            "it"
        )
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / 'config.json'}: not JSON ({error})") from None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError(f"{index}: not an index of weight shards; fetch it again") from None
        missing = sorted(name for name in shards if not (folder / str(name)).is_file())
        if missing:
            raise InputError(
                f"{origin} {folder}: incomplete, {len(missing)} of {len(shards)} weight files are "
                f"missing ({', '.join(missing[:3])}); fetch the model again"
            )
        return
    if (folder / "model.safetensors").is_file():
        return
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{origin} {folder}: pickled weights only ({', '.join(pickles[:3])}), which can run "
            "code when they are loaded; convert them to safetensors on a machine you can lose "
            "(save_pretrained(..., safe_serialization=True))"
        )
    raise InputError(
        f"{origin} {folder}: incomplete, there is no model.safetensors (nor an index of shards) "
        "in it"
    )


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
