"""Searches in which nothing can help: all sources are the base with a little noise, so no gain is a true one.

At least 95 % of the runs must end without a gain called proven.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import evomerge
from evomerge.checkpoints.locate import ZOO

SPACE = """
sources: {{base: zoo:math, one: {folder}/one, two: {folder}/two}}
merge:
  base: base
  method: task_arithmetic
  layers: 2
  genes: {{weight: {{low: 0.0, high: 1.0}}}}
objectives: [{{task: math_b, metric: acc}}]
tasks: zoo:tasks
items: {{search: 100, select: 100, report: 300}}
sampler: cma
dtype: float32
batch_size: 64
"""


def noisy(folder: Path, *, noise: float, seed: int) -> None:
    """Write the zoo's maths expert with every weight moved by `noise` of its tensor's spread."""
    shutil.copytree(ZOO / "models" / "math", folder)
    rng = torch.Generator().manual_seed(seed)
    for file in sorted(folder.glob("*.safetensors")):
        tensors = {
            name: (t.float() + noise * t.float().std(correction=0) * torch.randn(t.shape, generator=rng)).to(
                t.dtype
            )
            for name, t in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})


def main() -> None:
    """Search under each seed and count what is called proven."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 40), help="from and to")
    parser.add_argument("--budget", type=int, default=30)
    parser.add_argument("--noise", type=float, default=0.03)
    asked = parser.parse_args()
    proven = 0
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(*asked.seeds):
            folder = Path(temporary) / str(seed)
            folder.mkdir()
            for offset, name in enumerate(("one", "two")):
                noisy(folder / name, noise=asked.noise, seed=2 * seed + offset)
            space = folder / "null.yaml"
            space.write_text(SPACE.format(folder=folder))
            run = evomerge.search(space, run=folder / "run", seed=seed, budget=asked.budget, serial=True)
            report = run.report()
            assert report is not None
            better = [gain for gain in report["gains"] if gain["verdict"] == "better"]
            proven += bool(better)
            shown = ", ".join(f"{g['gain']:+.3f} over {g['over']} ({g['verdict']})" for g in report["gains"])
            print(f"seed {seed}: {shown or 'no candidate better than a baseline'}", flush=True)
            shutil.rmtree(folder)
    count = asked.seeds[1] - asked.seeds[0]
    print(f"\n{count - proven} of {count} runs end with nothing proven")


if __name__ == "__main__":
    main()
