"""What was probably meant is named: a field, a value, wherever it stands."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from lakehouse.errors import LakehouseError
from lakehouse.gateway.bodies import PatchBody, RegisterBody, parse_body
from lakehouse.gateway.given_vectors import GivenVectorsBody
from lakehouse.gateway.meant import nearest
from lakehouse.gateway.memory_bodies import TurnsBody
from lakehouse.gateway.retrieval_bodies import AutotuneBody, EvalBody, RagBody
from lakehouse.gateway.vector_bodies import ProfileBody


def hint_of(model: type[BaseModel], body: str) -> Any:
    with pytest.raises(LakehouseError) as raised:
        parse_body(model, body.encode())
    return raised.value.fields.get("hint")


@pytest.mark.parametrize(
    ("model", "body", "hint"),
    [
        (PatchBody, '{"ownr": "ann"}', "owner"),
        (PatchBody, '{"OWNER": "ann"}', "owner"),
        (PatchBody, '{"sensitivity": "confidental"}', "confidential"),
        (RegisterBody, '{"name": "a", "objects": [{"key": "k", "cpy": 1}]}', "copy"),
        (TurnsBody, '[{"text": "a"}, {"txt": "b"}]', "text"),
        (EvalBody, '{"name": "a", "index": "b", "queries": [{"relevent": []}]}', "relevant"),
        (ProfileBody, '{"chunking": {"methd": "none"}}', "method"),
        (ProfileBody, '{"chunking": {"method": "sentence"}}', "sentences"),
        (RagBody, '{"index": "a", "quesion": "b"}', "question"),
        (GivenVectorsBody, '[{"id": "a", "vector": [1], "txt": "b"}]', "text"),
    ],
)
def test_what_was_meant(model: type[BaseModel], body: str, hint: str) -> None:
    assert hint_of(model, body) == f"did you mean {hint}"


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (AutotuneBody, '{"index": "a", "qqqqqq": 1}'),
        (AutotuneBody, '{"index": 7}'),
        (PatchBody, '{"sensitivity": 7}'),
        (PatchBody, "["),
        (PatchBody, '{"%s": 1}' % ("x" * 100_000)),
    ],
)
def test_nothing_is_near(model: type[BaseModel], body: str) -> None:
    assert hint_of(model, body) is None


def test_nearest_takes_any_case() -> None:
    assert nearest("HYBRID", ["vector", "hybrid"]) == "did you mean hybrid"
    assert nearest("", []) == ""
