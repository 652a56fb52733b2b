"""Tables to Parquet bytes and back, the same bytes for the same table."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

_COMPRESSED_BYTES_MIN: Final = 16 * 1024


def to_parquet(table: pa.Table, metadata: dict[str, str] | None = None) -> bytes:
    """``table`` as one Parquet file; ``metadata`` becomes key-value pairs of its schema."""
    import pyarrow.parquet as pq

    if metadata is not None:
        table = table.replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    big = table.nbytes >= _COMPRESSED_BYTES_MIN
    pq.write_table(
        table,
        sink,
        compression="zstd" if big else "none",
        use_dictionary=big,
        write_page_checksum=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_parquet(data: bytes) -> pa.Table:
    """The table in ``data``, whose checksum the caller has verified."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    return file.read(use_threads=False)
