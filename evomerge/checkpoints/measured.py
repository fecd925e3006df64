"""Statistics files: what was measured on a model, beside the model, opened by their headers alone.

A safetensors file of float32 tensors; the header's metadata says what they are and of which model.
Weights that see the same inputs (queries, keys and values; gate and up) share one stored Gram matrix.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evomerge.checkpoints.headers import TensorSpec, read_header, read_metadata
from evomerge.errors import CheckpointError
from evomerge.reading import parse_json
from evomerge.types import Measurable, Statistic

FORMAT = 1
"""Raised when statistics files change in a way older code cannot read."""

_KEY = "evomerge.statistics"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a statistics file holds: `kind`, measured on the model with the content digest `model`.

    `samples` prompts of `tokens` tokens in all were drawn with `seed`, and with `skip_first` the first token
    of each does not count. `inputs_first` lists the weights stored `(in, out)`; `same_as` the weights whose
    statistic is stored under another weight's name.
    """

    kind: Measurable
    model: str
    samples: int
    tokens: int
    seed: int
    skip_first: bool = False
    inputs_first: tuple[str, ...] = ()
    same_as: Mapping[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """Return what stands in the file's header."""
        return {_KEY: json.dumps({"format": FORMAT, **asdict(self)})}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A statistics file; `specs` are by stored name, in the order of the file."""

    path: Path
    origin: Origin
    specs: Mapping[str, TensorSpec]

    @property
    def files(self) -> Mapping[str, Path]:
        """The file of each tensor."""
        return dict.fromkeys(self.specs, self.path)

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The only file."""
        return (self.path,)

    def find(self, weight: str) -> str | None:
        """Return the stored tensor that was measured for `weight`, or None."""
        stored = self.origin.same_as.get(weight, weight)
        return stored if stored in self.specs else None


def statistics_name(model: str, kind: Statistic) -> str:
    """Return the name of a model's statistics among places and tensor sources; no space can use it."""
    return f"{model}:{kind}"


def open_measured(path: Path, kind: Measurable) -> Measured:
    """Return the statistics in `path`. Raises `CheckpointError` if it holds none, or none of this kind."""
    if not path.is_file():
        raise CheckpointError(f"no statistics file at {path}")
    try:
        specs, said = read_header(path), read_metadata(path)
    except OSError as error:
        raise CheckpointError(f"the statistics file {path} cannot be read: {error.strerror}") from error
    origin = _origin(path, said.get(_KEY), kind)
    if origin.kind != kind:
        raise CheckpointError(f"{path} holds the {origin.kind} of a model, not its {kind}")
    return Measured(path=path, origin=origin, specs=specs)


def check_measured_on(measured: Measured, name: str, content: Mapping[str, str]) -> None:
    """Raise `CheckpointError` if the file is not of the model `name`; `content` are the models' digests."""
    origin = measured.origin
    if origin.model == content[name]:
        return
    other = next((other for other, digest in content.items() if digest == origin.model), None)
    if other is not None:
        raise CheckpointError(
            f"the {origin.kind} in {measured.path} was measured on `{other}`, not on `{name}`; "
            "name each source's own file"
        )
    raise CheckpointError(
        f"the {origin.kind} in {measured.path} was measured on another model (content {origin.model}) "
        f"than `{name}` ({content[name]}); measure it again with `evomerge measure {origin.kind}`"
    )


def _origin(path: Path, text: str | None, kind: Measurable) -> Origin:
    if text is None:
        raise CheckpointError(
            f"{path} is no statistics file of evomerge; make one with `evomerge measure {kind}`"
        )
    try:
        content: dict[str, Any] = parse_json(text)
        found = content.pop("format")
        if found != FORMAT:
            raise CheckpointError(
                f"the statistics in {path} have format {found}, and this evomerge reads {FORMAT}; "
                "measure again"
            )
        return Origin(**{**content, "inputs_first": tuple(content["inputs_first"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"what {path} says of its statistics is damaged; measure again") from error
