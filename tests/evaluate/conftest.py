"""The zoo's maths expert, live, and a brief over it."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from evomerge.checkpoints.locate import ZOO
from evomerge.evaluate.evaluator import only_compute


@pytest.fixture(scope="session")
def math_expert() -> tuple[Any, Any]:
    """Return the model in float32, and its tokenizer."""
    only_compute(1)
    folder = ZOO / "models" / "math"
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return model, transformers.AutoTokenizer.from_pretrained(folder)
