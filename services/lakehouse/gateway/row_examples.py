"""Examples of bodies and answers about rows and their past, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

import orjson

JsonObject = dict[str, Any]

_AT: Final = "2026-11-21T09:30:00Z"
_ID: Final = "01K5ZC1GQ0XW5T1T9Q0R8M7A2B"
_SHA: Final = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"

ROW: Final[JsonObject] = {
    "dataset": "people",
    "key": [7],
    "row": {"id": 7, "name": "Ada", "phone": "555"},
    "version": 815,
    "served_from": "table",
}
UPSERT: Final = [{"id": 7, "name": "Ada", "phone": "555"}]
KEYS: Final = [7, 8]
CHANGED: Final[JsonObject] = {
    "dataset": "people",
    "version": 816,
    "inserted": 0,
    "updated": 1,
    "deleted": 0,
    "unchanged": 0,
    "missing": 0,
    "no_op": False,
    "dry_run": False,
}
DELETED: Final[JsonObject] = {**CHANGED, "updated": 0, "deleted": 1, "missing": 1}
RESTORE: Final[JsonObject] = {"as_of": 812}
RESTORED: Final[JsonObject] = {**CHANGED, "inserted": 1, "updated": 2, "deleted": 3}
SET_KEY: Final[JsonObject] = {"columns": ["id"]}
KEY: Final[JsonObject] = {
    "dataset": "people",
    "version": 816,
    "primary_key": ["id"],
    "rows_checked": 1200,
    "no_op": False,
}
WIDEN: Final[JsonObject] = {
    "add": [{"name": "email", "type": "string"}],
    "widen": [{"name": "age", "type": "string"}],
}
WIDENED: Final[JsonObject] = {
    "dataset": "people",
    "version": 816,
    "schema": [
        {"id": 1, "name": "id", "type": "int64"},
        {"id": 2, "name": "age", "type": "string"},
        {"id": 3, "name": "email", "type": "string"},
    ],
    "differences": [
        {"name": "age", "old_type": "int64", "new_type": "string"},
        {"name": "email", "old_type": None, "new_type": "string"},
    ],
    "no_op": False,
    "dry_run": False,
}
COMPACTED: Final[JsonObject] = {
    "dataset": "people",
    "version": 816,
    "strategy": "minor",
    "files_before": 31,
    "files_after": 4,
    "size_bytes_before": 120311,
    "size_bytes_after": 52110,
    "key_files_before": 10,
    "key_files_after": 1,
    "rows": 1200,
    "rows_hash": "rh1:9f86d081884c7d65",
    "inputs": 30,
    "outputs": 3,
    "bytes_read": 72100,
    "bytes_written": 3899,
    "elapsed_ms": 41.2,
    "rebased": 0,
    "no_op": False,
    "dry_run": False,
}
_FIELD: Final[JsonObject] = {"field": "phone", "old": "444", "new": "555"}
DIFF: Final[JsonObject] = {
    "dataset": "people",
    "from_version": 812,
    "to_version": 816,
    "added": 0,
    "removed": 0,
    "changed": 1,
    "rows": [{"key": [7], "change": "changed", "fields": [_FIELD]}],
    "next": None,
}
EVENT: Final[JsonObject] = {
    "version": 816,
    "ordinal": 0,
    "at": _AT,
    "dataset": "people",
    "dataset_id": _ID,
    "kind": "update",
    "operation": "patch",
    "entity": [7],
    **_FIELD,
    "actor": "crm team",
    "source": "http",
    "workspace": "",
    "reason": "moved",
    "request_id": _ID,
    "rows": 1,
    "base_version": 812,
    "encrypted": False,
    "object_key": f"datasets/{_ID}/{_ID}/{_ID}.parquet",
    "sha256": _SHA,
}
EVENTS: Final[JsonObject] = {"events": [EVENT], "version": 816, "next": None}
FEED: Final = orjson.dumps(EVENT).decode() + "\n"
HISTORY: Final[JsonObject] = {
    "dataset": "people",
    "key": [7],
    "version": 816,
    "row": ROW["row"],
    "served_from": "table",
    "history_since": 2,
    "revisions": [
        {
            "version": 816,
            "at": _AT,
            "kind": "update",
            "operation": "patch",
            "actor": "crm team",
            "fields": [_FIELD],
            "source": "http",
            "workspace": "",
            "reason": "moved",
            "request_id": _ID,
        }
    ],
    "next": None,
}
SET_TAG: Final[JsonObject] = {"as_of": 812, "dataset": "people", "note": "books closed"}
TAG: Final[JsonObject] = {
    "tag": "march",
    "version": 812,
    "at": _AT,
    "dataset": "people",
    "note": "books closed",
    "created_by": "crm team",
    "created": True,
    "store_version": 816,
}
TAGS: Final[JsonObject] = {"tags": [{**TAG, "created": False}], "version": 816, "next": None}
