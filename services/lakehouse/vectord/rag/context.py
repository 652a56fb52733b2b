"""What was retrieved as what a model is given. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lakehouse.contracts.rag import Citation
from lakehouse.contracts.vectors import Hit
from lakehouse.errors import FieldValue

__all__ = ["as_fields", "citations", "given_texts"]


def citations(hits: Sequence[Hit], index: str, bytes_max: int) -> tuple[Citation, ...]:
    """Best first, numbered from 1; ``shortened`` where not all of a text fits into what a model is
    given. ``index``: of hits that do not say theirs."""
    found = [
        Citation(
            number,
            hit.index or index,
            hit.key,
            hit.chunk,
            hit.start,
            hit.end,
            hit.version,
            hit.score,
            hit.text,
        )
        for number, hit in enumerate(hits, 1)
    ]
    given = given_texts([one.text for one in found], bytes_max)
    return tuple(
        [
            replace(one, shortened=len(text) < len(one.text))
            for one, text in zip(found, given, strict=True)
        ]
    )


def given_texts(texts: Sequence[str], bytes_max: int) -> list[str]:
    """Texts that together have at most ``bytes_max`` bytes of UTF-8: short ones are whole, and the
    others share alike what those leave."""
    sizes = [len(text.encode(errors="replace")) for text in texts]
    room, share = max(0, bytes_max), 0
    for place, size in enumerate(sorted(sizes)):
        share = room // (len(sizes) - place)
        if size > share:
            break
        room -= size
    else:
        return list(texts)
    return [
        _cut(text, share) if size > share else text for text, size in zip(texts, sizes, strict=True)
    ]


def as_fields(context: Sequence[Citation], bytes_max: int) -> list[FieldValue]:
    """For the fields of an error: what the model would have been given."""
    given = given_texts([one.text for one in context], bytes_max)
    return [
        {
            "number": one.number,
            "index": one.index,
            "key": one.key,
            "chunk": one.chunk,
            "start": one.start,
            "end": one.end,
            "version": one.version,
            "score": one.score,
            "text": text,
            "shortened": one.shortened,
        }
        for one, text in zip(context, given, strict=True)
    ]


def _cut(text: str, size: int) -> str:
    """No character is cut in two."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")
