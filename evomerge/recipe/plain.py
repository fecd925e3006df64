"""YAML that others wrote, as plain values: bounded, and every key of a table once."""

from __future__ import annotations

from typing import Any

import yaml

from evomerge.errors import RecipeError

_MOST_NODES = 200_000
"""Far above any real recipe; stops files that unfold through aliases."""

_DEEPEST = 20


def read_plain(text: str) -> Any:
    """Return the content of a recipe. Raises `RecipeError` for what is no YAML, or too much."""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _Walk().check(root)
        return loader.construct_document(root)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # a tag says what it is not
        reason = " ".join(str(error).split())
        raise RecipeError(f"the recipe is not YAML: {reason}") from error
    except RecursionError as error:
        raise RecipeError(f"the recipe's values are nested deeper than {_DEEPEST} levels") from error


class _Walk:
    """Looks at every node as often as it will be read: an alias unfolds anew wherever it stands."""

    def __init__(self) -> None:
        self._seen = 0

    def check(self, node: yaml.Node, depth: int = 0) -> None:
        self._seen += 1
        line = node.start_mark.line + 1
        if self._seen > _MOST_NODES:
            raise RecipeError(f"the recipe has more than {_MOST_NODES} values; aliases unfold too far")
        if depth > _DEEPEST:  # an alias that holds itself has no bottom
            raise RecipeError(f"line {line}: values are nested deeper than {_DEEPEST} levels")
        if isinstance(node, yaml.SequenceNode):
            for child in node.value:
                self.check(child, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    _check_once(key, lines)
                self.check(key, depth + 1)
                self.check(value, depth + 1)


def _check_once(key: yaml.ScalarNode, lines: dict[str, int]) -> None:
    line = key.start_mark.line + 1
    if key.value in lines:
        raise RecipeError(f"line {line}: `{key.value}` stands twice, first in line {lines[key.value]}")
    lines[key.value] = line
