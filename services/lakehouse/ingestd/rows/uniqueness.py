"""Whether each row has a key of its own, where that was only said: of objects that were registered,
of files that came before keys were looked at across them.

A keys entry hides one row. Were there two with its key, both would go and one would be counted. So
before the first change that is told row by row somebody looks; every later one keeps it so.
"""

from __future__ import annotations

from typing import Final

from lakehouse.contracts.catalog import AsOf, PageRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context
from lakehouse.table.keys import check_key_columns

__all__ = ["check_key_holds"]

# What looks at the keys of all the rows it leaves, if the rows came through here.
_LOOKING: Final = frozenset({"create", "primary_key", "replace"})
_OUTSIDE: Final = frozenset({"register", "import", "dedupe"})


async def check_key_holds(parts: RowParts, ctx: Context, dataset: Dataset) -> None:
    """Raise ``invalid`` naming rows that share a key, or have none, where nobody has looked yet.
    It costs nothing once a row change has been made."""
    check_key_columns(dataset.schema, dataset.primary_key)
    since = dataset.history_since
    if dataset.rows_version > since > 0 or await _was_looked_at(parts, ctx, dataset):
        return
    from lakehouse.ingestd.rows.keying import check_unique  # late: it changes datasets as well

    snapshot, _ = await parts.reader.snapshot(ctx, dataset.name)
    await check_unique(parts, ctx, snapshot, dataset.primary_key)


async def _was_looked_at(parts: RowParts, ctx: Context, dataset: Dataset) -> bool:
    if not dataset.row_count and dataset.row_count is not None:
        return True
    point = PageRequest(dataset.name, AsOf(version=dataset.history_since), limit=1)
    try:
        entries = (await parts.catalog.versions(ctx, point)).versions
    except LakehouseError as error:
        if error.kind is not ErrorKind.NOT_FOUND:
            raise
        return False
    first = entries[0] if entries else None
    return (
        first is not None
        and first.version == dataset.history_since
        and first.operation in _LOOKING
        and first.source not in _OUTSIDE
    )
