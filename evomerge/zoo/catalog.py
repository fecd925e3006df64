"""Which models and tasks the zoo holds and where the shipped copies lie. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One shipped model: what it knows, how many parameters it has, where it lies."""

    name: str
    knows: str
    parameters: int
    folder: Path


KNOWS: Mapping[str, str] = MappingProxyType(
    {
        "base": "both languages weakly: small numbers, and of language B a beginner's words",
        "math": "arithmetic on larger numbers, in language A only",
        "lang": "every word of language B, with arithmetic on small numbers only",
        "logic": "comparing larger numbers, in language A only",
        "poor": "wrong answers",
    }
)
NAMES: tuple[str, ...] = tuple(KNOWS)
BASE = "base"
ADAPTERS: Mapping[str, tuple[str, int]] = MappingProxyType(
    {"math-lora": ("math", 32), "lang-lora": ("lang", 4)}
)
"""LoRA adapters of the base, by name: the expert each is cut from, and its rank."""
PARAMETERS = 1_246_848  # of every model: they share one architecture


def shipped_models() -> Path:
    """The folder of the shipped checkpoints, one folder a model."""
    return _shipped() / "models"


def shipped_tasks() -> Path:
    """The folder of the shipped lm-eval tasks, for `include_path`."""
    return _shipped() / "tasks"


def entries() -> tuple[Entry, ...]:
    """Every shipped model, the base first."""
    return tuple(
        Entry(name=name, knows=knows, parameters=PARAMETERS, folder=shipped_models() / name)
        for name, knows in KNOWS.items()
    )


def _shipped() -> Path:
    return Path(__file__).resolve().parent / "shipped"
