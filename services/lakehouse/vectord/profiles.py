"""Profiles: documents of the catalog over those that come with the release."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson

from lakehouse.contracts import profiles as c
from lakehouse.contracts.catalog import Document, DocumentsRequest
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.model.changes import DeleteDocument, DocumentAt, PutDocument
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import check_name, name_key
from lakehouse.model.vectors import (
    DIMENSIONS_MAX,
    INDEX_DOCUMENTS,
    PROFILE_DOCUMENTS,
    Chunking,
    Profile,
    VectorBackend,
    VectorIndexInfo,
)
from lakehouse.vectord.chunking import check_chunking
from lakehouse.vectord.codec import from_json, to_json
from lakehouse.vectord.naming import no_such_name
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.repeating import answered, asked, recall

__all__ = ["Profiles", "builtin_profiles", "check_profile"]

_NAME_BYTES_MAX: Final = 200
_TEXT_MAX: Final = 1_000
_ATTEMPTS: Final = 8
_RANGES: Final = {
    "dimensions": (0, DIMENSIONS_MAX),
    "hnsw_m": (2, 128),
    "ef_construction": (8, 4_000),
    "ef_search": (0, 100_000),
    "exact_rows_max": (0, 1_000_000),
}


def builtin_profiles(
    folder: str, given: Mapping[str, Mapping[str, object]] | None = None
) -> Mapping[str, Profile]:
    """Those of the release, over them those of the TOML files in ``folder``, and over these what
    is ``given`` (``VectorSettings.profiles``), by name key; a folder that is not there has none.
    Raises ``invalid`` for what is no profile."""
    found = [
        Profile(
            "conversation",
            chunking=Chunking(overlap=0),
            description="turns of conversations, whole or by sentences",
        ),
        Profile("default", description="sentences through a small model; graphs over Parquet"),
        Profile("lance", vector_backend=VectorBackend.LANCE, description="as default, in Lance"),
    ]
    if folder and Path(folder).is_dir():
        found += [_from_file(path) for path in sorted(Path(folder).glob("*.toml"))]
    profiles = {name_key(one.name): one for one in found}
    for name, fields in (given or {}).items():
        key = name_key(name)
        profiles[key] = _configured(profiles.get(key, Profile(name)), name, fields)
    return {key: replace(one, builtin=True) for key, one in profiles.items()}


def _configured(under: Profile, name: str, given: Mapping[str, object]) -> Profile:
    whole: dict[str, Any] = orjson.loads(to_json(under))
    for field, value in given.items():
        outer, _, inner = field.rpartition(".")
        (whole[outer] if outer else whole)[inner] = value
    try:
        profile = from_json(Profile, orjson.dumps(whole).decode())
        check_profile(profile)
    except (LakehouseError, TypeError) as error:
        fields = error.fields if isinstance(error, LakehouseError) else {}
        inside = {**fields, "reason": str(error)[:300], "key": f"profiles.{name}"}
        message = "a profile of the configuration is none"
        raise LakehouseError(ErrorKind.INVALID, message, **inside) from error
    return profile


def _from_file(path: Path) -> Profile:
    try:
        given: dict[str, Any] = tomllib.loads(path.read_text())
        known = {"name", *Profile.__dataclass_fields__} - {"builtin"}
        unknown = sorted(given.keys() - known)
        if unknown:
            raise LakehouseError(ErrorKind.INVALID, "an unknown key", key=unknown[0])
        text = orjson.dumps({"name": path.stem, **given}).decode()
        profile = from_json(Profile, text)
        check_profile(profile)
    except (OSError, ValueError, TypeError, LakehouseError) as error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a profile's file cannot be read",
            file=path.name,
            reason=str(error.__cause__ or error)[:300],
        ) from error
    return profile


def check_profile(profile: Profile) -> None:
    """Raise ``invalid`` for a value that is out of range."""
    if len(check_name(profile.name, "profile name").encode()) > _NAME_BYTES_MAX:
        raise _bad("a profile's name is too long", name=profile.name[:80], max=_NAME_BYTES_MAX)
    if not profile.model.strip() or len(profile.model) > _TEXT_MAX:
        raise _bad("a profile names its model", model=profile.model[:80])
    if not profile.model.isprintable():
        raise _bad("a model's name has characters that cannot be shown")
    if len(profile.description) > _TEXT_MAX:
        raise _bad("a description is too long", characters=len(profile.description), max=_TEXT_MAX)
    for name, (least, most) in _RANGES.items():
        value = getattr(profile, name)
        if not least <= value <= most:
            raise _bad(
                "a value of the profile is out of range",
                field=name,
                value=value if abs(value) < 1 << 53 else str(value)[:40],
                minimum=least,
                maximum=most,
            )
    check_chunking(profile.chunking)


def _bad(message: str, **fields: FieldValue) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)


class Profiles:
    """Implements ``contracts.profiles.ProfilesService``. Belongs to one event loop.

    Raises ``invalid`` for a file of the configuration's folder that is no profile, or a section of
    it.
    """

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts
        settings = parts.settings
        self._builtin = builtin_profiles(settings.profiles_dir, settings.profiles)

    async def get(self, ctx: Context, request: c.ProfileRequest) -> c.ProfileResult:
        ctx.require(Scope.READ)
        documents, _ = await self._documents(ctx)
        found = self._find(documents, request.name)
        if found is None:
            raise self._no_such_profile(documents, request.name)
        return found

    async def list(self, ctx: Context, request: c.ListProfilesRequest) -> c.ListProfilesResult:
        ctx.require(Scope.READ)
        documents, version = await self._documents(ctx)
        profiles = dict(self._builtin)
        profiles |= {key: from_json(Profile, each.body) for key, each in documents.items()}
        return c.ListProfilesResult(tuple(profiles[key] for key in sorted(profiles)), version)

    async def put(self, ctx: Context, request: c.PutProfileRequest) -> c.ProfileResult:
        ctx.require(Scope.WRITE)
        check_profile(request.profile)
        name = check_name(request.profile.name, "profile name")
        profile = replace(request.profile, name=name, builtin=False)
        if profile.bucket:
            await self._parts.buckets.find(ctx, (profile.bucket,))
            self._parts.buckets.settings(profile.bucket)
        commit = asked(ctx, "profiles.put", request)
        for attempt in range(_ATTEMPTS):
            done = await recall(self._parts.catalog, ctx, commit)
            if done is not None:
                return c.ProfileResult(profile, done[0], bool(done[1].get("created")), True)
            documents, _ = await self._documents(ctx)
            there = self._find(documents, name)
            version = 0 if there is None else there.version
            self._check_expected(request, version)
            if there is not None and version and there.profile == profile:
                return there
            put = PutDocument(PROFILE_DOCUMENTS, name_key(name), to_json(profile))
            created = there is None
            whole = replace(
                answered(commit, {"created": created}),
                changes=(put,),
                requirements=(DocumentAt(PROFILE_DOCUMENTS, name_key(name), version),),
            )
            try:
                result = await self._parts.catalog.commit(ctx, whole)
            except LakehouseError as error:
                if error.kind is not ErrorKind.CONFLICT or attempt == _ATTEMPTS - 1:
                    raise
                continue
            return c.ProfileResult(profile, result.version, created, True)
        raise LakehouseError(ErrorKind.INTERNAL, "a profile was never put")

    async def delete(self, ctx: Context, request: c.DeleteProfileRequest) -> c.ProfileResult:
        ctx.require(Scope.WRITE)
        commit = asked(ctx, "profiles.delete", request)
        done = await recall(self._parts.catalog, ctx, commit)
        if done is not None:
            return c.ProfileResult(from_json(Profile, done[1]["profile"]), done[0], changed=True)
        documents, _ = await self._documents(ctx)
        key = name_key(request.name)
        if key not in documents:
            if key in self._builtin:
                raise LakehouseError(
                    ErrorKind.CONFLICT,
                    "a builtin profile cannot be deleted",
                    profile=request.name,
                    hint="put one of the same name over it to change it",
                )
            raise self._no_such_profile(documents, request.name)
        there = documents[key]
        profile = from_json(Profile, there.body)
        if key not in self._builtin:
            await self._check_unused(ctx, profile)
        whole = replace(
            answered(commit, {"profile": to_json(profile)}),
            changes=(DeleteDocument(PROFILE_DOCUMENTS, key),),
            requirements=(DocumentAt(PROFILE_DOCUMENTS, key, there.version),),
        )
        result = await self._parts.catalog.commit(ctx, whole)
        return c.ProfileResult(self._builtin.get(key, profile), result.version, changed=True)

    async def _documents(self, ctx: Context) -> tuple[dict[str, Document], int]:
        found = await self._parts.catalog.documents(ctx, DocumentsRequest(PROFILE_DOCUMENTS))
        return {each.id: each for each in found.documents}, found.version

    def _find(self, documents: Mapping[str, Document], name: str) -> c.ProfileResult | None:
        key = name_key(name)
        document = documents.get(key)
        if document is not None:
            return c.ProfileResult(from_json(Profile, document.body), document.version)
        builtin = self._builtin.get(key)
        return None if builtin is None else c.ProfileResult(builtin, 0)

    def _check_expected(self, request: c.PutProfileRequest, version: int) -> None:
        if request.expected_version is not None and request.expected_version != version:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the profile changed meanwhile",
                profile=request.profile.name,
                expected_version=request.expected_version,
                version=version,
                hint="read it again and decide anew",
            )

    async def _check_unused(self, ctx: Context, profile: Profile) -> None:
        found = await self._parts.catalog.documents(ctx, DocumentsRequest(INDEX_DOCUMENTS))
        infos = [from_json(VectorIndexInfo, each.body) for each in found.documents]
        key = name_key(profile.name)
        users = [info.name for info in infos if name_key(info.profile) == key]
        if users:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "indexes name the profile",
                profile=profile.name,
                indexes=[*users[:10]],
                count=len(users),
                hint="build them with another profile, or delete them, first",
            )

    def _no_such_profile(self, documents: Mapping[str, Document], name: str) -> LakehouseError:
        names = {key: key for key in sorted({*self._builtin, *documents})}
        hint = "list the profiles to see their names"
        return no_such_name("there is no profile of this name", "profile", name, names, hint)
