"""The persistent sequences against plain lists."""

from __future__ import annotations

import random

import pytest

from lakehouse.catalogd.persistent import SortedNames, Vector


def test_a_vector_is_a_list_that_forgets_its_front() -> None:
    vector: Vector[int] = Vector(start=1)
    for value in range(1, 1001):
        vector = vector.append(value * 10)
    assert list(vector) == [value * 10 for value in range(1, 1001)]
    assert (vector.start, vector.end, len(vector), vector[777]) == (1, 1001, 1000, 7770)
    cut = vector.cut(600)
    assert cut.start <= 600
    assert cut[600] == 6000
    assert len(cut) < 700
    assert vector[1] == 10
    for index in (0, cut.start - 1, 1001, -1):
        with pytest.raises(IndexError):
            cut[index]
    assert cut.bisect(6005, lambda each: each) == 601
    assert cut.bisect(6000, lambda each: each) == 601
    assert cut.bisect(10**9, lambda each: each) == 1001
    assert cut.bisect(0, lambda each: each) == cut.start
    assert list(Vector.of(range(700), 5)) == list(range(700))
    assert Vector.of(range(700), 5)[5] == 0
    assert vector.cut(10**6).end == 1001


def test_replace_last() -> None:
    for size in (1, 255, 256, 257):
        vector = Vector.of(range(size)).replace_last(-1)
        assert list(vector) == [*range(size - 1), -1]
        assert list(vector.append(7)) == [*range(size - 1), -1, 7]


def test_sorted_names_agree_with_a_set() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    names, model = SortedNames(), set()
    for _ in range(6000):
        entry = (f"n{dice.randrange(900)}", f"d{dice.randrange(3)}")
        if dice.random() < 0.6:
            names, model = names.add(entry), model | {entry}
        else:
            names, model = names.remove(entry), model - {entry}
    assert list(names.after(("", ""))) == sorted(model)
    assert len(names) == len(model)
    some = dice.choice(sorted(model))
    assert list(names.after(some)) == [each for each in sorted(model) if each > some]
    assert set(names.around(some, 5)) <= model
    assert some in names.around(some, 5)
    rebuilt = SortedNames.of(model)
    assert list(rebuilt.after(("", ""))) == sorted(model)
    assert SortedNames().around(("a", ""), 3) == list(SortedNames().after(("", ""))) == []
