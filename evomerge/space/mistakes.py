"""From pydantic's list of complaints to one sentence per mistake, with the key it is about.

A value that may be of several kinds (a range, a list, a number) makes pydantic complain once per kind. Of
those, the complaint that got deepest speaks, then one about the value rather than its kind; if there is
neither, one sentence names all the kinds.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError

from evomerge.space.document import KeyPath

Complaint: TypeAlias = Mapping[str, Any]
"""An entry of `ValidationError.errors()`."""

_KINDS = {
    "model_type": "a table of keys",
    "dict_type": "a table of keys",
    "list_type": "a list",
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
}
_TABLES = {
    "Anchored": "{anchors: N}",
    "Range": "a range {low, high}",
    "Scales": "a range {low, high}",
    "WholeRange": "a range {low, high}",
    "Source": "text or a table of keys",
    "SamplerChoice": "text or a table of keys",
}
_WORDS: Mapping[type, str] = {type(None): "nothing", dict: "a table", list: "a list", bool: "true or false"}


def mistakes(content: Any, error: ValidationError, table: type[BaseModel]) -> Iterator[tuple[KeyPath, str]]:
    """Yield where and how `content` is not the `table` it should be, each mistake once."""
    found: dict[KeyPath, list[Complaint]] = defaultdict(list)
    for entry in error.errors():
        found[_real_path(content, entry)].append(dict(entry))
    extra = {path: _known(entries[0], table) for path, entries in found.items() if _is_extra(entries)}
    meant = {(*path[:-1], _closest(path, known)) for path, known in extra.items()}
    for path, entries in found.items():
        deeper = any(len(other) > len(path) and other[: len(path)] == path for other in found)
        if path in extra:
            yield path, _unknown_key(path, extra[path], table)
        elif not deeper and not (entries[0]["type"] == "missing" and path in meant):
            yield path, _explained(entries)


def _real_path(content: Any, entry: Complaint) -> KeyPath:
    """Return pydantic's location without the names of union branches, which no file contains."""
    path: list[int | str] = []
    *_, last = loc = entry["loc"]
    for i, part in enumerate(loc):
        inside = isinstance(content, dict) and part in content
        indexed = isinstance(content, list) and isinstance(part, int) and part < len(content)
        if inside or indexed:
            content = content[part]
            path.append(part)
        elif entry["type"] == "missing" and i == len(loc) - 1:
            path.append(last)
    return tuple(path)


def _is_extra(entries: Sequence[Complaint]) -> bool:
    return bool(entries[0]["type"] == "extra_forbidden")


def _unknown_key(path: KeyPath, known: Sequence[str], table: type[BaseModel]) -> str:
    close, home = _closest(path, known), _home(path, table)
    meant = [f"`{close}`"] if close else []
    meant += [f"`{path[-1]}` {home}"] if home else []
    hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
    return f"is not a key here{hint} (known: {', '.join(known)})"


def _home(path: KeyPath, table: type[BaseModel]) -> str | None:
    """Return where in the file the last key of `path` would be one, in words; None if nowhere."""
    key = str(path[-1])
    if len(path) > 1:
        return "at the top of the file" if key in table.model_fields else None
    for name in ("merge", "path"):
        tables = _tables_in(table.model_fields[name].annotation) if name in table.model_fields else ()
        if any(key in each.model_fields for each in tables):
            return f"under `{name}`"
    return None


def _closest(path: KeyPath, known: Sequence[str]) -> str:
    return next(iter(difflib.get_close_matches(str(path[-1]), known, n=1)), "")


def _explained(entries: Sequence[Complaint]) -> str:
    """Return what is wrong with one value, from all that pydantic has to say of it."""
    speaking = [entry for entry in entries if entry["type"] not in (*_KINDS, "literal_error")]
    if speaking:
        return _about_value(speaking[0])
    kinds = [_kind(entry) for entry in entries]
    if "a number" in kinds and "a whole number" in kinds:
        kinds.remove("a whole number")
    *others, final = dict.fromkeys(kinds)
    wanted = f"{', '.join(others)} or {final}" if others else final
    found = entries[0]["input"]
    return f"must be {wanted}, found {_shown(found)}{_meant_number(found) if 'a number' in kinds else ''}"


def _meant_number(found: Any) -> str:
    """Return how to write a number that YAML took for text, such as 1e-3; nothing for other values."""
    try:
        return f" (to YAML that is text; write {float(found)})" if isinstance(found, str) else ""
    except ValueError:
        return ""


def _kind(entry: Complaint) -> str:
    if entry["type"] == "literal_error":
        return str(entry["ctx"]["expected"]).replace("'", "`")
    if entry["type"] == "model_type":
        return _TABLES.get(entry["ctx"]["class_name"], _KINDS["model_type"])
    return _KINDS[entry["type"]]


def _about_value(entry: Complaint) -> str:
    found = _shown(entry["input"])
    match entry["type"]:
        case "union_tag_invalid":
            forms = entry["ctx"]["expected_tags"].replace("'", "`")
            return f"needs a `form` that is one of {forms}, found `{entry['ctx']['tag']}`"
        case "union_tag_not_found":
            return "needs a `form` (slots, blocks, layer_swap, prune or repeat)"
        case "model_attributes_type":
            return f"must be a table of keys, found {found}"
        case "missing":
            return "is missing"
        case "value_error":
            return str(entry["ctx"]["error"])
        case "string_pattern_mismatch":
            return f"must be letters, digits, `_`, `.` and `-`, the first no `.` or `-`, found {found}"
        case "greater_than_equal":
            return f"must be at least {entry['ctx']['ge']}, found {found}"
        case "less_than_equal":
            return f"must be at most {entry['ctx']['le']}, found {found}"
        case "greater_than":
            return f"must be above {entry['ctx']['gt']:g}, found {found}"
        case "less_than":
            return f"must be below {entry['ctx']['lt']:g}, found {found}"
        case "too_short":
            return "must not be empty"
        case "finite_number":
            return f"must be a finite number, found {found}"
    return f"{entry['msg'][0].lower()}{entry['msg'][1:]}, found {found}"


def _shown(value: Any) -> str:
    """Return a value as the reader of a file would recognise it."""
    if isinstance(value, bool):
        return str(value).lower()
    if type(value) in _WORDS:
        return _WORDS[type(value)]
    return repr(value) if isinstance(value, str) else str(value)


def _known(entry: Complaint, table: type[BaseModel]) -> list[str]:
    """Return the keys that the table of an unknown key does have."""
    loc = [str(part) for part in entry["loc"][:-1]]
    for part, following in zip(loc, [*loc[1:], ""], strict=False):
        field = table.model_fields.get(part)
        if field is not None:
            table = _table_in(field.annotation, tag=following) or table
    return list(table.model_fields)


def _table_in(annotation: Any, tag: str) -> type[BaseModel] | None:
    """Return the first table named anywhere in a type; of those told apart by `form`, that of the tag."""
    for table in _tables_in(annotation):
        form = table.model_fields.get("form")
        if form is None or tag in get_args(form.annotation):
            return table
    return None


def _tables_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the tables named anywhere in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _tables_in(part)
