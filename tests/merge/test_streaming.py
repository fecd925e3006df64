"""What is merged block by block is, to the last bit, what is merged at once."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge import plugins
from evomerge.merge.kernels.draws import kept, uniform
from evomerge.merge.kernels.ladder import count_magnitudes
from evomerge.merge.kernels.selecting import cut_once
from evomerge.merge.kernels.trimming import EVERYTHING, NOTHING, Cut, Trimmer, cut_of, trim, trim_all
from evomerge.merge.method import Site
from evomerge.merge.streaming import Known, Operands, Orders, Stored, merge_stored
from evomerge.parameters import bind

SIZE = 1000
STREAMED = (
    ("linear", {"weight": [0.3, 0.9]}),
    ("task_arithmetic", {"weight": [0.3, -0.9], "lambda": 0.7}),
    ("ties", {"density": 0.3}),
    ("ties", {"density": [0.15, 0.8], "weight": [0.3, 1.2], "lambda": 1.3}),
    ("ties", {"density": 0.4, "sign_method": "count", "normalize": False}),
    ("ties", {"density": 0.4, "merge": "max"}),
    ("dare_linear", {"density": 0.3}),
    ("dare_ties", {"density": [0.0, 0.6], "normalize": True}),
    ("breadcrumbs", {"density": 0.5, "gamma": 0.1}),
    ("breadcrumbs", {"density": 0.5, "gamma": 0.1, "remove_first": False}),
)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("streaming", "kernels.blocks"):
        monkeypatch.setattr(f"evomerge.merge.{module}.block_size", lambda device: 64)


def models(dtype: torch.dtype) -> list[Tensor]:
    """Return a base and two models near it, many of whose entries are alike."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(SIZE, generator=generator)
    moved = [base + 0.1 * torch.randn(SIZE, generator=generator) for _ in range(2)]
    moved[1][::3] = base[::3]
    return [each.to(dtype) for each in (base, *moved)]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "params"), STREAMED)
def test_streams_are_merged_as_whole_tensors(name: str, params: dict[str, Any], dtype: torch.dtype) -> None:
    base, *others = models(dtype)
    method = bind(plugins.load("methods", name), params, 2, compat="evomerge")
    site = Site(tensor="w", sources=("a", "b"), seed=5)
    deltas = method.on == "deltas"
    plain = torch.stack([each.float() - base.float() if deltas else each.float() for each in others])
    expected = method.merge(base.float() if deltas else None, plain, site).to(dtype)

    operands = Operands(base=base if deltas else None, stored=tuple(Stored(tensor=each) for each in others))
    known = Known(operands=operands, names=("a", "b"), orders=Orders(), deltas=deltas)
    begun = method.begin(site, known)
    assert begun is not None
    found = torch.empty(SIZE, dtype=dtype)
    assert merge_stored(begun, operands, found, deltas=deltas)
    assert torch.equal(found, expected)


def test_what_overflows_the_dtype_is_told() -> None:
    one = Operands(base=None, stored=(Stored(tensor=torch.full((8,), 6e4, dtype=torch.float16)),))
    into = torch.empty(8, dtype=torch.float16)
    assert merge_stored(lambda base, block, start: block[0], one, into, deltas=False)
    assert not merge_stored(lambda base, block, start: 2 * block[0], one, into, deltas=False)


def test_methods_that_need_the_whole_say_so() -> None:
    site = Site(tensor="w", sources=("a",), seed=0)
    whole = Known(
        operands=Operands(base=None, stored=(Stored(tensor=torch.ones(4)),)),
        names=("a",), orders=Orders(), deltas=False,
    )  # fmt: skip
    for name, params, compat in (
        ("ties", {}, "official"),
        ("dare_ties", {"density": 0.5}, "mergekit"),
        ("dare_linear", {"density": 0.5, "mask_strategy": "magnitude"}, "evomerge"),
        ("dare_ties", {"density": 0.5, "trim_density": 0.5}, "evomerge"),
        ("breadcrumbs", {}, "official"),
    ):
        method = bind(plugins.load("methods", name), params, 1, compat=compat)
        assert method.begin(site, whole) is None, name


def trimmed(cut: Cut, vector: Tensor) -> Tensor:
    return trim_all([Trimmer(cut)], vector[None])[0]


entries = st.one_of(
    st.floats(width=16, allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-24, 1e-30, 1.0000001, 3e38, 1e-45]),
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(entries, min_size=1, max_size=40), st.integers(min_value=0, max_value=42), st.booleans())
def test_a_ladder_cuts_as_sorting_does(values: list[float], count: int, every_tie: bool) -> None:
    vector = torch.tensor(values)

    def magnitudes() -> Iterator[Tensor]:
        yield from torch.split(vector.abs(), 7)

    cut = count_magnitudes(magnitudes).cut(count, magnitudes, every_tie=every_tie)
    expected = cut_of(vector, count, every_tie=every_tie)
    for each in (cut, expected):
        assert each in (EVERYTHING, NOTHING) or cut.value == expected.value
    assert torch.equal(trimmed(cut, vector), trimmed(expected, vector))


def test_what_is_counted_apart_is_looked_up_without_another_pass() -> None:
    base, other, _ = models(torch.bfloat16)
    vector = other.float() - base.float()
    vector[-1] = 1.0 + 2.0**-20  # shares a range with 1
    vector[-2] = 1.0
    ladder = count_magnitudes(lambda: iter([vector.abs()]))
    for count in (20, 100, 500):
        assert torch.equal(trimmed(ladder.cut(count, _nobody), vector), trim(vector, count))
    with pytest.raises(AssertionError, match="read again"):
        ladder.cut(1, _nobody)


def test_many_magnitudes_are_counted_by_wider_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evomerge.merge.kernels.ladder._MANY", 100)
    vector = torch.randn(3000, generator=torch.Generator().manual_seed(0)).abs()
    ladder = count_magnitudes(lambda: iter([vector]))
    for count in (1, 7, 1500, 2999):
        cut = ladder.cut(count, lambda: iter(torch.split(vector, 1000)))
        assert torch.equal(trimmed(cut, vector), trim(vector, count))
    assert len(ladder.upto) < 2000


def _nobody() -> Iterator[Tensor]:
    raise AssertionError("the vector was read again")


def test_order_statistics_are_counted_once() -> None:
    orders = Orders()
    passes: list[int] = []

    def magnitudes() -> Iterator[Tensor]:
        passes.append(1)
        yield torch.arange(8.0)

    first = orders.ladder("a", magnitudes)
    seen = len(passes)
    assert orders.ladder("a", magnitudes) is first
    assert len(passes) == seen
    assert orders.ladder("b", magnitudes) is not first


def test_a_trimmer_shares_out_ties_over_the_parts() -> None:
    trimmer = Trimmer(Cut(value=1.0, ties=3))
    parts = [torch.tensor(each) for each in ([1.0, 2.0, 0.5, -1.0], [1.0, 1.0, -3.0], [1.0, 0.1])]
    found = [torch.empty_like(part) for part in parts]
    for part, into in zip(parts, found, strict=True):
        trimmer(part, into)
    assert [into.tolist() for into in found] == [[1.0, 2.0, 0.0, -1.0], [1.0, 0.0, -3.0], [0.0, 0.0]]


def test_any_part_of_the_draws_is_drawn_alike() -> None:
    whole = uniform(11, 0, torch.empty(300_001))
    assert torch.equal(uniform(11, 131_072, torch.empty(1001)), whole[131_072:132_073])
    assert float(whole.min()) > 0
    assert float(whole.max()) < 1
    assert torch.equal(kept(11, 2, torch.empty(99), 0.3), (whole[2:101] < 0.3).float())


def test_draws_are_uniform_and_each_key_has_its_own() -> None:
    one, other = (uniform(key, 0, torch.empty(1 << 20)) for key in (7, 8))
    for first, second in ((one, other), (one[:-1], one[1:]), (one[:-2], one[2:])):
        cells = (first * 16).long() * 16 + (second * 16).long()
        counts = torch.bincount(cells, minlength=256).double()
        squares = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
        assert 150 < squares < 380  # chi-squared of 255 degrees: six standard deviations


@pytest.mark.parametrize("every_tie", [False, True])
@pytest.mark.parametrize("kind", ["numbers", "ties", "zeros", "one value", "sorted"])
def test_a_cut_that_is_asked_for_once_is_that_of_all(kind: str, every_tie: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    vector = torch.randn(50_000, generator=generator)
    if kind in ("ties", "zeros"):
        vector = (vector * 3).round() if kind == "ties" else vector * (vector.abs() > 1.5)
    elif kind != "numbers":
        vector = torch.ones(50_000) if kind == "one value" else vector.sort().values

    def magnitudes() -> Iterator[Tensor]:
        return iter(torch.split(vector.abs(), 7000))

    for sample in (vector[::25].abs(), vector.abs()):
        for count in (1, 30, 9_000, 25_000, 49_999):
            found = cut_once(len(vector), count, magnitudes, sample, every_tie=every_tie)
            assert found is not None
            assert torch.equal(trimmed(found, vector), trim(vector, count, every_tie=every_tie)), count


def test_a_sample_that_misleads_finds_nothing() -> None:
    vector = torch.arange(1.0, 1001.0)
    for sample in (vector[:200], vector[-200:], torch.full((200,), 7.0)):
        assert cut_once(1000, 500, lambda: iter([vector]), sample) is None
