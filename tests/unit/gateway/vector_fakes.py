"""Recording stand-ins of the contracts of vectors and profiles."""

from __future__ import annotations

import struct

from lakehouse.contracts import profiles as p
from lakehouse.contracts import vectors as v
from lakehouse.model.identity import Context
from lakehouse.model.vectors import (
    IndexVersion,
    Profile,
    Structure,
    VectorIndexInfo,
    VersionState,
)
from unit.gateway.recording import AT, VERSION, Recorder


def index(name: str = "tickets") -> VectorIndexInfo:
    version = IndexVersion(
        number=1,
        state=VersionState.READY,
        profile=Profile("default"),
        model="all-minilm",
        model_digest="d1",
        dimensions=3,
        vectors_dataset="vectors.tickets.v1",
        vectors_dataset_id="D2",
        created_at=AT,
        ready_at=AT,
        structures=(Structure("hnsw", "_vectors/a", 3, recall=0.987),),
        comparison_json='{"overlap":0.5}',
    )
    return VectorIndexInfo(
        name, "tickets", "D1", ("title", "body"), "default", 1, 0, (version,), AT, 800
    )


def hit(key: str, score: float) -> v.Hit:
    return v.Hit(key, score, 2, 3, 8, "a text", 790)


class FakeVectors(Recorder):
    """One index of every name; ``building`` and ``created`` are what the next answers say, and
    ``answer`` of a search, where there is one."""

    building = False
    created = False
    keys = ("[7]", '["a",1]', "face-1", "[not JSON]")
    answer: v.SearchResult | None = None

    def _index(self, name: str) -> v.IndexResult:
        return v.IndexResult(index(name), VERSION, self.created, self.building)

    async def create_index(self, ctx: Context, request: v.CreateIndexRequest) -> v.IndexResult:
        self.saw("create_index", ctx, request)
        return self._index(request.name)

    async def get_index(self, ctx: Context, request: v.IndexRequest) -> v.IndexResult:
        self.saw("get_index", ctx, request)
        return self._index(request.name)

    async def list_indexes(
        self, ctx: Context, request: v.ListIndexesRequest
    ) -> v.ListIndexesResult:
        self.saw("list_indexes", ctx, request)
        return v.ListIndexesResult((index(),), VERSION, "more")

    async def build(self, ctx: Context, request: v.BuildRequest) -> v.IndexResult:
        self.saw("build", ctx, request)
        return self._index(request.name)

    async def cut_over(self, ctx: Context, request: v.CutOverRequest) -> v.IndexResult:
        self.saw("cut_over", ctx, request)
        return self._index(request.name)

    async def delete_index(
        self, ctx: Context, request: v.DeleteIndexRequest
    ) -> v.DeleteIndexResult:
        self.saw("delete_index", ctx, request)
        return v.DeleteIndexResult(request.name, VERSION, 2)

    async def search(self, ctx: Context, request: v.SearchRequest) -> v.SearchResult:
        self.saw("search", ctx, request)
        if self.answer is not None:
            return self.answer
        hits = tuple(hit(key, 0.5) for key in self.keys)
        results = tuple(v.Hits(hits) for _ in request.queries)
        about = (request.index, 1, "all-minilm", "parquet", "hnsw+exact", 790, True, VERSION)
        return v.SearchResult(results, *about, 3.5, 0.25)

    def _report(self, name: str) -> v.PutVectorsReport:
        return v.PutVectorsReport(name, VERSION, 1, 2, 3, 4)

    async def put_vectors(self, ctx: Context, request: v.PutVectorsRequest) -> v.PutVectorsReport:
        self.saw("put_vectors", ctx, request)
        return self._report(request.index)

    async def delete_vectors(
        self, ctx: Context, request: v.DeleteVectorsRequest
    ) -> v.PutVectorsReport:
        self.saw("delete_vectors", ctx, request)
        return self._report(request.index)

    async def get_vectors(self, ctx: Context, request: v.GetVectorsRequest) -> v.GetVectorsResult:
        """What is called ``none`` is not there."""
        self.saw("get_vectors", ctx, request)
        stored = tuple(
            v.StoredVector(key, 0, 0, 5, "text", 790, struct.pack("<3f", 0.1, -1.0, 3e-5))
            for key in request.keys
            if key != "none"
        )
        missing = tuple(key for key in request.keys if key == "none")
        return v.GetVectorsResult(stored, missing, 1, VERSION)

    async def compare(self, ctx: Context, request: v.CompareRequest) -> v.CompareReport:
        self.saw("compare", ctx, request)
        first = v.VersionFigures(1, "parquet", "all-minilm", 3, 0.99, 0.3, 0.7)
        second = v.VersionFigures(2, "lance", "other", 3, 0.98, 3.0, 7.0, 0.5)
        return v.CompareReport(request.name, request.k, 5, first, second, 0.75, VERSION)


class FakeProfiles(Recorder):
    async def get(self, ctx: Context, request: p.ProfileRequest) -> p.ProfileResult:
        self.saw("get", ctx, request)
        return p.ProfileResult(Profile(request.name, builtin=True), 0)

    async def list(self, ctx: Context, request: p.ListProfilesRequest) -> p.ListProfilesResult:
        self.saw("list", ctx, request)
        return p.ListProfilesResult((Profile("default", builtin=True),), VERSION)

    async def put(self, ctx: Context, request: p.PutProfileRequest) -> p.ProfileResult:
        self.saw("put", ctx, request)
        return p.ProfileResult(request.profile, VERSION, created=True, changed=True)

    async def delete(self, ctx: Context, request: p.DeleteProfileRequest) -> p.ProfileResult:
        self.saw("delete", ctx, request)
        return p.ProfileResult(Profile(request.name), VERSION, changed=True)
