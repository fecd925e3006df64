"""Who a model is: the same weights, the same function, or another; and which models are broken."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from evomerge.checkpoints.locate import ZOO
from evomerge.checkpoints.models import open_models
from evomerge.checkpoints.tensors import open_library
from evomerge.comparison.divergence import divergences
from evomerge.controller.equivalents import NEAR
from evomerge.errors import EvaluationError
from evomerge.evaluate.evaluator import only_compute
from evomerge.evaluate.identity import (
    LEAST_NOISE,
    LONGEST,
    PROMPTS,
    Identification,
    Reference,
    check_sound,
    cut_prompts,
    last_log_probs,
    refer,
    reference_recipe,
    weight_digest,
)
from evomerge.merge.memory import ResidentModel
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Merge, ModelRef, Recipe, Slot
from evomerge.types import Identified

SOLD = "ken wa kami o {} mai motte imasu . soshite {} mai uru . ima kami wa"
TEXTS = [
    [SOLD.format(n, m) for n in range(4, 9) for m in (2, 3)],
    [f"{a} tasu {b} wa {a + b} desu ." for a in range(3, 7) for b in (1, 5)],
]
NAMES = ("base", "math", "lang", "logic", "poor")


@pytest.fixture(scope="module")
def build() -> Iterator[Callable[[Recipe], Any]]:
    """Return what builds recipes of the zoo, each in the place of the one before."""
    only_compute(1)
    models = open_models({name: str(ZOO / "models" / name) for name in NAMES})
    library = open_library(models, models)
    resident = ResidentModel(library, device=torch.device("cpu"))
    yield lambda recipe: resident.load(compile_plan(recipe, models))
    library.close()


@pytest.fixture(scope="module")
def encode() -> Callable[[str], list[int]]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(ZOO / "models" / "base")
    return lambda text: list(tokenizer(text)["input_ids"])


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Identify = Callable[[Recipe], Identified]


@pytest.fixture(scope="module")
def identify(build: Callable[[Recipe], Any], encode: Callable[[str], list[int]], dtype: str) -> Identify:
    """Return what tells who a recipe's model is, in a dtype."""
    identification = Identification(TEXTS, seed=0, batch_size=8, device="cpu")
    identification.begin(build(reference_recipe(arithmetic(dtype=dtype), NAMES)), encode, "words")

    def of(recipe: Recipe) -> Identified:
        model = build(replace(recipe, dtype=dtype))
        return identification.of(model, encode, "words", merge_seconds=0.0)

    return of


def arithmetic(dtype: str | None = None, **weight: float) -> Recipe:
    merge = Merge(
        method="task_arithmetic", base="base", sources=("math", "lang"),
        params={"weight": {"math": 0.0, "lang": 0.0, **weight}},
    )  # fmt: skip
    refs = {name: ModelRef(source=name) for name in NAMES}
    return Recipe(models=refs, merges={"merged": merge}, dtype=dtype)


def apart(one: Identified, other: Identified) -> float:
    return float(divergences(one.fingerprint, [other.fingerprint])[0])


def test_weights_that_round_alike_are_the_same_model(identify: Identify) -> None:
    one, other = identify(arithmetic(math=0.3)), identify(arithmetic(math=0.3 + 1e-9))
    assert one.digest == other.digest
    assert one.digest != identify(arithmetic(math=0.301)).digest
    assert one.digest == identify(arithmetic(math=0.3)).digest  # whatever was built in between


def test_fingerprints_tell_near_recipes_from_others(identify: Identify) -> None:
    one = identify(arithmetic(math=0.30))
    assert apart(one, identify(arithmetic(math=0.300001))) <= NEAR * one.noise
    assert apart(one, identify(arithmetic(math=0.35))) > NEAR * one.noise
    assert apart(one, identify(arithmetic(lang=0.30))) > 100 * NEAR * one.noise


def test_one_model_is_near_itself_in_batches_of_any_size(
    build: Callable[[Recipe], Any], encode: Callable[[str], list[int]], dtype: str
) -> None:
    model = build(arithmetic(dtype, math=0.4, lang=0.3))
    seen = []
    for batch_size in (3, 16):
        identification = Identification(TEXTS, seed=0, batch_size=batch_size, device="cpu")
        reference = build(reference_recipe(arithmetic(dtype=dtype), NAMES))
        identification.begin(reference, encode, "words")
        model = build(arithmetic(dtype, math=0.4, lang=0.3))
        seen.append(identification.of(model, encode, "words", merge_seconds=0.0))
    one, other = seen
    assert one.basis == other.basis
    assert one.digest == other.digest
    assert apart(one, other) <= NEAR * max(one.noise, other.noise)


def test_the_noise_is_what_rounding_does(
    math_expert: tuple[Any, Any], encode: Callable[[str], list[int]]
) -> None:
    model, _ = math_expert
    prompts = cut_prompts(TEXTS, encode, seed=0)
    assert refer(model, prompts, batch_size=8).noise == LEAST_NOISE
    narrow = refer(copy.deepcopy(model).to(torch.bfloat16), prompts, batch_size=8).noise
    assert 1e-7 < narrow < 1e-3


def test_a_twin_by_symmetry_has_other_weights_and_the_same_function(
    math_expert: tuple[Any, Any], encode: Callable[[str], list[int]]
) -> None:
    """Neurons of an MLP in another order compute the same, up to the rounding of their sum."""
    model, _ = math_expert
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for layer in twin.model.layers:
            turned = torch.randperm(
                layer.mlp.up_proj.weight.shape[0], generator=torch.Generator().manual_seed(1)
            )
            for each in (layer.mlp.gate_proj, layer.mlp.up_proj):
                each.weight.copy_(each.weight[turned].clone())
            layer.mlp.down_proj.weight.copy_(layer.mlp.down_proj.weight[:, turned].clone())
    identification = Identification(TEXTS, seed=0, batch_size=16, device="cpu")
    identification.begin(model, encode, "words")
    one, other = (identification.of(each, encode, "words", merge_seconds=0.0) for each in (model, twin))
    assert one.digest != other.digest
    assert apart(one, other) <= NEAR * one.noise
    with torch.no_grad():
        twin.model.layers[0].mlp.down_proj.weight.mul_(1.05)
    assert apart(one, identification.of(twin, encode, "words", merge_seconds=0.0)) > NEAR * one.noise


def test_the_digest_is_of_every_tensor_of_config_and_words(math_expert: tuple[Any, Any]) -> None:
    model = copy.deepcopy(math_expert[0])
    digests = {weight_digest(model, words="a"), weight_digest(model, words="b")}
    for name, tensor in model.state_dict().items():
        flat = tensor.view(-1)
        before = flat[-1].clone()
        flat[-1] = torch.nextafter(before, torch.tensor(9.0))
        digests.add(weight_digest(model, words="a"))
        flat[-1] = before
        assert weight_digest(model, words="a") in digests, name
    assert len(digests) == 2 + len(model.state_dict()) - _tied(model)
    model.config.rms_norm_eps *= 2
    assert weight_digest(model, words="a") not in digests
    model.config.rms_norm_eps /= 2
    model.config._name_or_path = "elsewhere"
    assert weight_digest(model, words="a") in digests


def _tied(model: Any) -> int:
    places = [tensor.data_ptr() for tensor in model.state_dict().values()]
    return len(places) - len(set(places))


def test_what_shares_a_storage_is_read_once(
    build: Callable[[Recipe], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tuple(Slot(model="math", layer=layer) for layer in (0, 1, 1, 1))
    model = build(Recipe(models={"math": ModelRef(source="math")}, path=path))
    read: list[int] = []
    whole = weight_digest(model, words="")

    def counting(tensor: Tensor) -> str:
        read.append(tensor.data_ptr())
        return str(tensor.data_ptr())

    monkeypatch.setattr("evomerge.evaluate.digests._hashed", counting)
    weight_digest(model, words="")
    assert len(read) == len(set(read)) < len(model.state_dict())
    monkeypatch.undo()
    other = build(Recipe(models={"math": ModelRef(source="math")}, path=(*path[:2], path[0], path[1])))
    assert weight_digest(other, words="") != whole


def test_other_words_have_no_fingerprint_to_compare(
    math_expert: tuple[Any, Any], encode: Callable[[str], list[int]]
) -> None:
    model, _ = math_expert
    identification = Identification(TEXTS, seed=0, batch_size=16, device="cpu")
    identification.begin(model, encode, "words")
    found = identification.of(model, encode, "other words", merge_seconds=0.0)
    assert (found.fingerprint, found.basis, found.noise) == ((), "", 0.0)
    assert found.digest != identification.of(model, encode, "words", merge_seconds=0.0).digest


def test_no_model_of_the_zoo_and_no_usual_merge_is_taken_for_broken(identify: Identify) -> None:
    for name in NAMES:
        alone = Merge(method="linear", sources=(name,))
        refs = {each: ModelRef(source=each) for each in NAMES}
        assert identify(Recipe(models=refs, merges={"alone": alone})).fingerprint
    for weight in ({"math": 1.0, "lang": 1.0}, {"math": 0.5, "lang": 0.5}, {"math": 2.0}, {"lang": -0.5}):
        assert identify(arithmetic(None, **weight)).fingerprint
    for method in ("ties", "dare_ties", "della", "sce", "model_stock", "widen"):
        merge = Merge(method=method, base="base", sources=("math", "lang"))
        recipe = replace(arithmetic(), merges={"merged": merge})
        assert identify(recipe).fingerprint


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("nan", "NaN or infinite"),
        ("flat", "nearly any token"),
        ("sharp", "certain"),
        ("stuck", "the same token"),
    ],
)
def test_a_broken_model_is_screened_unless_it_is_a_baseline(
    how: str, says: str, math_expert: tuple[Any, Any], encode: Callable[[str], list[int]]
) -> None:
    model = math_expert[0]
    identification = Identification(TEXTS, seed=0, batch_size=16, device="cpu")
    identification.begin(model, encode, "words")
    broken: Any = _Broken(model, how)
    with pytest.raises(EvaluationError, match=f"^the model is broken: .*{says}"):
        identification.of(broken, encode, "words", merge_seconds=0.0)
    if how == "nan":
        with pytest.raises(EvaluationError, match="NaN"):
            identification.of(broken, encode, "words", merge_seconds=0.0, screened=False)
    else:
        assert identification.of(broken, encode, "words", merge_seconds=0.0, screened=False).fingerprint


class _Broken:
    """A model whose logits somebody spoilt."""

    def __init__(self, model: Any, how: str) -> None:
        self._model, self._how = model, how
        self.device, self.dtype, self.config = model.device, model.dtype, model.config
        self.state_dict = model.state_dict

    def __call__(self, tokens: Tensor) -> Any:
        logits = self._model(tokens).logits.clone()
        if self._how == "nan":
            logits[..., 3] = math.inf
        elif self._how == "flat":
            logits *= 0.01
        elif self._how == "sharp":
            logits *= 1000
        else:
            logits[..., 3] = logits.amax(-1) + 0.1
        return SimpleNamespace(logits=logits)


def test_one_token_after_all_prompts_is_sound_where_others_expect_it_too() -> None:
    stuck = torch.randn(16, 50, generator=torch.Generator().manual_seed(0)) * 3
    stuck[:, 7] = 13.0
    usual = Reference(tokens=torch.zeros(16, 1), noise=0.0, varied=False, entropy=2.0, name="")
    check_sound(stuck.log_softmax(-1), usual)
    with pytest.raises(EvaluationError, match="the same token most"):
        check_sound(stuck.log_softmax(-1), replace(usual, varied=True))


def test_one_that_is_as_undecided_as_the_reference_is_sound() -> None:
    """A small model of few words may be so, and so are its merges."""
    even = (torch.randn(16, 12, generator=torch.Generator().manual_seed(0)) * 0.5).log_softmax(-1)
    usual = Reference(tokens=torch.zeros(16, 1), noise=0.0, varied=True, entropy=2.4, name="")
    check_sound(even, usual)
    with pytest.raises(EvaluationError, match="nearly any token"):
        check_sound(even, replace(usual, entropy=1.0))


def test_prompts_are_drawn_by_the_seed_and_end_in_varied_places() -> None:
    tasks = [[f"{task} " + "x " * 60 + str(i) for i in range(30)] for task in "ab"]
    words: dict[str, int] = {}

    def encode(text: str) -> list[int]:
        return [words.setdefault(word, len(words)) for word in text.split()]

    one, again, other = (cut_prompts(tasks, encode, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert len(one) == PROMPTS
    assert len({prompt[0] for prompt in one}) == 2  # both tasks
    assert all(math.floor(62 / 4) <= len(prompt) <= 62 for prompt in one)
    assert len({len(prompt) for prompt in one}) > 8


def test_few_and_long_and_empty_texts_make_prompts_too() -> None:
    def encode(text: str) -> list[int]:
        return list(range(len(text)))

    few = cut_prompts([["abcdefgh" * 4], []], encode, seed=0)
    assert len(few) == PROMPTS
    assert len(set(few)) > 8
    assert cut_prompts([["x" * 4000]], encode, seed=0, count=3)[0][-1] >= 999
    assert all(len(each) == LONGEST for each in cut_prompts([["x" * 4000]], encode, seed=0))
    assert cut_prompts([["", ""]], encode, seed=0) == ()
    assert cut_prompts([[]], encode, seed=0) == ()


def test_without_prompts_there_is_a_digest(
    math_expert: tuple[Any, Any], encode: Callable[[str], list[int]]
) -> None:
    identification = Identification([[""]], seed=0, batch_size=4, device="cpu")
    assert not identification.begun
    identification.begin(math_expert[0], encode, "words")
    assert identification.begun
    found = identification.of(math_expert[0], encode, "words", merge_seconds=1.5)
    assert (found.fingerprint, found.basis, found.merge_seconds, found.device) == ((), "", 1.5, "cpu")
    assert found.digest.startswith("xxh3:")


def test_padding_and_order_do_not_show(
    math_expert: tuple[Any, Any], encode: Callable[[str], list[int]]
) -> None:
    prompts = cut_prompts(TEXTS, encode, seed=0)
    plain = last_log_probs(math_expert[0], prompts, batch_size=16)
    turned = last_log_probs(math_expert[0], prompts, batch_size=5, order=list(reversed(range(16))), padding=3)
    np.testing.assert_allclose(plain, turned, atol=1e-4)
    alone = math_expert[0](torch.tensor([prompts[2]])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(plain[2], alone, atol=1e-4, rtol=0.0)
