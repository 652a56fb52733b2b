"""Make the demo's real text: what WordNet 3.0 says of people by what they do.

Usage: python tools/make_glosses.py [data.noun, of Debian's wordnet-base] [output folder]
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from pathlib import Path

DATA = Path("/usr/share/wordnet/data.noun")
OUTPUT = Path(__file__).resolve().parent.parent / "services/lakehouse/cli/demo"
PEOPLE = "18"  # the lexicographer's file of nouns that name people
EVERY = 5


def glosses(data: Path) -> list[tuple[str, str, str]]:
    """(synset, words, meaning) of every fifth kind of person that has a plain English name."""
    found = []
    for line in data.read_text("ascii").splitlines():
        fields, bar, gloss = line.partition(" | ")
        parts = fields.split()
        if not bar or line.startswith(" ") or parts[1] != PEOPLE:
            continue
        words = [parts[4 + 2 * at].replace("_", " ") for at in range(int(parts[3], 16))]
        meaning = gloss.split('; "')[0].strip()
        if all(word.islower() for word in words):
            found.append((f"n{parts[0]}", ", ".join(words), meaning))
    return found[::EVERY]


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else OUTPUT
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("synset", "words", "meaning"))
    writer.writerows(glosses(data))
    packed = gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)
    (folder / "occupations.csv.gz").write_bytes(packed)


if __name__ == "__main__":
    main()
