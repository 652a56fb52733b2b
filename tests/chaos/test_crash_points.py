"""Every mutating endpoint, killed before and after each write to the store, and again while it
recovers: what was acknowledged is there once, the rest is there whole or not at all, and the same
call with the same key settles it."""

from __future__ import annotations

import copy
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaos.doomed import CLOCK, IDS, Doom, Roles, bury, live, start
from lakehouse.contracts import catalog as c
from lakehouse.contracts import rows as r
from lakehouse.contracts import tokens as t
from lakehouse.contracts.ingest import ColumnOverride, IngestMode, IngestOptions, IngestRequest
from lakehouse.contracts.journal import EventsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.service import Ingest
from lakehouse.model.dataset import Card, Dataset, DatasetStatus
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context, Scope
from lakehouse.objectstore.identity import init_store
from lakehouse.objectstore.memory import MemoryStore

CTX = Context(ANONYMOUS_OPERATOR, "chaos")
KEYED = replace(CTX, idempotency_key="the-key")
CARD = Card(owner="ann", description="people we know")
CSV = b"id,name\n1,a\n2,b\n"

Act = Callable[[Roles, Context], Awaitable[object]]
Facts = tuple[tuple[object, ...], ...]


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def ingest(roles: Roles, ctx: Context, name: str, data: bytes, mode: IngestMode) -> object:
    request = IngestRequest(name, mode, options=IngestOptions(force=mode is IngestMode.APPEND))
    return await roles.ingest.ingest(ctx, request, chunks(data))


async def put(roles: Roles, key: str, rows: int = 2) -> str:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": list(range(rows))}), sink)
    await roles.memory.put(key, sink.getvalue())
    return key


async def arrange_ingested(roles: Roles) -> None:
    await ingest(roles, CTX, "people", CSV, IngestMode.CREATE)


async def arrange_object(roles: Roles) -> None:
    await put(roles, "in/a.parquet")


async def arrange_dropped(roles: Roles) -> None:
    await arrange_ingested(roles)
    await roles.catalog.drop(CTX, c.DropRequest("people"))


async def arrange_twice(roles: Roles) -> None:
    keys = [await put(roles, f"in/{at}.parquet", at + 1) for at in range(3)]
    when = datetime(2026, 1, 1, tzinfo=UTC)
    manifests = tuple(c.ImportedDataset("twice", (key,), at, when) for at, key in enumerate(keys))
    await roles.catalog.import_datasets(CTX, c.ImportRequest(manifests))


async def arrange_damaged(roles: Roles) -> None:
    await arrange_object(roles)
    await register(roles, CTX)
    await roles.memory.delete(["in/a.parquet"])


async def arrange_garbage(roles: Roles) -> None:
    """A dataset that lives, one that was purged, and an object that was never committed."""
    await arrange_ingested(roles)
    await ingest(roles, CTX, "gone", CSV, IngestMode.CREATE)
    await roles.catalog.drop(CTX, c.DropRequest("gone", purge=True))
    opened = await roles.catalog.session(CTX, c.SessionRequest("w", "r"))
    await put(roles, f"datasets/{opened.session_id}/D/garbage.parquet")
    await roles.catalog.session(CTX, c.SessionRequest("w", "r", opened.session_id, close=True))


async def register(roles: Roles, ctx: Context) -> object:
    objects = (c.ForeignObject("in/a.parquet"),)
    return await roles.catalog.register(ctx, c.RegisterRequest("reg", objects, CARD))


async def register_copy(roles: Roles, ctx: Context) -> object:
    objects = (c.ForeignObject("in/a.parquet", copy=True),)
    return await roles.catalog.register(ctx, c.RegisterRequest("reg", objects, CARD))


async def make_token(roles: Roles, ctx: Context) -> object:
    try:
        made = await roles.tokens.create(ctx, t.CreateTokenRequest("ci", (Scope.READ,)))
    except LakehouseError as error:
        if error.kind is not ErrorKind.ALREADY_EXISTS:
            raise
        return error.fields["token_id"]
    return made.info.id


ROW_JSON = IngestOptions(content_type="application/json")


async def arrange_keyed(roles: Roles) -> None:
    request = IngestRequest("people", IngestMode.CREATE, ("id",))
    await roles.ingest.ingest(CTX, request, chunks(CSV + b"3,c\n4,d\n"))


async def arrange_changed(roles: Roles) -> None:
    await arrange_keyed(roles)
    for body in (b'[{"id": 1, "name": "x"}, {"id": 9, "name": "i"}]', b'{"id": 9, "name": "j"}'):
        await change(r.RowChange.UPSERT, body)(roles, CTX)
    await change(r.RowChange.DELETE, b"[2]")(roles, CTX)


def change(how: r.RowChange, body: bytes) -> Act:
    request = r.ChangeRowsRequest("people", how, body, ROW_JSON, reason="chaos")
    return lambda roles, ctx: roles.rows.change(ctx, request)


def keeping(method: str, request: Any) -> Act:
    return lambda roles, ctx: getattr(roles.rows, method)(ctx, request)


def keyed(mode: IngestMode) -> Act:
    request = IngestRequest("people", mode, options=IngestOptions(force=True))
    data = b"id,name\n5,e\n" if mode is IngestMode.APPEND else b"id,name\n1,z\n5,e\n"
    return lambda roles, ctx: roles.ingest.ingest(ctx, request, chunks(data))


async def compact(roles: Roles, ctx: Context) -> object:
    """What it did differs when it is done again; what it leaves does not."""
    report = await roles.rows.compact(ctx, r.CompactRequest("people", full=True))
    return report.rows, report.rows_hash, report.key_files_after


async def tag(roles: Roles, ctx: Context) -> object:
    request = c.SetTagRequest("march", "people", c.AsOf(version=2))
    return replace(await roles.catalog.set_tag(ctx, request), created=False)


async def restore_rows(roles: Roles, ctx: Context) -> object:
    versions = await roles.catalog.versions(CTX, c.PageRequest("people", limit=1000))
    first = min(entry.version for entry in versions.versions)
    return await roles.rows.restore(ctx, r.RestoreRowsRequest("people", c.AsOf(version=first)))


async def many_commits(roles: Roles, ctx: Context) -> object:
    """Enough records for folds on the way; each has a key of its own."""
    answers = []
    for at in range(5):
        one = replace(ctx, idempotency_key=f"{ctx.idempotency_key}-{at}")
        request = c.UpdateCardRequest("people", owner=f"owner {at}")
        answers.append(await roles.catalog.update_card(one, request))
    return answers


@dataclass(frozen=True)
class Case:
    arrange: Callable[[Roles], Awaitable[None]]
    act: Act
    whole: bool = True


def ingesting(data: bytes, mode: IngestMode) -> Act:
    return lambda roles, ctx: ingest(roles, ctx, "people", data, mode)


def cataloguing(method: str, request: Any) -> Act:
    async def act(roles: Roles, ctx: Context) -> object:
        answer = await getattr(roles.catalog, method)(ctx, request)
        return replace(answer, replayed=False) if isinstance(answer, c.CommitResult) else answer

    return act


async def nothing(roles: Roles) -> None:
    """An empty store."""


CASES = {
    "register": Case(arrange_object, register),
    "register-copy": Case(arrange_object, register_copy),
    "ingest-create": Case(nothing, ingesting(CSV, IngestMode.CREATE)),
    "ingest-append": Case(arrange_ingested, ingesting(b"id,name\n3,c\n", IngestMode.APPEND)),
    "ingest-replace": Case(arrange_ingested, ingesting(b"id,name\n3,c\n", IngestMode.REPLACE)),
    "card": Case(arrange_ingested, cataloguing("update_card", c.UpdateCardRequest("people", "b"))),
    "rename": Case(arrange_ingested, cataloguing("rename", c.RenameRequest("people", "folk"))),
    "drop": Case(arrange_ingested, cataloguing("drop", c.DropRequest("people"))),
    "purge": Case(arrange_ingested, cataloguing("drop", c.DropRequest("people", purge=True))),
    "restore": Case(arrange_dropped, cataloguing("restore", c.RestoreRequest("people"))),
    "dedupe": Case(arrange_twice, cataloguing("dedupe", c.PlanRequest())),
    "fsck": Case(arrange_damaged, cataloguing("fsck", c.FsckRequest(dry_run=False))),
    "collect": Case(arrange_garbage, cataloguing("collect", c.PlanRequest())),
    "upsert": Case(
        arrange_keyed, change(r.RowChange.UPSERT, b'[{"id": 1, "name": "x"}, {"id": 7}]')
    ),
    "patch": Case(
        arrange_changed,
        change(r.RowChange.PATCH, b'{"key": 1, "set": {"name": "y"}, "expect": {"name": "x"}}'),
    ),
    "delete": Case(arrange_changed, change(r.RowChange.DELETE, b"[1, 3]")),
    "ingest-upsert": Case(arrange_changed, keyed(IngestMode.UPSERT)),
    "append-keyed": Case(arrange_changed, keyed(IngestMode.APPEND)),
    "replace-keyed": Case(arrange_changed, keyed(IngestMode.REPLACE)),
    "set-key": Case(arrange_ingested, keeping("set_key", r.SetKeyRequest("people", ("id",)))),
    "widen": Case(
        arrange_changed,
        keeping("widen", r.WidenRequest("people", (ColumnOverride("phone", "string"),))),
    ),
    "restore-rows": Case(arrange_changed, restore_rows),
    "compact": Case(arrange_changed, compact),
    "tag": Case(arrange_changed, tag),
    "token": Case(nothing, make_token),
    "fold": Case(arrange_ingested, many_commits, whole=False),
}


# What these do differs from "upsert" by the plan alone, so they take their turn in the soak.
ALIKE = {"patch", "delete", "append-keyed"}
CHOSEN = [
    pytest.param(name, marks=[pytest.mark.soak] if name in ALIKE else [], id=name) for name in CASES
]


async def observe(roles: Roles) -> Facts:
    """What a user sees, but for ids and times, and whether the objects named are there, whole."""
    page = await roles.catalog.list(CTX, c.ListRequest(include_dropped=True, limit=1000))
    facts: list[tuple[object, ...]] = []
    for each in page.datasets:
        owner, status = each.card.owner, each.status.value
        facts.append((each.name, status, owner, each.files, each.row_count))
    facts += [("tag", one.name, one.dataset) for one in (await _tags(roles)).tags]
    for each in page.datasets:
        if each.status is DatasetStatus.LIVE:
            facts += await _contents(roles, each)
    tokens = (await roles.tokens.list(CTX, t.ListTokensRequest())).tokens
    facts += [("token", token.name, token.scopes) for token in tokens]
    return tuple(sorted(facts, key=repr))


async def _tags(roles: Roles) -> c.TagsResult:
    return await roles.catalog.tags(CTX, c.TagsRequest())


async def _contents(roles: Roles, dataset: Dataset) -> Facts:
    """Its objects, and where it has a key its rows, its columns and what is told of them."""
    facts: list[tuple[object, ...]] = []
    for file in (await roles.catalog.files(CTX, c.PageRequest(dataset.name))).files:
        there = file.key in roles.memory._objects
        facts.append((dataset.name, "file", file.content, file.rows, there))
        assert not there or len(await roles.memory.get(file.key)) == file.size_bytes
    if dataset.primary_key:
        reader = roles.ingest.parts.reader
        snapshot, _ = await reader.snapshot(CTX, dataset.name)
        facts += [("row", *row.items()) for row in (await reader.read(snapshot)).to_pylist()]
        facts += [("column", column) for column in dataset.schema.columns]
        page = await roles.journal.events(CTX, EventsRequest(dataset=dataset.name))
        facts += [
            (one.kind, one.operation, one.entity, one.field, one.old_json, one.new_json, one.rows)
            for one in page.events
        ]
    return tuple(facts)


def keys_of(memory: MemoryStore) -> list[str]:
    return list(memory._keys)


class Scene:
    """One case: the store as it was arranged, and what is seen before and after the call."""

    def __init__(self, case: Case, spool: Path) -> None:
        self.case = case
        self._spool = spool
        self._arranged = MemoryStore("arranged", CLOCK)
        self.before: Facts = ()
        self.after: Facts = ()

    async def prepare(self) -> int:
        """Arrange, then play it once undisturbed; the writes of that life."""
        await init_store(self._arranged, CLOCK, IDS)
        roles = await start(self._arranged, Doom(), self._spool)
        await self.case.arrange(roles)
        self.before = await observe(roles)
        await roles.close()
        memory, doom = self.store(), Doom()
        acknowledged: list[object] = []
        assert await self.life(memory, doom, acknowledged)
        writes = doom.writes
        roles = await start(memory, Doom(), self._spool)
        self.after = await observe(roles)
        await roles.close()
        return writes

    def store(self) -> MemoryStore:
        """The arranged store, as often as one likes."""
        return copy.deepcopy(self._arranged)

    async def life(self, memory: MemoryStore, doom: Doom, acknowledged: list[object]) -> bool:
        """Start, make the call, stop; ``acknowledged`` gets its answer. False if it died."""
        graves: list[Ingest] = []

        async def run() -> None:
            roles = await start(memory, doom, self._spool, graves)
            acknowledged.append(await self.case.act(roles, KEYED))
            await roles.close()

        ended = await live(doom, run())
        if not ended:
            for ingest in graves:
                bury(ingest)
        return ended

    async def judge(self, memory: MemoryStore, acknowledged: list[object], told: str) -> None:
        """Whoever starts next finds all or nothing, and the same call settles it, once."""
        roles = await start(memory, Doom(), self._spool)
        found = await observe(roles)
        if acknowledged:
            assert found == self.after, f"{told}: acknowledged, and not there"
        elif self.case.whole:
            assert found in (self.before, self.after), f"{told}: half done"
        answer = await self.case.act(roles, KEYED)
        assert await observe(roles) == self.after, f"{told}: the repeated call did not settle it"
        assert all(each == answer for each in acknowledged), f"{told}: another answer"
        assert await self.case.act(roles, KEYED) == answer, f"{told}: a third answer"
        await roles.close()

    async def aftermath(self, memory: MemoryStore, told: str) -> None:
        """What the dead left lying goes, and nothing else, now and after another start."""
        roles = await start(memory, Doom(), self._spool)
        # Collection finds what was left lying by the dead, and takes nothing that lives.
        await roles.catalog.collect(CTX, c.PlanRequest())
        await roles.catalog.collect(CTX, c.PlanRequest())
        assert await observe(roles) == self.after, f"{told}: collection took something"
        assert not [key for key in keys_of(memory) if key.endswith("garbage.parquet")], told
        await roles.close()
        roles = await start(memory, Doom(), self._spool)
        assert await observe(roles) == self.after, f"{told}: another state after a restart"
        await roles.close()


async def doomed(scene: Scene, dooms: list[Doom]) -> bool:
    """Lives that end so, one after the other, and the verdict; True if the last got to its end."""
    memory, acknowledged, ended = scene.store(), list[object](), True
    for doom in dooms:
        ended = await scene.life(memory, doom, acknowledged)
    told = " then ".join(f"{'after' if each.after else 'before'} {each.at}" for each in dooms)
    await scene.judge(memory, acknowledged, told)
    if sum(each.at or 0 for each in dooms) % 3 == 0:
        await scene.aftermath(memory, told)
    return ended


@pytest.mark.parametrize("name", CHOSEN)
async def test_killed_at_every_write(name: str, tmp_path: Path) -> None:
    scene = Scene(CASES[name], tmp_path)
    writes = await scene.prepare()
    assert writes > 4, "the life under test is too short to mean anything"
    for at in range(writes):
        for after in (False, True):
            await doomed(scene, [Doom(at, after)])


@pytest.mark.parametrize("name", CHOSEN)
async def test_killed_again_while_it_recovers(name: str, tmp_path: Path) -> None:
    scene = Scene(CASES[name], tmp_path)
    writes = await scene.prepare()
    middle = writes // 2
    for second in range(0, writes, 3):
        await doomed(scene, [Doom(middle, True), Doom(second, second % 2 == 0)])


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
async def test_killed_twice_at_every_pair_of_writes(name: str, tmp_path: Path) -> None:
    scene = Scene(CASES[name], tmp_path)
    writes = await scene.prepare()
    for first in range(writes):
        for second in range(writes):
            dooms = [Doom(first, second % 2 == 0), Doom(second, first % 2 == 0)]
            await doomed(scene, dooms)
