"""Spaces: what may vary, and what to optimise."""

from evomerge.space.genome import GeneSpec, Genome
from evomerge.space.load import load_space, parse_space
from evomerge.space.schema import Objective, Space

__all__ = ["GeneSpec", "Genome", "Objective", "Space", "load_space", "parse_space"]
