"""Whole searches whose evaluator is simulated: what racing saves and costs, over many seeds in little time.

Everything but the model is the product's own: space, sampler, loop, race, study. An item is passed where its
margin is positive; margins are smooth in the genes, and differ from item to item in where they are best, so
that candidates which are close to one another pass the same items, as merges of the same models do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord
from evomerge.archive.study import LABEL, StudyRecord
from evomerge.controller.live import LiveRun
from evomerge.controller.loop import run_loop
from evomerge.controller.sampling import SamplerContext, make_sampler
from evomerge.controller.setup import resolve
from evomerge.controller.unit_cube import UnitCube
from evomerge.dispatch.job import Job
from evomerge.space import read_space
from evomerge.types import ItemScores, Outcome, Scored

QUICKSTART = Path(__file__).parent.parent / "search_spaces" / "quickstart.yaml"

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Items:
    """How items answer to a point x of the unit cube, by a margin: passed where it is positive.

    margin(x) = ease + pull·(x - peak) + ripple(x) - |stretch (x - peak)|², with a ripple of random waves.
    """

    ease: Vector  # (N,)
    pull: Vector  # (N, d)
    waves: Vector  # (N, k) heights
    phases: Vector  # (N, k)
    frequencies: Vector  # (k, d)
    peak: Vector  # (d,)
    stretch: Vector  # (d,)

    def margins(self, x: Vector) -> Vector:
        """Return the margins `(N,)` at `x` (d,)."""
        away = x - self.peak
        ripple = (self.waves * np.cos(self.frequencies @ x + self.phases)).sum(axis=1)
        return np.asarray(self.ease + self.pull @ away + ripple - ((self.stretch * away) ** 2).sum())

    def some(self, start: int, stop: int) -> Items:
        """Return some of the items."""
        return replace(
            self,
            **{name: getattr(self, name)[start:stop] for name in ("ease", "pull", "waves", "phases")},
        )


def make_items(count: int, genes: int, *, seed: int, top: float = 0.75) -> Items:
    """Return items of which about a share of `top` is passed at the peak."""
    rng = np.random.default_rng(seed)
    waves = 16
    ease = rng.normal(0.0, 1.0, count)
    return Items(
        ease=ease - np.quantile(ease, 1 - top),
        pull=rng.normal(0.0, PULL, (count, genes)),
        waves=rng.normal(0.0, RIPPLE / np.sqrt(waves / 2), (count, waves)),
        phases=rng.uniform(0, 2 * np.pi, (count, waves)),
        frequencies=rng.normal(0.0, 2 * np.pi / WAVE, (waves, genes)) / np.sqrt(genes) * np.sqrt(3),
        peak=rng.uniform(0.3, 0.7, genes),
        stretch=np.sqrt(np.geomspace(NARROW / SKEW, NARROW, genes)),
    )


PULL, RIPPLE, WAVE, NARROW, SKEW = 1.0, 0.7, 0.5, 6.0, 10.0


class SimulatedDispatcher:
    """Answers for the items at once; baselines are somewhere on the way to the peak."""

    capacity = 1

    def __init__(self, record: RunRecord, study: StudyRecord, items: Items) -> None:
        self._record, self._study, self._items = record, study, items
        self._cube = UnitCube(record.genome.genes)
        self._brief = record.brief()
        self._waiting: list[Job] = []
        self.scored = 0

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def collect(self) -> list[tuple[Job, Outcome]]:
        job = self._waiting.pop(0)
        return [(job, self._answer(job))]

    def withdraw(self) -> list[Job]:
        taken, self._waiting = self._waiting, []
        return taken

    def close(self) -> None:
        self._waiting.clear()

    def _answer(self, job: Job) -> Outcome:
        measure = self._record.objectives[0]
        margins = self._items.margins(self.point(job.trial))
        passed = margins > 0
        parts = self._brief.parts(measure.task, "search")
        order = [
            item for part in (parts if job.look is None else parts[job.look : job.look + 1]) for item in part
        ]
        start = 0 if job.look is None else sum(len(part) for part in parts[: job.look])
        scores = tuple(float(each) for each in passed[start : start + len(order)])
        self.scored += len(order)
        items = ItemScores(
            task=measure.task,
            metric=measure.metric,
            filter=measure.filter,
            items=tuple(order),
            scores=scores,
            margins=tuple(float(m) for m in margins[start : start + len(order)]),
        )
        mean = statistics.fmean(scores)
        return Scored(
            scores={measure.name: mean}, items=(items,), merge_seconds=0.0, score_seconds=0.0, device="cpu"
        )

    def point(self, trial: int) -> Vector:
        """Return where a trial lies in the unit cube."""
        frozen = self._study.trials()[trial]
        if LABEL in frozen.user_attrs:
            rng = np.random.default_rng(trial)
            share = 0.55 if "task arithmetic" in frozen.user_attrs[LABEL] else 0.0
            corner = rng.choice([0.1, 0.9], len(self._items.peak))
            return np.asarray(corner + share * (self._items.peak - corner))
        genes = self._record.genome.genes
        return np.asarray([(frozen.params[g.name] - g.low) / (g.high - g.low) for g in genes])


@dataclass(frozen=True, kw_only=True)
class Outcome2:
    share: float
    true: float
    best: float
    dropped: int
    seconds: float


def simulate(record: RunRecord, *, seed: int, budget: int, folder: Path) -> Outcome2:
    record = replace(record, space=record.space.model_copy(update={"seed": seed}), study=f"s{seed}")
    measure = record.objectives[0]
    count = len(record.items[measure.task]["search"])
    rest = 4000
    everything = make_items(count + rest, len(record.genome.genes), seed=seed)
    searched, fresh = everything.some(0, count), everything.some(count, count + rest)
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    study = StudyRecord(
        __import__("optuna").storages.InMemoryStorage(),
        record.study,
        objectives=record.objectives,
        genes=record.genome.genes,
        sampler=None,
    )
    context = SamplerContext(
        genes=record.genome.genes,
        objectives=record.objectives,
        seed=seed,
        workers=1,
        trials_before=0,
        options=record.space.sampler_choice.options,
    )
    study.study.sampler = make_sampler(record.space.sampler_choice.name, context)
    live = LiveRun(run, record, study, budget=budget)
    dispatcher = SimulatedDispatcher(record, study, searched)
    import os

    if os.environ.get("MERIT"):
        from evomerge.comparison.estimate import Ease, greg, p_irt, soft
        from evomerge.controller.race import Estimated
        from evomerge.evaluate.looks import scores_of

        kind = os.environ["MERIT"]
        known = {}
        learn = live._race.learn

        def learned(number, scored, front):
            items = scores_of(scored, measure)
            if "scale" not in known:
                known["scale"] = float(np.median(np.abs(items.margins))) * float(os.environ.get("SCALE", 1))
                known["ease"] = Ease.unknown(len(items.items))
            known["ease"] = known["ease"].add(soft(items.margins, known["scale"]))
            return learn(number, scored, front)

        live._race.learn = learned

        def merit(so_far):
            race = live._race
            items = scores_of(so_far, measure)
            if kind == "pirt":
                mean = p_irt(race._known[measure.name].turned(items), race._known[measure.name].ease).mean
            elif kind == "softmap":
                # soft estimate mapped to accuracy by what fully scored ones have of both
                m = greg(soft(items.margins, known["scale"]), known["ease"]).mean
                pairs = known["pairs"]
                a, b = np.polyfit([p[0] for p in pairs], [p[1] for p in pairs], 1)
                mean = a * m + b
            return Estimated(scores={measure.name: float(mean)}, variances={measure.name: 0.0})

        def learned2(number, scored, front):
            learned(number, scored, front)
            items = scores_of(scored, measure)
            known.setdefault("pairs", []).append((float(soft(items.margins, known["scale"]).mean()), scored.scores[measure.name]))

        live._race.learn = learned2
        live._race.estimate = merit
    if os.environ.get("TRACE"):
        print([round(t.values[0], 3) if t.values else None for t in study.trials()])
    if os.environ.get("ORACLE"):
        from evomerge.controller.race import Estimated

        current = {}
        take = live.take

        def remember(job, outcome):
            current["trial"] = job.trial
            take(job, outcome)

        live.take = remember

        def exact(so_far):
            mean = float((searched.margins(dispatcher.point(current["trial"])) > 0).mean())
            return Estimated(scores={measure.name: mean}, variances={measure.name: 0.0})

        live._race.estimate = exact
    started = time.monotonic()
    run_loop(live, dispatcher, lambda snapshot: None)
    seconds = time.monotonic() - started
    complete = [t for t in study.trials() if t.values]
    best = max(complete, key=lambda t: t.values[0])
    true = float((fresh.margins(dispatcher.point(best.number)) > 0).mean())
    return Outcome2(
        share=dispatcher.scored / (count * len(study.trials())),
        true=true,
        best=best.values[0],
        dropped=len(study.trials()) - len(complete),
        seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", type=Path, default=QUICKSTART)
    parser.add_argument("--sampler", default="cma")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--racing", nargs="+", default=["on", "off"])
    asked = parser.parse_args()
    import yaml

    results: dict[str, list[Outcome2]] = {}
    for racing in asked.racing:
        value = yaml.safe_load(racing)
        record = resolve(read_space(asked.space, {"racing": value, "sampler": asked.sampler}))
        with tempfile.TemporaryDirectory() as temporary:
            for seed in range(asked.seeds):
                found = simulate(record, seed=seed, budget=asked.budget, folder=Path(temporary) / f"{seed}")
                results.setdefault(racing, []).append(found)
        rows = results[racing]
        print(
            racing,
            *(
                f"{name} {statistics.fmean(getattr(r, name) for r in rows):.4f}"
                for name in ("share", "true", "best", "dropped", "seconds")
            ),
            flush=True,
        )
    import json

    saved = Path("/tmp/sim_off.json")
    if asked.racing == ["off"]:
        saved.write_text(json.dumps([r.true for r in results["off"]]))
    reference = json.loads(saved.read_text()) if saved.exists() else []
    for racing in asked.racing:
        d = [b - a.true for a, b in zip(results[racing], reference)]
        print(f"regret of {racing}: {statistics.fmean(d):.4f} ± {statistics.stdev(d) / len(d) ** 0.5:.4f}")


if __name__ == "__main__":
    main()
