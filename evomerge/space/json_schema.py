"""The space file as a JSON schema, for editors: from the tables that read it and what plug-ins declare.

Draft 2020-12, https://json-schema.org/draft/2020-12/schema. It says what a file of one kind or another looks
like; what only holds between keys (a `base` that is among the sources) is found by `evomerge check`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from pydantic.json_schema import GenerateJsonSchema

from evomerge import plugins
from evomerge.parameters import Choice, Gene, Parameter, declared
from evomerge.recipe import MODULES
from evomerge.space.schema import Space

Schema: TypeAlias = dict[str, Any]


def space_schema() -> Schema:
    """Return the JSON schema of a space file, with the plug-ins that are installed here."""
    schema = Space.model_json_schema(mode="validation")
    tables: Schema = schema["$defs"]
    for table in (schema, *tables.values()):
        _tidy(table)
    sources = schema["properties"]["sources"]
    for source in sources["patternProperties"].values():
        _plain(source, "The model: a folder, a hub id or zoo:NAME.")
    sources["additionalProperties"] = False
    _plain(_some(schema["properties"]["sampler"]), "A sampler by its name.", **_samplers())
    tables["SamplerChoice"]["properties"]["name"] |= _samplers()
    merge = tables["MergeSpace"]["properties"]
    _choose_methods(merge["method"])
    merge["genes"], tables["GeneValue"] = _genes(merge["genes"])
    _choose_modules(merge["modules"])
    schema["properties"]["racing"]["anyOf"].append({"enum": ["on", "off"]})  # words to YAML 1.2 editors
    tables["Source"]["oneOf"] = [{"required": [key]} for key in ("source", "run")]
    tables["Constraint"]["anyOf"] = [{"required": [key]} for key in ("min", "max")]
    merge["compat"]["examples"] = sorted({each for kind in _methods().values() for each in kind.compats})
    schema["required"] = [key for key in schema["required"] if key != "name"]  # the file's own
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "evomerge space",
        "description": "What `evomerge search` searches: models, what may vary, what to optimise.",
        **{key: value for key, value in schema.items() if key not in ("title", "description")},
    }


def _methods() -> Mapping[str, Any]:
    return {name: plugins.load("methods", name) for name in plugins.names("methods")}


def _tidy(table: Schema) -> None:
    """Take out titles that only repeat a key, and join the lines of descriptions."""
    for each in table.get("properties", {}).values():
        each.pop("title", None)
    for each in (table, *table.get("properties", {}).values()):
        if "description" in each:
            each["description"] = "\n\n".join(
                " ".join(part.split()) for part in each["description"].split("\n\n")
            )


def _some(schema: Schema) -> Schema:
    """Return the branch of an optional key that is not null."""
    return next(each for each in schema["anyOf"] if each.get("type") != "null")


def _plain(schema: Schema, meaning: str, **allowed: Any) -> None:
    """Let text stand for a table, as the space file takes it."""
    table = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string", "description": meaning, **allowed}, table]


def _samplers() -> Schema:
    return {"anyOf": [{"enum": list(plugins.names("samplers"))}, {"pattern": "^optunahub:."}]}


def _choose_methods(schema: Schema) -> None:
    """Name the merge methods where one, or a list of them, may stand."""
    names = list(plugins.names("methods"))
    for branch in schema["anyOf"]:
        spot = branch["items"] if branch.get("type") == "array" else branch
        spot.pop("pattern", None)
        spot["enum"] = names


def _choose_modules(schema: Schema) -> None:
    one, several = schema["items"]["anyOf"]
    one["enum"] = several["items"]["enum"] = list(MODULES)


def _genes(schema: Schema) -> tuple[Schema, Schema]:
    """Return the table of genes, which names every method's parameters, and what one's value may be."""
    found: dict[str, list[tuple[str, Parameter]]] = {}
    for method, kind in _methods().items():
        for name, parameter in declared(kind).items():
            found.setdefault(name, []).append((method, parameter))
    value = schema.pop("additionalProperties")
    properties = {
        name: {"description": " ".join(_meanings(found[name])), "$ref": "#/$defs/GeneValue"}
        for name in sorted(found)
    }
    return {**schema, "properties": properties, "additionalProperties": False}, value


def _meanings(found: list[tuple[str, Parameter]]) -> Iterator[str]:
    """Yield what a parameter means, once for methods that mean the same by it."""
    by_meaning: dict[str, list[str]] = {}
    for method, parameter in found:
        by_meaning.setdefault(f"{parameter.spec.meaning}{_values(parameter.spec)}", []).append(method)
    for meaning, methods in by_meaning.items():
        yield f"{', '.join(methods)}: {meaning}."


def _values(spec: Gene | Choice) -> str:
    if isinstance(spec, Choice):
        return f" ({', '.join(str(each) for each in spec.options)})"
    least = f", at least {spec.least:g}" if math.isfinite(spec.least) else ""
    most = f", at most {spec.most:g}" if math.isfinite(spec.most) else ""
    return f" (by default {spec.low:g} to {spec.high:g}{least}{most})"
