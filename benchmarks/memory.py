"""Measure what memory and time an export takes: a base and two sources on disk, merged by several methods.

Time is told beside that of `cp` and `sync` of the same bytes on the same disk, right after. Each export runs
in a process of its own. Pages of mapped files are the system's to drop, so they are told apart: `RssAnon` is
what the process itself holds, `VmHWM` the peak of both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_EVERY = 0.005  # seconds between two looks
MODELS = ("base", "one", "two")
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "copy": ("task_arithmetic", {"weight": 0.5}),
    "ties": ("ties", {"density": 0.2}),
    "ties, model": ("ties", {"density": 0.2, "scope": "model"}),
    "pcb": ("pcb", {"scope": "model"}),
    "compeft": ("compeft", {"density": 0.2}),
    "opcm": ("opcm", {}),
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Llama's sizes."""

    hidden: int
    inner: int
    layers: int
    vocabulary: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield names and shapes."""
        h, i = self.hidden, self.inner
        yield "model.embed_tokens.weight", (self.vocabulary, h)
        for layer in range(self.layers):
            for name in "qkvo":
                yield f"model.layers.{layer}.self_attn.{name}_proj.weight", (h, h)
            yield f"model.layers.{layer}.mlp.gate_proj.weight", (i, h)
            yield f"model.layers.{layer}.mlp.up_proj.weight", (i, h)
            yield f"model.layers.{layer}.mlp.down_proj.weight", (h, i)
            yield f"model.layers.{layer}.input_layernorm.weight", (h,)
            yield f"model.layers.{layer}.post_attention_layernorm.weight", (h,)
        yield "model.norm.weight", (h,)
        yield "lm_head.weight", (self.vocabulary, h)


def write_models(folder: Path, shape: Shape, device: str = "cpu") -> None:
    """Write a random base and two models near it, in bfloat16; each device draws others."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": shape.hidden,
        "intermediate_size": shape.inner, "num_hidden_layers": shape.layers, "vocab_size": shape.vocabulary,
        "num_attention_heads": shape.hidden // 64, "tie_word_embeddings": False, "dtype": "bfloat16",
    }  # fmt: skip
    for number, name in enumerate(MODELS):
        tensors = {}
        for place, (tensor, size) in enumerate(shape.tensors()):
            generator = torch.Generator(device).manual_seed(place)
            value = torch.randn(size, generator=generator, device=device) * 0.02
            if number:
                generator.manual_seed(1_000_000 * number + place)
                value += torch.randn(size, generator=generator, device=device) * 0.002
            tensors[tensor] = value.bfloat16().cpu()
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors", {"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps(config))
        vocabulary = {f"word{i}": i for i in range(shape.vocabulary)}
        words = Tokenizer(WordLevel(vocabulary, unk_token="word0"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)  # type: ignore[no-untyped-call]
        tokenizer.save_pretrained(folder / name)


def export(folder: Path, recipe: str) -> dict[str, float]:
    """Export in this process and return its peaks in bytes, and its seconds."""
    import transformers

    from evomerge.publish.checkpoint import write_checkpoint
    from evomerge.recipe import Merge, ModelRef, Recipe

    _ = transformers.LlamaForCausalLM  # which takes seconds to import

    method, params = RECIPES[recipe]
    asked = Recipe(
        models={name: ModelRef(source=str(folder / name)) for name in MODELS},
        merges={"merged": Merge(method=method, base="base", sources=MODELS[1:], params=params)},
    )
    before = status("RssAnon"), status("VmRSS")
    started = time.monotonic()
    with peak_of_anonymous() as peak:
        write_checkpoint(asked, folder / "merged")
    seconds = time.monotonic() - started
    return {
        "copying": copying(folder / "merged", folder / "copied"),
        "anonymous": peak[0] - before[0],
        "resident": status("VmHWM") - before[1],
        "imports": before[1],
        "seconds": seconds,
    }


def copying(source: Path, target: Path) -> float:
    """Return the seconds that `cp` takes for a folder, to the disk, and delete both."""
    started = time.monotonic()
    subprocess.run(["cp", "-r", source, target], check=True)
    subprocess.run(["sync", *target.iterdir()], check=True)
    seconds = time.monotonic() - started
    for folder in (source, target):
        shutil.rmtree(folder)
    return seconds


def status(key: str) -> int:
    """Return a figure of /proc/self/status in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


@contextmanager
def peak_of_anonymous() -> Iterator[list[int]]:
    """Give a list whose entry is the greatest `RssAnon` seen while the block runs."""
    peak, over = [status("RssAnon")], threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY):
            peak[0] = max(peak[0], status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def main() -> None:
    """Write the models, export each recipe in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--recipes", nargs="+", choices=RECIPES, default=["copy", "ties, model", "pcb", "compeft"]
    )
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--inner", type=int, default=5504)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "RECIPE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(export(Path(asked.child[0]), asked.child[1])))
        return
    shape = Shape(hidden=asked.hidden, inner=asked.inner, layers=asked.layers, vocabulary=asked.vocabulary)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_models(folder, shape)
        size = (folder / "base" / "model.safetensors").stat().st_size
        largest = 4 * max(rows * row for rows, row in _matrices(shape))
        print(f"one source {size / 1e9:.2f} GB, its largest tensor in float32 {largest / 1e9:.2f} GB\n")
        print(
            "| recipe | own memory, GB | of a source | of the largest tensor | with files, GB | s | `cp`, s |"
        )
        print("|---|---|---|---|---|---|---|", flush=True)
        for recipe in asked.recipes:
            done = subprocess.run(
                [sys.executable, __file__, "--child", str(folder), recipe],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {recipe} | {found['anonymous'] / 1e9:.2f} | {found['anonymous'] / size:.2f} "
                f"| {found['anonymous'] / largest:.1f} | {found['resident'] / 1e9:.2f} "
                f"| {found['seconds']:.1f} | {found['copying']:.1f} |",
                flush=True,
            )


def _matrices(shape: Shape) -> Iterator[tuple[int, int]]:
    yield from ((size[0], size[1]) for _, size in shape.tensors() if len(size) == 2)


if __name__ == "__main__":
    main()
