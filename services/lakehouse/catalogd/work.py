"""A dataset while a commit works on it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from immutables import Map

from lakehouse.catalogd.files import FileLog
from lakehouse.catalogd.state import DatasetState, Head, Marks
from lakehouse.model.changes import AddFiles, RemoveFiles, RewriteFiles, SetPrimaryKey, SetSchema
from lakehouse.model.dataset import EVENTS, KEYS, ROWS

__all__ = [
    "FILES_RANK",
    "LIFE_RANK",
    "RANK",
    "REWRITE_RANK",
    "Work",
    "put_files",
    "rewrite_files",
    "take_files",
]

# What a version entry is called if a commit does several things to a dataset: the highest.
REWRITE_RANK: Final = 1
RANK: Final = {"primary_key": 2, "card": 3, "schema": 4, "quarantine": 5, "rename": 6}
FILES_RANK: Final = 7
LIFE_RANK: Final = 8
# Removals that put the same rows elsewhere: what was ingested is still there.
REWRITES: Final = frozenset({"compact", "compaction", "rewrite", "move"})


@dataclass(slots=True)
class Work:
    """A dataset while a commit works on it.

    ``told``: a change brought events; ``untold``: one changed rows and brought none. ``moved``: one
    changed rows. ``workspace`` and ``reason`` are those of the last change that said any.
    """

    base: DatasetState
    head: Head
    log: FileLog
    operation: str = ""
    rank: int = 0
    rows_added: int = 0
    rows_removed: int = 0
    files_added: int = 0
    files_removed: int = 0
    content_digest: str = ""
    source: str = ""
    workspace: str = ""
    reason: str = ""
    moved: bool = False
    told: bool = False
    untold: bool = False
    journaled: int = 0
    updated_us: int | None = None

    def did(self, operation: str, rank: int) -> None:
        if rank > self.rank:
            self.operation, self.rank = operation, rank

    def said(self, change: AddFiles | SetPrimaryKey | SetSchema) -> None:
        """Note where a change came from, and why it was made."""
        self.source = change.source or self.source
        self.workspace = change.workspace or self.workspace
        self.reason = change.reason or self.reason

    def marks(self, version: int) -> Marks:
        """The dataset's marks once all of the commit is done."""
        fresh = not self.base.history
        before, key = (
            (Marks(), ()) if fresh else (self.base.now.marks, self.base.now.head.primary_key)
        )
        since = before.history_since
        if not self.head.primary_key:
            since = 0
        elif self.head.primary_key != key or self.untold:
            since = version
        marks = Marks(
            rows_version=version if fresh or self.moved else before.rows_version,
            history_since=since,
            journaled=max(before.journaled, self.journaled),
        )
        return before if marks == before else marks

    def changed_rows(self, *, told: bool) -> None:
        """Note that a change of the commit changed rows, and whether it brought their events."""
        self.moved = True
        self.untold = self.untold or not told


def put_files(work: Work, change: AddFiles, version: int) -> bool:
    """Apply ``change``; True if files are no longer living by it."""
    digests, before = work.base.digests, work.log.totals
    told = any(file.content == EVENTS for file in change.files)
    moving = any(file.content != EVENTS for file in change.files)
    cleared = change.replace and before.files > before.event_files
    if cleared:
        work.log = work.log.clear(version)
        work.files_removed += before.files - work.log.totals.files
        work.rows_removed += before.rows
    if change.replace or any(file.content == KEYS for file in change.files):
        # Rows of earlier contents are gone, nobody knows which: none may pass for there.
        digests = Map()
    work.log = work.log.append(change.files, version)
    work.files_added += len(change.files)
    work.rows_added += sum(file.rows for file in change.files if file.content == ROWS)
    work.rows_removed += sum(file.rows for file in change.files if file.content == KEYS)
    work.content_digest = change.content_digest or work.content_digest
    work.said(change)
    if change.content_digest:
        digests = digests.set(change.content_digest, version)
    fresh = work.operation in ("create", "import")
    work.base = replace(work.base, digests=digests, rows_known=work.base.rows_known or not fresh)
    if moving or cleared:
        work.changed_rows(told=told)
    work.told = work.told or told
    work.did(change.operation, FILES_RANK)
    return cleared


def take_files(work: Work, change: RemoveFiles, version: int) -> bool:
    """Apply ``change``; True if files are no longer living by it."""
    before, old = work.log.totals, work.log
    work.log = work.log.remove(change.keys, version)
    after = work.log.totals
    work.files_removed += before.files - after.files
    work.rows_removed += before.rows - after.rows
    if change.operation in REWRITES:
        pass  # the same rows are elsewhere
    elif after.files == after.event_files:
        work.base = replace(work.base, digests=Map())
    elif work.base.digests:
        work.base = replace(work.base, digests=_digests_left(work, old))
    gone = before.files != after.files
    if gone:
        work.changed_rows(told=False)
    work.did(change.operation, FILES_RANK)
    return gone


def rewrite_files(work: Work, change: RewriteFiles, version: int) -> bool:
    """Apply ``change``; True if files are no longer living by it. The rows are what they were, so
    neither their contents nor their version change."""
    before = work.log.totals.files
    work.log = work.log.remove(change.keys, version)
    gone = before - work.log.totals.files
    work.log = work.log.append(change.files, version, keep_seq=True)
    work.files_removed += gone
    work.files_added += len(change.files)
    work.journaled = max(work.journaled, change.journaled)
    work.did(change.operation, REWRITE_RANK)
    return gone > 0


def _digests_left(work: Work, old: FileLog) -> Map[str, int]:
    """The contents whose rows still live after a removal: a file of them must not pass for there.

    A content whose files were rewritten lives in files of a later version; once files that no
    content was ingested as are removed, nobody knows whose rows those were.
    """
    digests = work.base.digests
    gone = old.born(each for each in work.log.removed if each not in old.removed)
    suspects = set(digests.values())
    if gone <= suspects:
        suspects = gone
    left = work.log.living(suspects)
    return Map({digest: at for digest, at in digests.items() if at not in suspects or at in left})
