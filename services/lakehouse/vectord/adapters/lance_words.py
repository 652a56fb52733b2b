"""BM25 by Lance: a table of texts with an inverted index, in a folder of this node.

Texts are taken apart as tantivy does it for the other profiles: by the same rules over the same
spelling. What is searched for comes as words, which Lance takes apart once more and finds the same.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.folders import Claim
from lakehouse.vectord.adapters.stock_lance import stock_lance
from lakehouse.vectord.adapters.tantivy import words_of
from lakehouse.vectord.adapters.translating import translated
from lakehouse.vectord.lexical.port import Ranked
from lakehouse.vectord.lexical.texts import WORD_BYTES_MAX, prepared
from lakehouse.vectord.ports import Labels

__all__ = ["LanceWords"]

FOLDER: Final = "words.lance"
_TEXT: Final = "text"
_SCHEMA: Final = pa.schema([pa.field(_TEXT, pa.large_string())])
_ADDRESS_BITS: Final = 32
_SAMPLE: Final = 5_000
_SEGMENTS_MAX: Final = 32
# Searches that are under way may still read what was replaced.
_LEFT_ALONE: Final = timedelta(minutes=1)
_ROWS_NO_BOUND: Final = 1 << 31
_BYTES_NO_BOUND: Final = 1 << 50


class LanceWords:
    """Implements ``lexical.port.WordIndex``; ``frequency`` is about, by some of the texts.

    Args:
        claim: whose folder is the table's; it goes with this value.
    """

    def __init__(self, claim: Claim) -> None:
        weakref.finalize(self, claim.release)
        self._path = str(claim.path / FOLDER)
        # One value that is replaced as a whole: the table, and the row at each place of it.
        self._now: tuple[Any, Labels, Labels] | None = None
        self._segments = 1
        self._sample: tuple[int, Counter[str]] = (0, Counter())

    @property
    def texts(self) -> int:
        """How many are in it."""
        return 0 if self._now is None else len(self._now[1])

    def append(self, rows: Labels, texts: pa.Array) -> None:
        lance = stock_lance()
        data = pa.Table.from_arrays([prepared(texts).cast(pa.large_string())], schema=_SCHEMA)
        one_file = {"max_rows_per_file": _ROWS_NO_BOUND, "max_bytes_per_file": _BYTES_NO_BOUND}
        with translated(ErrorKind.EXHAUSTED, "an index of words cannot be written"):
            if self._now is None:
                table = lance.write_dataset(data, self._path, **one_file)
                table.create_scalar_index(
                    _TEXT,
                    "INVERTED",
                    base_tokenizer="simple",
                    language="English",
                    with_position=False,
                    max_token_length=WORD_BYTES_MAX + 1,
                    lower_case=True,
                    ascii_folding=True,
                    stem=False,
                    remove_stop_words=False,
                )
            else:
                table = lance.write_dataset(data, self._path, mode="append", **one_file)
                # A segment of its own, which costs little; many of them are made one.
                self._segments += 1
                merged = self._segments if self._segments >= _SEGMENTS_MAX else 0
                table.optimize.optimize_indices(num_indices_to_merge=merged)
                if merged:
                    self._segments = 1
                    table.cleanup_old_versions(older_than=_LEFT_ALONE)
            counts = [fragment.count_rows() for fragment in table.get_fragments()]
            ids = [fragment.fragment_id for fragment in table.get_fragments()]
        before = np.empty(0, np.int64) if self._now is None else self._now[1]
        if sum(counts) != len(before) + len(rows):
            raise LakehouseError(
                ErrorKind.EXHAUSTED,
                "an index of words cannot be written",
                reason="its folder was cleared away",
                hint="it is built anew from the rows",
            )
        starts = np.full(max(ids) + 1, -1, np.int64)
        starts[ids] = np.cumsum([0, *counts[:-1]])
        self._now = table, np.concatenate([before, rows]), starts

    def words(self, text: str) -> list[str]:
        return list(dict.fromkeys(words_of(text)))

    def frequency(self, word: str) -> int:
        if self._now is None:
            return 0
        table, rows, _ = self._now
        counted, words = self._sample
        if counted != len(rows):
            with _reading():
                some = table.head(_SAMPLE).column(_TEXT).to_pylist()
            words = Counter(each for text in some for each in set(words_of(text)))
            self._sample = len(rows), words
        return 1 + words[word]

    def search(self, words: Sequence[str], limit: int, only: Labels | None = None) -> Ranked:
        from lance.dataset import serialize_row_addrs
        from lance.query import MatchQuery

        if self._now is None:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        table, rows, starts = self._now
        chosen: dict[str, Any] = {}
        if only is not None:
            addresses = _addresses(np.flatnonzero(np.isin(rows, only)), starts)
            told = serialize_row_addrs(addresses.tolist())
            chosen = {"row_addr_allowlist": told, "prefilter": True}
        with _reading():
            found = table.scanner(
                columns=[],
                full_text_query=MatchQuery(" ".join(words), _TEXT),
                limit=max(1, min(limit, len(rows))),
                with_row_id=True,
                **chosen,
            ).to_table()
        address = found.column("_rowid").to_numpy().astype(np.int64)
        places = starts[address >> _ADDRESS_BITS] + (address & ((1 << _ADDRESS_BITS) - 1))
        scores = found.column("_score").to_numpy().astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        return rows[places[order]], scores[order]

    def exact(self, words: Sequence[str], texts: Sequence[str]) -> list[float] | None:
        return None

    def close(self) -> None:
        """The folder is let go when the last search is done."""


def _addresses(places: Labels, starts: Labels) -> Labels:
    """Of places in the table, rising: the number of the fragment, and the place in it."""
    there = np.flatnonzero(starts >= 0)
    order = there[np.argsort(starts[there], kind="stable")]
    fragment = np.searchsorted(starts[order], places, side="right") - 1
    found: Labels = (order[fragment] << _ADDRESS_BITS) | (places - starts[order][fragment])
    return found


def _reading() -> Any:
    return translated(ErrorKind.CORRUPT, "an index of words cannot be read")
