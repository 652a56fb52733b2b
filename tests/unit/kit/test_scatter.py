"""A picture that others can read, whatever is put into it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from lakehouse.kit.scatter import Axis, Mark, Series, scatter

SVG = "{http://www.w3.org/2000/svg}"
X, Y = Axis("recall"), Axis("milliseconds", log=True)


def dots(picture: ET.Element) -> list[tuple[float, float]]:
    return [
        (float(one.attrib["cx"]), float(one.attrib["cy"]))
        for one in picture.iter(f"{SVG}circle")
        if one.find(f"{SVG}title") is not None
    ]


def drawn(*series: Series, x: Axis = X, y: Axis = Y) -> ET.Element:
    return ET.fromstring(scatter("a title", series, x, y))


def test_points_are_where_their_values_are() -> None:
    marks = (Mark(0.5, 1.0, "a"), Mark(1.0, 10.0, "b"), Mark(0.75, 100.0, "c"))
    a, b, c = dots(drawn(Series("one", marks, joined=True)))
    assert a[0] < c[0] < b[0]
    assert abs((a[0] + b[0]) / 2 - c[0]) < 0.1
    # By powers of ten: as far from 1 to 10 as from 10 to 100, and up is more.
    assert a[1] > b[1] > c[1]
    assert abs((a[1] - b[1]) - (b[1] - c[1])) < 0.1


def test_what_is_written_is_text_and_nothing_else() -> None:
    evil = '</title><script>alert("1")</script>&'
    text = scatter(evil, [Series(evil, (Mark(1, 1, evil),))], Axis(evil), Axis(evil))
    picture = ET.fromstring(text)
    assert "<script" not in text
    assert not list(picture.iter(f"{SVG}script"))
    said = [one.text or "" for one in picture.iter() if one.tag in (f"{SVG}text", f"{SVG}title")]
    assert said.count(evil) == 4


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = scatter("t", [Series("s", (Mark(1, 1),))], X, Y)
    assert not re.search(r"href|url\(|@import|<image", text)


def test_what_is_no_number_is_left_out_and_one_point_is_enough() -> None:
    nan, infinite = float("nan"), float("inf")
    marks = (Mark(nan, 1, "n"), Mark(1, infinite, "i"), Mark(1, -5, "negative"), Mark(1, 1, "good"))
    assert len(dots(drawn(Series("one", marks)))) == 1
    assert "nothing to show" in scatter("t", [Series("s", (Mark(nan, 1),))], X, Y)
    assert "nothing to show" in scatter("t", [], X, Y)


def test_axes_say_round_values() -> None:
    marks = tuple(Mark(x, x, str(x)) for x in (0.0, 0.37, 1.0))
    picture = drawn(Series("s", marks), x=Axis("x"), y=Axis("y"))
    said = {one.text for one in picture.iter(f"{SVG}text")}
    assert {"0", "0.2", "0.4", "0.6", "0.8", "1"} <= said
    assert {"x", "y", "a title", "s"} <= said


def test_many_series_with_long_names_stay_in_the_picture() -> None:
    series = [Series("n" * 100 + str(at), (Mark(at, at + 1, "m"),)) for at in range(50)]
    picture = drawn(*series)
    places = [float(one.attrib["y"]) for one in picture.iter(f"{SVG}text") if "y" in one.attrib]
    assert max(places) <= 440
    assert any(one.text == "and 30 more" for one in picture.iter(f"{SVG}text"))


def test_values_far_apart_and_far_too_large_have_an_axis() -> None:
    for values in ((1e-99, 1e99), (1e-300, 1e300), (1e15, 1e15 + 1), (-5.0, -5.0), (1e-9, 2e-9)):
        marks = tuple(Mark(value, value, "m") for value in values)
        for log in (False, True):
            shown = drawn(Series("s", marks), x=Axis("x", log), y=Axis("y", log))
            for x, y in dots(shown):
                assert 0 <= x <= 720
                assert 0 <= y <= 440


def test_no_axis_goes_beyond_what_there_can_be() -> None:
    series = [Series("s", (Mark(0.2, 1.0), Mark(0.4, 1.0)))]
    for most, beyond in ((1.0, False), (float("inf"), True)):
        picture = ET.fromstring(scatter("t", series, Axis("ms"), Axis("recall", most=most)))
        ticks = [
            float(one.text or "")
            for one in picture.iter(f"{SVG}text")
            if one.get("text-anchor") == "end"
        ]
        assert 1.0 in ticks
        assert (max(ticks) > 1.0) is beyond
