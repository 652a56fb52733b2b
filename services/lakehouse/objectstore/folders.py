"""Scratch folders of one process, cleared away by the next one after a crash."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from pathlib import Path

from lakehouse.kit.blocking import run_blocking

_LOCK = ".lock"


class Claim:
    """A folder of our own below ``parent``, held by a file lock as long as the process lives.

    Folders whose holder is gone are removed, so a kill -9 leaves nothing for long; two nodes that
    share ``parent`` do not touch each other's.
    """

    def __init__(self, parent: str, name: str) -> None:
        root = Path(parent).absolute()
        root.mkdir(parents=True, exist_ok=True)
        for other in sorted(root.iterdir()):
            if other.is_dir():
                _remove_if_abandoned(other)
        self.path = root / name
        self.path.mkdir()
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Remove the folder and all in it; idempotent."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


async def claim(parent: str, name: str) -> Claim:
    """A ``Claim`` made off the loop; a caller that is cancelled meanwhile leaves none behind."""
    making = asyncio.ensure_future(run_blocking(Claim, parent, name))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        (await making).release()
        raise


def _remove_if_abandoned(folder: Path) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # not one of ours, or being made right now
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass  # its holder lives
    finally:
        os.close(lock)
