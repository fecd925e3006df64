"""What a training process does: start from the base or from nothing, train, write a bfloat16 checkpoint."""

import logging
import logging.handlers
import multiprocessing as mp
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LogQueue = Any  # a multiprocessing queue of log records; its type is private to multiprocessing


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model to train."""

    name: str
    folder: Path  # of all checkpoints
    start: str | None  # the checkpoint in `folder` to begin with; None: random weights
    seed: int
    threads: int


def log_queue(context: mp.context.SpawnContext) -> LogQueue:
    """A queue that carries the log records of training processes to this one."""
    return context.Queue()


def prepare(queue: LogQueue) -> None:
    """Set this training process up: its logs go to `queue`, its idle threads sleep.

    By default idle OpenMP threads spin, and on a machine with other work two of them then stall each other:
    one training here stood still for a minute. torch is loaded later, in `run`, and reads the policy then.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    root = logging.getLogger()
    root.handlers = [logging.handlers.QueueHandler(queue)]
    root.setLevel(logging.WARNING)
    logging.getLogger("evomerge").setLevel(logging.INFO)


class Relay(logging.Handler):
    """Hands records from training processes to this process's loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        """Handle `record` as if it had been logged here."""
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


def run(job: Job) -> float:
    """Do `job` in this process and return the last training loss."""
    import torch  # here, so that the controlling process needs no torch
    from transformers import LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from evomerge.zoo.tokenizer import save_tokenizer, word_tokenizer
    from evomerge.zoo.train import train, untrained

    disable_progress_bar()
    torch.set_num_threads(job.threads)
    tokenizer = word_tokenizer()
    if job.start is None:
        model = untrained(tokenizer, job.seed)
    else:
        model = LlamaForCausalLM.from_pretrained(
            job.folder / job.start, dtype=torch.float32, attn_implementation="eager", local_files_only=True
        )
    loss = train(model, tokenizer, job.name, job.seed)
    model.to(torch.bfloat16).save_pretrained(job.folder / job.name)  # type: ignore[arg-type]
    save_tokenizer(tokenizer, job.folder / job.name)
    return loss
