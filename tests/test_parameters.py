"""Declaring parameters, and binding values to them."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest

from evomerge.errors import MergeError
from evomerge.parameters import Choice, Gene, PerSource, bind, declared


@dataclass(frozen=True, kw_only=True)
class Method:
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "theirs")

    weight: Annotated[
        PerSource, Gene(low=0, high=2, default=1.0, meaning="share", also={"percent": lambda x: x / 100})
    ]
    lambda_: Annotated[float, Gene(low=0, high=1, default=0.5, meaning="scale", least=0.0)]
    density: Annotated[
        PerSource, Gene(low=0, high=1, default=1.0, meaning="kept", most=1.0, under={"theirs": 0.2})
    ]
    rescale: Annotated[
        str,
        Choice(options=("l1", "none"), default="none", meaning="how", also={True: "l1", False: "none"}),
    ]
    normalize: Annotated[bool, Choice(options=(True, False), default=False, meaning="whether")]
    merge: Annotated[
        str, Choice(options=("mean", "sum"), default="mean", meaning="what", under={"theirs": "sum"})
    ]
    not_declared: int = 3
    compat: str = "evomerge"


def bound(values: dict[str, Any], *, sources: int = 2) -> Method:
    method = bind(Method, values, sources, compat="theirs")
    assert isinstance(method, Method)
    return method


def test_parameters_are_declared_in_order_by_their_public_names() -> None:
    found = declared(Method)
    fields = ["weight", "lambda_", "density", "rescale", "normalize", "merge"]
    assert list(found) == [field.rstrip("_") for field in fields]
    assert [parameter.field for parameter in found.values()] == fields
    assert [parameter.per_source for parameter in found.values()] == [True, False, True, False, False, False]
    assert found["weight"].spec.meaning == "share"


def test_defaults_stand_where_nothing_is_given() -> None:
    found = bind(Method, {}, 3, compat="evomerge")
    assert found == Method(
        weight=(1.0,) * 3, lambda_=0.5, density=(1.0,) * 3, rescale="none", normalize=False, merge="mean"
    )


def test_other_semantics_may_have_other_defaults() -> None:
    found = bound({}, sources=3)
    assert (found.density, found.merge, found.lambda_) == ((0.2,) * 3, "sum", 0.5)
    given = bound({"density": 1.0, "merge": "mean"})
    assert (given.density, given.merge) == ((1.0, 1.0), "mean")


def test_given_values_replace_the_defaults() -> None:
    method = bound({"weight": [1, 0.5], "lambda": 2, "rescale": "l1", "normalize": True})
    assert (method.weight, method.lambda_, method.rescale, method.normalize) == ((1.0, 0.5), 2.0, "l1", True)


def test_one_number_stands_for_every_source() -> None:
    assert bound({"weight": 0.3}, sources=3).weight == (0.3, 0.3, 0.3)


def test_numbers_may_be_any_kind_of_number() -> None:
    assert bound({"weight": (np.float32(0.5), 1)}).weight == (0.5, 1.0)


@pytest.mark.parametrize(("value", "weight"), [(50, (0.5, 0.5)), ([50, 100], (0.5, 1.0))])
def test_a_synonym_is_converted(value: Any, weight: tuple[float, ...]) -> None:
    assert bound({"percent": value}).weight == weight


@pytest.mark.parametrize(("word", "ours"), [(True, "l1"), (False, "none"), ("l1", "l1")])
def test_another_word_for_an_option_is_translated(word: Any, ours: str) -> None:
    assert bound({"rescale": word}).rescale == ours


def test_values_beyond_the_searched_range_are_allowed() -> None:
    assert bound({"weight": -3.0}).weight == (-3.0, -3.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wieght": 1.0}, r"no parameter named `wieght`\. Did you mean `weight`"),
        ({"lambda_": 1.0}, "no parameter named `lambda_`"),
        ({"compat": "evomerge"}, "no parameter named `compat`"),
        ({"weight": [1.0]}, r"`weight` needs one number per source \(2\), found 1"),
        ({"weight": [1.0, 1.0, 1.0]}, r"one number per source \(2\), found 3"),
        ({"weight": "much"}, "`weight` must be a number, found 'much'"),
        ({"weight": [1.0, None]}, "`weight` must be a number, found None"),
        ({"weight": "1.0"}, "`weight` must be a number, found '1.0'"),
        ({"weight": True}, "`weight` must be a number, found True"),
        ({"weight": float("nan")}, "`weight` must be finite, found nan"),
        ({"lambda": [1.0, 1.0]}, r"`lambda` is one number for all sources, found \[1.0, 1.0\]"),
        ({"lambda": float("inf")}, "`lambda` must be finite, found inf"),
        ({"lambda": -0.1}, r"`lambda` must be at least 0, found -0\.1"),
        ({"density": [0.5, 1.5]}, r"`density` must be at most 1, found 1\.5"),
        ({"percent": "half"}, "`percent` must be a number, found 'half'"),
        ({"percent": 50, "weight": 1.0}, "`percent` is another word for `weight`"),
        ({"rescale": "l2"}, "`rescale` is one of l1, none, found 'l2'"),
        ({"rescale": ["l1"]}, r"`rescale` is one of l1, none, found \['l1'\]"),
        ({"normalize": 1}, "`normalize` is one of true, false, found 1"),
        ({"normalize": "yes"}, "`normalize` is one of true, false, found 'yes'"),
    ],
)
def test_a_value_the_parameter_cannot_have_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(MergeError, match=message):
        bound(values)


def test_an_unknown_compat_is_refused() -> None:
    with pytest.raises(MergeError, match=r"no compat of this method named `their`\. Did you mean `theirs`"):
        bind(Method, {}, 2, compat="their")
