"""Records that are large: composed beside the loop, and counted where they are lost."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.contracts import vectors as c
from lakehouse.vectord.records import recorder as recording
from lakehouse.vectord.records.values import INLINE_BYTES_MAX, Record, record_of
from lakehouse.vectord.retrieval.searched import Searched
from unit.vectord.records_support import figures, got, memory, searched


def with_texts(size: int, hits: int = 20) -> Searched:
    one = searched(hits=hits)
    told = tuple(replace(hit, text="x" * size) for hit in one.hits.hits)
    return replace(one, hits=c.Hits(told, one.id))


def large() -> Searched:
    """More than an event has room for."""
    return searched(text="red fox " * INLINE_BYTES_MAX, hits=1)


async def test_long_texts_are_hashed_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: dict[str, bool] = {}

    def noting(one: Searched) -> Record:
        here[one.id] = threading.current_thread() is threading.main_thread()
        return record_of(one)

    monkeypatch.setattr(recording, "record_of", noting)
    async with memory(tmp_path) as place:
        recorder, _ = place.process()
        await recorder.start()
        long, short = with_texts(100_000), with_texts(100)
        recorder.note([long, short])
        await recorder.flush()
    assert here == {long.id: False, short.id: True}


async def test_what_is_cut_off_at_the_end_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_HASTE_SECONDS", 0.05)
    monkeypatch.setattr(recording, "_CLOSE_SECONDS", 0.05)
    async with memory(tmp_path) as place:
        recorder, _ = place.process()
        await recorder.start()
        monkeypatch.setattr(recorder.place, "put", _never)
        recorder.note([large(), large()])
        await recorder.flush(0.2)
        await recorder.close()
        assert recorder.dropped == 2
        assert figures(recorder)["lakehouse_retrievals_dropped"][("closed",)] == 2


async def test_who_does_not_wait_for_a_flush_ends_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list waits a moment for what is on its way; a bucket may take longer."""
    async with memory(tmp_path) as place:
        recorder, _ = place.process()
        await recorder.start()
        put, go = recorder.place.put, asyncio.Event()

        async def slowly(known: str, body: bytes) -> None:
            await go.wait()
            await put(known, body)

        monkeypatch.setattr(recorder.place, "put", slowly)
        one = large()
        recorder.note([one])
        await recorder.flush(0.2)
        go.set()
        await recorder.flush(5.0)
        _, elsewhere = place.process()
        assert (await got(elsewhere, one.id)).text == one.request.queries[0].text
        assert recorder.dropped == 0


async def _never(*_: Any) -> None:
    await asyncio.Event().wait()
