"""mergekit's passthrough as the path of a recipe: slices of single models, their tensors scaled."""

from __future__ import annotations

from collections.abc import Callable

from evomerge.errors import RecipeError
from evomerge.mergekit.findings import Findings
from evomerge.mergekit.form import Config, Reference, Slice
from evomerge.mergekit.gradients import at, composed, in_layers_only
from evomerge.mergekit.known import NO_EFFECT
from evomerge.recipe import Filtered, Slot
from evomerge.recipe.layered import Layered, relative_depth
from evomerge.recipe.path import ANY, NO_ENDS, Ends, WeightFactors
from evomerge.space.document import KeyPath


def passthrough_of(
    config: Config, named: Callable[[Reference], str], findings: Findings
) -> tuple[tuple[Slot, ...], Ends] | None:
    """Return the path and ends of a passthrough, None if it cannot be converted."""
    if config.whole:
        findings.wrong(
            config.document, ("models",), "have no layer ranges: write `slices` with a `layer_range` for each"
        )
        return None
    path: list[Slot] = []
    ends: list[WeightFactors] = []
    for part in config.slices:
        if len(part.inputs) != 1:
            findings.wrong(
                config.document,
                (*part.where, "sources"),
                f"must be one model for `passthrough`, found {len(part.inputs)}",
            )
            continue
        slots, around = _slots(config, part, named, findings)
        path += slots
        ends += [around[0]] if part is config.slices[0] else []
        ends += [around[1]] if part is config.slices[-1] else []
    if not path or len(ends) != 2:  # what is wrong is told
        return None
    if ends[0] != ends[1]:
        findings.wrong(
            config.document,
            (*config.slices[-1].where,),
            "scales what lies behind the layers otherwise than the first slice what lies before them",
        )
        return None
    return tuple(path), Ends(weights=ends[0]) if ends[0] else NO_ENDS


def _slots(
    config: Config, part: Slice, named: Callable[[Reference], str], findings: Findings
) -> tuple[list[Slot], tuple[WeightFactors, WeightFactors]]:
    """Return the layers of a slice, and the factors of what may lie before and behind them."""
    (source,) = part.inputs
    first, stop = source.layers or (0, 0)
    levels = (source.parameters, part.parameters, config.parameters)
    for path, parameters in zip((source.where, part.where, ()), levels, strict=True):
        for word in parameters:
            place: KeyPath = (*path, "parameters", word)
            if word in NO_EFFECT:
                findings.note(place, "changes nothing in the result and is left out")
            elif word != "scale":
                findings.note(place, "is not read by mergekit's `passthrough` and left out")
    scale, _ = composed([level.get("scale") for level in levels], 1.0)
    model = named(source.model)
    slots = []
    for layer in range(first, stop):
        weights = _factors(scale, relative_depth(layer, first, stop - 1))
        try:
            slots.append(Slot(model=model, layer=layer, weights=weights))
        except RecipeError as error:
            findings.wrong(config.document, (*part.where, "sources"), f"are scaled so: {error}")
            break
    before, behind = (outer_factors(_factors(scale, depth)) for depth in (0.0, 1.0))
    return slots, (before, behind)


def _factors(scale: Layered | None, depth: float) -> WeightFactors:
    """Return mergekit's `scale` at a relative depth as factors of tensors by name."""
    if scale is None:
        return ()
    settled = at(scale, depth)
    entries = settled if isinstance(settled, tuple) else (Filtered(value=settled),)
    found = {
        entry.filter or ANY: float(entry.value)  # type: ignore[arg-type]
        for entry in reversed(entries)
        if isinstance(entry, Filtered)
    }
    factors = [(name, found[name]) for name in reversed(found)]
    while factors and factors[-1] == (ANY, 1.0):
        factors.pop()
    return tuple(factors)


def outer_factors(factors: WeightFactors) -> WeightFactors:
    """Return the factors that tensors outside the layers may fit."""
    return tuple(each for each in factors if not in_layers_only(each[0]))
