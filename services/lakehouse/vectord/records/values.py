"""Retrievals as values: composed of searches, written as events, read back. Pure.

An event is the JSON of a ``Retrieval``, its bytes as base64. One that is large is an object of its
own, and its event the beginning of it, with the object's name and digest.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import orjson
import zstandard

from lakehouse.contracts.retrievals import ReplayedHit
from lakehouse.contracts.vectors import Hit
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.kit.ids import ulid_millis
from lakehouse.model.retrieval import Retrieval, RetrievedRef
from lakehouse.vectord.codec import from_value, text_of
from lakehouse.vectord.retrieval.searched import Searched

__all__ = [
    "INLINE_BYTES_MAX",
    "Record",
    "compose",
    "digest_of_refs",
    "digest_of_text",
    "packed",
    "read_event",
    "record_of",
    "shown",
    "unpacked",
]

Event = Mapping[str, Any]

INLINE_BYTES_MAX: Final = 128 * 1024
"""A larger record is an object of its own."""
SHOWN_HITS: Final = 100
"""So many hits of each retrieval are in a list, and in the event of one that is an object."""
_SHOWN_BYTES: Final = 32 * 1024
_SHOWN_TEXT: Final = 1_000
_REF_BYTES: Final = 300
_UNPACKED_BYTES_MAX: Final = 256 * 1024 * 1024
# A time that is further from its id's than that is the clock's mistake: the id is looked up by it.
_APART_US: Final = 100_000
_LATER: Final = frozenset({"pinned", "tags"})
_FIELDS: Final = tuple(each.name for each in fields(Retrieval) if each.name not in _LATER)


@dataclass(frozen=True, slots=True)
class Record:
    """A retrieval on its way into the log. ``body``: of its object, None where the event has all
    of it."""

    id: str
    event: dict[str, Any]
    body: bytes | None = None


def digest_of_refs(hits: Iterable[RetrievedRef | ReplayedHit]) -> str:
    """SHA-256, hex, over the ranked refs with their scores, to the last bit of each."""
    return _digest([_ranked(hit, hit.text_sha256) for hit in hits])


def _ranked(hit: RetrievedRef | ReplayedHit | Hit, text_sha256: str) -> list[Any]:
    return [
        hit.index,
        hit.key,
        hit.chunk,
        hit.start,
        hit.end,
        hit.version,
        float(hit.score).hex(),
        text_sha256,
        [[each.stage.value, each.rank, float(each.score).hex()] for each in hit.stages],
    ]


def _digest(ranked: list[list[Any]]) -> str:
    return hashlib.sha256(orjson.dumps(ranked)).hexdigest()


def digest_of_text(text: str) -> str:
    """SHA-256, hex, of its UTF-8 bytes."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def compose(searched: Searched) -> Retrieval:
    """What is remembered of a search."""
    told = _told(searched)
    refs = tuple([RetrievedRef(**ref) for ref in told["hits"]])
    return Retrieval(**{**told, "hits": refs, "vector": bytes(searched.vector)})


def record_of(searched: Searched) -> Record:
    """A search as it goes into the log: as its JSON is read ``compose`` is what it says."""
    told = _told(searched)
    told["vector"] = base64.b64encode(searched.vector).decode()
    if _about(told) <= INLINE_BYTES_MAX // 2 or _size(told) <= INLINE_BYTES_MAX:
        return Record(searched.id, told)
    retrieval = compose(searched)
    body = packed(retrieval)
    short = _event(shown(retrieval, _SHOWN_BYTES))
    short["object_sha256"] = hashlib.sha256(body).hexdigest()
    return Record(searched.id, short, body)


def _told(searched: Searched) -> dict[str, Any]:
    """The fields of the retrieval, but for its vector; hits as fields of theirs."""
    ctx, request, result = searched.ctx, searched.request, searched.result
    hits = searched.hits.hits
    digests = [digest_of_text(hit.text) for hit in hits]
    ranked = [_ranked(hit, digest) for hit, digest in zip(hits, digests, strict=True)]
    return {
        "id": searched.id,
        "at": to_datetime(_at_us(searched)),
        "actor": ctx.principal.id,
        "purpose": request.purpose,
        "mode": result.mode,
        "text": request.queries[searched.place].text,
        "vector": b"",
        "k": request.k,
        "version": result.version,
        "indexes": searched.indexes,
        "hits": [_ref(hit, digest) for hit, digest in zip(hits, digests, strict=True)],
        "digest": _digest(ranked),
        "filter": request.filter,
        "exact": request.exact,
        "ef": request.ef,
        "candidates": request.candidates,
        "rerank": request.rerank,
        "as_of_version": searched.as_of_version,
        "degraded": result.degraded,
        "degraded_reason": result.degraded_reason,
        "record": request.record,
        "workspace": ctx.workspace or "",
        "source": ctx.source or "",
        "request_id": ctx.request_id,
        "embed_ms": result.embed_ms,
        "search_ms": result.search_ms,
        "hits_total": len(hits),
    }


def _ref(hit: Hit, text_sha256: str) -> dict[str, Any]:
    return {
        "key": hit.key,
        "chunk": hit.chunk,
        "start": hit.start,
        "end": hit.end,
        "version": hit.version,
        "score": hit.score,
        "text_sha256": text_sha256,
        "stages": hit.stages,
        "index": hit.index,
    }


def _at_us(searched: Searched) -> int:
    made_us = ulid_millis(searched.id) * 1000
    return searched.at_us if abs(searched.at_us - made_us) <= _APART_US else made_us


def shown(retrieval: Retrieval, size_bytes: int = 0) -> Retrieval:
    """As a list shows it: its first hits; with ``size_bytes`` those that fit, and its texts cut."""
    hits = retrieval.hits[:SHOWN_HITS]
    if not size_bytes:
        return retrieval if len(hits) == len(retrieval.hits) else replace(retrieval, hits=hits)
    while hits and _size(hits) > size_bytes:
        hits = hits[: len(hits) // 2]
    text, condition = retrieval.text[:_SHOWN_TEXT], retrieval.filter[:_SHOWN_TEXT]
    return replace(retrieval, hits=hits, text=text, filter=condition)


def read_event(event: Event) -> Retrieval:
    """The retrieval of an event. Raises ``corrupt`` for one that is none."""
    found = from_value(Retrieval, event)
    return found if found.hits_total else replace(found, hits_total=len(found.hits))


def packed(retrieval: Retrieval) -> bytes:
    """All of it as the bytes of an object."""
    plain = orjson.dumps(_event(retrieval))
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(plain)


def unpacked(data: bytes, key: str, sha256: str = "") -> Retrieval:
    """The inverse of ``packed``. Raises ``corrupt`` for bytes that are not those, of digest
    ``sha256`` where it is known."""
    try:
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("the bytes are not those that were written")
        if zstandard.frame_content_size(data) > _UNPACKED_BYTES_MAX:
            raise ValueError("it is larger than any record")
        found = read_event(orjson.loads(zstandard.ZstdDecompressor().decompress(data)))
        if digest_of_refs(found.hits) != found.digest:
            raise ValueError("its hits are not those that were written")
    except (zstandard.ZstdError, ValueError, LakehouseError) as error:
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "the record of a retrieval is damaged",
            key=key,
            reason=str(error)[:200],
            hint="restore the object from a backup; the list shows what the log has of it",
        ) from error
    return found


def _event(retrieval: Retrieval) -> dict[str, Any]:
    event = {name: getattr(retrieval, name) for name in _FIELDS}
    event["vector"] = base64.b64encode(retrieval.vector).decode()
    return event


def _about(told: Event) -> int:
    """The size in bytes of an event, roughly, without writing it."""
    hits = told["hits"]
    keys = sum([len(hit["key"]) for hit in hits])
    texts = sum([len(told[name]) for name in ("text", "filter", "degraded_reason", "vector")])
    return keys + texts + _REF_BYTES * len(hits)


def _size(value: Event | Sequence[RetrievedRef]) -> int:
    return len(orjson.dumps(value, default=text_of))
