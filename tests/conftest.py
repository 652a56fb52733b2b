"""What holds for every test: how its examples are drawn, and when it may run a second time."""

from __future__ import annotations

import functools
import gc
import os
import signal
import ssl
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
# These run whole processes (nodes, query workers, embedders, servers) against real clocks beside
# everything else on the machine. One that fails is run once more and named in the summary ("R"); a
# defect that the code has fails again.
WHOLE_PROCESSES = tuple(
    TESTS / name
    for name in (
        *("chaos", "e2e", "conformance", "contracts"),
        *(f"unit/{role}" for role in ("node", "queryd", "sidecar", "vectord")),
    )
)

# A deadline an example measures how busy the machine is; a hang ends by the timeout of the test.
# CI judges a change by the same examples each time; new ones are looked for everywhere else.
settings.register_profile("lakehouse", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("lakehouse")


# A shell that starts the tests in the background has them ignore Ctrl-C, and every process that
# they start; those that are tested must hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A client of httpx reads the root certificates of the whole web when it is made, a node's first
# wait for an answer makes eighty of them, and no test speaks TLS with the world: read once.
ssl.create_default_context = functools.cache(ssl.create_default_context)  # type: ignore[assignment]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: tests wait for a quarter of their time, for servers,
    disks and the pauses of whoever tries again."""
    return max(2, len(os.sched_getaffinity(0)) * 3 // 2)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing of what collecting makes is garbage before the end: looking for some was nearly half
    of its work, and would be of each look for garbage that a test asks for."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    again = pytest.mark.flaky(reruns=1)
    of_processes = functools.cache(
        lambda path: any(path.is_relative_to(at) for at in WHOLE_PROCESSES)
    )
    for item in items:
        if of_processes(item.path):
            item.add_marker(again)
