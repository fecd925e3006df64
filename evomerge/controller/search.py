"""A whole search, from a space to a finished run folder."""

from __future__ import annotations

import errno
import importlib.metadata
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge.archive.database import storage_url, told
from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord, differences
from evomerge.archive.run import Run
from evomerge.archive.study import StudyRecord, open_storage, repair_journal, study_exists
from evomerge.controller.closing import close_search
from evomerge.controller.closing_report import ClosingReport
from evomerge.controller.live import LiveRun
from evomerge.controller.loop import Observer, run_loop
from evomerge.controller.sampling import SamplerContext, make_sampler
from evomerge.controller.scoring import small_task_notes
from evomerge.controller.setup import resolve
from evomerge.controller.sources import about
from evomerge.controller.stages import Tell
from evomerge.controller.tally import Snapshot
from evomerge.dispatch.job import Staffed
from evomerge.dispatch.ray import ray_dispatcher
from evomerge.dispatch.serial import SerialDispatcher
from evomerge.dispatch.supply import read_path_map
from evomerge.errors import RequestError, RunError, WorkError
from evomerge.evaluate.brief import Brief
from evomerge.interrupts import held
from evomerge.space import SpaceFile

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run a search; what to search for is the space's business.

    `gpus_per_worker` is a share of a GPU, 0 for none; `path_map` says as `HERE=THERE` where the nodes of a
    cluster have folders that the sources or tasks are in. `tell` hears of what takes a while before the
    search begins.
    """

    workers: int | None = None
    ray_address: str | None = None
    serial: bool = False
    storage: str | None = None
    time_limit: float | None = None
    allow_pickle: bool = False
    gpus_per_worker: float | None = None
    path_map: tuple[str, ...] = ()
    tell: Tell = _log.info

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise RequestError(f"a search needs at least one worker, found {self.workers}")
        if self.serial and (self.ray_address is not None or (self.workers or 1) > 1):
            raise RequestError(
                "`--serial` evaluates one candidate at a time in this process; leave out `--workers` "
                "and `--ray-address`, or `--serial`"
            )
        if self.serial and self.gpus_per_worker is not None:
            raise RequestError("`--serial` has no workers to share a GPU: leave out `--gpus-per-worker`")
        if self.gpus_per_worker is not None and not 0 <= self.gpus_per_worker <= 1:
            raise RequestError(
                f"a worker has one GPU or a share of one, found `gpus_per_worker` {self.gpus_per_worker:g}; "
                "give a number from 0 to 1"
            )
        if self.path_map and self.ray_address is None:
            raise RequestError("`--path-map` is for the nodes of a cluster: give its `--ray-address`, too")
        read_path_map(self.path_map)
        if self.storage is not None:
            object.__setattr__(self, "storage", storage_url(self.storage))


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A search that has been checked and may begin.

    `text` is the space as its author wrote it, for a run folder yet to be made; None continues a run.
    `budget` and `candidate_time_limit` are those of this sitting.
    """

    record: RunRecord
    folder: RunFolder
    budget: int
    text: str | None
    candidate_time_limit: float | None = None


def check_space(file: SpaceFile, *, study: str | None = None, options: Options) -> RunRecord:
    """Return the record of a search not begun. Raises `RequestError` for what would keep it from working."""
    record = resolve(
        file,
        study=study,
        storage=options.storage,
        allow_pickle=options.allow_pickle,
        tell=options.tell,
    )
    with about(file.document.where(("sampler",))):
        _check_sampler(record)
    return record


def start_search(file: SpaceFile, folder: RunFolder, *, options: Options) -> Prepared:
    """Return a new search, checked: whatever is wrong with the request is a `RequestError` here."""
    folder.check_free()
    _check_limit(file, options)
    record = check_space(file, study=folder.path.name, options=options)
    if options.storage is not None and study_exists(options.storage, record.study):
        raise RunError(f"the storage already holds a study named `{record.study}`; choose another `--run`")
    return Prepared(
        record=record,
        folder=folder,
        budget=file.space.budget,
        text=file.text,
        candidate_time_limit=file.space.candidate_time_limit,
    )


def resume_search(file: SpaceFile, folder: RunFolder, *, options: Options) -> Prepared:
    """Return a search to continue. Raises `RunError` if it is running, or naming what has changed."""
    record = folder.read_record()
    _check_limit(file, options)
    with folder.writing():
        _check_storage(folder, record, options)
        now = resolve(
            file,
            storage=options.storage or record.storage,
            known=record,
            allow_pickle=options.allow_pickle or record.allow_pickle,
            tell=options.tell,
        )
    if changed := differences(record, now):
        raise RunError(
            f"{folder.path} cannot be continued: {', '.join(changed)} changed since it was started; "
            "undo that, or start a new run"
        )
    moved = replace(record, paths=now.paths, tasks=now.tasks, allow_pickle=now.allow_pickle)
    return Prepared(
        record=moved,
        folder=folder,
        budget=file.space.budget,
        text=None,
        candidate_time_limit=file.space.candidate_time_limit,
    )


def _check_limit(file: SpaceFile, options: Options) -> None:
    if options.serial and file.space.candidate_time_limit is not None:
        place = file.document.where(("candidate_time_limit",))
        raise RequestError(
            f"{place}: `--serial` has no worker that could be ended after "
            f"{file.space.candidate_time_limit:g} seconds; leave out one of the two"
        )


def _check_storage(folder: RunFolder, record: RunRecord, options: Options) -> None:
    """Raise `RunError` if the trials to go on with cannot be reached, once what a crash left is seen to."""
    if options.storage is not None and record.storage is None:
        raise RunError(f"{folder.path} has its trials in {folder.journal.name}; leave out `--storage`")
    where = Run(folder, record, options.storage).storage
    if where == folder.journal:
        repair_journal(folder.journal)
    if isinstance(where, str) or where.exists():
        # a crash may have come before there was any: a run that has item scores had a study
        open_storage(where, existing=folder.items.exists())


def execute(prepared: Prepared, *, options: Options, observe: Observer) -> ClosingReport:
    """Search until the budget is spent, then score the winners on the report items.

    The run folder is made once the workers are there. Raises `RequestError` if there is no room for
    the workers, `WorkError` if nothing could be scored.
    """
    record, folder = prepared.record, prepared.folder
    with dispatcher_for(record.brief(), options, limit=prepared.candidate_time_limit) as dispatcher:
        if prepared.text is not None:
            with held():
                folder.create(record, prepared.text)
        with _disk_faults(folder), folder.writing(), logging_to(folder.log):
            with held():
                folder.write_record(record)  # sources may have moved since
            return _search(prepared, dispatcher, options, observe)


def _search(prepared: Prepared, dispatcher: Staffed, options: Options, observe: Observer) -> ClosingReport:
    run = Run(prepared.folder, prepared.record, options.storage)
    kept = "what is finished is kept, so continue with `--resume` once it works"
    with told(run.storage, WorkError, kept):
        return _searched(prepared, run, dispatcher, options, observe)


def _searched(
    prepared: Prepared, run: Run, dispatcher: Staffed, options: Options, observe: Observer
) -> ClosingReport:
    with held():
        live = _opened(prepared, run, workers=dispatcher.capacity)
    deadline = time.monotonic() + options.time_limit if options.time_limit is not None else None
    _log.info("evomerge %s searches into %s", importlib.metadata.version("evomerge"), prepared.folder.path)
    for note in small_task_notes(prepared.record):
        _log.warning("%s", note)

    def watch(snapshot: Snapshot) -> None:
        observe(replace(snapshot, crew=dispatcher.crew()))

    try:
        run_loop(live, dispatcher, watch, deadline=deadline)
    finally:
        with held():
            live.leave()
    _check_scored(live)
    watch(replace(live.snapshot(), closing=True))
    report = close_search(prepared.folder, run, live.record_final, dispatcher)
    _log.info("done: %s", report.to_json()["gains"])
    return report


def _opened(prepared: Prepared, run: Run, *, workers: int) -> LiveRun:
    """Return the run ready to be written: its study opened, its sampler where it stood."""
    record, folder = prepared.record, prepared.folder
    if run.storage == folder.journal:
        repair_journal(folder.journal)
    study = StudyRecord(
        open_storage(run.storage, existing=folder.items.exists()),
        record.study,
        objectives=record.objectives,
        genes=record.genome.genes,
        sampler=None,
    )
    study.describe(record.summary())
    context = _context(record, workers=workers, before=len(study.trials()))
    study.study.sampler = make_sampler(record.space.sampler_choice.name, context)
    return LiveRun(folder, record, study, budget=prepared.budget)


def _check_scored(live: LiveRun) -> None:
    end = live.snapshot()
    if live.hopeless:
        who = "none but baselines" if end.scored else "not even the base and the parents"
        raise WorkError(
            f"{who} could be scored, so the search was given up after {end.failed} failures, "
            f"the last because: {end.last_failure}"
        )
    if end.failed and not end.scored:
        raise WorkError(f"all {end.failed} candidates failed, the last because: {end.last_failure}")
    if end.sampled_failed and not end.sampled + end.inherited:
        raise WorkError(
            f"only baselines could be scored; all {end.sampled_failed} others failed, "
            f"the last because: {end.last_failure}"
        )
    if not end.scored:
        raise WorkError("no candidate was scored before the time limit; continue with `--resume`")


@contextmanager
def _disk_faults(folder: RunFolder) -> Iterator[None]:
    """Say in a sentence that a disk is full or broken; what was recorded until then is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO):
            raise
        raise WorkError(
            f"{folder.path} cannot be written any more: {error.strerror}; what is finished is kept, "
            "so make room and continue with `--resume`"
        ) from error


class _LogFile(logging.FileHandler):
    """A log that goes without what a full disk does not take; the search itself says that it is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        del record


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Append what evomerge logs to `file` meanwhile."""
    handler = _LogFile(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("evomerge")
    level = logger.level
    logger.setLevel(min(level or logging.INFO, logging.INFO))  # the screen may show more
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        with suppress(OSError):
            handler.close()


@contextmanager
def _serial(brief: Brief) -> Iterator[Staffed]:
    dispatcher = SerialDispatcher(brief)
    try:
        yield dispatcher
    finally:
        dispatcher.close()


def dispatcher_for(brief: Brief, options: Options, *, limit: float | None) -> AbstractContextManager[Staffed]:
    """Return evaluators as the options ask: in this process, on this machine, on a cluster.

    Those elsewhere are ended if a job takes them more than `limit` seconds.
    """
    if options.serial:
        return _serial(brief)
    return ray_dispatcher(
        brief,
        workers=options.workers,
        address=options.ray_address,
        gpus=options.gpus_per_worker,
        limit=limit,
        path_map=read_path_map(options.path_map),
    )


def _context(record: RunRecord, *, workers: int, before: int) -> SamplerContext:
    return SamplerContext(
        genes=record.genome.genes,
        objectives=record.objectives,
        seed=record.space.seed,
        workers=workers,
        trials_before=before,
        options=record.space.sampler_choice.options,
    )


def _check_sampler(record: RunRecord) -> None:
    """Make the sampler once, so that a wrong name or option is found before the folder is."""
    make_sampler(record.space.sampler_choice.name, _context(record, workers=1, before=0))
