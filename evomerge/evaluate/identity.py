"""Who a merged model is: a digest of its weights, and what it expects at the end of a few prompts.

Equal digests are the same model. Near fingerprints are models that nobody could tell apart by a few items;
how near follows from how far one model is from itself when the same prompts come in other batches. Gillard et
al. 2023 (Unified Functional Hashing, https://arxiv.org/abs/2302.05433) hash rounded outputs instead, which
with hundreds of them in bfloat16 never meet.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import transformers
import xxhash
from torch import Tensor

from evomerge.comparison.divergence import divergences
from evomerge.errors import EvaluationError
from evomerge.evaluate.digests import tensor_digests
from evomerge.recipe import Merge, ModelRef, Recipe
from evomerge.seeds import derive
from evomerge.types import Identified

Prompts: TypeAlias = tuple[tuple[int, ...], ...]
Encode: TypeAlias = Callable[[str], Sequence[int]]

PROMPTS = 16
TOKENS = 32
"""Of each prompt so many next tokens count: those that the reference finds most likely."""
LEAST_LOG_PROB = -12.0
"""Below this all are alike: of what is so unlikely, rounding is a large part."""
LONGEST = 128
"""Tokens of a prompt at most, its last ones: a fingerprint should cost next to nothing."""
LEAST_NOISE = 1e-10
"""Distance that counts as none at least: kernels may agree on a few batches and still not on all models."""

_TRIES = 5
_FLAT = 0.9
_SHARP = 0.01
_NOT_MEANT = ("_name_or_path", "architectures", "transformers_version")
"""Keys of a config that say where a model comes from."""


class Identification:
    """Tells who the models of one process are, all by the tokens that one reference model chose.

    `texts` are prompts of the search items, a list for each task. Whoever asks hands over the model's words:
    how texts are encoded in them, and a name that two tokenizers share only if they are the same.
    """

    def __init__(self, texts: Sequence[Sequence[str]], *, seed: int, batch_size: int, device: str) -> None:
        self._texts = texts
        self._seed = seed
        self._batch_size = batch_size
        self._device = device
        self._prompts: dict[str, Prompts] = {}
        self._words: str | None = None
        self._reference: Reference | None = None

    @property
    def begun(self) -> bool:
        """Whether the reference has been seen."""
        return self._words is not None

    def begin(self, reference: Any, encode: Encode, words: str) -> None:
        """Learn from the reference model which tokens count, and how far a model is from itself."""
        self._words = words
        prompts = self._prompts_in(encode, words)
        self._reference = refer(reference, prompts, batch_size=self._batch_size) if prompts else None

    def of(
        self, model: Any, encode: Encode, words: str, *, merge_seconds: float, screened: bool = True
    ) -> Identified:
        """Return who `model` is. Raises `EvaluationError` if it is broken, or just NaN if not `screened`.

        In other words than the reference's its fingerprint would compare to none, and it has none.
        """
        prompts, reference = self._prompts_in(encode, words), self._reference
        common = reference is not None and words == self._words
        fingerprint: tuple[tuple[float, ...], ...] = ()
        if prompts:
            found = last_log_probs(model, prompts, batch_size=self._batch_size)
            check_numbers(found)
            if screened:
                check_sound(found, reference if common else None)
            if reference and common:
                rows = fingerprint_of(found, reference.tokens).tolist()
                fingerprint = tuple(map(tuple, rows))
        return Identified(
            digest=weight_digest(model, words=words),
            fingerprint=fingerprint,
            noise=reference.noise if reference and common else 0.0,
            device=self._device,
            merge_seconds=merge_seconds,
            basis=f"{reference.name} {model.dtype}" if reference and fingerprint else "",
        )

    def _prompts_in(self, encode: Encode, words: str) -> Prompts:
        if words not in self._prompts:
            self._prompts[words] = cut_prompts(self._texts, encode, seed=self._seed)
        return self._prompts[words]


def reference_recipe(recipe: Recipe, models: Sequence[str]) -> Recipe:
    """Return the first of an evaluator's `models` as it is, in the dtype of `recipe`."""
    first = models[0]
    alone = Merge(method="linear", sources=(first,))
    return Recipe(models={first: ModelRef(source=first)}, merges={"reference": alone}, dtype=recipe.dtype)


def cut_prompts(
    texts: Sequence[Sequence[str]], encode: Encode, *, seed: int, count: int = PROMPTS
) -> Prompts:
    """Return `count` beginnings of texts as tokens, tasks taking turns; none if no text has any.

    Each ends somewhere between a quarter and all of its text, so that what comes next varies. Where there
    are fewer texts they are cut again elsewhere.
    """
    drawn = [
        random.Random(derive(seed, "fingerprint", i)).sample(each, len(each)) for i, each in enumerate(texts)
    ]
    turns = (itertools.cycle(each) for each in drawn if each)
    taken = itertools.islice(_in_turn(list(turns)), 8 * count)
    found: list[tuple[int, ...]] = []
    for k, text in enumerate(taken):
        tokens = tuple(encode(text)) if len(found) < count else ()
        if tokens:
            share = random.Random(derive(seed, "cut", k)).uniform(0.25, 1.0)
            found.append(tokens[: max(1, math.floor(share * len(tokens)))][-LONGEST:])
    return tuple(found)


def _in_turn(tasks: Sequence[Iterator[str]]) -> Iterator[str]:
    while tasks:
        for each in tasks:
            yield next(each)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What fingerprints go by: the tokens `(p, k)` that count, and what they differ by if nothing does.

    `varied` tells whether the reference expects different tokens after different prompts, `entropy` how many:
    the mean over prompts, in nats. `name` is shared
    only by references of the same prompts and tokens.
    """

    tokens: Tensor
    noise: float
    varied: bool
    entropy: float
    name: str


def refer(model: Any, prompts: Prompts, *, batch_size: int) -> Reference:
    """Return the model as a reference. Raises `EvaluationError` if it is NaN.

    The noise is the 99 % quantile of the distances between five fingerprints of it, in batches of other
    sizes, orders and paddings, which ought to be none.
    """
    first = last_log_probs(model, prompts, batch_size=batch_size)
    check_numbers(first)
    tokens = first.topk(min(TOKENS, first.shape[-1]), dim=-1).indices
    seen = [fingerprint_of(first, tokens)]
    for order, size, padding in itertools.islice(_other_batches(len(prompts), batch_size), _TRIES - 1):
        again = last_log_probs(model, prompts, batch_size=size, order=order, padding=padding)
        seen.append(fingerprint_of(again, tokens))
    stacked = torch.stack(seen).double().numpy()
    apart = [divergences(one, stacked[i + 1 :]) for i, one in enumerate(stacked[:-1])]
    versions = [torch.__version__, transformers.__version__]
    content = json.dumps([prompts, tokens.tolist(), versions])
    return Reference(
        tokens=tokens,
        noise=max(LEAST_NOISE, float(np.quantile(np.concatenate(apart), 0.99))),
        varied=len(set(first.argmax(-1).tolist())) > 1,
        entropy=mean_entropy(first),
        name=hashlib.blake2b(content.encode(), digest_size=8).hexdigest(),
    )


def _other_batches(count: int, most: int) -> Iterator[tuple[list[int], int, int]]:
    """Yield orders of so many prompts, sizes of batches up to `most`, and how many tokens to pad by."""
    forwards = list(range(count))
    sizes = [1, max(1, min(most, count) // 2), min(most, count), max(1, min(most, count) // 3)]
    for i, size in enumerate(sizes):
        order = random.Random(derive(0, "batches", i)).sample(forwards, count)
        yield order, size, 5 * (i % 2)


@torch.inference_mode()
def last_log_probs(
    model: Any,
    prompts: Prompts,
    *,
    batch_size: int,
    order: Sequence[int] | None = None,
    padding: int = 0,
) -> Tensor:
    """Return the log-probabilities `(p, vocabulary)` after each prompt, in float32 on the CPU.

    Prompts are batched in `order` and padded on the right, with `padding` tokens more than they need; a
    causal model does not see them.
    """
    order = range(len(prompts)) if order is None else order
    rows: dict[int, Tensor] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        width = max(len(prompts[i]) for i in batch) + padding
        padded = [[*prompts[i], *[0] * (width - len(prompts[i]))] for i in batch]
        logits = model(torch.tensor(padded, device=model.device)).logits
        ends = torch.tensor([len(prompts[i]) - 1 for i in batch], device=logits.device)
        last = logits[torch.arange(len(batch), device=logits.device), ends]
        rows |= zip(batch, last.float().log_softmax(-1).cpu(), strict=True)
    return torch.stack([rows[i] for i in range(len(prompts))])


def fingerprint_of(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probabilities `(p, k)` of the tokens that count."""
    return log_probs.gather(-1, tokens).clamp(min=LEAST_LOG_PROB)


def check_numbers(log_probs: Tensor) -> None:
    """Raise `EvaluationError` if what a model expects is no number."""
    if bool(log_probs.isnan().any()):
        raise EvaluationError("the model is broken: its logits are NaN or infinite")


def mean_entropy(log_probs: Tensor) -> float:
    """Return how open what comes next is, in nats: the mean over prompts of `log_probs (p, vocabulary)`."""
    return float(torch.special.entr(log_probs.exp()).sum(-1).mean())


def check_sound(log_probs: Tensor, reference: Reference | None) -> None:
    """Raise `EvaluationError` for a model that only babbles, from its `log_probs (p, vocabulary)`.

    That is: it expects anything, or is certain, or expects the same token whatever it read, where the
    `reference`, which counts as sound, is not so itself.
    """
    entropy, most = mean_entropy(log_probs), math.log(log_probs.shape[-1])
    usual = reference.entropy if reference is not None else most / 2
    if entropy > _FLAT * most >= usual:
        raise EvaluationError(
            f"the model is broken: after {len(log_probs)} prompts it expects nearly any token (entropy "
            f"{entropy:.2f} of at most {most:.2f})"
        )
    if entropy < _SHARP <= usual:
        raise EvaluationError(
            f"the model is broken: after {len(log_probs)} prompts it is certain of the next token (entropy "
            f"{entropy:.4f})"
        )
    varied = reference is not None and reference.varied
    if varied and len(log_probs) > 1 and len(set(log_probs.argmax(-1).tolist())) == 1:
        raise EvaluationError(
            f"the model is broken: after each of {len(log_probs)} prompts it expects the same token most"
        )


def weight_digest(model: Any, *, words: str) -> str:
    """Return `xxh3:` and 32 hex digits over the model's tensors, its config and the name of its words.

    Tensors count by name, shape, dtype and bytes, and those that share a storage are read once. What lies on
    a GPU is summed up there, so that its digest compares to those of other models on GPUs only.
    """
    whole = xxhash.xxh3_128()
    whole.update(json.dumps([words, _config(model)], sort_keys=True, default=str).encode())
    named = sorted(model.state_dict().items())
    places = [(each.device, each.data_ptr(), each.dtype, each.shape, each.stride()) for _, each in named]
    known = {place: tensor for place, (_, tensor) in zip(places, named, strict=True)}
    digests = dict(zip(known, tensor_digests(list(known.values())), strict=True))
    for place, (name, tensor) in zip(places, named, strict=True):
        whole.update(f"{name} {list(tensor.shape)} {tensor.dtype} {digests[place]}\n".encode())
    return f"xxh3:{whole.hexdigest()}"


def _config(model: Any) -> Mapping[str, Any]:
    return {key: value for key, value in model.config.to_dict().items() if key not in _NOT_MEANT}
