"""What answers with citations, and what is remembered of conversations, look like in JSON."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from lakehouse.contracts.memory import (
    CatchUpResult,
    MemoriesResult,
    MemoryInfo,
    Recalled,
    RecallResult,
    Turn,
)
from lakehouse.contracts.rag import AnswerEnd, AnswerHeader, Citation
from lakehouse.gateway.vector_shapes import hit_shape, key_value
from lakehouse.model.retrieval import StageScore


@dataclass(frozen=True, slots=True)
class CitationShape:
    """A piece of the context, by its ``number`` in the answer. ``span``: of the document's text, in
    characters; ``version``: of the row. ``shortened``: the model was given the first part alone."""

    number: int
    index: str
    key: Any
    chunk: int
    span: tuple[int, int]
    version: int
    score: float
    text: str
    shortened: bool


@dataclass(frozen=True, slots=True)
class HeaderShape:
    """Known before the first word."""

    retrieval_id: str
    model: str
    context: tuple[CitationShape, ...]
    version: int
    degraded: bool
    behind: bool


@dataclass(frozen=True, slots=True)
class EndShape:
    """``citations``: the context that the answer refers to, in order of first mention. ``unknown``:
    numbers it refers to that no context has: the model made them up."""

    answer: str
    citations: tuple[CitationShape, ...]
    unknown: tuple[int, ...]
    done_reason: str
    prompt_tokens: int
    answer_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AnswerShape(EndShape):
    """An answer, all of it, with what the model was given."""

    retrieval_id: str
    model: str
    context: tuple[CitationShape, ...]
    version: int
    degraded: bool
    behind: bool


@dataclass(frozen=True, slots=True)
class RecalledShape:
    """A hit. ``turn``: null for a row of a table."""

    key: Any
    score: float
    chunk: int
    span: tuple[int, int]
    text: str
    version: int
    stages: tuple[StageScore, ...]
    index: str
    turn: Turn | None


@dataclass(frozen=True, slots=True)
class RecallShape:
    """Best first."""

    memory: str
    hits: tuple[RecalledShape, ...]
    retrieval_id: str
    version: int
    degraded: bool
    behind: bool


@dataclass(frozen=True, slots=True)
class CatchUpShape:
    """``cursor`` is for the next time; ``more``: there are more turns now."""

    memory: str
    turns: tuple[Turn, ...]
    version: int
    cursor: str
    more: bool


@dataclass(frozen=True, slots=True)
class MemoriesShape:
    """By name."""

    memories: tuple[MemoryInfo, ...]
    version: int
    next: str | None


def _citation(one: Citation) -> CitationShape:
    return CitationShape(
        one.number,
        one.index,
        key_value(one.key),
        one.chunk,
        (one.start, one.end),
        one.version,
        one.score,
        one.text,
        one.shortened,
    )


def header_shape(header: AnswerHeader) -> HeaderShape:
    return HeaderShape(
        header.retrieval_id,
        header.model,
        tuple(map(_citation, header.context)),
        header.version,
        header.degraded,
        header.behind,
    )


def end_shape(header: AnswerHeader, end: AnswerEnd) -> EndShape:
    by_number = {one.number: one for one in header.context}
    cited = tuple(_citation(by_number[n]) for n in end.cited if n in by_number)
    return EndShape(
        end.answer,
        cited,
        end.unknown,
        end.done_reason,
        end.prompt_tokens,
        end.answer_tokens,
        round(end.seconds, 3),
    )


def answer_shape(header: AnswerHeader, end: AnswerEnd) -> AnswerShape:
    head, tail = header_shape(header), end_shape(header, end)
    parts = (
        (field.name, getattr(part, field.name)) for part in (head, tail) for field in fields(part)
    )
    return AnswerShape(**dict(parts))


def recall_shape(result: RecallResult) -> RecallShape:
    return RecallShape(
        result.memory,
        tuple(map(_recalled, result.recalled)),
        result.retrieval_id,
        result.version,
        result.degraded,
        result.behind,
    )


def _recalled(one: Recalled) -> RecalledShape:
    hit = hit_shape(one.hit)
    return RecalledShape(
        hit.key,
        hit.score,
        hit.chunk,
        hit.span,
        hit.text,
        hit.version,
        hit.stages,
        hit.index,
        one.turn,
    )


def catch_up_shape(result: CatchUpResult) -> CatchUpShape:
    return CatchUpShape(result.memory, result.turns, result.version, result.cursor, result.more)


def memories_shape(result: MemoriesResult) -> MemoriesShape:
    return MemoriesShape(result.memories, result.version, result.cursor or None)
