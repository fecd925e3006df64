"""The contract of a merge method, as checks on small tensors.

`check_method("mine")` runs all of them; each is also a function of its own in `CHECKS`, so that a test
suite can name the promise that was broken::

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_my_method(check):
        check("my_method")

A check raises `AssertionError` saying which promise does not hold. The method is found by its name, as
`evomerge.merge_tensors` finds it, and merged with its declared defaults.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, get_args

import torch
from torch import Tensor

from evomerge import plugins
from evomerge.errors import MergeError
from evomerge.merge.method import BaseUse, Cost, ignored_by
from evomerge.merge.tensors import merge_tensors
from evomerge.parameters import Choice, bind, declared
from evomerge.testing.examples import Tensors, cast, example, merge

Check: TypeAlias = Callable[[str], None]

_ROUNDING = 1e-6
"""What float32 arithmetic on a few numbers may be off by, relative to each."""
_CAST_ERROR = 2.0**-8
"""What casting a number to bfloat16 may change it by, relative to it."""


def check_method(name: str) -> None:
    """Run every check on the method `name`. Raises `AssertionError` for the first that fails."""
    for check in CHECKS.values():
        check(name)


def declares_what_it_is(name: str) -> None:
    """Check that the class is a frozen dataclass that says what it works on and how many sources it takes."""
    kind = plugins.load("methods", name)
    _hold(dataclasses.is_dataclass(kind), f"`{name}` is not a dataclass")
    _hold(kind.__dataclass_params__.frozen, f"`{name}` is not frozen")
    _hold(kind.on in ("deltas", "weights"), f"`{name}` works on {kind.on!r}")
    _hold(kind.base in get_args(BaseUse), f"`{name}` says of its base {kind.base!r}")
    _hold(kind.on == "weights" or kind.base != "unused", f"`{name}` works on deltas without a base")
    _hold(kind.cost in get_args(Cost), f"`{name}` costs {kind.cost!r}, which is none of {get_args(Cost)}")
    _hold(bool(kind.__doc__ and sys.modules[kind.__module__].__doc__), f"`{name}` does not say what it is")
    least, most = kind.sources
    _hold(least >= 1 and (most is None or most >= least), f"`{name}` takes {kind.sources} sources")
    _hold("evomerge" in kind.compats, f"`{name}` has no semantics of its own, only {kind.compats}")


def binds_its_defaults(name: str) -> None:
    """Check that every declared default is one the method accepts, under every `compat` it lists."""
    kind = plugins.load("methods", name)
    for parameter in declared(kind).values():
        spec = parameter.spec
        if isinstance(spec, Choice):
            sound = spec.default in spec.options
        else:
            sound = spec.least <= spec.low < spec.high and spec.least <= spec.default
        _hold(sound, f"`{parameter.name}` of `{name}` has a default or a range outside its own limits")
        _hold(bool(spec.meaning), f"`{parameter.name}` of `{name}` says nothing of its meaning")
    for compat in kind.compats:
        bound = bind(kind, {}, kind.sources[0], compat=compat)
        _hold(bound.compat == compat, f"`{name}` forgets its compat {compat}")
        for parameter in declared(kind).values():
            if parameter.per_source:
                length = len(getattr(bound, parameter.field))
                _hold(length == kind.sources[0], f"`{parameter.name}` of `{name}` is not one per source")


def keeps_shape_and_dtype(name: str) -> None:
    """Check that the result has the template's names, shapes and dtypes, in float32 and in bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        base, models = example(name, dtype=dtype)
        merged = merge(name, base, models)
        _hold(list(merged) == list(base), f"`{name}` gave the tensors {list(merged)}, not {list(base)}")
        for tensor, value in merged.items():
            _hold(value.shape == base[tensor].shape, f"`{name}` gave the shape {tuple(value.shape)}")
            _hold(value.dtype == dtype, f"`{name}` gave {value.dtype} from {dtype}")


def computes_in_float32(name: str) -> None:
    """Check that models in bfloat16 merge as the same numbers in float32 do, cast once at the end."""
    base, models = example(name, dtype=torch.bfloat16)
    narrow = merge(name, base, models)
    merged = merge(name, cast(base, torch.float32), [cast(model, torch.float32) for model in models])
    for tensor, value in narrow.items():
        error = (value.float() - merged[tensor]).abs()
        within = error <= merged[tensor].abs() * _CAST_ERROR
        _hold(bool(within.all()), f"`{name}` does not compute `{tensor}` in float32")


def keeps_all_or_nothing_at_the_ends_of_density(name: str) -> None:
    """Check that a density of 0 gives the base, and that one of 1 draws nothing."""
    kind = plugins.load("methods", name)
    if kind.base != "needed" or "density" not in declared(kind):
        return
    base, models = example(name)
    for tensor, value in merge_tensors(name, base, models, {"density": 0.0}).items():
        torch.testing.assert_close(value, base[tensor], rtol=_ROUNDING, atol=0.0)
    once, again = (merge_tensors(name, base, models, {"density": 1.0}, seed=seed) for seed in (1, 2))
    _same(once, again, f"`{name}` draws at a density of 1")


def output_is_finite(name: str) -> None:
    """Check that finite inputs give finite outputs, also where one source is the base itself."""
    base, models = example(name)
    for sources in (models, [base, *models[1:]]):
        for tensor, value in merge(name, base, sources).items():
            _hold(bool(value.isfinite().all()), f"`{name}` gave non-finite values in `{tensor}`")


def leaves_inputs_alone(name: str) -> None:
    """Check that no input is written to, neither while merging nor by writing to the result."""
    base, models = example(name)
    steps = {"steps": torch.arange(3)}
    everything = [base | steps, *({**model, **steps} for model in models)]
    before = [{tensor: value.clone() for tensor, value in model.items()} for model in everything]
    for value in merge(name, everything[0], everything[1:]).values():
        value.zero_()
    for model, kept in zip(everything, before, strict=True):
        _same(model, kept, f"`{name}` changed its input")


def returns_the_base_when_all_experts_equal_it(name: str) -> None:
    """Check that sources that are the base merge to the base, up to the rounding of one sum."""
    base, models = example(name)
    merged = merge(name, base, [dict(base) for _ in models])
    for tensor, value in merged.items():
        torch.testing.assert_close(value, base[tensor], rtol=_ROUNDING, atol=0.0)


def zeros_give_zeros(name: str) -> None:
    """Check that tensors of zeros, whose norms and sums are zero, merge to zeros and not to NaN."""
    base, models = example(name)
    blank = {tensor: torch.zeros_like(value) for tensor, value in base.items()}
    merged = merge(name, blank, [dict(blank) for _ in models])
    _same(merged, blank, f"`{name}` did not merge zeros to zeros")


def repeats_under_one_seed(name: str) -> None:
    """Check that the same seed gives the same bytes."""
    base, models = example(name)
    once, again = (merge(name, base, models, seed=3) for _ in range(2))
    _same(once, again, f"`{name}` differs between two runs of one seed")


def draws_from_its_own_stream(name: str) -> None:
    """Check that the global random state is neither read nor moved."""
    base, models = example(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        once = merge(name, base, models)
        state = torch.random.get_rng_state()
        torch.manual_seed(1)
        _hold(torch.equal(torch.random.get_rng_state(), state), f"`{name}` moves torch's global generator")
        torch.manual_seed(2)
        again = merge(name, base, models)
    _same(once, again, f"`{name}` reads torch's global generator")


def ignores_order_and_neighbours(name: str) -> None:
    """Check that a tensor's result depends neither on the tensors' order nor (tensor scope) on the rest."""
    base, models = example(name)
    merged = merge(name, base, models)
    turned = merge(name, _turned(base), [_turned(model) for model in models])
    _same({tensor: turned[tensor] for tensor in merged}, merged, f"`{name}` depends on the tensors' order")
    if _needs_survey(name, len(models)):
        return
    for tensor, value in merged.items():
        alone = merge(name, {tensor: base[tensor]}, [{tensor: model[tensor]} for model in models])
        _same(alone, {tensor: value}, f"`{name}` merges `{tensor}` differently without the other tensors")


def ignores_what_it_says(name: str) -> None:
    """Check that what the method declares to make no difference makes none, under every `compat` it lists."""
    kind = plugins.load("methods", name)
    count = max(kind.sources[0], min(3, kind.sources[1] or 3))
    base, models = example(name, count=count)
    for compat in kind.compats:
        params: dict[str, Any] = {"density": 0.5} if "density" in declared(kind) else {}
        ignored = ignored_by(bind(kind, params, count, compat=compat))
        once = merge(name, base, models, params, compat=compat)
        if "seed" in ignored:
            _same(merge(name, base, models, params, compat=compat, seed=1), once, f"`{name}` draws")
        if {"order", "seed"} <= ignored:  # draws go by the sources' names, which are their places here
            _close(merge(name, base, models[::-1], params, compat=compat), once, f"`{name}` goes by order")
        if "zero weight" in ignored:
            weight = {"weight": [*[1.0] * (count - 1), 0.0]}
            found = merge(name, base, models, params | weight, compat=compat)
            _close(found, merge(name, base, models[:-1], params, compat=compat), f"`{name}` counts weight 0")
            if kind.on == "deltas":
                none = merge(name, base, models[:1], params | {"weight": [0.0]}, compat=compat)
                _close(none, base, f"`{name}` of no weight is not the base")


def works_with_the_least_and_more_sources(name: str) -> None:
    """Check that the least number of sources works, and up to three more where they are allowed."""
    least, most = plugins.load("methods", name).sources
    for count in range(least, min(least + 3, most or least + 3) + 1):
        base, models = example(name, count=count)
        for tensor, value in merge(name, base, models).items():
            _hold(bool(value.isfinite().all()), f"`{name}` of {count} sources is not finite in `{tensor}`")


def refuses_too_few_and_too_many_sources(name: str) -> None:
    """Check that a number of sources the method does not take is a `MergeError`."""
    least, most = plugins.load("methods", name).sources
    for count in (least - 1, *(() if most is None else (most + 1,))):
        base, models = example(name, count=count)
        _refuses(name, base, models, "found")


def handles_scalars_and_empty_tensors(name: str) -> None:
    """Check that a tensor of no dimensions and one of no entries keep their shapes."""
    base, models = example(name, shapes={"scale": (), "nothing": (0, 4)})
    merged = merge(name, base, models)
    for tensor, value in merged.items():
        _hold(value.shape == base[tensor].shape, f"`{name}` gave `{tensor}` the shape {tuple(value.shape)}")
        _hold(bool(value.isfinite().all()), f"`{name}` gave a non-finite `{tensor}`")


def copies_what_is_not_float(name: str) -> None:
    """Check that integers and booleans come from the template unchanged."""
    base, models = example(name)
    extra = {"steps": torch.tensor([3, 1]), "mask": torch.tensor([True, False])}
    other = {"steps": torch.tensor([9, 9]), "mask": torch.tensor([False, False])}
    merged = merge(name, base | extra, [{**model, **other} for model in models], template_in_models=extra)
    _same({tensor: merged[tensor] for tensor in extra}, extra, f"`{name}` changed tensors that are not float")


def refuses_values_that_are_not_finite(name: str) -> None:
    """Check that NaN or infinity in a source is a `MergeError` naming the tensor and the model."""
    for value in (float("nan"), float("inf")):
        base, models = example(name)
        tensor = next(reversed(base))
        models[-1][tensor][0] = value
        message = _refuses(name, base, models, tensor)
        culprit = f"model{len(models) - 1}"
        _hold(culprit in message, f"`{name}` does not say that {culprit} is at fault: {message}")


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        declares_what_it_is,
        binds_its_defaults,
        keeps_shape_and_dtype,
        computes_in_float32,
        keeps_all_or_nothing_at_the_ends_of_density,
        output_is_finite,
        leaves_inputs_alone,
        returns_the_base_when_all_experts_equal_it,
        zeros_give_zeros,
        repeats_under_one_seed,
        draws_from_its_own_stream,
        ignores_order_and_neighbours,
        ignores_what_it_says,
        works_with_the_least_and_more_sources,
        refuses_too_few_and_too_many_sources,
        handles_scalars_and_empty_tensors,
        copies_what_is_not_float,
        refuses_values_that_are_not_finite,
    )
}
"""Every check by name, in the order `check_method` runs them."""


def _needs_survey(name: str, sources: int) -> bool:
    bound: Any = bind(plugins.load("methods", name), {}, sources, compat="evomerge")
    return hasattr(bound, "survey_key") and bound.survey_key() is not None


def _turned(tensors: Tensors) -> Tensors:
    return dict(reversed(tensors.items()))


def _refuses(name: str, base: Tensors, models: Sequence[Tensors], word: str) -> str:
    """Return the message of the `MergeError` that the merge must raise, which must contain `word`."""
    try:
        merge(name, base, models)
    except MergeError as error:
        _hold(word in str(error), f"the MergeError of `{name}` does not mention {word}: {error}")
        return str(error)
    raise AssertionError(f"`{name}` raised no MergeError")


def _same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], otherwise: str) -> None:
    for tensor, value in expected.items():
        alike = found[tensor].dtype == value.dtype and torch.equal(found[tensor], value)
        _hold(alike, f"{otherwise} (`{tensor}`)")


def _close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], otherwise: str) -> None:
    for tensor, value in expected.items():
        alike = torch.allclose(found[tensor], value, rtol=1e-5, atol=_ROUNDING)
        _hold(alike, f"{otherwise} (`{tensor}`)")


def _hold(promise: bool, otherwise: str) -> None:
    if not promise:
        raise AssertionError(otherwise)
