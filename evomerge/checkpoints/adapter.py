"""What a LoRA adapter does to each tensor of its base, read from names and shapes alone.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685; DoRA: Liu et al. 2024, https://arxiv.org/abs/2402.09353.
Names and meanings are those of PEFT's files. Where PEFT skips what it does not know, this refuses.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.checkpoints.architecture import is_head
from evomerge.checkpoints.edits import Adapter, Edit, LowRank, Magnitude, Replace, Rows, Shift
from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.lora_options import LoraOptions, read_options
from evomerge.errors import CheckpointError

_ORDER: tuple[type[Edit], ...] = (Replace, Rows, LowRank, Shift, Magnitude)

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_[AB]\.weight|lora_B\.bias|lora_embedding_[AB]|"
    r"lora_magnitude_vector|token_adapter\.trainable_tokens_delta)"
)
_IN_LAYER = re.compile(r"\.\d+\.")
_TOKENS = "token_adapter.trainable_tokens_delta"
_MAGNITUDE = "lora_magnitude_vector"


def read_adapter(
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorSpec],
    base: Mapping[str, TensorSpec],
    *,
    tied: str | None = None,
    module_kind: str | None = None,
) -> Adapter:
    """Return what the adapter with these `tensors` and this `adapter_config.json` does to its `base`.

    `tied` is the embedding of a base whose head is that. `module_kind` (`linear` or `conv1d`) says how square
    weights are stored where nothing in the base shows it. Raises `CheckpointError` for anything that has no
    place in the base or no known meaning.
    """
    options = read_options(config)
    if not tensors:
        raise CheckpointError("the adapter holds no tensors")
    for key, spec in tensors.items():
        if not spec.is_float:
            raise CheckpointError(f"`{key}` of the adapter is {spec.dtype}, which is no float")
    reader = _Reader(options=options, tensors=tensors, base=base, tied=tied, kind=module_kind)
    return reader.read()


@dataclass(frozen=True, kw_only=True)
class _Reader:
    options: LoraOptions
    tensors: Mapping[str, TensorSpec]
    base: Mapping[str, TensorSpec]
    tied: str | None
    kind: str | None

    def read(self) -> Adapter:
        edits: dict[str, list[Edit]] = defaultdict(list)
        added: dict[str, str] = {}
        parts, values = _sorted(self.tensors)
        for name, key in values.items():
            place = self._value_place(name)
            if place not in self.base:
                assert self.tied is not None  # the one tensor a base may lack
                added[place] = self.tied
            self._check_shape(key, self.base[added.get(place, place)].shape)
            edits[place].append(Replace(value=key))
        for module, found in parts.items():
            self._module(module, found, edits)
        self._check_untied(values)
        self._count_tied_once(edits)
        return Adapter(
            edits={name: tuple(sorted(each, key=_rank)) for name, each in edits.items()}, added=added
        )

    def _module(self, module: str, found: Mapping[str, str], edits: dict[str, list[Edit]]) -> None:
        weight = self._place(f"{module}.weight")
        if _TOKENS in found:
            edits[weight].append(self._rows(module, weight, found[_TOKENS]))
        if set(found) - {_TOKENS}:
            low_rank = self._low_rank(module, weight, found)
            edits[weight] += [low_rank, *self._magnitude(module, weight, found, low_rank)]
        for bias, shift in self._shift(module, found):
            edits[bias].append(shift)

    def _low_rank(self, module: str, weight: str, found: Mapping[str, str]) -> LowRank:
        """Return the product of a module, its factors held to each other, to the rank and to the weight."""
        embeds = "lora_embedding_A" in found or "lora_embedding_B" in found
        names = ("lora_embedding_A", "lora_embedding_B") if embeds else ("lora_A.weight", "lora_B.weight")
        for name in names:
            if name not in found:
                raise CheckpointError(f"the adapter has no `{module}.{name}`, the other half of its product")
        a, b = found[names[0]], found[names[1]]
        shape_a, shape_b, shape = self.tensors[a].shape, self.tensors[b].shape, self.base[weight].shape
        if not len(shape_a) == len(shape_b) == len(shape) == 2 or not self.base[weight].is_float:
            raise CheckpointError(
                f"the adapter of `{module}` is no product of two matrices for a matrix of floats: A is "
                f"{list(shape_a)}, B {list(shape_b)}, the base's weight {list(shape)} "
                f"{self.base[weight].dtype}"
            )
        rank = self.options.rank_of(module)
        if not shape_a[0] == shape_b[1] == rank:
            raise CheckpointError(
                f"the adapter of `{module}` should have rank {rank} by its config, but A is {list(shape_a)} "
                f"and B {list(shape_b)}"
            )
        outer = (shape_b[0], shape_a[1])
        if (shape != outer and shape != outer[::-1]) or (embeds and shape != outer[::-1]):
            raise CheckpointError(
                f"the adapter of `{module}` is for a weight of {outer[0]} × {outer[1]}, and the base's "
                f"`{weight}` is {list(shape)}; it belongs to another base"
            )
        transposed = embeds or (self._transposed(weight) if outer[0] == outer[1] else shape != outer)
        return LowRank(a=a, b=b, scale=self.options.scale_of(module), transposed=transposed)

    def _transposed(self, weight: str) -> bool:
        """Return whether the square `weight` is stored (in, out).

        Where the caller does not say, the base may: a bias is as long as what comes out, so that of an oblong
        weight in its layers tells. PEFT's `fan_in_fan_out` comes last, as the last module that PEFT wrapped
        decides what is written there for all.
        """
        if self.kind is not None:
            return self.kind.casefold() == "conv1d"
        if _bias_of(weight) in self.base and _IN_LAYER.search(weight):
            for name, spec in self.base.items():
                bias = self.base.get(_bias_of(name))
                oblong = len(spec.shape) == 2 and spec.shape[0] != spec.shape[1]
                if bias is not None and oblong and _IN_LAYER.search(name):
                    return bias.shape == spec.shape[1:]
        return self.options.fan_in_fan_out

    def _magnitude(
        self, module: str, weight: str, found: Mapping[str, str], product: LowRank
    ) -> Iterator[Magnitude]:
        if self.options.dora != (_MAGNITUDE in found):
            has = "has no" if self.options.dora else "has a"
            raise CheckpointError(
                f"the adapter {has} `{module}.{_MAGNITUDE}`, but its `use_dora` is {self.options.dora}"
            )
        if self.options.dora:
            dim = 0 if product.transposed else 1
            self._check_shape(found[_MAGNITUDE], (self.base[weight].shape[1 - dim],))
            yield Magnitude(value=found[_MAGNITUDE], dim=dim)

    def _shift(self, module: str, found: Mapping[str, str]) -> Iterator[tuple[str, Shift]]:
        if "lora_A.weight" not in found and "lora_B.bias" not in found:
            return
        has_bias = "lora_B.bias" in found
        if self.options.lora_bias not in (None, has_bias):
            has = "has no" if self.options.lora_bias else "has a"
            raise CheckpointError(
                f"the adapter {has} `{module}.lora_B.bias`, but its `lora_bias` is {self.options.lora_bias}"
            )
        if has_bias:
            bias, key = self._place(f"{module}.bias"), found["lora_B.bias"]
            self._check_shape(key, self.base[bias].shape)
            yield bias, Shift(value=key, scale=self.options.scale_of(module))

    def _rows(self, module: str, weight: str, key: str) -> Rows:
        rows = self.options.tokens_of(module)
        if rows is None:
            raise CheckpointError(
                f"the adapter has tokens of its own for `{module}`, and its config does not say which "
                "(`trainable_token_indices`)"
            )
        shape = self.base[weight].shape
        self._check_shape(key, (len(rows), *shape[1:]))
        if max(rows, default=0) >= shape[0]:
            raise CheckpointError(
                f"the adapter changes token {max(rows)}, and the base's `{weight}` has {shape[0]}; "
                "its vocabulary is another"
            )
        return Rows(value=key, rows=rows)

    def _place(self, name: str) -> str:
        """Return the base's tensor that an adapter's model calls `name`."""
        for candidate in (name, name.partition(".")[2]):  # some bases are stored without their first word
            if candidate in self.base:
                return candidate
        if self.tied is not None and is_head(name) and name.endswith(".weight"):
            return self.tied
        raise CheckpointError(f"the adapter changes `{name}`, which its base does not have")

    def _value_place(self, name: str) -> str:
        """Return where a whole tensor goes; a saved head of a tied model is one of its own from then on."""
        place = self._place(name)
        module = name.rpartition(".")[0]
        return name if place == self.tied and is_head(name) and self.options.saves(module) else place

    def _check_shape(self, key: str, shape: tuple[int, ...]) -> None:
        if self.tensors[key].shape != shape:
            raise CheckpointError(
                f"`{key}` of the adapter is {list(self.tensors[key].shape)}, and its base needs "
                f"{list(shape)}; it belongs to another base, or to a vocabulary that was resized"
            )

    def _check_untied(self, values: Mapping[str, str]) -> None:
        """Refuse an embedding trained whole that leaves its head behind: the head's name is not known."""
        saved = [name for name in values if self.options.saves(name.rpartition(".")[0])]
        alone = self.tied is not None and not self.options.ties and not any(map(is_head, saved))
        for name in saved:
            if alone and self._place(name) == self.tied:
                raise CheckpointError(
                    f"the adapter saves `{name}` whole, but not the output head, which is the same tensor "
                    "in its base; save both (`modules_to_save`), or train with `ensure_weight_tying`"
                )

    def _count_tied_once(self, edits: dict[str, list[Edit]]) -> None:
        """Let the two products of one tied tensor count once where PEFT tied them; refuse two that differ.

        PEFT's `merge_and_unload` adds both to both, which is not what was trained.
        """
        for name, each in edits.items():
            products = [edit for edit in each if isinstance(edit, LowRank)]
            if len(products) > 1 and not (self.options.ties and name == self.tied):
                raise CheckpointError(
                    "the adapter has a product for the embedding and another for the head, which are one "
                    f"tensor (`{name}`) in its base; train with `ensure_weight_tying`, or one of the two"
                )
            for edit in each[:]:
                if len(products) > 1 and isinstance(edit, LowRank) and not edit.transposed:
                    each.remove(edit)


def _sorted(tensors: Mapping[str, TensorSpec]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the keys by module and part, and those of whole tensors by the tensor's name."""
    parts: dict[str, dict[str, str]] = defaultdict(dict)
    values: dict[str, str] = {}
    for key in tensors:
        if not key.startswith(_PREFIX):
            raise CheckpointError(f"`{key}` of the adapter has no known meaning: it lacks PEFT's `{_PREFIX}`")
        name = key.removeprefix(_PREFIX)
        if match := _PART.fullmatch(name):
            parts[match["module"]][match["part"]] = key
        elif not _is_set_aside(key, tensors):
            values[name.replace(".base_layer.", ".")] = key
    return parts, values


def _is_set_aside(key: str, tensors: Mapping[str, TensorSpec]) -> bool:
    """Return whether PEFT, which then saves biases twice, reads the tensor of a module saved whole elsewhere.

    With `bias: all` and `modules_to_save`, it writes the new bias under two names, and the old one, too.
    """
    inner = (".modules_to_save.", ".original_module.")
    return any(name in key and key.replace(name, ".") in tensors for name in inner)


def _bias_of(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"


def _rank(edit: Edit) -> int:
    return _ORDER.index(type(edit))
