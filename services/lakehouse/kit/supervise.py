"""Tasks that must not die in silence: one of the three places with a broad ``except``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from lakehouse.errors import ErrorKind, LakehouseError

log = logging.getLogger(__name__)


class Supervisor:
    """Runs background tasks and reports the first that fails.

    A supervised task is expected to run until it is cancelled; an exception out of it is logged
    and handed to ``failed``, where the owner of the process decides.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: asyncio.Future[BaseException] | None = None

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` until ``stop``; ``name`` is for the log and must be free."""
        if name in self._tasks:
            raise ValueError(f"a task named {name} runs already")
        self._tasks[name] = asyncio.create_task(self._run(name, work), name=name)

    async def failed(self) -> BaseException:
        """Wait for the first failure (for ever, if there is none)."""
        return await asyncio.shield(self._outcome())

    async def stop(self) -> None:
        """Cancel every task and wait for the end of each; idempotent."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _outcome(self) -> asyncio.Future[BaseException]:
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        return self._failed

    async def _run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # A store lost to another node is no defect: where that was found out tells nothing.
            lost = isinstance(error, LakehouseError) and error.kind is ErrorKind.FENCED
            told = {"task": name, "reason": str(error)}
            log.error("a background task failed", extra=told, exc_info=None if lost else error)
            outcome = self._outcome()
            if not outcome.done():
                outcome.set_result(error)
