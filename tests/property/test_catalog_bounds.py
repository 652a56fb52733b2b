"""Whatever the rules accept, a checkpoint holds and gives back: nothing may stop the folds."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.catalogd.codec import encode_changes
from lakehouse.catalogd.internal import StoredChange
from lakehouse.catalogd.machine import CatalogMachine
from lakehouse.catalogd.rules import drafted
from lakehouse.catalogd.state import CatalogState
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.group import _canonical
from lakehouse.ledger.machine import Entry
from lakehouse.ledger.parquet import from_parquet, to_parquet
from lakehouse.model import changes as m
from lakehouse.model.dataset import Card, ColumnStats, DataFile, Lineage, PiiFinding
from lakehouse.model.schema import Column, Schema
from lakehouse.table.fingerprint import fingerprint
from support_catalog import COLUMNS, create

MACHINE = CatalogMachine()
EDGES = (0, 1, 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**60, 2**62, 2**63 - 1, 2**63, 2**64, -1)
NUMBER = st.sampled_from(EDGES) | st.integers(0, 1000)
# With lone surrogates, NUL and whatever else a caller can put into a str.
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
LONG = TEXT | st.integers(900, 70_000).map("x".__mul__)
SHARE = st.floats() | st.floats(0, 1)
STATS = st.builds(ColumnStats, NUMBER, st.none() | NUMBER, st.none() | LONG, st.none() | TEXT)
NAMED = (st.integers(0, 3) | st.integers(0, 10**9)).map(lambda n: f"datasets/s1/d1/{n}.parquet")
FILES = st.lists(
    st.builds(
        DataFile,
        NAMED,
        NUMBER,
        NUMBER,
        st.just("0" * 64),
        bucket=TEXT | st.just("primary"),
        rows_hash=TEXT | st.just("rh1:00000000000000ff"),
        ordinal=NUMBER,
        stats=st.lists(STATS, max_size=2).map(tuple),
        content=st.sampled_from(("rows", "keys", "events")) | TEXT,
        seq=NUMBER,
    ),
    max_size=3,
).map(tuple)
# As soon as there are some, a few keys name the same files again.
KEYS = st.lists(st.integers(0, 3).map(lambda n: f"datasets/s1/d1/{n}.parquet"), max_size=2)
CARDS = st.builds(
    Card,
    LONG,
    TEXT,
    tags=st.lists(TEXT, max_size=3).map(tuple),
    lineage=st.builds(Lineage, TEXT, LONG, st.lists(TEXT, max_size=2).map(tuple)),
    freshness_sla_seconds=st.none() | NUMBER,
    pii=st.lists(st.builds(PiiFinding, TEXT, TEXT, SHARE), max_size=2).map(tuple),
    detected=st.lists(TEXT, max_size=2).map(tuple),
)


def _set_schema(number: int, name: str) -> m.SetSchema:
    columns = (*COLUMNS, Column(number, name, "date"))
    try:
        stated = fingerprint(columns)
    except UnicodeEncodeError:
        stated = ""
    return m.SetSchema("d1", Schema(2, columns), stated)


CHANGES = st.lists(
    st.one_of(
        st.builds(
            m.AddFiles,
            st.just("d1"),
            FILES,
            st.booleans(),
            TEXT,
            operation=TEXT,
            source=LONG,
            workspace=TEXT,
            reason=LONG,
        ),
        st.builds(m.RewriteFiles, st.just("d1"), KEYS.map(tuple), FILES, LONG, NUMBER),
        st.builds(m.SetPrimaryKey, st.just("d1"), st.sampled_from(((), ("id",), ("id", "name")))),
        st.builds(m.SetCard, st.just("d1"), CARDS),
        st.builds(_set_schema, NUMBER, LONG),
        st.builds(m.QuarantineDataset, st.just("d1"), LONG),
        st.builds(m.PutDocument, TEXT, TEXT, TEXT | st.just('{"a": 1}')),
        st.builds(m.OpenSession, TEXT, LONG, LONG),
        st.builds(m.RenameDataset, st.just("d1"), LONG),
    ),
    min_size=1,
    max_size=4,
)


def start() -> CatalogState:
    state = MACHINE.initial()
    for changes in ([m.OpenSession("s1", "w", "ingestd")], create("d1", "one")):
        state = accepted(state, changes)
    return state


def accepted(state: CatalogState, changes: object) -> CatalogState:
    """``changes`` as a commit of a catalog takes them."""
    wanted: list[StoredChange] = list(changes)  # type: ignore[call-overload]
    seq = state.version + 1
    drafted(state, seq, wanted)
    told = tuple(_canonical(encode_changes(wanted)))
    return MACHINE.apply(state, Entry(seq, seq * 10, told))


def dumped(state: CatalogState) -> dict[str, pa.Table]:
    return {part.name: from_parquet(to_parquet(part.table)) for part in MACHINE.dump(state)}


@settings(
    max_examples=150,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(commits=st.lists(CHANGES, max_size=4))
def test_what_the_rules_accept_a_checkpoint_gives_back(
    commits: list[list[StoredChange]],
) -> None:
    state = start()
    refusals: set[ErrorKind] = set()
    for changes in commits:
        try:
            state = accepted(state, changes)
        except LakehouseError as error:
            refusals.add(error.kind)
    assert ErrorKind.CORRUPT not in refusals
    parts = dumped(state)
    again = MACHINE.load(parts)
    assert not again.broken
    assert dumped(again) == parts


def test_sums_of_many_files_are_bounded_too() -> None:
    state = start()
    refusals: set[ErrorKind] = set()
    for number in range(1100):
        file = DataFile(f"datasets/s1/d1/{number}.parquet", 2**53, 2**53, "0" * 64)
        try:
            state = accepted(state, [m.AddFiles("d1", (file,))])
        except LakehouseError as error:
            refusals.add(error.kind)
    assert refusals == {ErrorKind.INVALID}
    dumped(state)


@pytest.mark.parametrize(
    "card",
    [
        Card(tags=("x" * 10**8,)),
        Card(tags=("x",) * 10**6),
        Card(description="x" * 10**8),
        Card(lineage=Lineage(inputs=("x",) * 10**6)),
    ],
    ids=["a tag", "tags", "description", "inputs"],
)
def test_a_card_of_100_megabytes_is_invalid(card: Card) -> None:
    with pytest.raises(LakehouseError) as caught:
        accepted(start(), [m.SetCard("d1", card)])
    assert caught.value.kind is ErrorKind.INVALID
    made = replace(create("d2", "two")[0], card=card)
    with pytest.raises(LakehouseError):
        accepted(start(), [made])
