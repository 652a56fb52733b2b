"""Two buckets that are one place under two names, and two that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.objectstore.places import overlap, overlapping, site_of
from lakehouse.objectstore.settings import BucketSettings


def at(url: str, endpoint: str = "") -> BucketSettings:
    return BucketSettings("x", url, endpoint=endpoint)


def are_one(one: BucketSettings, other: BucketSettings) -> bool:
    forth, back = (overlap(site_of(a), site_of(b)) for a, b in ((one, other), (other, one)))
    assert forth is back
    return forth


@pytest.mark.parametrize(
    ("url", "endpoint", "one"),
    [
        ("s3://lake/a", "https://one", True),
        ("s3://lake/a/", "https://one:443", True),
        ("s3://lake/a/b", "https://ONE.", True),
        ("s3://lake", "https://one", True),
        ("s3://lake/ab", "https://one", False),
        ("s3://lake/b", "https://one", False),
        ("s3://lake/a", "https://two", False),
        ("s3://lake/a", "https://one:9000", False),
        ("s3://pond/a", "https://one", False),
        ("file:///lake/a", "", False),
        ("memory://lake/a", "", False),
        ("s3://[lake", "https://one", False),
        ("s3://lake/a", "https://one:x", False),
    ],
)
def test_an_object_belongs_to_one_bucket(url: str, endpoint: str, one: bool) -> None:
    assert are_one(at("s3://lake/a", "https://one"), at(url, endpoint)) is one


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "s3.localhost",
        "127.0.0.1.",
        "127.8.8.8",
        "127.1",
        "2130706433",
        "0x7f000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ],
)
def test_this_machine_has_many_names(host: str) -> None:
    place = at("s3://lake/main", "http://127.0.0.1:9000")
    assert are_one(place, at("s3://lake/main/_catalog", f"http://{host}:9000"))
    assert not are_one(place, at("s3://lake/main/_catalog", f"http://{host}:9001"))
    assert not are_one(at("s3://lake/main", "http://10.0.0.5:9000"), at("s3://lake", "http://x"))


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://s3.us-east-1.amazonaws.com",
        "https://s3.amazonaws.com",
        "https://s3.dualstack.eu-west-1.amazonaws.com:443",
        "https://s3.cn-north-1.amazonaws.com.cn",
    ],
)
def test_a_name_is_one_bucket_of_all_regions(endpoint: str) -> None:
    assert are_one(at("s3://lake/main"), at("s3://lake/main/datasets", endpoint))
    assert not are_one(at("s3://lake/main"), at("s3://lake/main", "https://notamazonaws.com"))


def test_folders_are_what_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "real" / "_catalog").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    place = at((tmp_path / "real").as_uri())
    for same in ("real", "real/_catalog", "link", "link/_catalog/c", "%72eal", "other/../real", ""):
        assert are_one(place, at(f"{tmp_path.as_uri()}/{same}")), same
    for other in ("other", "reall", "real2/_catalog", "loop", "a%00b"):
        assert not are_one(place, at(f"{tmp_path.as_uri()}/{other}")), other


def test_memory_is_one_by_its_whole_name() -> None:
    assert are_one(at("memory://a"), at("memory://a"))
    assert not are_one(at("memory://a"), at("memory://a/b"))


def test_the_first_of_them_is_named() -> None:
    others = [BucketSettings("one", "s3://one"), BucketSettings("two", "s3://two/x")]
    assert overlapping(at("s3://two"), others) == "two"
    assert overlapping(at("s3://three"), others) == ""
