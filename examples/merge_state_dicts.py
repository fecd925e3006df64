"""Merge plain dicts of tensors: no checkpoint, no search.

python examples/merge_state_dicts.py
"""

from __future__ import annotations

import torch

import evomerge


def main() -> None:
    """Merge two fine-tuned models of one layer by three methods."""
    draw = torch.Generator().manual_seed(0)
    base = {"layer.weight": torch.randn(4, 4, generator=draw)}
    math, lang = (
        {"layer.weight": base["layer.weight"] + torch.randn(4, 4, generator=draw)} for _ in range(2)
    )

    for method, params in (
        ("task_arithmetic", {"weight": [1.0, 0.5]}),
        ("ties", {"weight": 1.0, "density": 0.5}),
        ("dare_linear", {"weight": 0.7, "density": [0.5, 0.9]}),
    ):
        merged = evomerge.merge_tensors(method, base, [math, lang], params, seed=0)
        moved = (merged["layer.weight"] - base["layer.weight"]).norm()
        print(f"{method}: moved the base by {moved:.2f}")


if __name__ == "__main__":
    main()
