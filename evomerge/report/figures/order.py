"""The order of a path: which layer of which model stands where, and what it is scaled by."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from evomerge.recipe import Recipe
from evomerge.recipe.path import Slot
from evomerge.report.figures.drawing import Figure, drawing, join, number, rect, shortened, text, trace

_WIDTH, _LEFT, _TOP, _ROW, _END, _GAP = 540.0, 96.0, 4.0, 26.0, 46.0, 6.0


def order_of_layers(recipe: Recipe, path: Sequence[Slot]) -> Figure:
    """Return which layer of which model stands where in the stack."""
    models = list(dict.fromkeys([recipe.embed_from, *(slot.model for slot in path), recipe.head_from]))
    bottom = _TOP + _ROW * len(models)
    cell = (_WIDTH - _LEFT - 2 * (_END + _GAP)) / len(path)
    begin = _LEFT + _END + _GAP
    parts = []
    for k, model in enumerate(models):
        y = _TOP + k * _ROW
        parts += [
            text(_LEFT - 8, y + _ROW / 2 + 4, shortened(model, _LEFT - 10), at="end", kind="label"),
            rect(_LEFT, y, _WIDTH - _LEFT, _ROW - 1, "cell", share=0.5),
        ]
    for place, slot in enumerate(path):
        y = _TOP + models.index(slot.model) * _ROW
        told = f"slot {place}: layer {slot.layer} of {slot.model}, scale {number(slot.scale)}"
        parts.append(rect(begin + place * cell, y, cell - 1, _ROW - 1, "taken", told))
        if cell >= 16:
            parts.append(
                text(begin + (place + 0.5) * cell, y + 17, str(slot.layer), at="middle", kind="on", size=11)
            )
    for label, model, x in (("embed", recipe.embed_from, _LEFT), ("head", recipe.head_from, _WIDTH - _END)):
        y = _TOP + models.index(model) * _ROW
        parts += [
            rect(x, y, _END, _ROW - 1, "taken", f"{label} of {model}"),
            text(x + _END / 2, y + 17, label, at="middle", kind="on", size=11),
        ]
    parts += _slots(begin, cell, len(path), bottom)
    scaled = any(slot.scale != 1 for slot in path)
    if scaled:
        parts.append(_scales(path, begin, cell, bottom + 50))
    return Figure(
        title="Order of layers",
        svg=drawing(
            _WIDTH, bottom + (124 if scaled else 42), parts, "Which layer of which model is in which slot"
        ),
        caption="Each column is a layer of the merged model, bottom layer first; the number is the layer's "
        "own in the model of its row."
        + (" Below: what the hidden state is multiplied by on entering." if scaled else ""),
    )


def _slots(begin: float, cell: float, count: int, bottom: float) -> list[Markup]:
    every = max(1, -(-count // 16))
    ticks = [text(begin + (k + 0.5) * cell, bottom + 16, str(k), at="middle") for k in range(0, count, every)]
    return [*ticks, text(begin + count * cell / 2, bottom + 34, "slot", at="middle", kind="title")]


def _scales(path: Sequence[Slot], begin: float, cell: float, top: float) -> Markup:
    """Return the scales as a line of steps around 1."""
    furthest = max(abs(slot.scale - 1) for slot in path)
    middle, half = top + 32, 26.0
    points = []
    for place, slot in enumerate(path):
        y = middle - half * (slot.scale - 1) / furthest
        points += [(begin + place * cell, y), (begin + (place + 1) * cell, y)]
    end = begin + len(path) * cell
    return join(
        [
            trace([(begin, middle), (end, middle)], "grid"),
            trace(points, "line best"),
            text(_LEFT - 8, middle + 4, "scale", at="end", kind="label"),
            text(begin - 4, middle - half + 4, number(1 + furthest, digits=2), at="end", size=11),
            text(begin - 4, middle + 4, "1", at="end", size=11),
            text(begin - 4, middle + half + 4, number(1 - furthest, digits=2), at="end", size=11),
        ]
    )
