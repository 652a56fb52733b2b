"""What objects a commit may add, remove and rewrite. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from lakehouse.catalogd.bounds import check_file, check_number, check_sums, check_texts
from lakehouse.catalogd.draft import Draft, Work
from lakehouse.catalogd.present import alive, conflicting, invalid
from lakehouse.catalogd.residing import check_members
from lakehouse.catalogd.rewriting import check_rewrite
from lakehouse.ledger.sessions import may_add
from lakehouse.model import changes as change_types
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, DataFile, objects_of, rows_key, stats_key
from lakehouse.model.refs import check_foreign_key, check_key

__all__ = ["check_add", "check_remove", "check_replacement"]

_FILES_MAX: Final = 100_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# What is done to datasets without a key, and with events to those with one.
_KEYLESS: Final = frozenset({"append", "replace", "restore"})


def _check_file(draft: Draft, work: Work, file: DataFile) -> None:
    check_key(file.key)
    if not _SHA256.fullmatch(file.sha256) or file.size_bytes < 0 or file.rows < 0:
        raise invalid("a file needs its size, rows and sha256", key=file.key)
    check_file(file)
    if not 1 <= file.schema_id <= len(work.base.schemas):
        raise invalid(
            "a file has a schema id that the dataset does not have",
            key=file.key,
            schema_id=file.schema_id,
            schemas=len(work.base.schemas),
        )
    parts = file.key.split("/")
    ours = len(parts) == 4 and parts[0] == "datasets"
    beside = file.stats_sha256
    sound = not file.external and rows_key(stats_key(file.key)) == file.key
    if beside and not (sound and _SHA256.fullmatch(beside)):
        raise invalid("only objects of ours have statistics beside them", key=file.key)
    if file.external:
        check_foreign_key(file.key)
        return
    if not ours or rows_key(file.key) != file.key:
        raise invalid(
            "an object of ours is at datasets/<session>/<dataset>/<file>.parquet",
            key=file.key,
            hint="a foreign object is added with external set",
        )
    if file.key in draft.state.orphaned:
        raise conflicting("the object was given up", key=file.key)


def _check_new(draft: Draft, work: Work, files: Sequence[DataFile], *, alone: bool) -> None:
    """Raise unless ``files`` may be named by the dataset; ``alone``: none of before will live."""
    if len(files) > _FILES_MAX:
        raise invalid("too many files in one change", files=len(files), max=_FILES_MAX)
    for file in files:
        _check_file(draft, work, file)
    check_members(draft, work, files)
    keys = [file.key for file in files]
    taken = None if alone else work.log.first_living(keys)
    if taken is not None or len(set(keys)) != len(keys):
        raise conflicting(
            "the object is already a file of the dataset, or named twice",
            dataset_id=work.base.id,
            key=taken,
        )
    ours = [key for file in files if not file.external for key in objects_of(file)]
    may_add(draft.state.objects, ours, draft.state.names_object)


def _check_contents(draft: Draft, work: Work, change: change_types.AddFiles) -> None:
    """Keys hide rows that can be seen, and only with a primary key is there a row to tell of."""
    odd = next((file for file in change.files if file.content != ROWS), None)
    if odd is None:
        _check_unkeyed(work, change)
        return
    if not work.head.primary_key and work.base.id not in draft.keyed:
        raise invalid(
            "only a dataset with a primary key has row changes",
            dataset=work.head.name,
            key=odd.key,
            content=odd.content,
            hint="declare a primary key first",
        )
    hidden = sum(file.rows for file in change.files if file.content == KEYS)
    seen = 0 if change.replace else work.log.totals.rows
    if hidden > seen:
        raise invalid(
            "keys hide more rows than there are", dataset=work.head.name, keys=hidden, rows=seen
        )
    if any(file.external for file in change.files if file.content != ROWS):
        raise invalid("keys and events are objects of ours", dataset=work.head.name)


def _check_unkeyed(work: Work, change: change_types.AddFiles) -> None:
    """Rows alone come from who read the dataset without a key: had it got one meanwhile, nobody
    would have looked whether the rows have keys of their own."""
    keyed = bool(work.base.history) and bool(work.base.now.head.primary_key)
    if keyed and change.files and change.operation in _KEYLESS:
        raise conflicting(
            "the dataset has got a primary key, and the rows come without their events",
            dataset=work.head.name,
            primary_key=list(work.head.primary_key),
            hint="read the dataset again: its rows are told apart by key now",
        )


def check_add(draft: Draft, change: change_types.AddFiles) -> None:
    work = alive(draft, change.dataset_id)
    check_texts(
        operation=change.operation,
        source=change.source,
        content_digest=change.content_digest,
        workspace=change.workspace,
        reason=change.reason,
    )
    _check_new(draft, work, change.files, alone=change.replace)
    _check_contents(draft, work, change)
    after = work.log.totals.plus(change.files)
    check_sums(after.size_bytes, work.log.totals.rows)
    added = sum(file.rows for file in change.files if file.content == ROWS)
    check_sums(0, work.log.totals.rows + added)
    check_sums(0, work.rows_added + added)
    check_sums(0, work.rows_removed + sum(file.rows for file in change.files))


def check_remove(draft: Draft, change: change_types.RemoveFiles) -> None:
    """Rows of which keys may hide some, and keys, go together or not at all; events never go."""
    work = alive(draft, change.dataset_id)
    check_texts(operation=change.operation)
    found = _found(work, change.keys, "the file is not live")
    if any(file.content == EVENTS for file in found):
        raise invalid(
            "the journal of a dataset is not removed from it",
            dataset=work.head.name,
            hint="purge the dataset to be rid of all of it",
        )
    totals = work.log.totals
    left = totals.files - totals.event_files - len({file.ordinal for file in found})
    if found and left and totals.key_files:
        raise invalid(
            "rows and keys that belong together cannot be removed apart",
            dataset=work.head.name,
            key_files=totals.key_files,
            hint="delete rows by key, replace them all, or compact first",
        )


def _found(work: Work, keys: Sequence[str], message: str) -> list[DataFile]:
    living = work.log.living_files(keys)
    for key in keys:
        if key not in living:
            raise conflicting(message, dataset_id=work.base.id, key=key)
    return [living[key] for key in keys]


def check_replacement(draft: Draft, change: change_types.RewriteFiles) -> None:
    work = alive(draft, change.dataset_id)
    check_texts(operation=change.operation)
    check_number("journaled", change.journaled)
    if len(change.keys) > _FILES_MAX:
        raise invalid("too many files in one change", files=len(change.keys), max=_FILES_MAX)
    inputs = _found(work, change.keys, "an input is no longer live")
    if len({file.ordinal for file in inputs}) != len(inputs):
        raise invalid("a rewrite names an input twice", dataset=work.head.name)
    _check_new(draft, work, change.files, alone=False)
    check_rewrite(work, change, inputs, draft.version)
    size = work.log.totals.plus(inputs, -1).plus(change.files).size_bytes
    check_sums(size, work.log.totals.rows)
