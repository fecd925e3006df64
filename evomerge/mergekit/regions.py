"""A merge's parameters by region: runs of layers between which they may change, and what lies around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.mergekit.findings import Findings
from evomerge.mergekit.gradients import bends, first_of, outside, sampled
from evomerge.recipe import Group, Merge
from evomerge.recipe.layered import relative_depth
from evomerge.recipe.merge import IN_LAYERS, Setting
from evomerge.space.document import KeyPath

Region = Mapping[str, Setting]
"""The parameters of one module group in one run of layers."""


@dataclass(frozen=True, kw_only=True)
class Fragments:
    """For each module group parts of names that its tensors have and no other's in the same place."""

    attn: tuple[str, ...]
    mlp: tuple[str, ...]
    embed: tuple[str, ...]
    head: tuple[str, ...]

    def of(self, module: str) -> tuple[str, ...]:
        """Return the parts of names of a module group."""
        return {"attn": self.attn, "mlp": self.mlp, "embed": self.embed, "head": self.head}[module]


LLAMA = Fragments(
    attn=("self_attn",), mlp=(".mlp.",), embed=("embed_tokens",), head=("lm_head", "model.norm.")
)
"""What tensors are called in Llama, Mistral, Qwen, Gemma and most others."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Layers `first` to `last` with their parameters by module group, those outside the layers included."""

    first: int
    last: int
    regions: Mapping[str, Region]


def runs_of(
    merge: Merge,
    layers: int | None,
    at: KeyPath,
    findings: Findings,
    *,
    between: tuple[int, int] | None = None,
) -> list[Run] | None:
    """Return the runs of layers (of those `between`, if given) in which the merge's parameters hold still.

    One run where no group names layers. `layers` is how many there are, None if nobody knows; then the last
    layer that a group names counts as the last. None where more must be known, which `findings` then tell.
    """
    named = [group.layers for group in merge.groups if group.layers is not None]
    whole = layers if layers is not None else max((last for _, last in named), default=-1) + 1
    if not named and between is None:
        return [Run(first=0, last=-1, regions=_regions(merge, 0, -1, 1))]
    first, last = between or (0, whole - 1)
    if layers is None and _reaches_out(merge, first, last):
        findings.wrong(
            None,
            (*at, "params"),
            "changes along all layers, and how many these are is not known here; convert it where the "
            "models are",
        )
        return None
    inside = [span for span in named if span[0] <= last and first <= span[1]]
    starts = sorted({first, *(each for a, b in inside for each in (a, b + 1) if first < each <= last)})
    ends = [*(start - 1 for start in starts[1:]), last]
    return [
        Run(first=a, last=b, regions=_regions(merge, a, b, whole)) for a, b in zip(starts, ends, strict=True)
    ]


def _reaches_out(merge: Merge, first: int, last: int) -> bool:
    """Return whether parameters in some of these layers are anchors that stretch over the whole model."""
    bounded = [group for group in merge.groups if group.layers is not None]
    for layer in range(first, last + 1):
        for module in IN_LAYERS:
            group = next((each for each in merge.groups if each.covers(layer, module)), None)
            own = group.params if group else {}
            open_ended = group is not None and group not in bounded and any(map(_bent, own.values()))
            if open_ended or any(_bent(each) for name, each in merge.params.items() if name not in own):
                return True
    return False


def _bent(setting: Setting) -> bool:
    return any(map(bends, setting.values())) if isinstance(setting, Mapping) else bends(setting)


def _regions(merge: Merge, first: int, last: int, whole: int) -> dict[str, Region]:
    """Return the parameters of each module group in a run; `last` −1 is that of a model of any depth."""
    found: dict[str, Region] = {}
    for module in IN_LAYERS:
        group = next((each for each in merge.groups if each.covers(first, module)), None)
        span = group.layers if group and group.layers else (0, whole - 1)
        params = {name: _in_run(each, first, last, (0, whole - 1)) for name, each in merge.params.items()}
        own = {
            name: _in_run(each, first, last, span) for name, each in (group.params if group else {}).items()
        }
        found[module] = params | own
    for module in ("embed", "head"):
        outer: Group | None = next((each for each in merge.groups if each.covers(None, module)), None)
        settings = {**merge.params, **(outer.params if outer else {})}
        found[module] = {name: _before(each) for name, each in settings.items()}
    return found


def _in_run(setting: Setting, first: int, last: int, span: tuple[int, int]) -> Setting:
    """Return `setting`, whose anchors stretch over `span`, with anchors that stretch over the run."""
    if last < 0 or (first, last) == span:
        return setting
    depths = [relative_depth(layer, *span) for layer in range(first, last + 1)]
    if isinstance(setting, Mapping):
        return {source: sampled(each, depths) for source, each in setting.items()}
    return sampled(setting, depths)


def _before(setting: Setting) -> Setting:
    """Return what a setting says outside the layers: in a recipe, its first anchor."""
    if isinstance(setting, Mapping):
        return {source: outside(first_of(each)) for source, each in setting.items()}
    return outside(first_of(setting))
