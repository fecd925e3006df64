"""What a trial built, as rows: every place of every merge, and every slot of a stack."""

from dataclasses import replace
from pathlib import Path

from optuna.samplers import RandomSampler

from evomerge.archive.coefficients import coefficients, places, steps
from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord
from evomerge.archive.run import Run
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.recipe import Group, Merge, ModelRef, Recipe, Slot
from evomerge.space import parse_space
from evomerge.types import Scored

MODELS = {name: ModelRef(source=name) for name in ("base", "math", "lang")}
GROUPS = (
    Group(modules=("attn",), layers=(1, 2), params={"weight": {"math": 0.5, "lang": 0.1}}),
    Group(modules=("embed",), params={"weight": 0.0}),
)
MERGE = Merge(
    method="ties",
    base="base",
    sources=("math", "lang"),
    groups=GROUPS,
    params={"density": 0.3, "weight": 1.0},
)


def test_every_place_has_what_is_in_force_there() -> None:
    rows = list(coefficients(Recipe(models=MODELS, merges={"m": MERGE}), 4))
    assert {(row.merge, row.method) for row in rows} == {("m", "ties")}
    weights = {(row.layer, row.module, row.source): row.value for row in rows if row.parameter == "weight"}
    assert weights[1, "attn", "math"] == 0.5
    assert weights[2, "attn", "lang"] == 0.1
    assert weights[3, "attn", None] == weights[1, "mlp", None] == weights[None, "head", None] == 1.0
    assert weights[None, "embed", None] == 0.0
    assert (1, "attn", None) not in weights
    density = [(row.layer, row.module) for row in rows if row.parameter == "density"]
    assert density == list(places(4))
    assert len(density) == 4 * 3 + 2


def test_a_stack_is_told_bottom_to_top() -> None:
    path = (Slot(model="math", layer=0), Slot(model="lang", layer=3, scale=0.9))
    recipe = Recipe(models=MODELS, path=path)
    assert [(s.slot, s.model, s.layer, s.scale) for s in steps(recipe)] == [
        (0, "math", 0, 1.0),
        (1, "lang", 3, 0.9),
    ]
    assert list(coefficients(recipe, 4)) == []


def test_a_run_gives_them_as_tables(record: RunRecord, tmp_path: Path) -> None:
    space = parse_space(
        "sources: {base: b, math: m, lang: l}\n"
        "merge: {base: base, layers: 1, method: task_arithmetic}\n"
        "path: {form: slots, models: [merged, lang]}\n"
        "objectives: [{task: gsm}, {task: wiki, metric: ppl}]\n"
        "constraints: [{task: mmlu, min: 0.25}]\n"
    )
    record = replace(record, space=space)
    folder = RunFolder(tmp_path / "run")
    folder.create(record, "")
    study = StudyRecord(
        open_storage(folder.journal), record.study,
        objectives=record.objectives, genes=record.genome.genes, sampler=RandomSampler(seed=0),
    )  # fmt: skip
    for _ in range(2):
        asked = study.ask()
        study.tell_scored(
            asked.number,
            Scored(
                scores={each.name: 0.5 for each in record.measures}, items=(), merge_seconds=0.0,
                score_seconds=0.0, device="cpu",
            ),
            {},
        )  # fmt: skip
    study.ask()  # running: it has no rows
    run = Run(folder, record)
    table = run.coefficients()
    assert list(table.columns) == [
        "trial",
        "merge",
        "method",
        "parameter",
        "source",
        "layer",
        "module",
        "value",
    ]
    assert sorted(set(table["trial"])) == [0, 1]
    assert table[table["module"] == "head"]["layer"].isna().all()
    assert set(run.coefficients(1)["trial"]) == {1}
    first = run.recipe(0)
    assert first.path is not None
    stack = run.paths(0)
    assert list(stack["model"]) == [slot.model for slot in first.path]
    assert list(stack["slot"]) == list(range(len(first.path)))
    assert sorted(set(run.paths()["trial"])) == [0, 1]
