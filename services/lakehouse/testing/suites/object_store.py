"""What every object store must do, wrapper or adapter: subclass, and override two fixtures.

The oracle looks at the store by another way than the adapter (files, another SDK), so that an
adapter that lies is caught.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final, Protocol

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.arguments import PART_BYTES
from lakehouse.objectstore.port import (
    ByteRange,
    ObjectMeta,
    ObjectStore,
    OpenedObject,
    PinnedReads,
    StreamingReads,
    StreamingWrites,
)
from lakehouse.testing.suites.walking import WalkingSuite

ODD_KEYS: Final = (
    "a b/ c",
    "x+y=z&w",
    "100%25/%41",
    "a*b?c[d]#e~f|g{h}i^j",
    "quote\"'`<tag>;,:@$!()",
    "ключ/日本語/é",
    "\U0001f600/\U00010000",
    "-/--/_",
    "x" * 200 + "/" + "y" * 200,
)
BAD_KEYS: Final = (
    "",
    "/",
    "/etc/passwd",
    "a/",
    "a//b",
    "..",
    "../b",
    "a/../b",
    "a/./b",
    "a\\b",
    "a\x00b",
    "a\nb",
    "e\u0301",
    "\ud800",
    "x" * 513,
    "\u202eb",
)


class Oracle(Protocol):
    """The store's content by an independent way."""

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None."""
        ...

    def keys(self) -> list[str]:
        """All keys, in any order."""
        ...


class ObjectStoreSuite(WalkingSuite):
    """Each test gets a store of its own, empty."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        raise NotImplementedError

    @pytest.fixture
    def oracle(self) -> Oracle:
        raise NotImplementedError

    # -- whole objects -----------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 4096, PART_BYTES + 1])
    async def test_what_is_put_is_what_is_read(
        self, store: ObjectStore, oracle: Oracle, size: int
    ) -> None:
        data = bytes(range(251)) * (size // 251 + 1)
        data = data[:size]
        meta = await store.put("folder/key", data)
        assert (meta.key, meta.size_bytes) == ("folder/key", size)
        assert await store.get("folder/key") == data
        assert isinstance(await store.get("folder/key"), bytes)
        assert (await store.head("folder/key")).size_bytes == size
        assert oracle.read("folder/key") == data
        assert oracle.keys() == ["folder/key"]

    async def test_a_put_replaces(self, store: ObjectStore, oracle: Oracle) -> None:
        first = await store.put("key", b"first")
        second = await store.put("key", b"second, longer")
        assert await store.get("key") == b"second, longer"
        assert oracle.read("key") == b"second, longer"
        assert first.etag != second.etag or not first.etag

    async def test_concurrent_puts_of_one_key_leave_one_of_them_whole(
        self, store: ObjectStore, oracle: Oracle
    ) -> None:
        bodies = [bytes([number]) * 50_000 for number in range(8)]
        await asyncio.gather(*(store.put("key", body) for body in bodies))
        assert await store.get("key") in bodies
        assert oracle.read("key") in bodies

    @pytest.mark.parametrize("body", [b"first", b""])
    async def test_put_if_absent_refuses_an_existing_key(
        self, store: ObjectStore, oracle: Oracle, body: bytes
    ) -> None:
        await store.put("a/key", body, if_absent=True)
        for other in (b"second", body):
            with pytest.raises(LakehouseError) as caught:
                await store.put("a/key", other, if_absent=True)
            assert caught.value.kind is ErrorKind.ALREADY_EXISTS
        assert oracle.read("a/key") == body

    async def test_put_if_absent_after_delete_is_free_again(self, store: ObjectStore) -> None:
        await store.put("key", b"1", if_absent=True)
        await store.delete(["key"])
        await store.put("key", b"2", if_absent=True)
        assert await store.get("key") == b"2"

    async def test_of_many_conditional_writers_one_wins(
        self, store: ObjectStore, oracle: Oracle
    ) -> None:
        for round_number in range(4):
            key = f"race/{round_number}"
            bodies = [b"%d" % number for number in range(16)]
            results = await asyncio.gather(
                *(store.put(key, body, if_absent=True) for body in bodies), return_exceptions=True
            )
            winners = [
                body
                for body, result in zip(bodies, results, strict=True)
                if isinstance(result, ObjectMeta)
            ]
            losers = [result for result in results if isinstance(result, LakehouseError)]
            assert {error.kind for error in losers} <= {ErrorKind.ALREADY_EXISTS}
            assert len(winners) + len(losers) == len(bodies)
            assert len(winners) == 1
            assert oracle.read(key) == winners[0]

    # -- reading -----------------------------------------------------------------------------

    async def test_ranges(self, store: ObjectStore) -> None:
        data = bytes(range(256)) * 40
        await store.put("key", data)
        for start, end in ((0, 1), (0, len(data)), (1, 2), (5_000, 9_999), (10_239, 99_999)):
            assert await store.get("key", ByteRange(start, end)) == data[start:end]

    @pytest.mark.parametrize(("start", "end"), [(10, 11), (10, 10), (3, 3), (5, 4), (-1, 4)])
    async def test_ranges_past_the_end_or_empty_are_invalid(
        self, store: ObjectStore, start: int, end: int
    ) -> None:
        await store.put("key", b"0123456789")
        with pytest.raises(LakehouseError) as caught:
            await store.get("key", ByteRange(start, end))
        assert caught.value.kind is ErrorKind.INVALID

    async def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        await store.put("folder/key", b"x")
        for missing in ("nothing", "folder", "folder/nothing", "folder/key/below", "n/o/n/e"):
            for call in (
                partial(store.get, missing),
                partial(store.get, missing, ByteRange(0, 1)),
                partial(store.head, missing),
                partial(_collect, store, missing),
            ):
                with pytest.raises(LakehouseError) as caught:
                    await call()
                assert caught.value.kind is ErrorKind.NOT_FOUND, missing

    # -- deleting ----------------------------------------------------------------------------

    async def test_delete_is_idempotent_and_exact(self, store: ObjectStore, oracle: Oracle) -> None:
        for key in ("a/1", "a/2", "b/1", "b1"):
            await store.put(key, b"x")
        await store.delete(["a/1", "b/1", "not/there", "a/1"])
        await store.delete(["a/1"])
        await store.delete([])
        assert sorted(oracle.keys()) == ["a/2", "b1"]

    async def test_delete_takes_more_keys_than_one_request_holds(
        self, store: ObjectStore, oracle: Oracle
    ) -> None:
        await store.put("k/1100", b"x")
        await store.put("stays", b"x")
        await store.delete([f"k/{number}" for number in range(1_101)])
        assert oracle.keys() == ["stays"]

    async def test_a_key_may_become_a_folder_once_it_is_gone(self, store: ObjectStore) -> None:
        await store.put("a/b/c", b"x")
        await store.delete(["a/b/c"])
        await store.put("a", b"y")
        await store.delete(["a"])
        await store.put("a/b", b"z")
        assert [meta.key for meta in await store.list()] == ["a/b"]

    # -- listing -----------------------------------------------------------------------------

    async def test_lists_are_in_byte_order_and_tell_sizes(self, store: ObjectStore) -> None:
        keys = ["B", "a!", "a-/x", "a.x", "a/b", "a/b!", "a0", "ab/c/d", "ab/c0", "é", "～", "𐀀"]
        for key in reversed(keys):
            await store.put(key, key.encode())
        assert keys == sorted(keys, key=str.encode)
        listed = await store.list()
        assert [meta.key for meta in listed] == keys
        assert [meta.size_bytes for meta in listed] == [len(key.encode()) for key in keys]
        head = await store.head("a/b")
        assert head.size_bytes == listed[4].size_bytes
        assert head.etag == listed[4].etag or not head.etag

    async def test_a_prefix_is_a_folder(self, store: ObjectStore) -> None:
        for key in ("a/1", "a/b/2", "ab/3", "a.4", "5"):
            await store.put(key, b"x")
        assert await _keys(store, "a/") == ["a/1", "a/b/2"]
        assert await _keys(store, "a/b/") == ["a/b/2"]
        assert await _keys(store, "none/") == []
        assert await _keys(store, "5/") == []

    async def test_every_page_follows_the_one_before(self, store: ObjectStore) -> None:
        keys = [*sorted(f"p/{number % 5}/{number:02}" for number in range(23)), "q"]
        await asyncio.gather(*(store.put(key, b"x") for key in keys))
        for limit in (1, 4, 23, 24, 25):
            seen: list[str] = []
            while page := await _keys(store, after=seen[-1] if seen else "", limit=limit):
                assert len(page) <= limit
                seen += page
            assert seen == keys
        # After what is no key itself: a folder, a name inside one, one that was never there.
        assert await _keys(store, "p/", after="p/3") == [key for key in keys if key > "p/3"][:-1]
        assert await _keys(store, after="p/3/") == [key for key in keys if key > "p/3/"]
        assert await _keys(store, "p/1/", after="p/1/07") == ["p/1/11", "p/1/16", "p/1/21"]
        assert await _keys(store, "p/1/", after="q") == []
        assert await _keys(store, "p/1/", after="a") == await _keys(store, "p/1/")

    @pytest.mark.parametrize(
        ("prefix", "limit"),
        [("a", 10), ("/", 10), ("../", 10), ("a//", 10), ("", 0), ("", 1001), ("", -1)],
    )
    async def test_lists_refuse_what_no_store_takes(
        self, store: ObjectStore, prefix: str, limit: int
    ) -> None:
        with pytest.raises(LakehouseError) as caught:
            await store.list(prefix, limit=limit)
        assert caught.value.kind is ErrorKind.INVALID

    # -- keys --------------------------------------------------------------------------------

    @pytest.mark.parametrize("key", ODD_KEYS)
    async def test_odd_keys_are_kept_to_the_letter(
        self, store: ObjectStore, oracle: Oracle, key: str
    ) -> None:
        await store.put(key, key.encode(), if_absent=True)
        assert oracle.keys() == [key]
        assert await store.get(key) == key.encode()
        assert (await store.head(key)).key == key
        assert await _keys(store) == [key]
        await store.delete([key])
        assert oracle.keys() == []

    async def test_bad_keys_are_refused_by_every_operation(
        self, store: ObjectStore, oracle: Oracle
    ) -> None:
        for key in BAD_KEYS:
            for call in (
                partial(store.get, key),
                partial(store.put, key, b"x"),
                partial(store.put, key, b"x", if_absent=True),
                partial(store.head, key),
                partial(store.delete, ["fine", key]),
                partial(_collect, store, key),
                partial(_send, store, key, [b"x"]),
                partial(_opened, store, key),
            ):
                with pytest.raises(LakehouseError) as caught:
                    await call()
                assert caught.value.kind is ErrorKind.INVALID, key
        assert oracle.keys() == []

    # -- streams -----------------------------------------------------------------------------

    @pytest.mark.parametrize("sizes", [[], [0], [5, 0, 7], [PART_BYTES], [3_000_001] * 6])
    async def test_streams_carry_every_byte_in_order(
        self, store: ObjectStore, oracle: Oracle, sizes: list[int]
    ) -> None:
        chunks = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
        data = b"".join(chunks)
        meta = await _send(store, "s/key", chunks)
        assert (meta.key, meta.size_bytes) == ("s/key", len(data))
        assert oracle.read("s/key") == data
        assert await _collect(store, "s/key") == data
        assert await store.get("s/key") == data

    @pytest.mark.parametrize("size", [10, PART_BYTES])
    async def test_a_stream_whose_source_fails_leaves_nothing(
        self, store: ObjectStore, oracle: Oracle, size: int
    ) -> None:
        async def broken() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x" * size
            raise ValueError("the source's own error")

        assert isinstance(store, StreamingWrites)
        with pytest.raises(ValueError, match="the source's own error"):
            await store.put_stream("s/key", broken())
        assert oracle.keys() == []

    @pytest.mark.parametrize("size", [10, PART_BYTES])
    async def test_a_cancelled_stream_leaves_nothing(
        self, store: ObjectStore, oracle: Oracle, size: int
    ) -> None:
        begun = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(2):
                yield b"x" * size
            begun.set()
            await asyncio.Event().wait()

        assert isinstance(store, StreamingWrites)
        task = asyncio.ensure_future(store.put_stream("s/key", endless()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert oracle.keys() == []
        assert await _keys(store) == []

    async def test_a_reader_may_leave_a_stream(self, store: ObjectStore) -> None:
        await store.put("key", b"x" * (2 * PART_BYTES))
        assert isinstance(store, StreamingReads)
        stream = store.stream("key")
        assert (await anext(stream))[:1] == b"x"
        del stream
        assert await store.get("key", ByteRange(0, 1)) == b"x"

    # -- the rest ----------------------------------------------------------------------------

    async def test_many_at_once(self, store: ObjectStore) -> None:
        keys = [f"many/{number % 7}/{number}" for number in range(64)]
        await asyncio.gather(*(store.put(key, key.encode() * 100) for key in keys))
        found = await asyncio.gather(*(store.get(key) for key in keys))
        assert list(found) == [key.encode() * 100 for key in keys]
        assert sorted(await _keys(store, "many/")) == sorted(keys)

    async def test_the_url_names_the_place(self, store: ObjectStore) -> None:
        assert "://" in store.url
        assert "@" not in store.url

    async def test_close_twice(self, store: ObjectStore) -> None:
        await store.put("key", b"x")
        await store.close()
        await store.close()


async def _keys(
    store: ObjectStore, prefix: str = "", *, after: str = "", limit: int = 1000
) -> list[str]:
    return [meta.key for meta in await store.list(prefix, start_after=after, limit=limit)]


async def _opened(store: ObjectStore, key: str) -> OpenedObject:
    assert isinstance(store, PinnedReads)
    return await store.open(key)


async def _collect(store: ObjectStore, key: str) -> bytes:
    assert isinstance(store, StreamingReads)
    return b"".join([chunk async for chunk in store.stream(key)])


async def _send(store: ObjectStore, key: str, chunks: list[bytes]) -> ObjectMeta:
    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    assert isinstance(store, StreamingWrites)
    return await store.put_stream(key, source())
