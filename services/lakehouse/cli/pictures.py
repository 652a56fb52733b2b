"""Files that commands write for people: pages and pictures."""

from __future__ import annotations

from pathlib import Path

from lakehouse.errors import ErrorKind, LakehouseError


def write_text(path: Path, text: str) -> None:
    """Raises ``invalid`` where the file cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the file cannot be written",
            path=str(path),
            reason=(error.strerror or "").lower(),
        ) from error
