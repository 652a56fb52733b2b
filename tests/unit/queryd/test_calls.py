"""Searches are found where they are meant, and only there; their arguments are data."""

from __future__ import annotations

import contextlib
import json
import math
import random
from typing import Any

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.retrieval import SearchMode
from lakehouse.queryd.calls import CALLS_MAX, Call, rewritten

ONE = '"vector_search:1".vector_search'
TWO = '"vector_search:2".vector_search'


def left(sql: str, params: Any = None) -> tuple[str, Any]:
    found = rewritten(sql, "" if params is None else json.dumps(params))
    return found.sql, json.loads(found.params_json) if found.params_json else None


def call(arguments: str, params: Any = None) -> Call:
    found = rewritten(
        f"select * from vector_search({arguments})", "" if params is None else json.dumps(params)
    )
    (only,) = found.calls
    return only


@pytest.mark.parametrize(
    "sql",
    [
        "select 1",
        "select 'vector_search(1, 2)' from t",
        "select e'\\'vector_search(' from t",
        'select "vector_search(" from t',
        "select $$ vector_search('a','b') $$, $x$ vector_search( $x$",
        "select 1 -- from vector_search('a', 'b')",
        "select 1 /* from vector_search('a', 'b') */",
        "select * from vector_search",
        "select * from my_vector_search('a', 'b')",
        "select * from public.vector_search('a', 'b')",
        "select * from vector_search_x('a', 'b')",
        "select 'vector_search('",
        "select /* vector_search(",
    ],
)
def test_other_texts_stay_as_they_are(sql: str) -> None:
    found = rewritten(sql, "")
    assert (found.sql, found.calls) == (sql, ())


@pytest.mark.parametrize(
    ("arguments", "params", "wanted"),
    [
        ("'docs', 'it''s red', 5", None, ("docs", "it's red", 5, {})),
        ("'docs','red'", None, ("docs", "red", 10, {})),
        ("'docs', [1, -2.5e0,3], 5", None, ("docs", (1.0, -2.5, 3.0), 5, {})),
        ("'docs', ARRAY[1,2]::float4[], 5", None, ("docs", (1.0, 2.0), 5, {})),
        ("'docs', array [1,2]::vector(2), 5", None, ("docs", (1.0, 2.0), 5, {})),
        ("?, ?, ?", ["docs", [1, 0.5], 7], ("docs", (1.0, 0.5), 7, {})),
        ("$3, $1::text, $2", ["red", 7, "docs"], ("docs", "red", 7, {})),
        ("$i, :q, $k", {"i": "docs", "q": "red", "k": 7}, ("docs", "red", 7, {})),
        (
            " 'docs' /* of ) */ , 'red' -- and (\n, k => 3, filter => 'a = ''x''', exact => true ",
            None,
            ("docs", "red", 3, {"filter": "a = 'x'", "exact": True}),
        ),
        (
            "'docs', 'red', EF := 9, number => 2, model => 'm', filter => null",
            None,
            ("docs", "red", 10, {"ef": 9, "number": 2, "model": "m"}),
        ),
        ("'docs', ?, filter => ?", ["red", "x > 1"], ("docs", "red", 10, {"filter": "x > 1"})),
    ],
)
def test_arguments(arguments: str, params: Any, wanted: tuple[Any, ...]) -> None:
    found = call(arguments, params)
    assert (found.index, found.query, found.k, found.options) == wanted


def test_what_is_beyond_float32_is_infinite() -> None:
    assert call("'a', [1e300, -1e300, 3.4e38]").query == (math.inf, -math.inf, 3.4e38)
    assert call("'a', ?", [[1e300, -1e300, 1]]).query == (math.inf, -math.inf, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "'docs'",
        "'docs', 'red', 5, 6",
        "'docs', 'red', 1.5",
        "'docs', 'red', '5'",
        "'docs', 'red', 99999999999",
        "docs, 'red'",
        "'docs', t.text",
        "'docs', 'a' || 'b'",
        "'docs', lower('A')",
        "'docs', (select 'x')",
        "'docs', ['a']",
        "'docs', [1,]",
        "'docs', [1 2]",
        "'docs', []",
        "'docs', 5",
        "'docs', null",
        "7, 'red'",
        "'', 'red'",
        "'docs', 'red', filter => 5",
        "'docs', 'red', exact => 'yes'",
        "'docs', 'red', other => 1",
        "'docs', 'red', filter => 'a', filter => 'b'",
        "filter => 'a', 'docs', 'red'",
        "'docs', 'red', k => 3, k => 4",
        "'docs', 'red', 5, k => 4",
        "'docs', ?",
        "'docs', $1",
        "'docs', $q",
        "'docs' 'red'",
        "'docs', 'red'",
    ],
)
def test_what_is_no_search_is_invalid(arguments: str) -> None:
    sql = f"select * from vector_search({arguments}"
    sql += ")" if arguments != "'docs', 'red'" else ""
    with pytest.raises(LakehouseError) as caught:
        rewritten(sql, "")
    assert caught.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize(
    ("sql", "params", "wanted", "kept"),
    [
        ("select * from vector_search('a', 'b') v where x = ?", [1], f"{ONE} v where x = ?", [1]),
        (
            "select ?, * from Vector_Search('a', ?, ?) where x = ?",
            [1, "q", 3, 4],
            f"{ONE} where x = ?",
            [1, 4],
        ),
        ("select $2 from vector_search('a', $1)", ["q", 5], ONE, [None, 5]),
        ("select $1 from vector_search('a', $2)", [5, "q"], ONE, [5]),
        ("select $1 from vector_search('a', $1)", ["q"], ONE, ["q"]),
        ("select 1 from vector_search('a', $1)", ["q", 7], ONE, [None, 7]),
        ("select $x from vector_search('a', $q)", {"x": 1, "q": "t"}, ONE, {"x": 1}),
        ("select 1 from vector_search('a', $q)", {"q": "t", "z": 1}, ONE, {"z": 1}),
        (
            "select * from vector_search('a', ?) b, lateral (select ?) c, vector_search('c', ?, 2)",
            ["x", 1, "y"],
            TWO,
            [1],
        ),
    ],
)
def test_the_rest_keeps_its_own_parameters(sql: str, params: Any, wanted: str, kept: Any) -> None:
    text, values = left(sql, params)
    assert wanted in text
    assert "'a'" not in text
    assert values == kept


def test_so_many_searches_and_no_more() -> None:
    one = "vector_search('a', 'b')"
    assert len(rewritten("select * from " + ", ".join([one] * CALLS_MAX), "").calls) == CALLS_MAX
    with pytest.raises(LakehouseError):
        rewritten("select * from " + ", ".join([one] * (CALLS_MAX + 1)), "")


@pytest.mark.parametrize(
    "part", ["/*", "e'\\'", '"', "'", "$a$", "--", "(", "vector_search", "?", "x "]
)
def test_no_text_takes_long(part: str) -> None:
    """In a moment if each character is looked at a few times, in minutes if each is where a search
    for an end begins."""
    text = f"select * from vector_search('a', {part * (200_000 // len(part))}"
    with pytest.raises(LakehouseError):
        rewritten(text, "")
    rewritten(f"{part * (200_000 // len(part))} vector_search", "")


def test_no_text_breaks_it() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    parts = ["vector_search(", "'a'", ",", ")", "[1,2]", "?", "$1", "$q", "=>", "filter", "k", "5"]
    parts += [
        "'",
        '"',
        "/*",
        "*/",
        "--",
        "\n",
        "$$",
        "e'",
        "\\",
        "::float[]",
        "true",
        " ",
        "é",
        "(",
    ]
    for _ in range(3000):
        text = "".join(draw.choices(parts, k=draw.randrange(1, 25)))
        params = draw.choice(["", '["x", 2]', '{"q": "x"}', "[[1, 2]]"])
        with contextlib.suppress(LakehouseError):
            found = rewritten(text, params)
            assert len(found.calls) == found.sql.count('".vector_search')


@pytest.mark.parametrize(
    ("function", "mode"), [("text_search", SearchMode.TEXT), ("Hybrid_Search", SearchMode.HYBRID)]
)
def test_words_are_searched_for_as_well(function: str, mode: SearchMode) -> None:
    found = rewritten(f"select * from {function}('docs', 'red', 3, candidates => 50) v", "")
    (only,) = found.calls
    assert (only.index, only.query, only.k, only.options) == ("docs", "red", 3, {"candidates": 50})
    assert (only.mode, only.function) == (mode, function.lower())
    assert found.sql == f'select * from "{function.lower()}:1".{function.lower()} v'


def test_searches_of_all_kinds_stand_side_by_side() -> None:
    sql = "select 1 from text_search('a', ?) t, vector_search('b', ?) v, hybrid_search('c', ?) h"
    found = rewritten(sql, json.dumps(["x", [1, 2], "y"]))
    assert [(one.slot, one.mode.value) for one in found.calls] == [
        ("text_search:1", "text"),
        ("vector_search:2", "vector"),
        ("hybrid_search:3", "hybrid"),
    ]
    assert [one.query for one in found.calls] == ["x", (1.0, 2.0), "y"]


@pytest.mark.parametrize(
    "call",
    [
        "text_search('docs', [1, 2])",
        "hybrid_search('docs', [1, 2])",
        "text_search('docs', 'red', exact => true)",
        "text_search('docs', 'red', ef => 7)",
        "hybrid_search('docs', title)",
        "text_search('docs')",
    ],
)
def test_what_words_do_not_take_is_refused_by_name(call: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        rewritten(f"select * from {call}", "")
    assert caught.value.kind is ErrorKind.INVALID
    function = call[: call.index("(")]
    assert caught.value.fields["function"] == function
    assert str(caught.value.fields["hint"]).startswith(f"write {function}(")
