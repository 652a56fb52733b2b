"""The objects that the catalog names, for who keeps copies of them."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.world import READER, WRITER, make_dataset
from lakehouse.contracts.catalog import DropRequest
from lakehouse.contracts.inventory import (
    ObjectChangesRequest,
    ObjectStanding,
    ObjectStatesRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.refs import ObjectRef


async def test_what_came_since_a_cursor(catalog: Any) -> None:
    await make_dataset(catalog, "people", files=3)
    first = await catalog.object_changes(READER, ObjectChangesRequest("primary", limit=2))
    assert (len(first.added), first.waiting > 0, first.live) == (2, True, 3)
    assert first.waiting_since is not None
    rest = await catalog.object_changes(READER, ObjectChangesRequest("primary", first.cursor))
    assert (len(rest.added), rest.waiting, rest.waiting_since) == (1, 0, None)
    made = await make_dataset(catalog, "places", files=1)
    [added] = (
        await catalog.object_changes(READER, ObjectChangesRequest("primary", rest.cursor))
    ).added
    assert (added.seq, len(added.sha256), added.bucket) == (made.version, 64, "primary")
    other = await catalog.object_changes(READER, ObjectChangesRequest("extra"))
    assert (other.added, other.live) == ((), 0)


async def test_the_standing_of_objects(catalog: Any) -> None:
    await make_dataset(catalog, "people", files=1)
    page = await catalog.object_changes(READER, ObjectChangesRequest("primary"))
    [file] = page.added
    unnamed = ObjectRef("primary", "datasets/01ENDED/ID/x.parquet")
    asked = ObjectStatesRequest((ObjectRef("primary", file.key), unnamed))
    named, gone = (await catalog.object_states(READER, asked)).states
    assert (named.standing, named.sha256, named.live) == (ObjectStanding.NAMED, file.sha256, True)
    assert (gone.standing, gone.dataset) == (ObjectStanding.GIVEN_UP, "")
    assert named.dataset == "people"
    await catalog.drop(WRITER, DropRequest("people"))
    [still, _] = (await catalog.object_states(READER, asked)).states
    assert still.standing is ObjectStanding.NAMED


@pytest.mark.parametrize(
    "request_", [ObjectChangesRequest("primary", "?"), ObjectChangesRequest("primary", limit=1001)]
)
async def test_a_bad_request_is_told(catalog: Any, request_: ObjectChangesRequest) -> None:
    with pytest.raises(LakehouseError) as caught:
        await catalog.object_changes(READER, request_)
    assert caught.value.kind is ErrorKind.INVALID
