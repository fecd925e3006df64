"""Who gets jobs and when, and what becomes of workers that are lost. Against a stand-in for Ray."""

from __future__ import annotations

import logging
import time

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

from evomerge.dispatch.job import Crew, Job
from evomerge.dispatch.pool import AGAIN_SECONDS, WorkerPool
from evomerge.dispatch.ray import FRESH_SECONDS, RayDispatcher
from evomerge.dispatch.shape import WorkerShape
from evomerge.errors import RequestError, WorkError
from evomerge.recipe import Recipe
from evomerge.types import Failed, Outcome, Scored
from tests.dispatch.stand_in import Actor, Reference, StandInRay, dispatcher_of, pool_of, ready

RECIPE: Recipe = "a recipe"  # type: ignore[assignment]
GOOD = Scored(scores={"a": 1.0}, items=(), merge_seconds=0.1, score_seconds=0.1, device="cpu")

OUT_OF_MEMORY = OutOfMemoryError("1 worker(s) were killed for memory.\nOOM kill reason: much.\nSee the docs.")  # type: ignore[no-untyped-call]
NODE_DIED = NodeDiedError("Task failed due to the node being dead.\n\nThe node IP: 10.0.0.7")  # type: ignore[no-untyped-call]
UNSCHEDULABLE = ActorUnschedulableError("its node is gone")
CRASHED = WorkerCrashedError()
DIED = ActorDiedError()
NO_ENVIRONMENT = RuntimeEnvSetupError("no such image")
UNAVAILABLE = ActorUnavailableError("socket closed", None)


def broken_constructor() -> ActorDiedError:
    """Return what Ray raises where a worker's constructor did."""
    return ActorDiedError(task_error("Traceback\nValueError: no tasks", ValueError()))


def task_error(text: str, error: Exception) -> RayTaskError:
    """Return what Ray raises where a method of a worker's did."""
    return RayTaskError("method", text, error)  # type: ignore[no-untyped-call]


def jobs(dispatcher: RayDispatcher, *trials: int) -> None:
    """Hand in jobs."""
    for trial in trials:
        dispatcher.submit(Job(trial=trial, recipe=RECIPE))


def results(dispatcher: RayDispatcher, *, turns: int = 6) -> list[tuple[int, Outcome]]:
    """Return what comes of everything that has been answered: one answer a turn."""
    return [(job.trial, evaluation) for _ in range(turns) for job, evaluation in dispatcher.collect()]


def test_a_worker_that_never_comes_gets_no_job() -> None:
    never = Actor()
    dispatcher = dispatcher_of(StandInRay(one := ready(), never), 2)
    jobs(dispatcher, 1, 2)
    for trial in (1, 2):
        assert results(dispatcher) == []
        one.run.answer = GOOD
        assert results(dispatcher) == [(trial, GOOD)]
    assert dispatcher.capacity == 2


def test_a_late_worker_joins_when_it_is_ready() -> None:
    late = Actor()
    dispatcher = dispatcher_of(StandInRay(ready(), late), 2)
    jobs(dispatcher, 1, 2)
    late.ready.answer = ()
    late.run.answer = GOOD
    assert results(dispatcher) == [(2, GOOD)]


def test_the_crew_is_told_by_what_it_is_at() -> None:
    ray = StandInRay(ready(), ready(), ready(), Actor())
    dispatcher = dispatcher_of(ray, 4)
    results(dispatcher, turns=3)
    dispatcher.submit(Job(trial=7, recipe=RECIPE, identify=True))
    dispatcher.submit(Job(trial=5, recipe=RECIPE, look=1))
    assert dispatcher.crew() == Crew(merging=(7,), scoring=(5,), idle=1, starting=1, nodes=2)


def test_the_worker_that_was_idle_longest_is_next() -> None:
    pool = pool_of(ray := StandInRay(ready(), ready(), ready()), 3)
    pool.admit(list(pool.starting))
    first, second, third = ray.actors
    assert pool.take() is first
    pool.give_back(first)
    assert [pool.take() for _ in range(4)] == [second, third, first, None]


@pytest.mark.parametrize("reason", ["AcceleratorError: illegal memory access", "MemoryError: no room"])
def test_an_error_nobody_foresaw_costs_one_retry_and_a_worker_each_time(reason: str) -> None:
    """After some errors of CUDA every later one fails, too; and what is out of memory may have leaked it."""
    dispatcher = dispatcher_of(ray := StandInRay(*(actors := [ready(), ready(), ready()])), 1)
    bad = Failed(reason=reason, traceback="Traceback ...")
    jobs(dispatcher, 1)
    actors[0].run.answer = bad
    actors[1].run.answer = GOOD
    assert results(dispatcher) == [(1, GOOD)]
    assert [actor.killed for actor in ray.actors] == [True, False]
    jobs(dispatcher, 2)
    actors[1].run.answer = actors[2].run.answer = bad
    [(trial, failed)] = results(dispatcher)
    assert isinstance(failed, Failed)
    assert (trial, failed.reason, failed.traceback, failed.ended_workers) == (2, reason, bad.traceback, 0)
    assert [actor.killed for actor in actors] == [True] * 3


def test_a_second_try_waits_for_a_worker_that_had_no_job_yet_and_nobody_waits_for_it() -> None:
    dispatcher = dispatcher_of(StandInRay(one := ready(), other := ready(), new := Actor()), 2)
    jobs(dispatcher, 1, 2)
    dispatcher.collect()
    other.run.answer = GOOD
    one.run.answer = Failed(reason="MemoryError: no room", traceback="Traceback ...")
    assert results(dispatcher) == [(2, GOOD)]
    jobs(dispatcher, 3)
    other.run.answer = GOOD
    assert results(dispatcher) == [(3, GOOD)]
    new.ready.answer = ()
    new.run.answer = GOOD
    assert results(dispatcher) == [(1, GOOD)]


def test_a_second_try_goes_to_any_worker_where_no_new_one_comes(clock: list[float]) -> None:
    dispatcher = dispatcher_of(StandInRay(one := ready(), other := ready(), Actor()), 2)
    jobs(dispatcher, 1, 2)
    dispatcher.collect()
    one.run.answer = NODE_DIED
    other.run.answer = GOOD
    assert results(dispatcher) == [(2, GOOD)]
    other.run.answer = GOOD
    assert results(dispatcher) == []
    clock[0] += FRESH_SECONDS
    assert results(dispatcher) == [(1, GOOD)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which stands still until a test moves it on."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_job_that_takes_too_long_costs_its_worker_and_one_retry_and_nobody_waits(
    clock: list[float],
) -> None:
    dispatcher = dispatcher_of(
        ray := StandInRay(hung := ready(), other := ready(), again := ready()), 2, limit=10
    )
    dispatcher.collect()
    jobs(dispatcher, 1)
    for trial in (2, 3):
        clock[0] += 4
        jobs(dispatcher, trial)
        other.run.answer = GOOD
        assert results(dispatcher, turns=1) == [(trial, GOOD)]
    jobs(dispatcher, 4)
    assert results(dispatcher) == []
    assert not hung.killed
    clock[0] += 3
    assert results(dispatcher) == []
    clock[0] += 9  # of the second try; the fourth trial hangs, too
    assert results(dispatcher) == []
    assert (hung.killed, other.killed, again.killed) == (True, True, False)
    clock[0] += 2
    failed = Failed(reason="it took longer than 10 seconds twice", seconds=11.0, ended_workers=2)
    assert results(dispatcher) == [(1, failed)]
    assert again.killed
    assert len(ray.actors) == 5  # all were replaced
    assert dispatcher.capacity == 2


def test_each_job_of_a_candidate_has_the_time_limit_anew(clock: list[float]) -> None:
    dispatcher = dispatcher_of(StandInRay(only := ready()), 1, limit=10)
    for number in range(4):
        look(dispatcher, 1, number)
        clock[0] += 9
        assert results(dispatcher) == []
        only.run.answer = GOOD
        assert results(dispatcher, turns=1) == [(1, GOOD)]
    assert not only.killed


def test_an_answer_that_waited_for_the_controller_beyond_the_limit_counts(clock: list[float]) -> None:
    """As while it asked the sampler."""
    dispatcher = dispatcher_of(StandInRay(one := ready(), other := ready()), 2, limit=10)
    dispatcher.collect()
    jobs(dispatcher, 1, 2)
    clock[0] += 30
    one.run.answer = other.run.answer = GOOD
    assert results(dispatcher) == [(1, GOOD), (2, GOOD)]


def test_a_candidate_that_ends_its_workers_in_two_ways_is_told_with_both(clock: list[float]) -> None:
    dispatcher = dispatcher_of(StandInRay(one := ready(), ready()), 1, limit=1)
    jobs(dispatcher, 1)
    one.run.answer = NODE_DIED
    assert results(dispatcher) == []
    clock[0] += 2
    [(_, failed)] = results(dispatcher)
    assert isinstance(failed, Failed)
    assert failed.reason == (
        "it took longer than 1 second; the first time: "
        "it ended its worker: Task failed due to the node being dead."
    )
    assert (failed.ended_workers, failed.traceback) == (2, str(NODE_DIED))


def test_a_job_far_slower_than_usual_is_told_once(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Usual is what others of its kind took."""
    dispatcher = dispatcher_of(StandInRay(only := ready()), 1)
    for number in range(5):
        for trial, seconds in ((number, 30.0), (10 + number, 5.0)):
            look(dispatcher, trial, 0) if trial < 10 else jobs(dispatcher, trial)
            clock[0] += seconds
            only.run.answer = GOOD
            assert results(dispatcher, turns=1) == [(trial, GOOD)]
    look(dispatcher, 20, 0)
    clock[0] += 290.0
    results(dispatcher)
    assert caplog.text == ""
    clock[0] += 20.0
    results(dispatcher)
    assert caplog.messages == [
        "trial 20 has been at work for 310 seconds where 30 is usual; "
        "`--candidate-time-limit` ends those that take too long"
    ]


def test_a_worker_stays_after_a_failure_that_was_foreseen() -> None:
    dispatcher = dispatcher_of(ray := StandInRay(only := ready()), 1)
    for trial in (1, 2):
        jobs(dispatcher, trial)
        only.run.answer = Failed(reason="`a` of this candidate is nan")
        assert [trial for trial, _ in results(dispatcher)] == [trial]
    assert ray.actors == [only]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OUT_OF_MEMORY, "1 worker(s) were killed for memory."),
        (NODE_DIED, "Task failed due to the node being dead."),
        (CRASHED, "The worker died unexpectedly while executing this task."),
        (DIED, "The actor died unexpectedly before finishing this task."),
        (UNSCHEDULABLE, "The actor is not schedulable: its node is gone"),
        (NO_ENVIRONMENT, "Failed to set up runtime environment."),
        (UNAVAILABLE, "The actor None is unavailable: socket closed. The task may or may not"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, RayError) else "",
)
def test_whatever_ray_says_of_a_lost_worker_costs_one_retry_then_the_candidate(
    error: RayError, reason: str
) -> None:
    dispatcher = dispatcher_of(ray := StandInRay(*(actors := [ready(), ready(), ready()])), 1)
    jobs(dispatcher, 1)
    actors[0].run.answer = actors[1].run.answer = error
    [(trial, failed)] = results(dispatcher)
    assert isinstance(failed, Failed)
    assert trial == 1
    assert failed.reason.startswith(f"it ended its worker 2 times: {reason}")
    assert "\n" not in failed.reason
    assert (failed.traceback, failed.ended_workers) == (str(error), 2)
    assert [actor.killed for actor in ray.actors] == [True, True, False]
    jobs(dispatcher, 2)
    actors[2].run.answer = GOOD
    assert results(dispatcher) == [(2, GOOD)]


def test_what_a_worker_cannot_make_a_failure_costs_one_retry_then_the_candidate() -> None:
    """As a Rust library's panic, which is no `Exception`, or a job that cannot be unpickled."""
    dispatcher = dispatcher_of(StandInRay(one := ready(), other := ready()), 1)
    jobs(dispatcher, 1)
    error = task_error("Traceback ...", TypeError("no\npanic"))
    one.run.answer = other.run.answer = error
    [(trial, failed)] = results(dispatcher)
    assert isinstance(failed, Failed)
    assert (trial, failed.reason, failed.traceback) == (1, "TypeError: no", str(error))


def test_no_worker_in_time_is_said_with_what_was_asked_and_what_there_is() -> None:
    with pytest.raises(RequestError) as it:
        pool_of(StandInRay(), 3, patience=0.05).await_first()
    assert str(it.value) == (
        "asked Ray for 3 worker(s) of 2 CPU(s), and none has come in 0.05 seconds; the cluster has "
        "1 of 6 CPU(s) free on 2 node(s): ask for less, or try again when it has room"
    )


def test_a_worker_that_cannot_start_is_tried_twice_once_another_could(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = [Actor(ready=Reference(answer=OUT_OF_MEMORY)) for _ in range(2)]
    dispatcher = dispatcher_of(ray := StandInRay(good := ready(), *bad), 2)
    jobs(dispatcher, 1)
    with caplog.at_level(logging.WARNING):
        assert results(dispatcher) == []
    assert "for 60 seconds the search has one less: 1 worker(s) were killed for memory." in caplog.text
    good.run.answer = GOOD
    assert results(dispatcher) == [(1, GOOD)]
    assert [actor.killed for actor in ray.actors] == [False, True, True]


def test_a_worker_that_could_not_start_is_tried_again_later(clock: list[float]) -> None:
    """What kept it from starting, as another program's memory, may be gone by then."""
    bad = [Actor(ready=Reference(answer=OUT_OF_MEMORY)) for _ in range(3)]
    dispatcher = dispatcher_of(ray := StandInRay(one := ready(), *bad, late := ready()), 2)
    jobs(dispatcher, 1, 2)
    late.run.answer = GOOD
    for _ in range(2):
        assert results(dispatcher) == []
        clock[0] += AGAIN_SECONDS
    assert results(dispatcher) == [(2, GOOD)]
    assert ray.actors == [one, *bad, late]


@pytest.mark.parametrize(("error", "tries"), [(broken_constructor(), 1), (NODE_DIED, 2)])
def test_if_no_worker_can_start_its_own_error_ends_the_run(error: RayError, tries: int) -> None:
    ray = StandInRay(*[Actor(ready=Reference(answer=error)) for _ in range(tries)])
    with pytest.raises(WorkError, match=r"^no worker could start: (ValueError: no tasks|Task failed due)"):
        pool_of(ray, 1).await_first()
    assert len(ray.actors) == tries


def test_one_worker_that_cannot_start_does_not_end_the_run() -> None:
    bad = Actor(ready=Reference(answer=broken_constructor()))
    dispatcher = dispatcher_of(StandInRay(bad, good := ready()), 2)
    jobs(dispatcher, 1)
    good.run.answer = GOOD
    assert results(dispatcher) == [(1, GOOD)]


def test_a_search_whose_workers_all_fail_to_come_back_ends() -> None:
    bad = [Actor(ready=Reference(answer=NODE_DIED)) for _ in range(2)]
    dispatcher = dispatcher_of(StandInRay(only := ready(), *bad), 1)
    jobs(dispatcher, 1)
    only.run.answer = NODE_DIED
    with pytest.raises(WorkError, match=r"^no worker is left: Task failed due to the node being dead\. "):
        results(dispatcher)


def test_a_search_whose_workers_find_no_room_any_more_ends() -> None:
    dispatcher = dispatcher_of(StandInRay(only := ready()), 1, patience=0.05)
    jobs(dispatcher, 1)
    only.run.answer = NODE_DIED
    with pytest.raises(WorkError, match=r"none has come back in 0.05 seconds; continue with `--resume`"):
        results(dispatcher, turns=1000)  # a turn without news takes 0.01 seconds


def test_closing_ends_every_worker() -> None:
    dispatcher = dispatcher_of(ray := StandInRay(ready(), ready(), Actor()), 3)
    jobs(dispatcher, 1)
    dispatcher.collect()
    dispatcher.close()
    assert all(actor.killed for actor in ray.actors)


def look(dispatcher: RayDispatcher, trial: int, look: int) -> None:
    """Hand in a look at a trial's first items."""
    dispatcher.submit(Job(trial=trial, recipe=RECIPE, look=look))


@pytest.fixture
def two() -> tuple[RayDispatcher, Actor, Actor]:
    """Return a dispatcher with two workers that are there, the first of which has been idle longest."""
    dispatcher = dispatcher_of(StandInRay(one := ready(), other := ready()), 2)
    dispatcher.collect()
    return dispatcher, one, other


def test_the_next_look_goes_to_the_worker_that_has_the_model(two: tuple[RayDispatcher, Actor, Actor]) -> None:
    """The other one has been idle for longer."""
    dispatcher, one, other = two
    look(dispatcher, 1, 0)
    one.run.answer = GOOD
    assert results(dispatcher) == [(1, GOOD)]
    look(dispatcher, 1, 1)
    other.run.answer = Failed(reason="nobody asked it")
    assert results(dispatcher) == []
    one.run.answer = GOOD
    assert results(dispatcher) == [(1, GOOD)]


def test_a_busy_worker_is_not_waited_for(two: tuple[RayDispatcher, Actor, Actor]) -> None:
    """It has built another model by the time it is free."""
    dispatcher, one, other = two
    look(dispatcher, 1, 0)
    one.run.answer = GOOD
    results(dispatcher)
    look(dispatcher, 2, 0)  # goes to the other, which was idle longer
    look(dispatcher, 3, 0)
    look(dispatcher, 1, 1)
    other.run.answer = GOOD
    assert results(dispatcher) == [(2, GOOD)]
    other.run.answer = GOOD
    assert results(dispatcher) == [(1, GOOD)]


def test_one_worker_stays_with_a_trial_while_others_wait() -> None:
    """Turn and turn about, it would build a model for each look."""
    dispatcher = dispatcher_of(StandInRay(only := ready(), Actor()), 2)
    look(dispatcher, 1, 0)
    look(dispatcher, 2, 0)
    only.run.answer = GOOD
    assert results(dispatcher, turns=1) == [(1, GOOD)]
    look(dispatcher, 1, 1)
    only.run.answer = GOOD
    assert results(dispatcher, turns=1) == [(1, GOOD)]
    only.run.answer = GOOD
    assert results(dispatcher, turns=1) == [(2, GOOD)]


def test_a_look_at_the_model_of_a_lost_worker_goes_to_another(
    two: tuple[RayDispatcher, Actor, Actor],
) -> None:
    dispatcher, one, other = two
    look(dispatcher, 1, 0)
    one.run.answer = GOOD
    results(dispatcher)
    look(dispatcher, 1, 1)
    one.run.answer = NODE_DIED
    other.run.answer = GOOD
    assert results(dispatcher) == [(1, GOOD)]
    assert one.killed
    look(dispatcher, 1, 2)
    other.run.answer = GOOD
    assert results(dispatcher) == [(1, GOOD)]


def test_a_look_after_its_worker_was_replaced_goes_to_another(
    two: tuple[RayDispatcher, Actor, Actor],
) -> None:
    dispatcher, one, other = two
    look(dispatcher, 1, 0)
    one.run.answer = GOOD
    results(dispatcher)
    look(dispatcher, 2, 0)  # to the other
    look(dispatcher, 3, 0)
    one.run.answer = Failed(reason="AcceleratorError", traceback="Traceback ...")
    assert results(dispatcher) == []
    assert one.killed
    look(dispatcher, 1, 1)
    other.run.answer = GOOD
    assert [trial for trial, _ in results(dispatcher, turns=1)] == [2]
    other.run.answer = GOOD
    assert [trial for trial, _ in results(dispatcher, turns=1)] == [1]


def test_patience_has_no_end_while_sources_are_being_sent() -> None:
    ray = StandInRay(Actor())
    sending = [True, True, False]
    shape = WorkerShape(count=1, cpus=2, gpus=0.0)
    pool = WorkerPool(ray, ray.hire, shape, patience=0.02, busy=lambda: sending.pop(0))
    with pytest.raises(RequestError, match="none has come"):
        pool.await_first()
    assert sending == []
