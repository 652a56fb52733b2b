"""Each format as it was first written: every later version must read these bytes.

1: rows alone. 2: files have contents (rows, keys, events) and a seq of their own, revisions their
marks, and versions their tags.

``python tests/unit/catalogd/test_golden.py`` would write them anew; it refuses to overwrite.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import orjson
import pyarrow as pa
import pytest

from lakehouse.catalogd.codec import decode_change, encode_change
from lakehouse.catalogd.machine import CatalogMachine
from lakehouse.catalogd.state import CatalogState
from lakehouse.ledger.machine import Entry
from lakehouse.ledger.parquet import from_parquet, to_parquet

FORMATS = Path(__file__).parents[2] / "golden" / "formats"
OLD, NEW = FORMATS / "v1" / "catalog", FORMATS / "v2" / "catalog"


def _neighbour(name: str) -> ModuleType:
    """The test module beside this one, which says what a rich state is."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"golden_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _replayed(folder: Path) -> CatalogState:
    machine, state = CatalogMachine(), CatalogState()
    for line in (folder / "entries.jsonl").read_bytes().splitlines():
        fields = orjson.loads(line)
        state = machine.apply(state, Entry(**{**fields, "changes": tuple(fields["changes"])}))
    return state


def _loaded(folder: Path) -> CatalogState:
    tables: dict[str, pa.Table] = {
        path.stem: from_parquet(path.read_bytes()) for path in folder.glob("*.parquet")
    }
    assert len(tables) >= 6
    return CatalogMachine().load(tables)


@pytest.mark.parametrize("folder", [OLD, NEW], ids=["1", "2"])
def test_records_and_checkpoint_of_a_format_are_read_alike(folder: Path) -> None:
    checks = _neighbour("test_checkpoint")
    replayed, loaded = _replayed(folder), _loaded(folder)
    assert checks.facts(replayed) == checks.facts(loaded)
    assert replayed.version > 40
    assert len(loaded.datasets) == 40
    assert loaded.names.holder("élan") == "D0004"
    again = {
        part.name: from_parquet(to_parquet(part.table)) for part in CatalogMachine().dump(loaded)
    }
    assert checks.facts(CatalogMachine().load(again)) == checks.facts(loaded)


def test_what_followed_from_format_1_is_found() -> None:
    state = _loaded(OLD)
    keyed, unkeyed = state.datasets["D0004"], state.datasets["D0001"]
    assert keyed.now.marks.history_since == keyed.now.version > keyed.now.marks.rows_version > 0
    assert unkeyed.now.marks.rows_version == unkeyed.now.version
    assert unkeyed.now.marks.history_since == 0
    assert all(file.seq > 0 for file in unkeyed.log.visible())
    assert unkeyed.untold == unkeyed.history[0].version


@pytest.mark.parametrize("folder", [OLD, NEW], ids=["1", "2"])
def test_records_are_written_as_they_were(folder: Path) -> None:
    every = orjson.loads((folder / "changes.json").read_bytes())
    assert [encode_change(decode_change(each)) for each in every] == every


def test_todays_code_writes_what_was_written() -> None:
    """A change of format must be a decision: a new folder, and code that reads both."""
    checks, codec = _neighbour("test_checkpoint"), _neighbour("test_codec")
    state = checks.rich_state()
    assert checks.facts(state) == checks.facts(_replayed(NEW))
    parts = {f"{part.name}.parquet": part.table for part in CatalogMachine().dump(state)}
    written = {path.name: from_parquet(path.read_bytes()) for path in NEW.glob("*.parquet")}
    assert parts.keys() == written.keys()
    assert all(parts[name].schema.equals(written[name].schema) for name in parts)
    every = orjson.loads((NEW / "changes.json").read_bytes())
    assert [encode_change(change) for change in codec.EVERY] == every


def _write() -> None:
    checks, codec = _neighbour("test_checkpoint"), _neighbour("test_codec")
    NEW.mkdir(parents=True)
    lines: list[bytes] = []
    apply = checks.MACHINE.apply

    def recorded(state: CatalogState, entry: Entry) -> CatalogState:
        fields = {name: getattr(entry, name) for name in ("seq", "ts_us", "changes", "actor")}
        lines.append(orjson.dumps({**fields, "request_id": entry.request_id}))
        after: CatalogState = apply(state, entry)
        return after

    checks.MACHINE.apply = recorded
    state = checks.rich_state()
    (NEW / "entries.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    for part in CatalogMachine().dump(state):
        (NEW / f"{part.name}.parquet").write_bytes(to_parquet(part.table))
    every = [encode_change(change) for change in codec.EVERY]
    (NEW / "changes.json").write_bytes(orjson.dumps(every, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    _write()
