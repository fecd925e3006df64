"""What is known of mergekit's methods: its defaults, our words for its own, and where operators differ."""

from __future__ import annotations

import pytest
import torch

from evomerge import merge_tensors, plugins
from evomerge.mergekit.known import METHODS, ours, their_words
from evomerge.mergekit.reading import from_mergekit
from evomerge.parameters import declared

NORMALIZED = {"linear", "ties", "della"}
"""Of those that have `normalize`, the methods for which it is on unasked."""

DEFAULTS = {
    "density": 1.0, "gamma": 0.01, "lambda": 1.0, "rescale": True, "nuslerp_row_wise": False,
    "nuslerp_flatten": True, "normalize_weights": True, "eps": 1e-8, "max_iter": 10, "tol": 1e-5,
    "select_topk": 1.0, "filter_wise": False, "weight": None, "t": None,
}  # fmt: skip
"""As mergekit's docs/merge_methods.md and its methods have them."""


def test_defaults_are_mergekits() -> None:
    for method, known in METHODS.items():
        for word, theirs in known.parameters.items():
            if word == "normalize":
                assert theirs.default is (method in NORMALIZED), method
            elif word == "epsilon":
                assert theirs.default == (1e-5 if method == "ram" else 0.15)
            else:
                assert theirs.default == DEFAULTS[word], (method, word)


def test_every_parameter_is_one_of_ours() -> None:
    for method, known in METHODS.items():
        names = [ours(method, word).name for word in known.parameters]
        assert set(names) <= set(declared(plugins.load("methods", method)))
        assert len(set(names)) == len(names)
    assert their_words("nearswap") == {"limit": "t"}
    assert their_words("ram") == {"negligible": "epsilon"}


def test_what_mergekit_has_otherwise_by_default_is_written_out() -> None:
    text = "merge_method: della\nbase_model: o/b\nmodels: [{model: o/a, parameters: {weight: 1}}]\n"
    assert from_mergekit(text)[0].merge.params == {"density": 1.0}
    text = "merge_method: karcher\nmodels: [o/a, o/b]\n"
    assert from_mergekit(text)[0].merge.params == {"max_iter": 10}


@pytest.mark.parametrize("method", METHODS)
def test_only_operators_that_differ_need_mergekits_semantics(method: str) -> None:
    kind = plugins.load("methods", method)
    assert "mergekit" in kind.compats
    if METHODS[method].differs:
        return
    rng = torch.Generator().manual_seed(0)
    count = 1 if kind.sources[1] == 1 else 3
    base = {"w": torch.randn(16, 8, generator=rng)}
    models = [
        {"w": base["w"] + 0.1 * torch.randn(16, 8, generator=rng)} for _ in range(max(count, kind.sources[0]))
    ]
    found = [
        merge_tensors(method, None if kind.base == "unused" else base, models, {}, compat=compat)["w"]
        for compat in ("evomerge", "mergekit")
    ]
    assert torch.equal(*found)
