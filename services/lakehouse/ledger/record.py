"""One record of the chain: its fields, its bytes, its checksum.

The bytes are one JSON object, ``{"sha256":"<64 hex>","record":{...}}``; the checksum covers the
exact bytes of the inner object. The next record's ``prev`` is the SHA-256 of the whole bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast, get_args

import orjson
import zstandard

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.layout import Layout
from lakehouse.ledger.machine import Entry, JsonObject

FORMAT: Final = 1
GENESIS: Final = "0" * 64
Kind = Literal["open", "commit", "condemn", "seal"]

_KINDS: Final = frozenset(get_args(Kind))

_HEAD: Final = b'{"sha256":"'
_MIDDLE: Final = b'","record":'
_START: Final = len(_HEAD) + 64 + len(_MIDDLE)
_BODY_BYTES_MAX: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class WriterInfo:
    """Who writes: ``writer_id`` is unique to a node, ``endpoint`` is where it can be asked
    ("" if nowhere)."""

    writer_id: str
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit in a record: the entry, and the idempotency key that asked for it ("" none)."""

    entry: Entry
    key_hash: str = ""
    body_sha256: str = ""


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """The newest complete checkpoint the writer knew: the state after record ``n``."""

    n: int
    seq: int
    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class BodyRef:
    """The object that holds changes and answers which are too large for the record."""

    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """What one slot holds. ``first_seq`` is the seq of the first commit, or of the next one if
    there is none; ``ts_us`` is the time of the last commit, or of the record. ``min_writer`` is the
    oldest format that may append after it: an older version may read on, but would lose things."""

    n: int
    prev: str
    epoch: int
    writer: WriterInfo
    put_id: str
    ts_us: int
    first_seq: int
    kind: Kind
    commits: tuple[Commit, ...] = ()
    checkpoint: CheckpointRef | None = None
    body: BodyRef | None = None
    min_writer: int = FORMAT

    @property
    def last_seq(self) -> int:
        """The version of the store after this record."""
        return self.first_seq + len(self.commits) - 1


@dataclass(frozen=True, slots=True)
class Encoded:
    """A record as bytes; ``body`` is the object to write first, if there is one."""

    record: Record
    data: bytes
    sha256: str
    body: bytes | None = None


def sha256_hex(data: bytes) -> str:
    """SHA-256 as lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def corrupt(message: str, layout: Layout, n: int, **fields: str) -> LakehouseError:
    """A ``corrupt`` error that names the slot."""
    hint = "nothing is written to a damaged chain; restore the object from a backup"
    return LakehouseError(
        ErrorKind.CORRUPT, message, slot=n, key=layout.slot(n), **{"hint": hint, **fields}
    )


def encode(record: Record, layout: Layout, inline_bytes_max: int) -> Encoded:
    """The bytes of ``record``. Changes and answers beyond ``inline_bytes_max`` bytes move into a
    body object whose key and checksum the record then names."""
    payload = [(commit.entry.changes, commit.entry.answer) for commit in record.commits]
    pairs = [(orjson.dumps(changes), orjson.dumps(answer)) for changes, answer in payload]
    body: bytes | None = None
    inline = sum(len(changes) + len(answer) for changes, answer in pairs) <= inline_bytes_max
    if not inline:
        plain = orjson.dumps([[orjson.Fragment(c), orjson.Fragment(a)] for c, a in pairs])
        body = zstandard.ZstdCompressor(level=3).compress(plain)
        digest = sha256_hex(body)
        record = replace(record, body=BodyRef(layout.body(record.n, digest), digest))
    commits = [
        _commit_json(commit, pair if inline else None)
        for commit, pair in zip(record.commits, pairs, strict=True)
    ]
    inner = orjson.dumps(_record_json(record, commits))
    data = b"".join((_HEAD, sha256_hex(inner).encode(), _MIDDLE, inner, b"}"))
    return Encoded(record, data, sha256_hex(data), body)


def decode(data: bytes, layout: Layout, n: int) -> Record:
    """The record in slot ``n``. Raises ``corrupt`` naming the slot, ``conflict`` for a format that
    needs a newer reader. With ``record.body`` set, commits are empty of changes until ``fill``."""
    inner = data[_START:-1]
    framed = data.startswith(_HEAD) and data[_START - len(_MIDDLE) : _START] == _MIDDLE
    if not framed or data[-1:] != b"}":
        raise corrupt("ledger record is not framed", layout, n)
    if data[len(_HEAD) : len(_HEAD) + 64] != sha256_hex(inner).encode():
        raise corrupt("ledger record does not match its checksum", layout, n)
    try:
        fields = orjson.loads(inner)
    except orjson.JSONDecodeError as error:
        raise corrupt("ledger record is not JSON", layout, n) from error
    if not isinstance(fields, dict):
        raise corrupt("ledger record is not an object", layout, n)
    kind = fields.get("kind")
    if fields.get("min_reader", 0) > FORMAT or (isinstance(kind, str) and kind not in _KINDS):
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "ledger was written by a newer version",
            slot=n,
            min_reader=fields.get("min_reader", 0),
            record_kind=str(kind)[:40],
            reads=FORMAT,
            hint="upgrade this node",
        )
    try:
        record = _record_from(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise corrupt("ledger record lacks a field", layout, n) from error
    if record.n != n:
        raise corrupt("ledger record lies in another's slot", layout, n)
    return record


def fill(record: Record, body: bytes, layout: Layout) -> Record:
    """``record`` with changes and answers from its body object; raises ``corrupt``."""
    reference = record.body
    if reference is None or sha256_hex(body) != reference.sha256:
        raise corrupt("body of a ledger record does not match its checksum", layout, record.n)
    decompressor = zstandard.ZstdDecompressor()
    payload = orjson.loads(decompressor.decompress(body, max_output_size=_BODY_BYTES_MAX))
    commits = tuple(
        replace(commit, entry=replace(commit.entry, changes=tuple(changes), answer=answer))
        for commit, (changes, answer) in zip(record.commits, payload, strict=True)
    )
    return replace(record, commits=commits)


def _commit_json(commit: Commit, pair: tuple[bytes, bytes] | None) -> JsonObject:
    entry = commit.entry
    fields: JsonObject = {"seq": entry.seq, "ts": entry.ts_us}
    if commit.key_hash:
        fields |= {"key_hash": commit.key_hash, "body_sha256": commit.body_sha256}
    fields |= {"actor": entry.actor, "request_id": entry.request_id}
    if pair is not None:
        fields |= {"changes": orjson.Fragment(pair[0]), "answer": orjson.Fragment(pair[1])}
    return fields


def _record_json(record: Record, commits: list[JsonObject]) -> JsonObject:
    checkpoint, body = record.checkpoint, record.body
    return {
        "format": FORMAT,
        "min_reader": FORMAT,
        "min_writer": record.min_writer,
        "n": record.n,
        "prev": record.prev,
        "epoch": record.epoch,
        "writer": {"id": record.writer.writer_id, "endpoint": record.writer.endpoint},
        "put_id": record.put_id,
        "ts": record.ts_us,
        "first_seq": record.first_seq,
        "kind": record.kind,
        "commits": commits,
        "checkpoint": None
        if checkpoint is None
        else {
            "n": checkpoint.n,
            "seq": checkpoint.seq,
            "key": checkpoint.key,
            "sha256": checkpoint.sha256,
        },
        "body": None if body is None else {"key": body.key, "sha256": body.sha256},
    }


def _checkpoint_from(fields: dict[str, Any]) -> CheckpointRef:
    """By name: a later version may say more of it."""
    return CheckpointRef(fields["n"], fields["seq"], fields["key"], fields["sha256"])


def check_writable(min_writer: int) -> None:
    """Raise ``conflict`` if a version with our format must not append to the chain."""
    if min_writer > FORMAT:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the ledger was written by a newer version, which this one may read but not continue",
            min_writer=min_writer,
            writes=FORMAT,
            hint="upgrade this node",
        )


def _record_from(fields: dict[str, Any]) -> Record:
    commits = tuple(
        Commit(
            Entry(
                seq=int(item["seq"]),
                ts_us=int(item["ts"]),
                changes=tuple(item.get("changes", ())),
                answer=item.get("answer", {}),
                actor=item["actor"],
                request_id=item["request_id"],
            ),
            item.get("key_hash", ""),
            item.get("body_sha256", ""),
        )
        for item in fields["commits"]
    )
    checkpoint, body = fields["checkpoint"], fields["body"]
    if fields["kind"] not in _KINDS:
        raise ValueError(fields["kind"])
    return Record(
        n=int(fields["n"]),
        prev=fields["prev"],
        epoch=int(fields["epoch"]),
        writer=WriterInfo(fields["writer"]["id"], fields["writer"]["endpoint"]),
        put_id=fields["put_id"],
        ts_us=int(fields["ts"]),
        first_seq=int(fields["first_seq"]),
        kind=cast(Kind, fields["kind"]),
        commits=commits,
        checkpoint=None if checkpoint is None else _checkpoint_from(checkpoint),
        body=None if body is None else BodyRef(body["key"], body["sha256"]),
        min_writer=int(fields.get("min_writer", 1)),
    )
