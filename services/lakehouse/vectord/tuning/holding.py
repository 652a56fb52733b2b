"""Whether a run is still run: its process holds a file locked meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

__all__ = ["Hold", "forget", "is_held", "left"]


def _file(folder: str, run: str) -> Path:
    return Path(folder, f"{run}.running")


class Hold:
    """A run of this process, until ``release`` or the end of the process, whichever way it ends. A
    folder that cannot be written holds nothing, nor does "": then time alone tells."""

    def __init__(self, folder: str, run: str) -> None:
        self._path = _file(folder, run)
        self._descriptor = -1
        if not folder:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Idempotent."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
        self._descriptor = -1


def is_held(folder: str, run: str) -> bool | None:
    """Whether a process of this machine is at it; None where nothing is known here."""
    if not folder:
        return None
    path = _file(folder, run)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Shared: who looks must not look like one who runs.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def left(folder: str) -> list[str]:
    """Runs that processes of this machine began and did not end."""
    if not folder:
        return []
    found = (path.stem for path in Path(folder).glob("*.running"))
    return sorted(run for run in found if is_held(folder, run) is False)


def forget(folder: str, run: str) -> None:
    """It was noted that the run has ended."""
    if not folder:
        return
    with contextlib.suppress(OSError):
        _file(folder, run).unlink(missing_ok=True)
