"""The memory executor: a live model whose parameters are overwritten by one plan after another."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from evomerge.checkpoints.language import find_tower, is_multimodal
from evomerge.checkpoints.tensors import Library
from evomerge.errors import CheckpointError, EvaluationError
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Plan

_log = logging.getLogger(__name__)

_ORIGIN = ("_name_or_path", "architectures", "transformers_version")


def check_known(model_type: str) -> None:
    """Raise `CheckpointError` if transformers has no causal language model of this type, seeing or not."""
    known = (*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    if model_type not in known:
        close = difflib.get_close_matches(model_type, known, n=1)
        hint = f", did you mean `{close[0]}`?" if close else ""
        raise CheckpointError(
            f"transformers {transformers.__version__} has no language model of type `{model_type}`{hint}"
        )


def auto_class(config: Mapping[str, Any]) -> Any:
    """Return transformers' class by which a model of this config is loaded."""
    if is_multimodal(config) and config["model_type"] in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM


class ResidentModel:
    """At most one merged model, kept on one device and rebuilt in place.

    The first plan builds the module through transformers itself, which ties and converts weights as
    it would when loading the exported folder. Where parameters and checkpoint tensors then have the
    same names, later plans only write; families that fuse tensors on loading (mixtures of experts)
    are built anew each time.
    """

    def __init__(self, library: Library, *, device: torch.device) -> None:
        self._library = library
        self._device = device
        self._model: Any = None
        self._config: dict[str, Any] | None = None
        self._targets: dict[str, Tensor] | None = None

    def load(self, plan: Plan) -> Any:
        """Return the model (transformers' own, in eval mode) with the plan's weights.

        It is the same object as before wherever that is possible. Raises `MergeError` if the plan
        cannot be carried out, `EvaluationError` if transformers does not accept the result.
        """
        execution = Execution(plan, self._library, device=self._device)
        if self._targets is not None and self.fits(plan):
            self._overwrite(execution, self._targets)
        else:
            self._build(execution)
        return self._model

    def fits(self, plan: Plan) -> bool:
        """Return whether the plan can be carried out in the model that is there."""
        return self._targets is not None and self._config == _shaping(plan.config)

    def _overwrite(self, execution: Execution, targets: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for output in execution.plan.outputs:
                if output.name in targets:
                    targets[output.name].copy_(execution.produce(output))

    def _build(self, execution: Execution) -> None:
        plan = execution.plan
        self._model = self._targets = None
        with torch.no_grad():
            state = {output.name: execution.produce(output) for output in plan.outputs}
        self._model = build_model(plan, state).to(self._device)
        self._config = _shaping(plan.config)
        self._targets = _writable(self._model, plan)
        if self._targets is None:
            _log.info("parameters are not named as in the checkpoint: rebuilding for each candidate")


def _shaping(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config without the keys that say where a model comes from."""
    return {key: value for key, value in config.items() if key not in _ORIGIN}


def build_model(plan: Plan, state: dict[str, Tensor]) -> Any:
    """Return a transformers model of the plan's config holding `state` (checkpoint names)."""
    config = _config(plan)
    dtype = plan.config.get("dtype", plan.config.get("torch_dtype"))
    with torch.device("meta"):  # only to learn the class
        kind: Any = type(auto_class(plan.config).from_config(config))
    model, info = kind.from_pretrained(
        None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
    )
    if info["missing_keys"]:
        raise EvaluationError(f"the merge leaves `{min(info['missing_keys'])}` of the model unset")
    model.config.use_cache = False  # scoring needs no cache; generation asks for its own
    return model.eval()


def _config(plan: Plan) -> Any:
    content = dict(plan.config)
    return transformers.AutoConfig.for_model(content.pop("model_type"), **content)


def _writable(model: nn.Module, plan: Plan) -> dict[str, Tensor] | None:
    """Return the live tensor for each output of the plan, or None if the model stores others."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    shapes = {output.name: output.spec.shape for output in plan.outputs}
    stored = dict(_stored(model))
    live, disk = (find_tower(names, plan.config) for names in (stored, shapes))
    targets: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        found = name if name in shapes else name.removeprefix(prefix)
        if live and disk and (plain := live.plain(name)):
            found = disk.own(plain)
        if found not in shapes or tensor.shape != shapes[found]:
            return None
        targets[found] = tensor
    return targets


def _stored(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers that a checkpoint of `model` holds, tied ones once."""
    yield from model.named_parameters()
    saved = model.state_dict().keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in saved)
