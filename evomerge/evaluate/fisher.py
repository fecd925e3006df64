"""The diagonal of the Fisher information: how much a model's predictions hang on each weight.

F = E_x Σ_y p(y|x) (∂ log p(y|x) / ∂θ)², squared for each example on its own. What is called empirical
Fisher, with the labels of the data in place of the model's own, is another thing, and so is the square
of a batch's gradient (Kunstner et al. 2019, https://arxiv.org/abs/1905.12558).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from evomerge.seeds import derive


def fisher_diag(weight: Tensor, inputs: Tensor) -> Tensor:
    """Return the exact diagonal Fisher of a linear softmax classifier, `(classes, in)` in float32.

    Logits are `inputs (n, in)` times `weight (classes, in)` transposed; F[c, d] is the mean over the n
    examples of p(c) (1 − p(c)) x_d².
    """
    inputs = inputs.double()
    probabilities = (inputs @ weight.double().T).softmax(-1)  # (n, classes)
    spread = probabilities * (1 - probabilities)
    return (spread.T @ inputs.square() / len(inputs)).float()


def measure_fisher(model: Any, sequences: Sequence[Tensor], *, seed: int) -> dict[str, Tensor]:
    """Return the diagonal Fisher of a causal language model's parameters by name, in float32.

    It is the mean over all token positions t of `sequences` (token ids `(t,)`, one at a time, so there is
    no padding) of E_y (∂ log p(y | x≤t) / ∂θ)² for y drawn from the model's own prediction. Each position
    draws one y, and the gradients of a sequence's positions are summed before they are squared: the draws
    are independent and the expectation of each gradient is zero, so in expectation the mixed terms vanish.
    Parameters that are tied are one parameter with one summed gradient, under the first of their names.
    """
    found = {
        name: torch.zeros_like(parameter, dtype=torch.float32, requires_grad=False)
        for name, parameter in model.named_parameters()
    }
    with _squares_added(model, found):
        for number, tokens in enumerate(sequences):
            generator = torch.Generator().manual_seed(derive(seed, "labels", number))
            _log_likelihood(model, tokens, generator).backward()  # type: ignore[no-untyped-call]
    positions = sum(len(tokens) for tokens in sequences)
    return {name: total.div_(positions) for name, total in found.items()}


def _log_likelihood(model: Any, tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Return Σ_t log p(y_t | x≤t) of labels drawn from the model, one for each position."""
    logits: Tensor = model(input_ids=tokens[None], use_cache=False).logits[0].float()  # (t, words)
    scores = logits.log_softmax(-1)
    drawn = torch.multinomial(scores.detach().exp().cpu(), 1, generator=generator)
    return scores.gather(1, drawn.to(scores.device)).sum()


@contextmanager
def _squares_added(model: nn.Module, totals: Mapping[str, Tensor]) -> Iterator[None]:
    """Add the square of every gradient to `totals` and drop it, as soon as it is complete."""

    def add(parameter: Tensor, total: Tensor) -> None:
        assert parameter.grad is not None  # the hook runs once it has been accumulated
        gradient = parameter.grad.float()
        total.addcmul_(gradient, gradient)
        parameter.grad = None

    hooks = [
        parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda p, total=totals[name]: add(p, total)
        )
        for name, parameter in model.named_parameters()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
