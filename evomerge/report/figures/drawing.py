"""SVG in pieces: marks, text, axes. Names are others' words, so all text goes through `Markup` and `plain`.

Colours stand in the page's style sheet, by class, so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evomerge.others_words import plain

SIZE = 12.0
"""Of text, in the units of a drawing."""

_WIDE = 0.56
"""Of a letter as a share of its size, on average."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with what it shows, and how to read it; `wide` ones take the page's whole width."""

    title: str
    svg: Markup
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear map from values `low` to `high` onto places `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        if self.high == self.low:
            return (self.start + self.stop) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values inside, about so many."""
        width = self.high - self.low
        if not width > 0:
            return [self.low]
        rough = width / about
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * each for each in (1, 2, 2.5, 5, 10) if unit * each >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [each * step for each in range(first, last + 1)]


def spanning(values: Iterable[float], start: float, stop: float, *, room: float = 0.06) -> Scale:
    """Return a scale over all values with some room at either end."""
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    spare = (high - low) * room if high > low else max(abs(high) * room, 0.01)
    return Scale(low=low - spare, high=high + spare, start=start, stop=stop)


def number(value: float, *, digits: int = 3) -> str:
    """Return a number for people: so many decimals, or a few significant digits where it is large."""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.{digits}f}"
    return f"{value:.4g}"


def tick_label(value: float) -> str:
    """Return a tick's value without needless zeros."""
    return f"{0.0 if abs(value) < 1e-12 else value:.6g}".replace("-", "−")


def width_of(label: str, size: float = SIZE) -> float:
    """Return about how wide a label is."""
    return len(label) * size * _WIDE


def shortened(label: str, room: float, size: float = SIZE) -> str:
    """Return a label that fits into `room`, its middle left out where it must."""
    most = max(int(room / (size * _WIDE)), 4)
    label = plain(label)
    if len(label) <= most:
        return label
    head = (most - 1) // 2
    return f"{label[:head]}…{label[-(most - 1 - head) :]}"


def text(
    x: float,
    y: float,
    label: str,
    *,
    at: str = "start",
    kind: str = "",
    size: float = SIZE,
    turned: bool = False,
) -> Markup:
    """Return a label at a place; `at` is its start, middle or end."""
    turn = Markup(' transform="rotate(-90 {:.1f} {:.1f})"').format(x, y) if turned else ""
    return Markup(
        '<text x="{:.1f}" y="{:.1f}" text-anchor="{}" font-size="{:g}" class="{}"{}>{}</text>'
    ).format(x, y, at, size, kind, turn, plain(label))


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """Return a straight line."""
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(
        x1, y1, x2, y2, kind
    )


def trace(points: Sequence[tuple[float, float]], kind: str, told: str = "") -> Markup:
    """Return a line through points."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline points="{}" class="{}">{}</polyline>').format(joined, kind, _told(told))


def rect(
    x: float, y: float, width: float, height: float, kind: str, told: str = "", *, share: float = 1
) -> Markup:
    """Return a rectangle, its fill as strong as `share`."""
    return Markup(
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}" '
        'fill-opacity="{:.2f}">{}</rect>'
    ).format(x, y, width, height, kind, share, _told(told))


def mark(x: float, y: float, kind: str, told: str = "", *, shape: str = "dot", size: float = 3.0) -> Markup:
    """Return a mark at a place: a dot, a square, a diamond or a cross; a pointer on it shows `told`."""
    if shape == "dot":
        body = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:g}" class="{}">').format(x, y, size, kind)
        return body + _told(told) + Markup("</circle>")
    side, tip = 2 * size, 1.4 * size
    ways = {
        "square": f"M{x - size:.1f} {y - size:.1f}h{side:g}v{side:g}h-{side:g}z",
        "diamond": f"M{x:.1f} {y - tip:.1f}l{tip:g} {tip:g}l-{tip:g} {tip:g}l-{tip:g} -{tip:g}z",
        "cross": f"M{x - size:.1f} {y - size:.1f}l{side:g} {side:g}m0 -{side:g}l-{side:g} {side:g}",
    }
    return Markup('<path d="{}" class="{}">{}</path>').format(ways[shape], kind, _told(told))


def _told(words: str) -> Markup:
    """Return what a browser shows where a pointer rests."""
    return Markup("<title>{}</title>").format(plain(words)) if words else Markup("")


def across(
    scale: Scale, y: float, top: float, label: str, *, about: int = 5, middle: float | None = None
) -> Markup:
    """Return a horizontal axis at height `y`, its grid up to `top`, and what it counts."""
    parts = [line(scale.start, y, scale.stop, y, "axis")]
    for value in scale.ticks(about):
        place = scale(value)
        parts += [line(place, top, place, y, "grid"), text(place, y + 16, tick_label(value), at="middle")]
    centre = (scale.start + scale.stop) / 2 if middle is None else middle
    parts.append(text(centre, y + 34, label, at="middle", kind="title"))
    return join(parts)


def upward(scale: Scale, x: float, right: float, label: str) -> Markup:
    """Return a vertical axis at `x`, its grid up to `right`, what it measures above it."""
    parts = [line(x, scale.start, x, scale.stop, "axis")]
    for value in scale.ticks():
        place = scale(value)
        parts += [line(x, place, right, place, "grid"), text(x - 6, place + 4, tick_label(value), at="end")]
    parts.append(text(4, scale.stop - 12, shortened(label, right - 4), kind="title"))
    return join(parts)


def spread(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Return places near those wanted, in their order of size, at least `apart`, between `low` and `high`."""
    order = sorted(range(len(wanted)), key=lambda k: wanted[k])
    found = [0.0] * len(wanted)
    last = low - apart
    for k in order:
        last = found[k] = max(wanted[k], last + apart)
    last = high + apart
    for k in reversed(order):
        last = found[k] = min(found[k], last - apart)
    return found


def join(parts: Iterable[Markup]) -> Markup:
    """Return pieces of a drawing as one."""
    return Markup("").join(parts)


def drawing(width: float, height: float, parts: Iterable[Markup], told: str) -> Markup:
    """Return the SVG of so many units, and what it shows for those who cannot see it."""
    return Markup(
        '<svg viewBox="0 0 {:g} {:g}" width="{:g}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">'
        "{}</svg>"
    ).format(width, height, width, plain(told), join(parts))
