"""On whose behalf a task works."""

from __future__ import annotations

import asyncio

from lakehouse.kit.acting import Acting, act_as, acting


def test_nobody_acts_unless_said() -> None:
    assert acting() == Acting("", "")


def test_the_innermost_counts_and_the_outer_comes_back() -> None:
    with act_as("anna", "r-1"):
        assert acting() == Acting("anna", "r-1")
        with act_as("catalogd"):
            assert acting() == Acting("catalogd", "")
        assert acting() == Acting("anna", "r-1")
    assert acting() == Acting()


async def test_tasks_made_inside_inherit_it_for_good() -> None:
    going = asyncio.Event()

    async def work() -> Acting:
        await going.wait()
        return acting()

    with act_as("janitor"):
        task = asyncio.create_task(work())
    other = asyncio.create_task(work())
    going.set()
    assert (await task, await other) == (Acting("janitor"), Acting())


def test_an_error_leaves_nobody_behind() -> None:
    try:
        with act_as("anna"):
            raise ValueError
    except ValueError:
        assert acting() == Acting()
