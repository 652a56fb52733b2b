"""Examples of bodies and answers about retrievals, trials, answers and memory, for the OpenAPI
document."""

from __future__ import annotations

from typing import Any, Final

import orjson

JsonObject = dict[str, Any]

_AT: Final = "2026-11-21T09:30:00Z"
_ID: Final = "01K5ZC1GQ0XW5T1T9Q0R8M7A2B"
_SHA: Final = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_TEXT: Final = "The roof leaks where the chimney meets it."
_QUESTION: Final = "water comes through the ceiling"
_SPAN: Final = [0, len(_TEXT)]
_STAGES: Final = [
    {"stage": "vector", "rank": 1, "score": 0.61},
    {"stage": "text", "rank": 3, "score": 4.2},
    {"stage": "fusion", "rank": 1, "score": 0.0323},
]
_WHERE: Final[JsonObject] = {"key": [7], "chunk": 0, "span": _SPAN, "version": 812}

_ASKED: Final[JsonObject] = {
    "id": _ID,
    "at": _AT,
    "actor": "local",
    "purpose": "search",
    "mode": "hybrid",
    "text": _QUESTION,
    "vector": "zczMPc3MTL6amZk+",
    "k": 5,
    "version": 816,
    "indexes": [
        {
            "index": "tickets",
            "number": 1,
            "profile": "default",
            "model": "all-minilm",
            "model_digest": _SHA,
            "backend": "parquet",
            "served_by": "hnsw+bm25",
            "dataset": "tickets",
            "dataset_id": _ID,
            "columns": ["title", "body"],
            "vectors_dataset": "vectors.tickets.v1",
            "vectors_dataset_id": _ID,
            "source_version": 812,
            "rows_version": 815,
            "behind": False,
            "structures": [_SHA],
        }
    ],
    "digest": _SHA,
    "filter": "status = 'open'",
    "exact": False,
    "ef": 0,
    "candidates": 100,
    "rerank": "none",
    "as_of_version": 0,
    "degraded": False,
    "degraded_reason": "",
    "record": "best_effort",
    "workspace": "",
    "source": "http",
    "request_id": _ID,
    "embed_ms": 3.9,
    "search_ms": 0.4,
    "pinned": False,
    "tags": [],
    "hits_total": 1,
}
_REF: Final[JsonObject] = {
    "rank": 1,
    **_WHERE,
    "score": 0.0323,
    "text_sha256": _SHA,
    "stages": _STAGES,
    "index": "",
}
RETRIEVAL: Final[JsonObject] = {**_ASKED, "hits": [_REF], "kept": "log", "store_version": 911}
_LISTED: Final = (
    "id at actor purpose mode text k filter degraded version digest pinned embed_ms search_ms"
    " request_id hits_total"
)
RETRIEVALS: Final[JsonObject] = {
    "retrievals": [
        {
            **{name: _ASKED[name] for name in _LISTED.split()},
            "indexes": ["tickets"],
            "top": _REF,
        }
    ],
    "version": 911,
    "next": None,
    "dropped": 0,
    "unreadable": 0,
}
REPLAY: Final[JsonObject] = {
    "id": _ID,
    "digest": _SHA,
    "same": True,
    "texts_missing": 0,
    "hits": [{**_REF, "text": _TEXT, "text_from": "vectors", "row": "changed", "row_version": 911}],
    "retrieval": _ASKED,
    "version": 911,
}
EXPLANATION: Final[JsonObject] = {
    "id": _ID,
    "steps": [
        "embedded the text with all-minilm in 3.9 ms",
        "searched tickets by meaning and by words, 100 candidates each",
        "fused both by reciprocal ranks",
    ],
    "hits": [
        {
            "rank": 1,
            "key": [7],
            "chunk": 0,
            "score": 0.0323,
            "brought_by": ["vector", "text"],
            "sentence": "first by meaning and third by words",
            "text": _TEXT,
            "stages": _STAGES,
            "index": "",
        }
    ],
    "retrieval": _ASKED,
    "version": 911,
}
PINNED: Final[JsonObject] = {
    "id": _ID,
    "pinned": True,
    "tags": [f"retrieval-{_ID}-1", f"retrieval-{_ID}-2"],
    "version": 912,
    "changed": True,
}
PIN: Final[JsonObject] = {"note": "cited in the report of March"}
UNPINNED: Final[JsonObject] = {**PINNED, "pinned": False, "tags": [], "version": 913}

PUT_EVAL: Final[JsonObject] = {
    "name": "roofs",
    "index": "tickets",
    "queries": [{"text": _QUESTION, "relevant": [[7]]}],
    "description": "what the support team finds by hand",
}
EVAL_SET: Final[JsonObject] = {
    "name": "roofs",
    "index": "tickets",
    "queries": [{"text": _QUESTION, "vector": None, "relevant": [[7]], "grades": []}],
    "created_at": _AT,
    "description": "what the support team finds by hand",
    "version": 820,
    "store_version": 820,
    "created": True,
}
EVALS: Final[JsonObject] = {
    "evals": [
        {
            "name": "roofs",
            "index": "tickets",
            "queries": 1,
            "relevant": 1,
            "created_at": _AT,
            "description": "what the support team finds by hand",
            "version": 820,
        }
    ],
    "version": 820,
    "next": None,
}
DELETED_EVAL: Final[JsonObject] = {"name": "roofs", "version": 821}
EVALUATE: Final[JsonObject] = {"modes": ["vector", "hybrid"], "k": 10}
_TRIAL: Final[JsonObject] = {
    "id": _ID,
    "run": _ID,
    "at": _AT,
    "actor": "local",
    "index": "tickets",
    "number": 1,
    "kind": "hnsw",
    "k": 10,
    "queries": 200,
    "rows": 21873,
    "m": 16,
    "ef_construction": 100,
    "ef": 64,
    "mode": "vector",
    "eval_set": "",
    "sampled": False,
    "recall": 0.993,
    "ndcg": None,
    "mrr": None,
    "relevant_recall": None,
    "p50_ms": 0.31,
    "p99_ms": 0.72,
    "build_seconds": 2.9,
    "size_bytes": 37_610_200,
    "chosen": True,
    "note": "",
    "cpu_ms": 0.29,
}
_MODE_TRIAL: Final[JsonObject] = {
    **_TRIAL,
    "kind": "mode",
    "queries": 1,
    "m": 0,
    "ef_construction": 0,
    "ef": 0,
    "mode": "hybrid",
    "eval_set": "roofs",
    "recall": None,
    "ndcg": 1.0,
    "mrr": 1.0,
    "relevant_recall": 1.0,
    "p50_ms": 6.1,
    "p99_ms": 9.8,
    "build_seconds": 0.0,
    "size_bytes": 0,
    "chosen": False,
}
EVALUATED: Final[JsonObject] = {
    "run": _ID,
    "index": "tickets",
    "state": "done",
    "trials": [_MODE_TRIAL],
    "version": 821,
    "chosen": None,
    "reached": False,
    "planned": 1,
    "seconds": 0.2,
    "ended": "all",
    "error": "",
}
AUTOTUNE: Final[JsonObject] = {"index": "tickets", "recall": 0.99, "budget_seconds": 30}
TUNED: Final[JsonObject] = {
    "run": _ID,
    "index": "tickets",
    "state": "done",
    "trials": [_TRIAL],
    "version": 821,
    "chosen": _TRIAL,
    "reached": True,
    "planned": 36,
    "seconds": 14.2,
    "ended": "enough",
    "error": "",
}
TUNING: Final[JsonObject] = {
    **TUNED,
    "state": "running",
    "trials": [],
    "chosen": None,
    "reached": False,
    "seconds": 0.0,
    "ended": "",
}
TRIALS: Final[JsonObject] = {
    "trials": [_TRIAL],
    "version": 821,
    "next": None,
    "dropped": 0,
    "unreadable": 0,
}
PROMOTE: Final[JsonObject] = {"number": 0}

ASK: Final[JsonObject] = {
    "index": "tickets",
    "question": "Why does water come through the ceiling?",
    "k": 3,
    "filter": "status = 'open'",
}
_CITATION: Final[JsonObject] = {
    "number": 1,
    "index": "tickets",
    **_WHERE,
    "score": 0.0323,
    "text": _TEXT,
    "shortened": False,
}
_HEADER: Final[JsonObject] = {
    "retrieval_id": _ID,
    "model": "qwen3:0.6b",
    "context": [_CITATION],
    "version": 816,
    "degraded": False,
    "behind": False,
}
_WORDS: Final = ["The roof leaks ", "at the chimney [1]."]
_END: Final[JsonObject] = {
    "answer": "".join(_WORDS),
    "citations": [_CITATION],
    "unknown": [],
    "done_reason": "stop",
    "prompt_tokens": 212,
    "answer_tokens": 11,
    "seconds": 0.84,
}
ANSWER: Final[JsonObject] = {**_HEADER, **_END}
_PARTS: Final = [("header", _HEADER), *(("text", word) for word in _WORDS), ("end", _END)]
ANSWER_LINES: Final = "".join(f"{orjson.dumps({name: part}).decode()}\n" for name, part in _PARTS)
ANSWER_EVENTS: Final = "".join(
    f"event: {name}\ndata: {orjson.dumps({name: part}).decode()}\n\n" for name, part in _PARTS
)

_SAID: Final[JsonObject] = {
    "text": "The roof leaks again, please send somebody",
    "who": "ann",
    "session": "call-17",
    "at": _AT,
    "tags": ["roof"],
}
TURNS: Final = [_SAID, {"text": "Somebody comes on Monday", "who": "bob", "session": "call-17"}]
TURN_LINES: Final = "".join(f"{orjson.dumps(one).decode()}\n" for one in TURNS)
_TURN: Final[JsonObject] = {**_SAID, "id": _SHA, "remembered_at": _AT}
REMEMBERED: Final[JsonObject] = {
    "memory": "support",
    "version": 830,
    "remembered": 2,
    "duplicates": 0,
    "ids": [_SHA, _SHA[::-1]],
    "created": False,
}
RECALL: Final[JsonObject] = {
    "text": "what did we promise about the roof",
    "k": 3,
    "since": "2026-11-01T00:00:00Z",
    "also": ["tickets"],
}
RECALLED: Final[JsonObject] = {
    "memory": "support",
    "hits": [
        {
            "key": [_SHA],
            "score": 0.0325,
            "chunk": 0,
            "span": [0, len(_SAID["text"])],
            "text": _SAID["text"],
            "version": 830,
            "stages": _STAGES,
            "index": "support",
            "turn": _TURN,
        },
        {
            **_WHERE,
            "score": 0.0161,
            "text": _TEXT,
            "stages": _STAGES[:1],
            "index": "tickets",
            "turn": None,
        },
    ],
    "retrieval_id": _ID,
    "version": 831,
    "degraded": False,
    "behind": False,
}
CAUGHT_UP: Final[JsonObject] = {
    "memory": "support",
    "turns": [_TURN],
    "version": 831,
    "cursor": "eyJhdCI6MTc5NTI1MzQwMH0",
    "more": False,
}
MEMORIES: Final[JsonObject] = {
    "memories": [{"name": "support", "turns": 2, "index": "support", "updated_at": _AT}],
    "version": 831,
    "next": None,
}
