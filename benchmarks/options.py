"""What it saves to read a question once for all of its options: against lm-eval's own way, on a random Llama.

Plain rows differ from lm-eval's in that no logits are made that nobody asks about. All three answer the same.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from lm_eval.models.huggingface import HFLM

from evomerge.checkpoints.locate import ZOO
from evomerge.evaluate.evaluator import device_named, only_compute
from evomerge.evaluate.likelihoods import Answer, Pair, answers, pack, plain_rows
from evomerge.evaluate.prefixes import Questions

SHAPES = ((200, 4, 10), (200, 4, 2), (60, 2, 20), (30, 2, 30), (30, 6, 3))
"""Tokens of the context, options, and tokens of each."""

_LONGEST = 2048


def model_of(hidden: int, layers: int, vocabulary: int, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a random Llama."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        vocab_size=vocabulary,
        max_position_embeddings=_LONGEST,
        initializer_range=0.05,
        use_cache=False,
    )
    model: Any = transformers.LlamaForCausalLM(config)
    return model.to(device, dtype).eval()


def pairs_of(context: int, options: int, length: int, questions: int, vocabulary: int) -> list[Pair]:
    """Return random questions with their options."""
    rng = random.Random(0)

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, vocabulary) for _ in range(count))

    contexts = [words(context) for _ in range(questions)]
    return [Pair(context=each, continuation=words(length)) for each in contexts for _ in range(options)]


def ways(model: Any, pairs: Sequence[Pair], batch_size: int) -> dict[str, Callable[[], list[Answer]]]:
    """Return what answers the pairs, ready to."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(ZOO / "models" / "base")
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")
    requests = [(("", ""), list(pair.context), list(pair.continuation)) for pair in pairs]
    rows = plain_rows(dict(enumerate(pairs)), _LONGEST)
    plain = pack(rows, batch_size=batch_size, device=model.device)
    together = Questions(pairs, longest=_LONGEST, batch_size=batch_size, device=model.device)
    return {
        "lm-eval": lambda: list(lm._loglikelihood_tokens(requests, disable_tqdm=True)),
        "plain rows": lambda: answers(model, plain, len(pairs)),
        "together": lambda: together.answer(model, "llama"),
    }


def _seconds(act: Callable[[], object]) -> float:
    """Return the processor's seconds on one thread, the clock's on a GPU."""
    if not torch.cuda.is_available():
        started = time.process_time()
        act()
        return time.process_time() - started
    started = time.perf_counter()
    act()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Time the ways in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    asked = parser.parse_args()
    only_compute(1)
    model = model_of(
        asked.hidden, asked.layers, asked.vocabulary, device_named("auto"), getattr(torch, asked.dtype)
    )
    print(f"a Llama of {asked.hidden} × {asked.layers}, {asked.vocabulary} words, on {model.device}\n")
    print("| context, options × tokens | lm-eval, ms | plain rows, ms | together, ms | faster | off by |")
    print("|---|---|---|---|---|---|")
    for context, options, length in SHAPES:
        pairs = pairs_of(context, options, length, asked.questions, asked.vocabulary)
        acts = ways(model, pairs, asked.batch_size)
        found = {name: act() for name, act in acts.items()}
        best = {name: min(_seconds(act) for _ in range(asked.repeats)) for name, act in acts.items()}
        off = max(
            abs(one - other) for (one, _), (other, _) in zip(found["lm-eval"], found["together"], strict=True)
        )
        print(
            f"| {context}, {options} × {length} | {' | '.join(f'{1000 * best[name]:.0f}' for name in acts)} "
            f"| {best['lm-eval'] / best['together']:.1f}× | {off:.1g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
