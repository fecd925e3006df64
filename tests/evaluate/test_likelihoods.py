"""Packed batches give lm-eval's own log-likelihoods: plain ones to the last digit, on every family."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers
from lm_eval.models.huggingface import HFLM

from evomerge.checkpoints.locate import ZOO
from evomerge.evaluate import likelihoods, prefixes
from evomerge.evaluate.likelihoods import Answer, Pair, answers, pack, plain_rows, tree_mask
from evomerge.evaluate.prefixes import Questions
from tests.merge.families import EXPERTS, SIZES

LONGEST = 64
WORDS = 232  # of the zoo's tokenizer
SHAPE = SIZES | {"vocab_size": WORDS, "initializer_range": 0.3}
GPT2 = {"vocab_size": WORDS, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": LONGEST}
WINDOW = {"sliding_window": 8, "layer_types": ["full_attention", "sliding_attention", "full_attention"]}
FAMILIES: dict[str, tuple[str, dict[str, Any], bool]] = {  # and whether it takes rows of several options
    "llama": ("llama", SHAPE, True),
    "qwen3_moe": ("qwen3_moe", SHAPE | EXPERTS | {"head_dim": 8}, True),
    "learned positions": ("gpt2", GPT2 | {"initializer_range": 0.3}, True),
    "sliding windows": ("gemma3_text", SHAPE | WINDOW | {"head_dim": 8}, False),
    "ALiBi": ("bloom", SHAPE | {"n_head": 2}, False),
    "recurrent": ("mamba", {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2}, False),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Any, bool]:
    """Return a random model of a family, whose weights are large enough that attention matters."""
    return made(request.param), FAMILIES[request.param][2]


def made(name: str, dtype: torch.dtype = torch.float32) -> Any:
    kind, content, _ = FAMILIES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(kind, **content)
        model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    model.config.use_cache = False
    return model.eval()


def pairs(*, options: int, seed: int = 0) -> list[Pair]:
    """Return continuations of 1 to 5 tokens of contexts of 20 to 40, in a shuffled order."""
    rng = random.Random(seed)

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, WORDS) for _ in range(count))

    found = []
    for _ in range(12):
        context = words(rng.randint(20, 40))
        found += [Pair(context=context, continuation=words(rng.randint(1, 5))) for _ in range(options)]
    rng.shuffle(found)
    return found


def theirs(model: Any, asked: Sequence[Pair], batch_size: int = 8) -> list[Answer]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(ZOO / "models" / "math")
    lm = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        softmax_dtype="float32",
        max_length=LONGEST,
    )
    requests = [(("", ""), list(pair.context), list(pair.continuation)) for pair in asked]
    found: list[Answer] = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    return found


def plain(model: Any, asked: Sequence[Pair], batch_size: int = 8) -> list[Answer]:
    rows = plain_rows(dict(enumerate(asked)), LONGEST)
    return answers(model, pack(rows, batch_size=batch_size, device=model.device), len(asked))


def questions(asked: Sequence[Pair], batch_size: int = 8) -> Questions:
    return Questions(asked, longest=LONGEST, batch_size=batch_size, device=torch.device("cpu"))


def assert_alike(found: Sequence[Answer], expected: Sequence[Answer], tolerance: float) -> None:
    assert [each for each, _ in found] == pytest.approx([each for each, _ in expected], abs=tolerance)
    assert [likeliest for _, likeliest in found] == [likeliest for _, likeliest in expected]


def test_plain_rows_give_lm_evals_digits(family: tuple[Any, bool]) -> None:
    asked = pairs(options=3)
    assert plain(family[0], asked) == theirs(family[0], asked)


def test_what_leaves_out_logits_gives_the_same(
    family: tuple[Any, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pairs(options=3)
    monkeypatch.setattr(likelihoods, "_SMALL", 0)
    monkeypatch.setattr(likelihoods, "_PLACES", 7)
    assert_alike(plain(family[0], asked), theirs(family[0], asked), 1e-4)


def test_only_the_logits_that_are_asked_about_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama")
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[1]))
    asked = [Pair(context=tuple(range(10, 40)), continuation=(7, 8, 9))]
    plain(model, asked)
    monkeypatch.setattr(likelihoods, "_SMALL", 0)
    plain(model, asked)
    assert seen == [32, 3]


def test_options_read_together_score_as_read_one_by_one(family: tuple[Any, bool]) -> None:
    model, takes = family
    asked = pairs(options=4)
    together = questions(asked)
    expected = theirs(model, asked)
    assert_alike(together.answer(model, "form"), expected, 1e-4)
    assert together._takes == {"form": takes}
    if not takes:  # then nothing is different from lm-eval at all
        assert together.answer(model, "form") == expected


def test_options_read_together_are_fewer_tokens() -> None:
    model = made("llama")
    asked = pairs(options=4)
    read: list[int] = []
    together = questions(asked)
    together.answer(model, "form")
    model.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0].numel()))
    together.answer(model, "form")
    plain(model, asked)
    [*shared, _, _, _, _, _, _] = read
    assert len(shared) == 2
    assert sum(shared) < 0.5 * sum(read[2:])


def test_a_model_that_takes_no_trees_would_be_wrong_with_them() -> None:
    """The measurement refuses something: without it, a sliding window would be looked past."""
    model, asked = made("sliding windows"), pairs(options=4)
    together = questions(asked)
    together._takes["form"] = True
    found, expected = together.answer(model, "form"), theirs(model, asked)
    assert max(abs(one - other) for (one, _), (other, _) in zip(found, expected, strict=True)) > 0.1


@pytest.mark.parametrize("name", ["llama", "learned positions", "sliding windows"])
def test_rounding_in_bfloat16_is_told_from_error(name: str) -> None:
    model, asked = made(name, torch.bfloat16), pairs(options=4)
    together = questions(asked)
    together.answer(model, "form")
    assert together._takes == {"form": FAMILIES[name][2]}


def test_a_model_that_does_not_tell_is_asked_plainly_and_settles_nothing() -> None:
    model, asked = made("llama"), pairs(options=4)
    with torch.no_grad():
        kept = model.lm_head.weight.clone()
        model.lm_head.weight.zero_()
        together = questions(asked)
        assert together.answer(model, "form") == theirs(model, asked)
        assert together._takes == {}
        model.lm_head.weight.copy_(kept)
    together.answer(model, "form")
    assert together._takes == {"form": True}


def test_answers_do_not_hang_on_who_was_asked_before() -> None:
    one, other = made("llama"), made("llama")
    with torch.no_grad():
        other.lm_head.weight.mul_(1.1)
    asked = pairs(options=4)
    fresh, used = questions(asked), questions(asked)
    used.answer(other, "form")
    assert used.answer(one, "form") == fresh.answer(one, "form")


def test_too_long_a_context_is_cut_as_lm_eval_cuts_it() -> None:
    model = made("llama")
    rng = random.Random(3)
    context = tuple(rng.randrange(5, WORDS) for _ in range(70))
    asked = [Pair(context=context[:length], continuation=(9, length)) for length in (60, 61, 62, 63, 64, 70)]
    assert plain(model, asked) == theirs(model, asked)
    options = [Pair(context=context[:62], continuation=tuple(range(8, 8 + n))) for n in (2, 3, 5, 9)]
    assert prefixes._sharing(dict(enumerate(options)), LONGEST) == {}
    assert questions(options).answer(model, "form") == theirs(model, options)


def test_a_repeated_pair_is_answered_each_time() -> None:
    model, asked = made("llama"), pairs(options=4)
    twice = [*asked, *asked[:5]]
    found = questions(twice).answer(model, "form")
    assert found[len(asked) :] == found[:5]
    assert plain(model, twice) == theirs(model, twice)


def test_tokens_see_their_own_option_and_the_context() -> None:
    mask = tree_mask(torch.tensor([[0, 0, 1, 2, 2]]), torch.float32)[0, 0]
    assert (mask == 0).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]
