"""The vectors service: joins the use cases, one module each."""

from __future__ import annotations

from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.vectord.parts import VectorParts

__all__ = ["Vectors"]


class Vectors:
    """Implements ``contracts.vectors.VectorsService``. Belongs to one event loop."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts

    async def start(self) -> None:
        """Begin to follow the datasets that have indexes."""

    async def close(self) -> None:
        """End what runs in the background; idempotent."""
        self._parts.jobs.shutdown(wait=False, cancel_futures=True)
        await self._parts.embedder.close()

    async def create_index(self, ctx: Context, request: c.CreateIndexRequest) -> c.IndexResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def get_index(self, ctx: Context, request: c.IndexRequest) -> c.IndexResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def list_indexes(
        self, ctx: Context, request: c.ListIndexesRequest
    ) -> c.ListIndexesResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def build(self, ctx: Context, request: c.BuildRequest) -> c.IndexResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def cut_over(self, ctx: Context, request: c.CutOverRequest) -> c.IndexResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def delete_index(
        self, ctx: Context, request: c.DeleteIndexRequest
    ) -> c.DeleteIndexResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def search(self, ctx: Context, request: c.SearchRequest) -> c.SearchResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def put_vectors(self, ctx: Context, request: c.PutVectorsRequest) -> c.PutVectorsReport:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def delete_vectors(
        self, ctx: Context, request: c.DeleteVectorsRequest
    ) -> c.PutVectorsReport:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def get_vectors(self, ctx: Context, request: c.GetVectorsRequest) -> c.GetVectorsResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def compare(self, ctx: Context, request: c.CompareRequest) -> c.CompareReport:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")
