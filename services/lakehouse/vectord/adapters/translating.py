"""What libraries that are written in Rust raise, as errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lakehouse.errors import ErrorKind, LakehouseError

__all__ = ["translated"]


@contextmanager
def translated(kind: ErrorKind, message: str) -> Iterator[None]:
    """What is raised inside as ``kind``; what is ours already as it is."""
    try:
        yield
    except LakehouseError:
        raise
    except BaseException as error:
        # What such a library did not foresee comes as a panic, which is no Exception.
        panic = type(error).__module__ == "pyo3_runtime"
        if not panic and not isinstance(error, OSError | ValueError | RuntimeError):
            raise
        raise LakehouseError(
            kind, message, reason=str(error)[:200], hint="it is built anew from the rows"
        ) from error
