"""What ``PinnedReads`` and ``Browsing`` promise; part of the object store suite."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.arguments import PART_BYTES
from lakehouse.objectstore.port import (
    Browsing,
    ByteRange,
    Level,
    ObjectStore,
    OpenedObject,
    PinnedReads,
)

TREE = ("a", "a/1", "a/2/x", "a/2/y", "a0", "b/1", "b b/1", "c+d", "ключ/日本語", "z")


class WalkingSuite:
    """Each test gets a store of its own, empty."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        raise NotImplementedError

    @pytest.mark.parametrize("size", [0, 1, 2 * PART_BYTES + 1])
    async def test_an_opened_object_says_what_it_is(self, store: ObjectStore, size: int) -> None:
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        await store.put("folder/key", data)
        opened = await _open(store, "folder/key")
        assert (opened.start, opened.end) == (0, size)
        assert opened.meta == await store.head("folder/key")
        assert await _bytes(opened) == data

    async def test_an_opened_range_is_that_of_a_slice(self, store: ObjectStore) -> None:
        data = bytes(range(256)) * 40
        await store.put("key", data)
        for start, end in ((0, 1), (0, len(data)), (5_000, 9_999), (10_239, 99_999), (7, 1 << 62)):
            opened = await _open(store, "key", ByteRange(start, end))
            assert (opened.start, opened.end) == (start, min(end, len(data)))
            assert opened.meta.size_bytes == len(data)
            assert await _bytes(opened) == data[start:end]
        for start, end in ((10_240, 10_241), (3, 3), (5, 4), (-1, 4)):
            with pytest.raises(LakehouseError) as caught:
                await _open(store, "key", ByteRange(start, end))
            assert caught.value.kind is ErrorKind.INVALID

    async def test_what_is_not_there_cannot_be_opened(self, store: ObjectStore) -> None:
        await store.put("folder/key", b"x")
        for missing in ("nothing", "folder", "folder/key/below"):
            with pytest.raises(LakehouseError) as caught:
                await _open(store, missing)
            assert caught.value.kind is ErrorKind.NOT_FOUND

    async def test_an_opened_object_may_be_let_go(self, store: ObjectStore) -> None:
        await store.put("key", b"x" * (2 * PART_BYTES))
        unread = await _open(store, "key")
        begun = await _open(store, "key")
        assert (await anext(begun.chunks))[:1] == b"x"
        del unread, begun
        assert await store.get("key", ByteRange(0, 1)) == b"x"

    async def test_what_is_replaced_while_it_is_read_is_never_mixed(
        self, store: ObjectStore
    ) -> None:
        await store.put("key", b"1" * (3 * PART_BYTES))
        opened = await _open(store, "key")
        first = await anext(opened.chunks)
        await store.put("key", b"2" * (3 * PART_BYTES))
        got: bytes | ErrorKind
        try:
            got = first + await _bytes(opened)
        except LakehouseError as error:
            got = error.kind
        assert got in (b"1" * (3 * PART_BYTES), ErrorKind.CONFLICT)

    async def test_a_level_has_its_objects_and_its_folders(self, store: ObjectStore) -> None:
        await _plant(store)
        level = await _browse(store)
        assert (_keys(level), level.folders) == (_having("a", "a0", "c+d", "z"), _FOLDERS)
        level = await _browse(store, "a/")
        assert (_keys(level), level.folders, level.next) == (["a/1"], ("a/2/",), "")
        level = await _browse(store, "a")
        assert (_keys(level), level.folders) == (_having("a", "a0"), ("a/",))
        assert await _browse(store, "nothing/") == Level(())
        assert await _browse(store, "z/") == Level(())
        level = await _browse(store, "b ")
        assert (_keys(level), level.folders) == ([], ("b b/",))

    async def test_without_folders_a_prefix_is_any_beginning(self, store: ObjectStore) -> None:
        await _plant(store)
        for prefix in ("", "a", "a/", "a/2", "b", "c+", "кл", "zz"):
            wanted = [key for key in _PLANTED if key.startswith(prefix)]
            assert _keys(await _browse(store, prefix, folders=False)) == wanted, prefix

    @pytest.mark.parametrize("limit", [1, 2, 3, 1000])
    @pytest.mark.parametrize("prefix", ["", "a", "a/2/"])
    async def test_pages_of_a_level_are_the_level(
        self, store: ObjectStore, limit: int, prefix: str
    ) -> None:
        await _plant(store)
        for folders in (True, False):
            whole = await _browse(store, prefix, folders=folders)
            keys: list[str] = []
            names: list[str] = []
            after = ""
            while True:
                page = await _browse(store, prefix, after=after, limit=limit, folders=folders)
                assert len(page.objects) + len(page.folders) <= limit
                keys += _keys(page)
                names += page.folders
                if not page.next:
                    break
                assert page.next > after
                after = page.next
            assert (keys, tuple(names)) == (_keys(whole), whole.folders)

    async def test_browsing_begins_after_any_text(self, store: ObjectStore) -> None:
        await _plant(store)
        for after in ("", "A", "a/", "a/1", "a/1/", "a0", "b", "c+", "zz"):
            wanted = [key for key in _PLANTED if key > after]
            assert _keys(await _browse(store, after=after, folders=False)) == wanted, after

    async def test_browsing_refuses_what_no_store_takes(self, store: ObjectStore) -> None:
        for prefix, limit in (("/", 10), ("../", 10), ("a//", 10), ("a\n", 9), ("", 0), ("", 1001)):
            with pytest.raises(LakehouseError) as caught:
                await _browse(store, prefix, limit=limit)
            assert caught.value.kind is ErrorKind.INVALID


# In a local directory an object cannot be named like a folder of others.
_PLANTED = sorted(key for key in TREE if key != "a")
_FOLDERS = ("a/", "b b/", "b/", "ключ/")


def _having(*keys: str) -> list[str]:
    return [key for key in keys if key in _PLANTED]


async def _plant(store: ObjectStore) -> None:
    await asyncio.gather(*(store.put(key, b"x") for key in _PLANTED))


async def _open(store: ObjectStore, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
    assert isinstance(store, PinnedReads)
    return await store.open(key, byte_range)


async def _bytes(opened: OpenedObject) -> bytes:
    return b"".join([chunk async for chunk in opened.chunks])


async def _browse(
    store: ObjectStore,
    prefix: str = "",
    *,
    after: str = "",
    limit: int = 1000,
    folders: bool = True,
) -> Level:
    assert isinstance(store, Browsing)
    ask = partial(store.browse, prefix, after=after, limit=limit, folders=folders)
    return await ask()


def _keys(level: Level) -> list[str]:
    return [meta.key for meta in level.objects]
