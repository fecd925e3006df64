"""Exporting a trial of a run: its recipe, its provenance, its recorded score as the yardstick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evomerge.archive.run import Run
from evomerge.controller.closing_report import from_json
from evomerge.merge.sources import Paths, check_known
from evomerge.publish.card import Found
from evomerge.publish.checkpoint import write_checkpoint
from evomerge.publish.verify import scores_like

_OWN = "**this model**"


def export_trial(
    run: Run,
    number: int,
    target: str | Path,
    *,
    paths: Paths,
    overwrite: bool,
    verify: bool,
    allow_pickle: bool = False,
    begun: Callable[[], None] | None = None,
    name: str | None = None,
) -> Path:
    """Write trial `number` as a checkpoint at `target` and return its path.

    `paths` says which sources lie elsewhere than where the search read them; `allow_pickle` also reads
    pickled weights, which a search that was allowed to has allowed already; `begun` is called when all is
    checked and the writing begins; `name` is what the card calls the model. Raises `RequestError` if the
    trial, the sources or the target will not do, `ExportError` if `verify` and the written checkpoint does
    not score what the search recorded.
    """
    check_known(paths, run.record.paths)
    recorded = run.scores(number)
    where = {**run.record.provenance, "device": run.frozen_trials[number].user_attrs.get("device")}
    return write_checkpoint(
        run.recipe(number),
        target,
        paths={**run.record.paths, **paths},
        found=_found(run, number, recorded, verified=verify),
        verify=scores_like(recorded, run.record.brief(), where) if verify else None,
        keep=[run.folder.path],
        begun=begun,
        overwrite=overwrite,
        allow_pickle=allow_pickle or run.record.allow_pickle,
        name=name,
    )


def _found(run: Run, number: int, recorded: dict[str, float], *, verified: bool) -> Found:
    content = run.report()
    report = from_json(content) if content else None
    return Found(
        run=run.folder.name,
        trial=number,
        measures=run.record.measures,
        held_out=run.record.held_out,
        search=recorded,
        reported=[
            (_OWN if row.trial == number else row.title, row.report)
            for row in (report.rows if report else ())
            if row.report is not None
        ],
        item_counts={
            task: {part: len(items) for part, items in splits.items()}
            for task, splits in run.record.items.items()
        },
        provenance=run.record.provenance,
        verified=verified,
        own=next(
            (
                _OWN
                for row in (report.rows if report else ())
                if row.trial == number and row.report is not None
            ),
            None,
        ),
        few_shot=run.record.space.few_shot,
        gains=[
            gain
            for gain in ((*report.gains, *report.held_out) if report else ())
            if gain.trial == number and gain.verdict != "itself"
        ],
    )
