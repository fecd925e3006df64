"""Small tensors for the contract of merge methods, and a merge of them under a method's defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from evomerge import plugins
from evomerge.checkpoints.architecture import is_embedding
from evomerge.merge.method import Informed
from evomerge.merge.tensors import merge_tensors
from evomerge.parameters import declared
from evomerge.seeds import derive
from evomerge.types import Statistic

Tensors: TypeAlias = dict[str, Tensor]

_SHAPES = {
    "embed_tokens.weight": (8, 4), "layers.0.weight": (6, 5), "layers.1.weight": (4, 3, 2), "norm.bias": (7,),
}  # fmt: skip


def example(
    name: str,
    *,
    count: int | None = None,
    dtype: torch.dtype = torch.float32,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[Tensors, list[Tensors]]:
    """Return a base and `count` models near it (two, or what the method takes), always the same."""
    least, most = plugins.load("methods", name).sources
    count = min(max(least, 2), most or 2) if count is None else count
    generator = torch.Generator().manual_seed(20)
    shapes = shapes or _SHAPES
    base = {tensor: torch.randn(shape, generator=generator) for tensor, shape in shapes.items()}
    models = [
        {
            tensor: value + 0.1 * torch.randn(value.shape, generator=generator)
            for tensor, value in base.items()
        }
        for _ in range(count)
    ]
    return cast(base, dtype), [cast(model, dtype) for model in models]


def cast(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """Return the tensors in another dtype."""
    return {tensor: value.to(dtype) for tensor, value in tensors.items()}


def merge(
    name: str,
    base: Tensors,
    models: Sequence[Tensors],
    params: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    compat: str = "evomerge",
    template_in_models: Tensors | None = None,
) -> Tensors:
    """Return the merge under `params`, else the method's defaults with half the density, if it has one.

    Without a base the first model is the template, and gets `template_in_models` in its place.
    """
    kind = plugins.load("methods", name)
    if params is None:
        params = {"density": 0.5} if "density" in declared(kind) else {}
    known = None
    if isinstance(kind, Informed):
        known = [statistics_of(kind.statistic, i, model) for i, model in enumerate(models)]
    if kind.base != "unused":
        return merge_tensors(name, base, models, params, seed=seed, compat=compat, statistics=known)
    first = {**models[0], **(template_in_models or {})} if models else None
    sources = [first, *models[1:]] if first else []
    return merge_tensors(name, None, sources, params, seed=seed, compat=compat, statistics=known)


def statistics_of(kind: Statistic, number: int, model: Tensors) -> Tensors:
    """Return what could have been measured on the model: positive, by its tensors' names and `number`."""
    known: Tensors = {}
    for tensor, value in model.items():
        generator = torch.Generator().manual_seed(derive(number, tensor))
        if kind == "fisher":
            known[tensor] = torch.rand(value.shape, generator=generator)
        elif value.ndim == 2 and not is_embedding(tensor):
            inputs = torch.randn(16, value.shape[-1], generator=generator)
            known[tensor] = inputs.T @ inputs / 16
    return known
