"""What a model's layers do to its hidden states: how much each changes them, and which are alike.

Measured by hooks on the layers: in transformers' `hidden_states` the last entry lies behind the final norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from evomerge.errors import EvaluationError

Watch: TypeAlias = Callable[[int, Tensor, Tensor], None]
"""Called with the number of a layer, and the hidden states `(batch, tokens, d)` before and after it."""

_DIGITS = 12
"""Of a similarity: what lies behind them is rounding, and would tell equal pairs apart."""


def block_influence(
    model: Any, input_ids: Tensor, attention_mask: Tensor | None = None, *, skip_first: bool = False
) -> tuple[float, ...]:
    """Return for each layer 1 − the mean over tokens of the cosine between its input and output.

    Layers of little influence can go first (ShortGPT, https://arxiv.org/abs/2403.03853). Padding does not
    count, nor does each sequence's first token with `skip_first`: its norm dwarfs the others'.
    Raises `EvaluationError` if no token is left.
    """
    counted = _counted(input_ids, attention_mask, skip_first=skip_first)
    cosines: dict[int, float] = {}

    def watch(layer: int, before: Tensor, after: Tensor) -> None:
        pair = before.double(), after.double()
        cosine = torch.nn.functional.cosine_similarity(*pair, dim=-1)
        cosines[layer] = float(cosine[counted.to(cosine.device)].mean())

    _run(model, input_ids, attention_mask, watch)
    return tuple(1.0 - cosines[layer] for layer in sorted(cosines))


def measure_influence(model: Any, sequences: Sequence[Tensor], *, skip_first: bool = False) -> Tensor:
    """Return the block influence `(layers,)`, float32, over all tokens of `sequences` (token ids `(t,)`).

    They run one at a time, so there is no padding. Each token weighs as much as any other, and with
    `skip_first` the first of each sequence nothing. Raises `EvaluationError` if a sequence has no other.
    """
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for sequence in sequences:
        counted = len(sequence) - skip_first
        found = block_influence(model, sequence[None], skip_first=skip_first)
        total = total + counted * torch.tensor(found, dtype=torch.float64)
        tokens += counted
    return (total / tokens).float()


def pooled_outputs(model: Any, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Return each layer's output, averaged over each sequence's tokens: `(layers, batch, d)`, float64."""
    counted = _counted(input_ids, attention_mask, skip_first=False)
    pooled: dict[int, Tensor] = {}

    def watch(layer: int, before: Tensor, after: Tensor) -> None:
        del before
        share = counted.to(after.device).double()
        pooled[layer] = torch.einsum("bt,btd->bd", share / share.sum(1, keepdim=True), after.double()).cpu()

    _run(model, input_ids, attention_mask, watch)
    return torch.stack([pooled[layer] for layer in sorted(pooled)])


def linear_cka(one: Tensor, other: Tensor) -> float:
    """Return how alike two representations `(n, d)` and `(n, e)` of the same n samples are: 0 to 1.

    Linear centred kernel alignment, Kornblith et al. 2019, https://arxiv.org/abs/1905.00414. Where all
    samples of either are the same it is 0 / 0, and 0 here.
    """
    x, y = (each.double() - each.double().mean(0) for each in (one, other))
    norms = float((x.T @ x).norm() * (y.T @ y).norm())
    return float((x.T @ y).square().sum()) / norms if norms else 0.0


def layer_cluster(outputs: Tensor | Sequence[Tensor], clusters: int) -> tuple[tuple[int, ...], ...]:
    """Return the layers in so many runs of like ones, by their pooled outputs `(layers, n, d)`.

    CRaSh, https://arxiv.org/abs/2310.15477: the two neighbours become one whose touching layers, last of the
    lower and first of the upper, have the greatest linear CKA, until `clusters` are left; of equal pairs,
    the lower. Raises `EvaluationError` if there are fewer layers than that.
    """
    if not 1 <= clusters <= len(outputs):
        raise EvaluationError(
            f"{len(outputs)} layers make 1 to {len(outputs)} clusters, asked for {clusters}"
        )
    runs: list[tuple[int, ...]] = [(layer,) for layer in range(len(outputs))]
    exact = [linear_cka(outputs[layer], outputs[layer + 1]) for layer in range(len(outputs) - 1)]
    alike = [round(each, _DIGITS) for each in exact]
    while len(runs) > clusters:
        best = max(range(len(runs) - 1), key=lambda i: alike[runs[i][-1]])
        runs[best : best + 2] = [runs[best] + runs[best + 1]]
    return tuple(runs)


def _counted(input_ids: Tensor, attention_mask: Tensor | None, *, skip_first: bool) -> Tensor:
    """Return which tokens `(batch, tokens)` count; each sequence has at least one."""
    counted = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    counted = counted.bool()
    if skip_first:
        counted = counted & (counted.cumsum(1) > 1)
    if not bool(counted.any(1).all()):
        raise EvaluationError("a sequence has no token left to measure; give longer ones")
    return counted


def _run(model: Any, input_ids: Tensor, attention_mask: Tensor | None, watch: Watch) -> None:
    with torch.inference_mode(), _watched(_layers(model), watch):
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)


@contextmanager
def _watched(layers: Sequence[nn.Module], watch: Watch) -> Iterator[None]:
    """Call `watch` whenever a layer has run, until the end of the block."""

    def hook(number: int) -> Callable[..., None]:
        def seen(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            watch(number, before, output[0] if isinstance(output, tuple) else output)

        return seen

    handles = [
        layer.register_forward_hook(hook(number), with_kwargs=True) for number, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(model: Any) -> Sequence[nn.Module]:
    """Return the model's layers: its first list of as many modules as its config counts layers.

    Of a model that sees, they are those of its language model: its eyes may have as many.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise EvaluationError(f"no list of {count} layers in a {type(model).__name__}")
