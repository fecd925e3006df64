"""What a recipe does to each layer and module: one heat map per parameter and source.

All is read from the recipe, which is what was built, and not from the genes that led to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup

from evomerge import plugins
from evomerge.archive.coefficients import merge_coefficients
from evomerge.parameters import declared
from evomerge.recipe import Merge, Recipe
from evomerge.recipe.merge import IN_LAYERS
from evomerge.report.figures.drawing import (
    Figure,
    drawing,
    join,
    number,
    rect,
    text,
    tick_label,
)
from evomerge.report.figures.order import order_of_layers
from evomerge.types import Value

Place: TypeAlias = tuple[int | None, str]
"""A layer and a module group; outside the layers None, with `embed` or `head`."""

_WIDTH, _LEFT, _TOP, _ROW, _END, _GAP = 540.0, 96.0, 4.0, 26.0, 46.0, 6.0
_STRONGEST = 0.8
_READABLE = 30.0
"""A cell this wide has room for its number."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One number at every place of a merge, and the neutral value that colours are counted from."""

    title: str
    parameter: str
    values: Mapping[Place, float]
    neutral: float


def heat_maps(recipe: Recipe, layers: int) -> list[Figure]:
    """Return the figures of a recipe: the order of its layers if it has a path, and each merge's numbers."""
    figures = [order_of_layers(recipe, recipe.path)] if recipe.path is not None else []
    for name, merge in recipe.merges.items():
        named = f"{name}: " if len(recipe.merges) > 1 or recipe.path is not None else ""
        found = list(panels(merge, layers, named))
        figures += [_heat_map(panel, layers, _furthest(panel, found)) for panel in found]
    return figures


def panels(merge: Merge, layers: int, named: str = "") -> Iterator[Panel]:
    """Yield a panel for each number that a merge sets, per source where it has one per source."""
    neutral = _neutral(merge)
    found: dict[tuple[str, str | None], dict[Place, float]] = {}
    for row in merge_coefficients("", merge, layers):
        if _is_number(row.value):
            found.setdefault((row.parameter, row.source), {})[row.layer, row.module] = float(row.value)
    parameters = dict.fromkeys(parameter for parameter, _ in found)
    for parameter, source in itertools.product(parameters, (*merge.sources, None)):
        if (parameter, source) not in found:
            continue
        of = f" of {source}" if source else ""
        yield Panel(
            title=f"{named}{parameter}{of} ({merge.method})",
            parameter=parameter,
            values=found[parameter, source],
            neutral=neutral(parameter),
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _neutral(merge: Merge) -> Callable[[str], float]:
    """Return what says which value of a parameter changes nothing that its method does by itself."""
    defaults: dict[str, Value] = {}
    if merge.method in plugins.names("methods"):
        own = declared(plugins.load("methods", merge.method))
        defaults = {name: parameter.default(merge.compat) for name, parameter in own.items()}

    def of(name: str) -> float:
        value = defaults.get(name)
        return float(value) if isinstance(value, int | float) else 0.0

    return of


def _furthest(panel: Panel, others: Sequence[Panel]) -> float:
    """Return how far a parameter gets from its neutral value in any panel, so that sources have one scale."""
    own = [other for other in others if other.parameter == panel.parameter]
    return max(abs(value - panel.neutral) for other in own for value in other.values.values()) or 1.0


def _heat_map(panel: Panel, layers: int, furthest: float) -> Figure:
    modules = _rows(panel, layers)
    bottom = _TOP + _ROW * len(modules)
    cell = (_WIDTH - _LEFT - 2 * (_END + _GAP)) / layers
    parts = []
    for k, (label, group) in enumerate(modules):
        y = _TOP + k * _ROW
        parts.append(text(_LEFT - 8, y + _ROW / 2 + 4, label, at="end", kind="label"))
        for layer in range(layers):
            value = panel.values.get((layer, group))
            x = _LEFT + _END + _GAP + layer * cell
            parts.append(_cell(x, y, cell, _ROW, value, panel, furthest, f"layer {layer}, {label}"))
    height = bottom - _TOP
    ends = (("embed", _LEFT), ("head", _WIDTH - _END))
    for module, x in ends:
        value = panel.values.get((None, module))
        parts += [
            _cell(x, _TOP, _END, height, value, panel, furthest, module),
            text(x + _END / 2, bottom + 16, module, at="middle"),
        ]
    every = max(1, -(-layers // 16))
    parts += [
        text(_LEFT + _END + _GAP + (layer + 0.5) * cell, bottom + 16, str(layer), at="middle")
        for layer in range(0, layers, every)
    ]
    parts += [text(_LEFT + _END + _GAP + layers * cell / 2, bottom + 34, "layer", at="middle", kind="title")]
    parts.append(_key(bottom + 48, panel, furthest))
    return Figure(
        title=panel.title, svg=drawing(_WIDTH, bottom + 78, parts, f"{panel.title} by layer and module")
    )


def _rows(panel: Panel, layers: int) -> list[tuple[str, str]]:
    """Return the rows' labels, each with a module group whose values it shows; equal ones share a row."""
    columns: dict[tuple[float | None, ...], list[str]] = {}
    for module in IN_LAYERS:
        columns.setdefault(tuple(panel.values.get((i, module)) for i in range(layers)), []).append(module)
    shown = [
        (", ".join(group), group[0])
        for values, group in columns.items()
        if any(v is not None for v in values)
    ]
    return shown or [("", IN_LAYERS[0])]


def _cell(
    x: float,
    y: float,
    width: float,
    height: float,
    value: float | None,
    panel: Panel,
    furthest: float,
    where: str,
) -> Markup:
    gap = 1.0 if width > 6 else 0.0
    if value is None:
        return rect(x, y, width - gap, height - 1, "cell none", f"{where}: not set")
    off = (value - panel.neutral) / furthest
    told = f"{where}: {number(value)}"
    under = rect(x, y, width - gap, height - 1, "cell")
    over = rect(
        x, y, width - gap, height - 1, "high" if off > 0 else "low", told, share=_STRONGEST * abs(off)
    )
    if width < _READABLE:
        return under + over
    label = text(x + width / 2, y + height / 2 + 4, f"{value:.2f}", at="middle", kind="on", size=11)
    return under + over + label


def _key(y: float, panel: Panel, furthest: float) -> Markup:
    """Return a bar that tells which colour is which number."""
    steps, width = 11, 14.0
    start = _WIDTH - 70 - steps * width
    parts = [text(start - 8, y + 11, tick_label(round(panel.neutral - furthest, 3)), at="end", size=11)]
    for k in range(steps):
        off = 2 * k / (steps - 1) - 1
        kind = "high" if off > 0 else "low"
        parts += [
            rect(start + k * width, y, width, 14, "cell"),
            rect(start + k * width, y, width, 14, kind, share=_STRONGEST * abs(off)),
        ]
    parts.append(
        text(start + steps * width + 8, y + 11, tick_label(round(panel.neutral + furthest, 3)), size=11)
    )
    middle = start + steps * width / 2
    parts.append(text(middle, y + 27, f"neutral {tick_label(panel.neutral)}", at="middle", size=11))
    return join(parts)
