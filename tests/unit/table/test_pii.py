"""Personal data by name and by value: what must be found, and what must not."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lakehouse.model.dataset import PiiFinding, Sensitivity
from lakehouse.table import pii

IBANS = ["DE89370400440532013000", "GB29 NWBK 6016 1331 9268 19", "FR1420041010050500013M02606"]
CARDS = ["4111 1111 1111 1111", "5500 0000 0000 0004", "3400 000000 00009"]


def kinds(**columns: list[object]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in columns}
    for finding in pii.detect(pa.table(columns)):
        assert 0 < finding.confidence <= 1
        found[finding.column].add(finding.kind)
    return found


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["ann@example.com", "bob.c+x@sub.example.org", "N/A"], "email"),
        (["(555) 123-4567", "555-987-6543", "+49 30 1234567"], "phone"),
        (["123-45-6789", "078-05-1120", "219-09-9999"], "national_id"),
        (IBANS, "iban"),
        (CARDS, "credit_card"),
        (["10.0.0.1", "192.168.1.254"], "ip_address"),
    ],
)
def test_values_alone_betray_a_column(values: list[object], kind: str) -> None:
    assert kind in kinds(column_7=values)["column_7"]


def test_checksums_are_checked() -> None:
    broken = ["DE88370400440532013000", "GB28 NWBK 6016 1331 9268 19"]
    assert "iban" not in kinds(x=broken)["x"]
    digits = ["4111 1111 1111 1112", "5500 0000 0000 0005", "3400 000000 00001"]
    assert "credit_card" not in kinds(x=digits)["x"]


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("DateOfBirth", ["1990-01-02", "12/31/1980"], "birth_date"),
        ("geburtsdatum", ["02.01.1990"], "birth_date"),
        ("first name", ["Ann", "José", "Øyvind"], "person_name"),
        ("Nachname", ["Müller"], "person_name"),
        ("customer_email", [None, None], "email"),
        ("Tel.", ["030 123456"], "phone"),
        ("SSN", ["123456789"], "national_id"),
        ("zip", ["12345", "01099"], "postal_code"),
        ("card_number", [4111111111111111, 5500000000000004], "credit_card"),
    ],
)
def test_names_speak_where_values_do_not(name: str, values: list[object], kind: str) -> None:
    assert kind in kinds(**{name: values})[name]


def test_ordinary_columns_stay_ordinary() -> None:
    found = kinds(
        id=["007", "008"],
        product_name=["Lamp", "Desk"],
        amount=[1, 2],
        order_date=["2020-01-01", "2021-02-03"],
        city=["Berlin", "Paris"],
        hotel=["Ritz", "Astoria"],
        company=["Acme", "Panasonic"],
        quantity=[1234567, 7654321],
        ratio=[0.5, 0.25],
        flag=[True, False],
        order_no=["10-2000", "10-2001"],
    )
    assert {name for name, each in found.items() if each} == set()


def test_dates_need_a_name_and_a_birth_date_needs_no_text() -> None:
    days = pa.array([0, 1], pa.date32())
    table = pa.table({"dob": days, "shipped": days})
    assert [(each.column, each.kind) for each in pii.detect(table)] == [("dob", "birth_date")]


def test_dictionaries_views_empty_and_null_columns() -> None:
    mails = pa.array(["a@example.com", "b@example.com"] * 3)
    table = pa.table(
        {
            "d": mails.dictionary_encode(),
            "v": mails.cast(pa.string_view()),
            "l": mails.cast(pa.large_string()),
            "n": pa.nulls(6),
            "e": ["", " ", "", "", "", ""],
        }
    )
    assert {each.column for each in pii.detect(table)} == {"d", "v", "l"}
    assert pii.detect(table.slice(0, 0)) == ()


def test_a_little_file_of_much_text_stays_little() -> None:
    """A dictionary of one huge value repeated is looked at once, cut short."""
    huge = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000), pa.array(["x" * 5_000_000]))
    before = pa.total_allocated_bytes()
    pii.detect(pa.table({"text": huge}))
    assert pa.default_memory_pool().max_memory() - before < 200_000_000


def test_a_mixed_column_is_less_sure() -> None:
    sure = pii.detect(pa.table({"x": ["a@example.com", "b@example.com"]}))[0]
    mixed = pii.detect(pa.table({"x": ["a@example.com", "one", "two", "b@example.com", "3"]}))[0]
    assert sure.kind == mixed.kind == "email"
    assert sure.confidence > mixed.confidence


def test_sensitivity_follows_the_findings() -> None:
    assert pii.suggest_sensitivity(()) is Sensitivity.INTERNAL
    mail = PiiFinding("m", "email", 0.9)
    assert pii.suggest_sensitivity((mail,)) is Sensitivity.CONFIDENTIAL
    assert pii.suggest_sensitivity((mail, PiiFinding("s", "iban", 0.9))) is Sensitivity.RESTRICTED
    doubtful = PiiFinding("s", "national_id", 0.4)
    assert pii.suggest_sensitivity((doubtful,)) is Sensitivity.CONFIDENTIAL
