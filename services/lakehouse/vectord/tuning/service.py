"""The trials service: joins eval sets, runs and what becomes of them."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from lakehouse.contracts import trials as c
from lakehouse.contracts.catalog import StatusRequest
from lakehouse.contracts.vectors import IndexRequest, IndexResult, VectorQuery, VectorsService
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.kit.clock import to_datetime
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import name_key
from lakehouse.model.retrieval import SearchMode, Trial
from lakehouse.model.vectors import IndexVersion, VectorIndexInfo
from lakehouse.vectord.documents import Documents, version_of
from lakehouse.vectord.image import Image
from lakehouse.vectord.images import Images
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import Vectors
from lakehouse.vectord.searching import Searching
from lakehouse.vectord.tuning import checking
from lakehouse.vectord.tuning.autotuning import Asked, Autotuning
from lakehouse.vectord.tuning.evals import EvalSets
from lakehouse.vectord.tuning.evaluating import Answers, Asker, modes_of
from lakehouse.vectord.tuning.grid import grid_of
from lakehouse.vectord.tuning.journal import TrialLog
from lakehouse.vectord.tuning.metrics import gains_of
from lakehouse.vectord.tuning.promoting import is_reshaped, promote
from lakehouse.vectord.tuning.runs import Active, Outcome, Runs, Subject
from lakehouse.vectord.tuning.trying import Job

__all__ = ["Trials"]

_RELEVANT: Final = 10
_AT_ONCE: Final = 32
_MEMORY_SHARE: Final = 4
_EVALUATE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class _Queries:
    """Of an eval set: what is asked, as vectors too, and what each key is worth."""

    eval_set: c.EvalSet
    vectors: Vectors
    wanted: tuple[Mapping[str, float], ...]


class Trials:
    """Implements ``contracts.trials.TrialsService``. Belongs to one event loop."""

    def __init__(
        self,
        parts: VectorParts,
        documents: Documents,
        images: Images,
        searching: Searching,
        vectors: VectorsService,
    ) -> None:
        self._parts = parts
        self._documents = documents
        self._images = images
        self._searching = searching
        self._vectors = vectors
        self._evals = EvalSets(parts)
        self._log = TrialLog(parts)
        self._runs = Runs(parts, self._log)
        self._tuning = Autotuning(parts, self._runs)
        self._recovering: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look after what an earlier process left, in the background."""
        self._recovering = asyncio.create_task(self._runs.recover(), name="trials left behind")

    async def close(self) -> None:
        """End what runs, and note it; idempotent."""
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.gather(self._recovering, return_exceptions=True)
        await self._tuning.close()
        await self._log.close()

    async def put_eval(self, ctx: Context, request: c.PutEvalRequest) -> c.EvalResult:
        ctx.require(Scope.WRITE)
        name = checking.check_put(request)
        info = await self._documents.get(ctx, request.index)
        version = version_of(info, 0)
        queries = request.queries
        if request.samples:
            image = await self._filled(ctx, info, version)
            queries = await run_in(self._parts.jobs, _drawn, info, image, request)
        checking.check_vectors(version, queries)
        named = replace(request, name=name, index=info.name)
        return await self._evals.put(ctx, named, queries)

    async def get_eval(self, ctx: Context, request: c.EvalRequest) -> c.EvalResult:
        ctx.require(Scope.READ)
        return c.EvalResult(*await self._evals.get(ctx, request.name))

    async def list_evals(self, ctx: Context, request: c.ListEvalsRequest) -> c.ListEvalsResult:
        ctx.require(Scope.READ)
        checking.check_limit(request.limit)
        after = _after(request.cursor)
        sets, version = await self._evals.list(ctx)
        index = name_key(request.index)
        wanted = [
            one
            for one in sets
            if (not index or name_key(one.index) == index) and name_key(one.name) > after
        ]
        page = wanted[: request.limit]
        cursor = _cursor(page[-1].name) if len(wanted) > len(page) else ""
        return c.ListEvalsResult(tuple(page), version, cursor)

    async def delete_eval(self, ctx: Context, request: c.DeleteEvalRequest) -> c.DeleteEvalResult:
        ctx.require(Scope.WRITE)
        return await self._evals.delete(ctx, request)

    async def evaluate(self, ctx: Context, request: c.EvaluateRequest) -> c.TrialsReport:
        ctx.require(Scope.WRITE)
        checking.check_evaluate(request)
        eval_set, _ = await self._evals.get(ctx, request.name)
        info, store_version = await self._documents.read(ctx, eval_set.index)
        version = version_of(info, request.number)
        self._runs.check_free(info.name)
        modes = tuple(dict.fromkeys(request.modes)) or modes_of(eval_set.queries)
        checking.check_modes(modes, eval_set)
        image = await self._filled(ctx, info, version)
        found = await self._queries(version, eval_set, embed=set(modes) != {SearchMode.TEXT})
        subject = Subject(info.name, version.number, "mode", len(modes), _EVALUATE_SECONDS)
        active = await self._runs.begin(ctx, subject)
        outcome = Outcome(error="it was ended before it was done")
        try:
            asker = Asker(self._vectors.search, ctx, info.name, request, found.vectors)
            outcome = await self._asked(active, asker, modes, found, (request.k, image.rows))
        except LakehouseError as error:
            outcome = Outcome(error=str(error))
            raise
        finally:
            await self._runs.finish(active, outcome)
        return await self._runs.report(active.began.id, store_version)

    async def autotune(self, ctx: Context, request: c.AutotuneRequest) -> c.TrialsReport:
        ctx.require(Scope.WRITE)
        checking.check_autotune(request)
        info, store_version = await self._documents.read(ctx, request.index)
        version = version_of(info, request.number)
        checking.check_graph(info, version)
        grid_of(request, version.profile, request.k)
        found = None
        if request.eval_set:
            eval_set, _ = await self._evals.get(ctx, request.eval_set)
            checking.check_same_index(eval_set, info.name)
        self._runs.check_free(info.name)
        image = await self._filled(ctx, info, version)
        if request.eval_set:
            found = await self._queries(version, eval_set, embed=True)
        job = self._job(request, version, image, found)
        name = found.eval_set.name if found else ""
        asked = Asked(info.name, version.number, name, job, image.rows)
        run = await self._tuning.begin(ctx, asked, request.wait_seconds)
        return await self._runs.report(run, store_version)

    async def get_run(self, ctx: Context, request: c.RunRequest) -> c.TrialsReport:
        ctx.require(Scope.READ)
        return await self._runs.report(request.run, await self._version(ctx))

    async def trials(self, ctx: Context, request: c.TrialsRequest) -> c.TrialsResult:
        ctx.require(Scope.READ)
        checking.check_limit(request.limit)
        return await self._log.page(request, await self._version(ctx))

    async def promote(self, ctx: Context, request: c.PromoteRequest) -> IndexResult:
        ctx.require(Scope.WRITE)
        trial = await self._log.trial(request.trial)
        if trial is None:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "there is no trial of this name",
                trial=request.trial[:80],
                hint="list the trials to see their names",
            )
        info, version, _ = await promote(self._parts, self._documents, ctx, request, trial)
        # Who keeps its structures sees that they are of another shape.
        self._images.consider(version)
        found = await self._vectors.get_index(ctx, IndexRequest(info.name))
        return replace(found, building=found.building or is_reshaped(version))

    async def _version(self, ctx: Context) -> int:
        return (await self._parts.catalog.status(ctx, StatusRequest())).version

    async def _filled(self, ctx: Context, info: VectorIndexInfo, version: IndexVersion) -> Image:
        """Raises ``conflict`` where there is nothing to search."""
        image = await self._images.image(ctx, version)
        if not image.rows:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the index version has no vectors yet",
                index=info.name,
                number=version.number,
                hint="build it, or put vectors into it, first",
            )
        return image

    async def _queries(
        self, version: IndexVersion, eval_set: c.EvalSet, *, embed: bool
    ) -> _Queries:
        """Raises ``invalid`` for queries that the version cannot be asked, and as the embedder."""
        queries = eval_set.queries
        vectors = np.empty((0, version.dimensions), np.float32)
        if embed:
            checking.check_vectors(version, queries)
            asked = [VectorQuery("" if one.vector else one.text, one.vector) for one in queries]
            vectors, _ = await self._searching.queries(version, asked)
        return _Queries(eval_set, vectors, tuple(gains_of(one) for one in queries))

    def _job(
        self,
        request: c.AutotuneRequest,
        version: IndexVersion,
        image: Image,
        found: _Queries | None,
    ) -> Job:
        profile = version.profile
        return Job(
            image,
            grid_of(request, profile, image.rows),
            (profile.hnsw_m, profile.ef_construction),
            request.k,
            request.recall,
            request.exhaustive,
            request.rows_max,
            self._parts.settings.memory_bytes_max // _MEMORY_SHARE,
            request.budget_seconds,
            request.samples,
            found.vectors if found else None,
            found.wanted if found else (),
            profile.exact_rows_max,
        )

    async def _asked(
        self,
        active: Active,
        asker: Asker,
        modes: Sequence[SearchMode],
        found: _Queries,
        size: tuple[int, int],
    ) -> Outcome:
        """Each mode becomes a trial. ``size``: k, and the rows of the index."""
        queries, wanted = found.eval_set.queries, list(found.wanted)
        if len(found.vectors):
            for at, gains in enumerate(wanted):
                wanted[at] = gains or await asker.exact(at)
        best: tuple[float, str] = (-1.0, "")
        for mode in modes:
            answers = await asker.ask(mode, queries, wanted)
            trial = self._trial(active, mode, found.eval_set.name, answers, size)
            trial = replace(trial, queries=len(queries))
            await self._runs.add(active, [trial])
            best = max(best, (trial.ndcg or 0.0, trial.id), key=lambda one: one[0])
        return Outcome(best[1], True, "all")

    def _trial(
        self,
        active: Active,
        mode: SearchMode,
        eval_set: str,
        answers: Answers,
        size: tuple[int, int],
    ) -> Trial:
        began, figures = active.began, answers.figures
        k, rows = size
        return Trial(
            self._parts.ids.ulid(),
            began.id,
            to_datetime(self._parts.clock.now_us()),
            began.actor,
            began.index,
            began.number,
            "mode",
            k,
            0,
            rows,
            mode=mode,
            eval_set=eval_set,
            ndcg=figures.ndcg if figures else None,
            mrr=figures.mrr if figures else None,
            relevant_recall=figures.recall if figures else None,
            p50_ms=answers.p50_ms,
            p99_ms=answers.p99_ms,
            note=answers.note,
        )


def _drawn(
    info: VectorIndexInfo, image: Image, request: c.PutEvalRequest
) -> tuple[c.EvalQuery, ...]:
    """Rows of ``image`` as queries, and their exact neighbours as what should be found."""
    live = np.flatnonzero(image.live)
    chance = np.random.default_rng(request.seed)
    count = min(request.samples, len(live))
    rows = np.sort(chance.choice(live, count, replace=False))
    texts = image.book.table(rows).column("text").to_pylist()
    vectors = np.ascontiguousarray(image.vectors(rows))
    queries = []
    for start in range(0, count, _AT_ONCE):
        some = vectors[start : start + _AT_ONCE]
        for at, (near, _) in enumerate(image.search(some, _RELEVANT, exact=True), start):
            keys = tuple(dict.fromkeys(image.book.key(one)[0] for one in near.tolist()))
            # Texts are understood by every later model of the index as well.
            given = b"" if info.dataset_id else vectors[at].astype("<f4").tobytes()
            queries.append(c.EvalQuery(texts[at], given, keys))
    return tuple(queries)


def _cursor(name: str) -> str:
    return base64.urlsafe_b64encode(name_key(name).encode()).decode()


def _after(cursor: str) -> str:
    try:
        return base64.b64decode(cursor.encode(), b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise checking.bad("the cursor is not one of ours", cursor=cursor[:80]) from None
