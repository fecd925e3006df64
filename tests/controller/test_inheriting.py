"""Candidates that are earlier ones again: in real searches of the zoo, and by results written by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import RandomSampler

from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord
from evomerge.archive.run import Run
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.archive.trials import AUDITED, CANONICAL, HOW
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.locate import ZOO
from evomerge.controller import equivalents, heirs
from evomerge.controller.heirs import LIKELY, recipe_key
from evomerge.controller.live import LiveRun
from evomerge.controller.loop import run_loop
from evomerge.controller.public import search
from evomerge.controller.setup import resolve, uniform
from evomerge.dispatch.job import Job
from evomerge.errors import EvaluationError
from evomerge.evaluate.evaluator import Evaluator
from evomerge.evaluate.identity import Identification
from evomerge.evaluate.task_library import TaskLibrary
from evomerge.recipe import Recipe
from evomerge.space import parse_space, read_space
from evomerge.space.baselines import baselines
from evomerge.space.schema import Racing
from evomerge.types import Failed, Identified, ItemScores, Outcome, Scored
from tests.controller.conftest import SPACE
from tests.controller.handmade import measure, record_of, rights

# Two runs of two layers, each skipped or passed, of one model: few of the candidates are different.
PATHS = """
sources: {base: zoo:base, math: zoo:math, lang: zoo:lang}
merge: {base: base}
path: {form: blocks, models: [math], layers: 2, embed: [math, lang], head: math}
objectives: [{task: math_b, metric: acc}]
tasks: zoo:tasks
items: {search: 40, select: 20, report: 20}
racing: false
sampler: random
budget: 40
dtype: float32
batch_size: 40
"""


def space_at(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("inheriting")
    return search(space_at(folder / "paths.yaml", PATHS), run=folder / "run", serial=True)


def assert_scored_once(run: Run) -> None:
    """Assert that no two sampled candidates with items build the same, audited ones aside."""
    scored = [trial for trial in run.frozen_trials if trial.user_attrs.get("inherited_from") is None]
    sampled = [t for t in scored if "baseline" not in t.user_attrs and AUDITED not in t.user_attrs]
    keys = [trial.user_attrs[CANONICAL] for trial in sampled]
    assert len(set(keys)) == len(keys)


def test_every_recipe_is_scored_once_and_all_its_equals_have_its_scores(paths: Run) -> None:
    rows = paths.trials()
    assert set(rows["state"]) == {"scored"}
    heirs = rows[rows["inherited_from"].notna()]
    assert len(heirs) > 10
    origins = rows.set_index("trial").loc[heirs["inherited_from"].astype(int)]
    assert list(origins["math_b"]) == list(heirs["math_b"])
    assert origins["inherited_from"].isna().all()
    assert set(heirs["items"]) == {0}
    assert set(rows.loc[rows["inherited_from"].isna(), "items"]) == {40}
    assert_scored_once(paths)


def test_heirs_leave_no_items_and_are_in_no_front_and_no_last_round(paths: Run) -> None:
    rows = paths.trials()
    heirs = set(rows.loc[rows["inherited_from"].notna(), "trial"])
    items = paths.items()
    assert not heirs & set(items["trial"])
    assert not heirs & {member.trial for member in paths.archive.front}
    written = json.loads(paths.folder.front.read_text())
    assert {row["trial"] for row in written["front"]} == {member.trial for member in paths.archive.front}
    report = paths.report()
    assert report is not None
    assert not heirs & {row["trial"] for row in report["rows"]}
    scored = len(rows) - len(heirs)
    expected = {"scored": scored, "dropped": 0, "inherited": len(heirs)}
    assert report["effort"] == expected | {"items": 40 * scored, "all_items": 40 * len(rows)}


def test_inherited_scores_are_those_that_scoring_would_have_given(paths: Run) -> None:
    rows = paths.trials()
    evaluator = Evaluator(paths.record.brief())
    for row in rows[rows["inherited_from"].notna()].to_dict("records")[::4]:
        found = evaluator.evaluate(paths.recipe(row["trial"]))
        assert isinstance(found, Scored)
        assert found.scores == {"math_b": row["math_b"]}
    evaluator.close()


def test_an_inheriting_search_finds_what_one_without_finds(paths: Run, tmp_path: Path) -> None:
    text = PATHS.replace("racing: false", "racing: false\ninherit: false")
    other = search(space_at(tmp_path / "paths.yaml", text), run=tmp_path / "run", serial=True)
    ours, theirs = paths.trials(), other.trials()
    assert theirs["inherited_from"].isna().all()
    assert list(ours["math_b"]) == list(theirs["math_b"])
    genes = [name for name in ours.columns if "/" in name]
    assert ours[genes].equals(theirs[genes])
    assert not other.folder.identities.exists()


def test_a_resumed_search_inherits_from_what_it_scored_before(paths: Run, tmp_path: Path) -> None:
    file = space_at(tmp_path / "paths.yaml", PATHS)
    search(file, run=tmp_path / "run", serial=True, budget=20)
    items = (tmp_path / "run" / "items.jsonl").read_bytes()
    run = search(file, run=tmp_path / "run", serial=True, resume=True, budget=40)
    assert (tmp_path / "run" / "items.jsonl").read_bytes().startswith(items)
    rows = run.trials()
    assert (rows["inherited_from"].tail(20) < 20).sum() > 5
    assert_scored_once(run)


def test_a_second_sitting_tells_models_it_never_built_by_their_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without keys only weights tell, and those of the first sitting are on disk."""
    monkeypatch.setattr(heirs, "canonical_key", _Different())
    file = space_at(tmp_path / "paths.yaml", PATHS)
    search(file, run=tmp_path / "run", serial=True, budget=12)
    run = search(file, run=tmp_path / "run", serial=True, budget=30, resume=True)
    later = [trial for trial in run.frozen_trials[12:] if HOW in trial.user_attrs]
    assert {trial.user_attrs[HOW] for trial in later} == {"weights"}
    assert any(trial.user_attrs["inherited_from"] < 12 for trial in later)
    assert run.items().query("split == 'search'").groupby("trial").size().eq(40).all()


class _Different:
    """Gives every recipe a key of its own."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, recipe: Recipe, *, layers: int | None = None) -> str:
        self.count += 1
        return f"{recipe.key} {layers} {self.count}"


def test_broken_candidates_fail_before_they_are_asked_an_item(tmp_path: Path) -> None:
    text = SPACE.replace("{low: -0.3, high: 2.0}", "1, lambda: [1.0, 1.1, 1.2, 1.0e+30]")
    file = space_at(tmp_path / "broken.yaml", text.replace("sampler: cma", "sampler: random"))
    run = search(file, run=tmp_path / "run", serial=True, budget=12)
    failed = run.trials().query("state == 'failed'")
    assert 0 < len(failed) < 7
    assert failed["failure"].str.contains("the model is broken").all()
    assert not set(failed["trial"]) & set(run.items()["trial"])


BY_HAND = """
sources: {base: b, math: m, lang: l}
merge: {base: base, layers: 1, genes: {weight: 1, lambda: GENE}}
objectives: [{task: t}]
racing: {looks: [10], cold_start: 0, margin: 0, alpha: 0.1}
sampler: random
"""
ANY = "{low: 0, high: 1.5}"
FEW = "[0.5, 0.75]"
"""Three genes, for layers, embedding and head: eight recipes, none of which is a baseline's."""
BASELINES = 5

unaudited = pytest.mark.usefixtures("without_audits")


@pytest.fixture
def without_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equivalents, "AUDITED", 0.0)


def by_hand(
    gene: str = ANY, *, items: int = 40, inherit: bool = True, racing: Racing | bool | None = None
) -> RunRecord:
    """Return the record of a search whose candidates are looked at after 10 of 40 items, unless told else."""
    space = parse_space(BY_HAND.replace("GENE", gene)).model_copy(update={"inherit": inherit})
    if racing is not None:
        space = space.model_copy(update={"racing": racing})
    record = record_of([measure()], {"search": items, "select": 0, "report": 10})
    return replace(record, space=space, deterministic=True, uniform=True)


def is_model(name: object, *, near: float | None = None) -> Identified:
    """Return who a model is, by name; those that state how `near` to 0 they are have fingerprints."""
    return Identified(
        digest=f"digest of {name}",
        fingerprint=() if near is None else ((-1.0 - near, -2.0), (-1.0, -1.5)),
        noise=1e-6,
        device="cpu",
        merge_seconds=0.25,
        basis="" if near is None else "prompts",
    )


@dataclass
class Scripted:
    """Evaluators that give what is written down by trial: who it is, and its answers; None fails."""

    record: RunRecord
    answers: Callable[[int], Sequence[float] | None]
    who: Callable[[int], Identified] = is_model
    capacity: int = 1
    jobs: list[Job] = field(default_factory=list)
    _taken: list[Job] = field(default_factory=list)

    def submit(self, job: Job) -> None:
        """Take a job."""
        assert len(self._taken) < self.capacity
        self._taken.append(job)
        self.jobs.append(job)

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Return the job taken first."""
        job = self._taken.pop(0)
        return [(job, self._outcome(job))]

    def withdraw(self) -> list[Job]:
        """Return nothing."""
        return []

    def close(self) -> None:
        """Do nothing."""

    def asked(self, trial: int) -> list[str]:
        """Return what a trial was asked, in order."""
        own = [job for job in self.jobs if job.trial == trial]
        return ["who" if job.identify else f"look {job.look}" for job in own]

    def _outcome(self, job: Job) -> Outcome:
        if job.identify:
            return self.who(job.trial)
        answers = self.answers(job.trial)
        if answers is None:
            return Failed(reason="no answer")
        brief = self.record.brief()
        parts = brief.parts("t", "search")
        start = sum(map(len, parts[: job.look or 0]))
        items = brief.items["t"]["search"] if job.look is None else parts[job.look]
        found = tuple(answers[start : start + len(items)])
        scores = ItemScores(task="t", metric="acc", filter="none", items=items, scores=found)
        return Scored(
            scores={"t": sum(found) / len(found)}, items=(scores,), merge_seconds=0.0, score_seconds=0.5,
            device="cpu",
        )  # fmt: skip


def searched(dispatcher: Scripted, folder: Path, *, candidates: int) -> Run:
    """Return the run of a search of so many candidates besides the baselines, begun or taken up again."""
    record, run = dispatcher.record, RunFolder(folder)
    if not folder.exists():
        run.create(record, "")
    study = StudyRecord(
        open_storage(run.journal), record.study,
        objectives=record.objectives, genes=record.genome.genes, sampler=None,
    )  # fmt: skip
    study.study.sampler = RandomSampler(seed=len(study.trials()))  # others than in an earlier sitting
    live = LiveRun(run, record, study, budget=BASELINES + candidates)
    run_loop(live, dispatcher, lambda snapshot: None)
    return Run(run, record)


def all_right(trial: int) -> Sequence[float]:
    return rights(40, 40)


def first_right(trial: int) -> Sequence[float]:
    """Baselines fail on every tenth item, candidates on none but the last, so that none is dropped."""
    return tuple(float(i % 10 != 0) for i in range(40)) if trial < BASELINES else (*rights(39, 39), 0.0)


@unaudited
def test_baselines_are_told_apart_unscreened_and_never_inherit(tmp_path: Path) -> None:
    same = Scripted(by_hand(), all_right, who=lambda trial: is_model("the same"))
    run = searched(same, tmp_path / "run", candidates=2)
    assert same.asked(4) == ["who", "look None"]
    assert same.asked(5) == ["who"]
    assert [job.screen for job in same.jobs if job.identify] == [False] * BASELINES + [True] * 2
    rows = run.trials()
    assert list(rows["inherited_from"].tail(2)) == [0, 0]
    assert rows["inherited_from"].head(BASELINES).isna().all()
    assert run.frozen_trials[5].user_attrs[HOW] == "weights"


@pytest.mark.parametrize("drawn", [False, True])
def test_nobody_is_told_apart_where_nobody_inherits(drawn: bool, tmp_path: Path) -> None:
    record = replace(by_hand(FEW, inherit=drawn), deterministic=not drawn)
    apart = Scripted(record, all_right)
    run = searched(apart, tmp_path / "run", candidates=8)
    assert not any(job.identify for job in apart.jobs)
    assert run.trials()["inherited_from"].isna().all()
    assert not run.folder.identities.exists()


@unaudited
def test_equal_recipes_are_not_even_built(tmp_path: Path) -> None:
    few = Scripted(by_hand(FEW), first_right)
    run = searched(few, tmp_path / "run", candidates=30)
    built = {job.trial for job in few.jobs} - set(range(BASELINES))
    assert len(built) == 8
    heirs = [trial for trial in run.frozen_trials if HOW in trial.user_attrs]
    assert len(heirs) == 30 - len(built)
    assert {trial.user_attrs[HOW] for trial in heirs} == {"recipe"}


def different(trial: int) -> Sequence[float]:
    """The last candidate answers one of the first ten items otherwise than the others."""
    return first_right(trial) if trial < 6 else (*rights(5, 5), 0.0, *rights(34, 34))


def near_five(trial: int) -> Identified:
    return is_model(trial, near=1.0 - 0.1 * trial if trial < 6 else 0.5 + 1e-9)


@unaudited
def test_one_much_like_another_inherits_once_a_quarter_of_its_answers_agree(tmp_path: Path) -> None:
    like = Scripted(by_hand(), first_right, who=near_five)
    run = searched(like, tmp_path / "run", candidates=2)
    assert like.asked(6) == ["who", "look 0"]
    rows = run.trials()
    assert (rows["inherited_from"][6], rows["t"][6], rows["items"][6]) == (5, 39 / 40, 10)
    assert run.asked(run.frozen_trials[6]) == 10
    assert run.frozen_trials[6].user_attrs[HOW] == LIKELY


def test_one_much_like_another_whose_answers_differ_is_scored_itself(tmp_path: Path) -> None:
    unlike = Scripted(by_hand(), different, who=near_five)
    run = searched(unlike, tmp_path / "run", candidates=2)
    assert unlike.asked(6) == ["who", "look 0", "look 1"]
    rows = run.trials()
    assert rows["inherited_from"].isna().all()
    assert rows["items"][6] == 40


@unaudited
def test_what_was_given_up_before_is_given_up_at_once(tmp_path: Path) -> None:
    def hopeless(trial: int) -> Sequence[float]:
        return rights(40, 40) if trial < BASELINES else rights(0, 40)

    poor = Scripted(by_hand(FEW), hopeless)
    run = searched(poor, tmp_path / "run", candidates=20)
    rows = run.trials().tail(20)
    assert set(rows["state"]) == {"dropped"}
    again = rows[rows["inherited_from"].notna()]
    assert len(again) == 12
    assert set(again["items"]) == {0}
    assert again["dropped"].str.contains("again: surely worse").all()
    origins = run.trials().set_index("trial").loc[again["inherited_from"].astype(int)]
    assert list(again["estimate_t"]) == list(origins["estimate_t"])
    assert set(origins["items"]) == {10}
    assert [job.trial for job in poor.jobs if job.trial in set(again["trial"])] == []
    more = searched(poor, tmp_path / "run", candidates=28)  # taken up again
    later = more.trials().tail(8)
    assert later["inherited_from"].notna().all()


def test_the_same_weights_as_of_one_given_up_are_enough(tmp_path: Path) -> None:
    def hopeless(trial: int) -> Sequence[float]:
        return rights(40, 40) if trial < BASELINES else rights(0, 40)

    poor = Scripted(by_hand(), hopeless, who=lambda trial: is_model(min(trial, BASELINES)))
    run = searched(poor, tmp_path / "run", candidates=2)
    assert poor.asked(6) == ["who"]
    assert list(run.trials()["inherited_from"].tail(1)) == [5]


@unaudited
@pytest.mark.parametrize("capacity", [2, 3])
def test_one_that_is_under_way_already_is_waited_for(capacity: int, tmp_path: Path) -> None:
    record = by_hand(racing=True)
    twins = Scripted(record, first_right, lambda trial: is_model(min(trial, BASELINES)), capacity=capacity)
    run = searched(twins, tmp_path / "run", candidates=6)
    rows = run.trials()
    assert list(rows["inherited_from"].tail(5)) == [5] * 5
    assert {job.trial for job in twins.jobs if not job.identify} == set(range(BASELINES + 1))


@unaudited
def test_one_whose_twin_fails_is_asked_itself(tmp_path: Path) -> None:
    def fails_once(trial: int) -> Sequence[float] | None:
        return None if trial == BASELINES else first_right(trial)

    twins = Scripted(by_hand(), fails_once, lambda trial: is_model(min(trial, BASELINES)), capacity=2)
    run = searched(twins, tmp_path / "run", candidates=3)
    rows = run.trials()
    assert list(rows["state"].tail(3)) == ["failed", "scored", "scored"]
    assert (rows["items"][6], rows["inherited_from"][7]) == (40, 6)


def better_and_better(trial: int) -> Sequence[float]:
    """Baselines are hardly ever right, candidates the later the oftener."""
    tenths = 1 if trial < BASELINES else min(9, trial - 3)
    return tuple(float(i % 10 < tenths) for i in range(120))


@unaudited
def test_a_race_of_the_first_few_does_not_wait_for_heirs(tmp_path: Path) -> None:
    """The third of the first six is the first again; the others are halved as soon as all of them wait."""
    race = Racing(looks=[50], cold_start=6)  # the first rung is after 50 items
    record = by_hand(items=120, racing=race)
    few = Scripted(record, better_and_better, lambda trial: is_model(5 if trial == 7 else trial), capacity=2)
    run = searched(few, tmp_path / "run", candidates=20)
    first = run.trials().iloc[BASELINES : BASELINES + 6]
    assert first["inherited_from"].tolist()[2] == 5
    assert first["dropped"].str.contains("of the first 6 candidates").any()
    order = [(job.trial, job.look) for job in few.jobs]
    went_on = min(order.index((trial, 1)) for trial in first["trial"] if (trial, 1) in order)
    assert went_on < order.index((24, None))  # the last to be told apart


def test_audited_hits_are_scored_on_all_items_and_are_no_heirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equivalents, "AUDITED", 1.0)
    few = Scripted(by_hand(FEW), first_right)
    run = searched(few, tmp_path / "run", candidates=20)
    rows = run.trials()
    assert rows["inherited_from"].isna().all()
    assert set(rows["items"]) == {40}
    audited = [trial for trial in run.frozen_trials if AUDITED in trial.user_attrs]
    assert len(audited) == 12
    assert all(few.asked(trial.number) == ["look None"] for trial in audited)


def test_audits_that_fail_are_an_alarm_which_a_resumed_search_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The later ones answer the first ten items as the first does, and then none."""

    def fading(trial: int) -> Sequence[float]:
        return first_right(trial) if trial <= 5 else (*rights(10, 10), *rights(0, 30))

    def near(trial: int) -> Identified:
        return is_model(trial, near=1.0 - 0.1 * trial if trial < 5 else 0.5 + trial * 1e-9)

    monkeypatch.setattr(equivalents, "AUDITED", 1.0)
    dispatcher = Scripted(by_hand(), fading, who=near)
    searched(dispatcher, tmp_path / "run", candidates=2)
    assert dispatcher.asked(6) == ["who", "look 0", "look None"]
    assert "only equal recipes and weights count" in caplog.text
    monkeypatch.setattr(equivalents, "AUDITED", 0.0)
    run = searched(dispatcher, tmp_path / "run", candidates=4)
    assert run.trials()["inherited_from"].isna().all()
    assert "look 1" in dispatcher.asked(8) or run.trials()["state"][8] == "dropped"


def test_recipes_go_by_what_they_build_only_where_that_is_known() -> None:
    record = by_hand("[0, 1.0]")
    idle, gone = (record.genome.decode({gene.name: 0.0 for gene in record.genome.genes}) for _ in range(2))
    other = replace(gone, seed=5)
    assert idle.key != other.key
    assert recipe_key(record, idle) == recipe_key(record, other)
    unlike = replace(record, uniform=False)
    assert recipe_key(unlike, idle) == idle.key
    matched = replace(idle, tokenizer="base")
    assert recipe_key(record, matched) == matched.key


def test_a_record_knows_whether_its_tasks_draw_and_its_sources_match(tmp_path: Path) -> None:
    record = resolve(read_space(space_at(tmp_path / "a.yaml", PATHS)))
    assert (record.deterministic, record.uniform, record.inherits) == (True, True, True)
    tasks = tmp_path / "tasks"
    shutil.copytree(ZOO / "tasks", tasks)
    drawn = (tasks / "math_b_gen.yaml").read_text().replace("do_sample: false", "do_sample: true")
    (tasks / "math_b_gen.yaml").write_text(drawn)
    text = PATHS.replace("task: math_b, metric: acc", "task: math_b_gen").replace("zoo:tasks", str(tasks))
    record = resolve(read_space(space_at(tmp_path / "b.yaml", text)))
    assert (record.deterministic, record.inherits) == (False, False)
    assert "no inheriting, as answers are drawn at random" in record.summary()["thrift"]


def test_models_of_other_tensors_are_not_uniform() -> None:
    one = open_checkpoint(ZOO / "models" / "math")
    assert uniform({"a": one, "b": one})
    longer = {name: replace(spec, shape=(spec.shape[0] + 8, *spec.shape[1:])) if "embed" in name else spec
              for name, spec in one.specs.items()}  # fmt: skip
    assert not uniform({"a": one, "b": replace(one, specs=longer)})
    assert not uniform(
        {"a": one, "b": replace(one, specs={**one.specs, "more": next(iter(one.specs.values()))})}
    )


def test_prompts_are_of_search_items_and_a_look_after_being_told_apart_costs_no_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = resolve(read_space(space_at(tmp_path / "a.yaml", PATHS)))
    seen: list[str] = []
    kept = Identification.__init__

    def noted(self: Identification, texts: Sequence[Sequence[str]], **rest: Any) -> None:
        seen.extend(text for each in texts for text in each)
        kept(self, texts, **rest)

    monkeypatch.setattr(Identification, "__init__", noted)
    evaluator = Evaluator(record.brief())
    recipe = {each.label: each.recipe for each in baselines(record.genome)}["parent lang"]
    first = evaluator.identify(recipe, screen=False)
    assert isinstance(first, Identified)
    assert first.merge_seconds > 0
    assert len(first.fingerprint) == 16
    scored = evaluator.evaluate(recipe)
    assert isinstance(scored, Scored)
    assert scored.merge_seconds == 0
    again = evaluator.identify(recipe, screen=False)
    assert isinstance(again, Identified)
    assert replace(again, merge_seconds=0.0) == replace(first, merge_seconds=0.0)
    evaluator.close()
    task = TaskLibrary(ZOO / "tasks", few_shot=None, seed=0).load("math_b")
    assert seen == task.prompts(record.items["math_b"]["search"])


def test_without_a_sound_first_source_models_are_told_apart_by_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Identification, *rest: Any) -> None:
        raise EvaluationError("broken")

    monkeypatch.setattr(Identification, "begin", broken)
    record = resolve(read_space(space_at(tmp_path / "a.yaml", PATHS)))
    evaluator = Evaluator(record.brief())
    found = evaluator.identify(record.genome.decode(record.genome.start), screen=True)
    evaluator.close()
    assert isinstance(found, Identified)
    assert found.fingerprint == ()
    assert found.digest.startswith("xxh3:")
