"""A run read while a search still writes it."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


WRITE = """
import json, sys
from pathlib import Path
from optuna.samplers import RandomSampler
from evomerge.archive.folder import RunFolder
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.types import Scored

folder = RunFolder(Path(sys.argv[1]))
record = folder.read_record()
study = StudyRecord(
    open_storage(folder.journal), record.study,
    objectives=record.objectives, genes=record.genome.genes, sampler=RandomSampler(seed=0),
)
print("begun", flush=True)
for _ in range(60):
    number = study.ask().number
    study.note(number, recipe=None, note="x" * 20_000)
    told = Scored(scores={"gsm": 0.5, "wiki": 1.0}, items=(), merge_seconds=0, score_seconds=0, device="cpu")
    study.tell_scored(number, told, {})
"""


def test_several_read_while_one_writes(record: RunRecord, tmp_path: Path) -> None:
    """Each reads again and again from when there is a study, also what is written by half."""
    folder = RunFolder(tmp_path / "run")
    folder.create(record, "")
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(folder.path)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"

        def read(_: int) -> list[int]:
            seen = []
            while writer.poll() is None:
                seen.append(Run(folder, record).finished)
            return seen

        with ThreadPoolExecutor(3) as readers:
            histories = list(readers.map(read, range(3)))
    assert writer.returncode == 0
    for history in histories:
        assert len(set(history)) > 3  # they did see it grow
        assert history == sorted(history)
    content = folder.journal.read_bytes()
    for cut in (1, 100, 20_100):  # as a power cut leaves it
        folder.journal.write_bytes(content[:-cut])
        assert len(Run(folder, record).trials()) == 60
