"""Statistics as an object: what was written once is read for ever."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import ColumnStats
from lakehouse.table.statsfile import decode_stats, encode_stats

GOLDEN = Path(__file__).parents[2] / "golden" / "formats" / "v1" / "stats.parquet"
WRITTEN = (
    ColumnStats(1, 0, "-5", "12"),
    ColumnStats(2, 3, "", "zo\u00eb\U0010ffff"),
    ColumnStats(7, None, None, None),
)
TEXTS = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
STATS = st.builds(
    ColumnStats, st.integers(1, 2**31 - 1), st.none() | st.integers(0, 2**53), TEXTS, TEXTS
)


@given(st.lists(STATS, max_size=8).map(tuple))
def test_what_is_written_is_read(stats: tuple[ColumnStats, ...]) -> None:
    data = encode_stats(stats)
    assert decode_stats(data) == stats
    assert encode_stats(stats) == data


def test_the_bytes_of_format_1_are_read() -> None:
    assert decode_stats(GOLDEN.read_bytes()) == WRITTEN


def test_any_reader_of_parquet_reads_them() -> None:
    table = pq.read_table(io.BytesIO(encode_stats(WRITTEN)))
    assert table.column_names == ["column_id", "null_count", "minimum", "maximum"]
    assert table.column("maximum").to_pylist() == [one.maximum for one in WRITTEN]


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"no parquet at all", b"\0" * 400])
def test_other_bytes_are_corrupt(damage: bytes) -> None:
    with pytest.raises(LakehouseError) as caught:
        decode_stats(damage)
    assert caught.value.kind is ErrorKind.CORRUPT


def test_every_cut_is_corrupt() -> None:
    data = encode_stats(WRITTEN)
    for end in range(0, len(data) - 1, 7):
        with pytest.raises(LakehouseError):
            decode_stats(data[:end])
