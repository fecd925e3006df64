"""Keeps lm-eval from telling what evomerge tells better."""

from __future__ import annotations

import logging


def quiet_lm_eval() -> None:
    """Let lm-eval say nothing but errors, unless evomerge is asked for everything (`--log-level debug`)."""
    if not logging.getLogger("evomerge").isEnabledFor(logging.DEBUG):
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
