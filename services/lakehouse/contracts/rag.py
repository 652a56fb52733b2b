"""Answers from retrieved text, with citations (RAG)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

from lakehouse.contracts.as_of import AsOf
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import RecordClass, Rerank, SearchMode

QUESTION_BYTES_MAX: Final = 100 * 1024
CONTEXT_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """Ask a generative model, given what an index has to say.

    Attributes:
        index, also, mode, k, filter, number, rerank, as_of: as in ``vectors.SearchRequest``; ``k``
            in [1, ``CONTEXT_MAX``].
        model: that answers; "" is the configuration's.
        instructions: of the caller, put before the retrieved text; that text stays data.
        tokens_max, temperature: of the answer; 0 and None leave them to the server.
        record: of the retrieval; it is remembered before the model is asked.
    """

    index: str
    question: str
    k: int = 5
    mode: SearchMode = SearchMode.HYBRID
    filter: str = ""
    number: int = 0
    also: tuple[str, ...] = ()
    rerank: Rerank = Rerank.NONE
    as_of: AsOf = AsOf()
    model: str = ""
    instructions: str = ""
    tokens_max: int = 0
    temperature: float | None = None
    record: RecordClass = RecordClass.DURABLE


@dataclass(frozen=True, slots=True)
class Citation:
    """A piece of context, by its number in the answer, from 1: a chunk of a row's text.

    ``shortened``: the model was given the first part of ``text`` alone.
    """

    number: int
    index: str
    key: str
    chunk: int
    start: int
    end: int
    version: int
    score: float
    text: str
    shortened: bool = False


@dataclass(frozen=True, slots=True)
class AnswerHeader:
    """Known before the first word. ``context`` is what the model is given, best first."""

    retrieval_id: str
    model: str
    context: tuple[Citation, ...]
    version: int
    degraded: bool = False
    behind: bool = False


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """After the last word.

    Attributes:
        answer: all of it.
        cited: numbers of the context that it refers to, in order of their first mention.
        unknown: numbers that it refers to and that no context has: the model made them up.
        done_reason: as the model's server says: ``stop``, ``length``.
    """

    answer: str
    cited: tuple[int, ...]
    unknown: tuple[int, ...] = ()
    model: str = ""
    done_reason: str = ""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """Some words, or the end."""

    text: str = ""
    end: AnswerEnd | None = None


@dataclass(frozen=True, slots=True)
class AnswerStream:
    """``parts``: words as they come, then the end; raises LakehouseError where the model fails
    midway. Closing the iterator stops the model."""

    header: AnswerHeader
    parts: AsyncIterator[AnswerPart]


class RagService(Protocol):
    """Raises what ``VectorsService.search`` raises, and where no model can answer ``unavailable``
    (or ``not_found``: a model that is not there) whose fields ``retrieval_id`` and ``context``
    carry what was retrieved."""

    async def answer(self, ctx: Context, request: AnswerRequest) -> AnswerStream:
        """Scope read. Returns when the first words are there."""
        ...
