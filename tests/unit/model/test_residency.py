"""The one rule of where bytes may be, by all cases it has."""

from __future__ import annotations

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.buckets import check_bucket_class, check_bucket_name
from lakehouse.model.residency import (
    check_label,
    check_may_keep,
    check_member,
    check_place,
    may_keep,
    strangers,
)


@pytest.mark.parametrize(
    ("label", "place", "fits"),
    [("", "", True), ("", "eu", True), ("eu", "eu", True), ("eu", "us", False), ("eu", "", False)],
)
def test_copies_stay_where_their_label_says(label: str, place: str, fits: bool) -> None:
    assert may_keep(label, place) is fits
    if fits:
        check_may_keep(("a", label), ("b", place))
        return
    with pytest.raises(LakehouseError) as caught:
        check_may_keep(("a", label), ("b", place))
    assert caught.value.kind is ErrorKind.FORBIDDEN
    assert (caught.value.fields["residency"], caught.value.fields["target_residency"]) == (
        label,
        place,
    )


@pytest.mark.parametrize(
    ("home", "label", "bucket", "place", "fits"),
    [
        ("primary", "", "primary", "", True),
        ("primary", "", "other", "", True),
        ("client_eu", "eu", "client_eu", "eu", True),
        ("client_eu", "eu", "second_eu", "eu", True),
        ("client_eu", "eu", "primary", "", False),
        ("client_eu", "eu", "client_us", "us", False),
        # Labelled rows must not join a dataset that would be rewritten into an unlabelled home.
        ("primary", "", "client_eu", "eu", False),
        # A home that was given a label later goes on holding what it held.
        ("primary", "", "primary", "eu", True),
        # One that is called otherwise now is not the place that was promised.
        ("client_eu", "eu", "client_eu", "us", False),
        ("client_eu", "eu", "client_eu", "", False),
    ],
)
def test_objects_of_a_dataset(home: str, label: str, bucket: str, place: str, fits: bool) -> None:
    if fits:
        check_member(("people", home, label), bucket, place)
        return
    with pytest.raises(LakehouseError) as caught:
        check_member(("people", home, label), bucket, place)
    assert caught.value.kind is ErrorKind.FORBIDDEN
    assert caught.value.fields["dataset"] == "people"
    assert (caught.value.fields["residency"], caught.value.fields["bucket_residency"]) == (
        label,
        place,
    )


def test_a_bucket_contradicts_only_labels_that_were_given() -> None:
    assert strangers(["", "eu"], "eu") == ()
    assert strangers(["", "eu", "us"], "ch") == ("eu", "us")
    check_place("b", "eu", {"": 3, "eu": 2})
    with pytest.raises(LakehouseError) as caught:
        check_place("b", "", {"eu": 2, "": 1})
    assert (caught.value.kind, caught.value.fields["datasets"]) == (ErrorKind.FORBIDDEN, 2)


@pytest.mark.parametrize("label", ["EU", "e u", "-eu", "e" * 64, "eu\n"])
def test_two_spellings_are_not_two_places(label: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        check_label(label)
    assert caught.value.kind is ErrorKind.INVALID
    assert check_label("") == ""
    assert check_label("eu-west_1") == "eu-west_1"


@pytest.mark.parametrize("name", ["", "A", "a/b", "a.b", "a b", "_a", "a" * 64, "ä", "a\n"])
def test_names_of_buckets(name: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        check_bucket_name(name)
    assert caught.value.kind is ErrorKind.INVALID
    assert check_bucket_name("client_eu-2") == "client_eu-2"


@pytest.mark.parametrize(
    ("name", "bucket_class"),
    [
        ("primary", "primary"),
        ("client_eu", "tenant"),
        ("anna", "profile:anna"),
        ("anna", "profile:Anna.B@example"),
    ],
)
def test_classes_of_buckets(name: str, bucket_class: str) -> None:
    assert check_bucket_class(name, bucket_class) == bucket_class


@pytest.mark.parametrize(
    ("name", "bucket_class"),
    [
        ("primary", "tenant"),
        ("other", "primary"),
        ("other", ""),
        ("other", "profile:"),
        ("other", "profile:a/b"),
        ("other", "tenants"),
    ],
)
def test_other_classes_are_refused(name: str, bucket_class: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        check_bucket_class(name, bucket_class)
    assert caught.value.kind is ErrorKind.INVALID
