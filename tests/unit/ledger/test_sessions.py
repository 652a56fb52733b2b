"""Which objects a commit may name."""

from __future__ import annotations

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.sessions import (
    Objects,
    check_version,
    close_session,
    condemn,
    dump_objects,
    forget,
    load_objects,
    may_add,
    open_session,
)

KEY = "datasets/s1/d/1.parquet"


def conflict(call: object, *arguments: object) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        call(*arguments)  # type: ignore[operator]
    assert caught.value.kind is ErrorKind.CONFLICT
    return caught.value


def test_only_a_live_session_or_a_retained_version_lets_an_object_in() -> None:
    objects = open_session(Objects(), "s1", 1)
    may_add(objects, [KEY])
    ended = close_session(objects, "s1")
    assert conflict(may_add, ended, [KEY]).fields["keys"] == [KEY]
    may_add(ended, [KEY], lambda key: key == KEY)
    may_add(objects, [KEY])  # the older value is untouched


def test_a_condemned_object_never_comes_back() -> None:
    ended = close_session(open_session(Objects(), "s1", 1), "s1")
    given_up = condemn(ended, [KEY], 5, 9)
    conflict(may_add, given_up, [KEY], lambda key: True)
    assert dict(given_up.condemned) == {KEY: 9}
    assert dict(forget(given_up, [KEY]).condemned) == {}
    conflict(may_add, forget(given_up, [KEY]), [KEY])


def test_objects_of_a_live_session_cannot_be_condemned() -> None:
    objects = open_session(Objects(), "s1", 1)
    assert conflict(condemn, objects, [KEY], 1, 2).fields["session"] == "s1"


def test_the_horizon_never_falls() -> None:
    objects = condemn(Objects(), [], 7, 8)
    assert condemn(objects, [], 3, 9).horizon == 7
    check_version(objects, 7)
    with pytest.raises(LakehouseError) as caught:
        check_version(objects, 6)
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_sessions_open_once_and_end_quietly() -> None:
    objects = open_session(Objects(), "s1", 1)
    conflict(open_session, objects, "s1", 2)
    assert close_session(objects, "s2") is objects


def test_a_key_without_a_session_is_invalid() -> None:
    with pytest.raises(LakehouseError, match="names no session"):
        may_add(Objects(), ["store.json"])


def test_tables_hold_all_of_it() -> None:
    objects = condemn(open_session(open_session(Objects(), "a", 1), "b", 2), [KEY], 4, 6)
    assert load_objects(dump_objects(objects)) == objects
    assert load_objects(dump_objects(Objects())) == Objects()
