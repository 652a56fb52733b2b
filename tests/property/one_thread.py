"""Work for threads done on the loop's own, in turns that a seed draws."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

_TURNS: Final = (1, 1, 1, 2, 3)


@contextmanager
def one_thread(chance: random.Random) -> Iterator[None]:
    """Within it no job of the running loop goes to a pool: each is done some turns of the loop
    later, by ``chance``. That is cheaper by what threads wait for each other, and tasks meet in
    orders that a machine at rest never shows. A job that is cancelled before its turn is not done,
    as in a pool that is busy."""
    loop = asyncio.get_running_loop()

    def run(_: object, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        job: asyncio.Future[Any] = loop.create_future()

        def turn(left: int) -> None:
            if left > 1:
                loop.call_soon(turn, left - 1)
            elif not job.cancelled():
                try:
                    job.set_result(call(*args))
                except Exception as error:
                    job.set_exception(error)

        loop.call_soon(turn, chance.choice(_TURNS))
        return job

    loop.run_in_executor = run  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del loop.run_in_executor
