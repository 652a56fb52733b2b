"""Documents into chunks: spans of a text that are embedded each by itself. Pure.

Sizes are in words and marks, which is what a model's own tokens come to within a factor that is
much the same for all of them; letters of scripts without spaces count one each.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Chunking, ChunkMethod

__all__ = ["Chunk", "check_chunking", "chunks", "digest_of", "sentences"]

SIZE_MAX: Final = 8_192
# Han, kana, hangul, Thai and their like stand without spaces; a run of other letters counts one
# for each 32, so that what is no language does not pass for one word.
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN: Final = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w){{1,32}}|[^\w\s]")
_SENTENCE_END: Final = re.compile(
    r"(?<=[.!?\u2026])[\"'\u00bb\u201d\u2019)\]]*\s+|[\u3002\uff01\uff1f]\s*|\n\s*\n"
)

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """``text`` is that of the document from ``start`` to ``end`` (exclusive), in characters."""

    start: int
    end: int
    text: str


def check_chunking(chunking: Chunking) -> None:
    """Raise ``invalid`` for sizes that cannot be."""
    if not 1 <= chunking.size <= SIZE_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the size of a chunk is out of range",
            size=chunking.size,
            minimum=1,
            maximum=SIZE_MAX,
            hint="sizes are in words and marks",
        )
    if not 0 <= chunking.overlap < chunking.size:
        raise LakehouseError(
            ErrorKind.INVALID,
            "chunks overlap by less than their size",
            overlap=chunking.overlap,
            size=chunking.size,
        )


def digest_of(text: str) -> str:
    """32 hex digits of the SHA-256 of ``text``."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def chunks(text: str, chunking: Chunking) -> list[Chunk]:
    """The chunks of a document, in order, none of them blank; none for a blank text."""
    if chunking.method is ChunkMethod.NONE:
        spans = [(0, len(text))]
    else:
        tokens = [match.span() for match in _TOKEN.finditer(text)]
        if len(tokens) <= chunking.size:
            spans = [(0, len(text))]
        elif chunking.method is ChunkMethod.TOKENS:
            spans = _windows(tokens, chunking.size, chunking.overlap)
        else:
            spans = _packed(_sentences(text, tokens, chunking.size), chunking)
    found = []
    for start, end in spans:
        part = text[start:end]
        start += len(part) - len(part.lstrip())
        part = part.strip()
        if part:
            found.append(Chunk(start, start + len(part), part))
    return found


def sentences(text: str, size: int) -> list[str]:
    """The sentences of ``text``, none of them blank, in pieces of at most ``size`` words and
    marks."""
    tokens = [match.span() for match in _TOKEN.finditer(text)]
    return [text[piece.start : piece.end] for piece in _sentences(text, tokens, size)]


def _windows(tokens: Sequence[Span], size: int, overlap: int) -> list[Span]:
    """Windows of ``size`` tokens, each ``overlap`` into the one before."""
    found = []
    for first in range(0, len(tokens), size - overlap):
        last = min(first + size, len(tokens))
        found.append((tokens[first][0], tokens[last - 1][1]))
        if last == len(tokens):
            break
    return found


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence, or a part of one that is longer than a chunk."""

    start: int
    end: int
    tokens: int


def _sentences(text: str, tokens: Sequence[Span], size: int) -> list[_Piece]:
    starts = [start for start, _ in tokens]
    pieces: list[_Piece] = []
    begin = 0
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    for end in [*ends, len(text)]:
        first, last = bisect_right(starts, begin - 1), bisect_right(starts, end - 1)
        if last > first:
            for at in range(first, last, size):
                to = min(at + size, last)
                pieces.append(_Piece(tokens[at][0], tokens[to - 1][1], to - at))
        begin = end
    return pieces


def _packed(pieces: Sequence[_Piece], chunking: Chunking) -> list[Span]:
    """As many whole pieces a chunk as fit, and as many of its last ones again in front of the next
    as fit into the overlap."""
    found: list[Span] = []
    held: list[_Piece] = []
    count = 0
    for piece in pieces:
        if held and count + piece.tokens > chunking.size:
            found.append((held[0].start, held[-1].end))
            held = _tail(held, min(chunking.overlap, chunking.size - piece.tokens))
            count = sum(each.tokens for each in held)
        held.append(piece)
        count += piece.tokens
    if held:
        found.append((held[0].start, held[-1].end))
    return found


def _tail(pieces: Sequence[_Piece], room: int) -> list[_Piece]:
    kept: list[_Piece] = []
    for piece in reversed(pieces[1:]):
        room -= piece.tokens
        if room < 0:
            break
        kept.append(piece)
    return kept[::-1]
