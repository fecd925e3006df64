"""Values that change along the layers."""

import pytest

from evomerge.recipe import Filtered, Group, Merge, from_yaml, interpolated
from evomerge.recipe.layered import Layered, relative_depth, value_at


@pytest.mark.parametrize(
    ("anchors", "expected"),
    [
        ((0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ((1.0, 0.0, 1.0), [1.0, 0.6, 0.2, 0.2, 0.6, 1.0]),
        ((0.3,), [0.3] * 6),
        (("total", "count"), ["total"] * 5 + ["count"]),
        ((True, False), [True] * 5 + [False]),
    ],
)
def test_anchors_are_equally_spaced_along_the_layers(anchors: Layered, expected: list[object]) -> None:
    found = [value_at(anchors, tensor="w", depth=relative_depth(layer, 0, 5)) for layer in range(6)]
    assert found == pytest.approx(expected) if isinstance(expected[0], float) else found == expected


def test_a_single_layer_takes_the_last_anchor_and_what_lies_outside_the_first() -> None:
    assert interpolated((0.2, 0.4, 0.9), relative_depth(7, 7, 7)) == 0.9
    assert interpolated((0.2, 0.4, 0.9), relative_depth(None, 0, 5)) == 0.2


def test_the_first_filter_that_the_name_contains_counts() -> None:
    setting = (
        Filtered(filter="mlp", value=0.1),
        Filtered(filter="self_attn", value=(0.0, 1.0)),
        Filtered(value=0.7),
    )
    names = ["layers.1.mlp.up", "layers.1.self_attn.q", "norm"]
    assert [value_at(setting, tensor=name, depth=0.25) for name in names] == [0.1, 0.25, 0.7]
    assert value_at(setting[:2], tensor="norm", depth=0.25) is None
    assert value_at((Filtered(filter="*", value=2.0),), tensor="norm", depth=0.25) == 2.0


def test_anchors_of_a_group_stretch_over_its_layers() -> None:
    group = Group(modules=("mlp",), layers=(2, 4), params={"weight": {"a": (0.0, 1.0), "b": 0.5}})
    merge = Merge(method="linear", sources=("a", "b"), params={"weight": (0.0, 0.9)}, groups=(group,))
    inside = [merge.settings("w", layer, "mlp", 10)["weight"] for layer in (2, 3, 4)]
    assert inside == [{"a": depth, "b": 0.5} for depth in (0.0, 0.5, 1.0)]
    assert merge.settings("w", 5, "mlp", 10) == {"weight": pytest.approx(0.5)}
    assert merge.settings("w", None, "embed", 10) == {"weight": 0.0}


def test_they_are_read_as_in_recipes_of_mergekit() -> None:
    text = """\
models: {a: x/a, b: x/b}
merges:
  ab:
    method: linear
    sources: [a, b]
    params:
      weight:
        a: [0, 0.5, 1]
        b: [{filter: self_attn, value: [0, 1]}, {value: 0.5}]
      normalize: true
"""
    assert from_yaml(text).merge.params == {
        "weight": {
            "a": (0, 0.5, 1),
            "b": (Filtered(filter="self_attn", value=(0, 1)), Filtered(value=0.5)),
        },
        "normalize": True,
    }
