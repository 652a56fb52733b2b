"""``system.retrievals``: asked by each query, narrowed where that is sure, one row a retrieval."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlglot

from lakehouse.contracts import retrievals as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.model.retrieval import Retrieval, RetrievedRef, SearchedIndex, SearchMode
from lakehouse.queryd import live
from lakehouse.queryd.live import LiveTables
from lakehouse.queryd.narrowing import narrowed_retrievals
from lakehouse.queryd.system import schema_of
from lakehouse.testing.clocks import ManualClock

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CTX = Context(Principal("ann", (Scope.READ,)), "r-1")
BOOKS = SearchedIndex(
    "books", 3, "default", "mini", "d1", "parquet", "hnsw", "books", "D", ("t",), "v", "V", 5, 7
)
HITS = (RetrievedRef("[7]", 0, 0, 9, 5, 0.875, "aa"), RetrievedRef("[8]", 1, 9, 12, 5, 0.5, "bb"))


def retrieval(number: int, hits: tuple[RetrievedRef, ...] = HITS) -> Retrieval:
    return Retrieval(
        f"{number:026d}", NOW, "ann", "rag", SearchMode.HYBRID, "red fox", b"", 10, 9, (BOOKS,),
        hits, "digest", filter="year > 2", hits_total=len(hits),
    )  # fmt: skip


class Remembered:
    """A retrievals service with ``count`` of them, newest first."""

    def __init__(self, count: int = 1, hits: tuple[RetrievedRef, ...] = HITS) -> None:
        self.every = [retrieval(number, hits) for number in range(count, 0, -1)]
        self.asked: list[Any] = []

    async def list(self, ctx: Context, request: c.ListRetrievalsRequest) -> c.ListRetrievalsResult:
        ctx.require(Scope.READ)
        self.asked.append(request)
        start = int(request.cursor or 0)
        page = self.every[start : start + request.limit]
        end = start + len(page)
        return c.ListRetrievalsResult(tuple(page), 9, str(end) if end < len(self.every) else "")

    async def get(self, ctx: Context, request: c.RetrievalRequest) -> c.RetrievalResult:
        self.asked.append(request)
        for one in self.every:
            if one.id == request.id:
                return c.RetrievalResult(one, 9)
        raise LakehouseError(ErrorKind.NOT_FOUND, "there is no such retrieval")


async def rows_of(service: Any, folder: Path, where: str = "true") -> list[dict[str, Any]]:
    tree = sqlglot.parse_one(f"select * from system.retrievals where {where}", read="postgres")
    made = LiveTables(None, folder, ManualClock())
    made.retrievals = service
    opened = await made.open(CTX, "retrievals", schema_of("retrievals"), tree)
    rows: list[dict[str, Any]] = pq.read_table(opened.path).to_pylist()
    assert opened.rows == len(rows)
    return rows


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (
            "\"index\" = 'books' and actor = 'ann' and mode = 'text' and purpose = 'rag'",
            {"index": "books", "actor": "ann", "mode": "text", "purpose": "rag"},
        ),
        ("id = '01ABC'", {"id": "01ABC"}),
        ("at > now() - interval '1 hour'", {"since": NOW - timedelta(hours=1)}),
        ("at < '2026-11-21T12:00:00Z'", {"until": NOW + timedelta(microseconds=1)}),
        # No mode: no row has it, and the engine finds so by itself.
        ("mode = 'sideways'", {}),
        ("actor = 'ann' or mode = 'text'", {}),
        ("not mode = 'text'", {}),
        ("top_score > 0.5", {}),
    ],
)
def test_what_every_row_must_pass_is_asked_for(where: str, expected: dict[str, Any]) -> None:
    tree = sqlglot.parse_one(f"select * from system.retrievals where {where}", read="postgres")
    assert narrowed_retrievals(tree, NOW) == expected


async def test_a_retrieval_is_a_row(tmp_path: Path) -> None:
    (row,) = await rows_of(Remembered(), tmp_path)
    assert (row["id"], row["at"], row["mode"], row["index"]) == (
        f"{1:026d}",
        NOW,
        "hybrid",
        "books",
    )
    assert (row["number"], row["model"], row["indexes"]) == (3, "mini", ["books"])
    assert (row["hits"], row["keys"], row["scores"]) == (2, ["[7]", "[8]"], [0.875, 0.5])
    assert (row["top_key"], row["top_score"], row["behind"]) == ("[7]", 0.875, False)
    assert (row["text"], row["filter"], row["purpose"]) == ("red fox", "year > 2", "rag")


async def test_one_without_hits_has_no_best_and_one_with_many_shows_the_first(
    tmp_path: Path,
) -> None:
    (row,) = await rows_of(Remembered(hits=()), tmp_path)
    assert (row["hits"], row["keys"], row["top_key"], row["top_score"]) == (0, [], None, None)
    many = Remembered(hits=tuple(replace(HITS[0], chunk=at) for at in range(300)))
    (row,) = await rows_of(many, tmp_path, f"id = '{1:026d}'")
    assert (row["hits"], len(row["keys"])) == (300, 100)


async def test_all_pages_are_read_and_too_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_LISTED", 10)
    service = Remembered(25)
    rows = await rows_of(service, tmp_path, "actor = 'ann'")
    assert [row["id"] for row in rows] == [f"{number:026d}" for number in range(25, 0, -1)]
    assert [(one.cursor, one.actor) for one in service.asked] == [
        ("", "ann"),
        ("10", "ann"),
        ("20", "ann"),
    ]
    monkeypatch.setattr(live, "ROWS_MAX", 24)
    with pytest.raises(LakehouseError) as refused:
        await rows_of(Remembered(25), tmp_path)
    assert refused.value.kind is ErrorKind.EXHAUSTED
    assert "GET /retrievals" in str(refused.value.fields["hint"])


async def test_one_is_looked_up_by_its_id(tmp_path: Path) -> None:
    service = Remembered(3)
    (row,) = await rows_of(service, tmp_path, f"id = '{2:026d}'")
    assert row["id"] == f"{2:026d}"
    assert service.asked == [c.RetrievalRequest(f"{2:026d}")]
    assert await rows_of(service, tmp_path, "id = 'nobody'") == []


async def test_where_nobody_remembers_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(LakehouseError) as refused:
        await rows_of(None, tmp_path)
    assert refused.value.kind is ErrorKind.UNAVAILABLE
    assert "vectord" in str(refused.value.fields["hint"])
