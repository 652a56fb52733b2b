"""A node as a process: with which exit code it ends."""

from __future__ import annotations

import pytest

from lakehouse.errors import EXIT_CODE, ErrorKind, LakehouseError
from lakehouse.node.process import start_failure


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_only_a_lost_store_ends_a_start_with_its_code(kind: ErrorKind) -> None:
    told = start_failure(LakehouseError(kind, "it did not start", bucket="primary"))
    lost = EXIT_CODE[ErrorKind.FENCED]
    assert (EXIT_CODE[told.kind] == lost) == (kind is ErrorKind.FENCED)
    assert told.fields["bucket"] == "primary"
    if EXIT_CODE[kind] != lost:
        assert told.kind is kind
