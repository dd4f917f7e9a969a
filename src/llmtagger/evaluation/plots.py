"""Draws small plots as SVG text: no library, no script, colours from the page's style sheet."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from llmtagger.evaluation.interval import Interval, finite

WIDTH = 420  # of every plot, in its own units; the page scales it
_NARROW, _WIDE = 7.8, 13.0  # width of a Latin and of a Chinese character, generously
_ROW = 24  # height of a labelled row
_ROOM = 26  # of a count over its bar
_LABELS, _VALUES = 152, 48  # room left and right of a row's mark


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled mark of a row plot, its colour's class, and how many products it stands for."""

    label: str
    value: Interval
    text: str
    style: str = "s0"
    count: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A named curve, and the one point of it that is in use."""

    name: str
    points: tuple[tuple[float, float], ...]
    style: str
    marked: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A labelled point of a scatter plot; y has an interval."""

    label: str
    x: float
    y: Interval
    style: str = "s0"


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps low…high to start…end; what lies outside is put on the border."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers from low to high."""
        step = _round_step((self.high - self.low) / count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


def element(name: str, *children: object, **attributes: object) -> Markup:
    """One SVG element; its text and attribute values are escaped.

    element("text", "a < b", class_="tick", x=1.5)
    """
    pairs = (
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
    )
    inner = Markup("").join(Markup("{}").format(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(pairs), inner)


def dots(rows: Sequence[Row], title: str, beside: Sequence[Row] = ()) -> Markup:
    """A dot with its interval for each row; the axis fits these rows and those of the plot beside.

    It need not start at zero, for dots are compared by their places.
    """
    low, high = _span([end for row in (*rows, *beside) for end in (row.value.low, row.value.high)])
    scale = Scale(low, high, _LABELS, WIDTH - _VALUES)
    marks = [(_whisker(row, scale, y), _dot(row, scale, y)) for row, y in _places(rows)]
    return _row_plot(rows, marks, scale, title)


def bars(rows: Sequence[Row], title: str, top: float | None = None) -> Markup:
    """A bar from zero for each row, to the left where negative; with its interval if it has one."""
    ends = [0.0, *(end for row in rows for end in (row.value.low, row.value.high))]
    low, high = (min(ends), top) if top is not None else _span(ends)
    scale = Scale(low, high, _LABELS, WIDTH - _VALUES)
    marks = [(_bar(row, scale, y), _whisker(row, scale, y)) for row, y in _places(rows)]
    return _row_plot(rows, marks, scale, title)


def curves(lines: Sequence[Line], title: str, x_label: str, y_label: str) -> Markup:
    """Curves over percentages on both axes."""
    across, up = Scale(0, 100, 44, WIDTH - 12), Scale(0, 100, 276, 26)
    drawn = [_curve(line, across, up) for line in reversed(lines)]
    return _svg(320, title, _axes(across, up, x_label, y_label), *drawn)


def trends(lines: Sequence[Line], title: str, x_label: str, y_label: str) -> Markup:
    """Curves from zero up to whatever their points reach."""
    ends = [[0.0, *(point[axis] for line in lines for point in line.points)] for axis in (0, 1)]
    (_, right), (_, top) = map(_span, ends)
    across, up = Scale(0, right, 44, WIDTH - 12), Scale(0, top, 276, 26)
    drawn = [_curve(line, across, up) for line in reversed(lines)]
    return _svg(320, title, _axes(across, up, x_label, y_label), *drawn)


def scatter(points: Sequence[Point], title: str, x_label: str, y_label: str) -> Markup:
    """Labelled points with intervals upwards; x starts at zero."""
    _, right = _span([0.0, *(point.x for point in points)])
    low, high = _span([end for point in points for end in (point.y.low, point.y.high)])
    across, up = Scale(0, right, 44, WIDTH - 12), Scale(low, high, 276, 26)
    drawn = [_pin(point, across, up) for point in points]
    return _svg(320, title, _axes(across, up, x_label, y_label), *drawn, *_tags(points, across, up))


def reliability(bins: Sequence[Mapping[str, Any]], title: str) -> Markup:
    """How often a score was right, beside the diagonal of a score that says so; counts below.

    In each bin `right` is a share, as `mean_score` is, and `count` says of how many tags.
    """
    seen = [each for each in bins if each["count"] and finite(each["mean_score"])]
    across, up = Scale(0, 1, 44, WIDTH - 12), Scale(0, 1, 226, 26)
    most = max((each["count"] for each in seen), default=1)
    diagonal = _line("even", (across.at(0), up.at(0)), (across.at(1), up.at(1)))
    shares = [_share(each, across, up, most) for each in seen]
    counts = [_count(each, across, Scale(0, most, 334, 288)) for each in seen]
    names = (
        element("text", "score", class_="axis", x=WIDTH - 12, y=262, text_anchor="end"),
        element("text", "tags with this score", class_="axis", x=44, y=352),
    )
    axes = _axes(across, up, "", "share that is right")
    return _svg(356, title, axes, diagonal, *shares, *counts, *names)


def compact(count: int) -> str:
    """A count that fits over a narrow bar: 940, 1.2k, 34k."""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 10_000 else f"{count / 1000:.0f}k"


def fit(text: str, room: float) -> str:
    """As much of a text as fits; Chinese characters take twice the place."""
    taken, kept = 0.0, ""
    for char in text:
        taken += _WIDE if unicodedata.east_asian_width(char) in "WF" else _NARROW
        if taken > room:
            return kept[:-1] + "…"
        kept += char
    return kept


def _short(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def _round_step(step: float) -> float:
    size: float = 10 ** math.floor(math.log10(step))
    return next(
        size * factor for factor in (1, 2, 2.5, 5, 10) if step <= size * factor * (1 + 1e-9)
    )


def _span(values: Iterable[float]) -> tuple[float, float]:
    """Round ends around all values, never the same."""
    known = list(values) or [0.0]
    low, high = min(known), max(known)
    if high - low < 1e-9:
        low, high = low - 1, high + 1
    step = _round_step((high - low) / 5)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _svg(height: float, title: str, *children: object) -> Markup:
    label = {"role": "img", "aria_label": title}
    return element("svg", *children, class_="plot", viewBox=f"0 0 {WIDTH} {height}", **label)


def _line(style: str, start: tuple[float, float], end: tuple[float, float]) -> Markup:
    return element("line", class_=style, x1=start[0], y1=start[1], x2=end[0], y2=end[1])


def _axes(across: Scale, up: Scale, x_label: str, y_label: str) -> Markup:
    """Light lines at round numbers, their values, and what the axes mean."""
    bottom, left = up.start, across.start
    grid = [
        *(_line("grid", (left, up.at(tick)), (across.end, up.at(tick))) for tick in up.ticks()),
        *(
            element("text", _tick(tick), class_="tick", x=left - 6, y=up.at(tick) + 4)
            for tick in up.ticks()
        ),
        *(_across(tick, across.at(tick), bottom) for tick in across.ticks()),
        _line("base", (left, bottom), (across.end, bottom)),
        element("text", y_label, class_="axis", x=2, y=up.end - 14),
        element("text", x_label, class_="axis", x=across.end, y=bottom + 36, text_anchor="end"),
    ]
    return Markup("").join(grid)


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _across(tick: float, x: float, bottom: float) -> Markup:
    return element("text", _tick(tick), class_="tick middle", x=x, y=bottom + 17)


def _places(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    return [(row, 14.0 + i * _ROW) for i, row in enumerate(rows)]


def _row_plot(
    rows: Sequence[Row], marks: Iterable[Iterable[Markup]], scale: Scale, title: str
) -> Markup:
    bottom = 4.0 + len(rows) * _ROW
    ticks = scale.ticks(4)
    grid = [
        _line("base" if tick == 0 else "grid", (scale.at(tick), 2), (scale.at(tick), bottom))
        for tick in ticks
    ]
    numbers = [_across(tick, scale.at(tick), bottom) for tick in ticks]
    words = [word for row, y in _places(rows) for word in _words(row, y)]
    flat = [mark for each in marks for mark in each]
    return _svg(bottom + 24, title, *grid, *numbers, *flat, *words)


def _words(row: Row, y: float) -> tuple[Markup, Markup]:
    """The row's label, whole on hovering, and its value."""
    count = f" {row.count}" if row.count else ""
    label = fit(row.label, _LABELS - 10 - _NARROW * len(count))
    parts = (label, element("tspan", count, class_="tick"), element("title", row.label))
    return (
        element("text", *parts, class_="label", x=_LABELS - 10, y=y + 4),
        element("text", row.text, class_="value", x=WIDTH - 2, y=y + 4),
    )


def _whisker(row: Row, scale: Scale, y: float) -> Markup:
    low, high = scale.at(row.value.low), scale.at(row.value.high)
    return _line(f"whisker {row.style}", (low, y), (high, y)) if low != high else Markup("")


def _dot(row: Row, scale: Scale, y: float) -> Markup:
    return element("circle", class_=f"dot {row.style}", cx=scale.at(row.value.value), cy=y, r=3.5)


def _bar(row: Row, scale: Scale, y: float) -> Markup:
    zero, end = scale.at(0), scale.at(row.value.value)
    left, width = min(zero, end), abs(end - zero)
    return element("rect", class_=f"bar {row.style}", x=left, y=y - 6, width=width, height=12, rx=2)


def _curve(line: Line, across: Scale, up: Scale) -> Markup:
    known = [(x, y) for x, y in line.points if finite(x) and finite(y)]
    path = " ".join(f"{across.at(x)},{up.at(y)}" for x, y in known)
    drawn = element("polyline", class_=f"line {line.style}", points=path) if path else Markup("")
    if line.marked is None or not all(finite(each) for each in line.marked):
        return drawn
    x, y = across.at(line.marked[0]), up.at(line.marked[1])
    return drawn + element("circle", class_=f"dot {line.style}", cx=x, cy=y, r=5)


def _pin(point: Point, across: Scale, up: Scale) -> Markup:
    x = across.at(point.x)
    low, high = up.at(point.y.low), up.at(point.y.high)
    whisker = _line(f"whisker {point.style}", (x, low), (x, high))
    return whisker + element(
        "circle", class_=f"dot {point.style}", cx=x, cy=up.at(point.y.value), r=5
    )


def _tags(points: Sequence[Point], across: Scale, up: Scale) -> list[Markup]:
    """The points' names, in turn above and below their intervals so that neighbours stay apart."""
    from_top = sorted(points, key=lambda each: -each.y.value)
    return [_name(point, across, up, above=i % 2 == 0) for i, point in enumerate(from_top)]


def _name(point: Point, across: Scale, up: Scale, *, above: bool) -> Markup:
    x = across.at(point.x)
    y = up.at(point.y.high) - 10 if above else up.at(point.y.low) + 18
    third = (across.end - across.start) / 3
    anchor = "start" if x < across.start + third else "end" if x > across.end - third else "middle"
    y = min(max(y, up.end), up.start - 4)
    return element("text", fit(point.label, 200), class_="name", x=x, y=y, text_anchor=anchor)


def _share(each: Mapping[str, Any], across: Scale, up: Scale, most: int) -> Markup:
    x, y = across.at(each["mean_score"]), up.at(each["right"])
    stem = _line("stem s0", (x, up.at(each["mean_score"])), (x, y))
    radius = 3 + 5 * math.sqrt(each["count"] / most)
    return stem + element("circle", class_="dot s0", cx=x, cy=y, r=radius)


def _count(each: Mapping[str, Any], across: Scale, up: Scale) -> Markup:
    left, right = across.at(each["low"]) + 1, across.at(each["high"]) - 1
    top = up.at(each["count"])
    named = compact(each["count"]) if right - left >= _ROOM else ""  # else it overlaps the next
    text = element("text", named, class_="small", x=(left + right) / 2, y=top - 4)
    width, height = max(right - left, 1.0), up.start - top
    return text + element("rect", class_="bar faint", x=left, y=top, width=width, height=height)
