"""A new bucket that reaches a known one's objects by a way that no name or address tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.gate import Gate
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store
from lakehouse.storaged.trespass import refuse_trespass
from support_s3 import S3Oracle, S3Place

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)


@asynccontextmanager
async def opened(settings: BucketSettings) -> AsyncIterator[Buckets]:
    buckets = Buckets([settings], CLOCK, IDS)
    try:
        yield buckets
    finally:
        await buckets.close()


async def refusal(known: Buckets, new: BucketSettings) -> LakehouseError | None:
    async with opened(new) as buckets:
        try:
            await refuse_trespass(known, new, buckets.raw(new.name), IDS)
        except LakehouseError as error:
            return error
    return None


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("deep/ er/main/_catalog", "main"),
        ("deep/ er/main", "main"),
        ("deep", "main"),
        ("", "main"),
        ("deep/ er/mains", ""),
        ("deep/other", ""),
    ],
)
async def test_a_place_is_found_behind_another_address(
    moto_place: S3Place, path: str, other: str
) -> None:
    here = moto_place.settings()
    gate = Gate("127.0.0.1", int(here.endpoint.rpartition(":")[2]))
    main = replace(here, name="main", url=here.url + "/main")
    new = replace(here, name="new", url=f"s3://{moto_place.bucket}/{path}", endpoint=gate.url)
    oracle = S3Oracle(replace(moto_place, prefix="deep"))
    try:
        async with opened(main) as known:
            found = await refusal(known, new)
            assert (found.fields["other"] if found else "") == other
            assert found is None or found.kind is ErrorKind.CONFLICT
        async with opened(replace(main, endpoint="http://127.0.0.1:1")) as known:
            assert await refusal(known, new) is None
        assert oracle.keys() == []
    finally:
        oracle.close()
        gate.shut()


@pytest.mark.parametrize("kind", ["s3", "file"])
async def test_no_place_lies_within_a_store_that_nobody_here_knows(
    moto_place: S3Place, tmp_path: Path, kind: str
) -> None:
    places: dict[str, Callable[[str], BucketSettings]] = {
        "s3": lambda path: replace(
            moto_place.settings(), name="new", url=f"s3://{moto_place.bucket}/{path}"
        ),
        "file": lambda path: BucketSettings("new", (tmp_path / path).as_uri()),
    }
    place = places[kind]
    async with opened(place("a/store")) as foreign:
        await init_store(foreign.raw("new"), CLOCK, IDS)
    async with opened(BucketSettings("primary", "memory://trespass")) as known:
        for path in ("a/store/_catalog", "a/store/x/y/z"):
            found = await refusal(known, place(path))
            assert found is not None
            assert str(found.fields["store"]).endswith("/a/store")
        for path in ("a/stores", "a", "b/c"):
            assert await refusal(known, place(path)) is None
