"""A candidate between being asked for and its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from evomerge.archive.trials import Asked, Waiting
from evomerge.controller.equivalents import Alike
from evomerge.controller.heirs import Bequest
from evomerge.recipe import Recipe
from evomerge.types import Identified, Scored


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is known of a candidate under way; `first` is one of the first few of the race.

    `key` tells its recipe from those that build something else. `bequest` is what it inherits if it turns out
    as like another as it seems, or what an audit compares. `twin` is the candidate under way that it is
    again, and whose end it waits for.
    """

    asked: Asked
    recipe: Recipe
    key: str
    first: bool = False
    identified: Identified | None = None
    so_far: Scored | None = None
    look: int = -1
    bequest: Bequest | None = None
    twin: int | None = None

    @property
    def number(self) -> int:
        """The number of its trial."""
        return self.asked.number

    @property
    def sampled(self) -> bool:
        """Whether it is no baseline."""
        return self.asked.label is None

    @property
    def begun(self) -> bool:
        """Whether an evaluator has given any result on it."""
        return self.so_far is not None or self.identified is not None

    def is_again(self, other: Candidate) -> bool:
        """Return whether it is the same as another by recipe or weights."""
        model = self._model
        return self.key == other.key or (model is not None and model == other._model)

    @property
    def _model(self) -> tuple[str, str] | None:
        """What tells its model from others that were built on any device."""
        return None if self.identified is None else (self.identified.device, self.identified.digest)

    def waiting(self, ranked_by: tuple[float, ...]) -> Waiting:
        """Return how it waits for the others of the first few, which it is ranked among."""
        assert self.so_far is not None  # it waits after a look
        hit = None if self.bequest is None else self.bequest.hit
        alike = (hit.trial, hit.distance) if isinstance(hit, Alike) else None
        return Waiting(look=self.look, so_far=self.so_far, ranked_by=ranked_by, alike=alike)

    def first_scores(self, part: Scored) -> Scored:
        """Return the first scores with the time that the merge took when its model was identified."""
        if self.identified is None:
            return part
        return replace(part, merge_seconds=part.merge_seconds + self.identified.merge_seconds)


def twin_of(candidate: Candidate, under_way: Mapping[int, Candidate]) -> int | None:
    """Return the candidate under way that another one is again, if it does not itself wait for one."""
    others = (each for each in under_way.values() if each.number != candidate.number and each.twin is None)
    return next((each.number for each in others if candidate.is_again(each)), None)
