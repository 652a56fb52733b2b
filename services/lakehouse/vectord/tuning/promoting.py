"""The setting of a trial becomes that of an index version: one commit.

What is searched with changes at once. A graph of another shape is built beside by who keeps
structures (``images``), which looks at the profile; until then the one there is answers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lakehouse.contracts.trials import PromoteRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import Trial
from lakehouse.model.vectors import IndexVersion, VectorIndexInfo
from lakehouse.vectord.documents import Documents, put_index, version_of, with_version
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.repeating import answered, asked, recall
from lakehouse.vectord.structures import HNSW
from lakehouse.vectord.tuning.checking import check_graph

__all__ = ["is_reshaped", "promote"]

_ATTEMPTS: Final = 8


async def promote(
    parts: VectorParts, documents: Documents, ctx: Context, request: PromoteRequest, trial: Trial
) -> tuple[VectorIndexInfo, IndexVersion, int]:
    """The index, its version and the version of the store afterwards. Raises ``conflict`` for a
    trial without a graph, and a version that has none."""
    if trial.kind != HNSW or not trial.m:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the trial is of no graph, so there is no setting to take over",
            trial=trial.id,
            trial_kind=trial.kind,
            note=trial.note,
            hint="promote a trial of an autotune run",
        )
    number = request.number or trial.number
    commit = asked(ctx, "trials.promote", request)
    for attempt in range(_ATTEMPTS):
        info, store_version = await documents.read(ctx, trial.index)
        version = version_of(info, number)
        if await recall(parts.catalog, ctx, commit) is not None:
            return info, version, store_version
        check_graph(info, version)
        changed = with_setting(version, trial)
        if changed == version and not commit.request_sha256:
            return info, version, store_version
        whole = put_index(with_version(info, changed), info.version, answered(commit, {}))
        try:
            done = await parts.catalog.commit(ctx, whole)
        except LakehouseError as error:
            if error.kind is not ErrorKind.CONFLICT or attempt == _ATTEMPTS - 1:
                raise
            continue
        info = replace(with_version(info, changed), version=done.version)
        return info, changed, done.version
    raise LakehouseError(ErrorKind.INTERNAL, "a trial was never promoted")


def with_setting(version: IndexVersion, trial: Trial) -> IndexVersion:
    """``version`` with the setting of ``trial``. Structures of before this was told of them have
    the shape that the profile had until now."""
    before = version.profile
    told = tuple(
        replace(one, m=before.hnsw_m, ef_construction=before.ef_construction)
        if one.kind == HNSW and not one.m
        else one
        for one in version.structures
    )
    profile = replace(
        before,
        hnsw_m=trial.m,
        ef_construction=trial.ef_construction,
        ef_search=trial.ef,
    )
    return replace(version, profile=profile, structures=told)


def is_reshaped(version: IndexVersion) -> bool:
    """Whether a graph of ``version`` has another shape than its profile."""
    m = version.profile.hnsw_m
    shape = (m, max(m, version.profile.ef_construction))
    return any(
        one.kind == HNSW and (one.m, max(one.m, one.ef_construction)) != shape
        for one in version.structures
    )
