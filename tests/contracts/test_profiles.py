"""The profiles contract, called directly and over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.world import READER, WRITER, World, caller
from lakehouse.contracts import profiles as c
from lakehouse.contracts.catalog import CommitRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.model.changes import PutDocument
from lakehouse.model.identity import Scope
from lakehouse.model.vectors import (
    INDEX_DOCUMENTS,
    Chunking,
    ChunkMethod,
    Distance,
    Profile,
    VectorBackend,
    VectorIndexInfo,
)
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.codec import to_json
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.profiles import Profiles, builtin_profiles
from lakehouse.vectord.settings import VectorSettings

FOLDER = Path(__file__).parents[2] / "catalog" / "profiles"
MINE = Profile(
    "Mine",
    "another",
    384,
    Chunking(ChunkMethod.TOKENS, 64, 8),
    Distance.DOT,
    VectorBackend.LANCE,
    "extra",
    32,
    200,
    128,
    10,
    "for tests",
)


@pytest.fixture
async def profiles(here: World, transport: str) -> AsyncIterator[Any]:
    here.open_buckets(f"memory://{here.ids.ulid()}")
    catalog: Any = await here.open_catalog()
    nobody: Any = None
    jobs = ThreadPoolExecutor(1)
    parts = VectorParts(
        VectorSettings(profiles_dir=str(FOLDER)),
        catalog,
        *(nobody, nobody, nobody, nobody),
        here.buckets,
        HashingEmbedder(),
        here.clock,
        here.ids,
        jobs,
    )
    here.near["profiles"] = Profiles(parts)
    yield await here.connect(transport, "profiles")
    jobs.shutdown()


async def refusal(call: Any) -> LakehouseError:
    with pytest.raises(LakehouseError) as refused:
        await call
    return refused.value


async def test_the_builtin_ones_are_there(profiles: Any) -> None:
    found = await profiles.list(READER, c.ListProfilesRequest())
    assert [each.name for each in found.profiles] == ["conversation", "default", "lance"]
    assert all(each.builtin for each in found.profiles)
    lance = await profiles.get(READER, c.ProfileRequest("LANCE"))
    assert (lance.profile.vector_backend, lance.version) == (VectorBackend.LANCE, 0)


async def test_a_profile_is_put_changed_and_deleted(profiles: Any) -> None:
    made = await profiles.put(WRITER, c.PutProfileRequest(MINE, 0))
    assert (made.profile, made.created, made.changed) == (MINE, True, True)
    again = await profiles.put(WRITER, c.PutProfileRequest(MINE))
    assert (again.version, again.created, again.changed) == (made.version, False, False)
    found = await profiles.get(READER, c.ProfileRequest("mine"))
    assert (found.profile, found.version) == (MINE, made.version)
    error = await refusal(profiles.put(WRITER, c.PutProfileRequest(Profile("mine"), 0)))
    assert (error.kind, error.fields["version"]) == (ErrorKind.CONFLICT, made.version)
    changed = await profiles.put(WRITER, c.PutProfileRequest(Profile("Mine"), made.version))
    assert changed.version > made.version
    gone = await profiles.delete(WRITER, c.DeleteProfileRequest("MINE"))
    assert (gone.profile, gone.changed) == (Profile("Mine"), True)
    error = await refusal(profiles.get(READER, c.ProfileRequest("Mine")))
    assert error.kind is ErrorKind.NOT_FOUND


async def test_a_builtin_one_can_be_covered_and_is_there_again(profiles: Any) -> None:
    await profiles.put(WRITER, c.PutProfileRequest(Profile("default", "another")))
    found = (await profiles.get(READER, c.ProfileRequest("default"))).profile
    assert (found.model, found.builtin) == ("another", False)
    back = await profiles.delete(WRITER, c.DeleteProfileRequest("default"))
    assert (back.profile.model, back.profile.builtin) == ("all-minilm", True)
    error = await refusal(profiles.delete(WRITER, c.DeleteProfileRequest("default")))
    assert error.kind is ErrorKind.CONFLICT


async def test_a_profile_that_an_index_names_stays(profiles: Any, here: World) -> None:
    await profiles.put(WRITER, c.PutProfileRequest(MINE))
    now = to_datetime(here.clock.now_us())
    info = VectorIndexInfo("docs", "", "", (), "mine", 0, 0, (), now)
    put = PutDocument(INDEX_DOCUMENTS, "docs", to_json(info))
    await here.near["catalog"].commit(WRITER, CommitRequest((put,)))
    error = await refusal(profiles.delete(WRITER, c.DeleteProfileRequest("Mine")))
    assert (error.kind, error.fields["indexes"]) == (ErrorKind.CONFLICT, ["docs"])


async def test_the_nearest_name_is_told(profiles: Any) -> None:
    for call in (
        profiles.get(READER, c.ProfileRequest("defalt")),
        profiles.delete(WRITER, c.DeleteProfileRequest("defalt")),
    ):
        error = await refusal(call)
        assert (error.kind, error.fields["nearest"]) == (ErrorKind.NOT_FOUND, "default")


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        (Profile(""), "profile name"),
        (Profile("a/b"), "profile name"),
        (Profile("x" * 201), "too long"),
        (Profile("p", ""), "model"),
        (Profile("p", "a\nb"), "model"),
        (Profile("p", dimensions=-1), "dimensions"),
        (Profile("p", dimensions=8193), "dimensions"),
        (Profile("p", hnsw_m=1), "hnsw_m"),
        (Profile("p", ef_construction=5000), "ef_construction"),
        (Profile("p", ef_search=-1), "ef_search"),
        (Profile("p", exact_rows_max=-1), "exact_rows_max"),
        (Profile("p", description="x" * 1001), "description"),
        (Profile("p", chunking=Chunking(ChunkMethod.TOKENS, 0, 0)), "size"),
        (Profile("p", chunking=Chunking(ChunkMethod.TOKENS, 5, 5)), "overlap"),
    ],
)
async def test_a_value_out_of_range_is_refused(profiles: Any, profile: Profile, told: str) -> None:
    error = await refusal(profiles.put(WRITER, c.PutProfileRequest(profile)))
    assert error.kind is ErrorKind.INVALID
    assert told in f"{error} {error.fields}"


async def test_a_bucket_must_be_there(profiles: Any) -> None:
    error = await refusal(profiles.put(WRITER, c.PutProfileRequest(Profile("p", bucket="no"))))
    assert error.kind is ErrorKind.NOT_FOUND


async def test_who_may_read_may_not_write(profiles: Any) -> None:
    for call in (
        profiles.put(READER, c.PutProfileRequest(MINE)),
        profiles.delete(READER, c.DeleteProfileRequest("default")),
    ):
        assert (await refusal(call)).kind is ErrorKind.FORBIDDEN


async def test_a_repeated_call_has_one_effect(profiles: Any) -> None:
    ctx = caller(Scope.WRITE, idempotency_key="once")
    first = await profiles.put(ctx, c.PutProfileRequest(MINE))
    await profiles.put(WRITER, c.PutProfileRequest(Profile("Mine")))
    assert await profiles.put(ctx, c.PutProfileRequest(MINE)) == first
    assert (await profiles.get(READER, c.ProfileRequest("mine"))).profile == Profile("Mine")
    error = await refusal(profiles.put(ctx, c.PutProfileRequest(Profile("Mine"))))
    assert error.http_status == 422


def test_the_files_of_the_release_are_what_the_code_falls_back_to() -> None:
    from_files, from_code = builtin_profiles(str(FOLDER)), builtin_profiles("")
    assert from_files.keys() == from_code.keys()
    for name, profile in from_files.items():
        assert replace(profile, description="") == replace(from_code[name], description="")


@pytest.mark.parametrize("text", ["model = ", "modle = 'x'", "model = 7", "hnsw_m = 1"])
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.toml").write_text(text)
    with pytest.raises(LakehouseError) as refused:
        builtin_profiles(str(tmp_path))
    assert (refused.value.kind, refused.value.fields["file"]) == (ErrorKind.INVALID, "odd.toml")


def test_what_the_configuration_says_goes_over_a_file_key_by_key(tmp_path: Path) -> None:
    file = (
        'model = "of-the-file"\nhnsw_m = 8\n[chunking]\nmethod = "tokens"\nsize = 9\noverlap = 3\n'
    )
    (tmp_path / "Mine.toml").write_text(file)
    said = {"mine": {"model": "said", "chunking.size": 50}, "own": {"vector_backend": "lance"}}
    found = builtin_profiles(str(tmp_path), said)
    assert found["mine"] == Profile(
        "Mine", "said", chunking=Chunking(ChunkMethod.TOKENS, 50, 3), hnsw_m=8, builtin=True
    )
    assert found["own"] == Profile("own", vector_backend=VectorBackend.LANCE, builtin=True)
    assert found["default"] == builtin_profiles("")["default"]


async def test_what_was_put_goes_over_what_the_configuration_says(
    profiles: Any, here: World
) -> None:
    parts = here.near["profiles"]._parts
    said = replace(parts.settings, profiles={"mine": {"model": "said"}})
    own = Profiles(replace(parts, settings=said))
    request = c.ProfileRequest("Mine")
    assert (await own.get(READER, request)).profile.model == "said"
    await own.put(WRITER, c.PutProfileRequest(MINE))
    assert (await own.get(READER, request)).profile == MINE
    deleted = await own.delete(WRITER, c.DeleteProfileRequest("Mine"))
    assert deleted.profile.model == (await own.get(READER, request)).profile.model == "said"
    assert [one.name for one in (await own.list(READER, c.ListProfilesRequest())).profiles] == [
        "conversation",
        "default",
        "lance",
        "mine",
    ]
