"""The three ways a commit may end that are not its own fault."""

from __future__ import annotations

from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.record import Record

RETRY_SECONDS: Final = 1


def fenced(other: Record | None = None) -> LakehouseError:
    """The error of a writer whose ledger another has taken over."""
    error = LakehouseError(
        ErrorKind.FENCED,
        "another writer has taken over the ledger",
        hint="this node must stop; ask the holder",
    )
    if other is not None:
        error.fields |= {"holder": other.writer.writer_id, "epoch": other.epoch}
    return error


def unknown() -> LakehouseError:
    """The honest answer while a slot is not settled."""
    return LakehouseError(
        ErrorKind.UNKNOWN,
        "the outcome of the commit is not known",
        commit_state="unknown",
        hint="repeat the request with the same idempotency key",
    )


def unavailable(message: str) -> LakehouseError:
    """A definite no: nothing was written, try again."""
    return LakehouseError(ErrorKind.UNAVAILABLE, message, retry_after_seconds=RETRY_SECONDS)
