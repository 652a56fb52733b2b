"""Chunks are spans of their document, of a size, and together all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Chunking, ChunkMethod
from lakehouse.vectord.chunking import check_chunking, chunks

TEXT = 'One two. Three four five! "Six," he said. Seven?\n\nEight nine ten eleven twelve.'


def texts(text: str, method: ChunkMethod, size: int, overlap: int = 0) -> list[str]:
    return [chunk.text for chunk in chunks(text, Chunking(method, size, overlap))]


def test_without_a_method_a_document_is_one_chunk() -> None:
    assert texts(f"  {TEXT}\n", ChunkMethod.NONE, 1) == [TEXT]
    (chunk,) = chunks("  a b ", Chunking(ChunkMethod.NONE))
    assert (chunk.start, chunk.end) == (2, 5)


def test_windows_of_tokens_overlap_by_what_is_said() -> None:
    assert texts("a b c d e f g", ChunkMethod.TOKENS, 3, 1) == ["a b c", "c d e", "e f g"]
    assert texts("a b c", ChunkMethod.TOKENS, 3, 1) == ["a b c"]
    assert texts("a, b", ChunkMethod.TOKENS, 2) == ["a,", "b"]


def test_sentences_stay_whole_where_they_fit() -> None:
    assert texts(TEXT, ChunkMethod.SENTENCES, 8) == [
        "One two. Three four five!",
        '"Six," he said.',
        "Seven?\n\nEight nine ten eleven twelve.",
    ]
    assert texts("A b. C d. E f. G h.", ChunkMethod.SENTENCES, 6, 3) == [
        "A b. C d.",
        "C d. E f.",
        "E f. G h.",
    ]


def test_a_sentence_longer_than_a_chunk_is_cut() -> None:
    assert texts("a b c d e f g.", ChunkMethod.SENTENCES, 3) == ["a b c", "d e f", "g."]


def test_scripts_without_spaces_count_by_letter() -> None:
    assert texts("漢字漢字。次の文。", ChunkMethod.SENTENCES, 5) == ["漢字漢字。", "次の文。"]


def test_a_megabyte_without_a_space_is_chunked_too() -> None:
    found = chunks("x" * 1_000_000, Chunking())
    assert 100 < len(found) < 1_000
    assert sum(len(chunk.text) for chunk in found) >= 1_000_000


def test_a_blank_text_has_no_chunks() -> None:
    for method in ChunkMethod:
        assert chunks(" \n\t ", Chunking(method)) == []


@pytest.mark.parametrize(
    ("size", "overlap"), [(0, 0), (-1, 0), (8_193, 0), (10, 10), (10, 11), (10, -1)]
)
def test_sizes_that_cannot_be_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(LakehouseError) as refused:
        check_chunking(Chunking(ChunkMethod.TOKENS, size, overlap))
    assert refused.value.kind is ErrorKind.INVALID


@given(
    st.text(st.sampled_from('ab c.!?\n",字。é\u0301 '), max_size=200),
    st.sampled_from(list(ChunkMethod)),
    st.integers(1, 12),
    st.integers(0, 11),
)
def test_chunks_are_spans_in_order_that_leave_nothing_out(
    text: str, method: ChunkMethod, size: int, overlap: int
) -> None:
    found = chunks(text, Chunking(method, size, min(overlap, size - 1)))
    covered = set[int]()
    for chunk in found:
        assert text[chunk.start : chunk.end] == chunk.text == chunk.text.strip()
        assert chunk.text
        covered |= set(range(chunk.start, chunk.end))
    assert [chunk.start for chunk in found] == sorted({chunk.start for chunk in found})
    left_out = "".join(char for at, char in enumerate(text) if at not in covered)
    # Accents without a letter are no words; nothing else is left out but space.
    assert left_out.replace("\u0301", "").strip() == ""
