"""Upload what was written and make it live by one commit; on a lost race look again.

The order is the law: objects first, then one commit. What was uploaded and not committed belongs to
the session, and is collected when that has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lakehouse.contracts.catalog import (
    AsOf,
    CatalogService,
    CommitRequest,
    GetRequest,
    PageRequest,
)
from lakehouse.contracts.ingest import IngestReport, IngestRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.answers import asked_sha256, kept_answer, told_again
from lakehouse.ingestd.convert import Outcome
from lakehouse.ingestd.deadletters import DEAD_LETTER_SCHEMA
from lakehouse.ingestd.deciding import Action, Standing
from lakehouse.ingestd.keyed import Delta
from lakehouse.ingestd.parquet_out import LocalParquet
from lakehouse.ingestd.reports import (
    DEAD_LETTERS_SUFFIX,
    card_after,
    card_of,
    data_file,
    without_texts,
)
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.uploading import PREFIX, put_file, put_stats
from lakehouse.kit.ids import Ids
from lakehouse.model.changes import (
    AddFiles,
    Change,
    CreateDataset,
    DatasetAt,
    DigestAbsent,
    NameFree,
    RemoveFiles,
    Requirement,
    RowsAt,
    SchemaIs,
    SetCard,
    SetPrimaryKey,
)
from lakehouse.model.dataset import Card, DataFile, Dataset, Lineage, VersionEntry
from lakehouse.model.identity import Context
from lakehouse.model.refs import PRIMARY, ObjectRef
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.scoped import ScopedStore
from lakehouse.table.fingerprint import fingerprint

_VERSIONS: Final = 100
_ROUTE: Final = "ingest"


@dataclass(frozen=True, slots=True)
class Job:
    """One ingest on its way to a commit. ``source`` goes into version entries."""

    request: IngestRequest
    name: str
    digest: str
    source: str


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Objects in a bucket, not live yet; only for the dataset id and session in their keys.

    ``delta``: what they do to the rows of a dataset with a primary key, by key."""

    dataset_id: str
    bucket: str
    session_id: str
    files: tuple[DataFile, ...]
    dead_id: str = ""
    dead_files: tuple[DataFile, ...] = ()
    delta: Delta | None = None


class Committer:
    """Talks to the catalog and the buckets for the ingest service."""

    def __init__(
        self, settings: IngestSettings, catalog: CatalogService, buckets: Buckets, ids: Ids
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._buckets = buckets
        self._ids = ids

    async def find(self, ctx: Context, name: str) -> Dataset | None:
        """The dataset that lives under ``name``, if any."""
        try:
            return (await self._catalog.get(ctx, GetRequest(name))).dataset
        except LakehouseError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return None
            raise

    async def standing(self, ctx: Context, job: Job) -> Standing:
        """What is there under the name, and whether it has this content already."""
        dataset = await self.find(ctx, job.name)
        if dataset is None:
            return Standing()
        version = await self._digest_version(ctx, dataset.id, job.digest)
        if version is None:
            return Standing(dataset)
        page = await self._catalog.versions(ctx, PageRequest(dataset.name, AsOf(), limit=_VERSIONS))
        entry = next((one for one in page.versions if one.version == version), None)
        if entry is None:
            entry = _bare_entry(dataset, version, job.digest)
        latest = next((one for one in page.versions if one.files_added or one.files_removed), entry)
        only = latest.version == version and entry.operation in ("create", "replace")
        return Standing(dataset, entry, only)

    async def _digest_version(self, ctx: Context, dataset_id: str, digest: str) -> int | None:
        """The version that brought this content, if rows of it live.

        Asked by a commit that never happens: its second requirement cannot hold, so all that the
        catalog can say is which of the two failed first, from the state it would commit on.
        """
        never = CommitRequest(
            (RemoveFiles(dataset_id, ()),),
            (DigestAbsent(dataset_id, digest), DatasetAt(dataset_id, -1)),
        )
        try:
            await self._catalog.commit(replace(ctx, idempotency_key=None), never)
        except LakehouseError as error:
            if error.kind is not ErrorKind.CONFLICT:
                raise
            version = error.fields.get("version")
            same = error.fields.get("content_digest") == digest
            return version if same and isinstance(version, int) else None
        raise LakehouseError(ErrorKind.INTERNAL, "a requirement that cannot hold was met")

    async def upload(
        self,
        ctx: Context,
        job: Job,
        outcome: Outcome,
        decided: tuple[Action, Standing],
        session_id: str,
    ) -> Uploaded:
        """Put all files below ``datasets/<session>/<dataset_id>/``, small ones in one PUT each; of
        an upsert only dead letters, for which of its rows are new is not known yet."""
        action, standing = decided
        dataset = standing.dataset
        dataset_id = dataset.id if dataset else self._ids.ulid()
        bucket = dataset.bucket if dataset else job.request.bucket or PRIMARY
        await self._buckets.find(ctx, (bucket,))
        schema_id = dataset.schema.id if dataset else 1
        dead_id = ""
        if outcome.dead_letter_files:
            dead = await self.find(ctx, job.name + DEAD_LETTERS_SUFFIX)
            dead_id = dead.id if dead else self._ids.ulid()
        store = ScopedStore(self._buckets.get(bucket), (PREFIX,))

        async def send(local: LocalParquet, owner: str, schema: int) -> DataFile:
            folder = f"{PREFIX}{session_id}/{owner}/"
            key = await put_file(
                store,
                lambda: f"{folder}{self._ids.ulid()}.parquet",
                local,
                self._settings.upload_whole_bytes_max,
            )
            ref = ObjectRef(bucket, key)
            return data_file(
                local, ref, schema, await put_stats(store, bucket, ref.key, local.stats)
            )

        whole = () if action is Action.UPSERT else outcome.files
        files = [await send(local, dataset_id, schema_id) for local in whole]
        dead_files = [await send(local, dead_id, 1) for local in outcome.dead_letter_files]
        return Uploaded(dataset_id, bucket, session_id, tuple(files), dead_id, tuple(dead_files))

    async def commit(
        self,
        ctx: Context,
        job: Job,
        outcome: Outcome,
        uploaded: Uploaded,
        decided: tuple[Action, Standing],
        report: IngestReport,
    ) -> IngestReport:
        """Make it live; ``report`` with its version, or the answer of an earlier call with the same
        idempotency key. Raises ``conflict`` if the world moved since the decision."""
        action, standing = decided
        changes, needs = self._main(ctx, job, outcome, uploaded, action, standing)
        if uploaded.dead_files:
            more, also = await self._dead(ctx, job, uploaded)
            changes += more
            needs += also
        if uploaded.bucket != PRIMARY:
            # The answer is kept with the commit, in the primary bucket.
            report = without_texts(report)
        commit = self._keyed(ctx, job, CommitRequest(tuple(changes), tuple(needs)))
        if commit.request_sha256:
            commit = replace(commit, answer_json=kept_answer(report))
        result = await self._catalog.commit(ctx, commit)
        if result.replayed and result.answer_json:
            return told_again(result.answer_json, result.version)
        return replace(report, version=result.version)

    async def recall(self, ctx: Context, job: Job) -> IngestReport | None:
        """What this very call came to when it was made before with its idempotency key. Raises
        ``invalid`` (422) if another one was made with it."""
        if not ctx.idempotency_key:
            return None
        result = await self._catalog.commit(ctx, self._keyed(ctx, job, CommitRequest(())))
        return told_again(result.answer_json, result.version) if result.replayed else None

    @staticmethod
    def _keyed(ctx: Context, job: Job, commit: CommitRequest) -> CommitRequest:
        if not ctx.idempotency_key:
            return commit
        sha256 = asked_sha256(job.request, job.digest)
        return replace(commit, request_sha256=sha256, route=_ROUTE)

    def _main(
        self,
        ctx: Context,
        job: Job,
        outcome: Outcome,
        uploaded: Uploaded,
        action: Action,
        standing: Standing,
    ) -> tuple[list[Change], list[Requirement]]:
        delta = uploaded.delta
        add = AddFiles(
            uploaded.dataset_id,
            uploaded.files + (delta.files if delta else ()),
            replace=action is Action.REPLACE,
            # An upsert may bring what others change again: it says nothing of the rows there are.
            content_digest="" if action is Action.UPSERT else job.digest,
            operation=action.value,
            source=job.source,
            workspace=ctx.workspace or "",
            reason=job.request.reason,
        )
        dataset = standing.dataset if delta is None else delta.dataset
        if dataset is None:
            hints = job.request.card
            card = card_of(
                hints, ctx.principal.id, ctx.source or "", ctx.request_id, outcome.sample
            )
            create = CreateDataset(
                uploaded.dataset_id,
                job.name,
                fingerprint(outcome.schema.columns),
                outcome.schema,
                card,
                outcome.key,
                uploaded.bucket,
            )
            return [create, add], [NameFree(job.name)]
        needs: list[Requirement] = [SchemaIs(dataset.id, dataset.fingerprint)]
        if delta is not None:
            needs.append(RowsAt(dataset.id, dataset.rows_version))
            if delta.nothing:
                # Dead letters alone.
                return [], needs
        if action is Action.REPLACE and delta is None:
            # What is replaced is what was looked at, not what came meanwhile.
            needs.append(DatasetAt(dataset.id, dataset.version))
        elif action is Action.APPEND and not job.request.options.force:
            needs.append(DigestAbsent(dataset.id, job.digest))
        changes: list[Change] = [add]
        if outcome.key and not dataset.primary_key and action is Action.REPLACE:
            changes.append(SetPrimaryKey(dataset.id, outcome.key))
        sample = outcome.sample if action is Action.REPLACE else None
        card = card_after(dataset.card, job.request.card, sample)
        if card != dataset.card:
            changes.append(SetCard(dataset.id, card))
            if action is not Action.REPLACE or delta is not None:
                # Nobody else's change of the card is undone.
                needs.append(DatasetAt(dataset.id, dataset.version))
        return changes, needs

    async def _dead(
        self, ctx: Context, job: Job, uploaded: Uploaded
    ) -> tuple[list[Change], list[Requirement]]:
        name = job.name + DEAD_LETTERS_SUFFIX
        add = AddFiles(
            uploaded.dead_id,
            uploaded.dead_files,
            operation="append",
            source=job.source,
            workspace=ctx.workspace or "",
            reason=job.request.reason,
        )
        known = await self.find(ctx, name)
        held = fingerprint(DEAD_LETTER_SCHEMA.columns)
        if known is not None:
            if known.id != uploaded.dead_id:
                raise LakehouseError(ErrorKind.CONFLICT, "the dead letters moved", dataset=name)
            if known.fingerprint != held:
                raise LakehouseError(
                    ErrorKind.INVALID,
                    "the name of the dead letters belongs to another dataset",
                    dataset=name,
                    hint="rename that dataset, or ingest under another name",
                )
            return [add], [SchemaIs(known.id, held)]
        card = Card(
            owner=job.request.card.owner or ctx.principal.id,
            description=f"rows of files for {job.name} that could not be read",
            lineage=Lineage(source_system=ctx.source or "", ingest=ctx.request_id),
            detected=("owner", "description"),
        )
        create = CreateDataset(
            uploaded.dead_id, name, held, DEAD_LETTER_SCHEMA, card, (), uploaded.bucket
        )
        return [create, add], [NameFree(name)]


def _bare_entry(dataset: Dataset, version: int, digest: str) -> VersionEntry:
    """For content that came so long ago that its entry is not on the newest page."""
    return VersionEntry(
        version=version,
        at=dataset.updated_at,
        operation="append",
        actor="",
        request_id="",
        rows_added=0,
        rows_removed=0,
        files_added=0,
        files_removed=0,
        row_count=dataset.row_count,
        schema_id=dataset.schema.id,
        content_digest=digest,
    )
