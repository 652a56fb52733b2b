"""Recording stand-ins of the contracts of retrievals, trials, answers and memory."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator

from lakehouse.contracts import memory as m
from lakehouse.contracts import rag as g
from lakehouse.contracts import retrievals as t
from lakehouse.contracts import trials as e
from lakehouse.contracts.vectors import IndexResult
from lakehouse.model import retrieval as r
from lakehouse.model.identity import Context
from unit.gateway.recording import AT, VERSION, Recorder
from unit.gateway.vector_fakes import hit, index

VECTOR = struct.pack("<3f", 0.5, -1.0, 0.25)
TEXT = "The <b>roof</b> leaks & drips."
STAGES = (
    r.StageScore(r.Stage.VECTOR, 2, 0.61),
    r.StageScore(r.Stage.TEXT, 1, 4.25),
    r.StageScore(r.Stage.FUSION, 1, 0.0325),
)


def ref(key: str = "[7]") -> r.RetrievedRef:
    return r.RetrievedRef(key, 2, 3, 8, 790, 0.0325, "ab" * 32, STAGES)


def retrieval(id_: str = "R7", text: str = "who repairs <i>roofs</i>") -> r.Retrieval:
    searched = r.SearchedIndex(
        index="tickets",
        number=1,
        profile="default",
        model="all-minilm",
        model_digest="d1",
        backend="parquet",
        served_by="hnsw+bm25",
        dataset="tickets",
        dataset_id="D1",
        columns=("title", "body"),
        vectors_dataset="vectors.tickets.v1",
        vectors_dataset_id="D2",
        source_version=790,
        rows_version=800,
    )
    return r.Retrieval(
        id=id_,
        at=AT,
        actor="ann",
        purpose="search",
        mode=r.SearchMode.HYBRID,
        text=text,
        vector=VECTOR,
        k=5,
        version=800,
        indexes=(searched,),
        hits=(ref(), ref("face-1")),
        digest="cd" * 32,
        filter="status = 'open'",
        embed_ms=3.5,
        search_ms=0.25,
    )


class FakeRetrievals(Recorder):
    """One retrieval under every id."""

    one = retrieval()

    async def get(self, ctx: Context, request: t.RetrievalRequest) -> t.RetrievalResult:
        self.saw("get", ctx, request)
        return t.RetrievalResult(self.one, VERSION)

    async def list(self, ctx: Context, request: t.ListRetrievalsRequest) -> t.ListRetrievalsResult:
        self.saw("list", ctx, request)
        return t.ListRetrievalsResult((self.one,), VERSION, "more", 3, 1)

    async def replay(self, ctx: Context, request: t.RetrievalRequest) -> t.ReplayReport:
        self.saw("replay", ctx, request)
        first, second = self.one.hits
        hits = (
            _replayed(1, first, TEXT, "vectors", "changed"),
            _replayed(2, second, None, "gone", "deleted"),
        )
        return t.ReplayReport(self.one, hits, self.one.digest, False, 1, VERSION)

    async def explain(self, ctx: Context, request: t.RetrievalRequest) -> t.Explanation:
        self.saw("explain", ctx, request)
        reasons = tuple(
            t.HitReason(
                rank,
                one.key,
                one.chunk,
                one.score,
                ("vector", "text"),
                "both stages had it",
                TEXT if rank == 1 else None,
                one.stages,
            )
            for rank, one in enumerate(self.one.hits, 1)
        )
        return t.Explanation(self.one, ("searched <tickets>", "fused"), reasons, VERSION)

    async def pin(self, ctx: Context, request: t.PinRequest) -> t.PinResult:
        self.saw("pin", ctx, request)
        tags = () if request.remove else ("retrieval-R7-1",)
        return t.PinResult(request.id, not request.remove, tags, VERSION, True)


def _replayed(
    rank: int, one: r.RetrievedRef, text: str | None, text_from: str, row: str
) -> t.ReplayedHit:
    return t.ReplayedHit(
        rank,
        one.key,
        one.chunk,
        one.start,
        one.end,
        one.version,
        one.score,
        text,
        one.text_sha256,
        text_from,
        row,
        811,
        one.stages,
    )


def trial(id_: str = "T1", ef: int = 64, chosen: bool = False) -> r.Trial:
    return r.Trial(
        id=id_,
        run="run-1",
        at=AT,
        actor="ann",
        index="tickets",
        number=1,
        kind="hnsw",
        k=10,
        queries=200,
        rows=21_873,
        m=16,
        ef_construction=100,
        ef=ef,
        recall=min(0.9 + ef / 1000, 1.0),
        p50_ms=ef / 200,
        p99_ms=ef / 100,
        build_seconds=2.5,
        size_bytes=37_610_200,
        chosen=chosen,
        note="<script>alert(1)</script>" if chosen else "",
    )


class FakeTrials(Recorder):
    """``looks``: how often a run is told as running before it is done."""

    looks = 0
    created = True
    building = False
    failed = ""

    def _eval(self, name: str) -> e.EvalSet:
        queries = (
            e.EvalQuery("who repairs roofs", b"", ("[7]", "face-1"), (2.0, 1.0)),
            e.EvalQuery("", VECTOR),
        )
        return e.EvalSet(name, "tickets", queries, AT, "by hand", 800)

    def _report(self, index_: str = "tickets") -> e.TrialsReport:
        trials = (trial(), trial("T2", 128, chosen=True))
        if self.looks > 0:
            self.looks -= 1
            return e.TrialsReport("run-1", index_, "running", trials[:1], VERSION, planned=2)
        state = "failed" if self.failed else "done"
        return e.TrialsReport(
            "run-1", index_, state, trials, VERSION, trials[1], True, 2, 3.5, "all", self.failed
        )

    async def put_eval(self, ctx: Context, request: e.PutEvalRequest) -> e.EvalResult:
        self.saw("put_eval", ctx, request)
        return e.EvalResult(self._eval(request.name), VERSION, self.created)

    async def get_eval(self, ctx: Context, request: e.EvalRequest) -> e.EvalResult:
        self.saw("get_eval", ctx, request)
        return e.EvalResult(self._eval(request.name), VERSION)

    async def list_evals(self, ctx: Context, request: e.ListEvalsRequest) -> e.ListEvalsResult:
        self.saw("list_evals", ctx, request)
        one = e.EvalSummary("roofs", "tickets", 2, 2, AT, "by hand", 800)
        return e.ListEvalsResult((one,), VERSION, "more")

    async def delete_eval(self, ctx: Context, request: e.DeleteEvalRequest) -> e.DeleteEvalResult:
        self.saw("delete_eval", ctx, request)
        return e.DeleteEvalResult(request.name, VERSION)

    async def evaluate(self, ctx: Context, request: e.EvaluateRequest) -> e.TrialsReport:
        self.saw("evaluate", ctx, request)
        return self._report()

    async def autotune(self, ctx: Context, request: e.AutotuneRequest) -> e.TrialsReport:
        self.saw("autotune", ctx, request)
        return self._report(request.index)

    async def get_run(self, ctx: Context, request: e.RunRequest) -> e.TrialsReport:
        self.saw("get_run", ctx, request)
        return self._report()

    async def trials(self, ctx: Context, request: e.TrialsRequest) -> e.TrialsResult:
        self.saw("trials", ctx, request)
        trials = (trial("T2", 128, chosen=True), trial())
        return e.TrialsResult(trials, VERSION, "more", 2, 1)

    async def promote(self, ctx: Context, request: e.PromoteRequest) -> IndexResult:
        self.saw("promote", ctx, request)
        return IndexResult(index(), VERSION, building=self.building)


def citation(number: int = 1, key: str = "[7]") -> g.Citation:
    return g.Citation(number, "tickets", key, 2, 3, 8, 790, 0.0325, TEXT)


class FakeRag(Recorder):
    """Says ``words``, then ``midway`` where it is an error, else the end; ``closed`` counts."""

    words: tuple[str, ...] = ("It is ", "the roof ", "[1].")
    midway: Exception | None = None
    closed = 0

    async def answer(self, ctx: Context, request: g.AnswerRequest) -> g.AnswerStream:
        self.saw("answer", ctx, request)
        context = (citation(), citation(2, "face-1"))
        header = g.AnswerHeader("R7", "qwen3:0.6b", context, VERSION, behind=True)
        return g.AnswerStream(header, self._parts())

    async def _parts(self) -> AsyncIterator[g.AnswerPart]:
        try:
            for word in self.words:
                yield g.AnswerPart(word)
            if self.midway is not None:
                raise self.midway
            end = g.AnswerEnd("".join(self.words), (1,), (9,), "qwen3:0.6b", "stop", 90, 6, 0.5)
            yield g.AnswerPart(end=end)
        finally:
            self.closed += 1


def turn(text: str = "The roof leaks again") -> m.Turn:
    return m.Turn(text, "ann", "monday", AT, ("roof",), "ab" * 32, AT)


class FakeMemory(Recorder):
    created = True

    async def remember(self, ctx: Context, request: m.RememberRequest) -> m.RememberReport:
        self.saw("remember", ctx, request)
        ids = tuple(f"id-{n}" for n in range(len(request.turns)))
        return m.RememberReport(request.memory, VERSION, len(ids), 0, ids, self.created)

    async def recall(self, ctx: Context, request: m.RecallRequest) -> m.RecallResult:
        self.saw("recall", ctx, request)
        recalled = (m.Recalled(hit('["ab"]', 0.5), turn()), m.Recalled(hit("[7]", 0.25)))
        return m.RecallResult(request.memory, recalled, "R7", VERSION, behind=True)

    async def catch_up(self, ctx: Context, request: m.CatchUpRequest) -> m.CatchUpResult:
        self.saw("catch_up", ctx, request)
        return m.CatchUpResult(request.memory, (turn(),), VERSION, "on", True)

    async def memories(self, ctx: Context, request: m.MemoriesRequest) -> m.MemoriesResult:
        self.saw("memories", ctx, request)
        return m.MemoriesResult((m.MemoryInfo("support", 3, "support", AT),), VERSION, "more")
