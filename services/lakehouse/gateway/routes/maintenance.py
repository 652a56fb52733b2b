"""The catalog's operator errands: dedupe, fsck, collect, import."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.catalog import (
    CatalogService,
    CollectReport,
    DedupeReport,
    FsckReport,
    FsckRequest,
    ImportReport,
    PlanRequest,
)
from lakehouse.gateway import examples
from lakehouse.gateway.auth import Operator
from lakehouse.gateway.bodies import ImportBody, read_json
from lakehouse.gateway.openapi import told, with_json
from lakehouse.gateway.params import DryRun, Flag, Plan
from lakehouse.gateway.replies import reply
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute

Deep = Annotated[Flag, Query(description="Read every byte and compare checksums.")]


def routes(catalog: CatalogService, settings: GatewaySettings) -> APIRouter:
    """The routes of these errands over the contract; all need the scope operator."""
    router = APIRouter(tags=["catalog"], route_class=StrictRoute)

    @router.post(
        "/catalog/dedupe",
        **told("Collapse duplicates", DedupeReport, examples.DEDUPE, also=(409,)),
    )
    async def dedupe(ctx: Operator, dry_run: DryRun = False, plan: Plan = "") -> Response:
        """Datasets that share a name become one; no reachable row is lost. A dry run gives the
        plan and its hash; `plan` applies exactly that one, or is a 409."""
        report = await catalog.dedupe(ctx, PlanRequest(dry_run, plan))
        return reply(report, report.version)

    @router.post(
        "/catalog/fsck",
        **told("Check objects against the catalog", FsckReport, examples.FSCK, also=(409,)),
    )
    async def fsck(
        ctx: Operator, dry_run: DryRun = True, deep: Deep = False, plan: Plan = ""
    ) -> Response:
        """Finds what is named and not there, there and not named, or damaged. Without
        `dry_run=false` nothing changes; with it, damaged datasets are quarantined."""
        report = await catalog.fsck(ctx, FsckRequest(dry_run, deep, plan))
        return reply(report, report.version)

    @router.post(
        "/catalog/collect",
        **told("Give up what nothing names", CollectReport, examples.COLLECT, also=(409,)),
    )
    async def collect(ctx: Operator, dry_run: DryRun = False, plan: Plan = "") -> Response:
        """Objects and records beyond retention are condemned by a commit, then deleted."""
        report = await catalog.collect(ctx, PlanRequest(dry_run, plan))
        return reply(report, report.version)

    @router.post(
        "/catalog/import",
        **with_json(
            told("Import manifests of another catalog", ImportReport, examples.IMPORTED),
            ImportBody,
            examples.IMPORT,
        ),
    )
    async def import_datasets(ctx: Operator, request: Request) -> Response:
        """As they are, duplicates included; dedupe then has something to do."""
        body = await read_json(request, ImportBody, settings.json_bytes_max)
        report = await catalog.import_datasets(ctx, body.request())
        return reply(report, report.version)

    return router
