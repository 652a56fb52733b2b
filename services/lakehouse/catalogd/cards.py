"""Cards (ADR-013): what a person must say, and what is found out by looking. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import Card, Lineage, PiiFinding, Sensitivity
from lakehouse.table import pii

__all__ = ["check_complete", "detected_card", "merged_card"]

_EMPTY = Card()


def check_complete(card: Card) -> None:
    """Raise ``invalid`` unless the card has what manual registration requires."""
    missing = [name for name in ("owner", "description") if not getattr(card, name).strip()]
    if missing:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a new dataset needs a card with an owner and a description",
            missing=list(missing),
            hint="say who answers for it and what it is; nobody trusts a mystery file",
        )


def _strongest(findings: Sequence[PiiFinding]) -> tuple[PiiFinding, ...]:
    """One finding a column and kind: the surest; in order of first sight."""
    best: dict[tuple[str, str], PiiFinding] = {}
    for finding in findings:
        old = best.get((finding.column, finding.kind))
        if old is None or finding.confidence > old.confidence:
            best[(finding.column, finding.kind)] = finding
    return tuple(best.values())


def detected_card(card: Card, samples: Sequence[pa.Table]) -> Card:
    """``card`` with what the samples show, where a person said nothing."""
    detected: list[str] = list(card.detected)
    if not card.pii:
        findings = _strongest([each for sample in samples for each in pii.detect(sample)])
        if findings:
            card = replace(card, pii=findings)
            detected.append("pii")
    suggested = pii.suggest_sensitivity(card.pii)
    if card.sensitivity is Sensitivity.INTERNAL and suggested is not Sensitivity.INTERNAL:
        card = replace(card, sensitivity=suggested)
        detected.append("sensitivity")
    if not card.lineage.ingest:
        card = replace(card, lineage=replace(card.lineage, ingest="register"))
        detected.append("lineage")
    return replace(card, detected=tuple(dict.fromkeys(detected)))


def merged_card(old: Card, new: Card) -> Card:
    """``old`` with what ``new`` says; a field that ``new`` leaves empty, or has by detection only,
    stays as a person left it."""
    fields: dict[str, object] = {}
    for name in ("owner", "description", "tags", "freshness_sla_seconds"):
        value = getattr(new, name)
        if value != getattr(_EMPTY, name):
            fields[name] = value
    found_now = "sensitivity" in new.detected
    said_now = new.sensitivity is not Sensitivity.INTERNAL and not found_now
    if said_now or (found_now and "sensitivity" in old.detected):
        fields["sensitivity"] = new.sensitivity
    if "pii" in old.detected or not old.pii:
        fields["pii"] = new.pii
    lineage = Lineage(
        source_system=new.lineage.source_system or old.lineage.source_system,
        ingest=old.lineage.ingest or new.lineage.ingest,
        inputs=new.lineage.inputs or old.lineage.inputs,
    )
    said = {name for name in fields if name not in new.detected}
    found = {name for name in new.detected if name in fields}
    detected = tuple(dict.fromkeys([*(n for n in old.detected if n not in said), *sorted(found)]))
    return replace(old, **fields, lineage=lineage, detected=detected)  # type: ignore[arg-type]
