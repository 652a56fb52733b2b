"""The catalog against a plain dict: any sequence of calls, restarts and collections."""

from __future__ import annotations

import asyncio
import copy
import random
import unicodedata
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.errors import LakehouseError
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model import changes as m
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Column, Schema
from lakehouse.table.fingerprint import fingerprint
from support_catalog import COLUMNS, CTX, House, build_house, create, file_of

T = TypeVar("T")
NAMES = st.sampled_from(["a", "A", "b", "Straße", "STRASSE", "é", "e\u0301", "c"])
PICK = st.integers(0, 1_000_000)
# Folds every few records, so that restarts read checkpoints as well as tails.
LEDGER = replace(LedgerSettings(), fold_records=4, fence_check_seconds=3600.0)


@dataclass(slots=True)
class Model:
    """What the catalog should hold: a dict a dataset."""

    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)

    def live(self, name: str) -> str | None:
        key = name_key(name)
        for dataset_id, each in self.datasets.items():
            if not each["dropped"] and name_key(each["name"]) == key:
                return dataset_id
        return None


class CatalogModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.past: dict[int, dict[str, dict[str, Any]]] = {}
        self.serial = 0

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    @initialize()
    def begin(self) -> None:
        self.house: House = self.run(build_house())
        self.catalog: Catalog = self.run(self.house.open(ledger=LEDGER))
        self.open_session()

    def open_session(self) -> None:
        opened = self.run(self.catalog.session(CTX, c.SessionRequest("w", "ingestd")))
        self.session = opened.session_id

    def attempt(self, expected: bool, call: Coroutine[Any, Any, T]) -> T | None:
        """The answer, if the model says there is one; else there must be a refusal."""
        try:
            answer = self.run(call)
        except LakehouseError:
            assert not expected
            return None
        assert expected
        return answer

    def done(self, version: int) -> None:
        self.past[version] = copy.deepcopy(self.model.datasets)

    def chosen(self, pick: int) -> str | None:
        ids = sorted(self.model.datasets)
        return ids[pick % len(ids)] if ids else None

    def commit(self, expected: bool, *changes: m.Change) -> bool:
        done = self.attempt(expected, self.catalog.commit(CTX, c.CommitRequest(changes)))
        if done is not None:
            self.version = done.version
        return done is not None

    @rule(name=NAMES, files=st.integers(0, 3))
    def make(self, name: str, files: int) -> None:
        self.serial += 1
        dataset_id = f"D{self.serial:05d}"
        made = [file_of(self.session, dataset_id, f"f{at}", at + 1) for at in range(files)]
        display = unicodedata.normalize("NFC", name)
        free = self.model.live(name) is None and display == name
        if self.commit(free, *create(dataset_id, name, *made)):
            self.model.datasets[dataset_id] = {
                "name": name,
                "dropped": False,
                "files": {file.key: file.rows for file in made},
                "owner": "ann",
                "columns": 2,
            }
            self.done(self.version)

    @rule(pick=PICK, count=st.integers(1, 4), swap=st.booleans())
    def add(self, pick: int, count: int, swap: bool) -> None:
        dataset_id = self.chosen(pick)
        if dataset_id is None:
            return
        each = self.model.datasets[dataset_id]
        fresh = []
        for _ in range(count):
            self.serial += 1
            fresh.append(file_of(self.session, dataset_id, f"n{self.serial}", self.serial % 9))
        change = m.AddFiles(dataset_id, tuple(fresh), replace=swap)
        if self.commit(not each["dropped"], change):
            kept = {} if swap else each["files"]
            each["files"] = {**kept, **{file.key: file.rows for file in fresh}}
            self.done(self.version)

    @rule(pick=PICK, seed=PICK)
    def remove(self, pick: int, seed: int) -> None:
        dataset_id = self.chosen(pick)
        if dataset_id is None or not self.model.datasets[dataset_id]["files"]:
            return
        each = self.model.datasets[dataset_id]
        dice = random.Random(seed)
        gone = dice.sample(sorted(each["files"]), dice.randint(1, len(each["files"])))
        if self.commit(not each["dropped"], m.RemoveFiles(dataset_id, tuple(gone))):
            each["files"] = {key: n for key, n in each["files"].items() if key not in gone}
            self.done(self.version)

    @rule(pick=PICK, seed=PICK)
    def pack(self, pick: int, seed: int) -> None:
        """Some files become one: the same rows, and no change of them."""
        dataset_id = self.chosen(pick)
        if dataset_id is None or not self.model.datasets[dataset_id]["files"]:
            return
        each, dice = self.model.datasets[dataset_id], random.Random(seed)
        gone = dice.sample(sorted(each["files"]), dice.randint(1, len(each["files"])))
        rows = sum(each["files"][key] for key in gone)
        self.serial += 1
        made = file_of(self.session, dataset_id, f"p{self.serial}", rows)
        change = m.RewriteFiles(dataset_id, tuple(gone), (replace(made, rows_hash="", seq=1),))
        if self.commit(not each["dropped"], change):
            kept = {key: n for key, n in each["files"].items() if key not in gone}
            each["files"] = {**kept, made.key: rows}
            self.done(self.version)

    @rule(name=NAMES, new=NAMES)
    def rename(self, name: str, new: str) -> None:
        dataset_id, holder = self.model.live(name), self.model.live(new)
        expected = dataset_id is not None and holder in (None, dataset_id)
        call = self.catalog.rename(CTX, c.RenameRequest(name, new))
        done = self.attempt(expected, call)
        if done is not None and dataset_id is not None:
            self.model.datasets[dataset_id]["name"] = done.dataset.name
            self.done(done.version)

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        dataset_id = self.model.live(name)
        call = self.catalog.drop(CTX, c.DropRequest(name))
        done = self.attempt(dataset_id is not None, call)
        if done is not None and dataset_id is not None:
            self.model.datasets[dataset_id]["dropped"] = True
            self.done(done.version)

    @rule(pick=PICK, new=NAMES)
    def restore(self, pick: int, new: str) -> None:
        gone = [
            each for each in sorted(self.model.datasets) if self.model.datasets[each]["dropped"]
        ]
        if not gone:
            return
        name = self.model.datasets[gone[pick % len(gone)]]["name"]
        free = self.model.live(new) is None
        call = self.catalog.restore(CTX, c.RestoreRequest(name, new))
        done = self.attempt(free, call)
        if done is not None:
            each = self.model.datasets[done.dataset.id]
            assert each["dropped"]
            assert name_key(each["name"]) == name_key(name)
            each.update(dropped=False, name=done.dataset.name)
            self.done(done.version)

    @rule(name=NAMES)
    def purge(self, name: str) -> None:
        dataset_id = self.model.live(name)
        if dataset_id is not None:
            done = self.run(self.catalog.drop(CTX, c.DropRequest(name, purge=True)))
            del self.model.datasets[dataset_id]
            for then in self.past.values():
                then.pop(dataset_id, None)
            self.done(done.version)

    @rule(name=NAMES, owner=st.sampled_from(["ann", "bob"]))
    def card(self, name: str, owner: str) -> None:
        dataset_id = self.model.live(name)
        call = self.catalog.update_card(CTX, c.UpdateCardRequest(name, owner=owner))
        done = self.attempt(dataset_id is not None, call)
        if done is not None and dataset_id is not None:
            self.model.datasets[dataset_id]["owner"] = owner
            self.done(done.version)

    @rule(name=NAMES)
    def widen(self, name: str) -> None:
        dataset_id = self.model.live(name)
        if dataset_id is None:
            return
        each = self.model.datasets[dataset_id]
        width = each["columns"] + 1
        more = tuple(Column(at, f"c{at}", "date") for at in range(3, width + 1))
        columns = (*COLUMNS, *more)
        change = m.SetSchema(dataset_id, Schema(width - 1, columns), fingerprint(columns))
        if self.commit(True, change):
            each["columns"] = width
            self.done(self.version)

    @rule(key=st.sampled_from("xyz"), value=st.integers(0, 9))
    def document(self, key: str, value: int) -> None:
        self.commit(True, m.PutDocument("kind", key, str(value)))
        self.model.documents[key] = str(value)
        self.done(self.version)

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        """A clean stop, or none: a new writer over whatever is in the bucket."""
        old = self.catalog
        if clean:
            self.run(old.close())
        self.catalog = self.run(self.house.open(ledger=LEDGER, take_over=True))
        if not clean:
            self.run(old.close())
        self.open_session()

    @rule()
    def collect(self) -> None:
        """Within the month nothing that is named goes."""
        ended = c.SessionRequest("w", "ingestd", self.session, close=True)
        self.run(self.catalog.session(CTX, ended))
        self.run(self.catalog.collect(CTX, c.PlanRequest()))
        self.open_session()

    @invariant()
    def the_present_agrees(self) -> None:
        if not hasattr(self, "catalog"):
            return
        listed = self.run(self.catalog.list(CTX, c.ListRequest(include_dropped=True)))
        assert {d.id for d in listed.datasets} == set(self.model.datasets)
        for dataset in listed.datasets:
            each = self.model.datasets[dataset.id]
            assert dataset.name == each["name"]
            assert (dataset.status == "dropped") == each["dropped"]
            assert dataset.card.owner == each["owner"]
            assert len(dataset.schema.columns) == each["columns"]
            assert dataset.row_count == sum(each["files"].values())
            assert dataset.files == len(each["files"])
        found = self.run(self.catalog.documents(CTX, c.DocumentsRequest("kind")))
        assert {each.id: each.body for each in found.documents} == self.model.documents

    @rule(pick=PICK)
    def the_past_agrees(self, pick: int) -> None:
        if not self.past:
            return
        version = sorted(self.past)[pick % len(self.past)]
        for dataset_id, each in self.past[version].items():
            if each["dropped"]:
                continue
            request = c.SnapshotRequest((each["name"],), c.AsOf(version=version))
            (snap,) = self.run(self.catalog.snapshot(CTX, request)).datasets
            assert snap.dataset.id == dataset_id
            assert snap.dataset.card.owner == each["owner"]
            assert {file.key: file.rows for file in snap.files} == each["files"]
            assert [file.key for file in snap.files] == list(each["files"])

    def teardown(self) -> None:
        if hasattr(self, "house"):
            self.run(self.house.close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()


CatalogModel.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestCatalogModel = CatalogModel.TestCase
