"""`evomerge.measure`: a statistics file of a model, from prompts; the command's other half."""

from __future__ import annotations

import math
import os
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import torch
import transformers
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from evomerge.checkpoints.digest import digest
from evomerge.checkpoints.finite import check_finite
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.influence import INFLUENCE
from evomerge.checkpoints.locate import locate
from evomerge.checkpoints.measured import Origin
from evomerge.errors import CheckpointError, EvaluationError, RequestError, unknown
from evomerge.evaluate.evaluator import device_named
from evomerge.evaluate.fisher import measure_fisher
from evomerge.evaluate.gram import chunks, in_features, linear_layers, measure_grams, shared_inputs
from evomerge.evaluate.layers import measure_influence
from evomerge.merge.disk import write_file
from evomerge.merge.loadable import check_loadable
from evomerge.merge.memory import auto_class
from evomerge.reading import parse_json, read_text
from evomerge.seeds import derive
from evomerge.types import Measurable

SAMPLES = 256
LONGEST = 2048
"""Tokens of a prompt beyond this, or beyond what the model can see, are cut off."""

_MOST_BYTES = 1 << 30  # of prompts
_CHUNK_BYTES = 2 << 30  # of Gram matrices held at a time; more take another pass over the prompts


def measure(
    statistic: Measurable,
    model: str | Path,
    prompts: str | Path | Sequence[str],
    target: str | Path,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    skip_first: bool = False,
    begun: Callable[[int, int], None] | None = None,
) -> Path:
    """Measure the `statistic` of a model on prompts, write it to the file `target` and return its path.

    `model` is a folder, a hub id or `zoo:NAME`; `prompts` are texts, or a file of them, one a line, or of
    JSON lines with a field `text`. Of more than `samples` prompts so many are drawn with the `seed`, which
    also draws the labels of a Fisher. With `skip_first` an influence leaves out each prompt's first token,
    whose hidden state dwarfs the others'. `begun` is told how many prompts and tokens it will be.

    Raises `RequestError` if a prompt, the model or the target will not do, `EvaluationError` if the
    model gives no finite numbers.
    """
    target = Path(target).absolute()
    _check_request(statistic, target, samples, skip_first=skip_first)
    texts = _drawn(_texts(prompts), samples, seed)
    checkpoint = open_checkpoint(locate(str(model)))
    check_loadable(str(model), checkpoint)
    check_finite({str(model): checkpoint})
    subject = _subject(checkpoint, texts, statistic, skip_first=skip_first)
    tokens = sum(len(each) for each in subject.sequences)
    count = len(subject.sequences)
    origin = Origin(
        kind=statistic,
        model=digest(checkpoint),
        samples=count,
        tokens=tokens,
        seed=seed,
        skip_first=skip_first,
    )
    if begun is not None:
        begun(count, tokens)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.partial-", dir=target.parent) as beside:
        written = Path(beside) / target.name
        _WRITERS[statistic](subject, origin, written)
        written.replace(target)
    return target


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A live model, the token ids of each prompt, and the checkpoint's name of each of its parameters.

    An influence needs no names: mixtures of experts, which have none, can be measured too.
    """

    model: Any
    sequences: tuple[Tensor, ...]
    names: Mapping[str, str]


def _write_fisher(subject: _Subject, origin: Origin, path: Path) -> None:
    found = measure_fisher(subject.model, subject.sequences, seed=origin.seed)
    stored = {subject.names[name]: value for name, value in found.items()}
    for name, value in stored.items():
        if not bool(value.isfinite().all()):
            raise EvaluationError(f"the gradients of `{name}` are not finite on these prompts")
    specs = {name: _spec(*value.shape) for name, value in stored.items()}
    write_file(path, specs, stored.__getitem__, origin.metadata())


def _write_grams(subject: _Subject, origin: Origin, path: Path) -> None:
    """Write each Gram matrix once, holding some at a time."""
    layers = linear_layers(subject.model)
    first = shared_inputs(subject.model, subject.sequences[0])
    weights = {name: subject.names[f"{name}.weight"] for name in first}
    specs = {name: _spec(*[in_features(layers[name])] * 2) for name in dict.fromkeys(first.values())}
    runs = chunks({name: spec.nbytes for name, spec in specs.items()}, _CHUNK_BYTES)
    run_of = {name: run for run in runs for name in run}
    held: dict[str, Tensor] = {}  # of one run, empty when the next begins: each is made once, in order

    def make(name: str) -> Tensor:
        if not held:
            held.update(measure_grams(subject.model, subject.sequences, run_of[name]))
        return held.pop(name)

    origin = replace(
        origin,
        inputs_first=tuple(weights[name] for name in first if isinstance(layers[name], Conv1D)),
        same_as={weights[name]: weights[leader] for name, leader in first.items() if leader != name},
    )
    by_weight = {weights[name]: name for name in specs}
    stored = {weight: specs[name] for weight, name in by_weight.items()}
    write_file(path, stored, lambda weight: make(by_weight[weight]), origin.metadata())


def _write_influence(subject: _Subject, origin: Origin, path: Path) -> None:
    found = measure_influence(subject.model, subject.sequences, skip_first=origin.skip_first)
    for layer, influence in enumerate(found.tolist()):
        if not math.isfinite(influence):
            raise EvaluationError(f"the hidden states of layer {layer} are not finite on these prompts")
    write_file(path, {INFLUENCE: _spec(*found.shape)}, lambda _: found, origin.metadata())


_WRITERS: Mapping[Measurable, Callable[[_Subject, Origin, Path], None]] = MappingProxyType(
    {"fisher": _write_fisher, "gram": _write_grams, "influence": _write_influence}
)


def _spec(*shape: int) -> TensorSpec:
    return TensorSpec(dtype="F32", shape=shape)


def _check_request(statistic: str, target: Path, samples: int, *, skip_first: bool) -> None:
    if statistic not in get_args(Measurable):
        raise RequestError(unknown("statistic", statistic, get_args(Measurable)))
    if skip_first and statistic != "influence":
        raise RequestError(
            f"only an influence can leave out first tokens: measure the {statistic} without `skip_first`"
        )
    if samples < 1:
        raise RequestError(f"a statistic needs at least one prompt, found `samples` {samples}")
    if target.exists():
        raise RequestError(f"{target} exists; choose another file, or delete it first")
    if not target.parent.is_dir():
        raise RequestError(f"{target.parent} does not exist; make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise RequestError(f"{target} cannot be written: {target.parent} is not writable")


def _texts(prompts: str | Path | Sequence[str]) -> list[str]:
    """Return the prompts, blank ones left out. Raises `RequestError` if there are none."""
    if not isinstance(prompts, str | Path):
        return _some([text for text in prompts if text.strip()], "`prompts`")
    path = Path(prompts)
    if not path.is_file():
        raise RequestError(f"no file of prompts at {path}")
    try:
        lines = [line for line in read_text(path, most=_MOST_BYTES).split("\n") if line.strip()]
    except OSError as error:
        raise RequestError(f"the prompts in {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"the prompts in {path} cannot be read as text: {error}") from error
    if path.suffix == ".jsonl":
        lines = [_text_of(line, path, number) for number, line in enumerate(lines, start=1)]
    return _some([line for line in lines if line.strip()], str(path))


def _text_of(line: str, path: Path, number: int) -> str:
    try:
        text = parse_json(line)["text"]
    except (ValueError, LookupError, TypeError) as error:
        raise RequestError(f"prompt {number} of {path} is no JSON object with a field `text`") from error
    if not isinstance(text, str):
        raise RequestError(f"prompt {number} of {path} has a `text` that is no text: {text!r}")
    return text


def _some(texts: list[str], where: str) -> list[str]:
    if not texts:
        raise RequestError(f"{where} holds no prompt; give at least one that is not blank")
    return texts


def _drawn(texts: list[str], samples: int, seed: int) -> list[str]:
    """Return the prompts, or `samples` of them drawn with the seed, in their order."""
    if len(texts) <= samples:
        return texts
    chosen = random.Random(derive(seed, "prompts")).sample(range(len(texts)), samples)  # noqa: S311
    return [texts[i] for i in sorted(chosen)]


def _subject(
    checkpoint: Checkpoint, texts: Sequence[str], statistic: Measurable, *, skip_first: bool
) -> _Subject:
    device = device_named("auto")
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        checkpoint.path, local_files_only=True, trust_remote_code=False
    )
    try:
        model: Any = auto_class(checkpoint.config).from_pretrained(
            checkpoint.path, dtype="auto", local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, LookupError, RuntimeError) as error:  # an index without metadata, say
        raise CheckpointError(
            f"transformers cannot load the model in {checkpoint.path} ({type(error).__name__}: {error}); "
            "save it again with `save_pretrained`"
        ) from error
    if model.dtype == torch.float16:
        model.float()  # whose range the squares of small gradients would leave
    model.to(device).eval()
    seen = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = min(LONGEST, seen or LONGEST)
    encoded = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
    sequences = tuple(torch.tensor(ids, device=device) for ids in encoded if len(ids) > skip_first)
    if not sequences:
        rest = " beyond the first, which `skip_first` leaves out" if skip_first else ""
        raise RequestError(f"the model's tokenizer finds no token in these prompts{rest}")
    if statistic == "influence":
        _check_layers(model, checkpoint)
        return _Subject(model=model, sequences=sequences, names={})
    return _Subject(model=model, sequences=sequences, names=_stored_names(model, checkpoint))


def _check_layers(model: Any, checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` if transformers runs other layers than a merge will find."""
    live, stored = model.config.get_text_config().num_hidden_layers, checkpoint.structure.layers
    if live != stored:
        raise CheckpointError(
            f"{checkpoint.path} stores {stored} layers, but by its config.json {live} of them run; "
            "no influence can be measured on the others"
        )


def _stored_names(model: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """Return the checkpoint's name of each parameter; some leave out the prefix of the inner model.

    Raises `CheckpointError` for a parameter that transformers puts together from several tensors.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names = {}
    for name, parameter in model.named_parameters():
        stored = name if name in checkpoint.specs else name.removeprefix(prefix)
        if stored not in checkpoint.specs or checkpoint.specs[stored].shape != parameter.shape:
            raise CheckpointError(
                f"`{name}` of the live model is not stored so in {checkpoint.path}, as in mixtures of "
                "experts and most models that see; only an `influence` can be measured on such models yet"
            )
        names[name] = stored
    return names
