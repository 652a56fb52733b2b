"""Make the demo's exports, the same bytes every time: what a staffing firm's two systems spit out.

Messy on purpose. candidates.csv is a CRM export in cp1252 with semicolons: ids and post codes with
leading zeros, "N/A" among numbers, phones and e-mails of people who do not exist, umlauts, quoted
line breaks, ragged lines. placements*.ndjson.gz are an application's nested events that join to it.

Usage: python tools/make_demo_data.py [output folder]
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

SEED = 20260131
PEOPLE = 1_200
EVENTS = 6_000
LATER_EVENTS = 900
HEADER = "candidate_id;name;email;phone;city;zip;years_experience;hourly_rate;available_from;note"

FIRST = [
    "Anna",
    "Björn",
    "Chloé",
    "Dieter",
    "Elif",
    "Fritz",
    "Grażyna",
    "Hans",
    "Inés",
    "Jürgen",
    "Käthe",
    "Lars",
    "Märta",
    "Noël",
    "Ömer",
    "Paula",
    "Quirin",
    "Renée",
    "Søren",
    "Tomás",
    "Ursula",
    "Véronique",
    "Wojtek",
    "Xenia",
    "Yusuf",
    "Zoë",
]
LAST = [
    "Müller",
    "Schröder",
    "Großmann",
    "Köhler",
    "Nuñez",
    "Østergård",
    "Lefèvre",
    "Weiß",
    "Jäger",
    "Brandão",
    "Yılmaz",
    "Fischer",
    "Andersson",
    "Dubois",
    "Kowalski",
    "Meier",
    "O'Neill",
    "Van-Dijk",
]
CITIES = (
    ("Dresden", "01067"),
    ("Leipzig", "04109"),
    ("Köln", "50667"),
    ("München", "80331"),
    ("Zürich", "08001"),
    ("Halle (Saale)", "06108"),
    ("Görlitz", "02826"),
    ("Düsseldorf", "40213"),
)
SKILLS = ("forklift", "welding", "cnc", "python", "sql", "nursing", "logistics", "accounting")
CLIENTS = (
    ("Nordwind Logistik", "DE"),
    ("Bäckerei Sonne", "DE"),
    ("Helvetia Präzision", "CH"),
    ("Åkerlund AB", "SE"),
    ("Atelier Écarlate", "FR"),
)
NOTES = ("", "", "", "prefers mornings", 'said "call back"', "moved\nlast year", "N/A",
         "speaks Deutsch; English")  # fmt: skip


def cp1252_only(text: str) -> str:
    """The export's code page has no ż, ı or ł: that system wrote their bare letters."""
    return text.translate(str.maketrans("żıłą", "zila"))


def quoted(text: str) -> str:
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if set(text) & set(';"\n') else text


def candidates(rng: random.Random) -> bytes:
    lines = [HEADER]
    for number in range(1, PEOPLE + 1):
        first, last = rng.choice(FIRST), rng.choice(LAST)
        city, post = rng.choice(CITIES)
        ascii_name = f"{first}.{last}".encode("ascii", "ignore").decode().lower().replace("'", "")
        fields = [
            f"{number:05d}",
            f"{first} {last}",
            f"{ascii_name}{number}@example.org" if rng.random() > 0.04 else "N/A",
            f"+49 351 555{number:04d}" if rng.random() > 0.08 else "unknown",
            city,
            post,
            rng.choice(["", "N/A", *map(str, range(1, 25))]),
            f"{rng.uniform(18, 95):.2f}" if rng.random() > 0.05 else "on request",
            f"{date(rng):%Y-%m-%d}" if rng.random() > 0.1 else "",
            rng.choice(NOTES),
        ]
        line = ";".join(quoted(cp1252_only(field)) for field in fields)
        if number in (211, 743):
            line += ";and one field too many"
        if number in (500, 1100):
            line = ";".join(line.split(";")[:6])
        lines.append(line)
    return ("\r\n".join(lines) + "\r\n").encode("cp1252")


def date(rng: random.Random) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(270 * 86_400))


def placements(rng: random.Random, first: int, count: int) -> bytes:
    lines = []
    for number in range(first, first + count):
        client, country = rng.choice(CLIENTS)
        kind = rng.choices(["called", "interview", "placed", "rejected"], [5, 3, 1.5, 1])[0]
        event: dict[str, object] = {
            "event_id": number,
            "candidate_id": f"{rng.randint(1, PEOPLE):05d}",
            "type": kind,
            "at": date(rng).isoformat().replace("+00:00", "Z"),
            "client": {"name": client, "country": country},
            "skills": rng.sample(SKILLS, rng.randint(0, 3)),
        }
        if kind == "placed":
            event["rate"] = round(rng.uniform(20, 90), 2)
        lines.append(json.dumps(event, ensure_ascii=False))
    return gzip.compress(("\n".join(lines) + "\n").encode(), compresslevel=9, mtime=0)


def main(folder: Path) -> None:
    rng = random.Random(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "candidates.csv").write_bytes(candidates(rng))
    (folder / "placements.ndjson.gz").write_bytes(placements(rng, 1, EVENTS))
    later = placements(rng, EVENTS + 1, LATER_EVENTS)
    (folder / "placements_later.ndjson.gz").write_bytes(later)


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else root / "services/lakehouse/cli/demo")
