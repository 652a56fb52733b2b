"""Turns that were remembered and are not embedded yet, found by their words. Pure.

An index has chunks of what was embedded, so while it is behind, or the embedding server is away,
what was said last is in none of its answers. Few turns are so new: they are read and weighed here,
by BM25 among themselves.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lakehouse.contracts.memory import Turn
from lakehouse.contracts.vectors import Hit
from lakehouse.model.retrieval import Stage, StageScore
from lakehouse.model.vectors import Chunking
from lakehouse.vectord.chunking import chunks
from lakehouse.vectord.memory.turns import entity_of

__all__ = ["found_among", "merged", "words"]

_K1: Final = 1.2
_B: Final = 0.75
_RANK_OFFSET: Final = 60
_WORDS_MAX: Final = 1_024
# Letters of scripts that put nothing between words are words by themselves.
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD: Final = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")


@dataclass(frozen=True, slots=True)
class _Piece:
    hit: Hit
    counts: Counter[str]
    length: int


def words(text: str) -> list[str]:
    """In lower case, without accents; neither stemmed nor left out."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join([c for c in plain if not unicodedata.combining(c)]))


def found_among(
    turns: Sequence[Turn], query: str, k: int, chunking: Chunking, fused: bool
) -> list[Hit]:
    """The best ``k`` chunks of ``turns`` that have a word of ``query``, with the scores that a
    search of an index gives: of BM25, or ``fused`` of ranks."""
    wanted = list(dict.fromkeys(words(query)))[:_WORDS_MAX]
    pieces = [piece for turn in turns for piece in _pieces(turn, chunking)]
    if not pieces or not wanted:
        return []
    mean = sum(piece.length for piece in pieces) / len(pieces) or 1.0
    among = {word: sum(1 for piece in pieces if word in piece.counts) for word in wanted}
    weight = {
        word: math.log(1 + (len(pieces) - count + 0.5) / (count + 0.5))
        for word, count in among.items()
        if count
    }
    weighed = [(_score(piece, weight, mean), piece.hit) for piece in pieces]
    best = sorted(
        [(score, hit) for score, hit in weighed if score > 0],
        key=lambda one: (-one[0], one[1].key, one[1].chunk),
    )[:k]
    return [_shown(hit, rank, score, fused) for rank, (score, hit) in enumerate(best, 1)]


def merged(found: Sequence[Hit], waiting: Sequence[Hit], k: int) -> tuple[Hit, ...]:
    """Both, best first, each once; what came just now and has the words comes first among equals:
    who remembers something finds it."""
    there = {(hit.index, hit.key) for hit in found}
    more = [hit for hit in waiting if (hit.index, hit.key) not in there]
    return tuple(sorted([*more, *found], key=lambda hit: -hit.score)[:k])


def _pieces(turn: Turn, chunking: Chunking) -> list[_Piece]:
    found = []
    for place, chunk in enumerate(chunks(turn.text, chunking)):
        said = words(chunk.text)
        key = entity_of(turn.id)
        hit = Hit(key, 0.0, place, chunk.start, chunk.end, chunk.text, 0)
        found.append(_Piece(hit, Counter(said), len(said)))
    return found


def _score(piece: _Piece, weight: dict[str, float], mean: float) -> float:
    norm = _K1 * (1 - _B + _B * piece.length / mean)
    return sum(
        each * piece.counts[word] * (_K1 + 1) / (piece.counts[word] + norm)
        for word, each in weight.items()
        if word in piece.counts
    )


def _shown(hit: Hit, rank: int, score: float, fused: bool) -> Hit:
    stages: tuple[StageScore, ...] = ()
    if fused:
        first = StageScore(Stage.TEXT, rank, score)
        score = 1.0 / (_RANK_OFFSET + rank)
        stages = (first, StageScore(Stage.FUSION, rank, score))
    return Hit(hit.key, score, hit.chunk, hit.start, hit.end, hit.text, hit.version, stages)
