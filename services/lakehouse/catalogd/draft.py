"""Applying changes to a catalog, one after another: ``Draft`` holds what a commit comes to.

The same code serves twice: the rules check each change against the draft of those before it, and
the machine makes the next state of it. Nothing here refuses: what is in the chain has happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from immutables import Map

from lakehouse.catalogd.codec import encode_change
from lakehouse.catalogd.dead import dead
from lakehouse.catalogd.documenting import documented
from lakehouse.catalogd.files import FileLog
from lakehouse.catalogd.internal import Forget, GiveUp, ImportDataset, StoredChange
from lakehouse.catalogd.persistent import Vector
from lakehouse.catalogd.placing import replaced
from lakehouse.catalogd.preference import preferred
from lakehouse.catalogd.state import (
    CatalogState,
    DatasetState,
    DocumentState,
    Head,
    Names,
    Revision,
    first_untold,
)
from lakehouse.catalogd.work import (
    LIFE_RANK,
    RANK,
    REWRITE_RANK,
    Work,
    put_files,
    rewrite_files,
    take_files,
)
from lakehouse.kit.clock import to_datetime
from lakehouse.ledger import sessions
from lakehouse.ledger.machine import Entry, JsonObject
from lakehouse.model import changes as change_types
from lakehouse.model.dataset import DataFile, DatasetStatus, VersionEntry, objects_of
from lakehouse.model.refs import PRIMARY, name_key

__all__ = ["Draft", "Work"]


class Draft:
    """The state a commit leads to.

    Args:
        ts_us: the commit's time; 0 while only checking.

    ``configured``: the residency of each bucket of the configuration, for the rules; None where
    nothing is asked of buckets. ``keyed``: datasets that get a primary key in this commit.
    """

    configured: Mapping[str, str] | None = None
    keyed: frozenset[str] = frozenset()

    def __init__(
        self, state: CatalogState, version: int, ts_us: int, actor: str = "", request_id: str = ""
    ) -> None:
        self.state = state
        self.version = version
        self._before = state.datasets
        self._touched: set[str] = set()
        self._ts_us = ts_us
        self._actor = actor
        self._request_id = request_id
        self._works: dict[str, Work] = {}
        self._contested: set[str] = set()

    def work(self, dataset_id: str) -> Work | None:
        """The dataset as the changes so far left it; None if there is none."""
        found = self._works.get(dataset_id)
        if found is None:
            base = self.state.datasets.get(dataset_id)
            if base is None:
                return None
            found = Work(base=base, head=base.now.head, log=base.log)
            self._works[dataset_id] = found
        return found

    def uses(self, bucket: str) -> int:
        """Datasets that have objects in ``bucket``, those of this commit included."""
        placed = replaced(self.state.placed, self._before, self._now(), self._works)
        return sum(placed.get(bucket, Map()).values())

    def _now(self) -> Map[str, DatasetState]:
        """The datasets with what was worked on so far put in."""
        datasets = self.state.datasets
        for dataset_id, work in self._works.items():
            if dataset_id in datasets:
                datasets = datasets.set(dataset_id, replace(work.base, log=work.log))
        return datasets

    def apply(self, change: StoredChange) -> None:
        """Apply ``change``; one that has nothing to work on changes nothing, and one to a manifest
        that cannot be read is kept with it."""
        dataset_id = getattr(change, "dataset_id", "")
        if dataset_id in self.state.broken and not isinstance(change, change_types.PurgeDataset):
            self._keep(dataset_id, change)
            return
        _APPLY[type(change)](self, change)

    def _keep(self, dataset_id: str, change: StoredChange) -> None:
        broken = self.state.broken[dataset_id]
        pending = broken.pending
        told: tuple[JsonObject, ...] = (encode_change(change),)
        if pending and pending[-1].seq == self.version:
            told, pending = (*pending[-1].changes, *told), pending[:-1]
        entry = Entry(self.version, self._ts_us, told, {}, self._actor, self._request_id)
        keys = broken.keys
        if isinstance(change, change_types.AddFiles | change_types.RewriteFiles):
            keys |= {file.key for file in change.files}
        broken = replace(broken, pending=(*pending, entry), keys=keys)
        self.state = replace(self.state, broken=self.state.broken.set(dataset_id, broken))

    def finish(self) -> CatalogState:
        """The state after the commit."""
        state = self.state
        datasets = state.datasets
        for dataset_id, work in self._works.items():
            if dataset_id in datasets and work.rank:
                datasets = datasets.set(dataset_id, self._settled(work))
        state = replace(
            state,
            version=self.version,
            times=state.times.append(self._ts_us),
            datasets=datasets,
            placed=replaced(state.placed, self._before, datasets, self._touched.union(self._works)),
        )
        for key in self._contested:
            sharing = state.names.sharing(key)
            # A manifest that cannot be read hides nobody.
            best = preferred([datasets[each] for each in sharing if each in datasets])
            state = replace(state, names=self._held(state.names, key, best.id if best else ""))
        return state

    def _settled(self, work: Work) -> DatasetState:
        base, head = work.base, work.head
        entry = VersionEntry(
            version=self.version,
            at=to_datetime(self._ts_us),
            operation=work.operation,
            actor=self._actor,
            request_id=self._request_id,
            rows_added=work.rows_added,
            rows_removed=work.rows_removed,
            files_added=work.files_added,
            files_removed=work.files_removed,
            row_count=work.log.totals.rows if base.rows_known else None,
            schema_id=head.schema_id,
            content_digest=work.content_digest,
            source=work.source,
            workspace=work.workspace,
            reason=work.reason,
        )
        updated = entry.at if work.updated_us is None else to_datetime(work.updated_us)
        if work.rank == REWRITE_RANK:
            updated = base.now.updated_at
        told = work.told and not work.untold
        revision = Revision(head, entry, work.log.totals, updated, work.marks(self.version), told)
        untold = base.untold
        if 0 < untold <= revision.marks.journaled:
            untold = first_untold(base.history, revision.marks.journaled)
        if not untold and revision.untold:
            untold = self.version
        history = self._cut(base, untold).append(revision)
        return replace(base, log=work.log, history=history, untold=untold)

    def _cut(self, base: DatasetState, untold: int) -> Vector[Revision]:
        """The history without what no version that can be read needs, nor the journal."""
        history = base.history
        if not history:
            return history
        first = history[history.start].version
        needed = [self.state.objects.horizon]
        needed += [pin for pin in self.state.pins_of(base.id) if pin >= first][:1]
        needed += [untold] if untold else []
        return history.cut(history.bisect(min(needed), lambda each: each.version) - 1)

    # -- names

    def _held(self, names: Names, key: str, dataset_id: str) -> Names:
        """``names`` with the holder of ``key`` from this version on; "" for nobody."""
        past = names.holders.get(key, ())
        if past and past[-1][1] == dataset_id:
            return names
        if past and past[-1][0] == self.version:
            past = past[:-1]
        old = [each for each in past if each[0] <= self.state.objects.horizon][:-1]
        tagged = [each for at, each in enumerate(old) if self._tagged(each[0], past[at + 1][0])]
        now = (*tagged, *past[len(old) :], (self.version, dataset_id))
        return replace(names, holders=names.holders.set(key, now))

    def _tagged(self, low: int, high: int) -> bool:
        """True if there is a tag of a version from ``low`` to below ``high``."""
        pins = self.state.pins.values()
        return any(low <= version < high for versions in pins for version in versions)

    def take_name(self, dataset_id: str, name: str) -> None:
        names, key = self.state.names, name_key(name)
        names = replace(names, order=names.order.add((key, dataset_id)))
        holder = names.holder(key)
        if holder and holder != dataset_id:
            self._contested.add(key)
        else:
            names = self._held(names, key, dataset_id)
        self.state = replace(self.state, names=names)

    def leave_name(self, dataset_id: str, name: str) -> None:
        names, key = self.state.names, name_key(name)
        names = replace(names, order=names.order.remove((key, dataset_id)))
        if any(True for _ in names.sharing(key)):
            self._contested.add(key)
        else:
            self._contested.discard(key)
            names = self._held(names, key, "")
        self.state = replace(self.state, names=names)

    # -- datasets

    def create(self, change: change_types.CreateDataset) -> None:
        head = Head(
            name=change.name,
            status=DatasetStatus.LIVE,
            fingerprint=change.fingerprint,
            schema_id=1,
            card=change.card,
            primary_key=change.primary_key,
        )
        base = DatasetState(
            id=change.dataset_id,
            bucket=change.bucket,
            residency=change.residency,
            created_at=to_datetime(self._ts_us),
            schemas=(change.schema,),
            log=FileLog(),
            history=Vector(),
        )
        work = Work(base=base, head=head, log=base.log)
        work.did("create", LIFE_RANK)
        self._works[change.dataset_id] = work
        self.state = replace(self.state, datasets=self.state.datasets.set(base.id, base))
        self.take_name(base.id, change.name)

    def import_dataset(self, change: ImportDataset) -> None:
        self.create(change.create)
        work = self._works[change.create.dataset_id]
        work.base = replace(work.base, rows_known=change.rows_known)
        work.updated_us = change.updated_us
        work.operation = "import"

    def add_files(self, change: change_types.AddFiles) -> None:
        self._changed_files(change, put_files)
        self._adopt(change.dataset_id, change.files)

    def remove_files(self, change: change_types.RemoveFiles) -> None:
        self._changed_files(change, take_files)

    def rewrite_files(self, change: change_types.RewriteFiles) -> None:
        self._changed_files(change, rewrite_files)
        self._adopt(change.dataset_id, change.files)

    def _changed_files(self, change: Any, apply: Callable[[Work, Any, int], bool]) -> None:
        work = self.work(change.dataset_id)
        if work is not None and apply(work, change, self.version):
            self._mark_dirty(change.dataset_id)

    def _adopt(self, dataset_id: str, files: Iterable[DataFile]) -> None:
        adopted = self.state.adopted
        for file in files if dataset_id in self.state.datasets else ():
            parts = file.key.split("/")
            if not file.external and len(parts) == 4 and parts[2] != dataset_id:
                ids = adopted.get(file.key, ())
                if dataset_id not in ids:
                    adopted = adopted.set(file.key, (*ids, dataset_id))
        if adopted is not self.state.adopted:
            self.state = replace(self.state, adopted=adopted)

    def _mark_dirty(self, dataset_id: str) -> None:
        if dataset_id not in self.state.dirty:
            self.state = replace(self.state, dirty=self.state.dirty.set(dataset_id, self.version))

    def set_schema(self, change: change_types.SetSchema) -> None:
        work = self.work(change.dataset_id)
        if work is not None:
            schema = replace(change.schema, id=len(work.base.schemas) + 1)
            work.base = replace(work.base, schemas=(*work.base.schemas, schema))
            work.head = replace(work.head, schema_id=schema.id, fingerprint=change.fingerprint)
            work.said(change)
            work.did("schema", RANK["schema"])

    def set_card(self, change: change_types.SetCard) -> None:
        work = self.work(change.dataset_id)
        if work is not None:
            work.head = replace(work.head, card=change.card)
            work.did("card", RANK["card"])

    def set_primary_key(self, change: change_types.SetPrimaryKey) -> None:
        work = self.work(change.dataset_id)
        if work is not None:
            work.head = replace(work.head, primary_key=change.columns)
            work.said(change)
            work.did("primary_key", RANK["primary_key"])

    def rename(self, change: change_types.RenameDataset) -> None:
        work = self.work(change.dataset_id)
        if work is not None:
            self.leave_name(change.dataset_id, work.head.name)
            work.head = replace(work.head, name=change.name)
            self.take_name(change.dataset_id, change.name)
            work.did("rename", RANK["rename"])

    def drop(self, change: change_types.DropDataset) -> None:
        work = self.work(change.dataset_id)
        if work is not None and work.head.status is not DatasetStatus.DROPPED:
            self.leave_name(change.dataset_id, work.head.name)
            self._list_dropped(change.dataset_id, work.head.name, dropped=True)
            work.head = replace(work.head, status=DatasetStatus.DROPPED)
            work.did("drop", LIFE_RANK)

    def restore(self, change: change_types.RestoreDataset) -> None:
        work = self.work(change.dataset_id)
        if work is not None and work.head.status is DatasetStatus.DROPPED:
            self._list_dropped(change.dataset_id, work.head.name, dropped=False)
            name = change.name or work.head.name
            status = DatasetStatus.QUARANTINED if work.head.reason else DatasetStatus.LIVE
            work.head = replace(work.head, status=status, name=name)
            self.take_name(change.dataset_id, name)
            work.did("restore", LIFE_RANK)

    def _list_dropped(self, dataset_id: str, name: str, *, dropped: bool) -> None:
        names, entry = self.state.names, (name_key(name), dataset_id)
        listed = names.dropped.add(entry) if dropped else names.dropped.remove(entry)
        self.state = replace(self.state, names=replace(names, dropped=listed))

    def quarantine(self, change: change_types.QuarantineDataset) -> None:
        work = self.work(change.dataset_id)
        if work is not None:
            status = work.head.status
            if status is not DatasetStatus.DROPPED:
                status = DatasetStatus.QUARANTINED if change.reason else DatasetStatus.LIVE
            work.head = replace(work.head, status=status, reason=change.reason)
            work.did("quarantine", RANK["quarantine"])
            key = name_key(work.head.name)
            if status is not DatasetStatus.DROPPED and len(list(self.state.names.sharing(key))) > 1:
                self._contested.add(key)

    def purge(self, change: change_types.PurgeDataset) -> None:
        state, dataset_id = self.state, change.dataset_id
        if dataset_id in state.broken:
            self.leave_name(dataset_id, state.broken[dataset_id].name)
            dirty = state.dirty.delete(dataset_id) if dataset_id in state.dirty else state.dirty
            self.state = replace(self.state, broken=state.broken.delete(dataset_id), dirty=dirty)
            return
        work = self.work(dataset_id)
        if work is None:
            return
        self._list_dropped(dataset_id, work.head.name, dropped=False)
        state = self.state
        orphaned, adopted = state.orphaned.mutate(), state.adopted.mutate()
        self._touched.add(dataset_id)
        for file in work.log.retained():
            if file.external:
                continue
            others = tuple(each for each in adopted.get(file.key, ()) if each != dataset_id)
            if others:
                adopted[file.key] = others
                continue
            adopted.pop(file.key, None)
            writer = file.key.split("/")[2]
            home = state.datasets.get(writer) if writer != dataset_id else None
            if state.broken and state.broken_names(file.key):
                continue
            if home is None or home.log.find(file.key, retained=True) is None:
                orphaned.update(dict.fromkeys(objects_of(file), file.bucket))
        self._works.pop(dataset_id)
        self.state = replace(
            state,
            datasets=state.datasets.delete(dataset_id),
            dirty=state.dirty.delete(dataset_id) if dataset_id in state.dirty else state.dirty,
            orphaned=orphaned.finish(),
            adopted=adopted.finish(),
        )

    # -- documents, sessions, objects

    def put_document(self, change: change_types.PutDocument) -> None:
        body = DocumentState(change.body, self.version)
        self.state = documented(self.state, change.kind, change.id, body, self.version)

    def delete_document(self, change: change_types.DeleteDocument) -> None:
        self.state = documented(self.state, change.kind, change.id, None, self.version)

    def open_session(self, change: change_types.OpenSession) -> None:
        objects = sessions.open_session(self.state.objects, change.session_id, self.version)
        self.state = replace(self.state, objects=objects)

    def close_session(self, change: change_types.CloseSession) -> None:
        if change.session_id in self.state.objects.sessions:
            objects = sessions.close_session(self.state.objects, change.session_id)
            ended = self.state.ended.set(change.session_id, self.version)
            self.state = replace(self.state, objects=objects, ended=ended)

    def condemn(self, change: change_types.Condemn) -> None:
        self.give_up(GiveUp(change.horizon, change.keys, (PRIMARY,) * len(change.keys)))

    def give_up(self, change: GiveUp) -> None:
        state = self.state
        objects = sessions.condemn(state.objects, change.keys, change.horizon, self.version)
        horizon = objects.horizon
        orphaned, adopted = state.orphaned.mutate(), state.adopted.mutate()
        elsewhere = state.elsewhere.mutate()
        # What one collection did not take is for the next: the logs are about to forget it.
        orphaned.update({key: bucket for bucket, key in dead(state, horizon)})
        for key, bucket in zip(change.keys, change.buckets, strict=True):
            orphaned.pop(key, None)
            adopted.pop(key, None)
            if bucket != PRIMARY:
                elsewhere[key] = bucket
        datasets, dirty = state.datasets, state.dirty
        for dataset_id, first in state.dirty.items():
            if first > horizon or dataset_id not in datasets:
                continue
            log = datasets[dataset_id].log.without_dead(horizon, state.pins_of(dataset_id))
            datasets = datasets.set(dataset_id, replace(datasets[dataset_id], log=log))
            self._touched.add(dataset_id)
            death = log.oldest_death()
            dirty = dirty.delete(dataset_id) if death is None else dirty.set(dataset_id, death)
        self.state = replace(
            state,
            objects=objects,
            elsewhere=elsewhere.finish(),
            times=state.times.cut(horizon),
            orphaned=orphaned.finish(),
            adopted=adopted.finish(),
            datasets=datasets,
            dirty=dirty,
        )

    def forget(self, change: Forget) -> None:
        elsewhere, ended = self.state.elsewhere.mutate(), self.state.ended.mutate()
        for key in change.keys:
            elsewhere.pop(key, None)
        for session_id in change.sessions:
            ended.pop(session_id, None)
        self.state = replace(
            self.state,
            objects=sessions.forget(self.state.objects, change.keys),
            elsewhere=elsewhere.finish(),
            ended=ended.finish(),
        )


_APPLY: Final[dict[type, Callable[[Draft, Any], None]]] = {
    change_types.CreateDataset: Draft.create,
    change_types.AddFiles: Draft.add_files,
    change_types.RemoveFiles: Draft.remove_files,
    change_types.RewriteFiles: Draft.rewrite_files,
    change_types.SetSchema: Draft.set_schema,
    change_types.SetCard: Draft.set_card,
    change_types.SetPrimaryKey: Draft.set_primary_key,
    change_types.RenameDataset: Draft.rename,
    change_types.DropDataset: Draft.drop,
    change_types.RestoreDataset: Draft.restore,
    change_types.PurgeDataset: Draft.purge,
    change_types.QuarantineDataset: Draft.quarantine,
    change_types.PutDocument: Draft.put_document,
    change_types.DeleteDocument: Draft.delete_document,
    change_types.OpenSession: Draft.open_session,
    change_types.CloseSession: Draft.close_session,
    change_types.Condemn: Draft.condemn,
    ImportDataset: Draft.import_dataset,
    GiveUp: Draft.give_up,
    Forget: Draft.forget,
}
