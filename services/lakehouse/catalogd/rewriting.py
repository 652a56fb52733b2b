"""When other objects may stand in the place of some: the rules of a rewrite. Pure.

The catalog does not read objects. What it can know is where files stand, how many rows they have
and the hash of those; from this alone it must be sure that every row that could be seen can be
seen afterwards, no other one, and that it stays so whatever is committed later or was committed
while the rewrite was made.

A row of seq s can be seen iff no keys of seq > s name it. So of a row only this counts: which keys
are later than it. Let *inside* be the inputs of the rewrite and what it makes of them, *outside*
all other rows and keys that live when it is committed.

1. **Rows go past no keys.** For all rows inside, before and after, let [low, high] span their seqs.
   No keys outside have a seq in (low, high]. Then keys outside are later than all rows inside, or
   than none of them: they hide the same ones whatever row went into whatever output. Were there
   keys between, a row that they hide could be put above them, and be back.
2. **Keys go past no rows.** For all keys inside, before and after, let [low, high] span their seqs.
   No rows outside have a seq in [low, high). Then all keys inside are later than a row outside, or
   none is. Were there rows between, keys put above them would begin to hide them, and keys put
   below would no longer.
3. **Nothing goes past the future.** No output has a seq above that of all inputs. A later commit
   has a higher seq than any input had when it was read, so its keys are later than all outputs,
   and its rows than all keys inside.
4. **Nothing that is made hides what is made.** No keys among the outputs have a seq above that of
   rows among them: what is hidden inside was left out, and keys that are kept hide rows outside.
5. **Inside, sums balance.** Each key of a keys file hides exactly one row, so rows less keys is the
   number of rows seen, and the hashes less those of the keys are their hash: both are the same
   before and after. Neither rows nor keys become more. (That rows and the keys that hid them were
   left out in pairs is for the maker; this finds where they were not.)

By 1 and 2 what is hidden across the border stays hidden and no more is; by 4 and 5 what is seen
inside is the same; by 3 it stays so. All rows and keys of consecutive commits always satisfy 1 and
2, whatever else is there, and so do rows where no keys live. ``tests/property/test_rewrites.py``
holds these rules against a model of the rows, and against itself without them.

Events are hidden by nothing. Their seq says which reader has seen all that is in them, so what is
made of them has the highest one, and as many events as before and one for each version entry that
``journaled`` says is among them now.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Final

from lakehouse.catalogd.files import FileLog
from lakehouse.catalogd.present import conflicting, invalid
from lakehouse.catalogd.work import Work
from lakehouse.model.changes import RewriteFiles
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, DataFile

__all__ = ["check_rewrite"]

_TAG: Final = "rh1:"
_HASH: Final = re.compile(r"rh1:([0-9a-f]{16})")
_MODULUS: Final = 2**64

Files = Sequence[DataFile]


def _of(files: Iterable[DataFile], *contents: str) -> list[DataFile]:
    return [file for file in files if file.content in contents]


def _rows(files: Iterable[DataFile]) -> int:
    return sum(file.rows for file in files)


def check_rewrite(work: Work, change: RewriteFiles, inputs: Files, version: int) -> None:
    """Raise unless ``change.files`` may take the place of ``inputs``, which live, in the commit
    ``version``: ``invalid`` where it does not hold in itself, ``conflict`` where another file that
    lives is in its way."""
    outputs = change.files
    before, after = _of(inputs, ROWS, KEYS), _of(outputs, ROWS, KEYS)
    _check_seqs(before, after)
    _check_order(after)
    _check_balance(work, before, after)
    _check_span(work.log, before, after)
    _check_events(work, change, _of(inputs, EVENTS), version)


def _check_seqs(before: Files, after: Files) -> None:
    """Rule 3."""
    top = max((file.seq for file in before), default=0)
    odd = next((file for file in after if not 1 <= file.seq <= top), None)
    if odd is not None:
        raise invalid(
            "a rewritten file stands for a commit from 1 to the newest of its inputs",
            key=odd.key,
            seq=odd.seq,
            newest=top,
        )


def _check_order(after: Files) -> None:
    """Rule 4."""
    lowest = min((file.seq for file in _of(after, ROWS)), default=None)
    odd = next((f for f in _of(after, KEYS) if lowest is not None and f.seq > lowest), None)
    if odd is not None:
        raise invalid(
            "rewritten keys are not later than rewritten rows",
            key=odd.key,
            seq=odd.seq,
            rows_seq=lowest,
        )


def _check_balance(work: Work, before: Files, after: Files) -> None:
    """Rule 5."""
    old_rows, new_rows = _of(before, ROWS), _of(after, ROWS)
    old_keys, new_keys = _of(before, KEYS), _of(after, KEYS)
    seen = _rows(old_rows) - _rows(old_keys)
    left = _rows(new_rows) - _rows(new_keys)
    grown = _rows(new_keys) > _rows(old_keys)  # and so if rows are more
    if seen != left or grown:
        raise invalid(
            "a rewrite has other rows than its inputs",
            rows_in=_rows(old_rows),
            keys_in=_rows(old_keys),
            rows_out=_rows(new_rows),
            keys_out=_rows(new_keys),
            hint="rows less keys are the same, and neither becomes more",
        )
    old, new = _hash(old_rows, old_keys), _hash(new_rows, new_keys)
    if None in (old, new) or not _same_cells(work, (*before, *after)):
        return
    if old != new:
        raise invalid(
            "a rewrite has rows of another hash than its inputs",
            rows=seen,
            hash_in=f"{_TAG}{old:016x}",
            hash_out=f"{_TAG}{new:016x}",
        )


def _hash(rows: Files, keys: Files) -> int | None:
    """The hash of the rows that can be seen; None where it is not known of all files."""
    total = 0
    for files, sign in ((rows, 1), (keys, -1)):
        for file in files:
            found = _HASH.fullmatch(file.rows_hash)
            if found is not None:
                total += sign * int(found[1], 16)
            elif file.rows:
                return None
    return total % _MODULUS


def _same_cells(work: Work, files: Files) -> bool:
    """True if the files' schemas differ by added columns at most, which hash as if they were not
    there; a value of a wider type hashes as another one."""
    schemas = {file.schema_id for file in files}
    ids = [
        frozenset((c.id, c.type) for c in work.base.schemas[each - 1].columns) for each in schemas
    ]
    ids.sort(key=len)
    return all(less <= more for less, more in itertools.pairwise(ids))


def _check_span(log: FileLog, before: Files, after: Files) -> None:
    """Rules 1 and 2."""
    inside = {file.ordinal for file in before}
    spans = (
        (ROWS, KEYS, 1, "keys that are no input hide rows of some inputs and not of others"),
        (KEYS, ROWS, 0, "rows that are no input are hidden by some inputs and not by others"),
    )
    for moved, passed, shift, message in spans:
        if passed == KEYS and not log.totals.key_files:
            continue
        seqs = [file.seq for file in (*_of(before, moved), *_of(after, moved))]
        if not seqs or min(seqs) == max(seqs):
            continue
        between = log.of_content(passed, min(seqs) + shift, max(seqs) + shift)
        outside = next((file for file in between if file.ordinal not in inside), None)
        if outside is not None:
            raise conflicting(
                message,
                key=outside.key,
                seq=outside.seq,
                low=min(seqs),
                high=max(seqs),
                hint="rewrite all rows and keys from the one commit to the other together",
            )


def _check_events(work: Work, change: RewriteFiles, before: Files, version: int) -> None:
    after = _of(change.files, EVENTS)
    marks = work.base.now.marks if work.base.history else None
    standing = max(work.journaled, 0 if marks is None else marks.journaled)
    if not 0 <= change.journaled < version:
        raise invalid("no such version can be journaled yet", journaled=str(change.journaled)[:40])
    entries = _untold(work, standing, change.journaled)
    if not before and not after and not entries:
        return
    least = _rows(before) + len(entries)
    if _rows(after) < least or bool(after) != bool(before or entries):
        raise invalid(
            "a rewrite has fewer events than its inputs, or events from nowhere",
            events_in=_rows(before),
            entries=len(entries),
            events_out=_rows(after),
        )
    newest = max((*(file.seq for file in before), *entries))
    top = max(newest, change.journaled if entries else 0)
    odd = next((file for file in after if not 1 <= file.seq <= top), None)
    if odd is not None or max(file.seq for file in after) < newest:
        raise invalid(
            "rewritten events stand for the newest commit that is among them",
            key=(odd or after[0]).key,
            seq=(odd or after[0]).seq,
            newest=newest,
        )


def _untold(work: Work, after: int, up_to: int) -> list[int]:
    """The versions in (after, up_to] whose entry is an event of the journal itself."""
    history = work.base.history
    start = history.bisect(after, lambda revision: revision.version)
    end = history.bisect(up_to, lambda revision: revision.version)
    return [history[at].version for at in range(start, end) if history[at].untold]
