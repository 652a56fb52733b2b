"""Examples of bodies and answers about vectors and profiles, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

JsonObject = dict[str, Any]

_AT: Final = "2026-11-21T09:30:00Z"
_ID: Final = "01K5ZC1GQ0XW5T1T9Q0R8M7A2B"
_SHA: Final = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_TEXT: Final = "The roof leaks where the chimney meets it."

PROFILE: Final[JsonObject] = {
    "name": "default",
    "model": "all-minilm",
    "dimensions": 0,
    "chunking": {"method": "sentences", "size": 150, "overlap": 20},
    "distance": "cosine",
    "vector_backend": "parquet",
    "bucket": "",
    "hnsw_m": 16,
    "ef_construction": 100,
    "ef_search": 0,
    "exact_rows_max": 5000,
    "description": "",
    "builtin": True,
}
PUT_PROFILE: Final[JsonObject] = {
    "model": "all-minilm",
    "vector_backend": "lance",
    "chunking": {"method": "tokens", "size": 120, "overlap": 20},
}
PROFILE_RESULT: Final[JsonObject] = {
    "profile": {**PROFILE, **PUT_PROFILE, "name": "tickets", "builtin": False},
    "version": 817,
    "created": True,
    "changed": True,
}
FOUND_PROFILE: Final[JsonObject] = {
    "profile": PROFILE,
    "version": 0,
    "created": False,
    "changed": False,
}
PROFILES: Final[JsonObject] = {"profiles": [PROFILE], "version": 817}

CREATE_INDEX: Final[JsonObject] = {
    "name": "tickets",
    "dataset": "tickets",
    "columns": ["title", "body"],
    "profile": "default",
}
_VERSION: Final[JsonObject] = {
    "number": 1,
    "state": "ready",
    "profile": PROFILE,
    "model": "all-minilm",
    "model_digest": _SHA,
    "dimensions": 384,
    "vectors_dataset": "vectors.tickets.v1",
    "vectors_dataset_id": _ID,
    "created_at": _AT,
    "canary_sha256": _SHA,
    "source_version": 812,
    "documents": 20000,
    "chunks": 21873,
    "documents_done": 20000,
    "documents_total": 20000,
    "embedded_texts": 21873,
    "ready_at": _AT,
    "error": "",
    "structures": [
        {
            "kind": "hnsw",
            "key": f"_vectors/{_ID}/{_ID}/{_ID}.hnsw",
            "rows": 21873,
            "size_bytes": 37_610_200,
            "sha256": _SHA,
            "labels_key": f"_vectors/{_ID}/{_ID}/{_ID}.parquet",
            "labels_sha256": _SHA,
            "lance_version": 0,
            "bucket": "primary",
            "seq": 812,
            "recall": 0.996,
        }
    ],
    "cut_over": True,
    "comparison": None,
}
INDEX: Final[JsonObject] = {
    "name": "tickets",
    "dataset": "tickets",
    "dataset_id": _ID,
    "columns": ["title", "body"],
    "profile": "default",
    "live": 1,
    "previous": 0,
    "versions": [_VERSION],
    "created_at": _AT,
    "version": 815,
    "behind": False,
    "building": False,
    "created": False,
    "store_version": 816,
}
_STARTED: Final[JsonObject] = {
    **_VERSION,
    "state": "building",
    "source_version": 0,
    "documents": 4096,
    "chunks": 4480,
    "documents_done": 4096,
    "embedded_texts": 4480,
    "ready_at": None,
    "structures": [],
}
BUILDING: Final[JsonObject] = {
    **INDEX,
    "live": 0,
    "versions": [_STARTED],
    "building": True,
    "created": True,
}
INDEXES: Final[JsonObject] = {"indexes": [INDEX], "version": 816, "next": None}
BUILD: Final[JsonObject] = {"profile": "tickets", "wait_seconds": 30}
CUT_OVER: Final[JsonObject] = {"number": 0}
DELETED_INDEX: Final[JsonObject] = {"name": "tickets", "version": 817, "versions_deleted": 1}

SEARCH: Final[JsonObject] = {
    "index": "tickets",
    "text": "water comes through the ceiling",
    "k": 5,
    "filter": "status = 'open'",
    "mode": "hybrid",
}
HITS: Final[JsonObject] = {
    "index": "tickets",
    "number": 1,
    "model": "all-minilm",
    "backend": "parquet",
    "served_by": "hnsw+bm25",
    "source_version": 812,
    "behind": False,
    "version": 816,
    "embed_ms": 3.9,
    "search_ms": 0.4,
    "mode": "hybrid",
    "degraded": False,
    "degraded_reason": "",
    "retrieval_id": _ID,
    "hits": [
        {
            "key": [7],
            "score": 0.0325,
            "chunk": 0,
            "span": [0, len(_TEXT)],
            "text": _TEXT,
            "version": 812,
            "stages": [
                {"stage": "vector", "rank": 1, "score": 0.61},
                {"stage": "text", "rank": 3, "score": 4.2},
                {"stage": "fusion", "rank": 1, "score": 0.0325},
            ],
            "index": "",
        }
    ],
}

COMPARE: Final[JsonObject] = {
    "first": 1,
    "second": 2,
    "queries": ["water comes through the ceiling"],
    "relevant": [[[7]]],
    "k": 10,
}
_FIGURES: Final[JsonObject] = {
    "number": 1,
    "backend": "parquet",
    "model": "all-minilm",
    "chunks": 21873,
    "recall": 0.994,
    "p50_ms": 0.31,
    "p99_ms": 0.72,
    "relevant_found": 1.0,
}
COMPARED: Final[JsonObject] = {
    "name": "tickets",
    "k": 10,
    "queries": 1,
    "first": _FIGURES,
    "second": {**_FIGURES, "number": 2, "backend": "lance", "recall": 0.981, "p50_ms": 2.9},
    "overlap": 0.98,
    "version": 816,
}

PUT_VECTORS: Final = [{"id": "a", "vector": [0.1, -0.2, 0.3], "text": "what it stands for"}]
IDS: Final = ["a", "b"]
PUT_REPORT: Final[JsonObject] = {
    "index": "faces",
    "version": 817,
    "inserted": 1,
    "updated": 0,
    "deleted": 0,
    "missing": 0,
    "no_op": False,
}
DELETED_VECTORS: Final[JsonObject] = {**PUT_REPORT, "inserted": 0, "deleted": 1, "missing": 1}
VECTORS: Final[JsonObject] = {
    "vectors": [
        {
            "key": [7],
            "chunk": 0,
            "span": [0, len(_TEXT)],
            "text": _TEXT,
            "version": 812,
            "vector": [0.1, -0.2, 0.3],
        }
    ],
    "missing": [[8]],
    "number": 1,
    "version": 816,
}
