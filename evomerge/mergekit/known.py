"""What mergekit's methods take: their parameters, defaults and bases, as far as evomerge has the method.

Read from mergekit's registry and methods in 2026, https://github.com/arcee-ai/mergekit. Parameters are called
there as here, or by a word that our method declares as another word for its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evomerge import plugins
from evomerge.parameters import Choice, Gene, Parameter, declared
from evomerge.types import Value

COMPAT = "mergekit"
PASSTHROUGH = "passthrough"

NO_EFFECT = ("int8_mask",)
"""How mergekit stores its masks: the result is the same."""


@dataclass(frozen=True, kw_only=True)
class Theirs:
    """A parameter of mergekit; `default` None: it must be given. `each` model may have its own."""

    default: Value | None
    each: bool = False


@dataclass(frozen=True, kw_only=True)
class Known:
    """A method that both have.

    `base` says what mergekit does with `base_model`: needs it, can do with or without, or merges it as one
    more model. `differs` tells that our own semantics give other numbers than `compat: mergekit`.
    """

    base: Literal["needed", "optional", "merged"] = "needed"
    parameters: Mapping[str, Theirs] = field(default_factory=dict)
    differs: bool = False


_WEIGHT = {"weight": Theirs(default=None, each=True)}
_DENSITY = {"density": Theirs(default=1.0, each=True)}
_GAMMA = {"gamma": Theirs(default=0.01, each=True)}
_EPSILON = {"epsilon": Theirs(default=0.15, each=True)}


def _task_vectors(*others: Mapping[str, Theirs], normalize: bool, rescale: bool = False) -> dict[str, Theirs]:
    """Return the parameters of a method of task vectors: those all have, between them the `others`."""
    own = {name: each for parameters in others for name, each in parameters.items()}
    rescaled = {"rescale": Theirs(default=True)} if rescale else {}
    return {
        **_WEIGHT, **own, "lambda": Theirs(default=1.0), "normalize": Theirs(default=normalize), **rescaled,
    }  # fmt: skip


METHODS: Mapping[str, Known] = {
    "linear": Known(base="merged", parameters={**_WEIGHT, "normalize": Theirs(default=True)}),
    "slerp": Known(parameters={"t": Theirs(default=None)}),
    "nuslerp": Known(
        base="optional",
        differs=True,
        parameters={
            **_WEIGHT, "nuslerp_row_wise": Theirs(default=False), "nuslerp_flatten": Theirs(default=True),
        },
    ),
    "multislerp": Known(
        base="optional",
        parameters={**_WEIGHT, "normalize_weights": Theirs(default=True), "eps": Theirs(default=1e-8)},
    ),
    "karcher": Known(
        base="merged", parameters={"max_iter": Theirs(default=10), "tol": Theirs(default=1e-5)}
    ),
    "task_arithmetic": Known(parameters=_task_vectors(normalize=False)),
    "ties": Known(parameters=_task_vectors(_DENSITY, normalize=True)),
    "dare_linear": Known(parameters=_task_vectors(_DENSITY, normalize=False, rescale=True), differs=True),
    "dare_ties": Known(parameters=_task_vectors(_DENSITY, normalize=False, rescale=True), differs=True),
    "della": Known(
        parameters=_task_vectors(_DENSITY, _EPSILON, normalize=True, rescale=True), differs=True
    ),
    "della_linear": Known(
        parameters=_task_vectors(_DENSITY, _EPSILON, normalize=False, rescale=True), differs=True
    ),
    "breadcrumbs": Known(parameters=_task_vectors(_DENSITY, _GAMMA, normalize=False)),
    "breadcrumbs_ties": Known(parameters=_task_vectors(_DENSITY, _GAMMA, normalize=False)),
    "sce": Known(parameters={"select_topk": Theirs(default=1.0)}, differs=True),
    "model_stock": Known(parameters={"filter_wise": Theirs(default=False)}, differs=True),
    "arcee_fusion": Known(),
    "nearswap": Known(parameters={"t": Theirs(default=None)}),
    "ram": Known(parameters={"epsilon": Theirs(default=1e-5)}),
}  # fmt: skip

DRAWS = ("dare_linear", "dare_ties", "della", "della_linear")
"""Methods that drop entries at random: mergekit draws other masks than evomerge."""

WORDS = frozenset(name for known in METHODS.values() for name in known.parameters) | {"scale", "rescale"}
"""All parameters that some method of mergekit has."""


def ours(method: str, theirs: str) -> Parameter:
    """Return the parameter of our `method` that mergekit calls `theirs`."""
    known = declared(plugins.load("methods", method))
    if theirs in known:
        return known[theirs]
    return next(each for each in known.values() if theirs in _words(each))


def their_words(method: str) -> dict[str, str]:
    """Return for each of our parameters of `method` that mergekit has what it is called there."""
    return {ours(method, theirs).name: theirs for theirs in METHODS[method].parameters}


def to_ours(parameter: Parameter, value: Value) -> Value:
    """Return a value of mergekit's in our words."""
    if isinstance(parameter.spec, Choice):
        return parameter.spec.also.get(value, value) if isinstance(value, bool | str) else value
    return value


def to_theirs(parameter: Parameter, theirs: Theirs, value: Value) -> Value | None:
    """Return our `value` in mergekit's words; None if it has none for it."""
    if isinstance(parameter.spec, Gene) or isinstance(theirs.default, bool) is isinstance(value, bool):
        return value
    if parameter.name == "rescale":
        return {"auto": True, "l1": True, "none": False}.get(str(value))
    found = [word for word, own in parameter.spec.also.items() if own == value and isinstance(word, bool)]
    return found[0] if found else None


def settled(parameter: Parameter, value: Value) -> Any:
    """Return a value so that two that mean the same are equal."""
    return to_ours(parameter, value) if isinstance(parameter.spec, Choice) else float(value)


def _words(parameter: Parameter) -> tuple[str, ...]:
    spec = parameter.spec
    return tuple(spec.also) if isinstance(spec, Gene) else spec.words
