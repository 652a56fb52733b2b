"""BM25 by tantivy: an index of words in memory, or in a folder of this node where it is searched.

What is searched for comes as words, never as a query in tantivy's language. It keeps the length of
a text in a byte, as Lucene does: of more than 40 words as somewhat less than it is. So the best
texts are scored again with what they really have (``exact``).
"""

from __future__ import annotations

import math
import os
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from lakehouse.errors import ErrorKind
from lakehouse.objectstore.folders import Claim
from lakehouse.vectord.adapters.translating import translated
from lakehouse.vectord.lexical.port import K1, B, Ranked
from lakehouse.vectord.lexical.texts import WORD_BYTES_MAX, prepared
from lakehouse.vectord.ports import Labels

__all__ = ["TantivyIndex", "words_of"]

FOLDER: Final = "words.tantivy"
_TEXT: Final = "text"
_ROW: Final = "row"
_ANALYZER: Final = "words"
_INDEXED: Final = "freq"
_HEAP_BYTES: Final = 64_000_000
_SMALL_HEAP_BYTES: Final = 16_000_000
_FEW_TEXTS: Final = 1_000


def _analyzer() -> Any:
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    return (
        TextAnalyzerBuilder(Tokenizer.simple())
        .filter(Filter.remove_long(WORD_BYTES_MAX + 1))
        .filter(Filter.lowercase())
        .filter(Filter.ascii_fold())
        .build()
    )


def words_of(text: str) -> list[str]:
    """The words of a text in their order, as they are indexed."""
    found: list[str] = _analyzer().analyze(prepared(pa.array([text], pa.large_string()))[0].as_py())
    return found


class TantivyIndex:
    """Implements ``lexical.port.WordIndex``.

    Args:
        claim: whose folder is the index's; it goes with this value. None keeps it in memory, where
            it takes about half as much as the texts.
    """

    def __init__(self, claim: Claim | None) -> None:
        from tantivy import Index, SchemaBuilder

        builder = SchemaBuilder()
        builder.add_text_field(_TEXT, tokenizer_name=_ANALYZER, index_option=_INDEXED)
        builder.add_unsigned_field(_ROW, indexed=True, fast=True)
        self._schema = builder.build()
        with _writing():
            path = None
            if claim is not None:
                weakref.finalize(self, claim.release)
                path = str(claim.path / FOLDER)
                os.mkdir(path)
            self._index = Index(self._schema, path=path)
            self._index.register_tokenizer(_ANALYZER, _analyzer())
        self._analyzer = _analyzer()
        self._searcher = self._index.searcher()
        self._told: tuple[Any, float | None] | None = None
        self.texts = 0

    def append(self, rows: Labels, texts: pa.Array) -> None:
        from tantivy import Document

        heap = _SMALL_HEAP_BYTES if len(rows) <= _FEW_TEXTS else _HEAP_BYTES
        with _writing():
            # One thread: rows lie in their order, and a node has other things to do.
            writer = self._index.writer(heap, 1)
            try:
                for row, text in zip(rows.tolist(), prepared(texts).to_pylist(), strict=True):
                    document = Document()
                    document.add_text(_TEXT, text)
                    document.add_unsigned(_ROW, row)
                    writer.add_document(document)
                writer.commit()
            finally:
                writer.wait_merging_threads()
            self._index.reload()
            self._searcher = self._index.searcher()
        self.texts += len(rows)

    def words(self, text: str) -> list[str]:
        whole = prepared(pa.array([text], pa.large_string()))[0].as_py()
        return list(dict.fromkeys(self._analyzer.analyze(whole)))

    def frequency(self, word: str) -> int:
        with _reading():
            return int(self._searcher.doc_freq(_TEXT, word))

    def search(self, words: Sequence[str], limit: int, only: Labels | None = None) -> Ranked:
        from tantivy import Occur, Query

        searcher = self._searcher
        asked = Query.boolean_query(
            [
                (Occur.Should, Query.term_query(self._schema, _TEXT, word, _INDEXED))
                for word in words
            ]
        )
        if only is not None:
            told = Query.term_set_query(self._schema, _ROW, only.tolist())
            both = [(Occur.Must, asked), (Occur.Must, Query.const_score_query(told, 0.0))]
            asked = Query.boolean_query(both)
        with _reading():
            most = max(1, min(limit, searcher.num_docs))
            hits = searcher.search(asked, limit=most, count=False).hits
            rows = searcher.fast_field_values(_ROW, [address for _, address in hits])
        scores = np.array([score for score, _ in hits], np.float32)
        return np.array(rows, np.int64), scores

    def exact(self, words: Sequence[str], texts: Sequence[str]) -> list[float] | None:
        searcher, analyze = self._searcher, self._analyzer.analyze
        average, count = self._average(searcher, words), searcher.num_docs
        if average is None:
            return None
        weights = {}
        for word in words:
            there = searcher.doc_freq(_TEXT, word)
            weights[word] = (K1 + 1.0) * math.log(1.0 + (count - there + 0.5) / (there + 0.5))
        found = []
        for text in prepared(pa.array(texts, pa.large_string())).to_pylist():
            tokens = analyze(text)
            norm = K1 * (1.0 - B + B * len(tokens) / average)
            times = Counter([token for token in tokens if token in weights])
            found.append(sum([weights[word] * n / (n + norm) for word, n in sorted(times.items())]))
        return found

    def _average(self, searcher: Any, words: Sequence[str]) -> float | None:
        """Words a text, which tantivy tells where it explains a hit."""
        from tantivy import Query

        known = self._told
        if known is not None and known[0] is searcher:
            return known[1]
        for word in words:
            asked = Query.term_query(self._schema, _TEXT, word, _INDEXED)
            hits = searcher.search(asked, limit=1, count=False).hits
            if hits:
                said = _average_in(orjson.loads(asked.explain(searcher, hits[0][1]).to_json()))
                self._told = searcher, said
                return said
        return None

    def close(self) -> None:
        """The folder is let go when the last search is done."""


def _average_in(explained: dict[str, Any]) -> float | None:
    if str(explained.get("description", "")).startswith("avgdl"):
        return float(explained["value"])
    for each in explained.get("details", ()):
        found = _average_in(each)
        if found is not None:
            return found
    return None


def _reading() -> Any:
    return translated(ErrorKind.CORRUPT, "an index of words cannot be read")


def _writing() -> Any:
    return translated(ErrorKind.EXHAUSTED, "an index of words cannot be written")
