"""The 117,000 glosses of WordNet 3.0, and their vectors by the embedded model: made once, kept
outside the repository.

Where ``wordnet-base`` of Debian is not installed, LAKEHOUSE_WORDNET names a folder with its files.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final

import numpy as np

FOLDER: Final = Path(os.environ.get("LAKEHOUSE_WORDNET", "/usr/share/wordnet"))
KEPT: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lakehouse-bench"
DIMENSIONS: Final = 384
_AT_ONCE: Final = 2_048

Array = np.ndarray[Any, Any]


def texts() -> list[str]:
    """``words: gloss`` of every synset, in the order of the files."""
    found = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (FOLDER / f"data.{part}").read_text("ascii").splitlines():
            fields, bar, gloss = line.partition(" | ")
            if not bar or line.startswith(" "):
                continue
            parts = fields.split()
            words = [parts[4 + 2 * at].replace("_", " ") for at in range(int(parts[3], 16))]
            found.append(f"{', '.join(words)}: {gloss.strip()}")
    return found


def vectors(rows: list[str]) -> Array:
    """(rows, 384) of length 1; embedding them takes some minutes, once."""
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]
    place = KEPT / f"glosses-{digest}.npy"
    if not place.exists():
        from lakehouse_embedder.model import MiniLM
        from lakehouse_embedder.weights import open_weights

        model = MiniLM(open_weights())
        made = np.empty((len(rows), DIMENSIONS), np.float32)
        for start in range(0, len(rows), _AT_ONCE):
            made[start : start + _AT_ONCE] = model.embed(rows[start : start + _AT_ONCE])[0]
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        KEPT.mkdir(parents=True, exist_ok=True)
        whole = place.with_suffix(".part.npy")
        np.save(whole, made)
        whole.replace(place)
    return np.asarray(np.load(place, mmap_mode="r"))
