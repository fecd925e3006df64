"""Cases of merge methods, through `evomerge.merge_tensors`."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from evomerge import merge_tensors, plugins
from evomerge.merge.method import Informed
from tests.conformance.cases import ONLY, Case, Tensors

_ONE_VECTOR = {"della_magprune": "della_linear", "breadcrumbs_mask": "breadcrumbs"}
"""Cases of one task vector on the way to a merge, and a method whose merge of one source is that vector."""


def is_merge(method: str) -> bool:
    return method in plugins.names("methods") or method in _ONE_VECTOR


def output(case: Case, name: str) -> Any:
    """Return what the merge of `case` gives under the name `name`."""
    if name == "merged":
        return unwrapped(merged(case), case)
    if vector := re.fullmatch(r"delta(\d*)", name):
        return unwrapped(task_vector(case, int(vector[1] or 0)), case)
    raise LookupError(f"the runner knows no output `{name}` of a merge")


def merged(case: Case, *, seed: int = 0) -> Tensors:
    return _merge(case, case.base, case.models, params_of(case), masks_of(case), seed=seed)


def task_vector(case: Case, source: int, *, seed: int = 0) -> Tensors:
    """Return what becomes of the task vector of one source before the sources are added up."""
    model = case.models[source]
    zero = {name: torch.zeros_like(value) for name, value in model.items()}
    delta = {name: value - case.base[name] for name, value in model.items()} if case.base else model
    masks = masks_of(case)
    params = {
        name: value[source] if isinstance(value, list | tuple) else value
        for name, value in params_of(case).items()
        if name not in ("weight", "weights", "lambda")
    }
    return _merge(case, zero, [delta], params, masks and [masks[source]], seed=seed)


def _merge(
    case: Case,
    base: Tensors | None,
    models: Sequence[Tensors],
    params: Mapping[str, Any],
    masks: Sequence[Tensors] | None,
    *,
    seed: int,
) -> Tensors:
    method = _ONE_VECTOR.get(case.method, case.method)
    known = statistics_of(case) if isinstance(plugins.load("methods", method), Informed) else None
    return merge_tensors(
        method, base, models, params, seed=seed, compat=case.compat, statistics=known, keep_masks=masks
    )


def params_of(case: Case) -> dict[str, Any]:
    return case.params


def masks_of(case: Case) -> list[Tensors] | None:
    """Return the masks that a case gives in the place of random draws."""
    given = case.aux.get("keep_mask")
    return None if given is None else [case.named(each) for each in given]


def statistics_of(case: Case) -> list[Tensors]:
    """Return the Fisher information or Gram matrices of a case by tensor name; Gram matrices go by module."""
    (kind,) = ({"fisher", "gram"} & set(case.aux)) or {""}
    found = [case.named(each) for each in case.aux.get(kind, ())]
    names = set(case.models[0])
    return [
        {name if name in names else f"{name}.weight": value for name, value in each.items()} for each in found
    ]


def unwrapped(tensors: Tensors, case: Case) -> Any:
    return tensors[ONLY] if case.entry["scope"] == "tensor" else tensors


def chance_to_stay(case: Case) -> Tensor | float:
    """Return the chance of each entry of a random method's only task vector."""
    params = params_of(case)
    if "drop_rate" in params:
        return 1.0 - float(params["drop_rate"])
    return float(params["density"])


def drops_at_the_stated_rate(case: Case) -> None:
    """The cases' notes: share kept and exact rescaling per seed, unbiased over seeds, masks all different."""
    chance, seeds = chance_to_stay(case), int(case.all_params["n_seeds"])
    (model,) = case.models
    delta = model[ONLY] if case.base is None else model[ONLY] - case.base[ONLY]
    rate = torch.as_tensor(chance, dtype=torch.float64).expand(delta.shape)
    mean = torch.zeros_like(delta, dtype=torch.float64)
    draws: list[Tensor] = []
    for seed in range(seeds):
        dropped = task_vector(case, 0, seed=seed)[ONLY]
        kept = dropped != 0
        assert abs(float(kept[delta != 0].double().mean() - rate[delta != 0].mean())) <= 0.03
        torch.testing.assert_close(dropped[kept].double(), (delta / rate)[kept], rtol=1e-6, atol=0.0)
        mean += dropped.double() / seeds
        draws.append(kept)
    assert len({kept.numpy().tobytes() for kept in draws}) == seeds
    bound = 6 * delta.double().abs() * ((1 - rate) / rate / seeds).sqrt()
    assert float(((mean - delta.double()).abs() <= bound).double().mean()) >= 0.999


def is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_finite, value))
    return bool(value.isfinite().all()) if isinstance(value, Tensor) else math.isfinite(value)
