"""What scores may depend on besides the model: versions, platform and device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.archive.record import provenance
from evomerge.evaluate.evaluator import device_label

_SEARCH_ONLY = ("optuna", "cma", "ray")


def environment() -> dict[str, Any]:
    """Return this process's provenance, as a run records it, and the device it computes on."""
    return {**provenance(), "device": device_label("auto")}


def differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return what tells two environments apart, a phrase each; what is not recorded counts as different."""
    there, now = _facts(recorded), _facts(here)
    return [
        f"{what} {there.get(what) or 'not recorded'} there, {value or 'none'} here"
        for what, value in now.items()
        if there.get(what) != value
    ]


def _facts(environment: Mapping[str, Any]) -> dict[str, str | None]:
    versions = environment.get("versions", {})
    return {
        "device": environment.get("device"),
        **{name: version for name, version in versions.items() if name not in _SEARCH_ONLY},
        "evomerge commit": environment.get("commit"),
        "python": environment.get("python"),
        "platform": environment.get("platform"),
    }
