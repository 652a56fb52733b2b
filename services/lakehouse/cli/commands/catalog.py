"""``lakehouse catalog``: what there is, what happened to it, and its upkeep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.commands.catalog_tags import tag
from lakehouse.cli.output import counted, size_text, time_text
from lakehouse.cli.points import POINT, point
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.model.dataset import Dataset, Sensitivity


@click.group()
def command() -> None:
    """What there is, what happened to it, and its upkeep."""


command.add_command(tag)


@command.command("list")
@click.option("-q", "--query", default="", help="In name, description, tags, owner, columns.")
@click.option("--tag", default="", help="Only datasets with this tag.")
@click.option("--owner", default="", help="Only datasets of this owner.")
@click.option("--dropped", is_flag=True, help="Dropped ones too.")
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def list_(invocation: Invocation, **given: Any) -> None:
    """List and search datasets."""
    from lakehouse.contracts.catalog import ListRequest

    request = ListRequest(
        given["query"],
        given["tag"],
        given["owner"],
        given["dropped"],
        given["limit"],
        given["cursor"],
    )
    async with invocation.clients() as clients:
        result = await clients.catalog.list(invocation.context(), request)
    rows = [
        (
            d.name,
            d.status.value,
            d.row_count,
            d.files,
            size_text(d.size_bytes),
            d.card.owner,
            d.card.sensitivity.value,
            d.version,
            time_text(d.updated_at),
        )
        for d in result.datasets
    ]
    columns = (
        "dataset",
        "status",
        "rows",
        "files",
        "size",
        "owner",
        "sensitivity",
        "version",
        "updated",
    )
    invocation.output.records(result, columns, rows)
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")


@command.command()
@click.argument("name")
@click.option("--as-of", default="", metavar=POINT, help="As it was then.")
@node_command
async def show(invocation: Invocation, name: str, as_of: str) -> None:
    """The card of a dataset: schema, owner, lineage, personal data that was found."""
    from lakehouse.contracts.catalog import GetRequest

    async with invocation.clients() as clients:
        request = GetRequest(name, point(as_of), include_dropped=True)
        result = await clients.catalog.get(invocation.context(), request)
    invocation.output.record(result, card_lines(result.dataset))
    if not invocation.output.as_json:
        invocation.output.table(("column", "type", "personal data"), column_rows(result.dataset))


def card_lines(dataset: Dataset) -> dict[str, object]:
    """A card as name and text, without what is empty."""
    card = dataset.card
    lines: dict[str, object] = {
        "dataset": dataset.name,
        "status": dataset.status.value,
        "rows": "unknown" if dataset.row_count is None else f"{dataset.row_count:,}",
        "size": f"{size_text(dataset.size_bytes)} in {counted(dataset.files, 'file')}",
        "version": dataset.version,
        "updated": time_text(dataset.updated_at),
        "primary key": ", ".join(dataset.primary_key),
        "owner": card.owner,
        "description": card.description,
        "sensitivity": card.sensitivity.value,
        "tags": ", ".join(card.tags),
        "lineage": " -> ".join(
            part for part in (card.lineage.source_system, card.lineage.ingest, dataset.name) if part
        ),
        "detected": ", ".join(card.detected),
        "fingerprint": dataset.fingerprint,
    }
    return {name: text for name, text in lines.items() if text != ""}


def column_rows(dataset: Dataset) -> list[tuple[str, str, str]]:
    """Column, type, and what personal data it seems to hold."""
    found = {item.column: f"{item.kind} ({item.confidence:.0%})" for item in dataset.card.pii}
    return [(c.name, c.type, found.get(c.name, "")) for c in dataset.schema.columns]


@command.command()
@click.argument("name")
@click.option("--as-of", default="", metavar=POINT, help="As they were then.")
@click.option("--limit", default=1000, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def files(invocation: Invocation, name: str, as_of: str, limit: int, cursor: str) -> None:
    """The objects that make up a dataset."""
    from lakehouse.contracts.catalog import PageRequest

    async with invocation.clients() as clients:
        request = PageRequest(name, point(as_of), limit, cursor)
        result = await clients.catalog.files(invocation.context(), request)
    rows = [(f.bucket, f.key, f.rows, size_text(f.size_bytes), f.sha256[:12]) for f in result.files]
    invocation.output.records(result, ("bucket", "key", "rows", "size", "sha256"), rows)
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")


@command.command()
@click.argument("name")
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def versions(invocation: Invocation, name: str, limit: int, cursor: str) -> None:
    """What happened to a dataset, newest first."""
    from lakehouse.contracts.catalog import PageRequest

    async with invocation.clients() as clients:
        request = PageRequest(name, limit=limit, cursor=cursor)
        result = await clients.catalog.versions(invocation.context(), request)
    rows = [
        (
            v.version,
            time_text(v.at),
            v.operation,
            v.actor,
            v.rows_added,
            v.rows_removed,
            v.row_count,
            v.source,
        )
        for v in result.versions
    ]
    columns = ("version", "at", "operation", "by", "added", "removed", "rows", "source")
    invocation.output.records(result, columns, rows)
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")


@command.command()
@click.argument("name")
@click.option("--owner", help="Who answers for it.")
@click.option("--description", help="What it is.")
@click.option("--sensitivity", help="public, internal, confidential or restricted.")
@click.option("--tag", "tags", multiple=True, help="Replaces its tags; repeatable.")
@click.option("--source-system", help="Where it comes from.")
@click.option("--freshness-seconds", type=int, help="How old it may become.")
@node_command
async def card(invocation: Invocation, name: str, **given: Any) -> None:
    """Change what is given of a dataset's card."""
    from lakehouse.contracts.catalog import UpdateCardRequest

    request = UpdateCardRequest(
        name,
        given["owner"],
        given["description"],
        given["sensitivity"],
        given["tags"] or None,
        given["source_system"],
        given["freshness_seconds"],
    )
    async with invocation.clients() as clients:
        result = await clients.catalog.update_card(invocation.context(), request)
    invocation.output.record(result, card_lines(result.dataset))


@command.command()
@click.argument("name")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--owner", required=True, help="Who answers for it.")
@click.option("--description", required=True, help="What it is.")
@click.option(
    "--sensitivity", default="internal", help="public, internal, confidential, restricted."
)
@click.option("--tag", "tags", multiple=True, help="For the card; repeatable.")
@click.option("--source-system", default="", help="Where it comes from.")
@click.option("--bucket", default="primary", show_default=True, help="Where the objects are.")
@click.option("--copy", is_flag=True, help="Copy the objects in; else they are referred to.")
@click.option("--home", default="", help="A new one's bucket, of copies  [default: --bucket]")
@click.option("--key", "primary_key", default="", metavar="COL,COL", help="The primary key.")
@click.option("--fingerprint", default="", help="Refuse another schema than this one's.")
@click.option("--expected-version", type=int, help="Refuse if it changed since; 0: it must be new.")
@click.option("--idempotency-key", default="", help="Of this call  [default: a new one]")
@node_command
async def register(invocation: Invocation, name: str, keys: tuple[str, ...], **given: Any) -> None:
    """Make Parquet objects that are in a bucket already a dataset, or confirm that they are.

    The same name with another schema is refused, with the difference.
    """
    from lakehouse.contracts.catalog import ForeignObject, RegisterRequest
    from lakehouse.model.dataset import Card, Lineage

    card = Card(
        owner=given["owner"],
        description=given["description"],
        sensitivity=_sensitivity(given["sensitivity"]),
        tags=given["tags"],
        lineage=Lineage(source_system=given["source_system"]),
    )
    request = RegisterRequest(
        name,
        tuple(ForeignObject(key, given["bucket"], given["copy"]) for key in keys),
        card,
        given["fingerprint"],
        primary_key=tuple(part.strip() for part in given["primary_key"].split(",") if part),
        expected_version=given["expected_version"],
        bucket=given["home"],
    )
    ctx = invocation.context(given["idempotency_key"] or invocation.context().request_id)
    async with invocation.clients() as clients:
        result = await clients.catalog.register(ctx, request)
    invocation.output.record(result, card_lines(result.dataset))


def _sensitivity(text: str) -> Sensitivity:
    from lakehouse.model.dataset import Sensitivity

    try:
        return Sensitivity(text)
    except ValueError:
        raise LakehouseError(
            ErrorKind.INVALID,
            "there is no such sensitivity",
            value=text,
            known=[one.value for one in Sensitivity],
        ) from None


@command.command()
@click.argument("name")
@click.argument("new_name")
@node_command
async def rename(invocation: Invocation, name: str, new_name: str) -> None:
    """Give a dataset another name."""
    from lakehouse.contracts.catalog import RenameRequest

    async with invocation.clients() as clients:
        request = RenameRequest(name, new_name)
        result = await clients.catalog.rename(invocation.context(), request)
    invocation.output.record(result, {"dataset": result.dataset.name, "version": result.version})


@command.command()
@click.argument("name")
@click.option("--purge", is_flag=True, help="For good: it cannot be restored.")
@node_command
async def drop(invocation: Invocation, name: str, purge: bool) -> None:
    """Drop a dataset; restore brings it back for 7 days."""
    from lakehouse.contracts.catalog import DropRequest

    async with invocation.clients() as clients:
        result = await clients.catalog.drop(invocation.context(), DropRequest(name, purge))
    invocation.output.record(
        result, {"purged" if purge else "dropped": name, "version": result.version}
    )


@command.command()
@click.argument("name")
@click.option("--as", "new_name", default="", help="Under this name: its own may be taken.")
@node_command
async def restore(invocation: Invocation, name: str, new_name: str) -> None:
    """Bring a dropped dataset back."""
    from lakehouse.contracts.catalog import RestoreRequest

    async with invocation.clients() as clients:
        request = RestoreRequest(name, new_name)
        result = await clients.catalog.restore(invocation.context(), request)
    invocation.output.record(result, {"restored": result.dataset.name, "version": result.version})


def _plan_options(function: Any) -> Any:
    plan = click.option("--plan", default="", metavar="HASH", help="Apply exactly this plan.")
    return click.option("--dry-run", is_flag=True, help="Show the plan and its hash.")(
        plan(function)
    )


@command.command()
@_plan_options
@node_command
async def dedupe(invocation: Invocation, dry_run: bool, plan: str) -> None:
    """Fold datasets that share a name into one; every reachable row is conserved."""
    from lakehouse.contracts.catalog import PlanRequest

    async with invocation.clients() as clients:
        request = PlanRequest(dry_run, plan)
        report = await clients.catalog.dedupe(invocation.context(), request)
    rows = [
        (g.name, g.kept_id, len(g.dropped_ids), g.files_conserved, g.rows_conserved, g.reason)
        for g in report.groups
    ]
    columns = ("dataset", "kept", "folded", "files", "rows", "because")
    invocation.output.records(report, columns, rows)
    for name in report.skipped:
        invocation.output.say(
            f"{name}: keeps more than one dataset: another schema, other column ids, or damage;"
            " rename or drop what is not wanted"
        )
    _say_plan(invocation, report.applied, report.plan if report.groups else "")


@command.command()
@click.option("--apply", is_flag=True, help="Quarantine datasets with damaged files.")
@click.option("--deep", is_flag=True, help="Read and check every byte, not existence and size.")
@click.option("--plan", default="", metavar="HASH", help="Apply exactly this plan.")
@node_command
async def fsck(invocation: Invocation, apply: bool, deep: bool, plan: str) -> None:
    """Check that every object the catalog names is there and whole; changes nothing by itself.

    Ends with exit code 65 if there are findings.
    """
    from lakehouse.contracts.catalog import FsckRequest

    async with invocation.clients() as clients:
        request = FsckRequest(dry_run=not (apply or plan), deep=deep, plan=plan)
        report = await clients.catalog.fsck(invocation.context(), request)
    rows = [(f.kind, f.dataset, f.key, f.detail) for f in report.findings]
    invocation.output.records(report, ("finding", "dataset", "key", "detail"), rows)
    invocation.output.say(
        f"{counted(report.objects_checked, 'object')} checked,"
        f" {size_text(report.bytes_checked)} read, {counted(len(report.findings), 'finding')}"
    )
    if report.quarantined:
        done = "quarantined" if report.applied else "to be quarantined"
        invocation.output.say(f"{done}: {', '.join(report.quarantined)}")
    if report.findings:
        _say_plan(invocation, report.applied, report.plan if report.quarantined else "")
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "the catalog and the buckets do not agree",
            findings=len(report.findings),
            kinds=", ".join(sorted({finding.kind for finding in report.findings})),
            hint="restore damaged objects from a copy, or quarantine what names them; orphans are"
            " taken out by: lakehouse catalog collect",
        )


@command.command()
@_plan_options
@node_command
async def collect(invocation: Invocation, dry_run: bool, plan: str) -> None:
    """Give up what no retained version needs, and delete it after the readers' time."""
    from lakehouse.contracts.catalog import PlanRequest

    async with invocation.clients() as clients:
        request = PlanRequest(dry_run, plan)
        report = await clients.catalog.collect(invocation.context(), request)
    invocation.output.records(report, ("object",), [(key,) for key in report.objects])
    invocation.output.say(
        f"{counted(len(report.objects), 'object')}, {size_text(report.size_bytes)},"
        f" history kept from version {report.horizon}"
    )
    _say_plan(invocation, report.applied, report.plan)


def _say_plan(invocation: Invocation, applied: bool, plan: str) -> None:
    """``plan``: "" where there is nothing to apply."""
    if applied:
        invocation.output.say("applied")
    elif plan:
        invocation.output.say(f"nothing changed; to apply: --plan {plan}")
    else:
        invocation.output.say("nothing to do")


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@node_command
async def import_(invocation: Invocation, file: Path) -> None:
    """Import manifests of a catalog that was written without unique names.

    FILE is a JSON array of {name, keys, row_count, updated_at, bucket}; names may repeat, and
    dedupe folds them afterwards.
    """
    from lakehouse.cli.manifests import read_manifests
    from lakehouse.contracts.catalog import ImportRequest

    request = ImportRequest(read_manifests(file))
    async with invocation.clients() as clients:
        report = await clients.catalog.import_datasets(invocation.context(), request)
    invocation.output.record(report, {"imported": report.imported, "duplicates": report.duplicates})
