"""Collapsing datasets that share a name (ADR-020): which is kept, what moves into it. Pure.

Only a catalog that was imported has such names. One commit does all of it, so a crash leaves
either everything or nothing. No reachable row is lost: what the others name and the kept one does
not is added to it; what cannot be joined is left alone and reported: another schema, damage, or row
changes, whose keys hide rows of their own dataset alone and whose journal is of it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import orjson

from lakehouse.catalogd.preference import preferred
from lakehouse.catalogd.state import CatalogState, DatasetState
from lakehouse.contracts.catalog import DedupeGroup
from lakehouse.model.changes import AddFiles, Change, DropDataset
from lakehouse.model.dataset import ROWS, DataFile, DatasetStatus

__all__ = ["DedupePlan", "plan_dedupe"]


@dataclass(frozen=True, slots=True)
class DedupePlan:
    """``digest`` identifies the plan; ``skipped``: names that keep more than one dataset, with
    the reason where it is not their schema or damage."""

    groups: tuple[DedupeGroup, ...]
    skipped: tuple[str, ...]
    changes: tuple[Change, ...]
    digest: str


def _shared_names(state: CatalogState) -> Iterator[tuple[str, list[str]]]:
    for key, entries in itertools.groupby(state.names.order.after(("", "")), lambda each: each[0]):
        ids = [dataset_id for _, dataset_id in entries]
        if len(ids) > 1:
            yield key, ids


def _translated(
    files: Sequence[DataFile], source: DatasetState, kept: DatasetState
) -> tuple[DataFile, ...] | None:
    """``files`` of ``source`` as files of ``kept``: columns by name. None if that is not safe."""
    ours = kept.schema(kept.now.head.schema_id)
    theirs = source.schema(source.now.head.schema_id)
    ids = {column.name: column.id for column in ours.columns}
    moved = {column.id: ids[column.name] for column in theirs.columns}
    found: list[DataFile] = []
    for file in files:
        # A file of ours carries column ids in itself; only a foreign one is read by name.
        same = file.external or all(old == new for old, new in moved.items())
        if file.schema_id != theirs.id or not same:
            return None
        stats = tuple(replace(s, column_id=moved[s.column_id]) for s in file.stats)
        found.append(replace(file, schema_id=ours.id, stats=stats))
    return tuple(found)


def _row_changes(dataset: DatasetState) -> bool:
    return bool(dataset.log.totals.key_files or dataset.log.totals.event_files)


def _skipped(name: str, members: Sequence[DatasetState]) -> str:
    return f"{name}: has row changes" if any(map(_row_changes, members)) else name


def _fold(members: Sequence[DatasetState]) -> tuple[DedupeGroup, list[Change], bool] | None:
    """The group of one name, its changes, and whether some member had to be left alone."""
    sound = [each for each in members if each.now.head.status is DatasetStatus.LIVE]
    kept = preferred(sound)
    if kept is None:
        return None
    head = kept.now.head
    present = [file for file in kept.log.visible() if file.content == ROWS]
    refs = {(file.bucket, file.key) for file in present}
    contents = {file.sha256 for file in present}
    added: list[DataFile] = []
    dropped: list[str] = []
    for member in sorted(sound, key=lambda each: each.id):
        if member.id == kept.id or member.now.head.fingerprint != head.fingerprint:
            continue
        if member.residency != kept.residency:
            continue  # its rows may not be where the kept one's are
        if _row_changes(member) or _row_changes(kept):
            continue
        files = _translated(list(member.log.visible()), member, kept)
        if files is None:
            continue
        for file in files:
            # The same bytes under another key are the same rows: they must not count twice.
            if (file.bucket, file.key) not in refs and file.sha256 not in contents:
                refs.add((file.bucket, file.key))
                contents.add(file.sha256)
                added.append(file)
        dropped.append(member.id)
    if not dropped:
        return None
    changes: list[Change] = []
    if added:
        changes.append(AddFiles(kept.id, tuple(added), operation="dedupe", source="dedupe"))
    changes.extend(DropDataset(each) for each in dropped)
    counted = kept.now.entry.row_count is not None
    group = DedupeGroup(
        name=head.name,
        kept_id=kept.id,
        dropped_ids=tuple(dropped),
        files_conserved=len(present) + len(added),
        rows_conserved=sum(file.rows for file in (*present, *added)),
        reason="has a row count, newest" if counted else "newest; none has a row count",
    )
    return group, changes, len(dropped) + 1 < len(members)


def plan_dedupe(state: CatalogState) -> DedupePlan:
    """What dedupe would do to ``state``; the same state gives the same plan and digest."""
    groups: list[DedupeGroup] = []
    skipped: list[str] = []
    changes: list[Change] = []
    for key, ids in _shared_names(state):
        members = [state.datasets[each] for each in ids if each in state.datasets]
        folded = _fold(members)
        if folded is None:
            skipped.append(_skipped(members[0].now.head.name if members else key, members))
            continue
        group, wanted, rest = folded
        groups.append(group)
        changes.extend(wanted)
        if rest or len(members) < len(ids):
            skipped.append(_skipped(group.name, members))
    facts = [
        [group.kept_id, list(group.dropped_ids), group.files_conserved, group.rows_conserved]
        for group in groups
    ]
    keys = [[f.bucket, f.key] for each in changes if isinstance(each, AddFiles) for f in each.files]
    digest = hashlib.sha256(orjson.dumps([facts, keys])).hexdigest()
    return DedupePlan(tuple(groups), tuple(skipped), tuple(changes), digest)
