"""A run read while a search still writes it."""

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.samplers import RandomSampler

from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord
from evomerge.archive.run import Run
from evomerge.archive.study import StudyRecord, distributions, open_storage
from evomerge.errors import RunError
from evomerge.space import parse_space

SPACE = """\
sources: {base: b, math: m, lang: l}
merge: {base: base, layers: 1}
path: {form: FORM, models: [merged, lang]}
objectives: [{task: gsm}, {task: wiki, metric: ppl}]
constraints: [{task: mmlu, min: 0.25}]
"""


@pytest.mark.parametrize("form", ["slots", "blocks", "layer_swap", "prune", "repeat"])
def test_a_trial_is_read_while_its_genes_are_written_one_by_one(
    form: str, record: RunRecord, tmp_path: Path
) -> None:
    record = replace(record, space=parse_space(SPACE.replace("FORM", form)))
    folder = RunFolder(tmp_path / "run")
    folder.create(record, "")
    study = StudyRecord(
        open_storage(folder.journal), record.study,
        objectives=record.objectives, genes=record.genome.genes, sampler=RandomSampler(seed=0),
    ).study  # fmt: skip
    whole = study.ask(distributions(record.genome.genes)).params
    [(name, drawn)] = study.ask(distributions(record.genome.genes[-1:])).params.items()
    run = Run(folder, record)
    rows = run.trials()
    assert list(rows["state"]) == ["running", "running"]
    assert rows[name][1] == drawn
    assert run.recipe(0) == record.genome.decode(whole)
    with pytest.raises(RunError, match=r"^trial 1 has no recipe yet: it is running$"):
        run.recipe(1)
