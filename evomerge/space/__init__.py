"""Spaces: what may vary, and what to optimise."""

from evomerge.space.genes import GeneSpec
from evomerge.space.genome import Genome
from evomerge.space.load import SpaceFile, load_space, parse_space, read_space
from evomerge.space.schema import Objective, Space

__all__ = [
    "GeneSpec", "Genome", "Objective", "Space", "SpaceFile", "load_space", "parse_space", "read_space",
]  # fmt: skip
