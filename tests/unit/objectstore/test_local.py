"""The local directory: nothing escapes it, nothing foreign shows, nothing goes elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.model.refs import check_key
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.local_tree import LocalTree


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# -- nothing escapes the root -------------------------------------------------------------------

KEYS = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(["a", "b", ".", "..", "", "x y", ".tmp", "~", "é", "\\", "\x00", "link"]),
        max_size=6,
    ).map("/".join),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(key=KEYS, if_absent=st.booleans())
def test_no_text_leads_outside(
    tmp_path_factory: pytest.TempPathFactory, key: str, if_absent: bool
) -> None:
    base = tmp_path_factory.getbasetemp() / "escape"
    outside = base / "outside"
    if not outside.exists():
        outside.mkdir(parents=True)
        (outside / "kept").write_bytes(b"kept")
        (base / "root").mkdir()
    if not (base / "root" / "link").is_symlink():
        (base / "root" / "link").symlink_to(outside, target_is_directory=True)
    tree = LocalTree(str(base / "root"))
    refused = None
    try:
        check_key(key)
        tree.write(key, b"data", if_absent=if_absent)
        assert tree.read(key, None) == b"data"
    except LakehouseError as error:
        refused = error.kind
    assert refused in (None, ErrorKind.INVALID)
    assert sorted(os.listdir(base)) == ["outside", "root"]
    assert files(outside) == ["kept"]
    assert (outside / "kept").read_bytes() == b"kept"
    if refused is None:
        tree.remove(key)
        # A put may have taken the link's own name; that is inside.
        assert set(files(base / "root")) <= {".tmp", "link"}


async def test_links_are_not_followed(store: LocalStore, root: Path, tmp_path: Path) -> None:
    await store.put("real", b"x")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_bytes(b"secret")
    (root / "folder").symlink_to(secret, target_is_directory=True)
    (root / "file").symlink_to(secret / "file")
    os.mkfifo(root / "pipe")
    for key in ("folder/file", "file", "folder", "pipe"):
        with pytest.raises(LakehouseError) as caught:
            await store.get(key)
        assert caught.value.kind is ErrorKind.NOT_FOUND
    for key in ("folder/file", "folder/new"):
        with pytest.raises(LakehouseError) as caught:
            await store.put(key, b"mine")
        assert caught.value.kind is ErrorKind.INVALID
    for key in ("file", "folder", "pipe"):
        with pytest.raises(LakehouseError) as caught:
            await store.put(key, b"mine", if_absent=True)
        assert caught.value.kind is ErrorKind.INVALID
    await store.delete(["folder/file", "file", "pipe"])
    assert [meta.key for meta in await store.list()] == ["real"]
    assert await store.list("folder/") == []
    # A plain put takes the name from the link; what the link led to stays.
    await store.put("file", b"mine")
    assert (secret / "file").read_bytes() == b"secret"
    assert await store.get("file") == b"mine"


async def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk", target_is_directory=True)
    store = LocalStore(tmp_path / "root", SystemClock())
    await store.put("a/b", b"x", if_absent=True)
    assert (tmp_path / "disk" / "a" / "b").read_bytes() == b"x"
    await store.close()


async def test_a_linked_folder_for_temporary_files_is_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root.mkdir()
    (root / ".tmp").symlink_to(outside, target_is_directory=True)
    store = LocalStore(root, SystemClock())
    with pytest.raises(LakehouseError):
        await store.put("a", b"x", if_absent=True)
    with pytest.raises(LakehouseError):
        await store.put("a", b"x")
    assert files(outside) == []
    assert await store.list() == []
    await store.close()


# -- what a file system cannot hold -------------------------------------------------------------


@pytest.mark.parametrize("if_absent", [True, False])
async def test_a_long_component_is_invalid(store: LocalStore, if_absent: bool) -> None:
    for key in ("x" * 256, "a/" + "é" * 128 + "/b"):
        with pytest.raises(LakehouseError) as caught:
            await store.put(key, b"x", if_absent=if_absent)
        assert caught.value.kind is ErrorKind.INVALID
        with pytest.raises(LakehouseError):
            await store.get(key)
        await store.delete(["x"])
    await store.put("x" * 255, b"x")


@pytest.mark.parametrize("if_absent", [True, False])
async def test_file_and_folder_of_one_name_clash(store: LocalStore, if_absent: bool) -> None:
    await store.put("a/b", b"x")
    for key in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(LakehouseError) as caught:
            await store.put(key, b"y", if_absent=if_absent)
        assert caught.value.kind is ErrorKind.INVALID
        assert caught.value.fields["key"] == key
    assert [meta.key for meta in await store.list()] == ["a/b"]


async def test_temporary_files_are_no_objects(store: LocalStore, root: Path) -> None:
    await store.put("a", b"x")
    (root / ".tmp" / "left").write_bytes(b"half")
    assert [meta.key for meta in await store.list()] == ["a"]
    for key in (".tmp/left", ".tmp"):
        with pytest.raises(LakehouseError) as caught:
            await store.get(key)
        assert caught.value.kind is ErrorKind.INVALID
        with pytest.raises(LakehouseError):
            await store.put(key, b"x")
        with pytest.raises(LakehouseError):
            await store.delete([key])
    await store.put("sub/.tmp/fine", b"x")
    assert [meta.key for meta in await store.list()] == ["a", "sub/.tmp/fine"]


async def test_foreign_names_are_no_objects(store: LocalStore, root: Path) -> None:
    await store.put("a", b"x")
    for name in (b"caf\xe9", "e\u0301".encode(), b"back\\slash", b"new\nline"):
        with open(os.path.join(os.fsencode(root), name), "wb"):
            pass
    assert [meta.key for meta in await store.list()] == ["a"]


async def test_an_empty_place(root: Path) -> None:
    store = LocalStore(root, SystemClock())
    assert await store.list() == []
    assert await store.list("a/") == []
    await store.delete(["a"])
    with pytest.raises(LakehouseError) as caught:
        await store.get("a")
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert not root.exists()
    await store.close()


# -- cost ---------------------------------------------------------------------------------------


async def test_a_list_enters_no_folder_it_does_not_need(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in range(20):
        for name in range(3):
            await store.put(f"d/{folder:02}/{name}", b"x")
    entered = 0
    real = os.scandir

    def counting(path: int) -> object:
        nonlocal entered
        entered += 1
        return real(path)

    monkeypatch.setattr("os.scandir", counting)
    assert [meta.key for meta in await store.list(limit=1)] == ["d/00/0"]
    assert entered == 3
    entered = 0
    found = await store.list("d/", start_after="d/07/1", limit=2)
    assert [meta.key for meta in found] == ["d/07/2", "d/08/0"]
    assert entered == 3
    entered = 0
    await store.list("d/05/")
    assert entered == 1


def test_descriptors_are_closed(root: Path) -> None:
    tree = LocalTree(str(root))
    tree.write("a/b/c", b"x", if_absent=True)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        tree.write("a/b/d", b"x", if_absent=False)
        tree.read("a/b/c", None)
        tree.head("a/b/c")
        tree.listing("a/", "", 1)
        tree.remove("a/b/d")
        for bad in ("a/b", "a/b/c/d", "a/b/c/d/e", "none/at/all", "a/b/none"):
            with pytest.raises(LakehouseError):
                tree.read(bad, None)
        for bad in ("a/b", "a/b/c/d", "x" * 300):
            for if_absent in (True, False):
                with pytest.raises(LakehouseError):
                    tree.write(bad, b"x", if_absent=if_absent)
    assert len(os.listdir("/proc/self/fd")) == before


# -- the root is the one that was opened ---------------------------------------------------------


async def every_operation(store: LocalStore) -> list[LakehouseError]:
    async def one_chunk() -> AsyncIterator[bytes]:
        yield b"x"

    async def read_stream() -> None:
        async for _ in store.stream("kept"):
            pass

    refused = []
    for call in (
        lambda: store.get("kept"),
        lambda: store.head("kept"),
        lambda: store.list(),
        lambda: store.put("new", b"x", if_absent=True),
        lambda: store.put("new", b"x"),
        lambda: store.put_stream("new", one_chunk()),
        lambda: store.delete(["kept"]),
        read_stream,
    ):
        with pytest.raises(LakehouseError) as caught:
            await call()
        refused.append(caught.value)
    return refused


@pytest.mark.parametrize("empty_folder_left", [True, False])
async def test_nothing_is_done_while_the_root_is_away(
    store: LocalStore, root: Path, tmp_path: Path, empty_folder_left: bool
) -> None:
    """As when a disk is unmounted under a running node: nothing may go into what is left."""
    await store.put("kept", b"x")
    root.rename(tmp_path / "away")
    if empty_folder_left:
        root.mkdir()
    for error in await every_operation(store):
        assert error.kind is ErrorKind.UNAVAILABLE
        assert error.fields["path"] == str(root)
        assert "unmounted" in str(error.fields["hint"])
    assert root.exists() is empty_folder_left
    if empty_folder_left:
        assert files(root) == []
        root.rmdir()
    (tmp_path / "away").rename(root)
    assert await store.get("kept") == b"x"
    await store.put("new", b"y")


async def test_a_root_made_anew_is_another_root(store: LocalStore, root: Path) -> None:
    """The file system may give a new folder the number of a removed one, but not while it is
    held open."""
    for key in ("a", "b"):
        await store.put("kept", b"x")
        shutil.rmtree(root)
        root.mkdir()
        with pytest.raises(LakehouseError) as caught:
            await store.put(key, b"x")
        assert caught.value.kind is ErrorKind.UNAVAILABLE
        assert files(root) == []
        await store.close()
        store = LocalStore(root, SystemClock())
    await store.close()


async def test_a_closed_store_lets_its_disk_go(store: LocalStore, root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    await store.put("kept", b"x")
    await store.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_that_make_the_folder_at_once_are_both_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One finds no folder; before it makes one, the other has."""
    tree = LocalTree(str(tmp_path / "bucket"))
    really = os.open
    late: list[str] = []

    def slowly(path: str, *how: Any, **more: Any) -> int:
        if path == tree.root and not late:
            late.append(path)
            tree.write("other", b"2", if_absent=False)
            raise FileNotFoundError(path)
        return really(path, *how, **more)

    monkeypatch.setattr("lakehouse.objectstore.local_tree.os.open", slowly)
    tree.write("one", b"1", if_absent=False)
    monkeypatch.undo()
    assert (tmp_path / "bucket/one").read_bytes() == b"1"
    assert (tmp_path / "bucket/other").read_bytes() == b"2"
