"""Models with the statistics that were measured on them, from places by name and back.

One mapping of names to places reaches every worker: `math` leads to a model's folder, `math:fisher` to
the file of its Fisher information.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import get_args

from evomerge.checkpoints.adapters import open_adapter
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.measured import open_measured, statistics_name
from evomerge.types import Statistic

STATISTICS: tuple[Statistic, ...] = get_args(Statistic)


def open_models(
    places: Mapping[str, str | Path],
    adapts: Mapping[str, str] = MappingProxyType({}),
    *,
    allow_pickle: bool = False,
) -> dict[str, Checkpoint]:
    """Return the models at `places`, each with the statistics whose places stand beside it.

    `adapts` names the whole model under each that is a LoRA adapter. Raises `CheckpointError` for the first
    that is missing or broken.
    """
    attached = {statistics_name(name, kind) for name in places for kind in STATISTICS}
    folders = {name: Path(place) for name, place in places.items() if name not in attached}
    whole = {
        name: open_checkpoint(folder, allow_pickle=allow_pickle)
        for name, folder in folders.items()
        if name not in adapts
    }
    models = {
        name: whole[name]
        if name in whole
        else open_adapter(folder, whole[adapts[name]], allow_pickle=allow_pickle)
        for name, folder in folders.items()
    }
    return {name: with_statistics(model, name, places) for name, model in models.items()}


def with_statistics(model: Checkpoint, name: str, places: Mapping[str, str | Path]) -> Checkpoint:
    """Return `model` with its statistics, of which `places` has those it needs."""
    found = {kind: statistics_name(name, kind) for kind in STATISTICS}
    opened = {kind: open_measured(Path(places[key]), kind) for kind, key in found.items() if key in places}
    return replace(model, statistics=opened)


def places_of(models: Mapping[str, Checkpoint]) -> dict[str, str]:
    """Return where `models` and their statistics lie; `open_models` leads back."""
    places = {name: str(model.path) for name, model in models.items()}
    for name, model in models.items():
        for kind, measured in model.statistics.items():
            places[statistics_name(name, kind)] = str(measured.path)
    return places
