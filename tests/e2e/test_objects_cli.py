"""``lakehouse objects`` against a real node."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from e2e.nodes import Node, running

pytestmark = pytest.mark.timeout(400)
DATA = bytes(range(256)) * 20_000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("objects-cli")
    one = Node(folder / "node", folder / "bucket")
    with running(one):
        one.start()
        (one.folder / "big.bin").write_bytes(DATA)
        yield one


def said(node: Node, *arguments: str, stdin: bytes = b"") -> Any:
    result = node.cli("objects", *arguments, "--json", stdin=stdin)
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stdout)


def test_a_file_goes_in_and_comes_out(node: Node) -> None:
    stored = said(node, "put", "big.bin", "primary/in/")
    assert stored["info"]["key"] == "in/big.bin"
    assert stored["sha256"] == hashlib.sha256(DATA).hexdigest()
    stat = said(node, "stat", "primary/in/big.bin")
    assert (stat["size_bytes"], stat["etag"]) == (len(DATA), stored["info"]["etag"])
    assert said(node, "get", "primary/in/big.bin", "copy.bin")["end"] == len(DATA)
    assert (node.folder / "copy.bin").read_bytes() == DATA
    assert node.cli("objects", "get", "primary/in/big.bin", "-").stdout == DATA
    for span, part in (("5-9", DATA[5:10]), ("5000000-", DATA[5_000_000:]), ("-7", DATA[-7:])):
        shown = node.cli("objects", "get", "primary/in/big.bin", "-", "--range", span)
        assert shown.stdout == part
    (node.folder / "big.bin").rename(node.folder / "moved.bin")
    assert node.cli("objects", "get", "primary/in/big.bin").returncode == 0
    assert (node.folder / "big.bin").read_bytes() == DATA


def test_standard_input_goes_in(node: Node) -> None:
    said(node, "put", "-", "primary/notes/a b+c.txt", stdin=b"from a pipe")
    assert node.cli("objects", "get", "primary/notes/a b+c.txt", "-").stdout == b"from a pipe"
    taken = node.cli("objects", "put", "-", "primary/notes/a b+c.txt", "--if-absent", stdin=b"x")
    assert taken.returncode == 73
    for _ in range(2):
        again = ("put", "-", "primary/once", "--if-absent", "--idempotency-key", "k1")
        said(node, *again, stdin=b"the same")


def test_a_bucket_is_walked(node: Node) -> None:
    for name in ("0/x", "1/x", "2/x", "3/x", "4/x", "leaf"):
        url = f"{node.url}/storage/objects/primary/tree/{name}"
        assert httpx.put(url, content=b"1").status_code == 200
    level = said(node, "ls", "primary/tree/")
    assert level["folders"] == [f"tree/{number}/" for number in range(5)]
    assert [each["key"] for each in level["objects"]] == ["tree/leaf"]
    every = said(node, "ls", "primary/tree/", "-r", "--limit", "4")
    assert [each["key"] for each in every["objects"]] == [f"tree/{n}/x" for n in range(4)]
    rest = said(node, "ls", "primary/tree/", "-r", "--cursor", every["next"])
    assert [each["key"] for each in rest["objects"]] == ["tree/4/x", "tree/leaf"]
    shown = node.cli("objects", "ls", "primary/tree/").stdout.decode()
    assert "tree/leaf" in shown
    said(node, "rm", "primary/tree/leaf", "primary/tree/0/x", "primary/tree/never")
    assert said(node, "ls", "primary/tree/")["objects"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("get", "primary/nothing", "here"), 66, "no object"),
        (("get", "primary"), 64, "BUCKET/KEY"),
        (("get", "nowhere/x", "here"), 66, "primary"),
        (("get", "primary/once", "here", "--range", "9-5"), 64, "--range"),
        (("put", "absent.bin", "primary/x"), 66, "absent.bin"),
        (("put", "-", "primary/_catalog/x"), 77, "keeps for itself"),
        (("put", "-", "primary/a/../x"), 64, "object key"),
        (("rm", "primary/datasets/x"), 77, "keeps for itself"),
        (("get", "primary/once", "no/such/folder/x"), 64, "cannot be written"),
    ],
)
def test_what_is_wrong_is_said(
    node: Node, arguments: tuple[str, ...], code: int, words: str
) -> None:
    if "primary/once" in arguments:
        assert node.cli("objects", "put", "-", "primary/once", stdin=b"x").returncode == 0
    result = node.cli("objects", *arguments, stdin=b"x")
    assert result.returncode == code, result.stderr.decode()
    assert words in result.stderr.decode()
    assert b"Traceback" not in result.stderr
    assert not (node.folder / "here").exists()
    assert not list(node.folder.glob(".*.part"))
