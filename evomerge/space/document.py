"""YAML read so that every value knows the line it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import yaml

from evomerge.errors import SpaceError

KeyPath: TypeAlias = tuple[str | int, ...]

_T = TypeVar("_T")

_MOST_NODES = 20_000
"""Far above any real space; stops files that unfold through aliases."""

_DEEPEST = 20
_LONGEST_SHOWN = 60
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass(frozen=True, kw_only=True)
class Document:
    """A YAML file's content, and the line of every key and list entry, counted from 1.

    `replaced` are the keys whose content did not come from the file.
    """

    name: str
    content: Mapping[str, Any]
    lines: Mapping[KeyPath, int]
    replaced: frozenset[str] = frozenset()

    def but(self, changes: Mapping[str, Any]) -> Document:
        """Return the document with `changes` in the place of its own keys."""
        return replace(self, content={**self.content, **changes}, replaced=frozenset(changes))

    def where(self, path: KeyPath) -> str:
        """Return `FILE:LINE: key.path` for the closest place that exists."""
        if path and path[0] in self.replaced:
            return f"{dotted(path)} as given"
        return f"{self.name}:{self.line(path)}: {dotted(path)}"

    def line(self, path: KeyPath) -> int:
        """Return the line of the closest place that exists."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return self.lines.get(known, 1)


def dotted(path: KeyPath) -> str:
    """Return a key path as people write it: `objectives[0].task`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return f"`{text}`" if text else "the file"


_A_SPACE = "a space is a table of keys, like `sources:` and `objectives:`"


def read_document(text: str, name: str) -> Document:
    """Return the document. Raises `SpaceError` with the line of a syntax error or repeated key."""
    return _document(
        _composed(text, name, lambda: yaml.compose(text, Loader=yaml.SafeLoader)), name, _A_SPACE
    )


def read_documents(text: str, name: str, kind: str) -> list[Document]:
    """Return the documents of a file that may have several (`---`); `kind` says what each is.

    Raises `SpaceError` with the line of a syntax error, a repeated key or a document that is no table.
    """
    roots = _composed(text, name, lambda: list(yaml.compose_all(text, Loader=yaml.SafeLoader)))
    return [_document(root, name, kind) for root in roots]


def _composed(text: str, name: str, compose: Callable[[], _T]) -> _T:
    try:
        return compose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpaceError(f"{name}:{line}: not YAML: {_problem(error)}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpaceError(
            f"{name}:{line}: not YAML: the character {error.character:#06x} may not stand there"
        ) from error
    except RecursionError as error:
        raise SpaceError(f"{name}: values are nested deeper than {_DEEPEST} levels") from error


def _document(root: yaml.Node | None, name: str, kind: str) -> Document:
    if not isinstance(root, yaml.MappingNode):
        raise SpaceError(f"{name}:{root.start_mark.line + 1 if root else 1}: {kind}")
    reader = _Reader(name)
    return Document(name=name, content=reader.read(root, ()), lines=reader.lines)


def _problem(error: yaml.MarkedYAMLError) -> str:
    """Return PyYAML's words; some problems only finish the sentence that the context begins."""
    problem = error.problem or "it cannot be read"
    return f"{error.context}, {problem}" if problem.startswith("but ") else problem


class _Reader:
    def __init__(self, name: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._name = name
        self._nodes = 0
        self._scalars = yaml.SafeLoader("")

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise SpaceError(f"{self._name}: more than {_MOST_NODES} values; aliases unfold too far")
        line = node.start_mark.line + 1
        if len(path) > _DEEPEST:  # an alias that holds itself has no bottom
            raise SpaceError(f"{self._name}:{line}: values are nested deeper than {_DEEPEST} levels")
        self.lines.setdefault(path, line)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
            raise SpaceError(f"{self._name}:{line}: {node.tag} values are not read")
        if isinstance(node, yaml.MappingNode):
            return self._table(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*path, i)) for i, child in enumerate(node.value)]
        return self._scalar(node)

    def _table(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise SpaceError(f"{self._name}:{key_node.start_mark.line + 1}: a key must be a word")
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key == "<<":
                raise SpaceError(f"{self._name}:{line}: `<<` is not read; write the keys out")
            if key in table:
                raise SpaceError(f"{self._name}:{line}: {dotted((*path, key))} stands twice")
            self.lines[(*path, key)] = line
            table[key] = self.read(value_node, (*path, key))
        return table

    def _scalar(self, node: yaml.Node) -> Any:
        line = node.start_mark.line + 1
        try:
            return self._scalars.construct_object(node)
        except yaml.YAMLError as error:
            raise SpaceError(f"{self._name}:{line}: {node.tag} values are not read") from error
        except (ValueError, LookupError, AttributeError) as error:  # a tag says what the word is not
            shown = node.value if len(node.value) <= _LONGEST_SHOWN else f"{node.value[:_LONGEST_SHOWN]}…"
            why = str(error) if isinstance(error, ValueError) else f"it is no {node.tag}"
            raise SpaceError(f"{self._name}:{line}: `{shown}` cannot be read: {why}") from error
