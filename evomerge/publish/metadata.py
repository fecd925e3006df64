"""The front matter of a model card, as the hub reads it.

https://huggingface.co/docs/hub/model-cards#model-card-metadata. Results are those on report items only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from evomerge.publish.source_cards import About
from evomerge.types import Measure


def front_matter(
    base_models: Sequence[str], about: About | None, results: Sequence[Mapping[str, Any]], name: str
) -> str:
    """Return the metadata between its `---` lines: models merged, licence, languages, results."""
    content: dict[str, Any] = {"library_name": "transformers", "tags": ["merge", "evomerge"]}
    if base_models:
        content["base_model"] = list(base_models)
        content["base_model_relation"] = "merge"
    if about is not None:
        stated = about.licence.stated
        content["license"] = stated.license
        content |= {
            key: value
            for key, value in (("license_name", stated.name), ("license_link", stated.link))
            if value
        }
        if about.languages:
            content["language"] = list(about.languages)
    if results:
        content["model-index"] = [{"name": name, "results": list(results)}]
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n"


def results_of(
    measures: Sequence[Measure],
    scores: Mapping[str, float],
    counts: Mapping[str, Mapping[str, int]],
    few_shot: int | None,
) -> list[dict[str, Any]]:
    """Return reported `scores` as a model index has them, under lm-eval's names of tasks and metrics."""
    return [
        {
            "task": {"type": "text-generation"},
            "dataset": {
                "name": measure.task,
                "type": measure.task,
                "split": f"{counts.get(measure.task, {}).get('report', 0)} held-out items",
                **({"args": {"num_few_shot": few_shot}} if few_shot is not None else {}),
            },
            "metrics": [
                {
                    "type": measure.metric,
                    "value": scores[measure.name],
                    "name": f"{measure.metric},{measure.filter}",
                    "verified": False,
                }
            ],
        }
        for measure in measures
        if measure.name in scores
    ]
