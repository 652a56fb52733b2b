"""Cards, changes and reports: values made of an ingest's outcome. Pure."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from lakehouse.contracts.ingest import CardHints, IngestReport, IngestRequest, IngestWarning
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.dialect import LINES_SKIPPED
from lakehouse.ingestd.parquet_out import LocalParquet
from lakehouse.model.dataset import Card, DataFile, Dataset, Lineage, Sensitivity
from lakehouse.model.refs import PRIMARY, ObjectRef
from lakehouse.table.pii import detect, suggest_sensitivity

DRY_RUN_ROWS: Final = 20
_SAFE_INTEGER: Final = 2**53
_CARD_KEPT: Final = IngestWarning(
    "card_unchanged",
    "nothing was written, so the card stays as it is: change it at the dataset itself",
)
DEAD_LETTERS_SUFFIX: Final = "__dead_letters"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a report says of the call itself."""

    content_digest: str
    bytes_read: int
    elapsed_ms: float


def card_of(hints: CardHints, owner: str, source: str, ingest: str, sample: pa.Table) -> Card:
    """The card of a new dataset: what was said, and what was detected in its place (ADR-013)."""
    findings = detect(sample)
    detected = [] if hints.owner else ["owner"]
    sensitivity = suggest_sensitivity(findings)
    if hints.sensitivity:
        sensitivity = stated_sensitivity(hints.sensitivity)
    else:
        detected.append("sensitivity")
    if findings:
        detected.append("pii")
    return Card(
        owner=hints.owner or owner,
        description=hints.description,
        sensitivity=sensitivity,
        tags=hints.tags,
        lineage=Lineage(source_system=hints.source_system or source, ingest=ingest),
        freshness_sla_seconds=hints.freshness_sla_seconds,
        pii=findings,
        detected=tuple(detected),
    )


def card_after(card: Card, hints: CardHints, sample: pa.Table | None) -> Card:
    """An existing card with what was said put in, and no longer called detected.

    ``sample``: of the rows that take the place of all others; what was detected is found anew.
    """
    said: dict[str, Any] = {
        "owner": hints.owner,
        "description": hints.description,
        "sensitivity": stated_sensitivity(hints.sensitivity) if hints.sensitivity else None,
        "tags": hints.tags,
        "freshness_sla_seconds": hints.freshness_sla_seconds,
    }
    said = {name: value for name, value in said.items() if value not in ("", (), None)}
    if hints.source_system:
        said["lineage"] = replace(card.lineage, source_system=hints.source_system)
    after = replace(card, **said, detected=tuple(x for x in card.detected if x not in said))
    if sample is None or (card.pii and "pii" not in card.detected):
        return after
    findings = detect(sample)
    detected = tuple(x for x in after.detected if x != "pii") + (("pii",) if findings else ())
    after = replace(after, pii=findings, detected=detected)
    if "sensitivity" in after.detected:
        after = replace(after, sensitivity=suggest_sensitivity(findings))
    return after


def stated_sensitivity(text: str) -> Sensitivity:
    """Raises ``invalid`` naming the levels there are."""
    try:
        return Sensitivity(text)
    except ValueError:
        raise LakehouseError(
            ErrorKind.INVALID,
            "this sensitivity is not known",
            sensitivity=text[:40],
            known=[level.value for level in Sensitivity],
        ) from None


def data_file(
    local: LocalParquet, ref: ObjectRef, schema_id: int, stats_sha256: str = ""
) -> DataFile:
    """A spooled file as the catalog will know it; its statistics themselves, or the hash of the
    object beside it that has them."""
    return DataFile(
        key=ref.key,
        size_bytes=local.size_bytes,
        rows=local.rows,
        sha256=local.sha256,
        bucket=ref.bucket,
        schema_id=schema_id,
        rows_hash=local.rows_hash,
        stats=local.stats if ref.bucket == PRIMARY else (),
        stats_sha256=stats_sha256,
    )


def without_texts(report: IngestReport) -> IngestReport:
    """``report`` without what its warnings repeat of the file, for rows outside the primary bucket:
    a text of theirs must not be kept elsewhere."""
    warnings = tuple(
        replace(one, message=LINES_SKIPPED) if one.message.startswith(LINES_SKIPPED) else one
        for one in report.warnings
    )
    return replace(report, warnings=warnings)


def sample_json(sample: pa.Table) -> str:
    """Up to 20 rows as a JSON array of objects; integers over 2^53 and decimals are strings."""
    return json.dumps(_plain(sample.slice(0, DRY_RUN_ROWS).to_pylist()), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal) or (isinstance(value, float) and value - value != 0):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _SAFE_INTEGER:
        return str(value)
    return value


def no_op_report(
    request: IngestRequest, dataset: Dataset, rows: int, version: int, measured: Measured
) -> IngestReport:
    """The content is there already: ``rows`` of it, since ``version``."""
    unheard = card_after(dataset.card, request.card, None) != dataset.card
    return IngestReport(
        dataset=dataset.name,
        version=version,
        rows=rows,
        files=0,
        no_op=True,
        created=False,
        dead_letters=0,
        dead_letter_dataset="",
        schema=dataset.schema.columns,
        warnings=(_CARD_KEPT,) if unheard else (),
        content_digest=measured.content_digest,
        format=request.options.format.value,
        mode=request.mode.value,
        bytes_read=measured.bytes_read,
        elapsed_ms=measured.elapsed_ms,
    )
