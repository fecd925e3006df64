"""Cases of merge methods, through `evomerge.merge_tensors`."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from evomerge import merge_tensors, plugins
from evomerge.checkpoints.architecture import is_embedding
from evomerge.merge.kernels.magprune import half_widths, keep_chance
from evomerge.merge.kernels.tall_masks import consensus_mask
from evomerge.merge.method import Informed, Site, View
from evomerge.parameters import Choice, Parameter, bind, declared
from tests.conformance.cases import ONLY, Case, Tensors

_ONE_VECTOR = {"della_magprune": "della_linear", "breadcrumbs_mask": "breadcrumbs"}
"""Cases of one task vector on the way to a merge, and a method whose merge of one source is that vector."""
_TABLE = "model.embed_tokens.weight"
"""The name of a case's single tensor, if that is an embedding."""
_NO_PARAMETERS = ("must_raise", "n_seeds", "int8_mask")
"""The last is how mergekit stores a mask."""
_UNSAID = ("none", "uniform")
"""Words for a default, where they are not themselves an option."""


def is_merge(method: str) -> bool:
    return method in plugins.names("methods") or method in _ONE_VECTOR


def output(case: Case, name: str) -> Any:
    """Return what the merge of `case` gives under the name `name`."""
    if name == "merged":
        return unwrapped(merged(case), case)
    if vector := re.fullmatch(r"delta(\d*)", name):
        return unwrapped(task_vector(case, int(vector[1] or 0)), case)
    return STEPS[name](case)


def keep_prob(case: Case) -> Tensor | list[Tensor]:
    """Return the chance of each entry to stay under MagPrune: of the only source, or of each."""
    method, deltas = method_of(case), deltas_of(case)
    widths = half_widths(method.density, method.epsilon, method.epsilon_share)
    chances = [
        keep_chance(delta, share, half, rank_scope=method.rank_scope)
        for delta, share, half in zip(deltas, method.density, widths, strict=True)
    ]
    return chances if len(chances) > 1 or isinstance(case.expected["keep_prob"], list) else chances[0]


def consensus_of(case: Case) -> tuple[Tensor, Tensor]:
    """Return the mask of each task `(n, *s)`, and where enough tasks agree `(*s)`."""
    method = method_of(case)
    (view,) = views_of(case)
    survey = method.survey(lambda: views_of(case)) if method.survey_key() else None
    _, masks = method.used(view.load(), replace(view.site, survey=survey))
    return masks, consensus_mask(masks, method.k)


def kind_of(case: Case) -> Any:
    return plugins.load("methods", _ONE_VECTOR.get(case.method, case.method))


def method_of(case: Case) -> Any:
    """Return the method of a case with its parameters."""
    return bind(kind_of(case), params_of(case), len(case.models), compat=case.compat)


def views_of(case: Case) -> Iterator[View]:
    """Yield the tensors of a case as a survey sees them."""
    names = tuple(f"model{i}" for i in range(len(case.models)))
    for name, value in case.models[0].items():
        start = case.base[name] if case.base else torch.zeros(())
        deltas = torch.stack([model[name] - start for model in case.models])
        site = Site(tensor=name, sources=names, seed=0, embedding=is_embedding(name))
        yield View(site=site, shape=tuple(value.shape), load=lambda deltas=deltas: deltas)  # type: ignore[misc]


def competed(case: Case) -> tuple[Tensor, Tensor]:
    """Return PCB's clipped task vectors and their shares over the whole model, `(n, d)`."""
    method = method_of(case)
    bounds = method.survey(lambda: views_of(case))
    parts = [method.compete(view.load(), bounds) for view in views_of(case)]
    clipped, shares = zip(*parts, strict=True)
    return tuple(torch.cat([each.flatten(1) for each in found], 1) for found in (clipped, shares))  # type: ignore[return-value]


def compressed(case: Case) -> Tensor:
    """Return ComPEFT's compressed task vector of the only source, `(d,)`."""
    return torch.cat([value.flatten() for value in task_vector(case, 0).values()])


STEPS: Mapping[str, Callable[[Case], Any]] = {
    "beta": lambda case: competed(case)[1],
    "clamped_delta": lambda case: competed(case)[0],
    "lambda_t": lambda case: method_of(case).survey(lambda: views_of(case)).lambdas[-1],
    "nonzero": lambda case: int(compressed(case).count_nonzero()),
    "scale": lambda case: float(compressed(case).abs().max()),
    "std_full": lambda case: method_of(case).survey(lambda: views_of(case)).magnitudes[0],
    "keep_prob": keep_prob,
    "task_masks": lambda case: consensus_of(case)[0],
    "consensus": lambda case: consensus_of(case)[1],
}
"""What some cases show of the way to a merge."""


def deltas_of(case: Case) -> list[Tensor]:
    """Return the task vectors of a case of one tensor."""
    start = case.base[ONLY] if case.base else torch.zeros(())
    return [model[ONLY] - start for model in case.models]


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
    kind = kind_of(case)
    if base is None and kind.base == "needed" and case.kind != "error":  # models are task vectors
        base = {name: torch.zeros_like(value) for name, value in models[0].items()}
    known = statistics_of(case) if isinstance(kind, Informed) else None
    if is_table(case):
        base = base and named_as_table(base)
        models = [named_as_table(model) for model in models]
        masks = masks and [named_as_table(mask) for mask in masks]
        known = known and [named_as_table(each) for each in known]
    found = merge_tensors(
        _ONE_VECTOR.get(case.method, case.method), base and moved(base, case.device),
        [moved(each, case.device) for each in models], params, seed=seed, compat=case.compat,
        statistics=known and [moved(each, case.device) for each in known],
        keep_masks=masks and [moved(each, case.device) for each in masks],
    )  # fmt: skip
    found = moved(found, "cpu")
    return {ONLY if name == _TABLE and is_table(case) else name: value for name, value in found.items()}


def moved(tensors: Tensors, device: str) -> Tensors:
    return {name: value.to(device) for name, value in tensors.items()}


def is_table(case: Case) -> bool:
    """Return whether the single tensor of a case is an embedding: it says so, or sizes differ in a merge.

    Nothing else may differ in size, and a lone array has no name that would tell.
    """
    if case.entry["scope"] != "tensor":
        return False
    shapes = {tuple(model[ONLY].shape) for model in (*case.models, *filter(None, [case.base]))}
    said = any(value is True for name, value in case.params.items() if "embed" in name)
    return said or (case.kind != "error" and len(shapes) > 1)


def named_as_table(tensors: Tensors) -> Tensors:
    return {_TABLE: tensors[ONLY]}


def params_of(case: Case) -> dict[str, Any]:
    """Return the parameters as the method takes them.

    What the method does not declare and is text, or says that the tensor is an embedding, describes the
    case. `null` and `none` are an option where a parameter has one of that name, and its default otherwise.
    An order of merging becomes each source's place in it.
    """
    params: dict[str, Any] = {}
    specs = words_of(kind_of(case))
    for name, value in case.params.items():
        if name in _NO_PARAMETERS or (name not in specs and (isinstance(value, str) or "embed" in name)):
            continue
        if value is None or (isinstance(value, str) and value in _UNSAID):
            word = "none" if value is None else value
            if name not in specs or word not in options_of(specs[name]):
                continue
            value = word
        params[name] = value
    if "order" in params:
        params["order"] = [params["order"].index(source) for source in range(len(params["order"]))]
    return params


def words_of(kind: Any) -> dict[str, Parameter]:
    """Return the parameters of a method by their names and other words."""
    found: dict[str, Parameter] = {}
    for name, parameter in declared(kind).items():
        spec = parameter.spec
        found |= dict.fromkeys((name, *(spec.words if isinstance(spec, Choice) else spec.also)), parameter)
    return found


def options_of(parameter: Parameter) -> tuple[Any, ...]:
    spec = parameter.spec
    return (*spec.options, *spec.also) if isinstance(spec, Choice) else ()


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
    method = method_of(case)
    if not hasattr(method, "epsilon"):
        return float(method.density[0])
    (delta,), (width,) = deltas_of(case), half_widths(method.density, method.epsilon, method.epsilon_share)
    return keep_chance(delta, method.density[0], width, rank_scope=method.rank_scope)


def drops_at_the_stated_rate(case: Case) -> None:
    """The cases' notes: share kept and exact rescaling per seed, unbiased over seeds, masks all different."""
    chance, seeds = chance_to_stay(case), int(case.params["n_seeds"])
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
