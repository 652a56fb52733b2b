"""What is made of many rows is made beside the event loop, which others wait for."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lakehouse.contracts import vectors as c
from lakehouse.model.retrieval import SearchMode
from lakehouse.vectord.retrieval import retrieving
from support_vectors import ADA, Shelf
from unit.vectord.building_support import docs, made

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("mode", [SearchMode.TEXT, SearchMode.HYBRID])
async def test_legs_and_hits_of_a_large_answer_are_made_beside_the_loop(
    store: Shelf, mode: SearchMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop: dict[str, list[bool]] = {"Leg": [], "hit_of": []}

    def watch(name: str) -> None:
        real = getattr(retrieving, name)

        def watched(*args: Any) -> Any:
            on_loop[name].append(threading.current_thread() is threading.main_thread())
            return real(*args)

        monkeypatch.setattr(retrieving, name, watched)

    watch("Leg")
    watch("hit_of")
    async with store.vectors() as service:
        await made(service, store, f"large_{mode}", *docs(*[f"same {at}" for at in range(300)]))
        asked = (c.VectorQuery("same"),) * 2
        for k, beside in ((300, True), (1, False)):
            request = c.SearchRequest(f"large_{mode}", asked, k, mode=mode, candidates=max(k, 5))
            found = await service[0].search(ADA, request)
            assert [len(one.hits) for one in found.results] == [k, k]
            assert [hit.text[:5] for hit in found.results[0].hits[:1]] == ["same "]
            for told in on_loop.values():
                assert told
                assert set(told) == {not beside}
                told.clear()
