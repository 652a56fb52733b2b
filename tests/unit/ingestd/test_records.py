"""Record boundaries: blocks of any size cut a CSV where a reader of the whole would."""

from __future__ import annotations

import csv
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.ingestd.records import UNCLOSED, Grammar, pieces, spans

CELLS = st.text(st.sampled_from('ab",\n\r\\5 '), max_size=5)


def records(data: bytes, grammar: Grammar) -> list[bytes]:
    return [data[span.start : span.end] for span in spans(data, grammar)]


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=12),
    block=st.integers(1, 40),
    stray=st.booleans(),
)
def test_blocks_hold_whole_records(rows: list[list[str]], block: int, stray: bool) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    text = 'x,5" pipe\n' + written.getvalue() if stray else written.getvalue()
    data = text.encode()
    grammar = Grammar()
    found = list(pieces(io.BytesIO(data), grammar, block, 10_000))
    assert b"".join(piece.data for piece in found) == data
    assert not any(piece.fault for piece in found)
    apart = [one for piece in found for one in records(piece.data, grammar)]
    assert apart == records(data, grammar)
    assert len(apart) == len(rows) + stray


@settings(max_examples=300, deadline=None)
@given(
    data=st.text(st.sampled_from('a",\n\r\\'), max_size=60).map(str.encode),
    block=st.integers(1, 20),
    limit=st.integers(8, 30),
    escape=st.sampled_from(["", "\\"]),
)
def test_nothing_is_lost_whatever_comes(data: bytes, block: int, limit: int, escape: str) -> None:
    found = list(pieces(io.BytesIO(data), Grammar(escape=escape), block, limit))
    if found and found[-1].fatal:
        whole = b"".join(piece.data for piece in found[:-1])
        assert data[len(whole) :].startswith(found[-1].data)
    else:
        assert b"".join(piece.data for piece in found) == data
    assert all(piece.fault in ("", UNCLOSED) or piece.fatal for piece in found)
