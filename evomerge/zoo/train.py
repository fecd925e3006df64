"""Training one model of the zoo: a short loop with Muon for the layers' matrices and AdamW for the rest."""

import itertools
import logging
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.zoo.corpus import Row, rows

log = logging.getLogger(__name__)

BATCH = 64  # rows a step
CHUNK = 16  # batches among which rows are sorted by length, so that little is padded
PROMPT_WEIGHT = 0.1  # what a token of the prompt counts in the loss; one of the answer counts 1
REPORT_EVERY = 50
WEIGHT_DECAY = 0.1  # of the layers' matrices


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast a model learns."""

    steps: int
    muon: float = 0.02  # peak learning rates
    adamw: float = 3e-3
    warmup: int = 20


SCHEDULES: Mapping[str, Schedule] = {  # experts learn slowly: those that stray from the base do not merge
    "base": Schedule(steps=900),
    "math": Schedule(steps=350, muon=0.005, adamw=8e-4),
    "lang": Schedule(steps=200, muon=8e-4, adamw=3e-3),
    "logic": Schedule(steps=150, muon=0.003, adamw=8e-4),
    "poor": Schedule(steps=100, muon=0.003, adamw=8e-4),
}


def untrained(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A model with random weights drawn from `seed`, about 1.24 million of them."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config._attn_implementation = "eager"  # at this size faster than sdpa on a CPU
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, name: str, seed: int) -> float:
    """Train `model` in place on the text of `name` and return the last loss."""
    schedule = SCHEDULES[name]
    optimizers = _optimizers(model, schedule)
    started, value = time.monotonic(), float("nan")
    model.train()
    batches = itertools.islice(_batches(name, tokenizer, random.Random(f"{seed}/{name}")), schedule.steps)
    for step, (ids, weights) in enumerate(batches):
        rate = min(1.0, (step + 1) / schedule.warmup) * (1 - step / schedule.steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate
        loss = _loss(model, ids, weights)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % REPORT_EVERY == 0:
            value = float(loss.detach())
            seconds = time.monotonic() - started
            log.info("%s: step %d of %d, loss %.3f, %.0f s", name, step + 1, schedule.steps, value, seconds)
    model.train(False)
    return value


def _optimizers(model: LlamaForCausalLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or ".layers." not in n]
    muon = torch.optim.Muon(matrices, lr=schedule.muon, weight_decay=WEIGHT_DECAY)
    adamw = torch.optim.AdamW(others, lr=schedule.adamw, betas=(0.9, 0.95), weight_decay=0.0)
    for optimizer, peak in ((muon, schedule.muon), (adamw, schedule.adamw)):
        for group in optimizer.param_groups:
            group["peak"] = peak
    return [muon, adamw]


def _loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """The mean loss of the tokens after the first, each by its weight: ids and weights are (rows, length)."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    wanted = weights[:, 1:].flatten()
    return (losses * wanted).sum() / wanted.sum()


def _batches(
    name: str, tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of token ids and loss weights, padded on the right."""
    source = rows(name, rng)
    while True:
        encoded = [_encode(row, tokenizer, rng) for row in itertools.islice(source, BATCH * CHUNK)]
        encoded.sort(key=lambda pair: len(pair[0]))
        batches = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
        rng.shuffle(batches)
        for batch in batches:
            yield _padded(batch)


def _encode(
    row: Row, tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> tuple[list[int], list[float]]:
    """Ids and weights of a row. Half of the rows begin with the start token: not every harness adds it."""
    prompt = tokenizer.encode(row.prompt)
    answer = [*tokenizer.encode(row.answer), tokenizer.eos_token_id]
    start = [tokenizer.bos_token_id] if rng.random() < 0.5 else []
    weights = [PROMPT_WEIGHT] * (len(start) + len(prompt)) + [1.0] * len(answer)
    return [*start, *prompt, *answer], weights


def _padded(batch: list[tuple[list[int], list[float]]]) -> tuple[Tensor, Tensor]:
    """Ids and weights (rows, length). Padding is last and weighs nothing: a causal model needs no mask."""
    length = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    weights = torch.zeros(len(batch), length)
    for row, (tokens, values) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : len(values)] = torch.tensor(values)
    return ids, weights
