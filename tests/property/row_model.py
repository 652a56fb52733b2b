"""A keyed dataset as a dict, with everything it ever was: what the real one is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
Key = int


class Refused(Exception):
    """The model says that this call must fail, with this kind."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True)
class Past:
    """The dataset at one version: rows are never changed in place."""

    columns: tuple[str, ...]
    rows: dict[Key, Row]


@dataclass
class Told:
    """What one version did to one row: ``kind`` and old and new of the fields that changed."""

    version: int
    kind: str
    fields: dict[str, tuple[Any, Any]]


@dataclass
class Model:
    """``past`` by version, ``told`` by key, newest last; ``horizon``: older versions are gone."""

    columns: tuple[str, ...] = ("id", "name", "n")
    rows: dict[Key, Row] = field(default_factory=dict)
    past: dict[int, Past] = field(default_factory=dict)
    told: dict[Key, list[Told]] = field(default_factory=dict)
    texts: set[str] = field(default_factory=lambda: {"name"})
    horizon: int = 0

    def whole(self, row: Row) -> Row:
        """``row`` with all columns, as they are typed now."""
        return {name: self.typed(name, row.get(name)) for name in self.columns}

    def typed(self, name: str, value: Any) -> Any:
        return str(value) if name in self.texts and isinstance(value, int) else value

    def commit(self, version: int, rows: dict[Key, Row]) -> None:
        """``rows`` are what ``version`` made of the dataset."""
        for key in self.rows.keys() | rows.keys():
            old, new = self.rows.get(key), rows.get(key)
            if old == new:
                continue
            kind = "insert" if old is None else "delete" if new is None else "update"
            fields = {}
            if kind != "insert":
                names = [
                    one for one in self.columns if (old or {}).get(one) != (new or {}).get(one)
                ]
                fields = {one: ((old or {}).get(one), (new or {}).get(one)) for one in names}
            self.told.setdefault(key, []).append(Told(version, kind, fields))
        self.rows = rows
        self.past[version] = Past(self.columns, rows)

    def upserted(self, rows: list[Row]) -> tuple[dict[Key, Row], dict[str, int]]:
        made = dict(self.rows)
        counts = {"inserted": 0, "updated": 0, "unchanged": 0, "deleted": 0}
        for row in rows:
            new, old = self.whole(row), self.rows.get(row["id"])
            what = "inserted" if old is None else "unchanged" if old == new else "updated"
            counts[what] += 1
            made[row["id"]] = new
        return made, counts

    def patched(self, patches: list[dict[str, Any]]) -> tuple[dict[Key, Row], dict[str, int]]:
        made = dict(self.rows)
        counts = {"inserted": 0, "updated": 0, "unchanged": 0, "deleted": 0}
        if any(patch["key"] not in self.rows for patch in patches):
            raise Refused("not_found")
        for patch in patches:
            old = self.rows[patch["key"]]
            wrong = patch.get("expect", {}).items()
            if any(old[name] != self.typed(name, value) for name, value in wrong):
                raise Refused("conflict")
            new = self.whole({**old, **patch["set"]})
            counts["unchanged" if new == old else "updated"] += 1
            made[patch["key"]] = new
        return made, counts

    def deleted(self, keys: list[Key]) -> tuple[dict[Key, Row], dict[str, int]]:
        there = [key for key in keys if key in self.rows]
        made = {key: row for key, row in self.rows.items() if key not in there}
        return made, {"deleted": len(there), "missing": len(keys) - len(there)}

    def widened(self, name: str) -> dict[Key, Row]:
        """A column more, or one that is a text from now on; no row changes by it, so none is told
        to have."""
        if name in self.columns:
            self.texts.add(name)
        else:
            self.columns = (*self.columns, name)
        self.rows = {key: self.whole(row) for key, row in self.rows.items()}
        return self.rows
