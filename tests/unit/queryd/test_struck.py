"""What a log shows of a statement: no value of it, whatever it is written as."""

from __future__ import annotations

import pytest

from lakehouse.queryd.struck import SHOWN_MAX, struck

CASES = {
    "select * from people where name = 'Ann' and id = 7": (
        "select * from people where name = ? and id = ?"
    ),
    "select 'it''s', E'a\\'b', 1.5e10, .5, x1, t2.c3": "select ?, ?, ?, .?, x1, t2.c3",
    "select 1 -- secret\n from t": "select ? from t",
    "select /* secret */ 1 from t": "select ? from t",
    'select "it\'s 5" from "7 lakes"': 'select "it\'s 5" from "7 lakes"',
    "select $$secret$$, $tag$ se'cret $tag$, $1": "select ?, ?, $1",
    "select 'secret": "select ?",
    "select /* secret": "select",
    "select $$secret": "select ?",
    "select name from été where ß = 'secret'": "select name from été where ß = ?",
}


@pytest.mark.parametrize("sql", CASES)
def test_values_and_comments_are_struck_out(sql: str) -> None:
    assert struck(sql) == CASES[sql]
    assert "secret" not in struck(sql)


def test_it_is_one_line_and_bounded() -> None:
    assert "\n" not in struck("select\n a\n from\n t")
    assert len(struck("select " + "column_of_some_length, " * 100_000)) <= SHOWN_MAX
    # A text that is cut off in its middle is struck out too.
    assert "a" * 20 not in struck("select '" + "a" * 1_000_000)
