"""Which format an Accept header asks for."""

from __future__ import annotations

import pytest

from lakehouse.contracts.ingest import SourceFormat
from lakehouse.contracts.query import ResultFormat
from lakehouse.errors import LakehouseError
from lakehouse.gateway.accepts import RESULT_TYPES, compression, result_format, source_format


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "json"),
        ("", "json"),
        ("*/*", "json"),
        ("application/*", "json"),
        ("application/json", "json"),
        ("text/csv", "csv"),
        ("TEXT/CSV", "csv"),
        ("text/*", "csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "json"),
        ("application/x-ndjson", "ndjson"),
        ("application/vnd.apache.parquet", "parquet"),
        ("application/vnd.apache.arrow.stream, application/json;q=0.1", "arrow"),
        ("application/json;q=0.5, text/csv;q=0.9", "csv"),
        ("application/json;q=0, */*", "ndjson"),
        ("text/csv;header=absent", "csv"),
    ],
)
def test_the_best_offered_format_is_taken(accept: str | None, expected: str) -> None:
    assert result_format(accept) is ResultFormat(expected)


@pytest.mark.parametrize(
    "accept", ["image/png", "text/html", "*/*;q=0", "application/json;q=0", "json", "text/csv;q=x"]
)
def test_nothing_acceptable_is_406(accept: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        result_format(accept)
    assert caught.value.http_status == 406


def test_every_result_format_has_a_type_that_asks_for_it() -> None:
    assert set(RESULT_TYPES) == set(ResultFormat)
    for wanted, media_type in RESULT_TYPES.items():
        assert result_format(media_type.partition(";")[0]) is wanted


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("", "auto"),
        ("application/octet-stream", "auto"),
        ("text/csv", "csv"),
        ("text/tab-separated-values", "tsv"),
        ("application/json", "json"),
        ("application/x-ndjson", "ndjson"),
        ("application/vnd.apache.parquet", "parquet"),
        ("application/vnd.apache.arrow.file", "arrow"),
    ],
)
def test_media_types_name_file_formats(media_type: str, expected: str) -> None:
    assert source_format(media_type) is SourceFormat(expected)


@pytest.mark.parametrize(
    ("stated", "expected"), [(None, ""), ("identity", ""), ("GZIP", "gzip"), ("zstd", "zstd")]
)
def test_encodings_name_compressions(stated: str | None, expected: str) -> None:
    assert compression(stated) == expected
