"""Small recording stand-ins of the contracts, and a gateway over them in process."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from fastapi import FastAPI

from lakehouse.contracts import catalog as c
from lakehouse.contracts import ingest as i
from lakehouse.contracts import objects as o
from lakehouse.contracts import query as q
from lakehouse.contracts import storage as s
from lakehouse.contracts import tags as g
from lakehouse.contracts import tokens as t
from lakehouse.contracts.readiness import Readiness
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.app import create_app
from lakehouse.gateway.services import Services
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.figures import FigureSource
from lakehouse.kit.ids import SystemIds
from lakehouse.model.dataset import Card, DataFile, Dataset, DatasetStatus, VersionEntry
from lakehouse.model.failures import AttemptOutcome, FailedAttempt
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.model.probe import ProbeCheck, ProbeReport
from lakehouse.model.schema import Schema
from unit.gateway.recording import AT, COLUMNS, VERSION, Recorder
from unit.gateway.retrieval_fakes import FakeMemory, FakeRag, FakeRetrievals, FakeTrials
from unit.gateway.row_fakes import FakeJournal, FakeRows, tag
from unit.gateway.vector_fakes import FakeProfiles, FakeVectors

Chunks = Callable[[], AsyncIterator[bytes]]


def dataset(name: str = "people") -> Dataset:
    return Dataset(
        id="D1",
        name=name,
        fingerprint="fp1:00",
        schema=Schema(1, COLUMNS),
        status=DatasetStatus.LIVE,
        card=Card(owner="crm"),
        created_at=AT,
        updated_at=AT,
        version=800,
        files=1,
        size_bytes=10,
        row_count=3,
        primary_key=("id",),
    )


def failed_attempt() -> FailedAttempt:
    return FailedAttempt(
        id="E1",
        at=AT,
        bucket="eu",
        operation="get",
        key='a "quoted", key',
        error_kind="timeout",
        reason="no answer",
        http_status=0,
        store_request_id="",
        latency_ms=1.5,
        op_id="O1",
        attempt=2,
        final=True,
        outcome=AttemptOutcome.FAILED,
    )


def entry() -> VersionEntry:
    return VersionEntry(800, AT, "create", "local", "R1", 3, 0, 1, 0, 3, 1)


class FakeCatalog(Recorder):
    def _result(self, name: str, created: bool = False) -> c.DatasetResult:
        return c.DatasetResult(dataset(name), VERSION, created)

    async def commit(self, ctx: Context, request: c.CommitRequest) -> c.CommitResult:
        self.saw("commit", ctx, request)
        return c.CommitResult(VERSION)

    async def register(self, ctx: Context, request: c.RegisterRequest) -> c.DatasetResult:
        self.saw("register", ctx, request)
        return self._result(request.name, created=True)

    async def get(self, ctx: Context, request: c.GetRequest) -> c.DatasetResult:
        self.saw("get", ctx, request)
        return self._result(request.name)

    async def list(self, ctx: Context, request: c.ListRequest) -> c.ListResult:
        self.saw("list", ctx, request)
        return c.ListResult((dataset(),), VERSION, "more")

    async def snapshot(self, ctx: Context, request: c.SnapshotRequest) -> c.SnapshotResult:
        self.saw("snapshot", ctx, request)
        return c.SnapshotResult((), VERSION)

    async def files(self, ctx: Context, request: c.PageRequest) -> c.FilesResult:
        self.saw("files", ctx, request)
        return c.FilesResult((DataFile("datasets/a", 10, 3, "00"),), VERSION)

    async def versions(self, ctx: Context, request: c.PageRequest) -> c.VersionsResult:
        self.saw("versions", ctx, request)
        return c.VersionsResult((entry(),), VERSION)

    async def update_card(self, ctx: Context, request: c.UpdateCardRequest) -> c.DatasetResult:
        self.saw("update_card", ctx, request)
        return self._result(request.name)

    async def rename(self, ctx: Context, request: c.RenameRequest) -> c.DatasetResult:
        self.saw("rename", ctx, request)
        return self._result(request.new_name)

    async def drop(self, ctx: Context, request: c.DropRequest) -> c.CommitResult:
        self.saw("drop", ctx, request)
        return c.CommitResult(VERSION)

    async def restore(self, ctx: Context, request: c.RestoreRequest) -> c.DatasetResult:
        self.saw("restore", ctx, request)
        return self._result(request.new_name or request.name)

    async def dedupe(self, ctx: Context, request: c.PlanRequest) -> c.DedupeReport:
        self.saw("dedupe", ctx, request)
        return c.DedupeReport("h", not request.dry_run, (), (), 1, 1, VERSION)

    async def fsck(self, ctx: Context, request: c.FsckRequest) -> c.FsckReport:
        self.saw("fsck", ctx, request)
        return c.FsckReport("h", False, (), 1, 0, (), VERSION)

    async def collect(self, ctx: Context, request: c.PlanRequest) -> c.CollectReport:
        self.saw("collect", ctx, request)
        return c.CollectReport("h", False, 1, (), 0, 0, VERSION)

    async def import_datasets(self, ctx: Context, request: c.ImportRequest) -> c.ImportReport:
        self.saw("import_datasets", ctx, request)
        return c.ImportReport(len(request.datasets), 0, VERSION)

    async def documents(self, ctx: Context, request: c.DocumentsRequest) -> c.DocumentsResult:
        self.saw("documents", ctx, request)
        return c.DocumentsResult((), VERSION)

    async def usage(self, ctx: Context, request: c.UsageRequest) -> c.UsageResult:
        self.saw("usage", ctx, request)
        return c.UsageResult((), VERSION)

    async def session(self, ctx: Context, request: c.SessionRequest) -> c.SessionResult:
        self.saw("session", ctx, request)
        return c.SessionResult("S1", VERSION)

    async def status(self, ctx: Context, request: c.StatusRequest) -> c.CatalogStatus:
        self.saw("status", ctx, request)
        return c.CatalogStatus("S", VERSION, 1, 1, "w", "", 1, 0, 0, 0, 0, 0)

    async def set_tag(self, ctx: Context, request: g.SetTagRequest) -> g.TagResult:
        self.saw("set_tag", ctx, request)
        return g.TagResult(tag(request.name), VERSION, created=not request.remove)

    async def tags(self, ctx: Context, request: g.TagsRequest) -> g.TagsResult:
        """Two pages: ``march`` is on the second."""
        self.saw("tags", ctx, request)
        if request.cursor:
            return g.TagsResult((tag("march"),), VERSION)
        return g.TagsResult((tag("april"),), VERSION, "more")


class FakeIngest(Recorder):
    """Reads the body in full; ``received`` holds its chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[bytes] = []
        self.sample = ""
        self.created = True

    async def ingest(
        self, ctx: Context, request: i.IngestRequest, body: AsyncIterator[bytes]
    ) -> i.IngestReport:
        self.saw("ingest", ctx, request)
        self.received = [chunk async for chunk in body]
        return i.IngestReport(
            dataset=request.dataset,
            version=VERSION,
            rows=3,
            files=1,
            no_op=False,
            created=self.created,
            dead_letters=0,
            dead_letter_dataset="",
            schema=COLUMNS,
            warnings=(),
            content_digest="00",
            format="csv",
            mode=request.mode.value,
            bytes_read=sum(map(len, self.received)),
            elapsed_ms=1.0,
            dry_run=request.dry_run,
            sample_json=self.sample,
        )


class FakeQuery(Recorder):
    """``chunks`` makes the body of the next result."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: Chunks = _one_row

    async def run(self, ctx: Context, request: q.QueryRequest) -> q.QueryStream:
        self.saw("run", ctx, request)
        header = q.QueryHeader(
            "Q1",
            q.Engine.DUCKDB,
            VERSION,
            (q.PinnedVersion("people", 800),),
            (q.ResultColumn("n", "int64"),),
            request.format,
        )
        return q.QueryStream(header, self.chunks())

    async def running(self, ctx: Context, request: q.RunningRequest) -> q.RunningResult:
        self.saw("running", ctx, request)
        one = q.RunningQuery("Q1", "select 1", "local", q.Engine.AUTO, AT, 1.0, 0, "running")
        return q.RunningResult((one,))

    async def cancel(self, ctx: Context, request: q.CancelRequest) -> q.CancelResult:
        self.saw("cancel", ctx, request)
        return q.CancelResult(request.query_id, True)


async def _one_row() -> AsyncIterator[bytes]:
    yield b'{"columns":["n"],"rows":[[1'
    yield b"]]}"


class FakeStorage(Recorder):
    async def buckets(self, ctx: Context, request: s.BucketsRequest) -> s.BucketsResult:
        self.saw("buckets", ctx, request)
        info = s.BucketInfo("primary", "primary", "memory://x", True, 1, 2, 3)
        return s.BucketsResult((info,))

    async def probe(self, ctx: Context, request: s.ProbeRequest) -> ProbeReport:
        self.saw("probe", ctx, request)
        check = ProbeCheck("put_if_absent", True, "refused", 1.0)
        return ProbeReport(request.bucket, "memory://x", True, (check,))

    async def add_bucket(self, ctx: Context, request: s.AddBucketRequest) -> s.BucketInfo:
        self.saw("add_bucket", ctx, request)
        return s.BucketInfo(request.name, request.bucket_class, request.url, True, 0, 0, 0)

    async def remove_bucket(
        self, ctx: Context, request: s.RemoveBucketRequest
    ) -> s.RemoveBucketResult:
        self.saw("remove_bucket", ctx, request)
        return s.RemoveBucketResult(request.name, True)

    async def errors(self, ctx: Context, request: s.ErrorsRequest) -> s.ErrorsResult:
        self.saw("errors", ctx, request)
        count = s.ErrorCount("eu", "get", "timeout", 2, 1)
        return s.ErrorsResult((failed_attempt(),), (count,), 1, 2, AT, False, "more")

    async def report(self, ctx: Context, request: s.ReportRequest) -> s.ReportResult:
        self.saw("report", ctx, request)
        return s.ReportResult(len(request.attempts))


class FakeTokens(Recorder):
    def _info(self) -> t.TokenInfo:
        return t.TokenInfo("T1", "export", (Scope.READ,), AT, "local")

    async def create(self, ctx: Context, request: t.CreateTokenRequest) -> t.CreatedToken:
        self.saw("create", ctx, request)
        return t.CreatedToken(self._info(), "lh_T1.secret")

    async def list(self, ctx: Context, request: t.ListTokensRequest) -> t.ListTokensResult:
        self.saw("list", ctx, request)
        return t.ListTokensResult((self._info(),))

    async def revoke(self, ctx: Context, request: t.RevokeTokenRequest) -> t.RevokeTokenResult:
        self.saw("revoke", ctx, request)
        return t.RevokeTokenResult(request.id, VERSION)

    async def verify(self, ctx: Context, request: t.VerifyTokenRequest) -> Principal:
        raise NotImplementedError


class FakeObjects(Recorder):
    """One object under every key; ``data`` is read and ``put`` keeps what came."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b"0123456789"
        self.chunks: Callable[[], AsyncIterator[bytes]] | None = None
        self.stored: bytes | None = None

    def _header(self, bucket: str, key: str) -> o.ObjectHeader:
        info = o.ObjectInfo(bucket, key, len(self.data), "e1", AT)
        return o.ObjectHeader(info, 0, len(self.data))

    async def list(self, ctx: Context, request: o.ListObjectsRequest) -> o.ListObjectsResult:
        self.saw("list", ctx, request)
        info = o.ObjectInfo(request.bucket, "a/b", 10, "e1", AT)
        return o.ListObjectsResult((info,), ("a/c/",), "more")

    async def stat(self, ctx: Context, request: o.StatObjectRequest) -> o.ObjectHeader:
        self.saw("stat", ctx, request)
        return self._header(request.bucket, request.key)

    async def get(self, ctx: Context, request: o.GetObjectRequest) -> o.ObjectStream:
        self.saw("get", ctx, request)
        header = self._header(request.bucket, request.key)
        return o.ObjectStream(header, self.chunks() if self.chunks else self._whole())

    async def _whole(self) -> AsyncIterator[bytes]:
        yield self.data

    async def put(
        self, ctx: Context, request: o.PutObjectRequest, body: AsyncIterator[bytes]
    ) -> o.PutObjectResult:
        self.saw("put", ctx, request)
        stored = b"".join([chunk async for chunk in body])
        self.stored = stored
        return o.PutObjectResult(
            o.ObjectInfo(request.bucket, request.key, len(stored), "e2"), "00" * 32
        )

    async def delete(self, ctx: Context, request: o.DeleteObjectRequest) -> o.DeleteObjectResult:
        self.saw("delete", ctx, request)
        return o.DeleteObjectResult(request.bucket, request.key)


class FakeAuthenticator:
    """Knows the tokens read, write and operator by their names."""

    async def authenticate(self, credential: str | None) -> Principal:
        if credential not in tuple(Scope):
            raise LakehouseError(ErrorKind.UNAUTHENTICATED, "no valid token")
        return Principal(f"user-{credential}", (Scope(credential),))


@dataclass
class FakeReadiness:
    found: Readiness = field(default_factory=lambda: Readiness(True, (), {"version": "812"}))

    def readiness(self) -> Readiness:
        return self.found


class _Current:
    """The ``noun`` of the world made last."""

    world: World

    def __init__(self, noun: str) -> None:
        self._noun = noun

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(self.world, self._noun), name)


@functools.cache
def _shared_app() -> FastAPI:
    """One application for all worlds without settings of their own: making one takes longer than
    most tests."""
    return _app(GatewaySettings(), Services(**{noun: _Current(noun) for noun in _NOUNS}))


def _app(settings: GatewaySettings, services: Services) -> FastAPI:
    clock = SystemClock()
    return create_app(services, FakeAuthenticator(), settings, clock, SystemIds(clock))


_NOUNS: Final[Any] = tuple(
    field.name for field in dataclasses.fields(Services) if field.name not in ("figures", "log")
)


class World:
    """A gateway over recording fakes, and a client that is an operator unless told otherwise.

    One world a test: without settings of its own, it takes the application over from the one before
    it, whose counters go on.
    """

    def __init__(
        self,
        settings: GatewaySettings | None = None,
        figures: tuple[FigureSource, ...] = (),
    ) -> None:
        self.catalog = FakeCatalog()
        self.tokens = FakeTokens()
        self.ingest = FakeIngest()
        self.query = FakeQuery()
        self.storage = FakeStorage()
        self.objects = FakeObjects()
        self.rows = FakeRows()
        self.journal = FakeJournal()
        self.vectors = FakeVectors()
        self.profiles = FakeProfiles()
        self.retrievals = FakeRetrievals()
        self.trials = FakeTrials()
        self.rag = FakeRag()
        self.memory = FakeMemory()
        self.readiness = FakeReadiness()
        if settings is None and not figures:
            _Current.world, self.app = self, _shared_app()
            return
        services = Services(
            self.catalog,
            self.tokens,
            self.ingest,
            self.query,
            self.storage,
            self.objects,
            self.rows,
            self.journal,
            self.vectors,
            self.profiles,
            self.retrievals,
            self.trials,
            self.rag,
            self.memory,
            self.readiness,
            figures,
        )
        self.app = _app(settings or GatewaySettings(), services)

    def client(self, token: str | None = "operator") -> httpx.AsyncClient:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://localhost", headers=headers
        )
