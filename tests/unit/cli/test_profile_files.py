"""Profiles as files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from lakehouse.cli.output import to_record
from lakehouse.cli.profile_files import profile_of, read_profile
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Chunking, ChunkMethod, Distance, Profile, VectorBackend

TOML = """
model = "nomic-embed-text"
vector_backend = "lance"
distance = "dot"
hnsw_m = 32
[chunking]
method = "tokens"
size = 120
"""
WANTED = Profile(
    "short",
    "nomic-embed-text",
    chunking=Chunking(ChunkMethod.TOKENS, 120),
    distance=Distance.DOT,
    vector_backend=VectorBackend.LANCE,
    hnsw_m=32,
)


def file(folder: Path, text: str | bytes) -> str:
    path = folder / "profile"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_toml(tmp_path: Path) -> None:
    assert read_profile("short", file(tmp_path, TOML)) == WANTED
    assert read_profile("short", file(tmp_path, "")) == Profile("short")


def test_json_as_it_is_shown(tmp_path: Path) -> None:
    shown = {"profile": to_record(WANTED), "version": 7, "created": True, "changed": True}
    assert read_profile("short", file(tmp_path, json.dumps(shown))) == WANTED
    assert read_profile("short", file(tmp_path, json.dumps(to_record(WANTED)))) == WANTED


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(TOML))
    assert read_profile("short", "-") == WANTED


def test_one_that_comes_with_the_release_may_be_sent_back() -> None:
    assert profile_of("default", to_record(Profile("default", builtin=True))) == Profile("default")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model", "neither TOML nor JSON"),
        ("{", "neither TOML nor JSON"),
        ('modell = "x"', "did you mean model"),
        ("chunking = 5", "chunking must be a table"),
        ("[chunking]\nsizes = 5", "chunking.size"),
        ('[chunking]\nsize = "5"', "chunking.size must be a whole number"),
        ("dimensions = true", "dimensions must be a whole number"),
        ("dimensions = 1.5", "dimensions must be a whole number"),
        ("model = 5", "model must be a text"),
        ('distance = "far"', "one of cosine, dot, l2"),
        ("distance = 5", "one of cosine, dot, l2"),
        ('name = "other"', "another profile"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        read_profile("short", file(tmp_path, text))
    assert caught.value.kind is ErrorKind.INVALID
    assert words in f"{caught.value} {caught.value.fields}"


@pytest.mark.parametrize("body", [None, b"\xff\xfe"])
def test_files_that_cannot_be_read(tmp_path: Path, body: bytes | None) -> None:
    source = str(tmp_path / "none") if body is None else file(tmp_path, body)
    with pytest.raises(LakehouseError) as caught:
        read_profile("short", source)
    assert caught.value.kind is ErrorKind.NOT_FOUND
