"""Which objects a commit may name: sessions that live, keys that were given up, the horizon.

A session is a writer of objects; its id is the second component of the keys it writes
(``datasets/<session>/<dataset_id>/<ulid>.parquet``). A commit may add an object while its session
lives, or if a retained version names it; so an unreferenced object of an ended session can never
become referenced, and may go once the chain itself has condemned it. Pure; embedded in a machine's
state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa
from immutables import Map

from lakehouse.errors import ErrorKind, LakehouseError

_NAMED_MAX: Final = 10
_SCHEMA: Final = pa.schema([("kind", pa.string()), ("name", pa.string()), ("seq", pa.int64())])


@dataclass(frozen=True, slots=True)
class Objects:
    """A persistent value.

    Attributes:
        sessions: live sessions and the seq that opened each.
        condemned: keys that no commit may name any more, and the seq that condemned each.
        horizon: versions below it are not readable and retain nothing.
    """

    sessions: Map[str, int] = field(default_factory=Map)
    condemned: Map[str, int] = field(default_factory=Map)
    horizon: int = 0


def session_of(key: str) -> str:
    """The session that wrote ``key``; raises ``invalid`` for a key without one."""
    parts = key.split("/")
    if len(parts) < 3 or not parts[1]:
        raise LakehouseError(ErrorKind.INVALID, "object key names no session", key=key)
    return parts[1]


def open_session(objects: Objects, session: str, seq: int) -> Objects:
    """``session`` lives from commit ``seq`` on. Raises ``conflict`` if it already does."""
    if session in objects.sessions:
        raise LakehouseError(ErrorKind.CONFLICT, "session is already open", session=session)
    return replace(objects, sessions=objects.sessions.set(session, seq))


def close_session(objects: Objects, session: str) -> Objects:
    """``session`` lives no more; one that does not live changes nothing."""
    if session not in objects.sessions:
        return objects
    return replace(objects, sessions=objects.sessions.delete(session))


def may_add(
    objects: Objects, keys: Iterable[str], retained: Callable[[str], bool] = lambda key: False
) -> None:
    """Raise ``conflict`` unless a commit may name every one of ``keys``.

    Args:
        objects: the present value.
        keys: object keys that the commit adds.
        retained: true if a version at or above the horizon names the key.
    """
    refused: list[str] = []
    for key in keys:
        lives = session_of(key) in objects.sessions or retained(key)
        if key in objects.condemned or not lives:
            refused.append(key)
    if refused:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "commit names objects that may be gone",
            keys=list(refused[:_NAMED_MAX]),
            count=len(refused),
            hint="the session that wrote them has ended; write them again in a live session",
        )


def check_version(objects: Objects, version: int) -> None:
    """Raise ``not_found`` for a version below the horizon."""
    if version < objects.horizon:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "version is below the horizon",
            version=version,
            horizon=objects.horizon,
        )


def condemn(objects: Objects, keys: Iterable[str], horizon: int, seq: int) -> Objects:
    """Give ``keys`` up for good and raise the horizon (it never falls).

    Raises ``conflict`` if the session of a key still lives. That no retained version names a key
    is for the machine to know; it checks before.
    """
    condemned = objects.condemned.mutate()
    for key in keys:
        session = session_of(key)
        if session in objects.sessions:
            raise LakehouseError(
                ErrorKind.CONFLICT, "session of the object lives", key=key, session=session
            )
        condemned[key] = seq
    return replace(objects, condemned=condemned.finish(), horizon=max(objects.horizon, horizon))


def forget(objects: Objects, keys: Iterable[str]) -> Objects:
    """Drop condemned keys whose objects are deleted: their session has ended, so nothing can name
    them again."""
    condemned = objects.condemned.mutate()
    for key in keys:
        condemned.pop(key, None)
    return replace(objects, condemned=condemned.finish())


def dump_objects(objects: Objects) -> pa.Table:
    """All of it as one table (columns kind, name, seq), sorted, for a checkpoint."""
    rows = [("session", name, seq) for name, seq in sorted(objects.sessions.items())]
    rows += [("condemned", name, seq) for name, seq in sorted(objects.condemned.items())]
    rows.append(("horizon", "", objects.horizon))
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def load_objects(table: pa.Table) -> Objects:
    """The inverse of ``dump_objects``."""
    columns = [table.column(name).to_pylist() for name in _SCHEMA.names]
    found: dict[str, dict[str, int]] = {"session": {}, "condemned": {}, "horizon": {}}
    for kind, name, seq in zip(*columns, strict=True):
        if kind not in found:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the checkpoint was written by a newer version",
                row_kind=str(kind)[:40],
                hint="upgrade this node",
            )
        found[kind][name] = seq
    return Objects(Map(found["session"]), Map(found["condemned"]), found["horizon"].get("", 0))
