"""Points in a plane as an SVG picture: series, axes with ticks, a legend. Pure text, no script.

Whatever is written in it (titles, names, notes) is escaped; the picture brings its own style and
loads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

__all__ = ["Axis", "Mark", "Series", "scatter"]

_WIDTH: Final = 720
_HEIGHT: Final = 440
_LEFT: Final = 72
_RIGHT: Final = 200
_TOP: Final = 40
_BOTTOM: Final = 56
_TICKS: Final = 6
_NAME_MAX: Final = 28
_LEGEND_MAX: Final = 20
_LARGEST: Final = 1e100
# Told apart also by those who see colours alike: each has another brightness.
_COLOURS: Final = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333", "#8c510a",
)  # fmt: skip
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#222}.title{font-size:15px;font-weight:bold}"
    ".frame{fill:none;stroke:#888}.grid{stroke:#ddd}"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A point. ``note`` is shown where it is pointed at; ``ringed`` ones stand out."""

    x: float
    y: float
    note: str = ""
    ringed: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour, joined in their order where ``joined``."""

    name: str
    marks: tuple[Mark, ...]
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """``log``: by powers of ten; values that are not positive are left out then. ``most``: no
    value is larger, so no tick is."""

    title: str
    log: bool = False
    most: float = math.inf


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values to places: ``start`` is that of ``low``."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def place(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: float) -> list[float]:
        return [value for value in self._all_ticks() if value <= most]

    def _all_ticks(self) -> list[float]:
        if self.log:
            return self._powers()
        step = _round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]

    def _powers(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for heads in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), tuple(float(n) for n in range(1, 10))):
            found = [head * 10.0**power for power in powers for head in heads]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) >= _TICKS // 2:
                break
        return found or [self.low, self.high]


def scatter(title: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """An SVG document. Points that no picture can show (no numbers, beyond 1e100) are left out;
    without any it says so."""
    shown = [
        Series(one.name, tuple(mark for mark in one.marks if _can_show(mark, x, y)), one.joined)
        for one in series
    ]
    marks = [mark for one in shown for mark in one.marks]
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>',
    ]
    if marks:
        across = _scale([mark.x for mark in marks], x, _LEFT, _WIDTH - _RIGHT)
        up = _scale([mark.y for mark in marks], y, _HEIGHT - _BOTTOM, _TOP)
        body += _axes(across, up, x, y)
        for at, one in enumerate(shown):
            body += _drawn(one, _COLOURS[at % len(_COLOURS)], across, up)
        body += _legend(shown)
    else:
        body.append(f'<text x="{_LEFT}" y="{_HEIGHT // 2}">nothing to show</text>')
    return "\n".join([*body, "</svg>"]) + "\n"


def _can_show(mark: Mark, x: Axis, y: Axis) -> bool:
    return all(
        abs(value) <= _LARGEST and (value >= 1.0 / _LARGEST or not axis.log)
        for value, axis in ((mark.x, x), (mark.y, y))
    )


def _scale(values: Sequence[float], axis: Axis, start: float, end: float) -> _Scale:
    """With a little room beside the outermost values."""
    low, high = min(values), max(values)
    if axis.log:
        room = max((high / low) ** 0.05, 1.05)
        return _Scale(low / room, high * room, start, end, axis.log)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return _Scale(low - room, high + room, start, end, axis.log)


def _round_step(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(head * power for head in (1.0, 2.0, 5.0, 10.0) if head * power >= step * 0.999)


def _axes(across: _Scale, up: _Scale, x: Axis, y: Axis) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    drawn = []
    for value in across.ticks(x.most):
        at = _number(across.place(value))
        drawn.append(f'<line class="grid" x1="{at}" y1="{_TOP}" x2="{at}" y2="{bottom}"/>')
        drawn.append(
            f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{_number(value)}</text>'
        )
    for value in up.ticks(y.most):
        at = _number(up.place(value))
        drawn.append(f'<line class="grid" x1="{_LEFT}" y1="{at}" x2="{right}" y2="{at}"/>')
        drawn.append(
            f'<text x="{_LEFT - 8}" y="{at}" dy="4" text-anchor="end">{_number(value)}</text>'
        )
    middle = (_TOP + bottom) // 2
    return [
        *drawn,
        f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" '
        f'height="{bottom - _TOP}"/>',
        f'<text x="{(_LEFT + right) // 2}" y="{_HEIGHT - 14}" text-anchor="middle">'
        f"{escape(x.title)}</text>",
        f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">'
        f"{escape(y.title)}</text>",
    ]


def _drawn(one: Series, colour: str, across: _Scale, up: _Scale) -> list[str]:
    places = [(_number(across.place(m.x)), _number(up.place(m.y))) for m in one.marks]
    drawn = []
    if one.joined and len(places) > 1:
        points = " ".join(f"{x},{y}" for x, y in places)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
    for mark, (x, y) in zip(one.marks, places, strict=True):
        if mark.ringed:
            drawn.append(f'<circle cx="{x}" cy="{y}" r="9" fill="none" stroke="#000"/>')
        note = f"<title>{escape(mark.note)}</title>" if mark.note else ""
        drawn.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}">{note}</circle>')
    return drawn


def _legend(series: Sequence[Series]) -> list[str]:
    left, drawn = _WIDTH - _RIGHT + 18, []
    named = [(at, one.name) for at, one in enumerate(series) if one.marks]
    for line, (at, name) in enumerate(named[:_LEGEND_MAX]):
        y = _TOP + 10 + 18 * line
        short = name if len(name) <= _NAME_MAX else f"{name[: _NAME_MAX - 1]}…"
        colour = _COLOURS[at % len(_COLOURS)]
        drawn.append(f'<circle cx="{left}" cy="{y}" r="4" fill="{colour}"/>')
        drawn.append(f'<text x="{left + 10}" y="{y}" dy="4">{escape(short)}</text>')
    if len(named) > _LEGEND_MAX:
        y = _TOP + 10 + 18 * _LEGEND_MAX
        more = len(named) - _LEGEND_MAX
        drawn.append(f'<text x="{left + 10}" y="{y}" dy="4">and {more} more</text>')
    return drawn


def _number(value: float) -> str:
    """Short, without noise in its last places."""
    return f"{value:.5g}"
