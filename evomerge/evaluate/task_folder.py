"""A folder of task files, looked through before lm-eval reads all of them."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

from evomerge.errors import TaskError
from evomerge.reading import read_text

_LARGEST = 4 << 20
_DEEPEST = 200
"""Brackets within brackets: the YAML reader that lm-eval uses ends the process on very many."""

_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def check_folder(folder: Path) -> None:
    """Raise `TaskError` for a file that lm-eval, which reads every task file there is, could not survive.

    One that is merely no YAML is left to lm-eval, which passes over it. What the files say, and what
    `!function` runs, is trusted: a task is a program.
    """
    for file in sorted(folder.rglob("*.yaml")):
        try:
            if not file.exists():  # a link that leads nowhere
                continue
            text = read_text(file, most=_LARGEST)
        except OSError as error:
            raise TaskError(f"the task file {file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            continue
        steps = (_STEPS.get(letter, 0) for letter in text)
        if max(accumulate(steps), default=0) > _DEEPEST or "- " * _DEEPEST in text:
            raise TaskError(f"the task file {file} has values nested deeper than {_DEEPEST} levels")
