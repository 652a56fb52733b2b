"""Blocking or CPU-heavy calls off the event loop, and nothing else."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def run_blocking(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``function`` in the loop's default thread pool; its exception is raised here."""
    return await asyncio.to_thread(function, *args, **kwargs)


async def run_in(
    executor: Executor, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> R:
    """Run ``function`` in ``executor``, for work that needs a bound of its own."""
    call = functools.partial(function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(executor, call)
