"""Store identity: made once, never over something else, and missed when it is gone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.objectstore.identity import (
    FORMAT,
    STORE_FILE,
    STORE_KIND,
    StoreIdentity,
    check_writer,
    confirm,
    forget,
    init_store,
    read_identity,
    recall,
    remember,
    state_folder,
)
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ObjectMeta
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.testing.clocks import ManualClock, SeededIds
from lakehouse.testing.stores import Fault, FaultStore

URL = "file:///somewhere"
GOLDEN = Path(__file__).parents[2] / "golden" / "formats" / "v1"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("identity", SystemClock())


def kind(caught: pytest.ExceptionInfo[LakehouseError]) -> ErrorKind:
    return caught.value.kind


async def test_made_once_and_read_back(store: MemoryStore) -> None:
    made = await init_store(store, ManualClock(), SeededIds(1))
    again = await init_store(store, ManualClock(), SeededIds(2))
    assert made == again == await read_identity(store)
    assert made.format == FORMAT
    assert len(made.store_id) == 26
    body = json.loads(await store.get(STORE_FILE))
    assert body["kind"] == STORE_KIND
    assert body["created"].startswith("2026-")


async def test_of_many_makers_all_agree(store: MemoryStore) -> None:
    made = await asyncio.gather(
        *(init_store(store, ManualClock(), SeededIds(seed)) for seed in range(8))
    )
    assert len(set(made)) == 1


async def test_a_lost_answer_leaves_one_store(store: MemoryStore) -> None:
    faults = FaultStore(store)
    faults.inject("put", Fault.AFTER)
    with pytest.raises(LakehouseError):
        await init_store(faults, ManualClock(), SeededIds(1))
    assert await init_store(faults, ManualClock(), SeededIds(2)) == await read_identity(store)


async def test_nothing_here(store: MemoryStore) -> None:
    with pytest.raises(LakehouseError) as caught:
        await read_identity(store)
    assert kind(caught) is ErrorKind.NOT_FOUND
    assert "lakehouse init" in str(caught.value.fields["hint"])


class NoBucket(ForwardingStore):
    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        raise LakehouseError(ErrorKind.NOT_FOUND, "the bucket does not exist", what="bucket")


async def test_a_missing_bucket_is_not_an_empty_one(store: MemoryStore) -> None:
    for call in (
        read_identity(NoBucket(store)),
        init_store(NoBucket(store), ManualClock(), SeededIds(1)),
    ):
        with pytest.raises(LakehouseError) as caught:
            await call
        assert caught.value.fields["what"] == "bucket"
    assert await store.list() == []


async def test_a_ledger_without_its_store_file_is_not_made_anew(store: MemoryStore) -> None:
    await store.put("_catalog/c/9999999999999998.json", b"{}")
    with pytest.raises(LakehouseError) as caught:
        await init_store(store, ManualClock(), SeededIds(1))
    assert kind(caught) is ErrorKind.CORRUPT
    assert len(await store.list()) == 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ErrorKind.CORRUPT),
        (b"{", ErrorKind.CORRUPT),
        (b"\xff\xfe", ErrorKind.CORRUPT),
        (b"[]", ErrorKind.CORRUPT),
        (b"[" * 50_000, ErrorKind.CORRUPT),
        (b" " * 70_000, ErrorKind.CORRUPT),
        (b"{}", ErrorKind.CONFLICT),
        (b'{"kind": "other.thing"}', ErrorKind.CONFLICT),
        (b'{"kind": "lakehouse.store"}', ErrorKind.CORRUPT),
        (b'{"kind": "lakehouse.store", "store_id": "x", "format": 1}', ErrorKind.CORRUPT),
        (
            b'{"kind": "lakehouse.store", "store_id": "", "format": 1, "min_reader": 1}',
            ErrorKind.CORRUPT,
        ),
        (
            b'{"kind": "lakehouse.store", "store_id": "x", "format": true, "min_reader": true}',
            ErrorKind.CORRUPT,
        ),
        (
            b'{"kind": "lakehouse.store", "store_id": "x", "format": 3, "min_reader": 2}',
            ErrorKind.CONFLICT,
        ),
    ],
)
async def test_foreign_newer_and_damaged_files_are_refused(
    store: MemoryStore, data: bytes, expected: ErrorKind
) -> None:
    await store.put(STORE_FILE, data)
    for call in (read_identity(store), init_store(store, ManualClock(), SeededIds(1))):
        with pytest.raises(LakehouseError) as caught:
            await call
        assert kind(caught) is expected
    assert await store.get(STORE_FILE) == data


async def test_a_newer_format_that_we_may_read_is_read(store: MemoryStore) -> None:
    body = {"kind": STORE_KIND, "store_id": "x", "format": 7, "min_reader": 1, "more": 1}
    await store.put(STORE_FILE, json.dumps(body).encode())
    assert await read_identity(store) == StoreIdentity("x", 7)


# -- what this machine has seen -----------------------------------------------------------------


def test_remembered_by_url(tmp_path: Path) -> None:
    assert recall(tmp_path, URL) is None
    remember(tmp_path, URL, "one")
    remember(tmp_path, URL + "/else", "two")
    assert (recall(tmp_path, URL), recall(tmp_path, URL + "/else")) == ("one", "two")
    remember(tmp_path, URL, "three")
    assert recall(tmp_path, URL) == "three"
    forget(tmp_path, URL)
    forget(tmp_path, URL)
    assert recall(tmp_path, URL) is None


def test_memory_is_forgotten(tmp_path: Path) -> None:
    remember(tmp_path, "memory://x", "one")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_note_is_no_note(tmp_path: Path) -> None:
    remember(tmp_path, URL, "one")
    [note] = (tmp_path / "stores").iterdir()
    for damage in (b"", b"[]", b"{}", b"\xff", b'{"store_id": 3}'):
        note.write_bytes(damage)
        assert recall(tmp_path, URL) is None


def test_a_folder_that_cannot_be_written_is_forbidden(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LakehouseError) as caught:
        remember(tmp_path / "file", URL, "one")
    assert kind(caught) is ErrorKind.FORBIDDEN


def test_where_the_state_folder_is() -> None:
    assert state_folder({"XDG_STATE_HOME": "/x"}) == Path("/x/lakehouse")
    assert state_folder({"HOME": "/h"}) == Path("/h/.local/state/lakehouse")
    # A relative path is invalid by the specification, and ignored.
    given = {"HOME": "/h", "XDG_STATE_HOME": "rel"}
    assert state_folder(given) == Path("/h/.local/state/lakehouse")


@pytest.mark.parametrize(
    ("known", "found", "pinned", "fine"),
    [
        ("", None, "", True),
        ("", "one", "", True),
        ("one", "one", "", True),
        ("one", "one", "one", True),
        ("", "one", "one", True),
        ("one", None, "", False),
        ("", None, "one", False),
        ("one", "two", "", False),
        ("two", "two", "one", False),
        ("", "two", "one", False),
    ],
)
def test_only_the_expected_store_is_opened(
    tmp_path: Path, known: str, found: str | None, pinned: str, fine: bool
) -> None:
    if known:
        remember(tmp_path, URL, known)
    identity = StoreIdentity(found, FORMAT) if found else None
    if fine:
        confirm(tmp_path, URL, identity, pinned)
        return
    with pytest.raises(LakehouseError) as caught:
        confirm(tmp_path, URL, identity, pinned)
    assert kind(caught) is ErrorKind.CONFLICT
    assert caught.value.fields["url"] == URL
    assert caught.value.fields["hint"]


@pytest.mark.parametrize("name", ["store.json", "store-with-min-writer.json"])
async def test_store_files_of_format_1_are_read_for_good(store: MemoryStore, name: str) -> None:
    await store.put(STORE_FILE, (GOLDEN / name).read_bytes())
    identity = await read_identity(store)
    assert identity == StoreIdentity("01M3250V01V3RS3DTR98H6BCFN", 1, 1)
    check_writer(identity, URL)


async def test_a_store_for_newer_writers_is_read_but_not_written_to(
    store: MemoryStore, tmp_path: Path
) -> None:
    made = await init_store(store, ManualClock(), SeededIds(1))
    body = json.loads(await store.get(STORE_FILE))
    assert body["min_writer"] == 1
    await store.put(STORE_FILE, json.dumps(body | {"min_writer": FORMAT + 1}).encode())
    newer = await read_identity(store)
    assert newer.store_id == made.store_id
    with pytest.raises(LakehouseError) as caught:
        confirm(tmp_path, URL, newer)
    assert kind(caught) is ErrorKind.CONFLICT
    assert "newer version" in caught.value.message
    await store.put(STORE_FILE, json.dumps(body | {"min_writer": "2"}).encode())
    with pytest.raises(LakehouseError) as caught:
        await read_identity(store)
    assert kind(caught) is ErrorKind.CORRUPT
