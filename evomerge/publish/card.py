"""The model card: what was merged, how, how well it scored, and how to get it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evomerge.archive.folder import trial_at
from evomerge.controller.closing_report import Gain
from evomerge.others_words import block, code, markdown, plain
from evomerge.publish.metadata import front_matter, results_of
from evomerge.publish.origin import Origin, on_hub, sources
from evomerge.publish.source_cards import About
from evomerge.recipe import ModelRef, Recipe, Slot, to_yaml
from evomerge.types import Measure

MERGEKIT_FILE = "recipe.mergekit.yaml"
"""The recipe in mergekit's words, where it has words for it."""

_USED = {"search": "searched", "select": "selected on", "report": "reported"}
_NONE: Mapping[str, Origin] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Found:
    """How a run found the recipe: scores by label, on the items searched and on those reported.

    `gains` are what it gained on the latter, if it was chosen, and `own` is its label there, None if it has
    no scores on them; of `held_out` measures there are reported scores only. `verified` says whether the
    written checkpoint is held to its score on the searched items.
    """

    run: str
    trial: int
    measures: tuple[Measure, ...]
    search: Mapping[str, float]
    reported: Sequence[tuple[str, Mapping[str, float]]]
    item_counts: Mapping[str, Mapping[str, int]]
    provenance: Mapping[str, Any]
    verified: bool
    held_out: tuple[Measure, ...] = ()
    gains: Sequence[Gain] = ()
    own: str | None = None
    few_shot: int | None = None

    @property
    def results(self) -> list[dict[str, Any]]:
        """Its own scores on report items, as a model index has them."""
        own = next((scores for label, scores in self.reported if label == self.own), {})
        return results_of((*self.measures, *self.held_out), own, self.item_counts, self.few_shot)


def model_card(
    recipe: Recipe,
    found: Found | None = None,
    *,
    origins: Mapping[str, Origin] = _NONE,
    about: About | None = None,
    name: str = "merged-model",
    mergekit: bool = False,
) -> str:
    """Return a Markdown card with the hub's metadata; `found` adds scores and provenance.

    `origins` tell of models that were made of others, which then count as its base models. A source
    `owner/name` counts as a hub id, so folders must be given by absolute paths. `about` is what the sources'
    own cards say; `name` is the model's, and `mergekit` says that its recipe for mergekit lies beside it.
    """
    made_of = "\n".join(_made_of(recipe, origins))
    of_hub = [source for source in dict.fromkeys(sources(recipe, origins)) if on_hub(source)]
    metadata = front_matter(of_hub, about, found.results if found else [], name)
    sections = [metadata, "# Merged model\n", f"Made with evomerge {made_of}\n"]
    if found is not None:
        sections += [_scores(found), *([_gains(found.gains)] if found.gains else []), _provenance(found)]
    if about is not None:
        said = " ".join(map(markdown, (*about.licence.sentences, *about.licence.doubts)))
        sections.append(f"## Licence\n\n{said}\n")
    sections += ["## Recipe\n", block(to_yaml(published(recipe)), "yaml")]
    sections += [*_recipes(origins), _again(origins, mergekit=mergekit)]
    return "\n".join(sections)


def _made_of(recipe: Recipe, origins: Mapping[str, Origin]) -> Iterator[str]:
    """Yield how the recipe makes its model, and a line for each model it is made of."""
    yield f"by {_how(recipe)} from:\n"
    for name, ref in recipe.models.items():
        role = _role(recipe, name)
        if ref.adapts is not None:
            role += f", a LoRA adapter of {ref.adapts}"
        pinned = f", content `{ref.digest}`" if ref.digest else ""
        line = f"- **{markdown(name)}** ({markdown(role)}): {code(_shown(ref.source))}{pinned}"
        if name not in origins:
            yield line
            continue
        how, *parts = _made_of(origins[name].recipe, origins[name].origins)
        yield f"{line}, itself made {how.rstrip()}"
        yield from (f"  {part}" for part in parts)


def _recipes(origins: Mapping[str, Origin], inside: str = "") -> Iterator[str]:
    """Yield the recipe of every model that was itself made, folded away."""
    for name, origin in origins.items():
        yield f"<details>\n<summary>Recipe of {escape(plain(f'{name}{inside}'), quote=False)}</summary>\n"
        yield f"{block(to_yaml(published(origin.recipe)), 'yaml')}\n</details>\n"
        yield from _recipes(origin.origins, f" in the recipe of {name}{inside}")


def _role(recipe: Recipe, name: str) -> str:
    """Return what a model is to the merges and the path."""
    if name in [merge.base for merge in recipe.merges.values()]:
        return "base"
    if name in recipe.parts or any(name in merge.sources for merge in recipe.merges.values()):
        return "source"
    return "template" if name == recipe.form_from else "adapted"


def _how(recipe: Recipe) -> str:
    methods = " and ".join(f"`{method}`" for method in recipe.methods)
    if recipe.path is None:
        return methods
    after = f" after merging by {methods}" if methods else ""
    return f"stacking {len(recipe.path)} layers ({markdown(', '.join(_runs(recipe.path)))}){after}"


def _runs(path: Sequence[Slot]) -> Iterator[str]:
    """Yield the runs of layers that follow one another in one model, bottom to top."""
    starts = [i for i, slot in enumerate(path) if i == 0 or not _goes_on(path[i - 1], slot)]
    for start, stop in pairwise([*starts, len(path)]):
        first, last = path[start], path[stop - 1]
        yield f"{first.model} {first.layer}" + (f"–{last.layer}" if last.layer > first.layer else "")


def _goes_on(slot: Slot, following: Slot) -> bool:
    return (following.model, following.layer) == (slot.model, slot.layer + 1)


def _scores(found: Found) -> str:
    names = [measure.name for measure in found.measures]
    asked = (*found.measures, *found.held_out)
    counts = ", ".join(
        f"{task}: {', '.join(f'{count} {_USED[part]}' for part, count in splits.items() if count)}"
        for task, splits in found.item_counts.items()
    )
    lines = [
        "## Scores\n",
        f"On items that neither searched nor chose it (items per task: {markdown(counts)}).\n",
        f"| model | {' | '.join(map(_headed, asked))} |",
        f"|---|{'---|' * len(asked)}",
        *_table_rows(found.reported, [measure.name for measure in asked]),
    ]
    if found.held_out:
        held_out = ", ".join(measure.name for measure in found.held_out)
        lines.append(f"\nThe search never looked at: {markdown(held_out)}.")
    own = markdown(", ".join(f"{name} {found.search[name]:.4f}" for name in names))
    again = "was scored again on them, with the same result" if found.verified else "was not scored again"
    lines.append(
        f"\nOn the searched items, which flatter it, this model scored {own}; this checkpoint {again}.\n"
    )
    return "\n".join(lines)


def _table_rows(rows: Sequence[tuple[str, Mapping[str, float]]], names: list[str]) -> Iterator[str]:
    for label, scores in rows:
        yield f"| {markdown(label)} | {' | '.join(f'{scores[name]:.4f}' for name in names)} |"


def _gains(gains: Sequence[Gain]) -> str:
    """Return a table of what was gained over the toughest rivals, with intervals where there are any."""
    return "\n".join(
        [
            "## Gains\n",
            "Over the best parent and the best baseline, paired on the same held-out items.\n",
            "| measure | over | gain | 95 % interval | items | verdict |",
            "|---|---|---|---|---|---|",
            *(_gain_row(gain) for gain in gains),
            "",
        ]
    )


def _gain_row(gain: Gain) -> str:
    over = f"{gain.over} (best {' and best '.join(gain.as_best)})"
    none = gain.low is None or gain.high is None
    interval = "none" if none else f"{gain.low:+.4f} to {gain.high:+.4f}"
    cells = (gain.measure, over, f"{gain.gain:+.4f}", interval, str(gain.items), gain.verdict)
    return f"| {' | '.join(map(markdown, cells))} |"


def _headed(measure: Measure) -> str:
    return markdown(f"{measure.name} ({measure.metric} {measure.arrow})")


def _provenance(found: Found) -> str:
    versions = {name: v for name, v in found.provenance["versions"].items() if v}
    return "\n".join(
        [
            "## Provenance\n",
            f"- run {code(found.run)}, trial {found.trial}, started {found.provenance.get('started')}",
            f"- evomerge commit {found.provenance.get('commit') or 'not recorded'}",
            f"- {', '.join(f'{name} {version}' for name, version in versions.items())}",
            "",
        ]
    )


def _again(origins: Mapping[str, Origin], *, mergekit: bool) -> str:
    before = "".join(
        f" First make {code(name)} by its own recipe, above, and give it as "
        f"{code(f'--source {name}=FOLDER')}."
        for name in origins
    )
    return (
        "## Make it again\n\n`evomerge export recipe.yaml TARGET` writes the same tensors: the recipe pins "
        "every parameter, the content of every source and the seed of every random mask. Sources that are "
        "neither on the hub nor in the zoo are given as `--source NAME=FOLDER`."
        f"{before}{_by_mergekit() if mergekit else ''}\n"
    )


def _by_mergekit() -> str:
    return (
        f"\n\n`{MERGEKIT_FILE}` says the same to mergekit, in its own words; its numbers differ where it "
        "rounds or draws masks otherwise, so only the recipe of evomerge makes this very model."
    )


def published(recipe: Recipe) -> Recipe:
    """Return the recipe without this machine's paths; digests still say which weights."""
    models = {name: _published(ref) for name, ref in recipe.models.items()}
    return replace(recipe, models=models)


def _published(ref: ModelRef) -> ModelRef:
    measured = {kind: _shown(path) for kind, (path, _) in ref.measured.items()}
    return replace(ref, source=_shown(ref.source), **measured)


def _shown(source: str) -> str:
    """Return a source as others may read it: a local folder by its last name, a trial with its run's."""
    if source.startswith("/") and trial_at(Path(source)) is not None:
        return "/".join(Path(source).parts[-3:])
    return source.rstrip("/").rpartition("/")[2] if source.startswith(("/", ".", "~")) else source
