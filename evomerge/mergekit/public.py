"""`evomerge.convert`: a file of mergekit's in our form and the reverse, with what its models tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evomerge.checkpoints.architecture import Architecture, is_norm, read_architecture
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.locate import locate
from evomerge.errors import CheckpointError, ConversionError
from evomerge.mergekit.convert import Around, Converted, Form, convert_text
from evomerge.mergekit.regions import LLAMA, Fragments
from evomerge.reading import read_text
from evomerge.recipe import ModelRef, Recipe
from evomerge.recipe.text import LARGEST


def convert(path: str | Path, *, to: Form | None = None) -> Converted:
    """Return the file at `path` as a recipe, as mergekit's YAML or as a space, whichever it is not.

    Models that lie on this machine are looked at for the number of their layers and the names of their
    tensors; nothing is downloaded. Raises `ConversionError` with a line for each key that cannot be
    converted, `RequestError` if the file is none of these.
    """
    path = Path(path)
    try:
        text = read_text(path, most=LARGEST)
    except FileNotFoundError as error:
        raise ConversionError(f"no file at {path}") from error
    except UnicodeDecodeError as error:
        raise ConversionError(f"{path} is no YAML: it is not UTF-8 text") from error
    except OSError as error:
        raise ConversionError(f"{path} cannot be read: {error.strerror}") from error
    looked = _Looked(path.absolute().parent)
    around = Around(
        layers_of=looked.layers_of,
        fragments_of=looked.fragments_of,
        depth_of=looked.depth_of,
        adapted=looked.adapted,
    )
    return convert_text(text, str(path), to=to, around=around)


def fragments_in(names: list[str], structure: Architecture) -> Fragments:
    """Return the parts of names that tell the module groups of a model apart; whole names outside layers."""
    inside: dict[str, list[str]] = {"attn": [], "mlp": []}
    outside: dict[str, list[str]] = {"embed": [], "head": []}
    for name in names:
        layer, module = structure.place(name)
        if layer is None and module in outside:
            outside[module].append(name)
        elif module in inside:
            part = name[len(structure.prefix) + 1 :].split(".")[1]
            inside[module] += [f".{part}."] if f".{part}." not in inside[module] else []
    return Fragments(
        attn=tuple(inside["attn"]),
        mlp=tuple(inside["mlp"]),
        embed=tuple(outside["embed"]),
        head=tuple(sorted(outside["head"], key=lambda name: not is_norm(name))),
    )


class _Looked:
    """Looks at models that lie on this machine, from the folder of a file."""

    def __init__(self, near: Path) -> None:
        self._near = near

    def layers_of(self, model: ModelRef) -> int | None:
        """Return how many layers a model has, None if it is not here or no whole model."""
        found = self._structure(model)
        return found[1].layers if found else None

    def depth_of(self, recipe: Recipe) -> int | None:
        """Return how many layers the recipe's models have."""
        return self.layers_of(recipe.models[recipe.form_from])

    def fragments_of(self, recipe: Recipe) -> Fragments:
        """Return what tells the module groups of the recipe's models apart by name."""
        found = self._structure(recipe.models[recipe.form_from])
        return fragments_in(*found) if found else LLAMA

    def adapted(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the base for each adapter that does not say what it adapts."""
        models = {
            name: replace(ref, adapts=recipe.base_of(name))
            if ref.adapts is None and (self._near / ref.source / "adapter_config.json").is_file()
            else ref
            for name, ref in recipe.models.items()
        }
        return replace(recipe, models=models)

    def _structure(self, model: ModelRef) -> tuple[list[str], Architecture] | None:
        if not (model.source.startswith("zoo:") or (self._near / model.source).expanduser().is_dir()):
            return None
        try:
            checkpoint = open_checkpoint(locate(model.source, near=self._near))
            return list(checkpoint.specs), read_architecture(checkpoint.specs, checkpoint.config)
        except CheckpointError:
            return None
