"""From a config of mergekit-evolve to a space: the same models and method, its tasks as objectives.

Format: https://github.com/arcee-ai/mergekit/blob/main/docs/evolve.md. What has no equal in a space is a note,
where the search can do without it, and else a problem.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from evomerge.errors import unknown
from evomerge.mergekit.findings import Findings
from evomerge.mergekit.form import Reference, parsed_reference
from evomerge.mergekit.known import COMPAT, METHODS
from evomerge.mergekit.models import Names
from evomerge.mergekit.reading import LayersOf, no_layers
from evomerge.space.document import Document, KeyPath, read_documents

_KEYS = (
    "genome", "tasks", "limit", "num_fewshot", "shuffle", "random_init", "apply_chat_template",
    "fewshot_as_multiturn",
)  # fmt: skip
_GENOME = (
    "models", "merge_method", "base_model", "tokenizer_source", "layer_granularity", "normalize",
    "allow_negative_weights", "filters", "smooth",
)  # fmt: skip
_METHODS = ("linear", "task_arithmetic", "ties", "dare_ties", "slerp")
_NORMALIZED = ("linear", "ties", "dare_ties")
"""Methods of which mergekit-evolve normalises the weights unless told otherwise."""
_FILTERS = {
    "self_attn": "attn", "attn": "attn", "attention": "attn", "mlp": "mlp", "feed_forward": "mlp",
    "embed_tokens": "embed", "embed": "embed", "lm_head": "head", "model.norm": "head",
}  # fmt: skip
_IN_LAYERS = ("attn", "mlp", "rest")
_KIND = "a config of mergekit-evolve is a table of keys, like `genome:` and `tasks:`"
_UNSUITABLE = re.compile(r"[^A-Za-z0-9_.\-]")


def from_evolve(
    text: str, name: str = "evolve.yaml", *, layers_of: LayersOf = no_layers
) -> tuple[str, tuple[str, ...]]:
    """Return a space as YAML, with comments on what it has no equal for, which are notes as well.

    Raises `ConversionError` with a line for each key that cannot be converted.
    """
    findings = Findings(name=name)
    documents = read_documents(text, name, _KIND)
    if len(documents) != 1:
        findings.wrong(None, (), f"must be one document, found {len(documents)}")
        findings.check()
    space = _Reader(documents[0], findings, layers_of).space()
    findings.check()
    comments = "".join(f"# {note}\n" for note in findings.notes)
    head = f"# Converted from the config of mergekit-evolve in {name}.\n"
    return head + comments + yaml.safe_dump(space, sort_keys=False, allow_unicode=True), tuple(findings.notes)


class _Reader:
    def __init__(self, document: Document, findings: Findings, layers_of: LayersOf) -> None:
        self._document = document
        self._content = document.content
        self._findings = findings
        self._layers_of = layers_of
        self._names = Names(())

    def space(self) -> dict[str, Any]:
        """Return the space's content, as far as nothing is wrong."""
        for key in self._content:
            if key not in _KEYS:
                self._wrong((key,), f"is unknown: {unknown('key', key, _KEYS)}")
        genome = self._table(("genome",), self._content.get("genome"), _GENOME)
        merge = self._merge(genome) if genome is not None else {}
        content: dict[str, Any] = {
            "sources": {
                name: ref.source
                if ref.revision is None and ref.adapts is None
                else {
                    key: value
                    for key, value in (
                        ("source", ref.source), ("revision", ref.revision), ("adapts", ref.adapts)
                    )
                    if value is not None
                }
                for name, ref in self._names.models.items()
            },
            "merge": merge,
            "objectives": self._objectives(),
        }  # fmt: skip
        if (limit := self._count("limit")) is not None:
            content["items"] = {"search": limit}
        if (shots := self._count("num_fewshot")) is not None:
            content["few_shot"] = shots
        if genome and (tokenizer := genome.get("tokenizer_source")) is not None:
            content["tokenizer"] = self._tokenizer(str(tokenizer))
        self._say_options()
        return {
            **content,
            "sampler": "cma" if len(content["objectives"]) == 1 else "nsgaii",
            "dtype": "bfloat16",
        }

    def _wrong(self, path: KeyPath, sentence: str) -> None:
        self._findings.wrong(self._document, path, sentence)

    def _table(self, path: KeyPath, content: Any, keys: tuple[str, ...]) -> Mapping[str, Any] | None:
        if not isinstance(content, dict):
            self._wrong(path, f"must be a table, found {content!r}")
            return None
        for key in content:
            if key not in keys:
                self._wrong((*path, key), f"is unknown: {unknown('key', key, keys)}")
        return content

    def _count(self, key: str) -> int | None:
        value = self._content.get(key)
        if value is not None and (type(value) is not int or value < (key == "limit")):
            self._wrong((key,), f"must be a whole number, found {value!r}")
            return None
        return value

    def _merge(self, genome: Mapping[str, Any]) -> dict[str, Any]:
        method = genome.get("merge_method")
        if method not in _METHODS:
            self._wrong(
                ("genome", "merge_method"), unknown("method of mergekit-evolve", str(method), _METHODS)
            )
            return {}
        base = (
            self._model(("genome", "base_model"), genome["base_model"]) if genome.get("base_model") else None
        )
        listed = genome.get("models")
        if not isinstance(listed, list) or len(listed) < 2:
            self._wrong(("genome", "models"), f"must be a list of models, found {listed!r}")
            return {}
        models = [self._model(("genome", "models", i), each) for i, each in enumerate(listed)]
        sources = [each for each in models if each is not None]
        if method == "slerp":
            base, sources = self._slerp(base, sources)
        elif METHODS[method].base == "needed" and base is None:
            self._wrong(("genome", "base_model"), f"is missing: `{method}` needs a base")
        elif METHODS[method].base == "merged":
            base = None
        merge: dict[str, Any] = {
            **({"base": base} if base else {}),
            "method": method,
            "sources": [each for each in sources if each != base],
            "layers": self._layers(genome),
            "modules": self._modules(genome),
        }
        if genes := self._genes(method, genome):
            merge["genes"] = genes
        if METHODS[method].differs:
            merge["compat"] = COMPAT
        return merge

    def _slerp(self, base: str | None, sources: list[str]) -> tuple[str | None, list[str]]:
        if len(sources) != 2 or base not in (None, *sources):
            self._wrong(
                ("genome", "models"),
                "are more than two for `slerp`: mergekit-evolve takes the two heaviest of each candidate, "
                "and evomerge merges two; name two, or take `karcher` or `multislerp` in the space",
            )
        return sources[0], sources[1:2]

    def _model(self, path: KeyPath, content: Any) -> str | None:
        reference: Reference | None = parsed_reference(content) if isinstance(content, str) else None
        if reference is None:
            self._wrong(path, f"must be a model, as `owner/name`, found {content!r}")
            return None
        name = self._names.of(reference)
        if _UNSUITABLE.search(name):
            self._wrong(
                path, f"is `{name}` to a space, whose names have letters, digits, `_`, `.` and `-` only"
            )
        return name

    def _layers(self, genome: Mapping[str, Any]) -> Any:
        """Return how the space cuts the layers: in runs of the granularity, or by anchors."""
        path: KeyPath = ("genome", "layer_granularity")
        size = genome.get("layer_granularity", 0)
        if type(size) is not int:
            self._wrong(path, f"must be a whole number, found {size!r}")
            return 1
        if size < 1:
            return 1
        if size == 1 and not genome.get("smooth"):
            return "each"
        first = next(iter(self._names.models.values()), None)
        layers = self._layers_of(first) if first is not None else None
        if layers is None:
            self._wrong(
                path, "needs the number of layers, which is not known here; convert it where the models are"
            )
            return 1
        if layers % size:
            self._wrong(path, f"is {size}, which does not divide the models' {layers} layers")
        count = max(1, layers // size)
        return {"anchors": count} if genome.get("smooth") and count > 1 else count

    def _modules(self, genome: Mapping[str, Any]) -> list[Any]:
        path: KeyPath = ("genome", "filters")
        filters = genome.get("filters") or []
        if not isinstance(filters, list):
            self._wrong(path, f"must be a list of parts of tensors' names, found {filters!r}")
            return []
        own: list[str] = []
        for i, part in enumerate(filters):
            module = _FILTERS.get(str(part).strip("."))
            if module is None:
                self._wrong(
                    (*path, i),
                    f"is `{part}`, and a space tells apart {', '.join((*_IN_LAYERS, 'embed', 'head'))} only",
                )
            elif module not in own:
                own.append(module)
        if not {"embed", "head"} <= set(own):
            self._findings.note(
                (), "embedding and head have genes of their own, apart from those of the layers"
            )
        rest = [module for module in _IN_LAYERS if module not in own]
        apart = [module for module in (*_IN_LAYERS, "embed", "head") if module not in rest]
        return [*([rest] if rest else []), *apart]

    def _genes(self, method: str, genome: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ranges that mergekit-evolve would search, which has no bounds, and what it fixes."""
        if method == "slerp":
            return {}
        least = -1.0 if genome.get("allow_negative_weights") else 0.0
        genes: dict[str, Any] = {"weight": {"low": least, "high": 1.5}}
        if "density" in METHODS[method].parameters:
            genes["density"] = {"low": 0.1, "high": 1.0}
        normalize = genome.get("normalize")
        genes["normalize"] = method in _NORMALIZED if normalize is None else bool(normalize)
        return genes

    def _tokenizer(self, source: str) -> str:
        if source in ("base", "union"):
            return source
        known = tuple(self._names.models)
        reference = parsed_reference(source.removeprefix("model:"))
        name = self._names.of(reference) if reference else source
        if name not in known:
            self._wrong(("genome", "tokenizer_source"), "must be `base`, `union` or one of the models")
        return name

    def _objectives(self) -> list[dict[str, Any]]:
        tasks = self._content.get("tasks")
        if not isinstance(tasks, list) or not tasks:
            self._wrong(("tasks",), f"must be a list of tasks, found {tasks!r}")
            return []
        found, weights = [], []
        for i, each in enumerate(tasks):
            table = self._table(("tasks", i), {"name": each} if isinstance(each, str) else each, _TASK)
            if table is None:
                continue
            if not isinstance(table.get("name"), str):
                self._wrong(("tasks", i, "name"), "is missing: it names the lm-eval task")
                continue
            metric, _, filter_ = str(table.get("metric", "acc,none")).partition(",")
            found.append(
                {"task": table["name"], "metric": metric, **({"filter": filter_} if filter_ else {})}
            )
            weights.append((i, table.get("weight", 1.0)))
        self._say_weights(weights)
        return found

    def _say_weights(self, weights: list[tuple[int, Any]]) -> None:
        for i, weight in weights:
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                self._wrong(("tasks", i, "weight"), f"must be a number, found {weight!r}")
            elif weight < 0:
                self._findings.note(
                    ("tasks", i, "weight"), "turns a metric around; which way it points is read from lm-eval"
                )
            elif weight != 1:
                self._findings.note(
                    ("tasks", i, "weight"),
                    f"({weight:g}) has no equal: evomerge does not add up objectives, but keeps the Pareto "
                    "front of them, from which you choose",
                )
        if len(weights) > 1:
            self._findings.note(
                ("tasks",), "are objectives of their own, of which mergekit-evolve maximises the weighted sum"
            )

    def _say_options(self) -> None:
        """Tell of options that change what mergekit-evolve asks, or how it begins."""
        if self._content.get("limit") is not None:
            self._findings.note(
                ("limit",), "is the number of items searched; others choose the winner and report on it"
            )
        if self._content.get("shuffle"):
            self._findings.note(("shuffle",), "needs no word: items are drawn by the seed, the same for all")
        if self._content.get("random_init"):
            self._findings.note(
                ("random_init",), "has no equal: the search begins in the middle of the ranges"
            )
        if self._content.get("apply_chat_template", True):
            self._findings.note(
                ("apply_chat_template",),
                "(on unless said) has no equal: models are asked the tasks' prompts without a chat template",
            )
        elif self._content.get("fewshot_as_multiturn"):
            self._findings.note(("fewshot_as_multiturn",), "has no equal: examples stand in the prompt")


_TASK = ("name", "weight", "metric")
