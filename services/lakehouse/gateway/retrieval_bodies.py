"""Bodies of requests about what was retrieved: eval sets, tuning, answers."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from lakehouse.contracts.rag import CONTEXT_MAX, QUESTION_BYTES_MAX, AnswerRequest
from lakehouse.contracts.retrievals import PinRequest
from lakehouse.contracts.trials import (
    BUDGET_SECONDS_MAX,
    EVAL_QUERIES_MAX,
    AutotuneRequest,
    EvalQuery,
    EvaluateRequest,
    PromoteRequest,
    PutEvalRequest,
)
from lakehouse.contracts.vectors import K_MAX, WAIT_SECONDS_MAX
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.bodies import Body, Point, Text, Whole
from lakehouse.gateway.params import point
from lakehouse.gateway.vector_bodies import (
    Also,
    Asked,
    IndexField,
    Key,
    Number,
    Short,
    Vector,
)
from lakehouse.model.retrieval import RecordClass, Rerank, SearchMode

_RELEVANT_MAX: Final = 10_000
_VALUES_MAX: Final = 100
_EF_MAX: Final = 1_000_000
_TEMPERATURE_MAX: Final = 100.0

K = Annotated[int, Field(ge=1, le=K_MAX)]
Modes = Annotated[tuple[SearchMode, ...], Field(max_length=len(SearchMode))]
Values = Annotated[
    tuple[Annotated[int, Field(ge=1, le=_EF_MAX)], ...], Field(max_length=_VALUES_MAX)
]


class PinBody(Body):
    """``note``: why; it stands at the tags."""

    note: Short = ""

    def request(self, retrieval: str) -> PinRequest:
        return PinRequest(retrieval, note=self.note)


class EvalQueryBody(Body):
    """Either a ``text`` or a ``vector``. ``relevant``: keys that it should find, as hits have them,
    with as many ``grades``, if wanted: larger is better. Without any, its exact neighbours are what
    it should find."""

    text: Asked | None = None
    vector: Vector | None = None
    relevant: Annotated[tuple[Key, ...], Field(max_length=_RELEVANT_MAX)] = ()
    grades: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1e9)], ...], Field(max_length=_RELEVANT_MAX)
    ] = ()

    def query(self, at: int) -> EvalQuery:
        """Raises ``invalid`` unless it is one of them, with as many grades as keys, or none."""
        if (self.text is None) == (self.vector is None):
            raise LakehouseError(
                ErrorKind.INVALID,
                "a query is either a text or a vector",
                query=at,
                hint='for example {"text": "who repairs roofs", "relevant": [[7]]}',
            )
        if self.grades and len(self.grades) != len(self.relevant):
            raise LakehouseError(
                ErrorKind.INVALID,
                "a query has as many grades as relevant keys, or none",
                query=at,
                grades=len(self.grades),
                relevant=len(self.relevant),
            )
        return EvalQuery(self.text or "", self.vector or b"", self.relevant, self.grades)


class EvalBody(Body):
    """``queries``; or ``samples``: so many documents of the index, drawn with ``seed``, each with
    its exact neighbours."""

    name: IndexField
    index: IndexField
    queries: Annotated[tuple[EvalQueryBody, ...], Field(max_length=EVAL_QUERIES_MAX)] = ()
    samples: Annotated[int, Field(ge=0, le=EVAL_QUERIES_MAX)] = 0
    seed: Whole = 1
    description: Text = ""

    def request(self) -> PutEvalRequest:
        """Raises ``invalid`` unless there are queries or samples, and not both."""
        if bool(self.queries) == bool(self.samples):
            raise LakehouseError(
                ErrorKind.INVALID,
                "give either queries or how many samples to draw",
                hint='for example {"name": "roofs", "index": "tickets", "samples": 200}',
            )
        queries = tuple(one.query(at) for at, one in enumerate(self.queries))
        return PutEvalRequest(
            self.name, self.index, queries, self.samples, self.seed, self.description
        )


class EvaluateBody(Body):
    """``modes``: none are all that the index can be searched in."""

    modes: Modes = ()
    number: Number = 0
    k: K = 10

    def request(self, name: str) -> EvaluateRequest:
        return EvaluateRequest(name, self.modes, self.number, self.k)


class AutotuneBody(Body):
    """Find the fastest setting of the graph of ``index`` that finds ``recall`` of the exact ``k``
    nearest, within ``budget_seconds``.

    ``m``, ``ef_construction``, ``ef``: values to try; none: a grid that fits. ``eval_set``: whose
    queries; else ``samples`` documents. ``rows_max``: try on a sample of so many; 0 as the budget
    allows. ``exhaustive``: every setting, however unpromising. ``wait_seconds``: answer when it is
    done, or after so long.
    """

    index: IndexField
    number: Number = 0
    eval_set: Short = ""
    samples: Annotated[int, Field(ge=1, le=EVAL_QUERIES_MAX)] = 200
    k: K = 10
    recall: Annotated[float, Field(gt=0, le=1)] = 0.99
    m: Values = ()
    ef_construction: Values = ()
    ef: Values = ()
    rows_max: Whole = 0
    budget_seconds: Annotated[float, Field(gt=0, le=BUDGET_SECONDS_MAX)] = 60.0
    exhaustive: bool = False
    wait_seconds: Annotated[float, Field(ge=0, le=WAIT_SECONDS_MAX)] = 0.0

    def request(self) -> AutotuneRequest:
        return AutotuneRequest(**self.model_dump())


class PromoteBody(Body):
    """``number``: of the index's version; 0 is the one that was tried."""

    number: Number = 0

    def request(self, trial: str) -> PromoteRequest:
        return PromoteRequest(trial, self.number)


class RagBody(Body):
    """Answer ``question`` from what ``index`` has to say to it.

    ``k``: so many pieces of text for the model. ``mode``, ``filter``, ``number``, ``also``,
    ``rerank``, ``as_of``: as in a search. ``model``: that answers; as configured if absent.
    ``instructions``: put before the retrieved text, which stays data. ``tokens_max``,
    ``temperature``: of the answer. ``record``: of the retrieval. ``stream``: words as they come.
    """

    index: IndexField
    question: Annotated[str, Field(min_length=1, max_length=QUESTION_BYTES_MAX)]
    k: Annotated[int, Field(ge=1, le=CONTEXT_MAX)] = 5
    mode: SearchMode = SearchMode.HYBRID
    filter: Text = ""
    number: Number = 0
    also: Also = ()
    rerank: Rerank = Rerank.NONE
    as_of: Point | None = None
    model: Short = ""
    instructions: Text = ""
    tokens_max: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    temperature: Annotated[float, Field(ge=0, le=_TEMPERATURE_MAX)] | None = None
    record: RecordClass = RecordClass.DURABLE
    stream: bool = False

    def request(self) -> AnswerRequest:
        given = self.model_dump(exclude={"stream", "as_of"})
        return AnswerRequest(**given, as_of=point(self.as_of))
