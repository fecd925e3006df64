"""A loop gives the bits that merging block by block gives, compiled or not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evomerge import plugins
from evomerge.merge.compiling import Loops, can_compile
from evomerge.merge.kernels.loops import Loop
from evomerge.merge.kernels.trimming import Cut
from evomerge.merge.method import Looping, Site
from evomerge.merge.streaming import Known, Operands, Orders, Stored, merge_stored
from evomerge.parameters import bind
from tests.merge.test_streaming import DTYPES, models

LOOPED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("linear", {"weight": [0.3, 0.9]}),
    ("task_arithmetic", {"weight": [0.3, -0.9], "lambda": 0.7}),
    ("ties", {"density": 0.3}),
    ("ties", {"density": [0.15, 0.8], "weight": [0.3, 1.2], "lambda": 1.3}),
    ("ties", {"density": [0.2, 1.0], "normalize": False}),
    ("breadcrumbs", {"density": 0.5, "gamma": 0.1, "lambda": 0.5}),
    ("dare_linear", {"density": [0.3, 1.0], "weight": [0.4, 0.7]}),
    ("dare_ties", {"density": [0.4, 0.6], "weight": [0.4, 0.7]}),
)
CPU = torch.device("cpu")


def prepared(name: str, params: dict[str, Any], dtype: torch.dtype) -> tuple[Any, Site, Known]:
    base, *others = models(dtype)
    method: Any = bind(plugins.load("methods", name), params, 2, compat="evomerge")
    deltas = method.on == "deltas"
    operands = Operands(base=base if deltas else None, stored=tuple(Stored(tensor=each) for each in others))
    known = Known(operands=operands, names=("a", "b"), orders=Orders(), deltas=deltas)
    return method, Site(tensor="w", sources=("a", "b"), seed=5), known


def streamed(method: Any, site: Site, known: Known) -> Tensor:
    into = torch.empty_like(known.operands.stored[0].tensor)
    assert merge_stored(method.begin(site, known), known.operands, into, deltas=known.deltas)
    return into


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "params"), LOOPED)
def test_loops_are_what_streams_are(name: str, params: dict[str, Any], dtype: torch.dtype) -> None:
    method, site, known = prepared(name, params, dtype)
    assert isinstance(method, Looping)
    loop = method.loop(site, known)
    assert loop is not None
    stored = [each.tensor for each in known.operands.stored]
    into = torch.empty_like(stored[0])
    assert bool(loop.function(known.operands.base, stored, loop.numbers, into))
    assert torch.equal(into, streamed(method, site, known))


class Counting(Loops):
    """Loops that are not compiled."""

    def run(self, loop: Loop, base: Tensor | None, models: list[Tensor], into: Tensor) -> bool:
        return bool(loop.function(base, models, loop.numbers, into.view(-1)))


@pytest.mark.parametrize("ties", [1, 5, 40_000, 77_777, 150_000])
def test_where_ties_end_is_found_by_counting_chunks(ties: int) -> None:
    vector = torch.randint(-2, 3, (300_001,), generator=torch.Generator().manual_seed(1)).float()
    vector[-1] = 1.0
    operands = Operands(base=torch.zeros_like(vector), stored=(Stored(tensor=vector),))
    cut = Cut(value=1.0, ties=min(ties, int((vector.abs() == 1).sum())))
    plain = Known(operands=operands, names=("a",), orders=Orders(), deltas=True)
    counted = replace(plain, loops=Counting())
    [[end]] = plain.ends_of_ties([[cut]])
    assert counted.ends_of_ties([[replace(cut, ties=None)], [cut]])[1] == [end]
    kept = (vector[:end].abs() == 1).sum()
    assert int(kept) == cut.ties
    for loops in (None, Counting()):
        none, every = replace(plain, loops=loops).ends_of_ties([[replace(cut, ties=t)] for t in (0, None)])
        assert none == [0]
        assert every > [len(vector)]


@pytest.mark.skipif(not can_compile(CPU), reason="there is no C++ compiler to compile loops with")
@pytest.mark.filterwarnings("ignore")  # of torch's compiler
def test_compiled_loops_are_what_streams_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    loops = Loops()
    for name, params in LOOPED:
        for shares in (params, {**params, "lambda": 0.9} if name != "linear" else params):
            method, site, known = prepared(name, shares, torch.bfloat16)
            stored = [each.tensor for each in known.operands.stored]
            into = torch.empty_like(stored[0])
            assert loops.run(method.loop(site, known), known.operands.base, stored, into)
            assert torch.equal(into, streamed(method, site, known)), name


def test_a_loop_that_cannot_be_compiled_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> Tensor:
        raise torch._dynamo.exc.BackendCompilerFailed(refuse, RuntimeError("no compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda function, **how: refuse)
    loops = Loops()
    into = torch.zeros(1 << 18)
    assert loops.suits(into)
    assert loops.run(Loop(function=refuse, numbers=()), None, [into], into) is None
    assert not loops.suits(into)


def test_small_tensors_are_not_worth_a_loop() -> None:
    assert not Loops().suits(torch.empty(1000))


def test_methods_without_a_loop_say_so() -> None:
    for name, params, compat in (
        ("ties", {"sign_method": "count"}, "evomerge"),
        ("ties", {}, "peft"),
        ("ties", {"scope": "model"}, "evomerge"),
        ("dare_ties", {"density": 0.5, "normalize": True}, "evomerge"),
        ("dare_linear", {"density": [0.0, 0.5]}, "evomerge"),
        ("dare_linear", {"density": 0.5}, "mergekit"),
        ("breadcrumbs", {}, "official"),
    ):
        method: Any = bind(plugins.load("methods", name), params, 2, compat=compat)
        assert method.loop(*prepared("linear", {}, torch.float32)[1:]) is None, name


def test_without_a_home_there_are_no_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evomerge.merge.compiling.CACHE", Path("~nobody-has-this-name/loops"))
    assert not Loops().suits(torch.empty(1 << 20))
