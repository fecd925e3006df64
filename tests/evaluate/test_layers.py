"""What layers do: influence, likeness, clusters."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from evomerge.errors import EvaluationError
from evomerge.evaluate.layers import block_influence, layer_cluster, linear_cka, pooled_outputs
from tests.seeing import SEEING_LAYERS, seeing_model

TOKENS = torch.tensor([[5, 1, 9, 3, 7], [2, 8, 4, 4, 1]])
LAYERS = 3


@pytest.fixture(scope="module")
def model() -> Any:
    config = LlamaConfig(
        vocab_size=12, hidden_size=8, intermediate_size=12, num_hidden_layers=LAYERS, num_attention_heads=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: Any = LlamaForCausalLM(config)
        for parameter in made.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
    return made.eval()


@pytest.fixture(scope="module")
def states(model: Any) -> list[Tensor]:
    """Return the stream before the first layer and after each, computed without the final norm."""
    with torch.no_grad():
        last: list[Tensor] = []
        handle = model.model.norm.register_forward_pre_hook(lambda _, args: last.append(args[0]))
        found = model(TOKENS, output_hidden_states=True).hidden_states
        handle.remove()
    return [*found[:-1], last[0]]


def expected(states: list[Tensor], kept: Tensor) -> list[float]:
    found = []
    for before, after in pairwise(states):
        x, y = before[kept].double(), after[kept].double()
        found.append(float(1 - ((x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))).mean()))
    return found


def test_influence_is_one_minus_the_cosine_of_input_and_output(model: Any, states: list[Tensor]) -> None:
    found = block_influence(model, TOKENS)
    assert found == pytest.approx(expected(states, torch.ones_like(TOKENS).bool()), abs=1e-6)
    assert len(found) == LAYERS


def test_padding_and_on_request_first_tokens_do_not_count(model: Any) -> None:
    padded = torch.cat([torch.full((2, 2), 11), TOKENS], dim=1)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1]] * 2)
    alone = block_influence(model, TOKENS, skip_first=True)
    assert block_influence(model, padded, mask) == pytest.approx(block_influence(model, TOKENS), abs=1e-5)
    assert block_influence(model, padded, mask, skip_first=True) == pytest.approx(alone, abs=1e-5)
    assert alone != pytest.approx(block_influence(model, TOKENS), abs=1e-3)


def test_skipping_the_first_token_leaves_the_others(model: Any, states: list[Tensor]) -> None:
    kept = torch.ones_like(TOKENS).bool()
    kept[:, 0] = False
    assert block_influence(model, TOKENS, skip_first=True) == pytest.approx(expected(states, kept), abs=1e-6)


def test_a_sequence_without_tokens_is_refused(model: Any) -> None:
    with pytest.raises(EvaluationError, match="no token left to measure"):
        block_influence(model, TOKENS[:, :1], skip_first=True)


def test_the_eyes_of_a_model_are_not_its_layers() -> None:
    seeing = seeing_model("llava", num_hidden_layers=SEEING_LAYERS)  # as many as its eyes have
    assert len(block_influence(seeing, TOKENS)) == SEEING_LAYERS


def test_no_hook_stays_on_the_model(model: Any) -> None:
    before = [len(layer._forward_hooks) for layer in model.model.layers]
    block_influence(model, TOKENS)
    assert [len(layer._forward_hooks) for layer in model.model.layers] == before


def test_outputs_are_averaged_over_the_tokens_that_count(model: Any, states: list[Tensor]) -> None:
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    found = pooled_outputs(model, TOKENS, mask)
    assert found.shape == (LAYERS, 2, 8)
    for layer in range(LAYERS):
        torch.testing.assert_close(
            found[layer, 0], states[layer + 1][0].double().mean(0), atol=1e-6, rtol=0.0
        )
        torch.testing.assert_close(
            found[layer, 1], states[layer + 1][1, :3].double().mean(0), atol=1e-6, rtol=0.0
        )


def test_cka_is_that_of_centred_gram_matrices() -> None:
    x, y = (
        torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),
        torch.arange(18.0).reshape(6, 3).sin(),
    )
    centre = torch.eye(6) - 1 / 6
    a, b = (centre @ each @ each.T @ centre for each in (x, y))
    assert linear_cka(x, y) == pytest.approx(float((a * b).sum() / (a.norm() * b.norm())), rel=1e-5)
    assert linear_cka(x, 3 * x @ torch.linalg.qr(torch.rand(4, 4)).Q + 7) == pytest.approx(1.0, abs=1e-5)


def test_cka_of_samples_that_are_all_the_same_is_nought() -> None:
    assert linear_cka(torch.ones(3, 2), torch.rand(3, 2)) == 0.0


def planted(alike: list[float]) -> list[Tensor]:
    """Return outputs each of which has so much of the one before it, the rest a direction of its own."""
    basis = torch.eye(8)[: len(alike) + 1]
    basis = basis - basis.mean(1, keepdim=True)  # centred samples
    outputs = [basis[0]]
    for i, share in enumerate(alike):
        outputs.append(share * outputs[-1] / outputs[-1].norm() + (1 - share) * basis[i + 1])
    return [each[:, None] for each in outputs]


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [
        (5, ((0,), (1,), (2,), (3,), (4,))),
        (4, ((0,), (1, 2), (3,), (4,))),
        (3, ((0,), (1, 2), (3, 4))),
        (2, ((0,), (1, 2, 3, 4))),
        (1, ((0, 1, 2, 3, 4),)),
    ],
)
def test_the_most_alike_neighbours_come_together_first(
    clusters: int, expected: tuple[tuple[int, ...], ...]
) -> None:
    assert layer_cluster(planted([0.2, 0.9, 0.5, 0.7]), clusters) == expected


def test_of_equal_pairs_the_lower_come_together() -> None:
    same = torch.rand(4, 5, 3)[:1].repeat(4, 1, 1)
    assert layer_cluster(same, 2) == ((0, 1, 2), (3,))


@pytest.mark.parametrize("seed", range(5))
def test_rounding_does_not_tell_equal_pairs_apart(seed: int) -> None:
    draws = torch.randn(3, 10, 5, generator=torch.Generator().manual_seed(seed))
    assert layer_cluster(draws.repeat_interleave(2, 0), 4) == ((0, 1), (2, 3), (4,), (5,))


@pytest.mark.parametrize("clusters", [0, 6])
def test_more_clusters_than_layers_are_refused(clusters: int) -> None:
    with pytest.raises(EvaluationError, match="5 layers make 1 to 5 clusters"):
        layer_cluster(planted([0.1, 0.1, 0.1, 0.1]), clusters)
