"""A query service that comes after the node: waited for, told of, ended."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from lakehouse.contracts.query import RunningRequest, RunningResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.node.late import LateQuery

CTX = Context(ANONYMOUS_OPERATOR, "r")


class Service:
    closed = False

    async def running(self, ctx: Context, request: RunningRequest) -> RunningResult:
        return RunningResult(())

    async def close(self) -> None:
        self.closed = True


async def test_who_asks_early_waits_and_is_answered() -> None:
    service, gate = Service(), asyncio.Event()

    async def load() -> Any:
        await gate.wait()
        return service

    late = LateQuery(load)
    asked = asyncio.create_task(late.running(CTX, RunningRequest()))
    loading = asyncio.create_task(late.load())
    await asyncio.sleep(0)
    assert not asked.done()
    gate.set()
    await loading
    assert await asked == RunningResult(())
    await late.close()
    assert service.closed


async def test_one_that_stops_waiting_takes_nothing_from_the_others() -> None:
    late = LateQuery(_service)
    first = asyncio.create_task(late.running(CTX, RunningRequest()))
    await asyncio.sleep(0)
    first.cancel()
    await late.load()
    assert await late.running(CTX, RunningRequest()) == RunningResult(())


async def _service() -> Any:
    return Service()


async def test_a_failure_reaches_the_node_and_everybody_who_waits() -> None:
    async def load() -> Any:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "no scratch folder")

    late = LateQuery(load)
    asked = asyncio.create_task(late.running(CTX, RunningRequest()))
    with pytest.raises(LakehouseError, match="no scratch folder"):
        await late.load()
    with pytest.raises(LakehouseError, match="no scratch folder"):
        await asked


async def test_a_stop_before_the_end_of_loading_tells_who_waits() -> None:
    async def load() -> Any:
        await asyncio.Event().wait()

    late = LateQuery(load)
    asked = asyncio.create_task(late.running(CTX, RunningRequest()))
    loading = asyncio.create_task(late.load())
    await asyncio.sleep(0)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await late.close()
    with pytest.raises(LakehouseError) as told:
        await asked
    assert cast(LakehouseError, told.value).kind is ErrorKind.UNAVAILABLE
