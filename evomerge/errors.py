"""The exceptions of evomerge, in one tree.

    EvomergeError
    ├── RequestError          the request is wrong: nothing was started or written (exit code 2)
    │   ├── SpaceError        the space file, with the key and line of each mistake
    │   ├── RecipeError       a recipe that cannot mean anything
    │   ├── ConversionError   what a file says that the other form has no words for, a line for each key
    │   ├── PluginError       no such method, sampler or backend
    │   ├── CheckpointError   a source that is missing, broken or does not fit the others
    │   ├── TaskError         an lm-eval task or metric that does not exist or cannot be scored
    │   └── RunError          a run folder that is missing, taken or was made by something else
    └── WorkError             the work itself failed (exit code 1)
        ├── MergeError        an operator could not merge these tensors
        ├── EvaluationError   a merged model could not be scored
        └── ExportError       the written checkpoint is not the model that was scored

A message says what was asked, what was found and what to do, in one sentence where it can.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EvomergeError(Exception):
    """Anything evomerge can explain."""


class RequestError(EvomergeError):
    """The request is wrong; nothing was started or written."""


class SpaceError(RequestError):
    """The space file cannot be used."""


class RecipeError(RequestError):
    """The recipe cannot mean anything."""


class ConversionError(RequestError):
    """The file says what the other form has no words for."""


class PluginError(RequestError):
    """No such plug-in."""


class CheckpointError(RequestError):
    """A source model is missing, broken or does not fit the others."""


class TaskError(RequestError):
    """A task or metric does not exist or cannot be scored."""


class RunError(RequestError):
    """A run folder is missing, taken or unreadable."""


class WorkError(EvomergeError):
    """The work itself failed."""


class MergeError(WorkError):
    """An operator could not merge these tensors."""


class EvaluationError(WorkError):
    """A merged model could not be scored."""


class ExportError(WorkError):
    """The written checkpoint is not the model that was scored."""


def unknown(what: str, asked: str, known: Iterable[str]) -> str:
    """Return ``no WHAT named `asked`. Did you mean `x`? Known: …``."""
    names = sorted(known)
    close = difflib.get_close_matches(asked, names, n=1)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    return f"no {what} named `{asked}`.{hint} Known: {', '.join(names) or 'none'}"
