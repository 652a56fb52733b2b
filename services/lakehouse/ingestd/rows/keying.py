"""A primary key for a dataset that has none: all rows are looked at, in bounded memory.

Hashes of keys (8 bytes a row) are sorted, a share of them at a time; only keys whose hash is there
twice are compared by value, so that a chance collision is no finding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.contracts.rows import SetKeyReport, SetKeyRequest
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.ingestd.rows.changing import ATTEMPTS, check_deadline, pause
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.repeating import answered, asked, recall
from lakehouse.kit import tracing
from lakehouse.kit.blocking import run_in
from lakehouse.model.changes import DatasetAt, RowsAt, SetPrimaryKey
from lakehouse.model.dataset import Dataset, DatasetStatus
from lakehouse.model.identity import Context, Scope
from lakehouse.model.schema import Schema
from lakehouse.table.keys import check_key_columns, duplicates, entity_texts, key_hashes

__all__ = ["KeySetter", "check_live", "check_unique"]

_ROUTE: Final = "rows.key"
_NAMED_MAX: Final = 10
_AT_ONCE: Final = 20_000_000
_COMPARED_MAX: Final = 100_000
_BITS: Final = 64
_ROW: Final = "__row"


class KeySetter:
    """The use case behind ``contracts.rows.RowsService.set_key``."""

    def __init__(self, parts: RowParts) -> None:
        self._parts = parts

    async def set_key(self, ctx: Context, request: SetKeyRequest) -> SetKeyReport:
        """See the contract. Reads the key's columns of all rows once."""
        ctx.require(Scope.WRITE)
        with tracing.span("set key"):
            return await self._set_key(ctx, request)

    async def _set_key(self, ctx: Context, request: SetKeyRequest) -> SetKeyReport:
        parts, columns = self._parts, tuple(request.columns)
        commit = asked(ctx, _ROUTE, request)
        checked: tuple[int, str] | None = None
        rows = 0
        conflict: LakehouseError | None = None
        for attempt in range(ATTEMPTS):
            await pause(parts, attempt)
            check_deadline(parts, ctx)
            snapshot, version = await parts.reader.snapshot(ctx, request.dataset)
            known = await recall(parts.catalog, ctx, commit)
            if known is not None:
                return _told_again(known.answer_json, known.version)
            dataset = check_live(snapshot.dataset)
            check_key_columns(dataset.schema, columns)
            if dataset.primary_key == columns:
                return SetKeyReport(dataset.name, version, columns, 0, no_op=True)
            if dataset.primary_key:
                raise _has_another(dataset, columns)
            if checked != (dataset.rows_version, dataset.fingerprint):
                rows = await check_unique(parts, ctx, snapshot, columns)
                checked = (dataset.rows_version, dataset.fingerprint)
            report = SetKeyReport(dataset.name, version, columns, rows)
            change = SetPrimaryKey(
                dataset.id, columns, ctx.source or "", ctx.workspace or "", request.reason
            )
            whole = answered(
                replace(
                    commit,
                    changes=(change,),
                    # The second one: nobody else gives it a key meanwhile.
                    requirements=(
                        RowsAt(dataset.id, dataset.rows_version),
                        DatasetAt(dataset.id, dataset.version),
                    ),
                ),
                report,
            )
            try:
                result = await parts.catalog.commit(ctx, whole)
            except LakehouseError as error:
                if error.kind is not ErrorKind.CONFLICT:
                    raise
                conflict = error
                continue
            if result.replayed and result.answer_json:
                return _told_again(result.answer_json, result.version)
            return replace(report, version=result.version)
        raise conflict or LakehouseError(ErrorKind.INTERNAL, "a key was never set")


@dataclass(slots=True)
class _Seen:
    """What was found in a pass over the rows."""

    rows: int = 0
    hashes: list[pa.Array] = field(default_factory=list)
    suspects: list[pa.Table] = field(default_factory=list)
    nulls: list[int] = field(default_factory=list)
    null_count: int = 0


async def check_unique(
    parts: RowParts, ctx: Context, snapshot: DatasetSnapshot, key: Sequence[str]
) -> int:
    """How many rows there are, if each has a key of its own. Raises ``invalid`` naming up to ten
    keys, and rows by their place in the dataset, from 1."""
    dataset = snapshot.dataset
    total = sum(file.rows for file in snapshot.files)
    shares = max(1, -(-total // _AT_ONCE))
    bits = (shares - 1).bit_length()
    rows = 0
    for share in range(1 << bits):
        seen = _Seen()
        async for table in parts.reader.iterate(snapshot, key):
            check_deadline(parts, ctx)
            await run_in(parts.jobs, _take_hashes, seen, table, dataset.schema, key, (share, bits))
        rows = seen.rows
        if seen.null_count:
            raise _null_keys(dataset, key, seen)
        twice = await run_in(parts.jobs, _repeated, seen.hashes)
        seen.hashes = []
        if len(twice):
            await _compare(parts, ctx, snapshot, key, twice)
    return rows


def _take_hashes(
    seen: _Seen, table: pa.Table, schema: Schema, key: Sequence[str], part: tuple[int, int]
) -> None:
    share, bits = part
    null = pa.repeat(pa.scalar(False), table.num_rows)
    for name in key:
        null = pc.or_(null, pc.is_null(table.column(name).combine_chunks()))
    count = pc.sum(null).as_py() or 0
    if count:
        more = pc.indices_nonzero(null).slice(0, _NAMED_MAX - len(seen.nulls)).to_pylist()
        seen.nulls += [seen.rows + row + 1 for row in more]
        seen.null_count += count
    hashes = key_hashes(table, schema, key)
    if bits:
        mine = pc.equal(pc.shift_right(hashes, pa.scalar(_BITS - bits, pa.uint64())), share)
        hashes = hashes.filter(mine)
    seen.hashes.append(hashes)
    seen.rows += table.num_rows


def _repeated(hashes: Sequence[pa.Array]) -> pa.Array:
    flat = pa.concat_arrays(hashes) if hashes else pa.array([], pa.uint64())
    ordered = flat.take(pc.sort_indices(flat))
    if len(ordered) < 2:
        return ordered.slice(0, 0)
    again = ordered.slice(1)
    return pc.unique(again.filter(pc.equal(again, ordered.slice(0, len(again)))))


async def _compare(
    parts: RowParts, ctx: Context, snapshot: DatasetSnapshot, key: Sequence[str], twice: pa.Array
) -> None:
    """Look at the keys themselves of rows whose hash is there twice. Raises ``invalid``."""
    dataset = snapshot.dataset
    seen = _Seen()

    def take(table: pa.Table) -> int:
        hashes = key_hashes(table, dataset.schema, key)
        rows = pc.indices_nonzero(pc.is_in(hashes, value_set=twice)).cast(pa.int64())
        if len(rows):
            numbers = pc.add(rows, seen.rows + 1)
            seen.suspects.append(table.take(rows).append_column(_ROW, numbers))
        seen.rows += table.num_rows
        return len(rows)

    found = 0
    async for table in parts.reader.iterate(snapshot, key):
        check_deadline(parts, ctx)
        found += await run_in(parts.jobs, take, table)
        if found > _COMPARED_MAX:
            break
    suspects = pa.concat_tables(seen.suspects)
    groups = await run_in(parts.jobs, duplicates, suspects.select(list(key)), key)
    if groups:
        raise _repeated_keys(dataset, key, suspects, groups)


def _repeated_keys(
    dataset: Dataset, key: Sequence[str], suspects: pa.Table, groups: Sequence[Sequence[int]]
) -> LakehouseError:
    heads = suspects.take([group[0] for group in groups[:_NAMED_MAX]])
    texts = entity_texts(heads, dataset.schema, key).to_pylist()
    rows = suspects.column(_ROW).to_pylist()
    named: list[FieldValue] = [
        {"key": text, "rows": [rows[at] for at in group[:_NAMED_MAX]]}
        for text, group in zip(texts, groups, strict=False)
    ]
    return LakehouseError(
        ErrorKind.INVALID,
        "the key is not unique",
        dataset=dataset.name,
        key=list(key),
        count=len(groups),
        duplicates=named,
        hint="choose other key columns, or ingest it anew without the duplicates",
    )


def _null_keys(dataset: Dataset, key: Sequence[str], seen: _Seen) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        "the key is null in some rows",
        dataset=dataset.name,
        key=list(key),
        count=seen.null_count,
        rows=[*seen.nulls],
        hint="choose other key columns, or ingest it anew with a key in every row",
    )


def check_live(dataset: Dataset) -> Dataset:
    """Raise ``conflict`` for a dataset that is not live."""
    if dataset.status is not DatasetStatus.LIVE:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            f"the dataset is {dataset.status.value}",
            dataset=dataset.name,
            hint="have an operator look at it before it is changed",
        )
    return dataset


def _has_another(dataset: Dataset, columns: Sequence[str]) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CONFLICT,
        "the dataset has another primary key",
        dataset=dataset.name,
        primary_key=list(dataset.primary_key),
        wanted=list(columns),
        hint="a key stays; ingest the rows as another dataset to give them another one",
    )


def _told_again(answer: str, version: int) -> SetKeyReport:
    kept = json.loads(answer)
    kept["primary_key"] = tuple(kept["primary_key"])
    return SetKeyReport(**{**kept, "version": version})
