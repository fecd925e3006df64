"""mergekit's models as those of a recipe, each under a short name of its own."""

from __future__ import annotations

from collections.abc import Collection

from evomerge.mergekit.form import Reference
from evomerge.recipe import ModelRef


class Names:
    """Gives models their names, in the order in which they are asked for; `taken` are others' names."""

    def __init__(self, taken: Collection[str]) -> None:
        self.models: dict[str, ModelRef] = {}
        self._taken = taken
        self._given: dict[Reference, str] = {}

    def of(self, reference: Reference) -> str:
        """Return the name of a model of the recipe, which has it from now on."""
        if reference not in self._given:
            ref = self._ref(reference)
            name = self._free(ref.source)
            self._given[reference] = name
            self.models[name] = ref
        return self._given[reference]

    def _ref(self, reference: Reference) -> ModelRef:
        if reference.lora is None:
            return ModelRef(source=reference.path, revision=reference.revision)
        under = self.of(Reference(path=reference.path, revision=reference.revision))
        return ModelRef(source=reference.lora, revision=reference.lora_revision, adapts=under)

    def _free(self, source: str) -> str:
        """Return the last part of a source's place, or as much of it as tells it from the others."""
        parts = [part for part in source.replace(":", "/").split("/") if part not in ("", ".", "..", "~")]
        used = {*self.models, *self._taken}
        for count in range(1, len(parts) + 1):
            if (name := "-".join(parts[-count:])) not in used:
                return name
        name, number = "-".join(parts) or "model", 2
        while (numbered := f"{name}-{number}") in used:
            number += 1
        return numbered
