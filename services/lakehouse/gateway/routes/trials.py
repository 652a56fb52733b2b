"""Trials: eval sets, settings of a graph that were tried, and the one that is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.trials import (
    DeleteEvalRequest,
    DeleteEvalResult,
    EvalRequest,
    ListEvalsRequest,
    RunRequest,
    TrialsReport,
    TrialsRequest,
    TrialsResult,
    TrialsService,
)
from lakehouse.gateway import retrieval_examples as examples
from lakehouse.gateway import vector_examples
from lakehouse.gateway.auth import Reader, Writer
from lakehouse.gateway.bodies import read_json
from lakehouse.gateway.openapi import told, with_json, with_page
from lakehouse.gateway.pages.choice import PageFormat, wants_page
from lakehouse.gateway.pages.trials import trials_page
from lakehouse.gateway.params import Cursor, Limit, Since, Until
from lakehouse.gateway.replies import made, reply
from lakehouse.gateway.retrieval_bodies import AutotuneBody, EvalBody, EvaluateBody, PromoteBody
from lakehouse.gateway.retrieval_shapes import (
    EvalShape,
    EvalsShape,
    TrialsShape,
    eval_shape,
    evals_shape,
    trials_shape,
)
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute
from lakehouse.gateway.vector_shapes import IndexShape, index_shape
from lakehouse.kit.clock import Clock
from lakehouse.kit.when import parse_when

_EVALS = "/vectors/evals"
_EVAL = "/vectors/evals/{name}"

EvalName = Annotated[
    str, Path(description="An eval set's name.", examples=["roofs"], max_length=1000)
]
OfIndex = Annotated[str, Query(description="Only of this index.", max_length=1000)]
Run = Annotated[
    str,
    Path(
        description="`run` of an answer.", examples=["01K5ZC1GQ0XW5T1T9Q0R8M7A2B"], max_length=1000
    ),
]
TrialId = Annotated[
    str,
    Path(description="`id` of a trial.", examples=["01K5ZC1GQ0XW5T1T9Q0R8M7A2B"], max_length=1000),
]


async def _filtered(
    index: OfIndex = "",
    run: Annotated[str, Query(description="Only of this run.", max_length=1000)] = "",
    kind: Annotated[
        Literal["hnsw", "mode"] | None, Query(description="Only graphs, or only modes of search.")
    ] = None,
    limit: Limit = 100,
    cursor: Cursor = "",
) -> TrialsRequest:
    return TrialsRequest(index, run, kind or "", limit=limit, cursor=cursor)


Filtered = Annotated[TrialsRequest, Depends(_filtered)]


def routes(trials: TrialsService, settings: GatewaySettings, clock: Clock) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["trials"], route_class=StrictRoute)
    _add_evals(router, trials, settings)
    _add_runs(router, trials, settings)
    _add_journal(router, trials, settings, clock)
    return router


def _add_evals(router: APIRouter, trials: TrialsService, settings: GatewaySettings) -> None:
    put_ = told("Set an eval set", EvalShape, examples.EVAL_SET, statuses=(201, 200), also=(409,))
    delete_ = told("Delete an eval set", DeleteEvalResult, examples.DELETED_EVAL)

    @router.post(_EVALS, **with_json(put_, EvalBody, examples.PUT_EVAL))
    async def put_eval(ctx: Writer, request: Request) -> Response:
        """Queries with the keys that each should find; or, drawn from the index, documents with
        their exact neighbours. One of that name is replaced."""
        body = await read_json(request, EvalBody, settings.json_bytes_max)
        done = await trials.put_eval(ctx, body.request())
        return made(eval_shape(done), done.version, done.created)

    @router.get(_EVALS, **told("List eval sets", EvalsShape, examples.EVALS))
    async def list_evals(
        ctx: Reader, index: OfIndex = "", limit: Limit = 100, cursor: Cursor = ""
    ) -> Response:
        """By name, without their queries, a page at a time."""
        listed = await trials.list_evals(ctx, ListEvalsRequest(index, limit, cursor))
        return reply(evals_shape(listed), listed.version)

    @router.get(_EVAL, **told("An eval set", EvalShape, examples.EVAL_SET))
    async def get_eval(ctx: Reader, name: EvalName) -> Response:
        """With all its queries."""
        found = await trials.get_eval(ctx, EvalRequest(name))
        return reply(eval_shape(found), found.version)

    @router.delete(_EVAL, **delete_)
    async def delete_eval(ctx: Writer, name: EvalName) -> Response:
        """The trials that used it stay in the journal."""
        gone = await trials.delete_eval(ctx, DeleteEvalRequest(name))
        return reply(gone, gone.version)


def _add_runs(router: APIRouter, trials: TrialsService, settings: GatewaySettings) -> None:
    run_ = told("Evaluate modes of search", TrialsReport, examples.EVALUATED, also=(409,))
    statuses = (202, 200)
    tune_ = told("Tune a graph", TrialsReport, examples.TUNING, statuses=statuses, also=(409,))

    @router.post(f"{_EVAL}/run", **with_json(run_, EvaluateBody, examples.EVALUATE))
    async def evaluate(ctx: Writer, name: EvalName, request: Request) -> Response:
        """Search with each query of the set in each mode: nDCG, MRR and how much of what is
        relevant was found, or the recall of the exact neighbours. Each mode is a trial."""
        body = await read_json(request, EvaluateBody, settings.json_bytes_max, EvaluateBody())
        report = await trials.evaluate(ctx, body.request(name))
        return reply(report, report.version)

    @router.post("/hnsw/autotune", **with_json(tune_, AutotuneBody, examples.AUTOTUNE))
    async def autotune(ctx: Writer, request: Request) -> Response:
        """Try settings of the index's graph until the fastest is found that has the recall asked
        for, or the time is over; every setting that is tried is a trial in the journal. 202: it
        runs on, and `GET /hnsw/runs/{run}` tells how far it is."""
        body = await read_json(request, AutotuneBody, settings.json_bytes_max)
        return _run_reply(await trials.autotune(ctx, body.request()))

    @router.get("/hnsw/runs/{run}", **told("A run", TrialsReport, examples.TUNED))
    async def get_run(ctx: Reader, run: Run) -> Response:
        """Its trials so far, and which of them is the best for what was asked."""
        report = await trials.get_run(ctx, RunRequest(run))
        return reply(report, report.version)


def _add_journal(
    router: APIRouter, trials: TrialsService, settings: GatewaySettings, clock: Clock
) -> None:
    list_ = with_page(told("Every trial", TrialsShape, examples.TRIALS))
    statuses = (200, 202)
    promote_ = told(
        "Promote a trial", IndexShape, vector_examples.INDEX, statuses=statuses, also=(409,)
    )

    @router.get("/hnsw/trials", **list_)
    async def list_trials(
        ctx: Reader,
        asked: Filtered,
        request: Request,
        since: Since = "",
        until: Until = "",
        format: PageFormat = None,  # noqa: A002 - as the query has it
    ) -> Response:
        """Newest first; the filters are joined by and. A browser gets a page, with a plot of recall
        against latency."""
        begin, page = parse_when("since", since, clock), wants_page(request, format)
        asked = replace(asked, since=begin, until=parse_when("until", until, clock))
        return _listed(await trials.trials(ctx, asked), page)

    @router.post("/hnsw/trials/{id}/promote", **with_json(promote_, PromoteBody, examples.PROMOTE))
    async def promote(ctx: Writer, id: TrialId, request: Request) -> Response:  # noqa: A002
        """Give the index the trial's setting, in one commit. `ef` holds at once; a graph of another
        shape is built beside the one that answers meanwhile (202)."""
        body = await read_json(request, PromoteBody, settings.json_bytes_max, PromoteBody())
        done = await trials.promote(ctx, body.request(id))
        return reply(index_shape(done), done.version, (200, 202)[done.building])


def _run_reply(report: TrialsReport) -> Response:
    status = 202 if report.state == "running" else 200
    return reply(report, report.version, status)


def _listed(result: TrialsResult, page: bool) -> Response:
    if page:
        return trials_page(result)
    answer = reply(trials_shape(result), result.version)
    answer.headers["Vary"] = "Accept"
    return answer
