"""Finished runs made by hand: what each trial scores on each item is written down, and no model is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from evomerge.archive.folder import RunFolder
from evomerge.archive.items import ItemStore
from evomerge.archive.record import RunRecord
from evomerge.archive.run import Run
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.archive.trials import KEY
from evomerge.dispatch.job import Job
from evomerge.recipe import ModelRef
from evomerge.space import parse_space
from evomerge.space.baselines import baseline, baselines
from evomerge.types import Failed, ItemScores, Measure, Outcome, Scored, Split

SPACE = """\
sources: {base: b, math: m, lang: l}
merge: {base: base, layers: 1, genes: {weight: {low: 0, high: 1.5}}}
objectives: [OBJECTIVES]
"""

Answers = Sequence[float]
"""A trial's score on each item, 1 for a right answer."""

LABELS = ("base", "parent math", "parent lang", "uniform average", "task arithmetic")


def measure(name: str = "t", *, up: bool = True) -> Measure:
    """Return a measure that is the mean over the items of a task of its name."""
    return Measure(name=name, task=name, metric="acc", filter="none", higher_is_better=up)


def rights(count: int, of: int) -> tuple[float, ...]:
    """Return answers of which the first `count` are right."""
    return (1.0,) * count + (0.0,) * (of - count)


def record_of(
    measures: Sequence[Measure], counts: Mapping[Split, int], *, held_out: Sequence[Measure] = ()
) -> RunRecord:
    """Return the record of a search for these measures, each with so many items per split."""
    objectives = ", ".join(f"{{task: {each.name}}}" for each in measures)
    none: dict[Split, int] = {"search": 0, "select": 0, "report": counts["report"]}
    sizes = {each.task: counts for each in measures} | {each.task: none for each in held_out}
    return RunRecord(
        study="s",
        space=parse_space(SPACE.replace("OBJECTIVES", objectives), "small.yaml"),
        layers=4,
        models={n: ModelRef(source=f"/models/{n}", digest=f"blake2b:{n}") for n in ("base", "math", "lang")},
        paths={},
        tasks=None,
        objectives=tuple(measures),
        constraints=(),
        held_out=tuple(held_out),
        items={
            task: {split: [f"{task}-{split}-{i}" for i in range(count)] for split, count in size.items()}
            for task, size in sizes.items()
        },
        storage=None,
        provenance={"versions": {}, "command": ["evomerge"], "commit": None},
    )


@dataclass
class MadeByHand:
    """A run whose trials are added one by one; the first five are its baselines."""

    record: RunRecord
    path: Path
    folder: RunFolder = field(init=False)
    study: StudyRecord = field(init=False)
    store: ItemStore = field(init=False)

    def __post_init__(self) -> None:
        self.folder = RunFolder(self.path)
        self.folder.create(self.record, "")
        self.study = StudyRecord(
            open_storage(self.folder.journal), self.record.study,
            objectives=self.record.objectives, genes=self.record.genome.genes, sampler=RandomSampler(seed=0),
        )  # fmt: skip
        for each in baselines(self.record.genome):
            self.study.enqueue(each.label, each.params)
        self.store = ItemStore(self.folder.items, self.record.items)

    @property
    def run(self) -> Run:
        """The run as it stands."""
        return Run(self.folder, self.record)

    def add(self, *answers: Answers, feasible: bool = True, like: str | None = None) -> int:
        """Add a trial with its answers to the search items of each objective, and maybe another's recipe."""
        asked = self.study.ask()
        genome = self.record.genome
        recipe = baseline(genome, asked.label).recipe if asked.label else genome.decode(asked.params)
        self.study.note(asked.number, **{KEY: like or recipe.key})
        scored = scored_on(self.record, "search", answers)
        self.store.add(asked.number, "search", scored)
        self.study.tell_scored(asked.number, scored, {} if feasible else {"limit": 1.0})
        return asked.number

    def drop(self, estimate: float, variance: float) -> None:
        """Add a trial that was dropped with an estimate of its score in the first objective."""
        asked, name = self.study.ask(), self.record.objectives[0].name
        self.study.note(asked.number, estimate={name: estimate}, estimate_variance={name: variance})
        self.study.study.tell(asked.number, state=TrialState.PRUNED)

    def fail(self) -> None:
        """Add a trial that failed."""
        self.study.tell_failed(self.study.ask().number, Failed(reason="broken"))


def scored_on(record: RunRecord, split: Split, answers: Sequence[Answers]) -> Scored:
    """Return the result of these answers to the items of a split, for each measure that has such items."""
    asked = [m for m in (*record.measures, *record.held_out) if record.items[m.task][split]]
    items = tuple(
        ItemScores(
            task=each.task,
            metric=each.metric,
            filter=each.filter,
            items=tuple(record.items[each.task][split]),
            scores=tuple(map(float, given)),
        )
        for each, given in zip(asked, answers, strict=True)
    )
    scores = {
        each.name: sum(found.scores) / len(found.scores) for each, found in zip(asked, items, strict=True)
    }
    return Scored(scores=scores, items=items, merge_seconds=0.0, score_seconds=0.0, device="none")


class Answering:
    """Evaluators that give the answers written down by split and trial; a trial without any fails."""

    capacity = 2

    def __init__(self, record: RunRecord, answers: Mapping[Split, Mapping[int, Sequence[Answers]]]) -> None:
        self._record, self.answers = record, dict(answers)
        self._taken: list[Job] = []
        self.asked: list[tuple[Split, int]] = []

    def submit(self, job: Job) -> None:
        """Take a job."""
        assert len(self._taken) < self.capacity
        self._taken.append(job)
        self.asked.append((job.split, job.trial))

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Return the job that was taken last, as workers do not keep to the order."""
        job = self._taken.pop()
        found = self.answers[job.split].get(job.trial)
        if found is None:
            return [(job, Failed(reason="no answer"))]
        return [(job, scored_on(self._record, job.split, found))]

    def withdraw(self) -> list[Job]:
        """Return nothing."""
        return []

    def close(self) -> None:
        """Do nothing."""
