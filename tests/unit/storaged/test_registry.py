"""Buckets added and removed at run time: proven first, kept in the catalog, followed by all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.contracts.storage import AddBucketRequest, RemoveBucketRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import AddFiles, DropDataset, PutDocument
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store
from lakehouse.storaged.registry import Registry
from lakehouse.storaged.settings import RegistrySettings
from support_catalog import COLUMNS, CTX, House, build_house, commit, create, file_of, key_ctx


@dataclass
class Store:
    """One store with its catalog; ``process`` is another process on it, with buckets of its own."""

    house: House
    catalog: Catalog
    root: Path

    def process(self, **settings: Any) -> tuple[Registry, Buckets]:
        given = RegistrySettings(**{"local_root": str(self.root), **settings})
        first = self.house.buckets
        primary = BucketSettings("primary", first.settings("primary").url, residency="")
        buckets = Buckets([primary], self.house.clock, self.house.ids)
        return Registry(given, buckets, self.catalog, self.house.clock, self.house.ids), buckets

    def wish(self, name: str = "client_eu", **fields: Any) -> AddBucketRequest:
        given = {"url": (self.root / name).as_uri(), "residency": "eu", **fields}
        return AddBucketRequest(name, **given)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    house = await build_house()
    try:
        yield Store(house, await house.open(), tmp_path / "root")
    finally:
        await house.close()


def refused(caught: pytest.ExceptionInfo[LakehouseError]) -> ErrorKind:
    return caught.value.kind


async def test_an_added_bucket_is_there_for_every_process_and_after_a_restart(store: Store) -> None:
    one, buckets = store.process()
    other, others = store.process()
    await one.add_bucket(CTX, store.wish())
    assert buckets.names() == ("primary", "client_eu")
    proof = one.proof("client_eu")
    assert proof is not None
    assert proof.passed
    assert (one.origin("client_eu"), one.origin("primary")) == ("operator", "configuration")
    assert others.names() == ("primary",)
    await other.refresh()
    assert others.settings("client_eu").residency == "eu"
    await others.get("client_eu").put("a", b"x")
    assert await buckets.get("client_eu").get("a") == b"x"
    await store.catalog.close()
    again = Store(store.house, await store.house.open(), store.root)
    registry, reopened = again.process()
    await registry.refresh()
    assert reopened.names() == ("primary", "client_eu")


async def test_a_process_that_meets_an_unknown_name_looks_at_once(store: Store) -> None:
    one, _ = store.process()
    _, others = store.process()
    await one.add_bucket(CTX, store.wish())
    await others.find(CTX, ("client_eu", "nobody"))
    assert "client_eu" in others.names()
    assert "nobody" not in others.names()


async def test_callers_who_may_not_see_where_buckets_are_may_use_them(store: Store) -> None:
    one, _ = store.process()
    other, others = store.process()
    await one.add_bucket(CTX, store.wish())
    reader = Context(Principal("r", (Scope.READ,)), "q", credential="theirs")
    with pytest.raises(LakehouseError) as caught:
        await store.catalog.documents(reader, c.DocumentsRequest("bucket"))
    assert refused(caught) is ErrorKind.FORBIDDEN
    real = other._catalog

    class Strict:
        usage = store.catalog.usage
        asked: Context | None = None

        async def documents(self, ctx: Context, request: Any) -> Any:
            if self.asked is None:
                self.asked = ctx
                raise LakehouseError(ErrorKind.UNAUTHENTICATED, "no credential")
            return await real.documents(ctx, request)

    other._catalog = strict = Strict()  # type: ignore[assignment]
    with pytest.raises(LakehouseError) as caught:
        await other.find(reader, ["client_eu"])
    # The caller is who they say: it is the node that has no token.
    assert refused(caught) is ErrorKind.UNAVAILABLE
    assert "node.secret_ref" in str(caught.value.fields["hint"])
    await other.find(reader, ["client_eu"])
    assert "client_eu" in others.names()
    # Never the caller's credential with the rights of the role.
    assert strict.asked is not None
    assert (strict.asked.credential, strict.asked.request_id) == (None, "q")


async def test_removal_is_followed_and_what_is_used_is_not_removed(store: Store) -> None:
    one, buckets = store.process()
    other, others = store.process()
    await one.add_bucket(CTX, store.wish())
    await other.refresh()
    session = (await store.catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    file = replace(file_of(session, "D1", "f"), bucket="client_eu", stats=())
    made = create("D1", "people", file)
    await commit(store.catalog, replace(made[0], bucket="client_eu"), *made[1:])
    for change in (None, DropDataset("D1")):
        if change is not None:
            await commit(store.catalog, change)
        with pytest.raises(LakehouseError) as caught:
            await one.remove_bucket(CTX, RemoveBucketRequest("client_eu"))
        assert refused(caught) is ErrorKind.CONFLICT
        assert caught.value.fields["datasets"] == 1
    await store.catalog.drop(CTX, c.DropRequest("people", purge=True))
    assert (await one.remove_bucket(CTX, RemoveBucketRequest("client_eu"))).removed
    assert buckets.names() == ("primary",)
    await other.refresh()
    assert others.names() == ("primary",)
    with pytest.raises(LakehouseError) as caught:
        await commit(store.catalog, replace(made[0], bucket="client_eu"), *made[1:])
    assert refused(caught) is ErrorKind.NOT_FOUND


async def test_the_same_settings_again_do_nothing_and_others_are_refused(store: Store) -> None:
    one, _ = store.process()
    await one.add_bucket(CTX, store.wish())
    version = (await store.catalog.status(CTX, c.StatusRequest())).version
    await one.add_bucket(CTX, store.wish())
    assert (await store.catalog.status(CTX, c.StatusRequest())).version == version
    with pytest.raises(LakehouseError) as caught:
        await one.add_bucket(CTX, store.wish(residency="us"))
    assert refused(caught) is ErrorKind.ALREADY_EXISTS


async def test_a_key_has_one_effect(store: Store) -> None:
    one, buckets = store.process()
    key = key_ctx("k-1")
    await one.add_bucket(key, store.wish())
    await one.remove_bucket(key_ctx("k-2"), RemoveBucketRequest("client_eu"))
    # The first answer again, and not the bucket again.
    await one.add_bucket(key, store.wish())
    assert (await one.remove_bucket(key_ctx("k-2"), RemoveBucketRequest("client_eu"))).removed
    assert buckets.names() == ("primary",)
    with pytest.raises(LakehouseError) as caught:
        await one.add_bucket(key, store.wish("another"))
    assert caught.value.http_status == 422


async def test_two_operators_add_one_name_at_once(store: Store) -> None:
    one, _ = store.process()
    other, others = store.process()
    looked = other.refresh

    async def late(ctx: Any = None) -> None:
        """The other one's first look is over before the first one's commit."""
        await looked(ctx)
        other.refresh = looked  # type: ignore[method-assign]
        await one.add_bucket(CTX, store.wish())

    other.refresh = late  # type: ignore[method-assign]
    await other.add_bucket(CTX, store.wish())
    assert "client_eu" in others.names()


async def test_a_place_within_another_buckets_is_refused(store: Store) -> None:
    one, _ = store.process()
    await one.add_bucket(CTX, store.wish())
    for place in ("client_eu", "client_eu/inner", "client_eu/../client_eu"):
        with pytest.raises(LakehouseError) as caught:
            await one.add_bucket(CTX, store.wish("second", url=f"{store.root.as_uri()}/{place}"))
        assert refused(caught) is ErrorKind.INVALID
        assert caught.value.fields["other"] == "client_eu"


async def test_the_primary_of_a_store_is_refused(store: Store) -> None:
    one, buckets = store.process()
    place = BucketSettings("x", (store.root / "foreign").as_uri())
    foreign = Buckets([place], store.house.clock, store.house.ids)
    await init_store(foreign.raw("x"), store.house.clock, store.house.ids)
    for inner in ("", "/_catalog"):
        with pytest.raises(LakehouseError) as caught:
            await one.add_bucket(CTX, store.wish("foreign", url=place.url + inner))
        assert refused(caught) is ErrorKind.CONFLICT
        assert "foreign" not in buckets.names()
        assert one.proof("foreign") is None


async def test_the_primary_under_another_name_is_refused(store: Store) -> None:
    one, buckets = store.process(http_endpoints=True)
    main = BucketSettings("main", "s3://lake/main", endpoint="http://127.0.0.1:1")
    buckets.add(main)
    for host in ("localhost", "[::1]", "127.1"):
        fields = {"url": "s3://lake/main/_catalog", "endpoint": f"http://{host}:1"}
        with pytest.raises(LakehouseError) as caught:
            await one.add_bucket(CTX, store.wish(secret_ref="env:HOME", **fields))
        assert (refused(caught), caught.value.fields.get("other")) == (ErrorKind.INVALID, "main")


async def test_a_bucket_of_the_configuration_is_not_removed(store: Store) -> None:
    one, _ = store.process()
    with pytest.raises(LakehouseError) as caught:
        await one.remove_bucket(CTX, RemoveBucketRequest("primary"))
    assert refused(caught) is ErrorKind.FORBIDDEN
    with pytest.raises(LakehouseError) as caught:
        await one.remove_bucket(CTX, RemoveBucketRequest("nobody"))
    assert refused(caught) is ErrorKind.NOT_FOUND


async def test_what_cannot_be_asked_or_trusted_is_not_kept(store: Store) -> None:
    one, buckets = store.process()
    store.root.mkdir()
    (store.root / "file").write_text("no folder")
    with pytest.raises(LakehouseError):
        await one.add_bucket(CTX, store.wish("file"))
    missing = store.wish("unset", url="s3://b/p", secret_ref="env:NO_SUCH_VARIABLE_HERE")
    with pytest.raises(LakehouseError) as caught:
        await one.add_bucket(CTX, missing)
    assert "NO_SUCH_VARIABLE_HERE" in str(caught.value.fields) + str(caught.value)
    assert buckets.names() == ("primary",)
    found = await store.catalog.documents(CTX, c.DocumentsRequest("bucket"))
    assert found.documents == ()


async def test_an_older_answer_of_the_catalog_takes_nothing_back(store: Store) -> None:
    one, buckets = store.process()
    before = await store.catalog.documents(CTX, c.DocumentsRequest("bucket"))
    await one.add_bucket(CTX, store.wish())

    class Late:
        usage = store.catalog.usage

        async def documents(self, ctx: Any, request: Any) -> Any:
            return before

    one._catalog = Late()  # type: ignore[assignment]
    await one.refresh()
    assert "client_eu" in buckets.names()


async def test_a_document_that_cannot_be_opened_is_told_and_hides_no_other(store: Store) -> None:
    _, buckets = store.process()
    registry, buckets = store.process()
    odd = '{"name": "odd", "url": "ftp://x/y", "from_the_future": 1}'
    await commit(store.catalog, PutDocument("bucket", "odd", odd))
    sound = f'{{"name": "sound", "url": "{store.root.as_uri()}/sound"}}'
    await commit(store.catalog, PutDocument("bucket", "sound", sound))
    await registry.refresh()
    assert buckets.names() == ("primary", "sound")
    assert "ftp" not in registry.closed()["odd"]
    said = registry.readiness()
    assert said.ready
    assert "cannot be opened" in said.details["bucket_odd"]


async def test_a_document_that_no_version_writes_is_told_and_stops_nothing(store: Store) -> None:
    registry, buckets = store.process()
    given = store.catalog.documents
    bodies = ["[]", "{}", '{"url": 7, "name": 3}', '{"url": "s3://b", "region": {"x": 1}}']

    class Odd:
        usage = store.catalog.usage

        async def documents(self, ctx: Any, request: Any) -> Any:
            found = [c.Document("bucket", f"odd{n}", text, n) for n, text in enumerate(bodies)]
            return replace(await given(ctx, request), documents=tuple(found))

    registry._catalog = Odd()  # type: ignore[assignment]
    await registry.refresh()
    await registry.find(CTX, ["odd0", "nobody"])
    assert set(registry.closed()) >= {"odd0", "odd1"}
    assert "cannot be read" in registry.trouble("odd0")
    assert registry.readiness().ready
    for body in ("[]", "{}", '{"url": 7, "name": "x"}', '{"name": "x"}'):
        with pytest.raises(LakehouseError) as caught:
            await commit(store.catalog, PutDocument("bucket", "x", body))
        assert refused(caught) is ErrorKind.INVALID
    assert "primary" in buckets.names()


async def test_a_contradiction_of_residency_is_told_and_stops_writes(store: Store) -> None:
    one, buckets = store.process()
    await one.add_bucket(CTX, store.wish())
    session = (await store.catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    file = replace(file_of(session, "D1", "f"), bucket="client_eu", stats=())
    made = create("D1", "people", file)
    await commit(store.catalog, replace(made[0], bucket="client_eu"), *made[1:])
    # The same place is called otherwise by the configuration of the next process.
    await store.catalog.close()
    place = buckets.settings("client_eu").url
    store.house.buckets.add(BucketSettings("client_eu", place, residency="us"))
    catalog = await store.house.open()
    registry = Registry(
        RegistrySettings(), store.house.buckets, catalog, store.house.clock, store.house.ids
    )
    await registry.refresh()
    assert "datasets in it record eu" in registry.trouble("client_eu")
    assert "bucket_client_eu" in registry.readiness().details
    session = (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    more = replace(file_of(session, "D1", "g"), bucket="client_eu", stats=())
    fresh = replace(create("D2", "more")[0], bucket="client_eu")
    for change in (AddFiles("D1", (more,)), fresh):
        with pytest.raises(LakehouseError) as caught:
            await commit(catalog, change)
        assert refused(caught) is ErrorKind.FORBIDDEN
        assert {caught.value.fields["residency"], caught.value.fields["bucket_residency"]} == {
            "eu",
            "us",
        }
    assert COLUMNS


async def test_every_process_follows_and_waits_for_a_catalog_that_is_away(store: Store) -> None:
    one, _ = store.process()
    other, others = store.process(follow_seconds=0.01)
    real = other._catalog

    class Away:
        async def documents(self, ctx: Any, request: Any) -> Any:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the catalog opens")

    async def until(holds: Any) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)

    following = asyncio.create_task(other.follow())
    try:
        await one.add_bucket(CTX, store.wish())
        await until(lambda: "client_eu" in others.names())
        other._catalog = Away()  # type: ignore[assignment]
        await until(lambda: "bucket_registry" in other.readiness().details)
        assert other.readiness().ready
        await one.remove_bucket(CTX, RemoveBucketRequest("client_eu"))
        other._catalog = real
        await until(lambda: "client_eu" not in others.names())
        await until(lambda: other.readiness().details == {})
    finally:
        following.cancel()
        await asyncio.wait([following])


async def test_what_is_wrong_from_the_start_is_shown_until_it_answers(store: Store) -> None:
    registry, buckets = store.process(follow_seconds=0.01)
    kept = "env:NO_SUCH_VARIABLE_HERE"
    buckets.add(BucketSettings("lost", "s3://b/p", endpoint="http://127.0.0.1:1", secret_ref=kept))
    buckets.add(BucketSettings("sound", (store.root / "sound").as_uri()))
    again = Registry(
        RegistrySettings(follow_seconds=0.01),
        buckets,
        store.catalog,
        store.house.clock,
        store.house.ids,
    )
    following = asyncio.create_task(again.greet())
    try:
        async with asyncio.timeout(20):
            while "bucket_lost" not in again.readiness().details:
                await asyncio.sleep(0.01)
        said = again.readiness()
        assert said.ready
        assert "could not be resolved" in said.details["bucket_lost"]
        async with asyncio.timeout(20):
            while set(again.readiness().details) != {"bucket_lost"}:
                await asyncio.sleep(0.01)
        # It is not asked every time: a bucket that is down has enough to do.
        asked = sum(buckets.footprint("lost").requests.values())
        await asyncio.sleep(0.1)
        assert sum(buckets.footprint("lost").requests.values()) == asked
    finally:
        following.cancel()
        await asyncio.wait([following])
    assert registry.readiness().ready
