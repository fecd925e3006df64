"""The task folder: lm-eval YAML files, the items beside them, and a few lines of Python that read those.

lm-eval resolves a relative `data_files` against the working directory, so the tasks load their items by a
function that knows its own folder: the folder works from anywhere and may be moved.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from evomerge.zoo.items import Item, choice_items, generation_items, last_word_items, story_items
from evomerge.zoo.language import LANGUAGES, Language, answer

SUBJECTS = ("math", "lang", "logic")

_READER = '''"""Reads the items of a task from the JSON lines beside this file."""

from json import loads
from pathlib import Path

from datasets import Dataset, DatasetDict


def load(*, items: str, **_: object) -> DatasetDict:
    """The items in `data/<items>.jsonl` as the test split."""
    path = Path(__file__).resolve().parent / "data" / f"{items}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    return DatasetDict({"test": Dataset.from_list([loads(line) for line in lines])})
'''

_HEAD = """task: {task}
custom_dataset: !function data.load
dataset_kwargs:
  items: {task}
test_split: test
num_fewshot: 0
"""

_CHOICE = """output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{options}}"
doc_to_target: gold
target_delimiter: " "
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""

_GENERATE = """output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["."]
  do_sample: false
  max_gen_toks: 8
filter_list:
  - name: answer-sentence
    filter:
      - function: regex
        regex_pattern: "^\\\\s*SENTENCE"
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""

_LAST_WORD = """output_type: loglikelihood
doc_to_text: "{{prompt}}"
doc_to_target: " {{last}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
metadata:
  version: 1.0
"""

_ROLLING = """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
metadata:
  version: 1.0
"""


def write_tasks(folder: Path) -> None:
    """Write every task into `folder`, which is made."""
    (folder / "data").mkdir(parents=True)
    (folder / "data.py").write_text(_READER, encoding="utf-8")
    for task, (body, items) in _tasks().items():
        (folder / f"{task}.yaml").write_text(_HEAD.format(task=task) + body, encoding="utf-8")
        lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        (folder / "data" / f"{task}.jsonl").write_text(lines, encoding="utf-8")


def read_items(folder: Path, task: str) -> list[Item]:
    """The items of one task in a task folder."""
    lines = (folder / "data" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _tasks() -> Mapping[str, tuple[str, list[Item]]]:
    """Body of the YAML file and items, by task name."""
    tasks: dict[str, tuple[str, list[Item]]] = {}
    for language in LANGUAGES:
        for subject in SUBJECTS:
            tasks[f"{subject}_{language}"] = (_CHOICE, choice_items(subject, language))
        tasks[f"math_{language}_gen"] = (_generate(language), generation_items(language))
    tasks["word_b"] = (_LAST_WORD, last_word_items("b"))
    tasks["stories_b"] = (_ROLLING, story_items("b"))
    return tasks


def _generate(language: Language) -> str:
    """The generation task wants the number and the language: the filter takes a whole answer sentence."""
    return _GENERATE.replace("SENTENCE", answer(r"(\\d+)", language).removesuffix(" ."))
