"""A folder of cases: what was merged, with which parameters, and the numbers that must come out."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Tensors: TypeAlias = dict[str, Tensor]

ONLY = "w"  # the name of a case's single tensor
_INFORMATION = re.compile(r"(mergekit|mk|official|peft|mergelm|fusion_bench|fb|reference)(_|$)")
_MERGED = ("value", "spec_value", "result")
"""Other names of a merge among named outputs."""


@dataclass(frozen=True)
class Case:
    """One entry of an index. Parts are keys of `arrays`, or lists and tables of keys."""

    entry: Mapping[str, Any]
    index: Mapping[str, Mapping[str, Any]] = field(repr=False)
    arrays: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    device: str = "cpu"

    @property
    def id(self) -> str:
        return str(self.entry["id"])

    def other(self, name: str) -> "Case":
        """Return the case of this id in the same folder."""
        return Case(self.index[name], self.index, self.arrays, self.device)

    @property
    def method(self) -> str:
        return str(self.entry["method"])

    @property
    def kind(self) -> str:
        return str(self.entry["kind"])

    @property
    def compat(self) -> str:
        return "evomerge" if self.entry["compat"] == "any" else str(self.entry["compat"])

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.entry["params"] or {})

    @property
    def tol(self) -> tuple[float, float]:
        return float(self.entry["tol"]["rtol"]), float(self.entry["tol"]["atol"])

    @property
    def base(self) -> Tensors | None:
        return None if self.entry["base"] is None else self.named(self.entry["base"])

    @property
    def models(self) -> list[Tensors]:
        return [self.named(each) for each in self.entry["models"] or ()]

    @property
    def aux(self) -> Mapping[str, Any]:
        return self.entry["aux"] or {}

    @property
    def expected(self) -> dict[str, Any]:
        """The named outputs; a lone one is called `merged`. What is there for information only is not."""
        parts = {} if self.entry["expected"] is None else self.entry["expected"]
        if not isinstance(parts, dict):
            return {"merged": self.read(parts)}
        template = self.entry["base"] or (self.entry["models"] or [None])[0]
        if isinstance(template, dict) and set(parts) == set(template):
            return {"merged": self.read(parts)}
        return {
            "merged" if name in _MERGED else name: self.read(part)
            for name, part in parts.items()
            if not _INFORMATION.match(name)
        }

    def named(self, part: Any) -> Tensors:
        """Return a part as tensors by name: a single array is called `ONLY`."""
        return {
            name: self.tensor(key) for name, key in (part if isinstance(part, dict) else {ONLY: part}).items()
        }

    def read(self, part: Any) -> Any:
        """Return a part with its keys replaced by tensors."""
        if isinstance(part, dict):
            return {name: self.read(each) for name, each in part.items()}
        if isinstance(part, list):
            return [self.read(each) for each in part]
        return self.tensor(part)

    def tensor(self, key: str) -> Tensor:
        array = self.arrays[key]
        if self.entry["dtype"] == "bfloat16" and array.dtype == np.uint16:
            return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(np.array(array))


@cache
def read_cases(folder: Path, device: str = "cpu") -> tuple[Case, ...]:
    """Return the cases of the index in `folder`, to be merged on `device`.

    Raises `ValueError` if an id stands twice.
    """
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    with np.load(folder / index.get("arrays", "arrays.npz")) as file:
        arrays = dict(file)
    ids = [entry["id"] for entry in index["cases"]]
    if len(set(ids)) < len(ids):
        raise ValueError(f"{folder / 'index.json'} names a case twice")
    by_id = {entry["id"]: entry for entry in index["cases"]}
    return tuple(Case(entry, by_id, arrays, device) for entry in index["cases"])


def assert_close(found: Any, expected: Any, case: Case) -> None:
    """Hold `found` to the `expected` tensor, or list or table of them, within the tolerance of `case`."""
    if isinstance(expected, dict):
        assert set(found) >= set(expected)
        for name, each in expected.items():
            assert_close(found[name], each, case)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, case)
    else:
        number = found if isinstance(found, Tensor) else torch.as_tensor(np.asarray(found))
        assert number.shape == expected.shape
        rtol, atol = case.tol
        torch.testing.assert_close(number.double(), expected.double(), rtol=rtol, atol=atol)


def keys(part: Any) -> list[str]:
    """Return every array that a part names."""
    if part is None:
        return []
    if isinstance(part, str):
        return [part]
    parts: Sequence[Any] = list(part.values()) if isinstance(part, dict) else part
    return [key for each in parts for key in keys(each)]
