"""`evomerge measure fisher|gram|influence MODEL OUT`: what a search may know of a model beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.screen import stderr

if TYPE_CHECKING:
    from rich.table import Table


class Kind(StrEnum):
    """What to measure."""

    fisher = "fisher"
    gram = "gram"
    influence = "influence"


def command(
    kind: Annotated[Kind, typer.Argument(help="What to measure.", show_default=False)],
    model: Annotated[str, typer.Argument(help="A folder, a hub id or zoo:NAME.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    prompts: Annotated[
        Path, typer.Option(help="A text file, one prompt a line, or .jsonl with a field `text`.")
    ],
    samples: Annotated[int, typer.Option(min=1, help="Use at most so many prompts.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Draws the prompts, and a Fisher's labels.")] = 0,
    skip_first: Annotated[
        bool, typer.Option("--skip-first", help="Leave each prompt's first token out of an influence.")
    ] = False,
) -> None:
    """Measure a model on prompts, and write what was found to a file that a space can name.

    fisher: the diagonal Fisher information, by which `fisher` merges
    gram: the inputs of linear layers, by which `regmean` merges
    influence: how much each layer turns the hidden state (block influence)
    """
    from evomerge.checkpoints.influence import read_influence
    from evomerge.checkpoints.measured import open_measured
    from evomerge.evaluate.evaluator import quiet_transformers
    from evomerge.evaluate.measure import measure

    def begun(texts: int, tokens: int) -> None:
        told = f"Measuring the {kind} of {model} on {texts} prompts, {tokens} tokens …"
        stderr.print(told, highlight=False, markup=False, soft_wrap=True)

    quiet_transformers()
    written = measure(
        kind.value, model, prompts, out, samples=samples, seed=seed, skip_first=skip_first, begun=begun
    )
    if kind is Kind.influence:
        stderr.print(_influence_table(read_influence(open_measured(written, "influence"))))
    typer.echo(written)


def _influence_table(found: Sequence[float]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("layer", justify="right")
    table.add_column("influence", justify="right")
    for layer, influence in enumerate(found):
        table.add_row(str(layer), f"{influence:.4f}")
    return table
