"""Which texts are of which type, and that no value is altered on the way."""

from __future__ import annotations

import random
import struct

import pyarrow as pa
import pytest

from lakehouse.table.infer import Guess, guess_text, join, read_text
from lakehouse.table.types import from_arrow

SEED = 20_261_121


def kind(*texts: str) -> str:
    return from_arrow(guess_text(pa.array(texts, pa.string())).type)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "-2", "", "0"], "int64"),
        (["9223372036854775807", "-9223372036854775808"], "int64"),
        (["9223372036854775808"], "string"),
        (["007", "8"], "string"),
        (["-07"], "string"),
        (["-0"], "float64"),
        (["+49301234567"], "string"),
        (["0x10"], "string"),
        (["1_000"], "string"),
        (["1,5"], "string"),
        (["123", "N/A", ""], "string"),
        (["1.10", "2"], "float64"),
        ([".5", "5.", "1e5", "-1.5E-3"], "float64"),
        (["00.5"], "string"),
        (["1e400"], "string"),
        (["1e-400"], "string"),
        (["4.94065645841247e-324"], "string"),
        (["0.0", "0e0"], "float64"),
        (["nan"], "string"),
        (["inf", "1.5"], "string"),
        (["0.1234567890123456789"], "string"),
        (["0.30000000000000004"], "float64"),
        (["1.0000000000000000000"], "float64"),
        (["9007199254740993", "1.5"], "string"),
        (["9007199254740992", "1.5"], "float64"),
        (["true", "FALSE", "True"], "bool"),
        (["true", "yes"], "string"),
        (["true", "1"], "string"),
        (["2020-02-29", "0001-01-01"], "date"),
        (["2019-02-29"], "string"),
        (["01/02/2020"], "string"),
        (["2020-1-2"], "string"),
        (["2020-01-02", "2020-01-02 10:00"], "string"),
        (["2020-01-02 10:00", "2020-01-02T10:00:00.123456"], "timestamp"),
        (["2020-01-02 10"], "string"),
        (["2020-01-02T10:00:00.1234567"], "string"),
        (["2020-01-02T10:00Z", "2020-01-02 10:00:00+05:30"], "timestamptz"),
        (["2020-01-02T10:00Z", "2020-01-02T10:00"], "string"),
        (["10:00"], "string"),
        ([" 1", "2 "], "int64"),
        ([" 007"], "string"),
        (["", ""], "string"),
        ([], "string"),
    ],
)
def test_texts_have_the_stated_type(texts: list[str], expected: str) -> None:
    assert kind(*texts) == expected


def test_empty_is_null_where_it_is_no_text() -> None:
    texts = pa.array(["1", "", None])
    assert read_text(texts, "int64").to_pylist() == [1, None, None]  # type: ignore[union-attr]
    assert read_text(texts, "string").to_pylist() == ["1", "", None]  # type: ignore[union-attr]
    nulls = read_text(pa.array(["1", "-"]), "int64", ("", "-"))
    assert nulls is not None
    assert nulls.to_pylist() == [1, None]


def test_floats_come_back_bit_by_bit() -> None:
    print("seed", SEED)
    rng = random.Random(SEED)
    values = [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(20_000)]
    values = [v for v in values if v == v and 1e-300 < abs(v) < 1e300]
    read = read_text(pa.array([repr(v) for v in values]), "float64")
    assert read is not None
    assert read.to_pylist() == values


def test_decimals_of_fifteen_digits_come_back() -> None:
    print("seed", SEED)
    rng = random.Random(SEED)
    texts = [f"{rng.randrange(10**15) / 10 ** rng.randrange(10):.15g}" for _ in range(5_000)]
    read = read_text(pa.array(texts), "float64")
    assert read is not None
    assert [f"{value:.15g}" for value in read.to_pylist()] == texts


TYPES = [
    Guess(),
    Guess(pa.int64(), True),
    Guess(pa.int64(), False),
    Guess(pa.float64()),
    Guess(pa.bool_()),
    Guess(pa.date32()),
    Guess(pa.string()),
    Guess(pa.list_(pa.int64())),
    Guess(pa.list_(pa.null())),
    Guess(pa.struct([("a", pa.int64())])),
    Guess(pa.struct([("b", pa.null())])),
]


@pytest.mark.parametrize("a", TYPES)
@pytest.mark.parametrize("b", TYPES)
def test_join_is_symmetric_and_holds_both(a: Guess, b: Guess) -> None:
    both = join(a, b)
    if not pa.types.is_struct(both.type):
        assert both == join(b, a)
    for c in TYPES:
        left, right = join(both, c), join(a, join(b, c))
        assert left.type == right.type or {left.type, right.type} <= {pa.float64(), pa.string()}
    assert join(both, a).type == both.type
