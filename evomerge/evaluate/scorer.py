"""lm-eval's Hugging Face model around a live module, which changes; the file that touches `HFLM`'s insides.

Read from lm_eval 0.4.13. What is private there: `HFLM._model`, `_device`, `_config`, `_encode_pair` and what
`HFLM.loglikelihood` and `loglikelihood_rolling` do. `tests/evaluate/test_scorer.py` holds these to lm-eval's.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from evomerge.errors import EvaluationError
from evomerge.evaluate.likelihoods import Answer, Pair
from evomerge.evaluate.prefixes import Questions
from evomerge.evaluate.quiet import quiet_lm_eval

_KEPT = 64
"""Sets of requests that stay packed: a search asks each task's looks, and a few others at its end."""


@dataclass(frozen=True, kw_only=True)
class _Rolling:
    """Texts in windows as long as the model sees: the questions, and whose text each window is of."""

    runs: tuple[Questions, ...]
    texts: tuple[int, ...]


class Scorer(HFLM):
    """Answers lm-eval's requests; what does not depend on a model's weights is done once.

    That is: texts become tokens, and log-likelihood requests batches on the device. Requests are known again
    by their texts.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int) -> None:
        quiet_lm_eval()
        super().__init__(
            pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32"
        )
        self._tokens: dict[Any, list[int]] = {}
        self._packed = functools.lru_cache(_KEPT)(self._pack)
        self._packed_texts = functools.lru_cache(_KEPT)(self._pack_texts)
        self._form: tuple[Any, str] = (None, "")
        self.bind(model)

    def bind(self, model: Any) -> None:
        """Ask another model of the same architecture from now on; None lets the last one go."""
        self.pretrained = self._model = model
        if model is None:
            self._form = (None, "")
            return
        self._device, self._config = model.device, model.config
        if self._form[0] is not model:
            said = {**model.config.to_dict(), "kind": type(model).__qualname__}
            self._form = (model, json.dumps(said, sort_keys=True, default=str))

    def tok_encode(self, string: Any, *args: Any, **kwargs: Any) -> list[int]:
        if not isinstance(string, str):
            return list(super().tok_encode(string, *args, **kwargs))
        key = (string, args, tuple(sorted(kwargs.items())))
        if key not in self._tokens:
            self._tokens[key] = list(super().tok_encode(string, *args, **kwargs))
        return list(self._tokens[key])

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[Answer]:
        """Return of each request's continuation its log-likelihood, and whether it is the likeliest."""
        del disable_tqdm
        texts = tuple(request.args for request in requests)
        questions = self._packed(texts, self.max_length, self.device)
        return questions.answer(self.model, self._form[1])

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:
        """Return the log-likelihood of each request's text, of which the model sees a window at a time."""
        del disable_tqdm
        rolling = self._packed_texts(
            tuple(request.args[0] for request in requests), self.max_length, self.device
        )
        found = [each for run in rolling.runs for each in run.answer(self.model, self._form[1])]
        likelihoods = [0.0] * len(requests)
        for text, (likelihood, _) in zip(rolling.texts, found, strict=True):
            likelihoods[text] += likelihood
        return likelihoods

    def _pack(self, texts: tuple[tuple[str, str], ...], longest: int, device: torch.device) -> Questions:
        pairs = [self._pair(context, continuation) for context, continuation in texts]
        return self._questions(pairs, longest, device)

    def _pack_texts(self, texts: tuple[str, ...], longest: int, device: torch.device) -> _Rolling:
        """Return the windows of all texts, in runs of a batch as lm-eval takes them: in the texts' order."""
        windows, owners = [], []
        for owner, text in enumerate(texts):
            for window in get_rolling_token_windows(
                self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=longest, context_len=1
            ):
                context, continuation = make_disjoint_window(window)
                windows.append(Pair(context=tuple(context), continuation=tuple(continuation)))
                owners.append(owner)
        size = self.batch_size
        runs = [windows[start : start + size] for start in range(0, len(windows), size)]
        return _Rolling(
            runs=tuple(self._questions(run, longest, device) for run in runs), texts=tuple(owners)
        )

    def _questions(self, pairs: Sequence[Pair], longest: int, device: torch.device) -> Questions:
        return Questions(pairs, longest=longest, batch_size=self.batch_size, device=device)

    def _pair(self, context: str, continuation: str) -> Pair:
        """Return a request's tokens; where there is no context it begins as lm-eval has texts begin."""
        if context:
            before, after = self._encode_pair(context, continuation)
        else:
            after = self.tok_encode(continuation, add_special_tokens=False)
            before = [self.prefix_token_id]
            if after[:1] == before:
                before, after = after[:1], after[1:]
        if not before or not 0 < len(after) <= self.max_length:
            raise EvaluationError(
                f"a task asks for the log-likelihood of {len(after)} tokens after {len(before)}; the model "
                f"needs at least one of each and sees {self.max_length}"
            )
        return Pair(context=tuple(before), continuation=tuple(after))
