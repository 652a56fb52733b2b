"""The retrievals contract, called directly and over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from contracts.world import READER, WRITER, Doorkeeper
from lakehouse.contracts import retrievals as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.retrieval import RecordClass, SearchMode, Stage
from support_retrieval import Library, library
from unit.rpc.loopback import loopback

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with library(tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def retrievals(here: Library, transport: str) -> AsyncIterator[Any]:
    if transport == "direct":
        yield here.role.retrievals
        return
    async with loopback({"retrievals": here.role.retrievals}, Doorkeeper(None)) as there:
        yield there.client("Retrievals")


async def asked(here: Library, text: str = "a red fox", **fields: Any) -> Any:
    """The answer to a search, and the id under which it is remembered."""
    given = {"k": 3, "mode": SearchMode.HYBRID, "record": RecordClass.DURABLE, **fields}
    found = await here.ask(text, **given)
    return found.results[0]


async def test_what_was_found_is_remembered_whole(here: Library, retrievals: Any) -> None:
    found = await asked(here, filter="year > 1900")
    result = await retrievals.get(READER, c.RetrievalRequest(found.retrieval_id))
    kept = result.retrieval
    assert (kept.id, kept.text, kept.k, kept.filter) == (
        *(found.retrieval_id, "a red fox", 3, "year > 1900"),
    )
    assert (kept.mode, kept.record, kept.purpose) == (
        *(SearchMode.HYBRID, RecordClass.DURABLE, "search"),
    )
    assert (kept.actor, kept.request_id) == ("ada", "request-1")
    assert abs(datetime.now(UTC) - kept.at) < timedelta(minutes=5)
    assert len(kept.vector) == 4 * here.embedder.dimensions
    (index,) = kept.indexes
    assert (index.index, index.number, index.dataset, index.columns) == (
        *("books", 1, "books", ("title", "body")),
    )
    assert "bm25" in index.served_by
    assert [(ref.key, ref.chunk, ref.score, ref.stages) for ref in kept.hits] == [
        (hit.key, hit.chunk, hit.score, hit.stages) for hit in found.hits
    ]
    assert len(kept.digest) == 64


async def test_it_is_shown_again_bit_for_bit(here: Library, retrievals: Any) -> None:
    found = await asked(here)
    calls = here.embedder.calls.total()
    report = await retrievals.replay(READER, c.RetrievalRequest(found.retrieval_id))
    assert report.same
    assert (report.texts_missing, report.digest) == (0, report.retrieval.digest)
    assert [(h.rank, h.key, h.score, h.text) for h in report.hits] == [
        (rank, hit.key, hit.score, hit.text) for rank, hit in enumerate(found.hits, 1)
    ]
    assert {hit.row for hit in report.hits} == {"same"}
    assert here.embedder.calls.total() == calls


async def test_it_says_why(here: Library, retrievals: Any) -> None:
    found = await asked(here)
    told = await retrievals.explain(READER, c.RetrievalRequest(found.retrieval_id))
    assert told.steps
    best = told.hits[0]
    assert set(best.brought_by) >= {"vector", "text"}
    assert {one.stage for one in best.stages} == {Stage.VECTOR, Stage.TEXT, Stage.FUSION}
    assert (best.key, best.text) == (found.hits[0].key, found.hits[0].text)
    assert best.sentence


async def test_pages_are_newest_first(here: Library, retrievals: Any) -> None:
    names = [(await asked(here, f"snow {at}", mode=SearchMode.TEXT)).retrieval_id for at in "abc"]
    request = c.ListRetrievalsRequest(index="books", mode="text", limit=2)
    page = await retrievals.list(READER, request)
    assert [one.id for one in page.retrievals] == names[:0:-1]
    rest = await retrievals.list(
        READER, c.ListRetrievalsRequest("books", mode="text", limit=2, cursor=page.cursor)
    )
    assert rest.retrievals[0].id == names[0]
    nobody = await retrievals.list(READER, c.ListRetrievalsRequest(actor="nobody"))
    assert (nobody.retrievals, nobody.dropped, nobody.unreadable) == ((), 0, 0)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert not (await retrievals.list(READER, c.ListRetrievalsRequest(since=later))).retrievals


async def test_a_pin_keeps_and_lets_go(here: Library, retrievals: Any) -> None:
    found = await asked(here)
    pin = c.PinRequest(found.retrieval_id, note="cited in a report")
    pinned = await retrievals.pin(WRITER, pin)
    assert (pinned.pinned, pinned.changed) == (True, True)
    assert pinned.tags
    again = await retrievals.pin(WRITER, pin)
    assert (again.pinned, again.changed, again.tags) == (True, False, pinned.tags)
    kept = (await retrievals.get(READER, c.RetrievalRequest(found.retrieval_id))).retrieval
    assert (kept.pinned, kept.tags) == (True, pinned.tags)
    gone = await retrievals.pin(WRITER, c.PinRequest(found.retrieval_id, remove=True))
    assert (gone.pinned, gone.changed) == (False, True)
    kept = (await retrievals.get(READER, c.RetrievalRequest(found.retrieval_id))).retrieval
    assert not kept.pinned


@pytest.mark.parametrize("name", ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "nothing", "", "../x", "a" * 500])
async def test_what_was_never_remembered(retrievals: Any, name: str) -> None:
    for method in ("get", "replay", "explain"):
        with pytest.raises(LakehouseError) as caught:
            await getattr(retrievals, method)(READER, c.RetrievalRequest(name))
        assert caught.value.kind in (ErrorKind.NOT_FOUND, ErrorKind.INVALID)
        assert caught.value.fields.get("hint")


async def test_scopes_and_ranges(here: Library, retrievals: Any) -> None:
    found = await asked(here)
    with pytest.raises(LakehouseError) as caught:
        await retrievals.pin(READER, c.PinRequest(found.retrieval_id))
    assert caught.value.kind is ErrorKind.FORBIDDEN
    for request in (
        c.ListRetrievalsRequest(limit=0),
        c.ListRetrievalsRequest(limit=10**6),
        c.ListRetrievalsRequest(cursor="no cursor"),
        c.ListRetrievalsRequest(mode="by heart"),
    ):
        with pytest.raises(LakehouseError) as caught:
            await retrievals.list(READER, request)
        assert caught.value.kind is ErrorKind.INVALID
