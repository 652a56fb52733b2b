"""A version of an index that is to be: what it is of, where it goes, and whether it can be."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Final

from lakehouse.contracts import vectors as c
from lakehouse.contracts.catalog import GetRequest
from lakehouse.contracts.profiles import ProfileRequest
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.model.changes import Change
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context
from lakehouse.model.refs import PRIMARY, check_name, name_key
from lakehouse.model.residency import may_keep
from lakehouse.model.vectors import (
    DIMENSIONS_MAX,
    IndexVersion,
    Profile,
    VectorIndexInfo,
    VersionState,
)
from lakehouse.table.types import is_vector, to_arrow
from lakehouse.vectord.documents import version_of
from lakehouse.vectord.models import Models
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import ModelInfo
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.publishing import Home, dataset_of, vectors_name

__all__ = ["Made", "Maker", "Of", "bad", "check_same", "check_source", "checked_name"]

_NAME_BYTES_MAX: Final = 200
_COLUMNS_MAX: Final = 100
_LIKENESS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Of:
    """What an index is of. ``source`` None: given vectors, of ``dimensions``."""

    source: Dataset | None
    columns: tuple[str, ...]
    profile: Profile
    dimensions: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A version that is to be, and the change that makes its dataset."""

    version: IndexVersion
    change: Change


class Maker:
    """Looks at all that a version needs before anything is committed."""

    def __init__(self, parts: VectorParts, profiles: Profiles, models: Models) -> None:
        self._parts = parts
        self._profiles = profiles
        self._models = models

    async def profile(self, ctx: Context, name: str) -> Profile:
        """Raises ``not_found`` with the nearest name."""
        return (await self._profiles.get(ctx, ProfileRequest(name))).profile

    async def definition(self, ctx: Context, request: c.CreateIndexRequest) -> Of:
        """What ``request`` asks for, looked at. Raises ``not_found`` (profile, dataset, column) and
        ``invalid``."""
        profile = await self.profile(ctx, request.profile)
        if not request.dataset:
            _check_given(request, profile)
            return Of(None, (), profile, request.dimensions or profile.dimensions)
        if request.dimensions:
            raise bad(
                "the model says how many dimensions its vectors have",
                dimensions=request.dimensions,
                hint="leave dimensions out, or the dataset to give vectors yourself",
            )
        source = (await self._parts.catalog.get(ctx, GetRequest(request.dataset))).dataset
        check_source(source, request.columns)
        return Of(source, request.columns, profile)

    async def made(self, ctx: Context, name: str, number: int, of: Of) -> Made:
        """A version that is not there yet. Raises ``conflict`` (residency), ``not_found`` (bucket,
        model), and what the embedder raises."""
        home = await self._home(ctx, of.source, of.profile)
        if of.source is None:
            model = ModelInfo(of.profile.model, "", of.dimensions)
        else:
            model = await self._models.current(of.profile.model, fresh=True)
            _check_dimensions(of.profile, model)
        now = to_datetime(self._parts.clock.now_us())
        version = IndexVersion(
            number=number,
            state=VersionState.READY if of.source is None else VersionState.BUILDING,
            profile=of.profile,
            model=of.profile.model,
            model_digest=model.digest,
            dimensions=model.dimensions,
            vectors_dataset=vectors_name(name, number),
            vectors_dataset_id=self._parts.ids.ulid(),
            created_at=now,
            canary_sha256=model.canary_sha256,
            ready_at=now if of.source is None else None,
        )
        dataset_id, dimensions = version.vectors_dataset_id, model.dimensions
        change = dataset_of(dataset_id, name, number, dimensions, of.columns, home)
        return Made(version, change)

    async def _home(self, ctx: Context, source: Dataset | None, profile: Profile) -> Home:
        """Where the vectors go: they are of the residency of their texts, or nowhere."""
        bucket = profile.bucket or (source.bucket if source else PRIMARY)
        await self._parts.buckets.find(ctx, (bucket,))
        place = self._parts.buckets.settings(bucket).residency
        if source is not None and not may_keep(source.residency, place):
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the vectors would leave the residency of their dataset",
                dataset=source.name,
                residency=source.residency,
                bucket=bucket,
                bucket_residency=place,
                profile=profile.name,
                hint="take a profile whose bucket is of the same residency, or names none",
            )
        return Home(bucket, place, source, ctx.principal.id)


def bad(message: str, **fields: FieldValue) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)


def checked_name(name: str) -> str:
    name = check_name(name, "index name")
    if len(name.encode()) > _NAME_BYTES_MAX:
        raise bad("an index's name is too long", index=name[:80], max=_NAME_BYTES_MAX)
    return name


def _check_given(request: c.CreateIndexRequest, profile: Profile) -> None:
    if request.columns:
        raise bad("columns are of a dataset", columns=[*request.columns[:10]])
    dimensions = request.dimensions or profile.dimensions
    if not 1 <= dimensions <= DIMENSIONS_MAX:
        raise bad(
            "an index of given vectors needs their dimensions",
            dimensions=request.dimensions if abs(request.dimensions) < 1 << 53 else 0,
            minimum=1,
            maximum=DIMENSIONS_MAX,
            hint="or name a dataset and its columns, whose texts are embedded",
        )
    if profile.dimensions and dimensions != profile.dimensions:
        raise bad(
            "the profile has other dimensions",
            profile=profile.name,
            profile_dimensions=profile.dimensions,
            dimensions=dimensions,
        )


def check_source(source: Dataset, columns: tuple[str, ...]) -> None:
    if not columns:
        raise bad(
            "an index needs the columns whose texts it finds",
            dataset=source.name,
            columns=[*source.schema.names()[:100]],
        )
    if len(columns) > _COLUMNS_MAX or len(set(columns)) != len(columns):
        raise bad(
            "the columns of an index are different ones, and few",
            columns=[*columns[:10]],
            maximum=_COLUMNS_MAX,
        )
    types = {column.name: column.type for column in source.schema.columns}
    for name in columns:
        if name not in types:
            raise _no_such_column(source, name)
        if not _readable(types[name]):
            raise bad(
                "the column cannot be read as text",
                dataset=source.name,
                column=name,
                column_type=types[name],
                hint="take columns of texts, numbers, or times",
            )
    if not source.primary_key:
        raise bad(
            "the dataset has no primary key, so its rows cannot be told apart",
            dataset=source.name,
            columns=[*source.schema.names()[:100]],
            hint=f"declare one: PUT /ingest/datasets/{source.name}/key with its columns",
        )


def _readable(type_text: str) -> bool:
    nested = type_text.startswith(("list<", "struct<", "map<"))
    return not nested and type_text != "binary" and not is_vector(to_arrow(type_text))


def _no_such_column(source: Dataset, name: str) -> LakehouseError:
    names = list(source.schema.names())
    near = difflib.get_close_matches(name, names, n=1, cutoff=_LIKENESS)
    error = LakehouseError(
        ErrorKind.NOT_FOUND,
        "the dataset has no such column",
        dataset=source.name,
        column=name[:255],
        columns=[*names[:100]],
        hint=f"did you mean {near[0]}" if near else "see the dataset's schema",
    )
    if near:
        error.fields["nearest"] = near[0]
    return error


def _check_dimensions(profile: Profile, model: ModelInfo) -> None:
    if profile.dimensions and profile.dimensions != model.dimensions:
        raise bad(
            "the model has other dimensions than the profile says",
            profile=profile.name,
            dimensions=profile.dimensions,
            model=model.name,
            model_dimensions=model.dimensions,
            hint="say 0 to take what the model gives",
        )


def check_same(info: VectorIndexInfo, of: Of) -> None:
    """Raise ``conflict`` unless ``info`` is of just that."""
    said: dict[str, tuple[Any, Any]] = {
        "dataset": (info.dataset_id, of.source.id if of.source else ""),
        "columns": (list(info.columns), list(of.columns)),
        "profile": (name_key(info.profile), name_key(of.profile.name)),
    }
    if of.source is None:
        said["dimensions"] = (version_of(info, 0).dimensions, of.dimensions)
    for field, (there, wanted) in said.items():
        if there != wanted:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "an index of this name is there with another definition",
                index=info.name,
                field=field,
                there=there,
                wanted=wanted,
                hint="take another name, build a new version with another profile, or delete it",
            )
