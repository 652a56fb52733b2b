"""Texts to vectors on this machine's processor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from lakehouse_embedder.graph import HIDDEN, minilm
from lakehouse_embedder.weights import Weights

Vectors = npt.NDArray[np.float32]

CONTEXT: Final = 256
# What is computed at once then stays in the caches of a core: larger batches are slower.
_TOKENS_AT_ONCE: Final = 512
# Smaller ones waste time on what each costs by itself.
_TOKENS_MIN: Final = 128
_QUIET: Final = 3


class TooLong(Exception):
    """A text has more tokens than the model sees, and was not to be cut."""


class MiniLM:
    """all-MiniLM-L6-v2: 384 dimensions, texts of up to 256 tokens. Not for several threads at once.

    Args:
        threads: that compute, a batch each; 0 is one a core.
    """

    dimensions: Final = HIDDEN

    def __init__(self, weights: Weights, threads: int = 0) -> None:
        self._tokenizer = Tokenizer.from_file(str(weights.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        # A batch a thread: they need not wait for one another, as threads within a batch do.
        options.intra_op_num_threads = 1
        self._count = threads or len(os.sched_getaffinity(0))
        self._threads = ThreadPoolExecutor(self._count, "batch")
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
        parts = batches([len(row) for row in rows], self._count)
        asked = ([rows[place] for place in batch] for batch in parts)
        for batch, vectors in zip(parts, self._threads.map(self._run, asked), strict=True):
            found[batch] = vectors
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


def batches(lengths: Sequence[int], threads: int = 1) -> list[list[int]]:
    """Places of texts of about the same length, as many as are computed at once; the longest first,
    and more than one for each of several threads, so that all are done at about the same time."""
    most = _TOKENS_AT_ONCE
    if threads > 1:
        most = min(most, max(_TOKENS_MIN, sum(lengths) // (2 * threads)))
    found: list[list[int]] = []
    # All of a batch are filled up to its longest, which comes first.
    longest = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if not found or (len(found[-1]) + 1) * longest > most:
            found.append([])
            longest = lengths[place]
        found[-1].append(place)
    return found
