"""What a library raises over a caller's values is ``invalid``; a mistake of ours is not hidden."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd import reading
from support_ingest import Lake


@pytest.mark.parametrize(
    "error", [pa.ArrowNotImplementedError("no\nsecond line"), OverflowError("no")]
)
async def test_a_library_that_gives_up_is_invalid(
    lake: Lake, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(reading, "_convert", fail)
    with pytest.raises(LakehouseError) as caught:
        await lake.put(b"a\n1\n")
    assert caught.value.kind is ErrorKind.INVALID
    assert (caught.value.fields["format"], caught.value.fields["reason"]) == ("csv", "no")


@pytest.mark.parametrize("error", [TypeError("ours"), KeyError("ours"), AssertionError("ours")])
async def test_a_mistake_of_ours_stays_one(
    lake: Lake, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(reading, "_convert", fail)
    with pytest.raises(type(error)):
        await lake.put(b"a\n1\n")
