"""Paths from the literature: slices of models, removed layers, shared layers, centres of clusters.

Each function returns the slots of a path; none looks at a model, so layers are given as numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from evomerge.errors import RecipeError
from evomerge.recipe.path import Slot, WeightFactors

Clusters = Sequence[Sequence[int]]
"""All layers in their order, cut into runs: `[[0, 1], [2], [3, 4, 5]]`."""


def passthrough(slices: Sequence[tuple[str, int, int]], *, weights: WeightFactors = ()) -> tuple[Slot, ...]:
    """Return slices (model, first layer, layer after the last) stacked bottom to top.

    `weights` multiply tensors as mergekit's `scale` does: `(("o_proj", 0.5), ("down_proj", 0.5))` halves
    what each block adds. In mergekit they also reach the ends of the model; here `Ends(weights=…)` says so.
    """
    for model, first, stop in slices:
        if not 0 <= first < stop:
            raise RecipeError(
                f"a slice of `{model}` is first layer and layer after the last, found {first}, {stop}"
            )
    return tuple(
        Slot(model=model, layer=layer, weights=weights)
        for model, first, stop in slices
        for layer in range(first, stop)
    )


def without_layers(model: str, layers: int, removed: Collection[int]) -> tuple[Slot, ...]:
    """Return all `layers` of a model but those `removed` (ShortGPT, https://arxiv.org/abs/2403.03853)."""
    for layer in sorted(removed):
        if not 0 <= layer < layers:
            raise RecipeError(f"layer {layer} cannot be removed: `{model}` has the layers 0 to {layers - 1}")
    return tuple(Slot(model=model, layer=layer) for layer in range(layers) if layer not in removed)


def shared_layers(
    model: str, groups: Clusters, *, lender: Literal["first", "last"] = "first", own_norms: bool = True
) -> tuple[Slot, ...]:
    """Return each group's layers as its first (or last) one, the `lender`, with norms of their own.

    FoldGPT, https://arxiv.org/abs/2407.00928, which then trains the model again; nothing is trained here.
    """
    _check_runs(model, groups)
    lent = [group[0 if lender == "first" else -1] for group in groups for _ in group]
    return tuple(
        Slot(model=model, layer=other, norms=layer if own_norms and layer != other else None)
        for layer, other in enumerate(lent)
    )


def cluster_centres(model: str, clusters: Clusters, *, repeat: bool = False) -> tuple[Slot, ...]:
    """Return each cluster's centre once, or `repeat`ed as often as the cluster has layers.

    CRaSh, https://arxiv.org/abs/2310.15477: the centre of a cluster of n layers is its layer n // 2.
    """
    _check_runs(model, clusters)
    return tuple(
        Slot(model=model, layer=cluster[len(cluster) // 2])
        for cluster in clusters
        for _ in range(len(cluster) if repeat else 1)
    )


def _check_runs(model: str, groups: Clusters) -> None:
    layers = [layer for group in groups for layer in group]
    if not all(groups) or layers != list(range(len(layers))):
        raise RecipeError(f"the layers of `{model}` must be cut into runs from 0 on, found {list(groups)}")
