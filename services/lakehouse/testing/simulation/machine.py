"""The state machine that simulations and tests commit to: tokens, files, sessions, a digest.

Changes are ``{"op": ...}``: ``token`` counts a token; ``add`` and ``drop`` a file; ``session`` and
``end`` a session; ``condemn`` gives files up. ``digest`` folds every entry, so that two states with
one seq are equal exactly if their digests are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson
import pyarrow as pa
from immutables import Map

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.machine import Entry, JsonObject, Part, Proposal, Verdict
from lakehouse.ledger.sessions import (
    Objects,
    close_session,
    condemn,
    dump_objects,
    load_objects,
    may_add,
    open_session,
)


@dataclass(frozen=True, slots=True)
class World:
    """``tokens``: how often each was committed. ``files``: live, by the seq that added them.
    ``dropped``: files that are live no more, by the seq that dropped them."""

    tokens: Map[str, int] = field(default_factory=Map)
    files: Map[str, int] = field(default_factory=Map)
    dropped: Map[str, int] = field(default_factory=Map)
    objects: Objects = field(default_factory=Objects)
    digest: str = ""
    seq: int = 0

    def retained(self, key: str) -> bool:
        """True if a version at or above the horizon names ``key``."""
        return key in self.files or self.dropped.get(key, -1) > self.objects.horizon


class WorldMachine:
    """``Machine[World]``."""

    def initial(self) -> World:
        return World()

    def apply(self, state: World, entry: Entry) -> World:
        for change in entry.changes:
            state = _change(state, change, entry.seq)
        text = orjson.dumps([state.digest, entry.seq, entry.ts_us, entry.changes, entry.answer])
        return replace(state, digest=hashlib.sha256(text).hexdigest(), seq=entry.seq)

    def dump(self, state: World) -> Sequence[Part]:
        kinds: dict[str, Mapping[str, int]] = {
            "token": state.tokens,
            "file": state.files,
            "dropped": state.dropped,
            "digest": {state.digest: state.seq},
        }
        rows = [(kind, name, of[name]) for kind, of in kinds.items() for name in sorted(of)]
        columns = zip(*rows, strict=True)
        table = pa.table(dict(zip(("kind", "name", "value"), map(list, columns), strict=True)))
        return (Part("world", table), Part("objects", dump_objects(state.objects)))

    def load(self, parts: Mapping[str, pa.Table]) -> World:
        found: dict[str, dict[str, int]] = {"token": {}, "file": {}, "dropped": {}, "digest": {}}
        columns = [parts["world"].column(name).to_pylist() for name in ("kind", "name", "value")]
        for kind, name, value in zip(*columns, strict=True):
            found[kind][name] = value
        (digest, seq) = next(iter(found["digest"].items()))
        return World(
            Map(found["token"]),
            Map(found["file"]),
            Map(found["dropped"]),
            load_objects(parts["objects"]),
            digest,
            seq,
        )


def _change(state: World, change: JsonObject, seq: int) -> World:
    match change:
        case {"op": "token", "token": str(token)}:
            return replace(state, tokens=state.tokens.set(token, state.tokens.get(token, 0) + 1))
        case {"op": "add", "key": str(key)}:
            dropped = state.dropped.delete(key) if key in state.dropped else state.dropped
            return replace(state, files=state.files.set(key, seq), dropped=dropped)
        case {"op": "drop", "key": str(key)}:
            files = state.files.delete(key)
            return replace(state, files=files, dropped=state.dropped.set(key, seq))
        case {"op": "session", "session": str(session)}:
            return replace(state, objects=open_session(state.objects, session, seq))
        case {"op": "end", "session": str(session)}:
            return replace(state, objects=close_session(state.objects, session))
        case {"op": "condemn", "keys": list(keys), "horizon": int(horizon)}:
            gone = state.dropped.mutate()
            for key in keys:
                gone.pop(key, None)
            objects = condemn(state.objects, keys, horizon, seq)
            return replace(state, objects=objects, dropped=gone.finish())
    raise LakehouseError(ErrorKind.INVALID, "no such change", change=str(change)[:200])


def add_token(token: str, key_hash: str = "", body_sha256: str = "") -> Proposal[World]:
    """A commit of ``token``, refused with ``conflict`` for a token that starts with ``refuse``."""

    def decide(state: World, seq: int) -> Verdict:
        if token.startswith("refuse"):
            raise LakehouseError(ErrorKind.CONFLICT, "refused", token=token)
        return Verdict(({"op": "token", "token": token},), {"token": token, "seq": seq})

    return Proposal(decide, key_hash, body_sha256)


def change_files(changes: tuple[JsonObject, ...], kind: str = "commit") -> Proposal[World]:
    """A commit of ``changes`` that obeys the rules of sessions and condemned keys."""

    def decide(state: World, seq: int) -> Verdict:
        for change in changes:
            if change["op"] == "add":
                may_add(state.objects, [change["key"]], state.retained)
            elif change["op"] == "drop" and change["key"] not in state.files:
                raise LakehouseError(ErrorKind.CONFLICT, "no such file", key=change["key"])
            elif change["op"] == "session" and change["session"] in state.objects.sessions:
                return Verdict(())
            elif change["op"] == "condemn":
                _check_condemn(state, change["keys"], change["horizon"], seq)
        return Verdict(changes, {"seq": seq})

    return Proposal(decide, kind=kind)


def _check_condemn(state: World, keys: list[str], horizon: int, seq: int) -> None:
    after = replace(state, objects=condemn(state.objects, keys, horizon, seq))
    for key in keys:
        if after.retained(key):
            raise LakehouseError(ErrorKind.CONFLICT, "a retained version names it", key=key)
