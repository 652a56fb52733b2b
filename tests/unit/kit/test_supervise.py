"""Supervised tasks do not die in silence."""

from __future__ import annotations

import asyncio

import pytest

from lakehouse.kit.supervise import Supervisor


async def test_the_first_failure_is_reported() -> None:
    supervisor = Supervisor()

    async def fail() -> None:
        raise ValueError("broken")

    supervisor.start("waits", asyncio.Event().wait)  # type: ignore[arg-type]
    supervisor.start("fails", fail)
    error = await asyncio.wait_for(supervisor.failed(), 5)
    assert str(error) == "broken"
    await supervisor.stop()


async def test_stop_ends_every_task_and_may_be_called_twice() -> None:
    supervisor, ended = Supervisor(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    supervisor.start("one", work)
    supervisor.start("two", work)
    await asyncio.sleep(0)
    await supervisor.stop()
    await supervisor.stop()
    assert ended == [True, True]


async def test_names_are_taken_once() -> None:
    supervisor = Supervisor()
    supervisor.start("one", asyncio.Event().wait)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one"):
        supervisor.start("one", asyncio.Event().wait)  # type: ignore[arg-type]
    await supervisor.stop()
