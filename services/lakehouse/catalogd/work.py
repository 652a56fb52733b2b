"""A dataset while a commit works on it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from immutables import Map

from lakehouse.catalogd.files import FileLog
from lakehouse.catalogd.state import DatasetState, Head

__all__ = ["FILES_RANK", "LIFE_RANK", "RANK", "REWRITES", "Work", "digests_left"]

# What a version entry is called if a commit does several things to a dataset: the highest.
RANK: Final = {"primary_key": 1, "card": 2, "schema": 3, "quarantine": 4, "rename": 5}
FILES_RANK: Final = 6
LIFE_RANK: Final = 7
# Removals that put the same rows elsewhere: what was ingested is still there.
REWRITES: Final = frozenset({"compact", "compaction", "rewrite", "move"})


@dataclass(slots=True)
class Work:
    """A dataset while a commit works on it."""

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
    updated_us: int | None = None

    def did(self, operation: str, rank: int) -> None:
        if rank > self.rank:
            self.operation, self.rank = operation, rank


def digests_left(work: Work, old: FileLog) -> Map[str, int]:
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
