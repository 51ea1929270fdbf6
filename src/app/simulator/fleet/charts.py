"""Timelines as inline SVG: lines, stacked areas and lanes over virtual time. Colours are CSS variables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 960
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 16, 26
_PLOT = WIDTH - _LEFT - _RIGHT
_LANE = 16
_LABEL_EVERY = 160  # at least so many units between the labels of the time axis

Points = Sequence[tuple[float, float]]
"""Times in seconds and values, in order of time."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened from `at_s` on, for `for_s` seconds; `text` is shown when pointed at."""

    at_s: float
    for_s: float
    text: str


def line_chart(
    series: Mapping[str, Points], end_s: float, marks: Sequence[Mark], *, unit: str = "", height: int = 200
) -> str:
    """One line for each of `series`; the name is also the class that gives its colour."""
    top = nice_ceiling(max((value for points in series.values() for _, value in points), default=0.0))
    plot = height - _TOP - _BOTTOM
    lines = []
    for number, (name, points) in enumerate(series.items()):
        path = " ".join(f"{_x(at_s, end_s):.1f},{_y(value, top, plot):.1f}" for at_s, value in points)
        lines.append(
            f'<polyline class="line c{number}" points="{path}"><title>{escape(name)}</title></polyline>'
        )
    return _frame(height, end_s, top, unit, "".join(lines), marks)


def area_chart(
    series: Mapping[str, Points], end_s: float, marks: Sequence[Mark], *, height: int = 200
) -> str:
    """Areas on top of each other, which have the same times; the name is the class of the colour."""
    times = [at_s for at_s, _ in next(iter(series.values()), ())]
    below = [0.0] * len(times)
    totals = [sum(points[i][1] for points in series.values()) for i in range(len(times))]
    top = nice_ceiling(max(totals, default=0.0))
    plot = height - _TOP - _BOTTOM
    areas = []
    for name, points in series.items():
        above = [low + value for low, (_, value) in zip(below, points, strict=True)]
        upper = [
            f"{_x(at, end_s):.1f},{_y(value, top, plot):.1f}" for at, value in zip(times, above, strict=True)
        ]
        lower = [
            f"{_x(at, end_s):.1f},{_y(value, top, plot):.1f}" for at, value in zip(times, below, strict=True)
        ]
        path = " ".join([*upper, *reversed(lower)])
        areas.append(
            f'<polygon class="area {escape(name)}" points="{path}"><title>{escape(name)}</title></polygon>'
        )
        below = above
    return _frame(height, end_s, top, "", "".join(areas), marks)


def lane_chart(lanes: Mapping[str, Sequence[Mark]], end_s: float) -> str:
    """One row for each name, its marks as bars; names stand at the left."""
    left = 130
    height = len(lanes) * _LANE + _BOTTOM
    plot = WIDTH - left - _RIGHT
    rows = []
    for number, (name, marks) in enumerate(lanes.items()):
        y = number * _LANE
        rows.append(f'<text class="axis" x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        rows.append(f'<line class="grid" x1="{left}" x2="{WIDTH - _RIGHT}" y1="{y + 8}" y2="{y + 8}"/>')
        for mark in marks:
            x = left + mark.at_s / end_s * plot
            width = max(mark.for_s / end_s * plot, 2.5)
            rows.append(
                f'<rect class="fault" x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="10" rx="2">'
                f"<title>{escape(mark.text)}</title></rect>"
            )
    axis = _time_axis(end_s, height, left, plot)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(rows)}{axis}</svg>'


def nice_ceiling(value: float) -> float:
    """A round number that is at least `value` and not much more, divisible by four; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0)
    return next(step * power for step in steps if step * power >= value * 0.9999)


def _frame(height: int, end_s: float, top: float, unit: str, inside: str, marks: Sequence[Mark]) -> str:
    """The chart with its axes; `marks` are ticks along its upper edge."""
    plot = height - _TOP - _BOTTOM
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _TOP + plot * (1 - share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = f"{top * share:g}{unit}"
        parts.append(f'<text class="axis" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    ticks = "".join(
        f'<line class="mark" x1="{_x(mark.at_s, end_s):.1f}" x2="{_x(mark.at_s, end_s):.1f}" y1="2" y2="11">'
        f"<title>{escape(mark.text)}</title></line>"
        for mark in marks
    )
    axis = _time_axis(end_s, height, _LEFT, _PLOT)
    content = f"{''.join(parts)}{inside}{ticks}{axis}"
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{content}</svg>'


def _time_axis(end_s: float, height: int, left: float, plot: float) -> str:
    step_s = _step(end_s, plot)
    unit_s, unit = (3600, "h") if step_s >= 3600 else (60, "min") if step_s >= 60 else (1, "s")
    labels = []
    at_s = 0.0
    while at_s <= end_s * 1.0001:
        x = left + at_s / end_s * plot
        anchor = "end" if at_s > end_s * 0.97 else "middle"
        text = f"{at_s / unit_s:g} {unit}"
        labels.append(f'<text class="axis" x="{x:.1f}" y="{height - 8}" text-anchor="{anchor}">{text}</text>')
        at_s += step_s
    return "".join(labels)


def _step(end_s: float, plot: float) -> float:
    """Between two labels: a round time that leaves room for them."""
    most = max(int(plot / _LABEL_EVERY), 1)
    steps = (1, 5, 10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 7 * 86400)
    return next((float(step) for step in steps if end_s / step <= most), end_s)


def _x(at_s: float, end_s: float) -> float:
    return _LEFT + min(at_s / end_s, 1.0) * _PLOT


def _y(value: float, top: float, plot: float) -> float:
    return _TOP + plot * (1 - value / top)
