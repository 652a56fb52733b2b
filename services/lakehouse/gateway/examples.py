"""Examples of bodies and answers for the OpenAPI document; a test checks them against it."""

from __future__ import annotations

from typing import Any, Final

JsonObject = dict[str, Any]

_AT: Final = "2026-11-21T09:30:00Z"
_ID: Final = "01K5ZC1GQ0XW5T1T9Q0R8M7A2B"
_PRINT: Final = "fp1:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_SHA: Final = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_COLUMNS: Final = [
    {"id": 1, "name": "id", "type": "string"},
    {"id": 2, "name": "age", "type": "int64"},
]

CARD: Final[JsonObject] = {
    "owner": "crm team",
    "description": "Everybody who ever wrote to us",
    "sensitivity": "confidential",
    "tags": ["crm"],
    "lineage": {"source_system": "crm", "ingest": "http", "inputs": []},
    "freshness_sla_seconds": 86400,
}
DATASET: Final[JsonObject] = {
    "name": "people",
    "id": _ID,
    "status": "live",
    "version": 812,
    "store_version": 815,
    "row_count": 1200,
    "files": 1,
    "size_bytes": 48211,
    "schema": _COLUMNS,
    "schema_id": 1,
    "fingerprint": _PRINT,
    "primary_key": ["id"],
    "card": {**CARD, "pii": [], "detected": ["sensitivity"]},
    "bucket": "primary",
    "created_at": _AT,
    "updated_at": _AT,
    "created": False,
    "rows_version": 812,
    "history_since": 790,
}
DATASETS: Final[JsonObject] = {"datasets": [DATASET], "version": 815, "next": None}
REGISTER: Final[JsonObject] = {
    "name": "orders",
    "objects": [{"key": "exports/orders.parquet", "bucket": "primary"}],
    "card": {"owner": "shop team", "description": "Orders, one row each"},
}
PATCH: Final[JsonObject] = {"owner": "crm team", "tags": ["crm", "daily"]}
DROPPED: Final[JsonObject] = {"dataset": "people", "purged": False, "version": 816}
SCHEMA: Final[JsonObject] = {
    "dataset": "people",
    "schema_id": 1,
    "fingerprint": _PRINT,
    "columns": _COLUMNS,
    "primary_key": ["id"],
    "version": 815,
}
LINEAGE: Final[JsonObject] = {
    "dataset": "people",
    "lineage": {"source_system": "crm", "ingest": "http", "inputs": []},
    "owner": "crm team",
    "updated_at": _AT,
    "version": 815,
}
VERSIONS: Final[JsonObject] = {
    "dataset": "people",
    "versions": [
        {
            "version": 812,
            "at": _AT,
            "operation": "create",
            "actor": "local",
            "request_id": _ID,
            "rows_added": 1200,
            "rows_removed": 0,
            "files_added": 1,
            "files_removed": 0,
            "row_count": 1200,
            "schema_id": 1,
            "content_digest": _SHA,
            "source": "http",
        }
    ],
    "version": 815,
    "next": None,
}
HISTORY: Final[JsonObject] = {
    "dataset": "people",
    "history": [
        {
            "version": 812,
            "at": _AT,
            "actor": "local",
            "operation": "create",
            "summary": ("create by local: 1200 rows and 1 files added, 0 rows and 0 files removed"),
            "source": "http",
            "request_id": _ID,
        }
    ],
    "version": 815,
    "next": None,
}
FILES: Final[JsonObject] = {
    "dataset": "people",
    "files": [
        {
            "key": f"datasets/{_ID}/{_ID}/{_ID}.parquet",
            "size_bytes": 48211,
            "rows": 1200,
            "sha256": _SHA,
            "bucket": "primary",
            "schema_id": 1,
            "rows_hash": "rh1:9f86d081884c7d65",
            "external": False,
            "ordinal": 1,
            "content": "rows",
            "seq": 2,
            "encryption": "",
            "stats": [{"column_id": 2, "null_count": 0, "minimum": "18", "maximum": "97"}],
        }
    ],
    "version": 815,
    "next": None,
}
DEDUPE: Final[JsonObject] = {
    "plan": _SHA,
    "applied": False,
    "groups": [
        {
            "name": "people",
            "kept_id": _ID,
            "dropped_ids": ["01K5ZC1GQ0XW5T1T9Q0R8M7A2C"],
            "files_conserved": 1,
            "rows_conserved": 12,
            "reason": "has a row count",
        }
    ],
    "skipped": [],
    "datasets_before": 12,
    "datasets_after": 11,
    "version": 815,
}
FSCK: Final[JsonObject] = {
    "plan": _SHA,
    "applied": False,
    "findings": [
        {"kind": "dangling", "dataset": "people", "key": "datasets/a/b.parquet", "detail": ""}
    ],
    "objects_checked": 11,
    "bytes_checked": 0,
    "quarantined": [],
    "version": 815,
}
COLLECT: Final[JsonObject] = {
    "plan": _SHA,
    "applied": False,
    "horizon": 700,
    "objects": ["datasets/a/b/c.parquet"],
    "size_bytes": 48211,
    "records_packed": 32,
    "version": 815,
}
IMPORT: Final[JsonObject] = {
    "datasets": [
        {
            "name": "legacy_orders",
            "keys": ["exports/legacy_orders.parquet"],
            "row_count": 1200,
            "updated_at": _AT,
        }
    ]
}
IMPORTED: Final[JsonObject] = {"imported": 1, "duplicates": 0, "version": 816}
BUCKET: Final[JsonObject] = {
    "name": "client_eu",
    "bucket_class": "tenant",
    "url": "s3://client-eu/lake",
    "reachable": True,
    "requests": 93,
    "bytes_read": 120311,
    "bytes_written": 48211,
    "last_error": "",
    "last_error_at": None,
    "endpoint": "https://s3.eu.example",
    "region": "eu-central-1",
    "residency": "eu",
    "secret_ref": "env:CLIENT_EU",
    "origin": "operator",
    "breaker": "closed",
    "latency_ms": 11.8,
    "in_flight": 0,
    "failures": 0,
    "retries": 0,
    "unavailable_since": None,
    "probe": None,
}
BUCKETS: Final[JsonObject] = {
    "buckets": [BUCKET],
    "rescue": {
        "bucket": "rescue",
        "objects": 1200,
        "copied": 1198,
        "excluded": 0,
        "lag_seconds": 2.5,
        "verified": 64,
        "damaged": 0,
        "deletions": 3,
        "served": 0,
        "last_error": "",
    },
}
ADD_BUCKET: Final[JsonObject] = {
    "name": "client_eu",
    "url": "s3://client-eu/lake",
    "endpoint": "http://127.0.0.1:9000",
    "region": "eu-central-1",
    "residency": "eu",
    "secret_ref": "env:CLIENT_EU",
}
REMOVED_BUCKET: Final[JsonObject] = {"name": "client_eu", "removed": True}
ERRORS: Final[JsonObject] = {
    "errors": [
        {
            "id": _ID,
            "at": _AT,
            "bucket": "client_eu",
            "operation": "get",
            "key": f"datasets/{_ID}/{_ID}/{_ID}.parquet",
            "error_kind": "unavailable",
            "reason": "the store is not available",
            "http_status": 503,
            "store_request_id": "4442587FB7D0A2F9",
            "latency_ms": 31.4,
            "op_id": _ID,
            "attempt": 3,
            "final": True,
            "outcome": "rescued",
            "sent": True,
            "actor": "crm team",
            "request_id": _ID,
        }
    ],
    "counts": [
        {
            "bucket": "client_eu",
            "operation": "get",
            "error_kind": "unavailable",
            "attempts": 3,
            "operations": 1,
        }
    ],
    "dropped": 0,
    "spooled": 0,
    "primary_unavailable_since": None,
    "complete": True,
    "next": None,
    "journal_failures": 0,
}
PROBE: Final[JsonObject] = {
    "bucket": "primary",
    "url": "file:./data/primary",
    "passed": True,
    "checks": [{"name": "put_if_absent", "passed": True, "detail": "refused", "elapsed_ms": 1.2}],
}
INGEST: Final[JsonObject] = {
    "dataset": "people",
    "version": 812,
    "rows": 1200,
    "files": 1,
    "no_op": False,
    "created": True,
    "dead_letters": 0,
    "dead_letter_dataset": "",
    "schema": _COLUMNS,
    "warnings": [
        {
            "code": "widened",
            "message": "age has values that are no number",
            "column": "age",
            "line": 17,
            "count": 3,
        }
    ],
    "content_digest": _SHA,
    "format": "csv",
    "mode": "auto",
    "bytes_read": 51200,
    "elapsed_ms": 18.4,
    "dry_run": False,
    "sample": None,
    "inserted": 0,
    "updated": 0,
    "deleted": 0,
    "unchanged": 0,
}
SQL: Final[JsonObject] = {
    "sql": "select count(*) as n from people where age > ?",
    "params": [30],
    "engine": "auto",
    "as_of": 812,
}
RESULT: Final[JsonObject] = {
    "columns": ["n"],
    "types": ["int64"],
    "rows": [[700]],
    "versions": {"people": 812},
    "served_from": [],
    "engine": "duckdb",
    "elapsed_ms": 3.1,
}
RUNNING: Final[JsonObject] = {
    "queries": [
        {
            "query_id": _ID,
            "sql": "select 1",
            "actor": "local",
            "engine": "duckdb",
            "started_at": _AT,
            "elapsed_ms": 12.5,
            "rows": 0,
            "state": "running",
        }
    ]
}
CANCELLED: Final[JsonObject] = {"query_id": _ID, "cancelled": True}
_TOKEN_INFO: Final[JsonObject] = {
    "id": _ID,
    "name": "nightly export",
    "scopes": ["read"],
    "created_at": _AT,
    "created_by": "local",
    "expires_at": None,
}
TOKENS: Final[JsonObject] = {"tokens": [_TOKEN_INFO]}
TOKEN: Final[JsonObject] = {**_TOKEN_INFO, "token": f"lh_{_ID}.<secret>"}
TOKEN_REQUEST: Final[JsonObject] = {"name": "nightly export", "scopes": ["read"]}
REVOKED: Final[JsonObject] = {"id": _ID, "version": 816}
_ETAG: Final = "9e107d9d372bb6826bd81d3542a419d6"
STORED: Final[JsonObject] = {
    "bucket": "primary",
    "key": "inbox/people.csv",
    "size_bytes": 51200,
    "etag": _ETAG,
    "sha256": _SHA,
    "replayed": False,
}
OBJECTS: Final[JsonObject] = {
    "bucket": "primary",
    "prefix": "inbox/",
    "objects": [
        {"key": "inbox/people.csv", "size_bytes": 51200, "etag": _ETAG, "modified_at": _AT}
    ],
    "folders": ["inbox/2026/"],
    "next": None,
}
