"""What a merge must have before it can be carried out; `one_merge.py` asks as it plans."""

from __future__ import annotations

from collections.abc import Container, Mapping

from evomerge import plugins
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.measured import Measured
from evomerge.errors import RecipeError
from evomerge.merge.method import statistic_of, taken
from evomerge.merge.plan import Operand, Output, survey_key
from evomerge.recipe import Merge


def check_sources(merge: Merge) -> None:
    """Raise `RecipeError` if the method cannot merge so many sources, or lacks a base."""
    kind = plugins.load("methods", merge.method)
    if allowed := taken(kind, len(merge.sources)):
        besides = " besides the base" if kind.base == "needed" else ""
        raise RecipeError(
            f"`{merge.method}` takes {allowed} source(s){besides}, found {len(merge.sources)} "
            f"({', '.join(merge.sources)})"
        )
    if kind.base == "needed" and merge.base is None:
        raise RecipeError(f"`{merge.method}` needs a base model; add `base: NAME`")


def check_measured(merge: Merge, used: Mapping[str, Checkpoint], merges: Container[str]) -> None:
    """Raise `RecipeError` if a source, which may be one of `merges`, lacks what the method merges by."""
    kind = statistic_of(plugins.load("methods", merge.method))
    for source in merge.sources if kind else ():
        if kind in used[source].statistics:
            continue
        advice = f"make its file with `evomerge measure {kind}` and name it as `{kind}: FILE` where it stands"
        if source in merges:
            advice = "nothing is measured on a merge, so export it, measure it and take that instead"
        elif used[source].adaptation is not None:
            advice = "nothing is measured on a LoRA adapter, so export it over its base and take that instead"
        raise RecipeError(
            f"`{merge.method}` merges by the {kind} of each source, and `{source}` has none; {advice}"
        )


def check_fits(measured: Measured, stored: str, operand: Operand, shape: tuple[int, ...]) -> None:
    """Raise `RecipeError` if the statistic of a weight of this `shape` has another shape than it must."""
    origin, found = measured.origin, measured.specs[stored].shape
    want = shape
    if origin.kind == "gram":
        inputs = shape[0 if operand.tensor in origin.inputs_first else -1]
        want = (inputs, inputs)
    if found != want:
        raise RecipeError(
            f"{measured.path} does not fit `{operand.model}`: its {origin.kind} of `{operand.tensor}` is "
            f"{list(found)}, not {list(want)}; measure it again"
        )


def check_groups(merge: Merge, layers: int) -> None:
    """Raise `RecipeError` if a group covers layers beyond the last."""
    for group in merge.groups:
        if group.layers is not None and group.layers[1] >= layers:
            raise RecipeError(
                f"a group covers layers {list(group.layers)}, but the model's last layer is {layers - 1}"
            )


def check_filters(merge: Merge, tensors: list[str]) -> None:
    """Raise `RecipeError` for a filter that no tensor fits: its name is misspelt."""
    for entry in merge.filters:
        if not any(map(entry.matches, tensors)):
            raise RecipeError(f"`filter: {entry.filter}`: no tensor of the merged model has that in its name")


def check_surveys(merge: Merge, outputs: tuple[Output, ...]) -> None:
    """Raise `RecipeError` if tensors that are looked at together ask for different looks."""
    keys = {survey_key(output.operation) for output in outputs} - {None}
    if len(keys) > 1:
        raise RecipeError(
            f"`{merge.method}` looks at the whole model here, so it needs the same parameters (weights "
            "aside) in all groups and layers; fix them at one value each, or use `scope: tensor` where "
            "there is one"
        )
