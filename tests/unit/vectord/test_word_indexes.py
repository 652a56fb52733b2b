"""Indexes of words as they are kept: nothing holds rows that nobody searches any more."""

from __future__ import annotations

import asyncio
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Distance, VectorBackend
from lakehouse.vectord.book import sorted_rows
from lakehouse.vectord.image import Image
from lakehouse.vectord.lexical import lexical as words


def image() -> Image:
    zeros = pa.array([0, 0], pa.int64())
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4, np.float32)), 2)
    rows = {"entity": ["[1]", "[2]"], "chunk": zeros, "start": zeros, "end": zeros}
    rows |= {"text": ["red fox", "hen"], "digest": ["d", "d"], "version": zeros, "vector": vectors}
    table = pa.table(rows)
    empty = Image.of((2, Distance.L2), 0, sorted_rows(table.slice(0, 0)))
    return empty.applied(table, (), 1)


async def test_an_image_whose_index_could_not_be_made_goes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "the disk is full")

    with ThreadPoolExecutor(1) as jobs:
        parts = SimpleNamespace(jobs=jobs, settings=None, ids=None)
        lexical = words.Lexical(cast("Any", parts))
        one = image()
        book = weakref.ref(one.book)
        with monkeypatch.context() as patched:
            patched.setattr(words, "_append", refuse)
            with pytest.raises(LakehouseError, match="disk"):
                await lexical.search(one, VectorBackend.PARQUET, ["fox"], 1)
        # It is tried again, and once it is there it is found in.
        ((rows, _),) = await lexical.search(one, VectorBackend.PARQUET, ["fox"], 1)
        assert rows.tolist() == [0]
        other = image()
        again = weakref.ref(other.book)
        with monkeypatch.context() as patched:
            patched.setattr(words, "_append", refuse)
            with pytest.raises(LakehouseError, match="disk"):
                await lexical.search(other, VectorBackend.PARQUET, ["fox"], 1)
        del one, other, rows
        async with asyncio.timeout(10):
            while book() is not None or again() is not None:
                gc.collect()
                await asyncio.sleep(0.01)
        await lexical.close()
