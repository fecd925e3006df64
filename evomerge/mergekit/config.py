"""Reading a recipe of mergekit: every key, its kind, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.errors import unknown
from evomerge.mergekit.findings import Findings
from evomerge.mergekit.form import Config, Input, Parameters, Reference, Slice, parsed_reference
from evomerge.mergekit.known import METHODS, PASSTHROUGH
from evomerge.recipe.layered import Filtered, Layered
from evomerge.space.document import Document, KeyPath
from evomerge.types import Value

_KEYS = (
    "name", "modules", "slices", "models", "merge_method", "base_model", "dtype", "tokenizer_source",
    "tokenizer", "chat_template", "out_dtype", "parameters",
)  # fmt: skip
_SUGGEST = {
    "architecture": "evomerge reads the architecture from the checkpoint",
    "residual_weight": "evomerge has no residual weight",
}


def read_config(document: Document, findings: Findings) -> Config | None:
    """Return the document as values; None if it is too wrong to go on, which `findings` then tell."""
    return _Reader(document, findings).config()


class _Reader:
    def __init__(self, document: Document, findings: Findings) -> None:
        self._document = document
        self._findings = findings
        self._content = document.content

    def config(self) -> Config | None:
        content = self._content
        for key in content:
            if key not in _KEYS:
                self._wrong((key,), _SUGGEST.get(key, f"is unknown: {unknown('key', key, _KEYS)}"))
        if "modules" in content:
            self._wrong(
                ("modules",), "is not converted: evomerge merges the language model and copies the rest"
            )
        method = content.get("merge_method")
        if method not in METHODS and method != PASSTHROUGH:
            known = (*METHODS, PASSTHROUGH)
            self._wrong(
                ("merge_method",), f"is not converted: {unknown('method of both', str(method), known)}"
            )
        base = self._reference(("base_model",), content["base_model"]) if content.get("base_model") else None
        whole = bool(content.get("models"))
        slices = self._listed() if whole else self._slices()
        tokenizer, at = self._tokenizer()
        if not slices:
            return None
        return Config(
            document=self._document,
            name=None if content.get("name") is None else str(content["name"]),
            method=str(method),
            base=base,
            slices=slices,
            whole=whole,
            parameters=self._parameters((), content),
            dtype=self._dtype(),
            tokenizer=tokenizer,
            tokenizer_at=at,
        )

    def _wrong(self, path: KeyPath, sentence: str) -> None:
        self._findings.wrong(self._document, path, sentence)

    def _listed(self) -> tuple[Slice, ...]:
        """Return the one slice that a list of models stands for."""
        if self._content.get("slices"):
            self._wrong(("slices",), "stands beside `models`; mergekit takes one of them")
        inputs = self._inputs(("models",), self._content["models"], ranged=False)
        return (Slice(inputs=inputs, base=None, parameters={}, where=("models",)),) if inputs else ()

    def _slices(self) -> tuple[Slice, ...]:
        listed = self._content.get("slices")
        if not isinstance(listed, list) or not listed:
            if "modules" not in self._content:
                self._wrong(("slices",), "is missing: mergekit needs a list of `models` or of `slices`")
            return ()
        found = []
        for i, each in enumerate(listed):
            path: KeyPath = ("slices", i)
            table = self._table(path, each, ("sources", "base_model", "parameters"))
            if table is None:
                continue
            inputs = self._inputs((*path, "sources"), table.get("sources"), ranged=True)
            at = (*path, "base_model")
            base = self._reference(at, table["base_model"]) if table.get("base_model") else None
            if inputs:
                parameters = self._parameters(path, table)
                found.append(Slice(inputs=inputs, base=base, parameters=parameters, where=path))
        return tuple(found)

    def _inputs(self, path: KeyPath, listed: Any, *, ranged: bool) -> tuple[Input, ...]:
        if not isinstance(listed, list) or not listed:
            self._wrong(path, "must be a list of models")
            return ()
        keys = ("model", "parameters", *(("layer_range",) if ranged else ()))
        found: list[Input] = []
        for i, each in enumerate(listed):
            at: KeyPath = (*path, i)
            content = {"model": each} if isinstance(each, str) and not ranged else each
            if not ranged and isinstance(each, dict) and "layer_range" in each:
                content = {key: value for key, value in each.items() if key != "layer_range"}
                self._findings.note(
                    (*at, "layer_range"), "is not read by mergekit under `models` and left out"
                )
            table = self._table(at, content, keys)
            model = self._reference((*at, "model"), table.get("model")) if table is not None else None
            if table is None or model is None:
                continue
            if any(other.model == model for other in found):
                self._wrong((*at, "model"), f"names {model} twice; mergekit would merge it once, by the last")
                continue
            layers = self._range((*at, "layer_range"), table.get("layer_range")) if ranged else None
            if ranged and layers is None:
                continue
            own = self._parameters(at, table)
            found.append(Input(model=model, layers=layers, parameters=own, where=at))
        return tuple(found)

    def _range(self, path: KeyPath, content: Any) -> tuple[int, int] | None:
        pair = isinstance(content, list) and [type(each) for each in content] == [int, int]
        if not pair or not 0 <= content[0] < content[1]:
            self._wrong(path, f"must be [first layer, layer after the last], found {content!r}")
            return None
        return content[0], content[1]

    def _reference(self, path: KeyPath, content: Any) -> Reference | None:
        """Return the model named by mergekit's short form, or by its long one in tables."""
        if isinstance(content, dict):
            if content.get("override_architecture"):
                self._wrong(
                    (*path, "override_architecture"), "is not converted: checkpoints say what they are"
                )
            model, lora = content.get("model"), content.get("lora")
            parts = [self._place(each) for each in (model, lora)]
            if parts[0] is not None and (lora is None or parts[1] is not None):
                own, adapter = parts[0], parts[1] or (None, None)
                return Reference(path=own[0], revision=own[1], lora=adapter[0], lora_revision=adapter[1])
        elif isinstance(content, str) and (found := parsed_reference(content)) is not None:
            return found
        self._wrong(path, f"must be a model, as `owner/name` or `owner/name+owner/lora`, found {content!r}")
        return None

    def _place(self, content: Any) -> tuple[str, str | None] | None:
        if isinstance(content, str):
            path, _, revision = content.partition("@")
            return path, revision or None
        if isinstance(content, dict) and isinstance(content.get("path"), str):
            return content["path"], content.get("revision")
        return None

    def _table(self, path: KeyPath, content: Any, keys: tuple[str, ...]) -> dict[str, Any] | None:
        if not isinstance(content, dict):
            self._wrong(path, f"must be a table, found {content!r}")
            return None
        for key in content:
            if key not in keys:
                self._wrong((*path, key), _SUGGEST.get(key, f"is unknown: {unknown('key', key, keys)}"))
        return content

    def _parameters(self, path: KeyPath, table: Mapping[str, Any]) -> Parameters:
        content = table.get("parameters")
        if content is None:
            return {}
        if not isinstance(content, dict):
            self._wrong((*path, "parameters"), f"must be a table, found {content!r}")
            return {}
        read = {
            name: self._layered((*path, "parameters", name), each)
            for name, each in content.items()
            if each is not None
        }
        return {name: each for name, each in read.items() if each is not None}

    def _layered(self, path: KeyPath, content: Any) -> Layered | None:
        """Return a value, anchors or filters; one filter need not stand in a list."""
        listed = [content] if isinstance(content, dict) else content
        if not isinstance(listed, list) or not any(isinstance(each, dict) for each in listed):
            return self._anchors(path, content)
        entries = []
        for i, each in enumerate(listed):
            at = path if isinstance(content, dict) else (*path, i)
            table = self._table(at, each, ("filter", "value"))
            if table is None or (value := self._anchors((*at, "value"), table.get("value"))) is None:
                return None
            word = table.get("filter")
            if word is not None and not isinstance(word, str):
                self._wrong((*at, "filter"), f"must be part of a tensor's name, found {word!r}")
                return None
            entries.append(Filtered(filter=word, value=value))
        return tuple(entries)

    def _anchors(self, path: KeyPath, content: Any) -> Value | tuple[Value, ...] | None:
        listed = content if isinstance(content, list) else [content]
        numbers = [isinstance(each, int | float) and not isinstance(each, bool) for each in listed]
        words = [isinstance(each, bool | str) for each in listed]
        if not listed or not (all(numbers) or all(words)):
            self._wrong(
                path, f"must be a value, a list of numbers along the layers, or filters, found {content!r}"
            )
            return None
        if not isinstance(content, list):
            return content  # type: ignore[no-any-return]
        if any(isinstance(each, bool) for each in listed):
            self._wrong(path, "has switches along the layers, between which mergekit interpolates numbers")
            return None
        return tuple(content)

    def _dtype(self) -> str | None:
        """Return the dtype of the result: `out_dtype`, or else the one that mergekit computes in."""
        dtypes = {}
        for key in ("dtype", "out_dtype"):
            if self._content.get(key) is None:
                continue
            dtypes[key] = str(self._content[key]).removeprefix("torch.")
            if dtypes[key] not in ("float32", "bfloat16", "float16"):
                self._wrong((key,), f"must be float32, bfloat16 or float16, found `{dtypes[key]}`")
        return dtypes.get("out_dtype", dtypes.get("dtype"))

    def _tokenizer(self) -> tuple[Reference | str | None, KeyPath]:
        """Return `base`, `union` or a model, and the key that says so."""
        if self._content.get("chat_template") is not None:
            self._wrong(
                ("chat_template",),
                "is not converted: an export has the chat template of the model that gives its tokenizer; "
                "leave it out and edit the written tokenizer",
            )
        at: KeyPath = ("tokenizer_source",)
        source = self._content.get("tokenizer_source")
        if (content := self._content.get("tokenizer")) is not None:
            if source is not None:
                self._wrong(at, "stands beside `tokenizer`; mergekit takes one of them")
            at = ("tokenizer", "source")
            table = self._table(("tokenizer",), content, ("source", "tokens", "pad_to_multiple_of"))
            source = (table or {}).get("source", "union")
            for key, why in _TOKENIZER.items():
                if (table or {}).get(key):
                    self._wrong(("tokenizer", key), why)
        if source is None or source in ("base", "union"):
            return source, at
        if isinstance(source, str):
            source = source.removeprefix("model:")
        return self._reference(at, source), at


_TOKENIZER = {
    "tokens": "is not converted: evomerge takes a missing token's embedding from the models that have it",
    "pad_to_multiple_of": "is not converted: evomerge adds no rows to the embedding",
}
