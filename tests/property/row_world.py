"""A process that keeps a keyed dataset, killed and started again, and what is asked of it.

Every step is drawn from a seed. What the model (``row_model``) says of a step is compared with the
report of it, and at the end with every version, row and event that can still be read.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from chaos.doomed import CLOCK, IDS, Doom, Roles, bury, live, start
from lakehouse.contracts import catalog as c
from lakehouse.contracts import rows as r
from lakehouse.contracts.ingest import ColumnOverride, IngestMode, IngestOptions, IngestRequest
from lakehouse.contracts.journal import EventsRequest, HistoryRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.service import Rows
from lakehouse.ingestd.service import Ingest
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.objectstore.identity import init_store
from lakehouse.objectstore.port import ObjectStore
from property.row_model import Key, Model, Refused, Row

CTX = Context(ANONYMOUS_OPERATOR, "model", workspace="lab")
NAME = "people"
KEYS = range(12)
JSON = IngestOptions(content_type="application/json")
Change = Callable[[Model], tuple[dict[Key, Row], dict[str, int]]]


@dataclass(frozen=True)
class Step:
    """A call to make, and what the model makes of it."""

    told: str
    call: Callable[[Rows, Ingest, Context], Awaitable[Any]]
    model: Change


async def chunks(data: bytes) -> Any:
    yield data


def changing(told: str, change: r.RowChange, body: Any, model: Change) -> Step:
    request = r.ChangeRowsRequest(
        NAME, change, json.dumps(body).encode(), JSON, reason=f"for {told}"
    )
    return Step(f"{told} {body}", lambda rows, _, ctx: rows.change(ctx, request), model)


def ingesting(mode: IngestMode, table: list[Row], model: Change) -> Step:
    request = IngestRequest(NAME, mode, options=replace(JSON, force=True), reason=mode.value)
    data = json.dumps(table).encode()

    async def call(rows: Rows, ingest: Ingest, ctx: Context) -> Any:
        return await ingest.ingest(ctx, request, chunks(data))

    return Step(f"{mode.value} {table}", call, model)


@dataclass
class World:
    """One store and the process on it; ``model`` is what it should hold."""

    store: ObjectStore
    folder: Path
    chance: random.Random
    model: Model = field(default_factory=Model)
    doom: Doom = field(default_factory=Doom)
    log: list[str] = field(default_factory=list)
    graves: list[Ingest] = field(default_factory=list)
    roles: Roles | None = None
    second: Ingest | None = None
    calls: int = 0

    @property
    def now(self) -> Roles:
        assert self.roles is not None
        return self.roles

    async def begin(self) -> None:
        await init_store(self.store, CLOCK, IDS)
        await self.open()
        rows = [self.row(key) for key in self.chance.sample(KEYS, 4)]
        request = IngestRequest(NAME, IngestMode.CREATE, ("id",), JSON)
        body = json.dumps([{**row, "n": row["n"] or 0} for row in rows]).encode()
        report = await self.now.ingest.ingest(CTX, request, chunks(body))
        made = {row["id"]: self.model.whole({**row, "n": row["n"] or 0}) for row in rows}
        self.model.commit(report.version, made)

    async def open(self) -> None:
        self.doom = Doom()
        self.graves = []
        self.roles = await start(self.store, self.doom, self.folder, self.graves)  # type: ignore[arg-type]

    async def close(self) -> None:
        if self.second is not None:
            await self.second.close()
            self.second = None
        await self.now.close()

    # -- steps

    def row(self, key: Key) -> Row:
        row: Row = {"id": key, "name": self.value("name"), "n": self.value("n")}
        return row | {name: self.value(name) for name in self.model.columns[3:]}

    def value(self, column: str) -> Any:
        if self.chance.random() < 0.15:
            return None
        if column == "n":
            return self.chance.randrange(-3, 4)
        return self.chance.choice(["a", "b", "Zoë", "", 'say "x"', "\u2028"])

    def batch(self, most: int = 4) -> list[Row]:
        return [self.row(key) for key in self.chance.sample(KEYS, self.chance.randint(1, most))]

    def drawn(self) -> Step:
        kind = self.chance.choices(
            ["upsert", "patch", "delete", "append", "ingest", "replace", "widen", "restore"],
            [8, 5, 4, 1, 2, 1, 0.7, 1],
        )[0]
        step: Step = getattr(self, f"_{kind}")()
        return step

    def _upsert(self) -> Step:
        rows = self.batch()
        return changing("upsert", r.RowChange.UPSERT, rows, lambda m: m.upserted(rows))

    def _patch(self) -> Step:
        # Mostly of rows that are there, mostly with what they hold.
        there = sorted(self.model.rows) or [0]
        keys = self.chance.sample(there, min(len(there), self.chance.randint(1, 3)))
        if self.chance.random() < 0.1:
            keys = list({*keys, self.chance.choice(KEYS)})
        patches = []
        for key in keys:
            name = self.chance.choice(self.model.columns[1:])
            patch: dict[str, Any] = {"key": key, "set": {name: self.value(name)}}
            if self.chance.random() < 0.4:
                held = self.model.rows.get(key, {}).get(name)
                patch["expect"] = {name: self.value(name) if self.chance.random() < 0.3 else held}
            patches.append(patch)
        return changing("patch", r.RowChange.PATCH, patches, lambda m: m.patched(patches))

    def _delete(self) -> Step:
        keys = self.chance.sample(KEYS, self.chance.randint(1, 3))
        return changing("delete", r.RowChange.DELETE, keys, lambda m: m.deleted(keys))

    def _append(self) -> Step:
        rows = self.batch(2)

        def model(m: Model) -> tuple[dict[Key, Row], dict[str, int]]:
            if any(row["id"] in m.rows for row in rows):
                raise Refused("conflict")
            return m.upserted(rows)[0], {"rows": len(rows)}

        return ingesting(IngestMode.APPEND, rows, model)

    def _ingest(self) -> Step:
        rows = self.batch()

        def model(m: Model) -> tuple[dict[Key, Row], dict[str, int]]:
            made, counts = m.upserted(rows)
            return made, {name: counts[name] for name in ("inserted", "updated", "unchanged")}

        return ingesting(IngestMode.UPSERT, rows, model)

    def _replace(self) -> Step:
        rows = self.batch(6)
        return ingesting(
            IngestMode.REPLACE,
            rows,
            lambda m: ({row["id"]: m.whole(row) for row in rows}, {"rows": len(rows)}),
        )

    def _widen(self) -> Step:
        texts = [name for name in ("n",) if name not in self.model.texts]
        if texts and self.chance.random() < 0.3:
            name = texts[0]
            request = r.WidenRequest(NAME, widen=(ColumnOverride(name, "string"),))
        else:
            name = f"x{len(self.model.columns)}"
            request = r.WidenRequest(NAME, add=(ColumnOverride(name, "string"),))

        async def call(rows: Rows, ingest: Ingest, ctx: Context) -> Any:
            return await rows.widen(ctx, request)

        return Step(f"widen {name}", call, lambda m: (m.widened(name), {}))

    def _restore(self) -> Step:
        versions = [at for at in self.model.past if at >= self.model.horizon]
        version = self.chance.choice(versions or [max(self.model.past)])
        request = r.RestoreRowsRequest(NAME, c.AsOf(version=version), "back")

        async def call(rows: Rows, ingest: Ingest, ctx: Context) -> Any:
            return await rows.restore(ctx, request)

        def model(m: Model) -> tuple[dict[Key, Row], dict[str, int]]:
            if version < m.horizon:
                raise Refused("not_found")
            return {key: m.whole(row) for key, row in m.past[version].rows.items()}, {}

        return Step(f"restore {version}", call, model)

    # -- what happens

    async def step(self) -> None:
        what = self.chance.choices(
            ["change", "crash", "two", "compact", "collect", "reopen"], [20, 3, 2, 3, 1, 1]
        )[0]
        await getattr(self, f"do_{what}")()

    async def do_change(self) -> None:
        step = self.drawn()
        self.log.append(step.told)
        await self.settle(step, self._context())

    def _context(self) -> Context:
        self.calls += 1
        return replace(CTX, idempotency_key=f"call-{self.calls}", request_id=f"r-{self.calls}")

    async def settle(self, step: Step, ctx: Context) -> None:
        """Make the call, hold its report to the model's."""
        try:
            report = await step.call(self.now.rows, self.now.ingest, ctx)
        except LakehouseError as error:
            self.refused(step, error)
        else:
            self.judge(step, report)

    def refused(self, step: Step, error: LakehouseError) -> None:
        try:
            step.model(self.model)
        except Refused as expected:
            if error.kind.value == expected.kind:
                return
        raise AssertionError(f"{step.told}: refused: {error!r} {error.fields}") from error

    def judge(self, step: Step, report: Any) -> None:
        try:
            rows, counts = step.model(self.model)
        except Refused as expected:
            raise AssertionError(f"{step.told}: accepted, not {expected.kind}: {report}") from None
        seen = {name: getattr(report, name) for name in counts}
        assert seen == counts, step.told
        self.model.commit(report.version, rows)

    async def do_crash(self) -> None:
        """Die at one of the next writes; then the same call, with the same key, settles it."""
        step, ctx = self.drawn(), self._context()
        self.doom.at = self.doom.writes + self.chance.randrange(6)
        self.doom.after = self.chance.random() < 0.5
        self.log.append(f"crash {self.doom.at} {self.doom.after} in {step.told}")
        answers: list[Any] = []

        async def call() -> None:
            try:
                answers.append(await step.call(self.now.rows, self.now.ingest, ctx))
            except LakehouseError as error:
                answers.append(error)

        if await live(self.doom, call()):
            self.doom.at = None
        else:
            for ingest in self.graves:
                bury(ingest)
            self.second = None
            await self.open()
            first = answers[:]
            answers.clear()
            await call()
            assert not first or isinstance(first[0], LakehouseError) or first == answers, step.told
        if isinstance(answers[0], LakehouseError):
            self.refused(step, answers[0])
        else:
            self.judge(step, answers[0])

    async def do_two(self) -> None:
        """Two processes change at once: what their versions say is the order."""
        if self.second is None:
            now = self.now
            settings = IngestSettings(
                spool_dir=str(self.folder / IDS.ulid()), threads=1, concurrent_max=1
            )
            self.second = Ingest(settings, now.catalog, now.buckets, CLOCK, IDS)
            self.graves.append(self.second)
            await self.second.start()
        first, second = self._upsert(), self._delete()
        self.log.append(f"at once {first.told} and {second.told}")
        answers = await asyncio.gather(
            first.call(self.now.rows, self.now.ingest, self._context()),
            second.call(Rows(self.second.parts), self.second, self._context()),
        )
        pairs = list(zip((first, second), answers, strict=True))
        # One that changed nothing read the version that it names; it may stand before or after.
        for step, report in sorted(pairs, key=lambda pair: (pair[1].version, pair[1].no_op)):
            self.judge(step, report)

    async def do_compact(self) -> None:
        full = self.chance.random() < 0.6
        self.log.append(f"compact {full}")
        report = await self.now.rows.compact(CTX, r.CompactRequest(NAME, full))
        assert report.rows == len(self.model.rows)
        if full:
            assert report.key_files_after == 0
        self.model.past[report.version] = self.model.past[max(self.model.past)]

    async def do_collect(self) -> None:
        self.log.append("collect")
        for _ in range(2):
            report = await self.now.catalog.collect(CTX, c.PlanRequest())
        self.model.horizon = max(self.model.horizon, report.horizon)

    async def do_reopen(self) -> None:
        self.log.append("reopen")
        await self.close()
        await self.open()

    # -- what must hold

    async def check(self) -> None:
        """Every version, every row's past, and the differences, as the model has them."""
        dataset = (await self.now.catalog.get(CTX, c.GetRequest(NAME))).dataset
        assert dataset.row_count == len(self.model.rows)
        versions = sorted(self.model.past)
        readable = [at for at in versions if at >= self.model.horizon]
        for version in readable:
            await self.check_version(version)
        for version in (at for at in versions if at < self.model.horizon):
            await self.check_beyond(version)
        for key in KEYS:
            await self.check_history(key)
        if len(readable) > 1:
            await self.check_diff(*sorted(self.chance.sample(readable, 2)))
        await self.check_events()

    async def check_version(self, version: int) -> None:
        past = self.model.past[version]
        snapshot, _ = await self.now.ingest.parts.reader.snapshot(
            CTX, NAME, c.AsOf(version=version)
        )
        table: pa.Table = await self.now.ingest.parts.reader.read(snapshot)
        rows = {row["id"]: row for row in table.to_pylist()}
        assert len(rows) == table.num_rows
        assert rows == past.rows, f"version {version}"
        key = self.chance.choice(KEYS)
        assert await self.row_at(key, version) == past.rows.get(key)

    async def row_at(self, key: Key, version: int) -> Row | None:
        try:
            request = r.RowRequest(NAME, str(key), c.AsOf(version=version))
            found = await self.now.rows.get(CTX, request)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None
        served = "table" if version >= self.model.horizon else "journal"
        assert found.served_from == served
        row: Row = json.loads(found.row_json)
        return row

    async def check_beyond(self, version: int) -> None:
        key = self.chance.choice(KEYS)
        assert await self.row_at(key, version) == self.expected(key, version), f"{key} at {version}"

    def expected(self, key: Key, version: int) -> Row | None:
        """Beyond retention a row comes from the journal, under the columns of now."""
        row = self.model.past[version].rows.get(key)
        return row if row is None or version >= self.model.horizon else self.model.whole(row)

    async def check_history(self, key: Key) -> None:
        """All that was done to a row, and the row at any version, told together."""
        at = self.chance.choice(sorted(self.model.past))
        request = HistoryRequest(NAME, str(key), limit=1000, as_of=c.AsOf(version=at))
        found = await self.now.journal.history(CTX, request)
        row = None if found.row_json is None else json.loads(found.row_json)
        assert row == self.expected(key, at), f"row {key} at {at}"
        assert found.served_from == ("table" if at >= self.model.horizon else "journal")
        born = min(self.model.past)
        expected = [each for each in reversed(self.model.told.get(key, [])) if each.version > born]
        seen_kinds = [(one.version, str(one.kind)) for one in found.revisions]
        assert seen_kinds == [(one.version, one.kind) for one in expected], f"the past of {key}"
        for revision, told in zip(found.revisions, expected, strict=True):
            seen = {
                one.field: (_value(one.old_json), _value(one.new_json)) for one in revision.fields
            }
            assert _texts(seen) == _texts(told.fields), f"{key} at {told.version}"
            assert revision.actor == "local"
            assert revision.workspace == "lab"

    async def check_diff(self, old: int, new: int) -> None:
        request = r.DiffRequest(NAME, c.AsOf(version=old), c.AsOf(version=new))
        found = await self.now.rows.diff(CTX, request)
        before, after = self.model.past[old].rows, self.model.past[new].rows
        expected = {}
        for key in before.keys() | after.keys():
            left, right = before.get(key), after.get(key)
            if _texts_of(left) != _texts_of(right):
                kind = "added" if left is None else "removed" if right is None else "changed"
                expected[f"[{key}]"] = kind
        assert {row.key_json: row.change for row in found.rows} == expected, f"{old} to {new}"
        assert found.added + found.removed + found.changed == len(expected)

    async def check_events(self) -> None:
        """No event without a change, no change without its events."""
        events, cursor = [], ""
        limit = self.chance.choice((5, 10, 20, 100))
        while True:
            page = await self.now.journal.events(
                CTX, EventsRequest(dataset=NAME, limit=limit, cursor=cursor)
            )
            events += page.events
            cursor = page.cursor
            if not cursor:
                break
        places = [(event.version, event.ordinal) for event in events]
        assert places == sorted(set(places), reverse=True)
        born = min(self.model.past)
        told = [each for all_ in self.model.told.values() for each in all_ if each.version > born]
        fields = sum(
            sum(old is not None or one.kind == "update" for old, _ in one.fields.values())
            for one in told
            if one.kind != "insert"
        )
        seen = [event for event in events if event.kind in ("update", "delete")]
        assert len(seen) == fields
        inserted = sum(event.rows for event in events if event.kind == "insert")
        assert inserted == sum(one.kind == "insert" for one in told)


def _value(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _texts(fields: dict[str, tuple[Any, Any]]) -> dict[str, tuple[str, str]]:
    """A field that is a text by now is told as one, of before too."""
    return {name: (str(old), str(new)) for name, (old, new) in fields.items()}


def _texts_of(row: Row | None) -> dict[str, str] | None:
    return None if row is None else {k: str(v) for k, v in row.items() if v is not None}


async def play(world: World, steps: int) -> None:
    """Begin, take ``steps`` steps, look at everything."""
    await world.begin()
    for _ in range(steps):
        await world.step()
    await world.check()
    await world.close()
