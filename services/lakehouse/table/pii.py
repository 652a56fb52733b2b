"""Personal data in a table: by the name of a column and by a sample of its values.

Vectorised over Arrow; checksums (IBAN, credit card) are counted on the distinct texts that already
have the form. A finding is a guess with a confidence, never proof: it fills a card's ``pii`` and
suggests a sensitivity that a person may overrule.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.model.dataset import PiiFinding, Sensitivity

__all__ = ["detect", "suggest_sensitivity"]

SAMPLE_ROWS: Final = 10_000
_TEXT_MAX: Final = 254
_CHECKED_MAX: Final = 500
_CONFIDENCE_MIN: Final = 0.3

_NAMES: Final[tuple[tuple[str, str, float], ...]] = (
    ("email", r"(^|_)(e_?mail|mail|courriel|correo)(_?(addr|address|adresse|id))?(_|\d|$)", 0.8),
    (
        "phone",
        r"(^|_)(phone|telephone|telefon\w*|tel|mobile|cell(ular)?|handy|fax|msisdn)"
        r"(_?(no|nr|num|number))?(_|\d|$)",
        0.75,
    ),
    (
        "national_id",
        r"(^|_)(ssn|social_security\w*|sin|nino|national_(id|number|insurance)\w*|passport\w*|"
        r"tax_?(id|no|number)|steuer_?(id|nr|nummer)|aadhaar|cpf|dni|nie|bsn|pesel|curp|"
        r"driver_?s?_licen[cs]e\w*)(_|$)",
        0.85,
    ),
    ("iban", r"(^|_)(iban|bank_account\w*|account_(no|number)|konto_?(nr|nummer))(_|$)", 0.7),
    (
        "credit_card",
        r"(^|_)(credit_?card\w*|card_?(no|num|number)|cc_?(no|num|number)|pan)(_|$)",
        0.8,
    ),
    (
        "birth_date",
        r"(^|_)(dob|birth_?(date|day)|date_of_birth|born(_on)?|geburts_?(datum|tag)|"
        r"fecha_nacimiento|date_naissance)(_|$)",
        0.85,
    ),
    (
        "person_name",
        r"(^|_)((first|last|given|family|middle|full|maiden|sur)_?name|fname|lname|forename|"
        r"vorname|nachname|prenom|apellidos?|(customer|patient|employee|person|candidate|contact|"
        r"user)_name)(_|$)",
        0.8,
    ),
    ("person_name", r"^name$", 0.4),
    (
        "address",
        r"(^|_)(street|address|addr|adresse|strasse|direccion|home_address)(_?(line)?\d)?(_|$)",
        0.6,
    ),
    ("postal_code", r"(^|_)(zip(_?code)?|post_?code|postal_?code|plz)(_|$)", 0.4),
    ("ip_address", r"(^|_)(ip|ip_?addr(ess)?|client_ip|remote_addr)(_|$)", 0.6),
)
_BY_NAME: Final = tuple((kind, re.compile(form), weight) for kind, form, weight in _NAMES)


def _luhn(text: str) -> bool:
    digits = [int(char) for char in text if char.isdigit()][::-1]
    doubled = (each * 2 - 9 if each > 4 else each * 2 for each in digits[1::2])
    return len(set(digits)) > 1 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    """ISO 13616: the remainder by 97 of the rearranged number is 1."""
    plain = "".join(text.split()).upper()
    rearranged = plain[4:] + plain[:4]
    return int("".join(str(int(char, 36)) for char in rearranged)) % 97 == 1


@dataclass(frozen=True, slots=True)
class _ValueForm:
    """How values of a kind look. ``check`` settles what the pattern leaves open; ``bare``: what
    a match is worth if the column's name says nothing."""

    kind: str
    pattern: str
    bare: float
    check: Callable[[str], bool] | None = None


# RE2 syntax; each is matched against the whole trimmed text.
_FORMS: Final[tuple[_ValueForm, ...]] = (
    _ValueForm(
        "email", r"[A-Za-z0-9._%+'-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,24}", 0.98
    ),
    _ValueForm("iban", r"[A-Za-z]{2}[0-9]{2}( ?[A-Za-z0-9]){11,30}", 0.98, _iban),
    _ValueForm("credit_card", r"[3-6][0-9]{3}([ -]?[0-9]){9,15}", 0.9, _luhn),
    _ValueForm("national_id", r"[0-8][0-9]{2}-[0-9]{2}-[0-9]{4}", 0.85),
    _ValueForm(
        "national_id", r"[A-CEGHJ-PR-TW-Za-z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Da-d]", 0.85
    ),
    _ValueForm(
        "ip_address",
        r"((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])",
        0.7,
    ),
    _ValueForm(
        "phone",
        r"(\+[0-9]{1,3}[ .-]?)(\(?[0-9]{1,5}\)?[ .-]?)?[0-9]{2,5}([ .-]?[0-9]{2,5}){1,4}"
        r"|\(?[0-9]{3}\)?[ .-][0-9]{3}[ .-][0-9]{4}|0[0-9]{2,5}[ /-][0-9]{3,9}|[0-9]{3}-[0-9]{4}",
        0.8,
    ),
)
# Values that fit only because the name says so: digits alone, dates, capitalised words.
_LOOSE: Final[dict[str, str]] = {
    "phone": r"\+?[0-9(][0-9 ()./-]{4,20}[0-9]( ?(x|ext\.?) ?[0-9]{1,6})?",
    "national_id": r"[A-Za-z0-9][A-Za-z0-9 .-]{4,19}",
    "birth_date": r"[0-9]{1,4}[-/. ][0-9]{1,2}[-/. ][0-9]{1,4}([T ].*)?",
    "person_name": r"[\pL][\pL'’. -]*",
    "postal_code": r"[A-Za-z0-9][A-Za-z0-9 -]{2,9}",
}
_LOOSE_ONLY: Final = frozenset({"email", "iban", "credit_card", "ip_address"})


def _snake(name: str) -> str:
    """``DateOfBirth`` and ``date of birth`` alike as ``date_of_birth``; accents are dropped."""
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain)
    return re.sub(r"[^a-z0-9]+", "_", spaced.casefold()).strip("_")


def _by_name(name: str) -> dict[str, float]:
    plain = _snake(name)
    found: dict[str, float] = {}
    for kind, form, weight in _BY_NAME:
        if form.search(plain):
            found[kind] = max(weight, found.get(kind, 0.0))
    return found


def _distinct(column: pa.ChunkedArray) -> pa.Array | None:
    """Distinct trimmed texts of a column of text or whole numbers; None for other types."""
    if pat.is_dictionary(column.type):
        # Distinct by index first: a small file may stand for a great deal of text.
        parts = [
            chunk.dictionary.take(pc.unique(chunk.indices).drop_null()) for chunk in column.chunks
        ]
        column = pa.chunked_array(parts, column.type.value_type)
    kind = column.type
    if pat.is_null(kind):
        return pa.array([], pa.large_string())
    if pat.is_integer(kind):
        column = column.cast(pa.string())
    elif not (pat.is_string(kind) or pat.is_large_string(kind) or pat.is_string_view(kind)):
        return None
    texts = pc.utf8_slice_codeunits(column.cast(pa.large_string()), 0, _TEXT_MAX)
    texts = pc.unique(pc.utf8_trim_whitespace(texts)).drop_null()
    return texts.filter(pc.greater(pc.utf8_length(texts), 0))


def _share(texts: pa.Array, form: str, check: Callable[[str], bool] | None = None) -> float:
    """The part of ``texts`` that has the form, and passes the check, in [0, 1]."""
    if not len(texts):
        return 0.0
    fitting = texts.filter(pc.match_substring_regex(texts, f"^(?:{form})$"))
    share = len(fitting) / len(texts)
    if check is None or not len(fitting):
        return share
    checked = fitting.slice(0, _CHECKED_MAX).to_pylist()
    return share * sum(map(check, checked)) / len(checked)


def _column_findings(name: str, column: pa.ChunkedArray) -> Iterable[tuple[str, float]]:
    named = _by_name(name)
    texts = _distinct(column)
    if texts is None:
        temporal = pat.is_temporal(column.type)
        return [
            (kind, min(0.95, weight + 0.1))
            for kind, weight in named.items()
            if temporal and kind == "birth_date"
        ]
    if not len(texts):
        return [(kind, weight * 0.75) for kind, weight in named.items()]
    numbers = pat.is_integer(column.type)
    found: dict[str, float] = {}
    for form in _FORMS:
        # A number without a name is a measure or an id: only a checked form may speak for it.
        if numbers and form.kind != "credit_card":
            continue
        share = _share(texts, form.pattern, form.check)
        if share >= 0.2:
            worth = form.bare * min(1.0, share * 1.2) * (0.6 if numbers else 1.0)
            if form.kind in named:
                worth = max(worth, 1 - (1 - named[form.kind]) * (1 - share))
            found[form.kind] = max(found.get(form.kind, 0.0), worth)
    for kind, weight in named.items():
        if kind not in found:
            loose = _LOOSE.get(kind)
            share = _share(texts, loose) if loose else (0.0 if kind in _LOOSE_ONLY else 1.0)
            found[kind] = weight * (0.4 + 0.6 * share)
    if not named and "credit_card" in found:
        # Sixteen digits that pass Luhn are no telephone number.
        found.pop("phone", None)
    return found.items()


def detect(table: pa.Table) -> tuple[PiiFinding, ...]:
    """Columns that seem to hold personal data, in column order, the surest kind of a column first.

    Args:
        table: a sample; at most its first 10,000 rows are looked at.

    Returns:
        Findings with a confidence in [0.3, 1]; kinds are ``email`` ``phone`` ``national_id``
        ``iban`` ``credit_card`` ``birth_date`` ``person_name`` ``address`` ``postal_code``
        ``ip_address``. At most two a column.
    """
    sample = table.slice(0, SAMPLE_ROWS)
    findings: list[PiiFinding] = []
    for name, column in zip(sample.column_names, sample.columns, strict=True):
        found = sorted(_column_findings(name, column), key=lambda each: (-each[1], each[0]))
        findings.extend(
            PiiFinding(name, kind, round(min(1.0, confidence), 2))
            for kind, confidence in found[:2]
            if confidence >= _CONFIDENCE_MIN
        )
    return tuple(findings)


_RESTRICTED: Final = frozenset({"national_id", "iban", "credit_card"})
_PERSONAL: Final = frozenset({"email", "phone", "birth_date", "person_name", "address"})


def suggest_sensitivity(findings: Sequence[PiiFinding]) -> Sensitivity:
    """``restricted`` for ids and accounts, ``confidential`` for other personal data; a doubtful
    finding (under 0.5) raises it one step less; ``internal`` for none. Never ``public``."""
    sure = {finding.kind for finding in findings if finding.confidence >= 0.5}
    doubtful = {finding.kind for finding in findings} - sure
    if sure & _RESTRICTED:
        return Sensitivity.RESTRICTED
    if sure & _PERSONAL or doubtful & _RESTRICTED:
        return Sensitivity.CONFIDENTIAL
    return Sensitivity.INTERNAL
