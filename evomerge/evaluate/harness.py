"""lm-eval, used the way a search needs it; the only file that touches its insides.

Read from lm_eval 0.4.13. `lm_eval.evaluate` rebuilds every request, few-shot example and template for each
call; here they are built once per process and each candidate only pays for its forward passes. What
is private there: `Task._instances`, `Instance.resps` and `filtered_resps`, `lm_eval.utils.env`,
`lm_eval.api.task.get_metric`, and
`HFLM._model`, `_device`, `_config` and `_loglikelihood_tokens`.
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
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lm_eval.api.metrics
import lm_eval.api.task
import lm_eval.utils
import yaml
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.api.instance import Instance
from lm_eval.api.registry import metric_registry
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evomerge.errors import EvaluationError, TaskError, unknown
from evomerge.evaluate.facts import TaskFacts, clusters, strata
from evomerge.evaluate.margins import has_margins, margin
from evomerge.evaluate.task_folder import check_folder
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

    def prompts(self, items: Iterable[str]) -> list[str]:
        """Return what a model reads before it answers each of `items` (content hashes), in their order.

        Of a text that is read as a whole, that is all of it.
        """
        return [str(self._requests[item][0].arguments[0]) for item in items]

    def answer(self, model: HFLM, items: Iterable[str]) -> Answers:
        """Return what `model` answers to `items` (content hashes), in dataset order.

        Raises `TaskError` if one of them is not there, or there is nothing to answer.
        """
        wanted = set(items)
        if not wanted:
            raise TaskError(f"task `{self.facts.name}` was asked no item")
        chosen = {item: requests for item, requests in self._requests.items() if item in wanted}
        if missing := wanted - chosen.keys():
            raise TaskError(f"task `{self.facts.name}` has changed: item {min(missing)} is gone")
        instances = [request for requests in chosen.values() for request in requests]
        _respond(model, instances, self.facts.name)
        self._task._instances = instances
        self._task.apply_filters()
        return Answers(task=self._task, requests=chosen)


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


class Scorer(HFLM):
    """lm-eval's Hugging Face model around a live module, with each text tokenised once."""

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int) -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        super().__init__(
            pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32"
        )
        self._tokens: dict[Any, list[int]] = {}

    def bind(self, model: Any) -> None:
        """Ask another model of the same architecture from now on; None lets the last one go."""
        self.pretrained = self._model = model
        if model is not None:
            self._device, self._config = model.device, model.config

    def tok_encode(self, string: Any, *args: Any, **kwargs: Any) -> list[int]:
        if not isinstance(string, str):
            return list(super().tok_encode(string, *args, **kwargs))
        key = (string, args, tuple(sorted(kwargs.items())))
        if key not in self._tokens:
            self._tokens[key] = list(super().tok_encode(string, *args, **kwargs))
        return list(self._tokens[key])

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, **kwargs: Any) -> Any:
        """Answer without a progress bar, also where lm-eval insists on one (rolling log-likelihoods)."""
        del disable_tqdm
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, **kwargs)


class TaskLibrary:
    """Where lm-eval tasks come from: the YAML files of a folder, or lm-eval's own."""

    def __init__(self, folder: Path | None, *, few_shot: int | None, seed: int) -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self._folder = folder
        self._where = f"in {folder}" if folder else "among lm-eval's tasks"
        self._own = folder is None
        if folder is not None:
            check_folder(folder)
        self._few_shot = few_shot
        self._seed = seed
        self._manager = (
            TaskManager(include_path=str(folder), include_defaults=False) if folder else TaskManager()
        )

    def load(self, name: str) -> ItemTask:
        """Return the task, ready to be answered.

        Raises `TaskError` for a task that is not there, is a group, or cannot be built.
        """
        if name in self._manager.all_groups or name in self._manager.all_tags:
            raise TaskError(f"`{name}` is a group of tasks; name its tasks one by one")
        if name not in self._manager.all_subtasks:
            self._check_readable(name)
            raise TaskError(f"{unknown('task', name, self._similar(name))} (looked {self._where})")
        try:
            with _no_bytecode(), contextlib.nullcontext() if self._own else _no_hub_metrics():
                task = self._manager.load([name])["tasks"][name]
                loaded = ItemTask(task, few_shot=self._few_shot, seed=self._seed)
        except (Exception, SystemExit) as error:  # a task is other people's templates and functions
            raise TaskError(f"task `{name}` ({self._where}) cannot be loaded: {_root(error)}") from error
        if not loaded.facts.items:
            raise TaskError(f"task `{name}` ({self._where}) has no items")
        if nameless := next((m for m, combine in task.aggregation().items() if not callable(combine)), None):
            raise TaskError(
                f"task `{name}` ({self._where}) has no `aggregation` for its metric `{nameless}` that "
                "lm-eval knows, such as `mean`"
            )
        return loaded

    def _check_readable(self, name: str) -> None:
        """Raise `TaskError` if a file that might hold the task is no YAML: lm-eval skips those."""
        for file in sorted(self._folder.rglob("*.y*ml")) if self._folder else ():
            try:
                yaml.compose(file.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                what = " ".join(str(error).split())
                raise TaskError(
                    f"no task named `{name}` can be read, and the task file {file} is not YAML: {what}"
                ) from error

    def _similar(self, name: str) -> list[str]:
        """Return the known names, of lm-eval's thousands only some that begin alike."""
        known = list(self._manager.all_subtasks)
        return [other for other in known if other[:3] == name[:3]][:20] if self._own else known


@contextlib.contextmanager
def _no_hub_metrics() -> Iterator[None]:
    """Let a task have metrics of lm-eval or functions of its own, and none that is fetched as code."""
    before = lm_eval.api.task.get_metric
    lm_eval.api.task.get_metric = _registered
    try:
        yield
    finally:
        lm_eval.api.task.get_metric = before


def _registered(name: str, hf_evaluate_metric: bool = False) -> Any:
    if hf_evaluate_metric or name not in metric_registry:
        raise TaskError(
            f"its metric `{name}` is none of lm-eval's own, and metrics of the hub, which are code, are not "
            "fetched; write it as a `!function` beside the task"
        )
    return metric_registry.get(name)


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """Leave no `__pycache__` beside the functions of a task: the folder is its author's."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _root(error: BaseException) -> str:
    """Return in one line what was first wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0]}" if words else type(error).__name__


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


def _respond(model: HFLM, instances: Sequence[Instance], task: str) -> None:
    """Run the requests, each kind together, and leave the responses on them as lm-eval does."""
    by_kind: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        instance.resps, instance.filtered_resps = [], {}
        by_kind[instance.request_type] += [instance] * (instance.repeats or 1)
    for kind, requests in by_kind.items():
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
