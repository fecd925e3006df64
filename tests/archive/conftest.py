"""A run record as a search would make it, without any model behind it."""

import pytest

from evomerge.archive.record import RunRecord
from evomerge.recipe import ModelRef
from evomerge.space import parse_space
from evomerge.types import Measure

SPACE = """\
sources: {base: b, math: m, lang: l}
merge: {base: base, layers: 2, genes: {weight: {low: 0, high: 1.5}, lambda: [1, 2]}}
objectives: [{task: gsm}, {task: wiki, metric: ppl}]
constraints: [{task: mmlu, min: 0.25}]
held_out: [{task: arc}]
sampler: {name: tpe, options: {n_startup_trials: 3}}
"""


@pytest.fixture
def record() -> RunRecord:
    def measure(task: str, metric: str, *, up: bool) -> Measure:
        return Measure(name=task, task=task, metric=metric, filter="none", higher_is_better=up)

    return RunRecord(
        study="s",
        space=parse_space(SPACE, "small.yaml"),
        layers=4,
        models={n: ModelRef(source=f"/models/{n}", digest=f"blake2b:{n}") for n in ("base", "math", "lang")},
        paths={name: f"/models/{name}" for name in ("base", "math", "lang")},
        tasks=None,
        objectives=(measure("gsm", "acc", up=True), measure("wiki", "ppl", up=False)),
        constraints=(measure("mmlu", "acc", up=True),),
        held_out=(measure("arc", "acc", up=True),),
        items={
            **{
                task: {"search": [f"{task}-1"], "select": [f"{task}-2"], "report": [f"{task}-3"]}
                for task in ("gsm", "wiki", "mmlu")
            },
            "arc": {"search": [], "select": [], "report": ["arc-1"]},
        },
        clusters={"wiki": {"wiki-1": "one", "wiki-2": "two", "wiki-3": "three"}},
        storage=None,
        provenance={"versions": {"evomerge": "0.1.0"}, "command": ["evomerge"], "commit": None},
    )
