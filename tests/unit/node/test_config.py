"""The configuration: what wins, what is refused, and how the refusal helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.node.config import config_keys, load_config

ROOT = Path(__file__).resolve().parents[3]


def _write(folder: Path, text: str) -> Path:
    path = folder / "lakehouse.toml"
    path.write_text(text)
    return path


def _refused(path: Path | None, environ: dict[str, str]) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        load_config(path, environ)
    return caught.value


def test_the_shipped_file_says_the_defaults(tmp_path: Path) -> None:
    shipped = load_config(ROOT / "lakehouse.toml", {}).values
    bare = load_config(_write(tmp_path, ""), {}).values
    assert {k: v.value for k, v in shipped.items()} == {k: v.value for k, v in bare.items()}
    assert {v.source for v in bare.values()} == {"default"}


def test_the_environment_wins_and_provenance_is_kept(tmp_path: Path) -> None:
    path = _write(tmp_path, '[gateway]\nhttp = "127.0.0.1:1"\n[query]\ntimeout_seconds = 5\n')
    environ = {"LAKEHOUSE__GATEWAY__HTTP": "127.0.0.1:2", "LAKEHOUSE_TOKEN": "x", "HOME": "/"}
    config = load_config(path, environ)
    assert config.listen.http == "127.0.0.1:2"
    assert config.query.timeout_seconds == 5.0
    assert config.values["gateway.http"].source == "LAKEHOUSE__GATEWAY__HTTP"
    assert config.values["query.timeout_seconds"].source == "lakehouse.toml"
    assert config.values["gateway.grpc"].source == "default"


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("[gateway]\nhtpp = '127.0.0.1:1'\n", "gateway.http"),
        ("[gatway]\nhttp = '127.0.0.1:1'\n", "gateway.http"),
        ("[buckets.client_a]\nurll = 'file:./x'\n", "buckets.client_a.url"),
        ("[query]\ntimeout = 5\n", "query.timeout_seconds"),
        ("[profiles.mine]\nmodle = 'x'\n", "profiles.mine.model"),
        ("[profiles.mine.chunking]\nsizes = 3\n", "profiles.mine.chunking.size"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, text: str, nearest: str) -> None:
    error = _refused(_write(tmp_path, text), {})
    assert error.kind is ErrorKind.INVALID
    assert error.fields["nearest"] == nearest


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("LAKEHOUSE__GATEWAY__HTPP", "LAKEHOUSE__GATEWAY__HTTP"),
        ("LAKEHOUSE__GATWAY__HTTP", "LAKEHOUSE__GATEWAY__HTTP"),
        ("LAKEHOUSE__BUCKETS__CLIENT_A__URLS", "LAKEHOUSE__BUCKETS__CLIENT_A__URL"),
        ("LAKEHOUSE__PROFILES__MINE__MODELS", "LAKEHOUSE__PROFILES__MINE__MODEL"),
    ],
)
def test_an_unknown_variable_names_the_nearest(tmp_path: Path, variable: str, nearest: str) -> None:
    error = _refused(_write(tmp_path, ""), {variable: "x"})
    assert error.fields["key"] == variable
    assert error.fields["nearest"] == nearest


def test_a_bucket_is_declared_by_the_environment_alone(tmp_path: Path) -> None:
    environ = {"LAKEHOUSE__BUCKETS__CLIENT_A__URL": "s3://a/b"}
    config = load_config(_write(tmp_path, ""), environ)
    assert config.buckets["client_a"].url == "s3://a/b"
    assert set(config.buckets) == {"client_a", "primary"}


def test_relative_places_belong_to_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    config = load_config(_write(folder, "[buckets.primary]\nurl = 'file:./x'\n"), {})
    assert config.buckets["primary"].url == (folder / "x").as_uri()
    assert config.query.spill_dir == str(folder / "data/spill")


@pytest.mark.parametrize(
    "text",
    [
        "[gateway]\nhttp = 3100\n",
        "[gateway]\nhttp = 'localhost'\n",
        "[gateway]\nhttp = '127.0.0.1:70000'\n",
        "[gateway]\nauth = 'maybe'\n",
        "[node]\nroles = ['gateway', 'cook']\n",
        "[node]\nroles = []\n",
        "[query]\nworkers_max = true\n",
        "[query]\nworkers_max = -1\n",
        "[query]\ntimeout_seconds = nan\n",
        "[buckets.other]\nregion = 'x'\n",
        "[profiles.mine]\nvector_backend = 'lanse'\n",
        "[profiles.mine]\nhnsw_m = '16'\n",
        "[profiles.mine]\nhnsw_m = 1\n",
        "[profiles.mine]\nmodel = ' '\n",
        "[profiles.mine.chunking]\nsize = 20\n",
        "[profiles.Mine]\nmodel = 'x'\n",
        "[profiles]\nmodel = 'x'\n",
        "[profiles.mine]\nname = 'x'\n",
        "not toml",
    ],
)
def test_a_wrong_value_is_refused_with_its_key(tmp_path: Path, text: str) -> None:
    assert _refused(_write(tmp_path, text), {}).kind is ErrorKind.INVALID


def test_a_wrong_value_in_the_environment_is_refused(tmp_path: Path) -> None:
    error = _refused(_write(tmp_path, ""), {"LAKEHOUSE__QUERY__WORKERS_MAX": "many"})
    assert error.fields["key"] == "query.workers_max"


@pytest.mark.parametrize("key", ["http", "grpc"])
@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "[::]", "example.org", ""])
def test_without_authentication_only_loopback_is_bound(tmp_path: Path, key: str, host: str) -> None:
    error = _refused(_write(tmp_path, f"[gateway]\n{key} = '{host}:3100'\n"), {})
    assert error.fields["key"] == f"gateway.{key}"
    allowed = f"[gateway]\n{key} = '{host or '0.0.0.0'}:3100'\nauth = 'tokens'\n"
    assert load_config(_write(tmp_path, allowed), {}).listen.auth == "tokens"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.8.8"])
def test_loopback_needs_no_tokens(tmp_path: Path, host: str) -> None:
    config = load_config(_write(tmp_path, f"[gateway]\nhttp = '{host}:0'\n"), {})
    assert "localhost" in config.gateway.hosts


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    assert _refused(tmp_path / "nothing.toml", {}).kind is ErrorKind.NOT_FOUND


def test_keys_are_unique() -> None:
    assert len(config_keys()) == len(set(config_keys()))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("file:./p", "file:./p/_catalog"),
        ("file:./p", "file:./p"),
        ("file:./p/inner", "file:./p"),
        ("file:./p", "file:./link/x"),
        ("memory://p", "memory://p"),
        ("s3://lake/main", "s3://lake/main/_catalog"),
    ],
)
def test_no_bucket_lies_inside_another(tmp_path: Path, first: str, second: str) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "p")
    places = "[buckets.{}]\nurl = '{}'\n[buckets.{}]\nurl = '{}'\n"
    for one, other in (("primary", "client_a"), ("client_a", "spare")):
        text = places.format(one, first, other, second) + f"[rescue]\nbucket = '{other}'\n"
        if one != "primary":
            text += "[buckets.primary]\nurl = 'file:./main'\n"
        error = _refused(_write(tmp_path, text), {})
        assert error.kind is ErrorKind.INVALID
        assert {error.fields["key"], error.fields["other"]} == {
            f"buckets.{one}.url",
            f"buckets.{other}.url",
        }


def test_buckets_side_by_side_are_taken(tmp_path: Path) -> None:
    text = "[buckets.primary]\nurl = 'file:./p'\n[buckets.a]\nurl = 'file:./pp'\n"
    text += "[buckets.b]\nurl = 's3://lake/a'\n[buckets.c]\nurl = 's3://lake/ab'\n"
    assert set(load_config(_write(tmp_path, text), {}).buckets) == {"primary", "a", "b", "c"}


def test_profiles_are_read_and_the_environment_wins(tmp_path: Path) -> None:
    text = "[profiles.mine]\nmodel = 'a'\nvector_backend = 'lance'\n"
    text += "[profiles.mine.chunking]\nmethod = 'tokens'\nsize = 90\n"
    environ = {
        "LAKEHOUSE__PROFILES__MINE__MODEL": "b",
        "LAKEHOUSE__PROFILES__OTHER__CHUNKING__SIZE": "64",
    }
    config = load_config(_write(tmp_path, text), environ)
    mine = {"model": "b", "vector_backend": "lance"}
    mine |= {"chunking.method": "tokens", "chunking.size": 90}  # type: ignore[dict-item]
    assert config.vectors.profiles == {"mine": mine, "other": {"chunking.size": 64}}
    shown = {key: held for key, held in config.values.items() if key.startswith("profiles.")}
    assert len(shown) == 5
    assert shown["profiles.mine.model"].source == "LAKEHOUSE__PROFILES__MINE__MODEL"
    assert shown["profiles.mine.chunking.size"].source == "lakehouse.toml"


def test_a_profile_of_the_configuration_is_looked_at_with_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "catalog" / "profiles"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text("[chunking]\nmethod = 'tokens'\nsize = 9\noverlap = 0\n")
    text = "[profiles.mine.chunking]\nsize = 20\n"
    assert load_config(_write(tmp_path, text), {}).vectors.profiles
    error = _refused(_write(tmp_path, text + "overlap = 20\n"), {})
    assert (error.fields["key"], error.fields["overlap"]) == ("profiles.mine", 20)
