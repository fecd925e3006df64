"""Cases of what makes a source ready to be merged: adapters, vocabularies, language towers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from evomerge.checkpoints.adapted import apply_adapter
from evomerge.checkpoints.embeddings import align_embeddings
from evomerge.checkpoints.language import language_names
from tests.conformance.cases import ONLY, Case


def adapter(case: Case, name: str) -> Mapping[str, Tensor]:
    """The weights of a base under a LoRA adapter."""
    assert name == "merged"
    assert case.base is not None
    params, parts = case.params, case.named(case.aux["adapter"])
    return apply_adapter(
        case.base, parts, params["adapter_config"], module_kind=params.get("module_kind")
    ).weights


def embeddings(case: Case, name: str) -> list[Tensor]:
    """Each model's embedding, rows ordered by one vocabulary."""
    assert name == "merged"
    params = case.params
    rows = [
        tokens if isinstance(tokens, dict) else {token: row for row, token in enumerate(tokens)}
        for tokens in params["vocabs"]
    ]
    return align_embeddings(
        list(params["out_vocab"]),
        rows,
        [model[ONLY] for model in case.models],
        base_index=params.get("base_index"),
        pad_to_multiple_of=params.get("pad_to_multiple_of"),
    )


def names_of(case: Case) -> None:
    """What a plain LLM calls each tensor of a vision-language model, on disk and in the live module."""
    params: dict[str, Any] = dict(case.params)
    for side in ("module_names", "disk_names"):
        assert language_names(params[side], {"model_type": params["model_type"]}) == params[side]
