"""Search by words: BM25 against one written here, for both structures; ties, filters, syntax."""

from __future__ import annotations

import gc
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from lakehouse.objectstore.folders import Claim
from lakehouse.vectord.adapters.lance_words import LanceWords
from lakehouse.vectord.adapters.tantivy import TantivyIndex
from lakehouse.vectord.book import ROW_SCHEMA, Book
from lakehouse.vectord.lexical.port import WordIndex
from lakehouse.vectord.lexical.ranking import WORDS_MAX, best_rows, chosen_words

Floats = npt.NDArray[np.float64]

DOCS = Path(__file__).resolve().parents[3] / "docs"
KINDS: list[Callable[[Claim], WordIndex]] = [TantivyIndex, LanceWords]


def paragraphs() -> list[str]:
    """Texts of people: the paragraphs and table rows of the manual, short ones and long ones."""
    found = []
    for path in sorted(DOCS.rglob("*.md")):
        found += re.split(r"\n\s*\n|\n(?=\|)", path.read_text("utf-8"))
    texts = [text.strip() for text in found if re.search(r"\w", text)]
    return texts[:: max(1, len(texts) // 2_500)]


def tokens(text: str) -> list[str]:
    """Independent of what is tested: letters and digits, folded by Unicode's own decomposition."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).lower())
    folded = "".join(each for each in plain if not unicodedata.combining(each))
    return re.findall(r"[^\W_]+", folded)


class Oracle:
    """BM25 as the books have it: every text scored for every word."""

    def __init__(self, texts: list[str]) -> None:
        self.counts = [Counter(tokens(text)) for text in texts]
        self.lengths = np.array([sum(one.values()) for one in self.counts], np.float64)
        self.average = self.lengths.mean()

    def scores(self, query: str, k1: float = 1.2, b: float = 0.75) -> Floats:
        total = np.zeros(len(self.counts))
        for word in dict.fromkeys(tokens(query)):
            tf = np.array([one[word] for one in self.counts], np.float64)
            there = np.count_nonzero(tf)
            idf = math.log(1.0 + (len(tf) - there + 0.5) / (there + 0.5))
            total += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * self.lengths / self.average))
        return total


def book_of(texts: list[str], first: int = 0) -> Book:
    rows = pa.Table.from_pydict(
        {
            "entity": [f"e{row:06}" for row in range(first, first + len(texts))],
            "chunk": [0] * len(texts),
            "start": [0] * len(texts),
            "end": [len(text) for text in texts],
            "text": texts,
            "digest": [""] * len(texts),
            "version": [1] * len(texts),
        },
        schema=ROW_SCHEMA,
    )
    return Book(rows)


@pytest.fixture(scope="module", params=KINDS, ids=["tantivy", "lance"])
def manual(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WordIndex, Book, Oracle, list[str]]]:
    texts = paragraphs()
    index: WordIndex = request.param(Claim(str(tmp_path_factory.mktemp("words")), "one"))
    # In several parts, as rows come.
    bounds = [0, len(texts) // 2, len(texts) // 2 + 1, len(texts)]
    for start, end in pairwise(bounds):
        index.append(np.arange(start, end), pa.array(texts[start:end], pa.large_string()))
    yield index, book_of(texts), Oracle(texts), texts
    index.close()


def everything(book: Book) -> npt.NDArray[np.bool_]:
    return np.ones(book.count, np.bool_)


def queries(texts: list[str], rng: np.random.Generator, count: int) -> list[str]:
    found = []
    for _ in range(count):
        words = tokens(texts[rng.integers(len(texts))])
        picked = rng.choice(words, min(len(words), int(rng.integers(1, 7))))
        found.append(" ".join(picked.tolist()))
    return found


def test_scores_and_order_are_those_of_the_formula(
    manual: tuple[WordIndex, Book, Oracle, list[str]],
) -> None:
    index, book, oracle, texts = manual
    assert len(texts) > 1_500
    assert index.texts == len(texts)
    for query in queries(texts, np.random.default_rng(41), 60):
        true = oracle.scores(query)
        rows, scores = best_rows(index, book, chosen_words(index, query), 20, everything(book))
        assert len(rows) == min(20, np.count_nonzero(true))
        np.testing.assert_allclose(scores, true[rows], rtol=2e-5)
        best = np.sort(true)[::-1][: len(rows)]
        np.testing.assert_allclose(true[rows], best, rtol=2e-5)


def test_a_filter_leaves_the_best_of_what_it_allows(
    manual: tuple[WordIndex, Book, Oracle, list[str]],
) -> None:
    index, book, oracle, texts = manual
    rng = np.random.default_rng(43)
    for query, share in zip(
        queries(texts, rng, 30), rng.choice([0.0, 0.004, 0.05, 0.5, 0.95], 30), strict=True
    ):
        allowed = rng.random(book.count) < share
        true = np.where(allowed, oracle.scores(query), 0.0)
        rows, scores = best_rows(index, book, chosen_words(index, query), 25, allowed)
        assert allowed[rows].all()
        assert len(set(rows.tolist())) == len(rows) == min(25, np.count_nonzero(true)), query
        np.testing.assert_allclose(true[rows], np.sort(true)[::-1][: len(rows)], rtol=2e-5)
        assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_scores_are_told_apart_by_key(
    kind: Callable[[Claim], WordIndex], tmp_path: Path
) -> None:
    texts = ["b c d e a", "x", "a b c d e"] * 400 + ["a b c"]
    index = kind(Claim(str(tmp_path), "one"))
    order = np.random.default_rng(7).permutation(len(texts))
    for some in np.array_split(order, 3):
        index.append(some, pa.array([texts[row] for row in some], pa.large_string()))
    book = book_of(texts)
    rows, scores = best_rows(index, book, ["a", "b", "c"], 50, everything(book))
    same = [row for row in range(1200) if row % 3 != 1]
    assert rows.tolist() == [1200, *same[:49]]
    assert len(set(scores.tolist())) == 2
    rows, _ = best_rows(index, book, ["a", "b", "c"], 2_000, everything(book))
    assert rows.tolist() == [1200, *same]


def test_of_very_many_that_look_alike_the_best_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lengths = rng.permutation(np.arange(1_500) % 14 + 153)
    texts = ["common " + "rest " * (length - 1) for length in lengths.tolist()]
    index = TantivyIndex(Claim(str(tmp_path), "one"))
    index.append(np.arange(len(texts)), pa.array(texts, pa.large_string()))
    book = book_of(texts)
    order = sorted(range(len(texts)), key=lambda row: (lengths[row], row))
    true = Oracle(texts).scores("common")
    for k in (1, 10, 150, 450, 1_500):
        rows, scores = best_rows(index, book, ["common"], k, everything(book))
        assert rows.tolist() == order[:k]
        np.testing.assert_allclose(scores, true[rows], rtol=2e-5)


class Given:
    """Scores as they are given: what a structure finds, and what they are exactly."""

    def __init__(self, scores: Floats, exact: bool) -> None:
        self.scores, self.texts = scores, len(scores)
        self.told = exact

    def search(self, words: object, limit: int, only: object = None) -> tuple[object, object]:
        best = np.argsort(-self.scores, kind="stable")[:limit]
        return best, self.scores[best].astype(np.float32)

    def exact(self, words: object, texts: list[str]) -> list[float] | None:
        return [float(self.scores[int(text)]) for text in texts] if self.told else None


@pytest.mark.parametrize("exact", [True, False])
def test_many_scores_that_are_near_each_other_are_not_all_equal(exact: bool) -> None:
    """The worst has the first key, and each is nearer the next than float32 tells."""
    scores = np.linspace(0.9, 1.0, 60_000)
    book = book_of([str(row) for row in range(len(scores))])
    rows, found = best_rows(cast(WordIndex, Given(scores, exact)), book, ["a"], 3, everything(book))
    assert len(rows) == 3
    assert (scores[rows] > 1.0 - 1e-5).all()
    assert (found > 1.0 - 1e-5).all()
    if exact:
        assert rows.tolist() == [59_999, 59_998, 59_997]


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_shown_as_equal_is_told_apart_by_key(exact: bool) -> None:
    near = np.random.default_rng(3).random(2_000) * 1e-5
    scores = np.concatenate([1.0 + near, 0.5 + near])
    book = book_of([str(row) for row in range(len(scores))])
    for k in (5, 900, 2_500, 4_000):
        given = cast(WordIndex, Given(scores, exact))
        rows, found = best_rows(given, book, ["a"], k, everything(book))
        told = list(zip((-found).tolist(), rows.tolist(), strict=True))
        assert len(told) == k
        assert told == sorted(told)
        assert (np.sort(scores)[::-1][:k].min() - scores[rows].min()) < 2e-5


SPELLINGS = [
    ("Café", "CAFE\u0301 cafe"),
    ("Straße", "strasse"),
    ("ﬁnance", "finance FINANCE"),
    ("İstanbul", "istanbul"),
    ("東京都に行く", "東京"),
    ("naïve", "NAIVE"),
    ("ΑΒΓ", "αβγ"),
    ("e-mail: a_b@x.org", "mail x"),
    ("12.5 %", "12"),
    ("y" * 255, "Y" * 255),
]


@pytest.mark.parametrize("kind", KINDS)
def test_spellings_of_a_word_find_each_other(
    kind: Callable[[Claim], WordIndex], tmp_path: Path
) -> None:
    index = kind(Claim(str(tmp_path), "one"))
    texts = [text for text, _ in SPELLINGS] + ["", "z" * 256, "!?"]
    index.append(np.arange(len(texts)), pa.array(texts, pa.large_string()))
    book = book_of(texts)
    for row, (_, query) in enumerate(SPELLINGS):
        rows, _ = best_rows(index, book, chosen_words(index, query), 5, everything(book))
        assert rows.tolist() == [row], query
    for nothing in ("z" * 256, "", "!?", "unheard"):
        rows, _ = best_rows(index, book, chosen_words(index, nothing), 5, everything(book))
        assert not len(rows), nothing


@pytest.mark.parametrize("kind", KINDS)
def test_syntax_of_queries_is_text(kind: Callable[[Claim], WordIndex], tmp_path: Path) -> None:
    index = kind(Claim(str(tmp_path), "one"))
    texts = ["red fish", "blue fish", "row 7 text", "not or and"]
    index.append(np.arange(4), pa.array(texts, pa.large_string()))
    book = book_of(texts)

    def found(query: str) -> list[int]:
        words = chosen_words(index, query)
        return sorted(best_rows(index, book, words, 9, everything(book))[0].tolist())

    assert found('+red -fish "blue" text:x^5 fis* [a TO z]') == [0, 1, 2]
    assert found("fish NOT red") == [0, 1, 3]
    assert found("row:0 row:1") == [2]
    assert found("red~2 \\ ( ) { } \x00 '; DROP") == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_of_very_many_words_the_rare_ones_are_searched_for(
    kind: Callable[[Claim], WordIndex], tmp_path: Path
) -> None:
    index = kind(Claim(str(tmp_path), "one"))
    common = [f"c{at}" for at in range(3 * WORDS_MAX)]
    texts = [" ".join(common), " ".join(common), "needle thread"]
    index.append(np.arange(3), pa.array(texts, pa.large_string()))
    query = " ".join([*common, "needle", *common])
    words = chosen_words(index, query)
    assert len(words) <= WORDS_MAX
    assert "needle" in words
    assert len(query.encode()) > 30_000
    book = book_of(texts)
    rows, _ = best_rows(index, book, words, 5, everything(book))
    assert sorted(rows.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_goes_with_the_index(kind: Callable[[Claim], WordIndex], tmp_path: Path) -> None:
    index = kind(Claim(str(tmp_path), "one"))
    index.append(np.arange(2), pa.array(["a", "b"], pa.large_string()))
    assert list(tmp_path.iterdir())
    del index
    gc.collect()
    assert not list(tmp_path.iterdir())
