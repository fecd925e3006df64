"""From a fine-tuned model to a file of its compressed task vector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from evomerge.checkpoints.tensors import Library, TensorSource
from evomerge.checkpoints.ternary import Ternary, pack
from evomerge.checkpoints.ternary_file import write_ternary
from evomerge.errors import MergeError
from evomerge.merge.method import Site, View
from evomerge.merge.methods.compeft import Compeft
from evomerge.parameters import bind

_BASE, _MODEL = "base", "model"


def compress_model(
    path: Path,
    base: TensorSource,
    model: TensorSource,
    *,
    density: float = 0.2,
    alpha: float = 1.0,
    mode: str = "ternary",
    scope: str = "model",
    coding: str = "golomb",
) -> None:
    """Write the ternary task vector from `base` to `model` (see the method `compeft`), tensor by tensor.

    Tensors that are no floats or that one of the two lacks are left out: they are the base's when restored.
    Raises `MergeError` for shapes that differ or for a mode that gives more than signs.
    """
    if mode == "prune":
        raise MergeError("`mode: prune` gives no signs to store; use `ternary` or `stc`")
    params = {"density": density, "alpha": alpha, "mode": mode, "scope": scope}
    method: Compeft = bind(Compeft, params, 1, compat="evomerge")
    views = _Views(base, model)
    survey = method.survey(views) if method.survey_key() is not None else None

    def vectors() -> Iterator[tuple[str, Ternary]]:
        for name in views.names:
            delta = views.delta(name)
            yield name, pack(method.compress(delta, _site(name, survey))[0])

    write_ternary(path, vectors(), base, coding=coding)


class _Views:
    """The task vector of one model, as a survey passes over it."""

    def __init__(self, base: TensorSource, model: TensorSource) -> None:
        self._library = Library({_BASE: base, _MODEL: model})
        self._base = base
        self.names = [name for name, spec in base.specs.items() if spec.is_float and name in model.specs]
        for name in self.names:
            found, want = model.specs[name].shape, base.specs[name].shape
            if found != want:
                raise MergeError(f"`{name}` of the model is {list(found)}, not {list(want)}")

    def __call__(self) -> Iterator[View]:
        for name in self.names:
            shape = self._base.specs[name].shape
            yield View(site=_site(name), shape=shape, load=lambda name=name: self.delta(name))  # type: ignore[misc]

    def delta(self, name: str) -> Tensor:
        """Return the task vector of one tensor, `(1, *s)`."""
        return (self._library.float32(_MODEL, name) - self._library.float32(_BASE, name)).unsqueeze(0)


def _site(name: str, survey: object = None) -> Site:
    return Site(tensor=name, sources=(_MODEL,), seed=0, survey=survey)
