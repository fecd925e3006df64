"""`evomerge measure fisher|gram MODEL OUT`: what some methods merge by, measured on a model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.screen import stderr


class Kind(StrEnum):
    """What to measure."""

    fisher = "fisher"
    gram = "gram"


def command(
    kind: Annotated[Kind, typer.Argument(help="What to measure.", show_default=False)],
    model: Annotated[str, typer.Argument(help="A folder, a hub id or zoo:NAME.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    prompts: Annotated[
        Path, typer.Option(help="A text file, one prompt a line, or .jsonl with a field `text`.")
    ],
    samples: Annotated[int, typer.Option(min=1, help="Use at most so many prompts.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Draws the prompts, and a Fisher's labels.")] = 0,
) -> None:
    """Measure the diagonal Fisher information (`fisher`) or the inputs of linear layers (`gram`)."""
    from evomerge.evaluate.evaluator import quiet_transformers
    from evomerge.evaluate.measure import measure

    def begun(texts: int, tokens: int) -> None:
        told = f"Measuring the {kind} of {model} on {texts} prompts, {tokens} tokens …"
        stderr.print(told, highlight=False, markup=False, soft_wrap=True)

    quiet_transformers()
    typer.echo(measure(kind.value, model, prompts, out, samples=samples, seed=seed, begun=begun))
