"""What an `adapter_config.json` of PEFT says of the maths; what evomerge cannot carry out is refused.

Read from PEFT 0.21: https://huggingface.co/docs/peft/package_reference/lora. PEFT ignores options that it
does not know; here an option that is set and not known is an error, as it may change what the weights mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regex

from evomerge.errors import CheckpointError

_MATCH_SECONDS = 1.0

_WITHOUT_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules",
    "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout",
    "lora_ga_config", "megatron_core", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "target_modules", "task_type",
}  # fmt: skip
"""Options of training, or that the file's tensors answer; those of a way to begin matter only with it."""

_UNDERSTOOD = {
    "alpha_pattern", "bias", "ensure_weight_tying", "fan_in_fan_out", "init_lora_weights", "lora_alpha",
    "lora_bias", "modules_to_save", "peft_type", "r", "rank_pattern", "trainable_token_indices", "use_dora",
    "use_rslora",
}  # fmt: skip

_FAITHFUL_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin that leave the base's weights as they are; others (`pissa`, `olora`, …) take out a part."""


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """The options that decide what the tensors of a LoRA adapter mean."""

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rslora: bool
    dora: bool
    lora_bias: bool | None
    """None: the config does not say, so the file's tensors do."""
    fan_in_fan_out: bool
    saved: tuple[str, ...]
    tokens: Mapping[str, tuple[int, ...]]
    ties: bool

    def rank_of(self, module: str) -> int:
        """Return the rank of the adapter of `module`."""
        return self.ranks.get(_pattern(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """Return what multiplies B·A in `module`: α/r, or α/√r (https://arxiv.org/abs/2312.03732)."""
        alpha, rank = self.alphas.get(_pattern(self.alphas, module), self.alpha), self.rank_of(module)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def saves(self, module: str) -> bool:
        """Return whether the adapter holds `module` whole (`modules_to_save`)."""
        return any(module == name or module.endswith(f".{name}") for name in self.saved)

    def tokens_of(self, module: str) -> tuple[int, ...] | None:
        """Return the rows of `module` that the adapter replaces; None if it says nothing of them."""
        for name, rows in self.tokens.items():
            if not name or module == name or module.endswith(f".{name}"):
                return rows
        return None


def read_options(config: Mapping[str, Any]) -> LoraOptions:
    """Return the options in PEFT's words. Raises `CheckpointError` for one that cannot be carried out."""
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(f"the adapter is of type {kind} (`peft_type`), and only LORA can be merged")
    for name, value in config.items():
        if name not in _WITHOUT_EFFECT | _UNDERSTOOD and value:
            raise CheckpointError(
                f"the adapter uses `{name}: {value}`, which evomerge cannot merge; merge it into its base "
                "with PEFT's `merge_and_unload` where that can, and use the result"
            )
    _check_init(config.get("init_lora_weights", True))
    _one_of(config, "bias", "none", ("none", "all", "lora_only"))
    return LoraOptions(
        rank=_rank(config.get("r"), "r"),
        alpha=_number(config.get("lora_alpha"), "lora_alpha"),
        ranks={key: _rank(value, f"rank_pattern.{key}") for key, value in _patterns(config, "rank_pattern")},
        alphas={
            key: _number(value, f"alpha_pattern.{key}") for key, value in _patterns(config, "alpha_pattern")
        },
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
        lora_bias=bool(config["lora_bias"]) if "lora_bias" in config else None,
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        saved=_words(config.get("modules_to_save") or [], "modules_to_save"),
        tokens=_tokens(config.get("trainable_token_indices")),
        ties=bool(config.get("ensure_weight_tying")),
    )


def _check_init(init: Any) -> None:
    if init not in _FAITHFUL_INITS:
        raise CheckpointError(
            f"the adapter began by taking a part out of its base (`init_lora_weights: {init}`), so it does "
            "not fit the base as it is; save it with PEFT's `path_initial_model_for_weight_conversion`"
        )


def _one_of(config: Mapping[str, Any], key: str, default: str, known: tuple[str, ...]) -> None:
    if config.get(key, default) not in known:
        raise _wrong(key, f"one of {', '.join(known)}", config[key])


def _patterns(config: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    """Return the entries of a table by regular expressions, each checked to be one."""
    table = config.get(key) or {}
    if not isinstance(table, Mapping):
        raise _wrong(key, "a table by module", table)
    for pattern in table:
        try:
            regex.compile(pattern)
        except (regex.error, TypeError) as error:
            raise _wrong(key, f"a table by regular expressions ({error})", pattern) from error
    return list(table.items())


def _pattern(patterns: Mapping[str, Any], module: str) -> str:
    """Return the first key that matches the end of the module's name, as PEFT does; the name if none does."""
    return next((key for key in patterns if _matches(key, module)), module)


def _matches(pattern: str, module: str) -> bool:
    try:
        return regex.match(rf"(.*\.)?({pattern})$", module, timeout=_MATCH_SECONDS) is not None
    except TimeoutError as error:
        raise CheckpointError(
            f"the adapter's pattern `{pattern}` takes for ever to be matched with `{module}`; name its "
            "modules one by one"
        ) from error


def _tokens(value: Any) -> dict[str, tuple[int, ...]]:
    """Return rows by module name; a plain list is for whatever module has such rows."""
    if value is None:
        return {}
    table = value if isinstance(value, Mapping) else {"": value}
    for rows in table.values():
        if not isinstance(rows, list | tuple) or any(type(row) is not int or row < 0 for row in rows):
            raise _wrong("trainable_token_indices", "lists of token ids", value)
    return {str(name): tuple(rows) for name, rows in table.items()}


def _rank(value: Any, key: str) -> int:
    if type(value) is not int or value < 1:
        raise _wrong(key, "a whole number from 1", value)
    return value


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong(key, "a number", value)
    return float(value)


def _words(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise _wrong(key, "a list of names", value)
    return tuple(value)


def _wrong(key: str, wanted: str, found: Any) -> CheckpointError:
    return CheckpointError(f"`{key}` of the adapter must be {wanted}, found {found!r}")
