"""The catalog's state as tables and back: the Parquet manifests of ADR-002.

Parts: ``state-*`` (kind, key, value as JSON: names, documents and other small things),
``objects``, ``times-*``, and by dataset id ``datasets-*`` (a manifest a row), ``revisions-*``,
``files-*``, ``removed-*``. Where a part ends depends on what is in it, not on what stands before
it, so that the parts that did not change are the same bytes again.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from immutables import Map

from lakehouse.catalogd.checkpoint_rows import (
    REVISION_SCHEMA,
    STATE_KINDS,
    conform_revisions,
    decode_dataset,
    decode_pending,
    decode_state,
    encode_dataset,
    encode_revisions,
    encode_state,
)
from lakehouse.catalogd.codec import decode_change
from lakehouse.catalogd.draft import Draft
from lakehouse.catalogd.files import Segment
from lakehouse.catalogd.filetable import FILE_SCHEMA, conform, encode_files
from lakehouse.catalogd.persistent import SortedNames, Vector
from lakehouse.catalogd.placing import counted
from lakehouse.catalogd.state import Broken, CatalogState, DatasetState, Names
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.machine import Entry, Part
from lakehouse.ledger.sessions import dump_objects, load_objects
from lakehouse.model.refs import PRIMARY, name_key

__all__ = ["FORMAT", "dump_state", "load_state"]

FORMAT: Final = 2
"""2: files have contents and a seq of their own. A reader of 1 would count keys as rows."""
_TIMES_A_PART: Final = 1 << 18
_DATASETS_A_CUT: Final = 8192
_PART_BYTES: Final = 24 << 20
_PARTS: Final = frozenset(
    {"times", "objects", "state", "datasets", "revisions", "files", "removed"}
)
_BIG_FILES: Final = 16_384
_BIG_FILES_A_PART: Final = 32_768

T = TypeVar("T")


def _grouped(items: Iterable[tuple[str, int, T]]) -> Iterator[list[tuple[str, T]]]:
    """Runs of (id, bytes, item): a run ends after an id whose hash says so, or when full."""
    run: list[tuple[str, T]] = []
    size = 0
    for dataset_id, size_bytes, item in items:
        if run and size + size_bytes > _PART_BYTES:
            yield run
            run, size = [], 0
        run.append((dataset_id, item))
        size += size_bytes
        if zlib.crc32(dataset_id.encode()) % _DATASETS_A_CUT == 0:
            yield run
            run, size = [], 0
    if run:
        yield run


def _with_ids(table: pa.Table, ids: Sequence[str], lengths: Sequence[int]) -> pa.Table:
    """``table`` with a first column ``dataset_id``: each id as many times as its length says."""
    ends, total = [], 0
    for length in lengths:
        total += length
        ends.append(total)
    runs = pa.RunEndEncodedArray.from_arrays(pa.array(ends, pa.int64()), pa.array(ids, pa.string()))
    return table.add_column(0, "dataset_id", pc.run_end_decode(runs))


def _segment_tables(segments: Iterable[Segment]) -> pa.Table:
    """All segments in one table; those that are values are encoded together."""
    tables: list[pa.Table] = []
    files: list[Any] = []
    added: list[int] = []

    def flush() -> None:
        if files:
            tables.append(encode_files(files, added))
            files.clear()
            added.clear()

    for segment in segments:
        if segment.held_as_table:
            flush()
            tables.append(segment.table)
        else:
            files.extend(segment.values[0])
            added.extend(segment.values[1])
    flush()
    return pa.concat_tables(tables).combine_chunks() if tables else FILE_SCHEMA.empty_table()


def _segments(state: CatalogState, dataset_id: str) -> tuple[Segment, ...]:
    dataset = state.datasets.get(dataset_id)
    if dataset is not None:
        return dataset.log.segments
    files = state.broken[dataset_id].files
    return () if files is None else (Segment(None, files),)


def _file_parts(state: CatalogState, ids: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    pooled: list[tuple[str, int, tuple[Segment, ...]]] = []
    big: list[str] = []
    for dataset_id in ids:
        segments = _segments(state, dataset_id)
        count = sum(segment.count for segment in segments)
        if count > _BIG_FILES:
            big.append(dataset_id)
        elif count:
            stats = len(segments[0].row(0)[0].stats) if count > 1 else 1
            pooled.append((dataset_id, count * (300 + 80 * stats), segments))
    for run in _grouped(pooled):
        table = _segment_tables(segment for _, segments in run for segment in segments)
        counts = [sum(segment.count for segment in segments) for _, segments in run]
        yield _tag(run[0][0]), _with_ids(table, [each for each, _ in run], counts)
    for dataset_id in big:
        yield from _big_parts(dataset_id, _segments(state, dataset_id))


def _big_parts(dataset_id: str, segments: tuple[Segment, ...]) -> Iterator[tuple[str, pa.Table]]:
    """A large dataset in parts of its own, cut at fixed ordinals."""
    table = _segment_tables(segments)
    width = max(1, table.nbytes // len(table))
    rows = _BIG_FILES_A_PART
    while rows > 1 and rows * width > _PART_BYTES:
        rows //= 2
    blocks = pc.run_end_encode(pc.divide(table.column("ordinal").combine_chunks(), rows))
    blocks = blocks.chunk(0) if isinstance(blocks, pa.ChunkedArray) else blocks
    start = 0
    for block, end in zip(blocks.values.to_pylist(), blocks.run_ends.to_pylist(), strict=True):
        part = table.slice(start, end - start).combine_chunks()
        name = f"{_tag(dataset_id)}-{rows:06d}-{block:08d}"
        yield name, _with_ids(part, [dataset_id], [end - start])
        start = end


def _dataset_parts(state: CatalogState, ids: Sequence[str]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """(manifests, revisions) of each run of datasets."""

    def rows() -> Iterator[tuple[str, int, tuple[str, bytes, pa.Table | DatasetState]]]:
        for dataset_id in ids:
            broken = state.broken.get(dataset_id)
            if broken is not None:
                yield dataset_id, 2 * len(broken.body), (broken.name, broken.body, broken.revisions)
                continue
            dataset = state.datasets[dataset_id]
            if not dataset.encoded:
                row = encode_dataset(dataset)
                dataset.encoded.append(orjson.dumps(row, option=orjson.OPT_SORT_KEYS))
            body = dataset.encoded[0]
            name = dataset.now.head.name
            yield dataset_id, 2 * len(body) + 200 * len(dataset.history), (name, body, dataset)

    for run in _grouped(rows()):
        names = [each for each, _ in run]
        manifests = pa.table(
            {
                "id": pa.array(names, pa.string()),
                "name": pa.array([row[0] for _, row in run], pa.string()),
                "body": pa.array([row[1] for _, row in run], pa.large_binary()),
            }
        )
        yield manifests, encode_revisions([(each, row[2]) for each, row in run])


def _removed_table(state: CatalogState, ids: Sequence[str]) -> pa.Table | None:
    owners: list[str] = []
    lengths: list[int] = []
    pairs: list[tuple[int, int]] = []
    for dataset_id in ids:
        dataset = state.datasets.get(dataset_id)
        removed = state.broken[dataset_id].removed if dataset is None else dataset.log.removed
        if removed:
            owners.append(dataset_id)
            lengths.append(len(removed))
            pairs.extend(sorted(removed.items()))
    if not pairs:
        return None
    table = pa.table(
        {
            "ordinal": pa.array([pair[0] for pair in pairs], pa.int64()),
            "version": pa.array([pair[1] for pair in pairs], pa.int64()),
        }
    )
    return _with_ids(table, owners, lengths)


def _time_parts(state: CatalogState) -> Iterator[Part]:
    times, start = list(state.times), state.times.start
    first = start // _TIMES_A_PART
    for block in range(first, (start + len(times)) // _TIMES_A_PART + 1):
        low, high = block * _TIMES_A_PART - start, (block + 1) * _TIMES_A_PART - start
        values = times[max(0, low) : max(0, high)]
        if values:
            yield Part(f"times-{block:06d}", pa.table({"ts_us": pa.array(values, pa.int64())}))


def _tag(*first: str) -> str:
    """A part is named by the first thing in it: parts before it may come and go."""
    return hashlib.sha256("/".join(first).encode()).hexdigest()[:16]


def dump_state(state: CatalogState) -> list[Part]:
    """The whole state as parts; the same state gives the same parts. Raises ``conflict`` for a
    state that was loaded from more than this version knows: writing it would lose that."""
    if state.unknown:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the checkpoint was written by a newer version and cannot be continued",
            unknown=", ".join(state.unknown[:10]),
            hint="upgrade this node",
        )
    ids = sorted([*state.datasets, *state.broken])
    parts = [*_time_parts(state), Part("objects", dump_objects(state.objects))]
    state_rows: Iterator[tuple[str, str, bytes]] = encode_state(state, FORMAT)
    sized = ((key, len(key) + len(value), (kind, value)) for kind, key, value in state_rows)
    for run in _grouped(sized):
        table = pa.table(
            {
                "kind": pa.array([row[0] for _, row in run], pa.string()),
                "key": pa.array([key for key, _ in run], pa.string()),
                "value": pa.array([row[1] for _, row in run], pa.large_binary()),
            }
        )
        parts.append(Part(f"state-{_tag(run[0][1][0], run[0][0])}", table))
    for manifests, revisions in _dataset_parts(state, ids):
        tag = _tag(manifests.column("id")[0].as_py())
        parts.append(Part(f"datasets-{tag}", manifests))
        parts.append(Part(f"revisions-{tag}", revisions))
    for tag, table in _file_parts(state, ids):
        parts.append(Part(f"files-{tag}", table))
    removed = _removed_table(state, ids)
    if removed is not None:
        parts.append(Part("removed-all", removed))
    return parts


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of several parts by dataset id; a dataset may stand in more than one part."""

    by_id: dict[str, list[pa.Table]]

    @staticmethod
    def of(tables: Iterable[pa.Table]) -> _Rows:
        by_id: dict[str, list[pa.Table]] = {}
        for table in tables:
            rest = table.drop_columns(["dataset_id"]).combine_chunks()
            runs = pc.run_end_encode(table.column("dataset_id").combine_chunks())
            for run in runs.chunks if isinstance(runs, pa.ChunkedArray) else [runs]:
                start = 0
                for dataset_id, end in zip(
                    run.values.to_pylist(), run.run_ends.to_pylist(), strict=True
                ):
                    by_id.setdefault(dataset_id, []).append(rest.slice(start, end - start))
                    start = end
        return _Rows(by_id)

    def get(self, dataset_id: str) -> pa.Table | None:
        found = self.by_id.get(dataset_id)
        if found is None or len(found) == 1:
            return found[0] if found else None
        return pa.concat_tables(found).combine_chunks()


def _histories(tables: Iterable[pa.Table]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of ``REVISION_SCHEMA`` by dataset id; made a column at a time."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for table in tables:
        columns = [table.column(field.name).to_pylist() for field in REVISION_SCHEMA]
        ids = table.column("dataset_id").to_pylist()
        for dataset_id, row in zip(ids, zip(*columns, strict=True), strict=True):
            found.setdefault(dataset_id, []).append(row)
    return found


def _named(parts: Mapping[str, pa.Table], prefix: str) -> list[pa.Table]:
    return [parts[name] for name in sorted(parts) if name.startswith(prefix)]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Hundreds of thousands of small values are made and none is garbage: walking them again and
    again to learn so took two thirds of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_state(parts: Mapping[str, pa.Table]) -> CatalogState:
    """The inverse of ``dump_state``. A manifest that cannot be read is kept as ``Broken``."""
    with _without_collector():
        return _load(parts)


def _load(parts: Mapping[str, pa.Table]) -> CatalogState:
    rows = [row for t in _named(parts, "state-") for row in _triples(t, "kind", "key", "value")]
    unknown = [name for name in parts if name.partition("-")[0] not in _PARTS]
    unknown += sorted({kind for kind, _, _ in rows} - STATE_KINDS)
    state, start = decode_state(rows, FORMAT)
    state = replace(state, objects=load_objects(parts["objects"]))
    times = [each for t in _named(parts, "times-") for each in t.column("ts_us").to_pylist()]
    past = [conform_revisions(table) for table in _named(parts, "revisions-")]
    revisions, histories = _Rows.of(past), _histories(past)
    tables = [_conformed(table) for table in _named(parts, "files-")]
    files, elsewhere = _Rows.of(tables), _elsewhere(tables)
    removed = _Rows.of(_named(parts, "removed-"))
    pending = decode_pending(rows)
    datasets: dict[str, DatasetState] = {}
    broken: dict[str, Broken] = {}
    for table in _named(parts, "datasets-"):
        for dataset_id, name, body in _triples(table, "id", "name", "body"):
            log, gone = files.get(dataset_id), _removed_map(removed.get(dataset_id))
            history = histories.get(dataset_id, [])
            try:
                stored = (log, elsewhere.get(dataset_id, frozenset()))
                datasets[dataset_id] = decode_dataset(
                    dataset_id, orjson.loads(body), history, stored, gone
                )
            except (LakehouseError, ValueError, KeyError, TypeError, IndexError) as error:
                kept = revisions.get(dataset_id)
                kept = REVISION_SCHEMA.empty_table() if kept is None else kept
                waiting = pending.get(dataset_id, ())
                keys = _keys_of(log, waiting)
                broken[dataset_id] = Broken(name, body, kept, log, gone, str(error), waiting, keys)
    whole = _assembled(state, Vector.of(times, start), datasets, broken)
    state = _caught_up(whole, pending)
    return replace(state, unknown=tuple(unknown), placed=counted(state.datasets.values()))


def _elsewhere(tables: Iterable[pa.Table]) -> dict[str, frozenset[str]]:
    """Dataset id -> the buckets of its files, but for the primary one; found a part at a time."""
    found: dict[str, frozenset[str]] = {}
    for table in tables:
        pairs = table.select(["dataset_id", "bucket"])
        pairs = pairs.filter(pc.not_equal(pairs.column("bucket"), PRIMARY))
        for dataset_id, bucket in _pairs(pairs.group_by(["dataset_id", "bucket"]).aggregate([])):
            found[dataset_id] = found.get(dataset_id, frozenset()) | {bucket}
    return found


def _pairs(table: pa.Table) -> Iterator[tuple[str, str]]:
    columns = (table.column(name).to_pylist() for name in ("dataset_id", "bucket"))
    return zip(*columns, strict=True)


def _keys_of(files: pa.Table | None, pending: Iterable[Entry]) -> frozenset[str]:
    """Objects that a manifest which cannot be read may name."""
    keys = set() if files is None else set(files.column("key").to_pylist())
    for entry in pending:
        for change in entry.changes:
            keys.update(str(file["key"]) for file in change.get("files", ()))
    return frozenset(keys)


def _caught_up(state: CatalogState, pending: Mapping[str, tuple[Entry, ...]]) -> CatalogState:
    """With the commits that were kept for manifests which can be read again."""
    readable = {each: entries for each, entries in pending.items() if each in state.datasets}
    if not readable:
        return state
    whole = state
    for entry in sorted(itertools.chain(*readable.values()), key=lambda each: each.seq):
        draft = Draft(state, entry.seq, entry.ts_us, entry.actor, entry.request_id)
        for change in entry.changes:
            draft.apply(decode_change(change))
        state = draft.finish()
    datasets = state.datasets
    for dataset_id in readable:
        if dataset_id in datasets and state.dirty.get(dataset_id, state.version) <= (
            horizon := state.objects.horizon
        ):
            # Given up while nobody could read it: what it names below the horizon may be gone.
            pins = state.pins_of(dataset_id)
            log = datasets[dataset_id].log.without_dead(horizon, pins)
            datasets = datasets.set(dataset_id, replace(datasets[dataset_id], log=log))
    return replace(state, version=whole.version, times=whole.times, datasets=datasets)


def _assembled(
    state: CatalogState,
    times: Vector[int],
    datasets: dict[str, DatasetState],
    broken: dict[str, Broken],
) -> CatalogState:
    live = [(name_key(each.now.head.name), each.id) for each in datasets.values() if each.live]
    gone = [(name_key(each.now.head.name), each.id) for each in datasets.values() if not each.live]
    live.extend((name_key(each.name), dataset_id) for dataset_id, each in broken.items())
    names = Names(state.names.holders, SortedNames.of(live), SortedNames.of(gone))
    return replace(state, times=times, datasets=Map(datasets), names=names, broken=Map(broken))


def _triples(table: pa.Table, *names: str) -> Iterator[tuple[str, str, bytes]]:
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def _conformed(table: pa.Table) -> pa.Table:
    return conform(table).add_column(0, "dataset_id", table.column("dataset_id"))


def _removed_map(table: pa.Table | None) -> Map[int, int]:
    if table is None:
        return Map()
    ordinals, versions = table.column("ordinal").to_pylist(), table.column("version").to_pylist()
    return Map(zip(ordinals, versions, strict=True))
