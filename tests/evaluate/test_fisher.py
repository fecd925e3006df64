"""The diagonal Fisher, against autograd and against the expectation written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from evomerge.evaluate.fisher import fisher_diag, measure_fisher

WORDS = 5


def tiny_gpt2(seed: int = 0) -> Any:
    """Return a GPT-2 of one block whose output head is its embedding."""
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=WORDS, n_positions=8, n_embd=4, n_layer=1, n_head=1, initializer_range=0.5)
    model: Any = GPT2LMHeadModel(config)
    return model.eval()


def exactly(model: Any, sequences: list[Tensor]) -> dict[str, Tensor]:
    """Return the mean over positions of Σ_y p(y) (∂ log p(y) / ∂θ)², one gradient per position and word."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for tokens in sequences:
        scores = model(input_ids=tokens[None]).logits[0].log_softmax(-1)
        for position in scores:
            for score in position:
                gradients = torch.autograd.grad(score, parameters, retain_graph=True, allow_unused=True)
                for name, gradient in zip(names, gradients, strict=True):
                    if gradient is not None:
                        found[name] += score.exp().detach() * gradient.square()
    count = sum(map(len, sequences))
    return {name: value / count for name, value in found.items()}


def test_the_exact_form_is_what_autograd_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(3, 4, generator=generator), torch.randn(6, 4, generator=generator)
    expected = torch.zeros(3, 4)
    for x in inputs:
        for label in range(3):
            variable = weight.clone().requires_grad_()
            score = (variable @ x).log_softmax(-1)[label]
            (gradient,) = torch.autograd.grad(score, variable)
            expected += score.exp().detach() * gradient.square() / len(inputs)
    torch.testing.assert_close(fisher_diag(weight, inputs), expected, rtol=1e-5, atol=1e-7)


def test_the_estimate_is_the_expectation_over_the_model_s_own_words() -> None:
    model = tiny_gpt2()
    sequences = [torch.tensor([0, 3, 1]), torch.tensor([2, 4])]
    estimate = measure_fisher(model, sequences * 400, seed=0)
    for name, expected in exactly(model, sequences).items():
        error = (estimate[name] - expected).norm() / expected.norm().clamp(min=1e-6)
        assert float(error) < 0.15, name


def test_each_sequence_is_squared_on_its_own() -> None:
    """What a second sequence adds is a square, so it takes nothing away; in one gradient it would."""
    model, one, two = tiny_gpt2(), torch.tensor([0, 3, 1]), torch.tensor([2, 4])
    first, both = measure_fisher(model, [one], seed=0), measure_fisher(model, [one, two], seed=0)
    for name, value in both.items():
        assert float((value * 5 - first[name] * 3).min()) > -1e-6


def test_longer_prompts_do_not_count_more() -> None:
    model = tiny_gpt2()
    short, long = torch.tensor([1]), torch.tensor([1, 1, 1, 1, 1, 1])
    sizes = [
        sum(float(value.sum()) for value in measure_fisher(model, [tokens] * 100, seed=0).values())
        for tokens in (short, long)
    ]
    assert 0.3 < sizes[1] / sizes[0] < 3


def test_tied_weights_are_one_parameter_with_one_gradient() -> None:
    found = measure_fisher(tiny_gpt2(), [torch.tensor([0, 3, 1])], seed=0)
    assert "lm_head.weight" not in found
    assert float(found["transformer.wte.weight"][4].sum()) > 0  # a word that was never read, only predicted


def test_the_seed_draws_the_labels_and_nothing_else_is_moved() -> None:
    model, tokens = tiny_gpt2(), [torch.tensor([0, 3, 1])]
    state = torch.random.get_rng_state()
    one, again, other = (measure_fisher(model, tokens, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_in_bfloat16_is_summed_in_float32() -> None:
    tokens = [torch.tensor([0, 3, 1]), torch.tensor([2, 4])] * 50
    found = measure_fisher(tiny_gpt2().to(torch.bfloat16), tokens, seed=0)
    whole = measure_fisher(tiny_gpt2(), tokens, seed=0)
    assert {value.dtype for value in found.values()} == {torch.float32}
    sizes = [sum(float(value.sum()) for value in each.values()) for each in (found, whole)]
    assert 0.8 < sizes[0] / sizes[1] < 1.25


def test_a_parameter_without_influence_has_a_fisher_of_zero() -> None:
    model = tiny_gpt2()
    model.unused = nn.Parameter(torch.ones(3))
    assert torch.equal(measure_fisher(model, [torch.tensor([1])], seed=0)["unused"], torch.zeros(3))
