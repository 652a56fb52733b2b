"""``register``: idempotent by name with a fingerprint gate (ADR-020), cards (ADR-013)."""

from __future__ import annotations

import asyncio
import hashlib
import io
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import Card, Sensitivity
from lakehouse.model.schema import Column
from support_catalog import CARD, CTX, House, build_house, key_ctx, parquet_bytes, put_parquet


async def test_first_registration_makes_a_dataset(house: House, catalog: Catalog) -> None:
    data = parquet_bytes(7)
    ref = await put_parquet(house, "raw/a.parquet", data)
    done = await catalog.register(CTX, c.RegisterRequest("People", (ref,), CARD))
    dataset = done.dataset
    assert done.created
    assert done.version == dataset.version
    assert (dataset.name, dataset.row_count, dataset.files) == ("People", 7, 1)
    assert [(col.name, col.type) for col in dataset.schema.columns] == [
        ("id", "int64"),
        ("name", "string"),
    ]
    (file,) = (await catalog.files(CTX, c.PageRequest("people"))).files
    assert (file.external, file.key, file.size_bytes) == (True, "raw/a.parquet", len(data))
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    first = file.stats[0]
    assert (first.column_id, first.minimum, first.maximum) == (1, "0", "6")


async def test_same_fingerprint_keeps_the_id_and_replaces_the_objects(
    house: House, catalog: Catalog
) -> None:
    a = await put_parquet(house, "raw/a.parquet")
    b = await put_parquet(house, "raw/b.parquet", parquet_bytes(9))
    first = await catalog.register(CTX, c.RegisterRequest("t", (a,), CARD))
    again = await catalog.register(CTX, c.RegisterRequest("T", (b,), Card()))
    assert not again.created
    assert again.dataset.id == first.dataset.id
    assert again.dataset.updated_at > first.dataset.updated_at
    assert (again.dataset.row_count, again.dataset.files) == (9, 1)
    assert again.dataset.card.owner == "ann"
    same = await catalog.register(CTX, c.RegisterRequest("t", (b,), Card()))
    assert same.dataset.row_count == 9
    old = await catalog.files(CTX, c.PageRequest("t", c.AsOf(version=first.version)))
    assert [file.key for file in old.files] == ["raw/a.parquet"]


async def test_another_fingerprint_is_a_conflict_with_the_diff(
    house: House, catalog: Catalog
) -> None:
    a = await put_parquet(house, "raw/a.parquet")
    b = await put_parquet(house, "raw/b.parquet", parquet_bytes(id=["x"], extra=[1.5]))
    await catalog.register(CTX, c.RegisterRequest("t", (a,), CARD))
    with pytest.raises(LakehouseError) as caught:
        await catalog.register(CTX, c.RegisterRequest("t", (b,), CARD))
    assert (caught.value.kind, caught.value.http_status) == (ErrorKind.CONFLICT, 409)
    assert caught.value.fields["diff"] == [
        {"name": "id", "old": "int64", "new": "string"},
        {"name": "name", "old": "string", "new": None},
        {"name": "extra", "old": None, "new": "float64"},
    ]
    # A stated fingerprint is refused with the same diff.
    stated = c.RegisterRequest("t", (b,), CARD, fingerprint=str(caught.value.fields["offered"]))
    with pytest.raises(LakehouseError) as again:
        await catalog.register(CTX, stated)
    assert again.value.fields["diff"] == caught.value.fields["diff"]
    # Stated columns are refused before an object is read.
    columns = (Column(1, "other", "bool"),)
    missing = (c.ForeignObject("raw/not-there.parquet"),)
    with pytest.raises(LakehouseError) as caught:
        await catalog.register(CTX, c.RegisterRequest("t", missing, CARD, columns=columns))
    assert caught.value.kind is ErrorKind.CONFLICT


async def test_32_concurrent_callers_make_one_manifest(house: House, catalog: Catalog) -> None:
    refs = [
        await put_parquet(house, f"raw/{at}.parquet", parquet_bytes(at + 1)) for at in range(32)
    ]

    async def one(ref: c.ForeignObject) -> c.DatasetResult:
        return await catalog.register(CTX, c.RegisterRequest("playbooks", (ref,), CARD))

    results = await asyncio.gather(*(one(ref) for ref in refs))
    assert len({done.dataset.id for done in results}) == 1
    assert sum(done.created for done in results) == 1
    assert len((await catalog.list(CTX, c.ListRequest())).datasets) == 1
    assert len({done.version for done in results}) == 32


async def test_a_delayed_retry_of_an_old_register_rolls_nothing_back(
    house: House, catalog: Catalog
) -> None:
    a = await put_parquet(house, "raw/a.parquet", parquet_bytes(1))
    b = await put_parquet(house, "raw/b.parquet", parquet_bytes(2))
    old = c.RegisterRequest("t", (a,), CARD)
    first = await catalog.register(key_ctx("old"), old)
    await catalog.register(key_ctx("new"), c.RegisterRequest("t", (b,), CARD))
    late = await catalog.register(key_ctx("old"), old)
    assert late.version == first.version
    assert late.dataset.row_count == 1
    assert (await catalog.get(CTX, c.GetRequest("t"))).dataset.row_count == 2
    # Not even where the name means something else by now.
    other = await put_parquet(house, "raw/c.parquet", parquet_bytes(x=[1.5]))
    await catalog.drop(CTX, c.DropRequest("t"))
    await catalog.register(CTX, c.RegisterRequest("t", (other,), CARD))
    later = await catalog.register(key_ctx("old"), old)
    assert (later.version, later.dataset.id) == (first.version, first.dataset.id)


async def test_a_version_that_is_expected_must_be_the_last(house: House, catalog: Catalog) -> None:
    first = await put_parquet(house, "raw/1.parquet")
    second = await put_parquet(house, "raw/2.parquet", parquet_bytes(5))

    async def register(ref: c.ForeignObject, expected: int | None) -> int:
        request = c.RegisterRequest("t", (ref,), CARD, expected_version=expected)
        return (await catalog.register(CTX, request)).version

    with pytest.raises(LakehouseError) as caught:
        await register(first, 7)
    assert caught.value.kind is ErrorKind.CONFLICT
    one = await register(first, 0)
    two = await register(second, one)
    for late in (0, one):
        with pytest.raises(LakehouseError) as caught:
            await register(first, late)
        assert caught.value.kind is ErrorKind.CONFLICT
        assert caught.value.fields["version"] == two
    assert (await catalog.get(CTX, c.GetRequest("t"))).dataset.row_count == 5


async def test_a_new_name_needs_owner_and_description(house: House, catalog: Catalog) -> None:
    ref = await put_parquet(house, "raw/a.parquet")
    for card, missing in (
        (Card(owner=" "), ["owner", "description"]),
        (Card("x"), ["description"]),
    ):
        with pytest.raises(LakehouseError) as caught:
            await catalog.register(CTX, c.RegisterRequest("t", (ref,), card))
        assert caught.value.kind is ErrorKind.INVALID
        assert caught.value.fields["missing"] == missing


async def test_personal_data_is_found_and_a_person_may_overrule(
    house: House, catalog: Catalog
) -> None:
    data = parquet_bytes(mail=["a@example.com", "b@example.org"], n=[1, 2])
    ref = await put_parquet(house, "raw/a.parquet", data)
    card = (await catalog.register(CTX, c.RegisterRequest("t", (ref,), CARD))).dataset.card
    assert [(each.column, each.kind) for each in card.pii] == [("mail", "email")]
    assert card.sensitivity is Sensitivity.CONFIDENTIAL
    assert card.detected == ("pii", "sensitivity", "lineage")
    done = await catalog.update_card(CTX, c.UpdateCardRequest("t", sensitivity="public"))
    assert done.dataset.card.sensitivity is Sensitivity.PUBLIC
    assert "sensitivity" not in done.dataset.card.detected
    again = await catalog.register(CTX, c.RegisterRequest("t", (ref,), Card()))
    assert again.dataset.card.sensitivity is Sensitivity.PUBLIC


@pytest.mark.parametrize(
    "request_",
    [
        c.RegisterRequest("../t", (c.ForeignObject("raw/a.parquet"),), CARD),
        c.RegisterRequest("t", (), CARD),
        c.RegisterRequest("t", (c.ForeignObject("../etc/passwd"),), CARD),
        c.RegisterRequest("t", (c.ForeignObject("k" * 600),), CARD),
        c.RegisterRequest("t", (c.ForeignObject("raw/a.parquet"),) * 2, CARD),
        c.RegisterRequest("t", (c.ForeignObject("raw/text.csv"),), CARD),
        c.RegisterRequest("t", (c.ForeignObject("raw/torn.parquet"),), CARD),
        c.RegisterRequest("t", (c.ForeignObject("raw/a.parquet"),), CARD, fingerprint="fp1:00"),
        c.RegisterRequest(
            "t", (c.ForeignObject("raw/a.parquet"),), CARD, columns=(Column(1, "id", "string"),)
        ),
        c.RegisterRequest("t", (c.ForeignObject("raw/a.parquet"),), CARD, primary_key=("no",)),
        c.RegisterRequest(
            "t", (c.ForeignObject("raw/a.parquet"), c.ForeignObject("raw/other.parquet")), CARD
        ),
    ],
)
async def test_bad_requests_are_refused_and_leave_nothing(
    house: House, catalog: Catalog, request_: c.RegisterRequest
) -> None:
    await put_parquet(house, "raw/a.parquet")
    await put_parquet(house, "raw/other.parquet", parquet_bytes(id=["x"]))
    await put_parquet(house, "raw/text.csv", b"id,name\n1,x\n")
    await put_parquet(house, "raw/torn.parquet", parquet_bytes()[:-20])
    with pytest.raises(LakehouseError) as caught:
        await catalog.register(CTX, request_)
    assert caught.value.kind is ErrorKind.INVALID
    assert not (await catalog.list(CTX, c.ListRequest(include_dropped=True))).datasets


async def test_objects_named_that_do_not_exist_are_refused(catalog: Catalog) -> None:
    """Window: objects named that do not exist."""
    for ref in (c.ForeignObject("raw/none.parquet"), c.ForeignObject("x", bucket="nowhere")):
        with pytest.raises(LakehouseError) as caught:
            await catalog.register(CTX, c.RegisterRequest("t", (ref,), CARD))
        assert caught.value.kind is ErrorKind.NOT_FOUND
        assert "hint" in caught.value.fields


async def test_copy_takes_the_objects_in(house: House, catalog: Catalog) -> None:
    ref = replace(await put_parquet(house, "raw/a.parquet"), copy=True)
    done = await catalog.register(CTX, c.RegisterRequest("t", (ref,), CARD))
    (file,) = (await catalog.files(CTX, c.PageRequest("t"))).files
    assert not file.external
    assert file.key.startswith("datasets/")
    assert f"/{done.dataset.id}/" in file.key
    await house.store.delete(["raw/a.parquet"])
    assert hashlib.sha256(await house.store.get(file.key)).hexdigest() == file.sha256
    assert not (await catalog.fsck(CTX, c.FsckRequest(deep=True))).findings


async def test_large_objects_are_streamed(house: House) -> None:
    catalog = await house.open(object_bytes_max=1000)
    table = pa.table({"id": list(range(50_000)), "name": [f"name {at}" for at in range(50_000)]})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=5000)
    ref = await put_parquet(house, "raw/big.parquet", sink.getvalue())
    await catalog.register(CTX, c.RegisterRequest("t", (ref,), CARD))
    (file,) = (await catalog.files(CTX, c.PageRequest("t"))).files
    assert (file.rows, file.size_bytes) == (50_000, len(sink.getvalue()))
    assert file.sha256 == hashlib.sha256(sink.getvalue()).hexdigest()
    assert file.stats[0].maximum == "49999"


async def test_a_footers_statistics_of_a_foreign_bucket_stay_there() -> None:
    house = await build_house(extra=("tenant",))
    catalog = await house.open()
    await house.buckets.get("tenant").put("a.parquet", parquet_bytes())
    ref = c.ForeignObject("a.parquet", "tenant")
    done = await catalog.register(CTX, c.RegisterRequest("t", (ref,), CARD))
    (file,) = (await catalog.files(CTX, c.PageRequest("t"))).files
    assert (done.dataset.bucket, file.bucket, file.stats) == ("tenant", "tenant", ())
    await house.close()


async def test_a_key_that_no_row_can_be_told_by_is_refused(house: House, catalog: Catalog) -> None:
    data = parquet_bytes(price=[1.5], tags=[["a"]], id=[1])
    ref = await put_parquet(house, "raw/a.parquet", data)
    for key in (("price",), ("id", "tags")):
        with pytest.raises(LakehouseError) as caught:
            await catalog.register(CTX, c.RegisterRequest("t", (ref,), CARD, primary_key=key))
        assert caught.value.kind is ErrorKind.INVALID
        assert caught.value.fields["column"] == key[-1]
    done = await catalog.register(CTX, c.RegisterRequest("t", (ref,), CARD, primary_key=("id",)))
    assert done.dataset.primary_key == ("id",)
