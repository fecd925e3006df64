"""The memory executor: one live model, whose tensors one plan after another replaces."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from evomerge.checkpoints.language import is_multimodal
from evomerge.checkpoints.tensors import Library
from evomerge.errors import CheckpointError, EvaluationError
from evomerge.merge.compiling import LEAST_PARAMETERS, Loops, can_compile
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Plan, one_tensor
from evomerge.merge.skeleton import Skeleton, form_of, live_tensors, stand_ins
from evomerge.merge.streaming import Orders

_log = logging.getLogger(__name__)

_KEPT = 16
"""Skeletons at hand, some hundred kilobytes each: a search over depths meets few forms, but may meet many."""


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
    """At most one merged model, on one device; a plan's tensors take the place of those before.

    Modules are built through transformers itself, which ties and converts weights as it would when loading
    the exported folder. Where parameters and checkpoint tensors then have the same names, modules stay for
    later plans of their form, without tensors while others are in use: candidates of different depths follow
    each other. Families that fuse tensors on loading (mixtures of experts) are built anew each time.
    """

    def __init__(self, library: Library, *, device: torch.device) -> None:
        self._library = library
        self._device = device
        self._orders = Orders()
        self._loops = Loops() if can_compile(device) else None
        self._model: Any = None
        self._skeletons: list[Skeleton] = []  # the one used last is the last

    def load(self, plan: Plan) -> Any:
        """Return the model (transformers' own, in eval mode) with the plan's weights.

        It is the same object as before wherever that is possible. Raises `MergeError` if the plan
        cannot be carried out, `EvaluationError` if transformers does not accept the result.
        """
        loops = self._loops if plan.parameters >= LEAST_PARAMETERS else None
        execution = Execution(plan, self._library, device=self._device, orders=self._orders, loops=loops)
        skeleton = self._skeletons[-1] if self.fits(plan) else self._change(plan)
        if skeleton is None:
            self._model = self._build(execution)
        else:
            skeleton.fill(execution)
            self._model = skeleton.model
        return self._model

    def fits(self, plan: Plan) -> bool:
        """Return whether the plan can be carried out in the model that is there."""
        current = self._skeletons[-1] if self._skeletons else None
        return current is not None and current.model is self._model and current.form == form_of(plan)

    def _change(self, plan: Plan) -> Skeleton | None:
        """Let go of what is there and return other modules, or None if they are built with their tensors."""
        self._model = None
        if self._skeletons:
            self._skeletons[-1].release()
        form = form_of(plan)
        found = next((each for each in self._skeletons if each.form == form), None) or self._skeleton(plan)
        if found is not None:
            others = [each for each in self._skeletons if each is not found]
            self._skeletons = [*others, found][-_KEPT:]
        return found

    def _skeleton(self, plan: Plan) -> Skeleton | None:
        if live_tensors(_empty(plan), plan) is None:
            _log.info("parameters are not named as in the checkpoint: rebuilding for each candidate")
            return None
        model = build_model(plan, stand_ins(plan))
        for buffer in model.buffers():  # parameters come with a plan, on the device
            buffer.data = buffer.to(self._device)
        targets = live_tensors(model, plan)
        return None if targets is None else Skeleton(model, form_of(plan), targets)

    def _build(self, execution: Execution) -> Any:
        plan = execution.plan
        state: dict[str, Tensor] = {}
        with torch.no_grad():
            for outputs in one_tensor(plan.outputs):
                value = execution.produce(outputs[0], lend=True)
                state |= dict.fromkeys((output.name for output in outputs), value)
        return build_model(plan, state).to(self._device)


def build_model(plan: Plan, state: dict[str, Tensor]) -> Any:
    """Return a transformers model of the plan's config holding `state` (checkpoint names)."""
    config = _config(plan)
    dtype = plan.config.get("dtype", plan.config.get("torch_dtype"))
    kind = type(_empty(plan))
    model, info = kind.from_pretrained(
        None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
    )
    if info["missing_keys"]:
        raise EvaluationError(f"the merge leaves `{min(info['missing_keys'])}` of the model unset")
    model.config.use_cache = False  # scoring needs no cache; generation asks for its own
    return model.eval()


def _empty(plan: Plan) -> Any:
    """Return a model of the plan's config whose tensors have no values."""
    with torch.device("meta"):
        return auto_class(plan.config).from_config(_config(plan))


def _config(plan: Plan) -> Any:
    content = dict(plan.config)
    return transformers.AutoConfig.for_model(content.pop("model_type"), **content)
