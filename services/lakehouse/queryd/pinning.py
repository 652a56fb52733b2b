"""From the mentions of a statement to relations, each at one point in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from lakehouse.contracts.catalog import AsOf, CatalogService, DatasetSnapshot, SnapshotRequest
from lakehouse.contracts.query import PinnedVersion, QueryRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.refs import SYSTEM_SCHEMA, name_key
from lakehouse.queryd.live import LIVE_COLUMNS
from lakehouse.queryd.planning import Parsed
from lakehouse.queryd.points import Mention
from lakehouse.queryd.ports import FoundStores
from lakehouse.queryd.prepare import Lru
from lakehouse.queryd.scan import Relation, place, relation
from lakehouse.queryd.statistics import Statistics
from lakehouse.queryd.system import SystemRelation, SystemTables

__all__ = ["Pinned", "Pinning"]

NOTHING_MADE: Final[Mapping[str, SystemRelation]] = {}
_PREFIX: Final = f"{SYSTEM_SCHEMA}."
_OF_NOW: Final = LIVE_COLUMNS.keys() - {"events"}


@dataclass(slots=True)
class Pinned:
    """The relations of a statement by the keys of its mentions. ``version`` of the store for those
    without a point in time of their own; ``passing`` files are of this query alone."""

    version: int = 0
    relations: dict[str, Relation] = field(default_factory=dict)
    versions: list[PinnedVersion] = field(default_factory=list)
    paths: dict[tuple[str, str], str] = field(default_factory=dict)
    passing: list[str] = field(default_factory=list)


class Pinning:
    """Asks the catalog, once for all mentions of one point in time."""

    def __init__(
        self,
        catalog: CatalogService,
        buckets: FoundStores,
        system: SystemTables,
        statistics: Statistics,
        remembered: int,
    ) -> None:
        self._catalog = catalog
        self._buckets = buckets
        self._system = system
        self._statistics = statistics
        self._relations: Lru[Relation] = Lru(remembered)

    async def pin(
        self,
        ctx: Context,
        request: QueryRequest,
        parsed: Parsed,
        made: Mapping[str, SystemRelation] = NOTHING_MADE,
    ) -> Pinned:
        """``made``: relations of this query alone, by the keys of their mentions.

        Raises ``not_found`` for a dataset, a version or a tag that is not there, ``invalid`` for
        a pin of what the statement does not read, or reads at a point of its own."""
        pinned = Pinned()
        for key, own in made.items():
            pinned.relations[key] = own.relation
            pinned.paths[place(own.relation.snapshot.files[0])] = own.path
        mentions = [mention for mention in parsed.mentions if mention.key not in made]
        plain = [mention for mention in mentions if mention.as_of is None]
        datasets = [one for one in plain if not _is_system(one)]
        system = [one for one in plain if _is_system(one)]
        _check_pins(request, datasets)
        as_of = request.as_of
        if datasets or not (system or made):
            names = tuple(one.name for one in datasets)
            snapshot = await self._catalog.snapshot(
                ctx, SnapshotRequest(names, request.as_of, request.pins)
            )
            pinned.version = snapshot.version
            pins = {name_key(pin.name): pin.as_of.version for pin in request.pins}
            for mention, one in zip(datasets, snapshot.datasets, strict=True):
                pinned.relations[mention.key] = await self._relation(ctx, one, parsed.filters)
                version = pins.get(mention.key, snapshot.version) or one.dataset.version
                pinned.versions.append(PinnedVersion(one.dataset.name, version))
            as_of = AsOf(version=snapshot.version)
        if system:
            if not (datasets or {_table(one) for one in system} <= _OF_NOW):
                as_of, pinned.version = await self._system.pin(ctx, as_of)
            for mention in system:
                await self._open(ctx, pinned, mention, (as_of, pinned.version), parsed)
        elif made and not datasets:
            pinned.version = max(own.relation.snapshot.dataset.version for own in made.values())
        if len(plain) < len(mentions):
            dated = [mention for mention in mentions if mention.as_of is not None]
            await self._pin_own(ctx, pinned, dated, parsed)
        return pinned

    async def _pin_own(
        self, ctx: Context, pinned: Pinned, mentions: Sequence[Mention], parsed: Parsed
    ) -> None:
        """Mentions with a point in time of their own."""
        by_point: dict[AsOf, list[Mention]] = {}
        for mention in mentions:
            assert mention.as_of is not None
            by_point.setdefault(mention.as_of, []).append(mention)
        asked = [
            SnapshotRequest(tuple(one.name for one in at if not _is_system(one)), as_of)
            for as_of, at in by_point.items()
        ]
        told = await asyncio.gather(*(self._catalog.snapshot(ctx, one) for one in asked))
        for at, snapshot in zip(by_point.values(), told, strict=True):
            version, datasets = snapshot.version, iter(snapshot.datasets)
            for mention in at:
                if _is_system(mention):
                    point = (AsOf(version=version), version)
                    await self._open(ctx, pinned, mention, point, parsed)
                    continue
                one = next(datasets)
                pinned.relations[mention.key] = await self._relation(ctx, one, parsed.filters)
                name = f"{one.dataset.name}@{mention.point}"
                pinned.versions.append(PinnedVersion(name, version))

    async def _open(
        self,
        ctx: Context,
        pinned: Pinned,
        mention: Mention,
        point: tuple[AsOf, int],
        parsed: Parsed,
    ) -> None:
        """A system table at ``point``: what was asked, and the version that it is."""
        table, (as_of, version) = _table(mention), point
        if mention.as_of is not None and table in _OF_NOW:
            raise LakehouseError(
                ErrorKind.INVALID,
                "this table is as of now and has no versions",
                table=mention.name[:80],
            )
        tree = None if parsed.statement is None else parsed.statement.tree
        opened = await self._system.open(ctx, table, as_of, version, tree)
        if table in LIVE_COLUMNS:
            pinned.passing.append(opened.path)
        pinned.relations[mention.key] = opened.relation
        pinned.paths[place(opened.relation.snapshot.files[0])] = opened.path
        name = name_key(mention.name)
        name = f"{name}@{mention.point}" if mention.point else name
        pinned.versions.append(PinnedVersion(name, version))

    async def _relation(self, ctx: Context, one: DatasetSnapshot, filters: bool) -> Relation:
        """The relation of a snapshot, its bucket open here; with ``filters`` also the statistics
        that are beside its files."""
        dataset = one.dataset
        beside = filters and self._statistics.wanted(one)
        key = (dataset.id, dataset.version, beside)
        if self._relations.peek(key) is not None:
            return self._relations.get(key, partial(relation, one))
        await self._buckets.find(ctx, {dataset.bucket, *(file.bucket for file in one.files)})
        whole = True
        if beside:
            one, whole = await self._statistics.filled(one)
        return self._relations.get(key, partial(relation, one)) if whole else relation(one)


def _is_system(mention: Mention) -> bool:
    return name_key(mention.name).startswith(_PREFIX)


def _table(mention: Mention) -> str:
    return name_key(mention.name).removeprefix(_PREFIX)


def _check_pins(request: QueryRequest, datasets: Sequence[Mention]) -> None:
    used = {mention.key for mention in datasets}
    unused = [pin.name[:80] for pin in request.pins if name_key(pin.name) not in used]
    if unused:
        raise LakehouseError(
            ErrorKind.INVALID,
            "as_of pins a dataset that the statement does not use",
            datasets=[*unused[:20]],
            hint="pin what the statement reads, by the dataset's name",
        )
