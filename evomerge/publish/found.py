"""Exporting a trial of a run: its recipe, its provenance, its recorded score as the yardstick."""

from __future__ import annotations

from pathlib import Path

from evomerge.archive.run import Run
from evomerge.publish.card import Found, model_card
from evomerge.publish.checkpoint import export
from evomerge.publish.verify import scores_like


def export_trial(run: Run, number: int, target: Path, *, overwrite: bool = False) -> Path:
    """Write trial `number` as a checkpoint at `target` and return its path.

    Raises `RequestError` if the trial or target will not do, `ExportError` if the written checkpoint
    does not score what the search recorded.
    """
    recorded = run.scores(number)
    recipe = run.recipe(number)
    return export(
        recipe,
        target,
        paths=run.record.paths,
        card=model_card(recipe, _found(run, number, recorded)),
        verify=scores_like(recorded, run.record.brief()),
        overwrite=overwrite,
    )


def _found(run: Run, number: int, recorded: dict[str, float]) -> Found:
    rows = (run.report() or {"rows": []})["rows"]
    return Found(
        run=run.folder.name,
        trial=number,
        measures=run.record.measures,
        search=recorded,
        reported=[
            ("**this model**" if row["trial"] == number else row["label"], row["report"])
            for row in rows
            if row["report"] is not None
        ],
        item_counts={
            task: {part: len(items) for part, items in splits.items()}
            for task, splits in run.record.items.items()
        },
        provenance=run.record.provenance,
    )
