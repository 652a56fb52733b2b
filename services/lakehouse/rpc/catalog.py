"""The catalog over gRPC."""

from __future__ import annotations

import grpc

from lakehouse.contracts import catalog as c
from lakehouse.contracts import inventory as i
from lakehouse.contracts import tags as t
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.calls import Peer
from lakehouse.rpc.serving import Edge, Servicer


class CatalogClient:
    """``CatalogService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Catalog", c.CatalogService)

    async def commit(self, ctx: Context, request: c.CommitRequest) -> c.CommitResult:
        return await self._peer.unary("commit", ctx, request, c.CommitResult)

    async def register(self, ctx: Context, request: c.RegisterRequest) -> c.DatasetResult:
        return await self._peer.unary("register", ctx, request, c.DatasetResult)

    async def get(self, ctx: Context, request: c.GetRequest) -> c.DatasetResult:
        return await self._peer.unary("get", ctx, request, c.DatasetResult)

    async def list(self, ctx: Context, request: c.ListRequest) -> c.ListResult:
        return await self._peer.unary("list", ctx, request, c.ListResult)

    async def snapshot(self, ctx: Context, request: c.SnapshotRequest) -> c.SnapshotResult:
        return await self._peer.unary("snapshot", ctx, request, c.SnapshotResult)

    async def files(self, ctx: Context, request: c.PageRequest) -> c.FilesResult:
        return await self._peer.unary("files", ctx, request, c.FilesResult)

    async def versions(self, ctx: Context, request: c.PageRequest) -> c.VersionsResult:
        return await self._peer.unary("versions", ctx, request, c.VersionsResult)

    async def update_card(self, ctx: Context, request: c.UpdateCardRequest) -> c.DatasetResult:
        return await self._peer.unary("update_card", ctx, request, c.DatasetResult)

    async def rename(self, ctx: Context, request: c.RenameRequest) -> c.DatasetResult:
        return await self._peer.unary("rename", ctx, request, c.DatasetResult)

    async def drop(self, ctx: Context, request: c.DropRequest) -> c.CommitResult:
        return await self._peer.unary("drop", ctx, request, c.CommitResult)

    async def restore(self, ctx: Context, request: c.RestoreRequest) -> c.DatasetResult:
        return await self._peer.unary("restore", ctx, request, c.DatasetResult)

    async def dedupe(self, ctx: Context, request: c.PlanRequest) -> c.DedupeReport:
        return await self._peer.unary("dedupe", ctx, request, c.DedupeReport)

    async def fsck(self, ctx: Context, request: c.FsckRequest) -> c.FsckReport:
        return await self._peer.unary("fsck", ctx, request, c.FsckReport)

    async def collect(self, ctx: Context, request: c.PlanRequest) -> c.CollectReport:
        return await self._peer.unary("collect", ctx, request, c.CollectReport)

    async def import_datasets(self, ctx: Context, request: c.ImportRequest) -> c.ImportReport:
        return await self._peer.unary("import_datasets", ctx, request, c.ImportReport)

    async def documents(self, ctx: Context, request: c.DocumentsRequest) -> c.DocumentsResult:
        return await self._peer.unary("documents", ctx, request, c.DocumentsResult)

    async def usage(self, ctx: Context, request: c.UsageRequest) -> c.UsageResult:
        return await self._peer.unary("usage", ctx, request, c.UsageResult)

    async def session(self, ctx: Context, request: c.SessionRequest) -> c.SessionResult:
        return await self._peer.unary("session", ctx, request, c.SessionResult)

    async def status(self, ctx: Context, request: c.StatusRequest) -> c.CatalogStatus:
        return await self._peer.unary("status", ctx, request, c.CatalogStatus)

    async def object_changes(
        self, ctx: Context, request: i.ObjectChangesRequest
    ) -> i.ObjectChangesResult:
        return await self._peer.unary("object_changes", ctx, request, i.ObjectChangesResult)

    async def object_states(
        self, ctx: Context, request: i.ObjectStatesRequest
    ) -> i.ObjectStatesResult:
        return await self._peer.unary("object_states", ctx, request, i.ObjectStatesResult)

    async def journal(self, ctx: Context, request: i.JournalRequest) -> i.JournalResult:
        return await self._peer.unary("journal", ctx, request, i.JournalResult)

    async def set_tag(self, ctx: Context, request: t.SetTagRequest) -> t.TagResult:
        return await self._peer.unary("set_tag", ctx, request, t.TagResult)

    async def tags(self, ctx: Context, request: t.TagsRequest) -> t.TagsResult:
        return await self._peer.unary("tags", ctx, request, t.TagsResult)


class CatalogServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.CatalogService, edge: Edge) -> None:
        super().__init__("Catalog", c.CatalogService, service, edge)
