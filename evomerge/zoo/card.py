"""The model card of a zoo model: what it knows, and its licence where tools look for it."""

from pathlib import Path

from evomerge.zoo.catalog import ADAPTERS, BASE, KNOWS

_CARD = """\
---
license: apache-2.0
language: [art]
tags: [evomerge, zoo]
---

# zoo:{name}

{knows}. {made}

One of the small models that evomerge's examples and tests merge, trained by `evomerge zoo build` on text made
by evomerge itself.
"""


def write_card(folder: Path, name: str) -> None:
    """Write README.md into the folder of the model `name`."""
    expert, rank = ADAPTERS.get(name, (name, 0))
    made = "Trained from nothing." if name == BASE else f"Trained from zoo:{BASE}."
    if rank:
        made = f"A LoRA adapter of zoo:{BASE}, of rank {rank}, cut from zoo:{expert}."
    knows = f"{KNOWS[expert][0].upper()}{KNOWS[expert][1:]}"
    (folder / "README.md").write_text(_CARD.format(name=name, knows=knows, made=made), encoding="utf-8")
