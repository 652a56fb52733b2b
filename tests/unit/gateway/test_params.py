"""How texts of parameters are read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.contracts.catalog import AsOf
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.params import parse_as_of, split_list, split_schema
from unit.gateway.fakes import World


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ()),
        (["a,b"], ("a", "b")),
        (["a", "b,c"], ("a", "b", "c")),
        (['"a,b",c'], ("a,b", "c")),
        ([""], ("",)),
        ([","], ("", "")),
    ],
)
def test_lists(values: list[str], expected: tuple[str, ...]) -> None:
    assert split_list(values) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("id:string", (("id", "string"),)),
        ("id:string, age:int64", (("id", "string"), ("age", "int64"))),
        ("a:decimal(10,2),b:bool", (("a", "decimal(10,2)"), ("b", "bool"))),
        ("s:struct<x:int64,y:list<string>>", (("s", "struct<x:int64,y:list<string>>"),)),
        ('"odd, name":date', (("odd, name", "date"),)),
        ('"a:b":date', (("a:b", "date"),)),
    ],
)
def test_schemas(text: str, expected: tuple[tuple[str, str], ...]) -> None:
    assert split_schema(text) == expected


@pytest.mark.parametrize("text", ["id", "id:", ":string", "a:int64,,b:bool", '"a:int64', ","])
def test_schemas_that_are_none(text: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        split_schema(text)
    assert caught.value.kind is ErrorKind.INVALID


@given(st.text(max_size=40))
def test_no_text_is_more_than_refused(text: str) -> None:
    for read in (parse_as_of, split_schema, lambda value: split_list([value])):
        # Any other exception fails the test.
        with contextlib.suppress(LakehouseError):
            read(text)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_every_version_is_a_point_in_time(version: int) -> None:
    assert parse_as_of(str(version)) == AsOf(version=version)


@pytest.mark.parametrize("text", [str(2**63), "-1", "1.5", "2026-11-01", "2026-11-01T12:00", "²"])
def test_points_in_time_that_are_none(text: str) -> None:
    with pytest.raises(LakehouseError):
        parse_as_of(text)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("dry_run", True),
        ("dry_run=", True),
        ("dry_run=true", True),
        ("dry_run=1", True),
        ("dry_run=yes", True),
        ("dry_run=TRUE", True),
        ("dry_run=false", False),
        ("dry_run=0", False),
        ("", False),
    ],
)
async def test_a_flag_that_is_named_is_meant(said: str, meant: bool) -> None:
    world = World()
    async with world.client() as client:
        assert (await client.post(f"/catalog/dedupe?{said}")).status_code == 200
        await client.post(f"/ingest/datasets/people?{said}", content=b"id\n1\n")
    assert [request.dry_run for _, _, request in world.catalog.calls] == [meant]
    assert [request.dry_run for _, _, request in world.ingest.calls] == [meant]


@pytest.mark.parametrize("query", ["dry_run=maybe", "dryrun=true", "dry-run", "Dry_Run=1", "x=%ff"])
async def test_what_would_be_a_run_by_mistake_is_refused(query: str) -> None:
    world = World()
    async with world.client() as client:
        for path in ("/catalog/dedupe", "/catalog/collect", "/ingest/datasets/people"):
            answer = await client.post(f"{path}?{query}", content=b"id\n1\n")
            assert (answer.status_code, answer.json()["kind"]) == (400, "invalid")
        purge = await client.delete("/catalog/datasets/people?purge=")
        assert purge.status_code == 400
    assert not world.catalog.calls
    assert not world.ingest.calls


async def test_a_misspelled_parameter_is_told_the_right_one() -> None:
    async with World().client() as client:
        problem = (await client.get("/catalog/datasets?limitt=3")).json()
        assert problem["parameter"] == "limitt"
        assert problem["hint"] == "did you mean limit"
        assert "cursor" in problem["known"]
        # Probes of load balancers may say what they like.
        assert (await client.get("/health?probe=7")).status_code == 200
