"""What candidates inherit: the scores of an earlier trial that they are again, or the end that it came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.folder import RunFolder
from evomerge.archive.identities import Identity, IdentityStore
from evomerge.archive.items import ItemStore
from evomerge.archive.record import RunRecord
from evomerge.archive.run import is_scored
from evomerge.archive.trials import AUDITED, CANONICAL, HOW, INHERITED, Dropped, dropped_from
from evomerge.controller.equivalents import Alike, Equivalents, Hit, Same, agreement
from evomerge.merge.equivalence import canonical_key
from evomerge.recipe import Recipe
from evomerge.types import Identified, Scored

LIKELY = "answers"
"""How an heir is told that is much like its origin, and not surely the same."""


@dataclass(frozen=True, kw_only=True)
class Bequest:
    """What an earlier trial leaves to one that is the same, or is much like it: all its scores."""

    hit: Hit
    scores: Mapping[str, float]

    @property
    def how(self) -> str:
        """What shows that they are the same."""
        return self.hit.how if isinstance(self.hit, Same) else LIKELY


def recipe_key(record: RunRecord, recipe: Recipe) -> str:
    """Return what recipes of a run share only if they build models that compute the same.

    Where sources differ in their tensors, or tokens are matched, what a recipe builds hangs on more than
    `canonical_key` reads.
    """
    if not record.uniform or recipe.tokenizer is not None:
        return recipe.key
    return canonical_key(recipe, layers=record.layers)


class Heirs:
    """Knows the trials of a run by recipe, weights and fingerprint, and what each leaves to its equals."""

    def __init__(self, folder: RunFolder, record: RunRecord, items: ItemStore) -> None:
        self._record = record
        self._items = items
        self._store = IdentityStore(folder.identities)
        self._scored = Equivalents(seed=record.space.seed)
        self._dropped = Equivalents(seed=record.space.seed)
        self._scores: dict[int, Mapping[str, float]] = {}
        self._ends: dict[int, Dropped] = {}

    def restore(self, trials: Sequence[FrozenTrial]) -> dict[int, Identified]:
        """Learn the trials of earlier sittings, whose keys the study has and whose models the run folder.

        They come in the order in which they ended. Returns who those are that have not.
        """
        self._store.repair()
        known = self._store.read()
        for trial in trials:
            key = trial.user_attrs.get(CANONICAL)
            if key is None or not trial.state.is_finished():
                continue
            identity = known.get(trial.number)
            identified = identity.identified if identity is not None else None
            match trial.state, trial.user_attrs.get(INHERITED):
                case TrialState.PRUNED, None:
                    self.learn_dropped(trial.number, key, identified, dropped_from(trial))
                case TrialState.PRUNED, int(origin):
                    self._dropped.add(origin, key)
                case TrialState.COMPLETE, None:
                    self.learn(trial.number, key, identified, trial.user_attrs["scores"])
                case TrialState.COMPLETE, int(origin) if trial.user_attrs[HOW] != LIKELY:
                    self._scored.add(origin, key)
        for trial in trials:  # once all origins are known, which may have a later number
            self._audit_again(trial)
        left = ((t.number, known.get(t.number)) for t in trials if not t.state.is_finished())
        return {number: each.identified for number, each in left if each and each.identified}

    def _audit_again(self, trial: FrozenTrial) -> None:
        """Count the audit of an earlier sitting, if the trial was one."""
        origin = trial.user_attrs.get(AUDITED)
        if origin is None or not is_scored(trial):
            return
        how: Hit = Same(trial=origin, how="weights")
        if trial.user_attrs[HOW] == LIKELY:
            how = Alike(trial=origin, distance=0.0)
        bequest = Bequest(hit=how, scores=self._scores[origin])
        self.audit(trial.number, bequest, trial.user_attrs["scores"])

    def identify(self, number: int, key: str, identified: Identified) -> None:
        """Record who a trial's model is."""
        self._store.add(number, Identity(key=key, identified=identified))

    def learn(
        self, number: int, key: str, identified: Identified | None, scores: Mapping[str, float]
    ) -> None:
        """Let later candidates inherit from a trial that was itself scored on all items."""
        self._scored.add(number, key, identified)
        self._scores[number] = dict(scores)

    def learn_heir(self, key: str, bequest: Bequest) -> None:
        """Know an heir's recipe for its origin's; of one that is only much like it, errors would add up."""
        if isinstance(bequest.hit, Same):
            self._scored.add(bequest.hit.trial, key)

    def learn_dropped(self, number: int, key: str, identified: Identified | None, dropped: Dropped) -> None:
        """Let later candidates that are this one, which was given up, be given up at once."""
        unlike = None if identified is None else replace(identified, basis="")  # no likeness is enough
        self._dropped.add(number, key, unlike)
        said = f"it is trial {number} again: {dropped.reason}"
        bare = replace(dropped.so_far, items=(), merge_seconds=0.0, score_seconds=0.0)
        self._ends[number] = replace(dropped, reason=said, origin=number, so_far=bare)

    def learn_dropped_again(self, key: str, dropped: Dropped) -> None:
        """Know the recipe of a candidate that was given up before for that one's."""
        assert dropped.origin is not None  # `end` gave it
        self._dropped.add(dropped.origin, key)

    def bequest(self, key: str, identified: Identified | None) -> Bequest | None:
        """Return what a candidate inherits, or would if it is as like the other as it seems."""
        hit: Hit | None = self._scored.by_recipe(key)
        if hit is None and identified is not None:
            hit = self._scored.by_model(identified)
        return None if hit is None else Bequest(hit=hit, scores=self._scores[hit.trial])

    def end(self, key: str, identified: Identified | None) -> Dropped | None:
        """Return how a candidate ends that was given up before."""
        hit: Hit | None = self._dropped.by_recipe(key)
        if hit is None and identified is not None:
            hit = self._dropped.by_model(identified)
        return None if hit is None else self._ends[hit.trial]

    def alike(self, origin: int, distance: float) -> Bequest:
        """Return what a candidate inherits if it is as like a trial as it seemed in an earlier sitting."""
        return Bequest(hit=Alike(trial=origin, distance=distance), scores=self._scores[origin])

    def agree(self, hit: Alike, so_far: Scored) -> bool | None:
        """Return whether what a candidate scored is what the other has; None while that is too little."""
        found = agreement(so_far.items, self._items.of(hit.trial, "search"))
        return found.holds if found.enough else None

    def audited(self, number: int) -> bool:
        """Return whether a candidate that could inherit is to be scored itself."""
        return self._scored.audited(number)

    def audit(self, number: int, bequest: Bequest, found: Mapping[str, float]) -> None:
        """Count whether a candidate scored what it would have inherited."""
        self._scored.audit(number, bequest.hit, bequest.scores, found)
