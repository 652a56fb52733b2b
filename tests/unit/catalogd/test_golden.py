"""Format 1 as it was first written: every later version must read these bytes.

``python tests/unit/catalogd/test_golden.py`` would write them anew; it refuses to overwrite.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import orjson
import pyarrow as pa

from lakehouse.catalogd.codec import encode_change
from lakehouse.catalogd.machine import CatalogMachine
from lakehouse.catalogd.state import CatalogState
from lakehouse.ledger.machine import Entry
from lakehouse.ledger.parquet import from_parquet, to_parquet

FOLDER = Path(__file__).parents[2] / "golden" / "formats" / "v1" / "catalog"


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


def _replayed() -> CatalogState:
    machine, state = CatalogMachine(), CatalogState()
    for line in (FOLDER / "entries.jsonl").read_bytes().splitlines():
        fields = orjson.loads(line)
        state = machine.apply(state, Entry(**{**fields, "changes": tuple(fields["changes"])}))
    return state


def _loaded() -> CatalogState:
    tables: dict[str, pa.Table] = {
        path.stem: from_parquet(path.read_bytes()) for path in FOLDER.glob("*.parquet")
    }
    assert len(tables) >= 6
    return CatalogMachine().load(tables)


def test_records_and_checkpoint_of_format_1_are_read_alike() -> None:
    checks = _neighbour("test_checkpoint")
    replayed, loaded = _replayed(), _loaded()
    assert checks.facts(replayed) == checks.facts(loaded)
    assert replayed.version > 40
    assert len(loaded.datasets) == 40
    assert loaded.names.holder("élan") == "D0004"


def test_todays_code_writes_what_was_written() -> None:
    """A change of format must be a decision: a new folder, and code that reads both."""
    checks, codec = _neighbour("test_checkpoint"), _neighbour("test_codec")
    state = checks.rich_state()
    assert checks.facts(state) == checks.facts(_replayed())
    written = {path.name for path in FOLDER.glob("*.parquet")}
    assert {f"{part.name}.parquet" for part in CatalogMachine().dump(state)} == written
    every = orjson.loads((FOLDER / "changes.json").read_bytes())
    assert [encode_change(change) for change in codec.EVERY] == every


def _write() -> None:
    checks, codec = _neighbour("test_checkpoint"), _neighbour("test_codec")
    FOLDER.mkdir(parents=True)
    lines: list[bytes] = []
    apply = checks.MACHINE.apply

    def recorded(state: CatalogState, entry: Entry) -> CatalogState:
        fields = {name: getattr(entry, name) for name in ("seq", "ts_us", "changes", "actor")}
        lines.append(orjson.dumps({**fields, "request_id": entry.request_id}))
        after: CatalogState = apply(state, entry)
        return after

    checks.MACHINE.apply = recorded
    state = checks.rich_state()
    (FOLDER / "entries.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    for part in CatalogMachine().dump(state):
        (FOLDER / f"{part.name}.parquet").write_bytes(to_parquet(part.table))
    every = [encode_change(change) for change in codec.EVERY]
    (FOLDER / "changes.json").write_bytes(orjson.dumps(every, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    _write()
