"""Gram matrices of the inputs of a model's linear layers: what RegMean merges by.

Jin et al. 2023, https://arxiv.org/abs/2212.09849, with the mean over tokens in place of their sum, which
would favour the model that saw more tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from evomerge.errors import EvaluationError

_Seen: TypeAlias = Callable[[str, Tensor], None]


def gram(inputs: Tensor) -> Tensor:
    """Return XᵀX / tokens, `(in, in)` in float32, of `inputs (*, in)`, all of which are tokens."""
    tokens = inputs.reshape(-1, inputs.shape[-1]).float()
    return tokens.T @ tokens / max(len(tokens), 1)


class GramMean:
    """The Gram matrix of all inputs added so far, however they were cut into batches."""

    def __init__(self, features: int, *, device: torch.device | None = None) -> None:
        self.value = torch.zeros(features, features, device=device)
        self._tokens = 0

    def add(self, inputs: Tensor) -> None:
        """Take in `inputs (*, in)`, each token as much as any before."""
        count = inputs.numel() // inputs.shape[-1]
        self._tokens += count
        if count:
            self.value.lerp_(gram(inputs), count / self._tokens)


def linear_layers(model: Any) -> dict[str, nn.Module]:
    """Return the linear layers by name, without an output head that is the input embedding."""
    embedding = model.get_input_embeddings().weight
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module.weight is not embedding
    }


def in_features(layer: nn.Module) -> int:
    """Return how many inputs a linear layer has; GPT-2's `Conv1D` stores its weight inputs first."""
    assert isinstance(layer.weight, Tensor)
    return layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]


def shared_inputs(model: Any, tokens: Tensor) -> dict[str, str]:
    """Return the linear layers that run on `tokens (t,)`, in that order, each with the first of its inputs.

    Queries, keys and values see the same inputs, and so do gate and up.
    """
    first: dict[str, str] = {}
    last: list[tuple[str, Tensor]] = []

    def note(name: str, inputs: Tensor) -> None:
        if last and last[0][1] is inputs:
            first[name] = last[0][0]
        else:
            last[:] = [(name, inputs)]
            first[name] = name

    with _watching(linear_layers(model), note), torch.inference_mode():
        model(input_ids=tokens[None], use_cache=False)
    return first


def chunks(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Return the names in order, in runs of at most `limit` bytes (a larger one by itself)."""
    found: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not found or size > room:
            found.append([])
            room = limit
        found[-1].append(name)
        room -= size
    return found


def measure_grams(model: Any, sequences: Sequence[Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Return the Gram matrix of the inputs of each named linear layer, `(in, in)` in float32.

    It is the mean over all tokens of `sequences` (token ids `(t,)`, one at a time, so there is no
    padding). Raises `EvaluationError` if the model overflows on them.
    """
    layers = linear_layers(model)
    watched = {name: layers[name] for name in names}
    means = {name: GramMean(in_features(layer), device=_device(layer)) for name, layer in watched.items()}
    with _watching(watched, lambda name, inputs: means[name].add(inputs)), torch.inference_mode():
        for tokens in sequences:
            model(input_ids=tokens[None], use_cache=False)
    for name, mean in means.items():
        if not bool(mean.value.isfinite().all()):
            raise EvaluationError(f"the inputs of `{name}` are not finite on these prompts")
    return {name: mean.value for name, mean in means.items()}


def _device(layer: nn.Module) -> torch.device:
    assert isinstance(layer.weight, Tensor)
    return layer.weight.device


@contextmanager
def _watching(layers: Mapping[str, nn.Module], seen: _Seen) -> Iterator[None]:
    """Call `seen` with the name and the inputs of each layer whenever it runs."""

    def hook(name: str) -> Any:
        return lambda _, given: seen(name, given[0])

    hooks = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
