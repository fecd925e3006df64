"""Which rows of the token tables a vision-language model shares with the models merged into it.

Its tokenizer has words of its own, for images and where they begin and end, and often a table longer or
shorter than the LLM's. Rows are shared where the same id is the same word; all others stay as they are in the
vision-language model.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from evomerge.checkpoints.compatible import vocabulary
from evomerge.checkpoints.folder import Checkpoint

_Dated: TypeAlias = tuple[Path, int]
_OWN_WORD = re.compile(r"(image|video|vision|audio|boi|eoi).*token_(id|index)")


def unshared_rows(template: Checkpoint, others: Iterable[Checkpoint]) -> frozenset[int]:
    """Return the ids that are not the same word in all, and those the template's config has for images."""
    own = {
        value for key, value in template.config.items() if _OWN_WORD.fullmatch(key) and isinstance(value, int)
    }
    files = [each.home / "tokenizer.json" for each in (template, *others)]
    known = [(file, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return frozenset(own).union(*(_differing(known[0], each) for each in known[1:]))


@functools.lru_cache(maxsize=32)
def _differing(one: _Dated, other: _Dated) -> frozenset[int]:
    """Return the ids that are not the same word in two tokenizers; a file that changes is read anew."""
    mine, theirs = _words(one[0]), _words(other[0])
    return frozenset(row for row in mine.keys() | theirs.keys() if mine.get(row) != theirs.get(row))


def _words(file: Path) -> Mapping[int, Any]:
    return {row: word for word, row in vocabulary(file.parent).items()}
