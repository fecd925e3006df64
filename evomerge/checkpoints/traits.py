"""What source models are like, side by side: what must agree for a merge, and what had better agree.

Whether they can be merged at all is said by `compatible.py`. Here stands what people look at first, and
what a merge takes from one of them only: the chat template, the special tokens, the positions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.checkpoints.compatible import has_tokenizer, language_part, rope, vocabulary
from evomerge.checkpoints.folder import Checkpoint, read_json
from evomerge.checkpoints.licences import read_licence
from evomerge.errors import CheckpointError
from evomerge.reading import read_text

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
_LARGEST_TEMPLATE = 1 << 20
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


@dataclass(frozen=True, kw_only=True)
class Trait:
    """Something to know of every model, by name; `note` says what follows where they differ."""

    what: str
    values: Mapping[str, str]
    note: str = ""

    @property
    def differs(self) -> bool:
        """Whether the models are not all alike in it."""
        return len(set(self.values.values())) > 1


def traits(models: Mapping[str, Checkpoint], *, form: str, by_token: bool = False) -> tuple[Trait, ...]:
    """Return the traits of models that can be merged; the merge takes its form from the model `form`.

    With `by_token` tokens are matched by their strings, so that vocabularies may differ.
    """
    parts = {name: language_part(model) for name, model in models.items()}
    asked: tuple[tuple[str, Callable[[Checkpoint], str]], ...] = (
        ("architecture", lambda model: str(model.structure.model_type)),
        ("layers", lambda model: str(model.structure.layers)),
        ("parameters", _parameters),
        ("stored as", _stored),
        ("tokens", _tokens),
        ("embedding rows", _rows),
        ("special tokens", _special),
        ("chat template", chat_template),
        ("positions", _positions),
    )
    found = {what: {name: read(part) for name, part in parts.items()} for what, read in asked}
    stated = {name: read_licence(model.path) for name, model in models.items()}
    licences = {name: each.shown if each else "none stated" for name, each in stated.items()}
    notes = {
        "chat template": _template_note(found["chat template"], form),
        "special tokens": _special_note(found["special tokens"], form, by_token=by_token),
    }
    return (
        *(Trait(what=what, values=values, note=notes.get(what, "")) for what, values in found.items()),
        Trait(what="licence", values=licences),
    )


def chat_template(model: Checkpoint) -> str:
    """Return `none`, or how long a model's chat template is and what tells it from others."""
    text = _template(model)
    if not text:
        return "none"
    return f"{len(text)} characters, {hashlib.blake2b(text.encode(), digest_size=2).hexdigest()}"


def _template(model: Checkpoint) -> str:
    """Return a model's chat template as the tokenizer has it; of several by name, all of them."""
    file = model.home / "chat_template.jinja"
    try:
        if file.is_file():
            return read_text(file, most=_LARGEST_TEMPLATE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read as text: {error}") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        stated = _settings(model, name).get("chat_template")
        if stated:
            return str(stated)
    return ""


def _settings(model: Checkpoint, name: str) -> Mapping[str, Any]:
    file = model.home / name
    found: Any = read_json(file) if file.is_file() else {}
    return found if isinstance(found, Mapping) else {}


def _parameters(model: Checkpoint) -> str:
    count = sum(math.prod(spec.shape) for spec in model.specs.values() if spec.is_float)
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.2f} million"


def _stored(model: Checkpoint) -> str:
    if (made := model.adaptation) is not None:
        return f"an adapter of {len(made.adapter.specs)} tensors"
    codes = dict.fromkeys(spec.dtype for spec in model.specs.values() if spec.is_float)
    return ", ".join(_DTYPES.get(code, code) for code in codes)


def _tokens(model: Checkpoint) -> str:
    if not has_tokenizer(model.home):
        return "no tokenizer"
    table = vocabulary(model.home)
    if any(isinstance(each, bytes) for each in table.values()):
        (content,) = table.values()
        return f"{len(content)} bytes, {hashlib.blake2b(content, digest_size=2).hexdigest()}"
    return str(len(table))


def _rows(model: Checkpoint) -> str:
    shape = model.specs[model.structure.embedding].shape
    head = "tied to the head" if model.structure.tied else "a head of its own"
    return f"{shape[0]}, {head}"


def _special(model: Checkpoint) -> str:
    """Return the special tokens by what they are for, as tokenizer_config.json or its map names them."""
    said = {**_settings(model, "special_tokens_map.json"), **_settings(model, "tokenizer_config.json")}
    named = {key.removesuffix("_token"): _content(said.get(key)) for key in _SPECIAL}
    return ", ".join(f"{key} {token}" for key, token in named.items() if token) or "none"


def _content(token: object) -> str:
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _positions(model: Checkpoint) -> str:
    """Return how positions are told, and for how many tokens."""
    stated = rope(model.config)
    parts = [f"theta {stated['rope_theta']:g}"] if _is_number(stated.get("rope_theta")) else []
    if kind := stated.get("rope_type"):
        factor = f" × {stated['factor']:g}" if _is_number(stated.get("factor")) else ""
        parts.append(f"{kind}{factor}")
    length = model.config.get("max_position_embeddings")
    parts += [f"{length} tokens"] if _is_number(length) else []
    return ", ".join(parts) or "not stated"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _template_note(found: Mapping[str, str], form: str) -> str:
    """Return what becomes of chat templates that differ: a merge has that of one model, or none."""
    others = [name for name, said in found.items() if said != found[form]]
    if not others:
        return ""
    if found[form] == "none":
        return (
            f"{_listed(others)} {'has' if len(others) == 1 else 'have'} a chat template and `{form}` has "
            f"none, so the merged model has none; name the model whose template it shall have as "
            f"`merge.template`, or copy that file into the folder of `{form}`"
        )
    return (
        f"the chat template of {_listed(others)} is not that of `{form}`, which the merged model has; if "
        "that is not the one to use, name another model as `merge.template`"
    )


def _special_note(found: Mapping[str, str], form: str, *, by_token: bool) -> str:
    others = [name for name, said in found.items() if said != found[form]]
    if not others or by_token:
        return ""
    told = "; ".join(f"`{name}`: {found[name]}" for name in (form, *others))
    return (
        f"the special tokens differ ({told}), and the merged model has those of `{form}`: what others learnt "
        "to end an answer with may not end it any more"
    )


def _listed(names: list[str]) -> str:
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def form_of(models: Mapping[str, Checkpoint], *, template: str | None, base: str | None) -> str:
    """Return the model whose config, tokenizer and chat template a merge has."""
    return next(iter(_candidates(models, template, base)))


def _candidates(models: Mapping[str, Checkpoint], template: str | None, base: str | None) -> Iterator[str]:
    yield from (name for name in (template, base) if name is not None and name in models)
    yield from models
