"""`evomerge schema`: the JSON schema of a space file, for editors."""

from __future__ import annotations

import json

import typer


def command() -> None:
    """Print the JSON schema of a space file, with which editors complete keys and mark mistakes."""
    from evomerge.space.json_schema import space_schema

    typer.echo(json.dumps(space_schema(), indent=2, ensure_ascii=False))
