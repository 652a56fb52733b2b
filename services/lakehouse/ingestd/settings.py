"""What ingestd may use, and the limits that keep one file from taking the machine down."""

from __future__ import annotations

from dataclasses import dataclass

from lakehouse.ingestd.compaction.settings import CompactionSettings

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Limits of one ingest unless said otherwise; a file beyond one is ``invalid`` and says which.

    Attributes:
        spool_dir: local folder for bodies and files under way; emptied at start and stop.
        writer: who opens the session at the catalog, for people.
        concurrent_max: ingests at work at once; ``queued_max`` more wait, then ``exhausted``.
        threads: parsing threads of one ingest; 0 means one a core, at most 4.
        body_bytes_max: of the bytes as sent; ``spool_bytes_max`` of all ingests together.
        decoded_bytes_max: after decompression; ``ratio_max`` is decoded to sent, looked at beyond
            ``ratio_free_bytes`` decoded.
        record_bytes_max: one CSV record or one JSON value of an array or line.
        file_bytes_target: a Parquet file is closed when it is this large.
        cache_bytes_max: of verified copies of objects that are read for row changes.
        decoded_cache_bytes_max: of their row groups, decoded for finding rows by key, on disk.
        changes_memory_bytes_max: of row changes that were read, in memory.
        keyed_bytes_max: of the rows and keys that one change of a dataset with a primary key holds
            in memory at a time, decoded; what cannot be done within it is ``exhausted``.
        compaction_files: a dataset with so many objects of row changes is to be compacted.
        upload_whole_bytes_max: smaller files are one PUT, larger ones are streamed in parts.
        compaction: of upkeep; a section of its own in files.
    """

    spool_dir: str = "./data/spool"
    writer: str = "ingestd"
    concurrent_max: int = 2
    queued_max: int = 64
    threads: int = 0
    body_bytes_max: int = 64 * _GIB
    spool_bytes_max: int = 256 * _GIB
    decoded_bytes_max: int = 256 * _GIB
    ratio_max: int = 1_000
    ratio_free_bytes: int = 128 * _MIB
    rows_max: int = 10_000_000_000
    columns_max: int = 4_096
    record_bytes_max: int = 16 * _MIB
    json_depth_max: int = 64
    block_bytes: int = 8 * _MIB
    row_group_rows: int = 131_072
    row_group_bytes: int = 64 * _MIB
    file_bytes_target: int = 192 * _MIB
    upload_whole_bytes_max: int = 8 * _MIB
    cache_bytes_max: int = 8 * _GIB
    decoded_cache_bytes_max: int = 8 * _GIB
    changes_memory_bytes_max: int = 256 * _MIB
    keyed_bytes_max: int = 512 * _MIB
    compaction_files: int = 64
    heartbeat_seconds: float = 10.0
    session_seconds: float = 3_600.0
    compaction: CompactionSettings = CompactionSettings()
