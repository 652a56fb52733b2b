"""Text to one checked statement, and names to columns, without an engine."""

from __future__ import annotations

import time

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd.bind import bind, fold_columns, mentions
from lakehouse.queryd.dialects import engine_sql
from lakehouse.queryd.literals import literal, read_parameters
from lakehouse.queryd.parse import parse

PEOPLE = fold_columns([("ID", "int64"), ("Full Name", "string"), ("amount", "decimal(10,2)")])
TWINS = fold_columns([("Id", "int64"), ("ID", "string")])
RELATIONS = {"people": PEOPLE, "twins": TWINS}


def bound(sql: str, params: str = "") -> tuple[str, list[str]]:
    statement = parse(sql, 10_000, 32)
    found = bind(statement.tree, RELATIONS, read_parameters(params, statement))
    return found.tree.sql("postgres"), [column.name for column in found.output]


def names(sql: str) -> tuple[str, ...]:
    return tuple(one.name for one in mentions(parse(sql, 10_000, 32).tree))


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("select 1", ()),
        ("select * from People p, PEOPLE q", ("people",)),
        ("with people as (select 1 as x) select * from people", ()),
        ("with people as (select * from people) select * from people", ("people",)),
        ("with a as (select * from b) select * from a, (select * from c) d", ("b", "c")),
        ("with recursive r(n) as (select 1 union all select n + 1 from r) select * from r", ()),
        ("select * from a where x in (select y from b) union select * from c", ("a", "b", "c")),
        ("select * from system.files", ("system.files",)),
        ('select * from "My.Data" join public.t on true', ("my.data", "t")),
        ("select * from sales.orders", ("sales.orders",)),
        ("select (select max(x) from deep) from a, lateral (select 1) l", ("a", "deep")),
    ],
)
def test_the_relations_of_a_statement(sql: str, wanted: tuple[str, ...]) -> None:
    assert sorted(names(sql)) == sorted(wanted)


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("select id, BOTH from (select id, 1 as Both from people) x", ["ID", "Both"]),
        ("select * from people", ["ID", "Full Name", "amount"]),
        ('select "full name" as Name from people', ["Name"]),
        ("select count(*), sum(amount), 1, id::text from people group by id",
         ["count", "sum", "?column?", "ID"]),
        ('select "Id", "ID" from twins', ["Id", "ID"]),
        ("select case when true then 1 end, coalesce(1, 2), exists(select 1)",
         ["case", "coalesce", "exists"]),
        ("values (1, 2)", ["column1", "column2"]),
    ],
)  # fmt: skip
def test_the_names_of_a_result(sql: str, wanted: list[str]) -> None:
    assert [name.lower() for name in bound(sql)[1]] == [name.lower() for name in wanted]
    assert bound(sql)[1][-1] == wanted[-1]


def test_names_that_differ_in_case_alone_are_found_by_their_spelling() -> None:
    assert bound('select "ID" from twins')[0].startswith('SELECT "twins"."id_2"')
    assert bound('select "Id" from twins')[0].startswith('SELECT "twins"."id"')
    assert bound("select iD from twins")[0].startswith('SELECT "twins"."id"')


@pytest.mark.parametrize("sql", ["select nme from people", "select p.nme from people p"])
def test_an_unknown_column(sql: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        bound(sql)
    assert (caught.value.kind, caught.value.message) == (
        ErrorKind.INVALID,
        "there is no such column",
    )


def test_two_columns_of_one_name_inside_are_no_answer() -> None:
    with pytest.raises(LakehouseError, match="two columns of a subquery"):
        bound("select x.id from (select * from people p join twins t on p.id = t.id) x")


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=60))
def test_a_string_parameter_is_that_string_whatever_it_holds(text: str) -> None:
    tree = exp.select(exp.alias_(literal(text), "a"))
    for engine in ("duckdb", "datafusion"):
        again = sqlglot.parse_one(engine_sql(tree, engine, {}), read="postgres")
        constants = list(again.find_all(exp.Literal))
        assert [one.this for one in constants] == [text]
        assert isinstance(again, exp.Select)


@given(st.text(max_size=200))
def test_any_text_is_a_statement_or_an_error_of_ours(text: str) -> None:
    try:
        statement = parse(text, 10_000, 32)
    except LakehouseError as error:
        kind = error.kind
    else:
        kind = ErrorKind.INVALID
        assert isinstance(statement.tree, exp.Query | exp.Values)
    assert kind in (ErrorKind.INVALID, ErrorKind.FORBIDDEN)


def test_limits_of_the_text() -> None:
    for sql in ("select '" + "x" * 20_000 + "'", "select " + "(" * 40 + "1" + ")" * 40, "\ud800"):
        with pytest.raises(LakehouseError) as caught:
            parse(sql, 10_000, 32)
        assert caught.value.kind is ErrorKind.INVALID
    assert parse("select '" + "(" * 100 + "'", 10_000, 32).positional == 0


@pytest.mark.parametrize(
    ("sql", "explain"),
    [
        ("explain select 1", "EXPLAIN"),
        ("/* a */ -- b\n EXPLAIN  analyze select 1", "EXPLAIN ANALYZE"),
        ("select 1 as explain", ""),
    ],
)
def test_explain(sql: str, explain: str) -> None:
    assert parse(sql, 10_000, 32).explain == explain


@pytest.mark.parametrize("comment", ["/**/", "--\n", " ", "/* -- */", "/*\n*/ "])
def test_comments_before_a_statement_cost_one_pass(comment: str) -> None:
    begun = time.perf_counter()
    many = comment * 60_000
    assert parse(many + "select 1", 1 << 20, 32).explain == ""
    assert parse(many + "explain select 1", 1 << 20, 32).explain == "EXPLAIN"
    assert time.perf_counter() - begun < 5


NUMBERED = {"t": fold_columns([("s", "string"), ("n", "int64"), ("f", "float64"), ("d", "date")])}


@pytest.mark.parametrize(
    "where",
    [
        "s < 8",
        "s = 7",
        "8 > s",
        "s in (7, 8)",
        "s between 1 and 2",
        "s = n",
        "s = (-1.5)",
        "s is distinct from 7",
        "cast(n as text) = 7",
        "s in (select n from t)",
        "s = (f)",
        "case s when 7 then true end",
        "s = (select max(s) from t) and s <> n",
    ],
)
def test_a_text_is_not_compared_with_a_number(where: str) -> None:
    statement = parse(f"select 1 from t where {where}", 10_000, 32)
    with pytest.raises(LakehouseError) as caught:
        bind(statement.tree, NUMBERED, read_parameters("", statement))
    assert caught.value.kind is ErrorKind.INVALID
    assert "cast(" in str(caught.value.fields["hint"])


@pytest.mark.parametrize(
    "where",
    [
        "s < '8'",
        "n = '7'",
        "'7' = n",
        "n in ('7', '8')",
        "d > '2024-01-01'",
        "f = 1",
        "n = 1.5",
        "s in ('7')",
        "cast(s as bigint) = 7",
        "length(s) = 7",
        "s = cast(n as text)",
        "s = null",
        "n between '1' and 2",
        "case when n = 1 then s else 'x' end = '7'",
        "strpos(s, 'a') = 1",
    ],
)
def test_other_comparisons_are_left_alone(where: str) -> None:
    statement = parse(f"select 1 from t where {where}", 10_000, 32)
    bind(statement.tree, NUMBERED, read_parameters("", statement))


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("show tables", ("system.datasets",)),
        (" SHOW  Tables ; ", ("system.datasets",)),
        ("\\d", ("system.datasets",)),
        ("describe t", ("system.columns",)),
        ('desc "a ""b"" \'c";', ("system.columns",)),
        ("\\d sales.orders", ("system.columns",)),
        ("show columns from t", ("system.columns",)),
    ],
)
def test_what_people_write_first_is_understood(sql: str, wanted: tuple[str, ...]) -> None:
    assert names(sql) == wanted


def test_a_described_name_is_a_value() -> None:
    tree = parse('describe "x\' or 1=1 --"', 10_000, 32).tree
    assert [one.this for one in tree.find_all(exp.Literal)] == ["x' or 1=1 --"]


@pytest.mark.parametrize("sql", ["show create table t", "describe", "describe t u", "\\copy t"])
def test_other_commands_say_where_to_look(sql: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        parse(sql, 10_000, 32)
    assert caught.value.kind is ErrorKind.FORBIDDEN
    assert "system.columns" in str(caught.value.fields["hint"])


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 +",
        "select from",
        "select (1",
        "select 'a",
        "select 1 where",
        "select a from b c d",
    ],
)
def test_what_does_not_parse_is_told_without_the_parsers_insides(sql: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        parse(sql, 10_000, 32)
    reason = str(caught.value.fields["reason"])
    assert reason
    assert not any(word in reason for word in ("<class", "sqlglot", "Token", "SENTINEL"))
