"""Search from Python, look at what was found, export the winner and ask it questions with transformers alone.

python examples/search_from_python.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

import evomerge

SPACE = """
sources: {base: zoo:base, math: zoo:math, lang: zoo:lang}
merge:
  base: base
  method: task_arithmetic
  layers: 2
  genes: {weight: {low: -0.3, high: 2.0}}
objectives: [{task: math_b, metric: acc}]
tasks: zoo:tasks
items: {search: 100, select: 100, report: 200}
dtype: float32
batch_size: 50
"""


def main() -> None:
    """Do all of it in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "maths-in-b.yaml").write_text(SPACE)
        run = evomerge.search(Path(folder) / "maths-in-b.yaml", budget=60, run=Path(folder) / "run")

        trials = run.trials()  # one row per candidate; run.items() has one per candidate and item
        print(trials[["trial", "baseline", "math_b"]].nlargest(5, "math_b").to_string(index=False))

        merged = evomerge.export(run, Path(folder) / "merged")  # held to its recorded score
        asked = (Path(run.record.tasks or "") / "data" / "math_b_gen.jsonl").read_text().splitlines()[:50]
        for name, model_folder in (("maths expert", run.record.paths["math"]), ("merged model", merged)):
            right = right_answers(model_folder, [json.loads(line) for line in asked])
            print(f"{name}: {right} of {len(asked)} questions answered right, in words")


def right_answers(model_folder: str | Path, questions: list[dict[str, str]]) -> int:
    """Return how many questions the checkpoint in a folder answers right when it generates text."""
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    right = 0
    for question in questions:
        prompt = tokenizer(question["prompt"], return_tensors="pt", return_token_type_ids=False)
        tokens = model.generate(**prompt, max_new_tokens=6, do_sample=False)[0]
        said = tokenizer.decode(tokens[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        right += said == f"kotae = {question['answer']} desu ."
    return right


if __name__ == "__main__":  # Ray's workers import this file
    main()
