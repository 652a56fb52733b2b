"""Tags: a tagged version is readable whatever is collected, and nothing more is kept than that."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from lakehouse.catalogd.files import FileLog
from lakehouse.catalogd.service import Catalog
from lakehouse.catalogd.tagging import TAG_DOCUMENTS
from lakehouse.contracts import catalog as c
from lakehouse.contracts.tags import SetTagRequest, Tag, TagsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model import changes as m
from lakehouse.model.dataset import EVENTS, DataFile
from lakehouse.model.identity import Principal, Scope
from lakehouse.testing.clocks import ManualClock
from support_catalog import CTX, House, build_house, commit, create, file_of, key_ctx

NOW = LedgerSettings(reader_retention_seconds=0.0)


@pytest.fixture
async def aging() -> AsyncIterator[House]:
    """A store on a clock of ours."""
    house = await build_house(ManualClock())
    yield house
    await house.close()


async def opened(house: House) -> tuple[Catalog, str]:
    """A catalog that keeps an hour of history and of what was dropped."""
    hour = {"history_seconds": 3600.0, "undrop_seconds": 3600.0}
    catalog = await house.open(**hour, ledger=NOW, collect_seconds=0.0, take_over=True)
    session = await catalog.session(CTX, c.SessionRequest("w", "ingestd"))
    return catalog, session.session_id


async def later(house: House, catalog: Catalog, session: str) -> int:
    """Two hours on, after the sessions ended, and collected."""
    await catalog.session(CTX, c.SessionRequest("w", "ingestd", session, close=True))
    clock = house.clock
    assert isinstance(clock, ManualClock)
    clock._move_to(clock._monotonic_us + 7200 * 1_000_000)
    for _ in range(3):
        await catalog.collect(CTX, c.PlanRequest())
    return (await catalog.status(CTX, c.StatusRequest())).horizon


async def put(house: House, *files: DataFile) -> None:
    for file in files:
        await house.store.put(file.key, b"x" * file.size_bytes)


async def left(house: House) -> set[str]:
    found = await house.store.list("datasets/")
    return {meta.key.rpartition("/")[2].removesuffix(".parquet") for meta in found}


async def tag(catalog: Catalog, name: str, dataset: str = "", **as_of: object) -> Tag:
    request = SetTagRequest(name, dataset, c.AsOf(**as_of))  # type: ignore[arg-type]
    return (await catalog.set_tag(CTX, request)).tag


async def untag(catalog: Catalog, name: str) -> None:
    await catalog.set_tag(CTX, SetTagRequest(name, remove=True))


async def keys_at(catalog: Catalog, name: str, **as_of: object) -> list[str]:
    at = c.AsOf(**as_of)  # type: ignore[arg-type]
    (snap,) = (await catalog.snapshot(CTX, c.SnapshotRequest((name,), at))).datasets
    return [file.key.rpartition("/")[2].removesuffix(".parquet") for file in snap.files]


async def refused(kind: ErrorKind, call: object) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.kind is kind
    return caught.value


async def test_a_tag_names_a_version_and_is_listed(catalog: Catalog, session: str) -> None:
    made = await commit(catalog, *create("d1", "one", file_of(session, "d1", "a")))
    whole = await tag(catalog, "Année 1")
    assert (whole.version, whole.dataset, whole.created_by) == (made, "", CTX.principal.id)
    own = await tag(catalog, "before", "one", version=made)
    assert (own.dataset, own.dataset_id) == ("one", "d1")
    await catalog.rename(CTX, c.RenameRequest("one", "uno"))
    again = await catalog.set_tag(CTX, SetTagRequest("ANNÉE 1", "", c.AsOf(version=made)))
    assert (again.created, again.tag) == (False, whole)
    listed = await catalog.tags(CTX, TagsRequest(limit=1))
    rest = await catalog.tags(CTX, TagsRequest(limit=1, cursor=listed.cursor))
    assert [each.name for each in (*listed.tags, *rest.tags)] == ["Année 1", "before"]
    assert rest.cursor == ""
    assert [each.dataset for each in (await catalog.tags(CTX, TagsRequest("uno"))).tags] == ["uno"]
    assert await keys_at(catalog, "one", tag="année 1") == ["a"]
    found = await catalog.get(CTX, c.GetRequest("one", c.AsOf(tag="before")))
    assert found.version == made


async def test_a_tag_is_another_versions_or_not_there(catalog: Catalog) -> None:
    first = await commit(catalog, *create("d1", "one"))
    await commit(catalog, *create("d2", "two"))
    await tag(catalog, "release", version=first)
    other = await refused(ErrorKind.CONFLICT, tag(catalog, "Release"))
    assert other.fields["version"] == first
    await refused(ErrorKind.CONFLICT, tag(catalog, "release", "one", version=first))
    gone = await refused(ErrorKind.NOT_FOUND, keys_at(catalog, "one", tag="relaese"))
    assert gone.fields["nearest"] == "release"
    await refused(ErrorKind.NOT_FOUND, untag(catalog, "no such thing"))
    await refused(ErrorKind.NOT_FOUND, tag(catalog, "x", "absent"))
    await refused(ErrorKind.NOT_FOUND, tag(catalog, "x", version=10**6))
    await refused(ErrorKind.INVALID, tag(catalog, "a/b"))
    await refused(ErrorKind.INVALID, keys_at(catalog, "one", tag="release", version=first))
    reader = replace(CTX, principal=Principal("r", (Scope.READ,)))
    await refused(ErrorKind.FORBIDDEN, catalog.set_tag(reader, SetTagRequest("y")))
    for change in (
        m.PutDocument(TAG_DOCUMENTS, "z", "{}"),
        m.DeleteDocument(TAG_DOCUMENTS, "release"),
    ):
        await refused(ErrorKind.INVALID, commit(catalog, change))


async def test_a_retry_has_one_effect(catalog: Catalog) -> None:
    await commit(catalog, *create("d1", "one"))
    ctx, request = key_ctx("k"), SetTagRequest("now", note="n")
    first = await catalog.set_tag(ctx, request)
    await commit(catalog, *create("d2", "two"))
    assert await catalog.set_tag(ctx, request) == first
    assert first.created


async def test_a_tagged_version_outlives_the_horizon_and_no_other_does(aging: House) -> None:
    """Of a dataset: files that came after the tag and went before the horizon go, the tag's stay;
    across restarts, until the tag is removed."""
    catalog, session = await opened(aging)
    a, b, z, x, y = (file_of(session, "d1" if name in "abz" else "d2", name) for name in "abzxy")
    await put(aging, a, b, z, x, y)
    await commit(catalog, *create("d1", "one", a), *create("d2", "other", x))
    at = (await tag(catalog, "t", "one")).version
    await commit(catalog, m.AddFiles("d1", (b,), replace=True))
    await commit(catalog, m.AddFiles("d1", (z,), replace=True))
    await commit(catalog, m.AddFiles("d2", (y,), replace=True))
    await catalog.rename(CTX, c.RenameRequest("one", "uno"))
    horizon = await later(aging, catalog, session)
    assert horizon > at
    catalog, session = await opened(aging)
    assert await left(aging) == {"a", "z", "y"}
    assert await keys_at(catalog, "one", tag="t") == ["a"]
    assert await keys_at(catalog, "one", version=at) == ["a"]
    page = await catalog.files(CTX, c.PageRequest("one", as_of=c.AsOf(tag="t")))
    assert len(page.files) == 1
    assert await keys_at(catalog, "uno") == ["z"]
    await refused(ErrorKind.NOT_FOUND, keys_at(catalog, "other", tag="t"))
    await refused(ErrorKind.NOT_FOUND, keys_at(catalog, "one", version=at + 1))
    await refused(ErrorKind.NOT_FOUND, tag(catalog, "whole", version=at))
    twin = await tag(catalog, "twin", "one", tag="t")
    assert twin.version == at
    await untag(catalog, "t")
    await later(aging, catalog, session)
    assert await keys_at(catalog, "one", tag="twin") == ["a"]
    await untag(catalog, "twin")
    catalog, session = await opened(aging)
    await later(aging, catalog, session)
    assert await left(aging) == {"z", "y"}
    await refused(ErrorKind.NOT_FOUND, keys_at(catalog, "one", version=at))


async def test_a_tag_of_the_store_keeps_all_of_it(aging: House) -> None:
    catalog, session = await opened(aging)
    a, b, x = (file_of(session, "d1" if name in "ab" else "d2", name) for name in "abx")
    await put(aging, a, b, x)
    await commit(catalog, *create("d1", "one", a), *create("d2", "gone", x))
    at = (await tag(catalog, "all")).version
    await commit(catalog, m.RemoveFiles("d1", (a.key,)), m.AddFiles("d1", (b,)))
    await catalog.drop(CTX, c.DropRequest("gone"))
    await later(aging, catalog, session)
    assert await left(aging) == {"a", "b", "x"}
    both = c.SnapshotRequest(("one", "gone"), c.AsOf(tag="all"))
    found = await catalog.snapshot(CTX, both)
    assert [snap.dataset.id for snap in found.datasets] == ["d1", "d2"]
    assert found.version == at
    for name in ("gone", "one"):
        error = await refused(
            ErrorKind.CONFLICT, catalog.drop(CTX, c.DropRequest(name, purge=True))
        )
        assert error.fields["version"] == at
    await untag(catalog, "all")
    catalog, session = await opened(aging)
    await later(aging, catalog, session)
    assert await left(aging) == {"b"}
    listed = await catalog.list(CTX, c.ListRequest(include_dropped=True))
    assert [dataset.id for dataset in listed.datasets] == ["d1"]


async def test_a_name_that_others_took_is_still_read_at_its_tag(aging: House) -> None:
    catalog, session = await opened(aging)
    a, b = file_of(session, "d1", "a"), file_of(session, "d2", "b")
    await put(aging, a, b)
    await commit(catalog, *create("d1", "name", a))
    await tag(catalog, "t", "name")
    for at in range(4):
        await catalog.rename(CTX, c.RenameRequest("name", f"x{at}"))
        await catalog.rename(CTX, c.RenameRequest(f"x{at}", "name"))
    await catalog.rename(CTX, c.RenameRequest("name", "away"))
    await later(aging, catalog, session)
    catalog, session = await opened(aging)
    file = file_of(session, "d2", "b")
    await put(aging, file)
    await commit(catalog, *create("d2", "name", file))
    assert await keys_at(catalog, "name", tag="t") == ["a"]
    assert await keys_at(catalog, "name") == ["b"]


def test_what_pins_keep_agrees_with_a_list() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    for _ in range(60):
        log, seen, serial = FileLog(), [list[str]()], 0
        for version in range(1, 40):
            roll = dice.random()
            living = [file.key for file in log.visible()]
            if roll < 0.15:
                log = log.clear(version)
            elif roll < 0.4 and living:
                log = log.remove(dice.sample(living, dice.randint(1, len(living))), version)
            else:
                serial += 1
                content = dice.choice(("rows", EVENTS))
                file = DataFile(f"k{serial}", 1, 1, "0" * 64, content=content)
                log = log.append([file], version)
            seen.append(sorted(file.key for file in log.visible()))
        horizon = dice.randint(0, 39)
        pins = sorted(dice.choices(range(40), k=dice.randint(0, 3)))
        first = log.without_dead(dice.randint(0, horizon), pins)
        for slim in (log.without_dead(horizon, pins), first.without_dead(horizon, pins)):
            for version in {*pins, *range(horizon, 40)}:
                assert sorted(file.key for file in slim.visible(version)) == seen[version]
            wanted = {key for version in {*pins, *range(horizon, 40)} for key in seen[version]}
            assert {file.key for file in slim.retained()} == wanted
