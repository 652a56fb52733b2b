"""Recording stand-ins of the contracts of rows and their past."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from lakehouse.contracts import journal as j
from lakehouse.contracts import rows as r
from lakehouse.contracts import tags as g
from lakehouse.model.events import EventKind, JournalEvent
from lakehouse.model.identity import Context
from unit.gateway.recording import AT, COLUMNS, VERSION, Recorder

Groups = Callable[[], AsyncIterator[tuple[JournalEvent, ...]]]


def tag(name: str) -> g.Tag:
    return g.Tag(name, 800, AT, "people", "D1", "books closed", "crm")


def event() -> JournalEvent:
    return JournalEvent(
        version=810,
        ordinal=0,
        at=AT,
        dataset_id="D1",
        dataset="people",
        kind=EventKind.UPDATE,
        operation="patch",
        actor="crm",
        entity="[7]",
        field="phone",
        old_json='"444"',
        new_json='{"a":[1]}',
        reason='a "good", one',
    )


def inserted() -> JournalEvent:
    return JournalEvent(809, 0, AT, "D1", "people", EventKind.INSERT, "upsert", "crm", rows=3)


class FakeRows(Recorder):
    """Row 7 of every dataset, with values whose JSON must come through as it is."""

    row_json = '{"id":7,"big":"9007199254740993","note":null}'

    async def get(self, ctx: Context, request: r.RowRequest) -> r.RowResult:
        self.saw("get", ctx, request)
        return r.RowResult(request.dataset, "[7]", self.row_json, VERSION)

    def _changed(self, dataset: str, dry_run: bool) -> r.ChangeRowsReport:
        return r.ChangeRowsReport(dataset, VERSION, 1, 2, 3, 4, 5, dry_run=dry_run)

    async def change(self, ctx: Context, request: r.ChangeRowsRequest) -> r.ChangeRowsReport:
        self.saw("change", ctx, request)
        return self._changed(request.dataset, request.dry_run)

    async def set_key(self, ctx: Context, request: r.SetKeyRequest) -> r.SetKeyReport:
        self.saw("set_key", ctx, request)
        return r.SetKeyReport(request.dataset, VERSION, request.columns, 3)

    async def widen(self, ctx: Context, request: r.WidenRequest) -> r.WidenReport:
        self.saw("widen", ctx, request)
        return r.WidenReport(request.dataset, VERSION, COLUMNS, ())

    async def restore(self, ctx: Context, request: r.RestoreRowsRequest) -> r.ChangeRowsReport:
        self.saw("restore", ctx, request)
        return self._changed(request.dataset, request.dry_run)

    async def diff(self, ctx: Context, request: r.DiffRequest) -> r.DiffResult:
        self.saw("diff", ctx, request)
        fields = (r.FieldChange("phone", '"444"', '"555"'), r.FieldChange("note", None, "[1]"))
        rows = (r.RowDifference("[7]", "changed", fields),)
        return r.DiffResult(request.dataset, 1, VERSION, 0, 0, 9, rows, "more")

    async def compact(self, ctx: Context, request: r.CompactRequest) -> r.CompactReport:
        self.saw("compact", ctx, request)
        numbers = (4, 2, 40, 20, 1, 0, 3, "rh1:00", 4, 2, 40, 20, 1.5)
        return r.CompactReport(request.dataset, VERSION, "major", *numbers)


class FakeJournal(Recorder):
    """``groups`` makes what the next feed tells."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: Groups = _one_group

    async def events(self, ctx: Context, request: j.EventsRequest) -> j.EventsResult:
        self.saw("events", ctx, request)
        return j.EventsResult((event(), inserted()), VERSION, "more")

    async def history(self, ctx: Context, request: j.HistoryRequest) -> j.HistoryResult:
        self.saw("history", ctx, request)
        fields = (r.FieldChange("phone", '"444"', '"555"'),)
        revisions = (
            j.RowRevision(810, AT, "update", "patch", "crm", fields, reason="moved"),
            j.RowRevision(800, AT, "insert", "upsert", "crm", ()),
        )
        row_json = FakeRows.row_json
        return j.HistoryResult(request.dataset, "[7]", VERSION, revisions, 790, row_json)

    async def feed(self, ctx: Context, request: j.FeedRequest) -> j.FeedStream:
        self.saw("feed", ctx, request)
        return j.FeedStream(request.dataset, self.groups())


async def _one_group() -> AsyncIterator[tuple[JournalEvent, ...]]:
    yield (event(), inserted())
