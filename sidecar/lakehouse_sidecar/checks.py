"""What of a server's answer can be checked without knowing the model."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

CANARY_TEXT: Final = "The quick brown fox jumps over the lazy dog."
# The same text in another batch or on another processor differs by about 1e-6.
CANARY_COSINE_MIN: Final = 0.999
_CANARY_DECIMALS: Final = 2


def wrong_with(vectors: Vectors | None, texts: int, dimensions: int) -> str:
    """What is wrong with an answer for so many texts; "" for nothing. ``dimensions`` 0: any."""
    if vectors is None or vectors.ndim != 2:
        return "the vectors are of different lengths"
    if len(vectors) != texts:
        return "there are more or fewer vectors than texts"
    if not vectors.shape[1] or (dimensions and vectors.shape[1] != dimensions):
        return "a vector has another dimension than the model's"
    if not np.isfinite(vectors).all():
        return "a vector has values that are no numbers"
    if not vectors.any(axis=1).all():
        return "a vector is zero"
    return ""


def same_direction(first: Vectors, second: Vectors) -> bool:
    """Whether both vectors are one text's, but for rounding."""
    if first.shape != second.shape:
        return False
    a, b = first.astype(np.float64), second.astype(np.float64)
    return bool(a @ b >= CANARY_COSINE_MIN * np.linalg.norm(a) * np.linalg.norm(b))


def canary_sha256(vector: Vectors) -> str:
    """Of the direction, rounded so that another processor's last digits do not show."""
    unit = vector.astype(np.float64) / max(float(np.linalg.norm(vector)), 1e-12)
    # Minus zero is zero, in bytes too.
    rounded = np.round(unit, _CANARY_DECIMALS) + 0.0
    return hashlib.sha256(rounded.astype("<f8").tobytes()).hexdigest()
