"""Versions in the text of a statement: ``FROM people FOR VERSION AS OF 812``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pyarrow as pa
import pytest
import pytest_asyncio

from lakehouse.contracts.catalog import AsOf, Pin
from lakehouse.contracts.query import Engine, QueryRequest, ResultFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd.bind import mentions
from lakehouse.queryd.parse import parse
from lakehouse.queryd.points import Mention
from lakehouse.queryd.service import Query
from unit.queryd.fake_catalog import CTX, FakeCatalog, make_query

ENGINES = (Engine.DUCKDB, Engine.DATAFUSION)
LARGE = " ".join(["/* a comment that makes it long */"] * 100)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def found(sql: str) -> tuple[Mention, ...]:
    return mentions(parse(sql, 10_000, 32).tree)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> FakeCatalog:
    made = FakeCatalog(tmp_path_factory.mktemp("bucket"))
    made.put("People", pa.table({"id": [1, 2], "city": ["Ulm", "Bonn"]}))  # version 1, 2 January
    made.put("other", pa.table({"id": [2]}))
    made.put("People", pa.table({"id": [1, 2, 3], "city": ["Ulm", "Bern", "Graz"]}))
    made.tags = {"march": 1, "812": 3}
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def query(
    catalog: FakeCatalog, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Query]:
    made, buckets = make_query(tmp_path_factory.mktemp("query"), catalog)
    await made.start()
    yield made
    await made.close()
    await buckets.close()


async def ask(query: Query, sql: str, **options: Any) -> dict[str, Any]:
    stream = await query.run(CTX, QueryRequest(sql, format=ResultFormat.JSON, **options))
    answer: dict[str, Any] = orjson.loads(b"".join([chunk async for chunk in stream.chunks]))
    return answer


async def refusal(query: Query, sql: str, **options: Any) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await ask(query, sql, **options)
    return caught.value


@pytest.mark.parametrize(
    ("point", "version"),
    [
        ("for version as of 1", 1),
        ("FOR VERSION AS OF 'march'", 1),
        ("for version as of '812'", 3),
        ("for timestamp as of timestamp '2026-01-03 23:59:59'", 2),
        ("for timestamp as of '2026-01-04'", 3),
        ("for timestamp as of timestamptz '2026-01-04T00:30:00+01:00'", 2),
        ("for timestamp as of date '2026-01-02'", 1),
        ("for system_time as of '2026-01-02T00:00:00Z'", 1),
    ],
)
async def test_a_dataset_is_read_at_its_own_version(query: Query, point: str, version: int) -> None:
    answer = await ask(query, f"select count(*) from people {point} as p where p.id > 0")
    assert answer["rows"] == [[3 if version == 3 else 2]]
    (name,) = answer["versions"]
    assert name.startswith("People@")
    assert answer["versions"][name] == version
    assert answer["version"] == 3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("comment", ["", LARGE], ids=["small", "large"])
async def test_now_and_then_are_joined(query: Query, engine: Engine, comment: str) -> None:
    sql = (
        "select n.id, t.city as was, n.city as is_now from people n"
        f" join people for version as of 1 t on t.id = n.id {comment}"
        " where t.city <> n.city and n.id in (select id from other)"
    )
    answer = await ask(query, sql, engine=engine)
    assert answer["rows"] == [[2, "Bonn", "Bern"]]
    assert answer["versions"] == {"People": 3, "other": 3, "People@1": 1}


async def test_files_are_pruned_by_the_mention_that_the_filter_is_of(query: Query) -> None:
    sql = (
        "select (select max(id) from people for version as of 1 where id < 10),"
        " (select count(*) from people where id = 3)"
    )
    assert (await ask(query, sql))["rows"] == [[2, 1]]


async def test_the_request_s_version_is_for_the_rest(query: Query) -> None:
    sql = "select (select count(*) from people), (select count(*) from people for version as of 3)"
    for given in (
        {"as_of": AsOf(version=1)},
        {"as_of": AsOf(tag="march")},
        {"pins": (Pin("people", AsOf(version=1)),)},
    ):
        answer = await ask(query, sql, **given)
        assert answer["rows"] == [[2, 3]]
        assert answer["versions"] == {"People": 1, "People@3": 3}
    error = await refusal(
        query,
        "select 1 from people for version as of 3",
        pins=(Pin("people", AsOf(version=1)),),
    )
    assert error.message == "as_of pins a dataset that the statement does not use"


async def test_one_call_to_the_catalog_for_each_point(query: Query, catalog: FakeCatalog) -> None:
    before = catalog.snapshots
    await ask(query, "select 1 from people")
    assert catalog.snapshots == before + 1
    await ask(
        query,
        "select 1 from people a, other b, people for version as of 2 c,"
        " other for version as of 2 d, other for version as of 3 e",
    )
    assert catalog.snapshots == before + 4


async def test_system_tables_have_versions_too(query: Query) -> None:
    sql = "select count(*) from system.datasets for version as of {}"
    assert [(await ask(query, sql.format(n)))["rows"] for n in (1, 2)] == [[[1]], [[2]]]
    answer = await ask(
        query,
        "select count(*) from system.datasets for timestamp as of '2026-01-02' a,"
        " system.datasets for version as of 'march' b",
    )
    assert answer["rows"] == [[1]]
    error = await refusal(query, "select * from system.buckets for version as of 1")
    assert (error.kind, error.message) == (
        ErrorKind.INVALID,
        "this table is as of now and has no versions",
    )


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select 1 from people for version as of $1", "a version is a number or"),
        ("select 1 from people for version as of 1 + 1", "a version is a number or"),
        ("select 1 from people for version as of ''", "a version is a number or"),
        ("select 1 from people for version as of march", "a version is a number or"),
        ("select 1 from people for version as of 1.5", "a version is a whole number"),
        ("select 1 from people for version as of 99999999999999999999", "a version is a whole"),
        ("select 1 from people for version between 1 and 2", "of versions there is AS OF alone"),
        ("select 1 from people for timestamp as of 7", "a point in time is a text"),
        ("select 1 from people for timestamp as of 'yesterday'", "this is no point in time"),
        ("select 1 from people for timestamp as of now()", "a point in time is a text"),
        (
            "with c as (select 1) select * from c for version as of 1",
            "only a dataset has versions",
        ),
        (
            "select * from generate_series(1, 3) for version as of 1",
            "only a dataset has versions",
        ),
        (
            "select 1 from " + ", ".join(f"people for version as of {n} p{n}" for n in range(40)),
            "too many versions in one statement",
        ),
    ],
)
async def test_what_is_no_version_is_refused(query: Query, sql: str, message: str) -> None:
    params = "[1]" if "$1" in sql else ""
    error = await refusal(query, sql, params_json=params)
    assert error.kind is ErrorKind.INVALID
    assert error.message.startswith(message)


async def test_a_version_that_is_not_there_is_said_by_the_catalog(query: Query) -> None:
    error = await refusal(query, "select 1 from people for version as of 99")
    assert (error.kind, error.fields["as_of"]) == (ErrorKind.NOT_FOUND, 99)


async def test_mentions_are_told_apart_by_name_and_point() -> None:
    sql = (
        "select 1 from PEOPLE a, people for version as of 7 b, people for version as of 07 c,"
        " people for version as of '7' d, \"public\".people e"
    )
    assert [(one.name, one.point) for one in found(sql)] == [
        ("people", ""),
        ("people", "7"),
        ("people", "'7'"),
    ]
    assert len({one.key for one in found(sql)}) == 3
