"""Texts to vectors on this machine's processor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from lakehouse_embedder.graph import HIDDEN, minilm
from lakehouse_embedder.weights import Weights

Vectors = npt.NDArray[np.float32]

CONTEXT: Final = 256
_TOKENS_AT_ONCE: Final = 2048
_TEXTS_AT_ONCE: Final = 64
_QUIET: Final = 3


class TooLong(Exception):
    """A text has more tokens than the model sees, and was not to be cut."""


class MiniLM:
    """all-MiniLM-L6-v2: 384 dimensions, texts of up to 256 tokens. Not for several threads at once.

    Args:
        threads: that compute; 0 is one a core.
    """

    dimensions: Final = HIDDEN

    def __init__(self, weights: Weights, threads: int = 0) -> None:
        self._tokenizer = Tokenizer.from_file(str(weights.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.log_severity_level = _QUIET
        # Threads that wait do not turn in circles: other processes need the cores too.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(weights.path.parent)
        )
        self._session = onnxruntime.InferenceSession(
            minilm(weights), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, texts: Sequence[str], *, truncate: bool = True) -> tuple[Vectors, int]:
        """(texts, 384), not normalised, and how many tokens were looked at. Raises ``TooLong``."""
        rows = [one.ids for one in self._tokenizer.encode_batch_fast(list(texts))]
        if not truncate and any(len(row) > CONTEXT for row in rows):
            raise TooLong
        # The last token marks the end and stays.
        rows = [row if len(row) <= CONTEXT else [*row[: CONTEXT - 1], row[-1]] for row in rows]
        found = np.empty((len(rows), HIDDEN), np.float32)
        for batch in batches([len(row) for row in rows]):
            found[batch] = self._run([rows[place] for place in batch])
        return found, sum(map(len, rows))

    def _run(self, rows: Sequence[Sequence[int]]) -> Vectors:
        lengths = np.array([len(row) for row in rows], np.int32)
        mask = (np.arange(lengths.max())[None, :] < lengths[:, None]).astype(np.int32)
        ids = np.zeros(mask.shape, np.int32)
        ids[mask.astype(bool)] = np.concatenate([np.asarray(row, np.int32) for row in rows])
        given = {
            "ids": ids,
            "types": np.zeros_like(ids),
            "mask": mask,
            "shares": (mask / lengths[:, None]).astype(np.float32)[:, None, :],
        }
        (pooled,) = self._session.run(["pooled"], given)
        found: Vectors = pooled[:, 0, :]
        return found


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Places of texts of about the same length, as many as are computed at once."""
    found: list[list[int]] = []
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        # The longest comes last, and all others are filled up to it.
        if batch and (len(batch) + 1) * lengths[place] > _TOKENS_AT_ONCE:
            found.append(batch)
            batch = []
        batch.append(place)
        if len(batch) == _TEXTS_AT_ONCE:
            found.append(batch)
            batch = []
    return [*found, batch] if batch else found
