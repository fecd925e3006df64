"""lm-eval's tasks, used the way a search needs them; with `scorer.py` all that touches lm-eval's insides.

Read from lm_eval 0.4.13. `lm_eval.evaluate` rebuilds every request, few-shot example and template for each
call; here they are built once per process and each candidate only pays for its forward passes. What
is private there: `Task._instances`, `Instance.resps` and `filtered_resps` and `lm_eval.utils.env`.
`tests/evaluate/test_harness.py` holds the scores to `lm_eval.simple_evaluate`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import logging
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import lm_eval.api.metrics
import lm_eval.utils
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import Task

from evomerge.errors import EvaluationError, TaskError
from evomerge.evaluate.facts import TaskFacts, clusters, strata
from evomerge.evaluate.margins import has_margins, margin
from evomerge.types import Aggregate, ItemScores, Measure

_log = logging.getLogger(__name__)

NO_FILTER = "none"


_AGGREGATES: Mapping[Any, Aggregate] = MappingProxyType(
    {
        lm_eval.api.metrics.mean: "mean",  # of plain numbers: lm-eval could not add others
        lm_eval.api.metrics.perplexity: "perplexity",
        lm_eval.api.metrics.weighted_perplexity: "weighted_perplexity",
        lm_eval.api.metrics.bits_per_byte: "bits_per_byte",
    }
)
_SCORING = ("output_type", "doc_to_target", "process_results", "filter_list", "metric_list", "repeats")
"""Of a task's configuration, what matters once it has answers."""

_KEPT = 64
"""Sets of items whose requests stay gathered."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_WEIGHTED: tuple[Aggregate, ...] = ("weighted_perplexity", "bits_per_byte")


class ItemTask:
    """One lm-eval task, its requests built once and grouped by item."""

    def __init__(self, task: Task, *, few_shot: int | None, seed: int) -> None:
        if few_shot is not None or task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", few_shot or 0)
        task.set_fewshot_seed(seed)
        _cache_templates()
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar has no switch
            task.build_all_requests()
        self._task = task
        self._requests = _by_item(task)
        self.facts = _facts(task, self._requests)
        self._gathered = functools.lru_cache(_KEPT)(self._gather)
        _remember(task)

    def prompts(self, items: Iterable[str]) -> list[str]:
        """Return what a model reads before it answers each of `items` (content hashes), in their order.

        Of a text that is read as a whole, that is all of it.
        """
        return [str(self._requests[item][0].arguments[0]) for item in items]

    def answer(self, model: LM, items: Iterable[str]) -> Answers:
        """Return what `model` answers to `items` (content hashes), in dataset order.

        Raises `TaskError` if one of them is not there, or there is nothing to answer.
        """
        asked = self._gathered(tuple(items))
        _respond(model, asked, self.facts.name)
        self._task._instances = list(asked.instances)
        self._task.apply_filters()
        return Answers(task=self._task, requests=asked.of_item)

    def _gather(self, items: tuple[str, ...]) -> _Asked:
        wanted = set(items)
        if not wanted:
            raise TaskError(f"task `{self.facts.name}` was asked no item")
        chosen = {item: requests for item, requests in self._requests.items() if item in wanted}
        if missing := wanted - chosen.keys():
            raise TaskError(f"task `{self.facts.name}` has changed: item {min(missing)} is gone")
        instances = tuple(request for requests in chosen.values() for request in requests)
        by_kind: dict[str, list[Instance]] = defaultdict(list)
        for instance in instances:
            by_kind[instance.request_type] += [instance] * (instance.repeats or 1)
        return _Asked(of_item=chosen, instances=instances, by_kind=by_kind)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The requests of some items, in dataset order; those of a kind, with their repeats, are run together."""

    of_item: Mapping[str, Sequence[Instance]]
    instances: tuple[Instance, ...]
    by_kind: Mapping[str, Sequence[Instance]]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A model's filtered responses to some items of a task; read before the next `answer`."""

    task: Task
    requests: Mapping[str, Sequence[Instance]]

    def read(self, measure: Measure, order: Sequence[str]) -> tuple[float, ItemScores]:
        """Return the aggregate and the items' scores, the items in `order`."""
        values = {item: self._item(requests, measure) for item, requests in self.requests.items()}
        combine = self.task.aggregation()[measure.metric]
        aggregate = combine(list(values.values()))
        paired = _AGGREGATES.get(combine) in _WEIGHTED
        pairs = [_as_pair(values[item], paired=paired) for item in order]
        weighted = any(weight != 1.0 for _, weight in pairs)
        return float(aggregate), ItemScores(
            task=measure.task,
            metric=measure.metric,
            filter=measure.filter,
            items=tuple(order),
            scores=tuple(score for score, _ in pairs),
            weights=tuple(weight for _, weight in pairs) if weighted else None,
            margins=self._margins(measure, order) if has_margins(self.task) else None,
        )

    def _item(self, requests: Sequence[Instance], measure: Measure) -> Any:
        responses = _responses(requests, measure)
        return self.task.process_results(requests[0].doc, responses)[measure.metric]

    def _margins(self, measure: Measure, order: Sequence[str]) -> tuple[float, ...]:
        asked = [self.requests[item] for item in order]
        return tuple(
            margin(self.task, requests[0].doc, _responses(requests, measure), measure.metric)
            for requests in asked
        )


def item_hash(doc: Any) -> str:
    """Return lm-eval's `doc_hash` of an item: sixty-four hex digits of its content."""
    text = json.dumps(doc, indent=2, default=lm_eval.utils.handle_non_serializable, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _by_item(task: Task) -> dict[str, list[Instance]]:
    """Return the task's requests by item, in dataset order; an item that is there twice counts once."""
    by_doc: dict[int, list[Instance]] = defaultdict(list)
    for instance in task.instances:
        by_doc[instance.doc_id].append(instance)
    found: dict[str, list[Instance]] = {}
    for doc_id in sorted(by_doc):
        requests = sorted(by_doc[doc_id], key=lambda instance: instance.idx)
        found.setdefault(item_hash(requests[0].doc), requests)
    if len(found) < len(by_doc):
        _log.warning(
            "task `%s`: %d of %d items are repeats and are not used",
            task.task_name, len(by_doc) - len(found), len(by_doc),
        )  # fmt: skip
    return found


def _facts(task: Task, requests: Mapping[str, Sequence[Instance]]) -> TaskFacts:
    docs = [first.doc for first, *_ in requests.values()]
    directions = task.higher_is_better()
    combined = task.aggregation()
    return TaskFacts(
        name=task.task_name,
        metrics={name: bool(better) for name, better in directions.items()},
        aggregates={name: _AGGREGATES.get(combined.get(name), "other") for name in directions},
        filters=_filters(task),
        items=tuple(requests),
        strata=strata(docs, [len(_own_text(task, first)) for first, *_ in requests.values()]),
        clusters=clusters(docs, tuple(requests)),
        deterministic=not any(_samples(request) for each in requests.values() for request in each),
        wording=_wording(task, requests),
    )


def _wording(task: Task, requests: Mapping[str, Sequence[Instance]]) -> str:
    """Return a digest of all requests and of what turns responses into scores, wherever the task lies."""
    config = task.dump_config()  # functions by their source
    scoring = {key: config[key] for key in _SCORING if key in config}
    content = hashlib.sha256(_ADDRESS.sub("", json.dumps(scoring, default=_kind)).encode())
    for item, instances in requests.items():
        asked = [item, *((instance.request_type, instance.arguments) for instance in instances)]
        content.update(json.dumps(asked, default=_kind).encode())
    return content.hexdigest()


def _kind(value: object) -> str:
    return type(value).__name__


def _own_text(task: Task, request: Instance) -> str:
    """Return an item's question without the examples before it, which hang on the order of the data set."""
    own = task.doc_to_text(request.doc)
    return own if isinstance(own, str) and own else str(request.arguments[0])


def _samples(request: Instance) -> bool:
    """Whether `HFLM._model_generate` may draw the answer at random."""
    if request.request_type != "generate_until":
        return False
    asked = request.arguments[1]
    drawn = asked.get("do_sample")
    return bool(asked.get("temperature")) if drawn is None else bool(drawn)


def _responses(requests: Sequence[Instance], measure: Measure) -> list[Any]:
    return [request.filtered_resps[measure.filter] for request in requests]


def _filters(task: Task) -> tuple[str, ...]:
    listed = task.get_config("filter_list")
    return tuple(entry["name"] for entry in listed) if listed else (NO_FILTER,)


def _respond(model: LM, asked: _Asked, task: str) -> None:
    """Run the requests, each kind together, and leave the responses on them as lm-eval does."""
    for instance in asked.instances:
        instance.resps, instance.filtered_resps = [], {}
    for kind, requests in asked.by_kind.items():
        responses = getattr(model, kind)(requests, disable_tqdm=True)
        for request, response in zip(requests, responses, strict=True):
            if _is_nan(response):
                raise EvaluationError(f"the model's log-likelihoods on `{task}` are NaN")
            request.resps.append(response)


def _is_nan(response: Any) -> bool:
    value = response[0] if isinstance(response, tuple) else response
    return isinstance(value, float) and math.isnan(value)


def _as_pair(value: Any, *, paired: bool) -> tuple[float, float]:
    """Return an item's (score, weight); NaN for metrics that mean nothing on a single item.

    Rolling log-likelihoods come with their weights as pairs; elsewhere a pair is (right, predicted).
    """
    match value:
        case bool() | int() | float():
            return float(value), 1.0
        case (int() | float() as score, int() | float() as weight) if paired:
            return float(score), float(weight)
        case _ if hasattr(value, "item"):
            return float(value.item()), 1.0
    return math.nan, 1.0


def _remember(task: Task) -> None:
    """Let a task work out once for each item what no model changes: its question, options and answer."""
    for name in ("doc_to_text", "doc_to_choice", "doc_to_target"):
        setattr(task, name, _remembered(getattr(task, name)))


def _remembered(read: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[int, Any], tuple[Any, Any]] = {}  # with the item, whose identity is then no other's

    def of(doc: Any, how: Any = None) -> Any:
        key = id(doc), how
        if key not in known:
            known[key] = doc, read(doc, how) if how is not None else read(doc)
        return known[key][1]

    return of


@functools.cache
def _cache_templates() -> None:
    """Let lm-eval compile each template once: most of its time goes into compiling them again.

    It is compiled so that it can read an item's fields and do nothing else: no Python, no endless loop.
    """
    environment = lm_eval.utils.env
    confined = SandboxedEnvironment(
        loader=environment.loader,
        undefined=environment.undefined,
        keep_trailing_newline=environment.keep_trailing_newline,
    )
    confined.filters |= environment.filters
    environment.from_string = functools.lru_cache(4096)(confined.from_string)
