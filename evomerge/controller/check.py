"""Everything that can be known of a search before it: what would keep it from working, what is unwise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evomerge.archive.record import RunRecord
from evomerge.checkpoints.licences import Licence, read_licence, strictest
from evomerge.checkpoints.models import open_models
from evomerge.checkpoints.traits import Trait, form_of, traits
from evomerge.controller.advice import Advice, advice
from evomerge.controller.dry_run import DryRun, dry_run
from evomerge.controller.resources import Need, machine, needs, workers_of
from evomerge.controller.scoring import scoring, small_task_notes
from evomerge.controller.search import Options, check_space
from evomerge.errors import RequestError, WorkError
from evomerge.others_words import plain
from evomerge.space import SpaceFile


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found of a space that a search could begin with.

    `problems` would keep the search from working and `warnings` are what works and is unwise, a sentence with
    the way out each. Without a dry run nothing was built.
    """

    record: RunRecord
    traits: tuple[Trait, ...]
    licence: Licence
    workers: int
    needs: tuple[Need, ...]
    advice: Advice
    dry_run: DryRun | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def examine(
    file: SpaceFile, *, options: Options, folder: Path, target: Path, dry: bool
) -> Findings | tuple[str, ...]:
    """Return what a search of a space would meet, or the problems for which it could not even begin.

    `folder` is where the run would be written and `target` where its winner may be exported to; nothing is
    written but checkpoints of earlier runs that are sources. With `dry` a candidate is built and scored.
    """
    with _overheard() as heard:
        try:
            record = check_space(file, options=options)
        except RequestError as error:
            return tuple(_with_others(str(error), file))
        return _findings(record, heard, options=options, folder=folder, target=target, dry=dry)


def _with_others(first: str, file: SpaceFile) -> Iterator[str]:
    """Yield what was found first, and what is wrong with the tasks besides: sources are looked at before."""
    yield first
    try:
        scoring(file.space, file.document.where, file.path.absolute().parent, None)
    except RequestError as error:
        if str(error) != first:
            yield str(error)


def _findings(
    record: RunRecord, heard: list[str], *, options: Options, folder: Path, target: Path, dry: bool
) -> Findings:
    adapts = {name: ref.adapts for name, ref in record.models.items() if ref.adapts is not None}
    models = open_models(record.paths, adapts, allow_pickle=record.allow_pickle)
    merge = record.space.merge
    form = form_of(models, template=merge.template, base=merge.base)
    seen = traits(models, form=form, by_token=record.space.tokenizer is not None)
    licence = strictest({name: read_licence(model.path) for name, model in models.items()})
    there = machine(folder, target)
    workers = workers_of(record, there, options.workers, serial=options.serial)
    needed = tuple(needs(record, models, there, workers=workers, serial=options.serial))
    advised = advice(record)
    problems = [each.problem for each in needed if each.problem]
    measured = None
    if dry and not problems:
        try:
            measured = dry_run(record, workers=workers, tell=options.tell)
        except WorkError as error:
            problems.append(str(error))
    notes = [each.note for each in seen if each.note]
    warnings = [
        *heard, *notes, *licence.doubts, *advised.warnings,
        *(each.warning for each in needed if each.warning), *small_task_notes(record),
    ]  # fmt: skip
    return Findings(
        record=record,
        traits=seen,
        licence=licence,
        workers=workers,
        needs=needed,
        advice=advised,
        dry_run=measured,
        problems=tuple(problems),
        warnings=tuple(dict.fromkeys(warnings)),
    )


class _Overhearing(logging.Handler):
    """Keeps warnings in `heard` and lets what weighs less go on to where all is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.heard.append(plain(record.getMessage()))
        else:
            logging.getLogger().handle(record)


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Give what evomerge warns of meanwhile, which is then said nowhere else."""
    handler, logger = _Overhearing(), logging.getLogger("evomerge")
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler.heard
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
