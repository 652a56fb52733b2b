"""Secrets do not show, and references lead where they say or say why not."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.secrets import Secret, resolve

CANARY = "canary-2f7c"


def test_a_secret_does_not_show() -> None:
    secret = Secret(CANARY)
    for shown in (
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r:>9}",
        "".join(map(str, [secret])),
        [secret],
    ):
        assert CANARY not in str(shown)
    assert f"{secret:>5}" == "  ***"
    assert CANARY not in repr({"a": secret})
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(AttributeError):
        secret.__dict__  # noqa: B018
    assert secret.reveal() == CANARY


def test_secrets_compare_by_what_they_hold() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("")


def test_from_the_environment() -> None:
    assert resolve("env:NAME", {"NAME": CANARY}).reveal() == CANARY
    for environ in ({}, {"NAME": ""}):
        with pytest.raises(LakehouseError) as caught:
            resolve("env:NAME", environ)
        assert caught.value.kind is ErrorKind.NOT_FOUND
        assert caught.value.fields["variable"] == "NAME"


def private(path: Path, data: bytes, mode: int = 0o600) -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return f"file:{path}"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", "plain"),
        (b"line\n", "line"),
        (b"line\r\n", "line"),
        (b"two\n\n", "two\n"),
        (b" kept ", " kept "),
        (b'{"access_key_id": "a"}\n', '{"access_key_id": "a"}'),
    ],
)
def test_from_a_file(tmp_path: Path, data: bytes, text: str) -> None:
    assert resolve(private(tmp_path / "s", data), {}).reveal() == text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o777, 0o610])
def test_a_file_open_to_others_is_forbidden(tmp_path: Path, mode: int) -> None:
    with pytest.raises(LakehouseError) as caught:
        resolve(private(tmp_path / "s", CANARY.encode(), mode), {})
    assert caught.value.kind is ErrorKind.FORBIDDEN
    assert caught.value.fields["mode"] == f"{mode:03o}"
    assert "chmod 600" in str(caught.value.fields["hint"])


def test_what_is_no_file_of_text(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    cases = {
        f"file:{tmp_path / 'missing'}": ErrorKind.NOT_FOUND,
        f"file:{tmp_path}": ErrorKind.INVALID,
        f"file:{tmp_path / 'pipe'}": ErrorKind.INVALID,
        private(tmp_path / "binary", b"\xff\xfe"): ErrorKind.INVALID,
        private(tmp_path / "large", b"x" * 70_000): ErrorKind.INVALID,
    }
    for reference, kind in cases.items():
        with pytest.raises(LakehouseError) as caught:
            resolve(reference, {})
        assert caught.value.kind is kind, reference


@pytest.mark.parametrize("reference", ["", "env:", "file:", CANARY, f"vault:{CANARY}", "ENV:X"])
def test_other_references_are_refused_and_not_repeated(reference: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        resolve(reference, {"X": "x"})
    assert caught.value.kind is ErrorKind.INVALID
    assert CANARY not in f"{caught.value} {caught.value.fields}"
