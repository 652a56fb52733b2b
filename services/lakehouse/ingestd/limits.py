"""The one shape of an error about a limit of ``IngestSettings``."""

from __future__ import annotations

from lakehouse.errors import ErrorKind, FieldValue, LakehouseError


def beyond(
    limit: str, maximum: int, message: str, hint: str, /, **fields: FieldValue
) -> LakehouseError:
    """``invalid``: the file will not fit however often it is sent; the setting is named."""
    return LakehouseError(
        ErrorKind.INVALID, message, limit=limit, maximum=maximum, hint=hint, **fields
    )


def unreadable(message: str, hint: str, /, **fields: FieldValue) -> LakehouseError:
    """``invalid``: what the bytes are, where they go wrong, and what to do."""
    return LakehouseError(ErrorKind.INVALID, message, hint=hint, **fields)
