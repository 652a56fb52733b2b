"""What a ledger is a ledger *of*: the state machine it is handed, and what it hands back.

The state is a persistent value (structural sharing): ``apply`` returns a new one in O(change), so
that validating against "head plus what is queued" is applying, and dropping it is undoing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

S = TypeVar("S")

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit as the chain holds it.

    ``seq`` is dense from 1 and is the version of the store; ``ts_us`` strictly rises; ``changes``
    and ``answer`` are JSON objects. ``actor`` and ``request_id`` say who.
    """

    seq: int
    ts_us: int
    changes: tuple[JsonObject, ...]
    answer: JsonObject = field(default_factory=dict)
    actor: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a checkpoint: a table whose content identifies it, so that an unchanged part is
    reused by its sha256. ``name`` says which piece, e.g. ``datasets``, ``files-000``."""

    name: str
    table: pa.Table


class Machine(Protocol[S]):
    """Pure functions over ``S``; no I/O, no clock, no randomness."""

    def initial(self) -> S: ...

    def apply(self, state: S, entry: Entry) -> S:
        """The state after ``entry``. Never refuses: what is in the chain has happened."""
        ...

    def dump(self, state: S) -> Sequence[Part]:
        """The whole state as tables (parts of at most 32 MiB encoded)."""
        ...

    def load(self, parts: Mapping[str, pa.Table]) -> S:
        """The inverse of ``dump``, for every format version ever written."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a proposal comes to against a state: changes, or none (a no-op), and an answer."""

    changes: tuple[JsonObject, ...]
    answer: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proposal(Generic[S]):
    """A commit somebody asks for.

    Attributes:
        decide: pure; called with head plus what is queued before it, and the seq it would get.
            Raises LakehouseError to refuse. May be called again after a take-over of the slot.
        key_hash: hash of (principal, route, idempotency key), "" for none.
        body_sha256: of the request, so that one key with two bodies is told apart.
        kind: record kind, ``commit`` or ``condemn``.
    """

    decide: Callable[[S, int], Verdict]
    key_hash: str = ""
    body_sha256: str = ""
    actor: str = ""
    request_id: str = ""
    kind: str = "commit"


@dataclass(frozen=True, slots=True)
class Committed(Generic[S]):
    """``state`` is the durable state right after this commit (for a no-op: the one it read).

    ``replayed``: the answer comes from an earlier commit with the same key; ``no_op``: nothing was
    written and ``seq`` is the version that was read.
    """

    seq: int
    answer: JsonObject
    state: S
    replayed: bool = False
    no_op: bool = False
