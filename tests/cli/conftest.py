"""Tiny models, a tiny task, and a small finished run, for the commands to be wrong about."""

from __future__ import annotations

import functools
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.cli.main import main
from tests.cli.running import evomerge_command
from tests.controller.conftest import TWO_OBJECTIVES

WORDS = ["<unk>", "<eos>", "the", "cat", "dog", "sat", "ran", "on", "mat", "?", "yes", "no"]

MERGED = """\
sources: {base: models/base, math: models/math, lang: models/lang}
merge: {base: base, layers: 1}
objectives: [{task: tiny}]
tasks: tasks
items: {search: 4, report: 4}
"""
SPACE = MERGED + "sampler: random\nbudget: 6\n"

_TASK = """\
task: tiny
custom_dataset: !function data.load
test_split: test
num_fewshot: 0
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{options}}"
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""

_DATA = '''"""Reads the items that lie beside this file."""

import json
from pathlib import Path

import datasets


def load(**_: object) -> dict[str, datasets.Dataset]:
    lines = Path(__file__).with_name("tiny.jsonl").read_text(encoding="utf-8").splitlines()
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}
'''


def save_tokenizer(folder: Path, words: list[str]) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    ).save_pretrained(folder)


def save_llama(folder: Path, *, seed: int, layers: int = 2, words: list[str] = WORDS) -> None:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=8, intermediate_size=16, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
        bos_token_id=None, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder, words)


def edit_config(folder: Path, **changed: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def save_gpt2(folder: Path) -> None:
    config = GPT2Config(
        vocab_size=len(WORDS), n_embd=8, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=1
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    save_tokenizer(folder, WORDS)


def save_task(folder: Path) -> None:
    folder.mkdir()
    (folder / "tiny.yaml").write_text(_TASK, encoding="utf-8")
    (folder / "data.py").write_text(_DATA, encoding="utf-8")
    items = [
        {"prompt": f"the {who} {what} on the mat ?", "options": ["yes", "no"], "gold": (i + j) % 2}
        for i, who in enumerate(["cat", "dog", "mat"])
        for j, what in enumerate(["sat", "ran", "sat on", "ran on"])
    ]
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / "tiny.jsonl").write_text(lines, encoding="utf-8")


@dataclass(frozen=True)
class Workplace:
    """A working directory and what lies in it."""

    path: Path

    def listing(self) -> dict[str, tuple[int, int]]:
        """Return size and time of every file and folder."""
        found = sorted(self.path.rglob("*"))
        return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}

    def write_space(self, text: str, name: str = "space.yaml") -> None:
        (self.path / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models that fit, four that do not, and a task."""
    folder = tmp_path_factory.mktemp("furnished")
    for seed, name in enumerate(["base", "math", "lang"]):
        save_llama(folder / "models" / name, seed=seed)
    save_gpt2(folder / "models" / "gpt2")
    save_llama(folder / "models" / "taller", seed=5, layers=3)
    save_llama(folder / "models" / "words", seed=6, words=[*WORDS[:-2], "oui", "non"])
    save_llama(folder / "models" / "heads", seed=7)
    edit_config(folder / "models" / "heads", num_attention_heads=4, num_key_value_heads=4)
    save_llama(folder / "models" / "gptq", seed=8)
    edit_config(folder / "models" / "gptq", quantization_config={"quant_method": "gptq"})
    save_llama(folder / "models" / "short", seed=9, layers=3)
    edit_config(folder / "models" / "short", num_hidden_layers=2)
    save_llama(folder / "models" / "strange", seed=10)
    edit_config(folder / "models" / "strange", model_type="lama")
    (folder / "models" / "lora").mkdir()
    (folder / "models" / "lora" / "adapter_config.json").write_text("{}")
    (folder / "models" / "empty").mkdir()
    (folder / "models" / "earlier").mkdir()
    (folder / "models" / "earlier" / "run.json").write_text("{}")
    shutil.copytree(folder / "models" / "math", folder / "models" / "torn")
    weights = folder / "models" / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    save_task(folder / "tasks")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    return folder


@pytest.fixture
def workplace(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A fresh copy of it, as the working directory."""
    path = tmp_path / "place"
    shutil.copytree(furnished, path)
    monkeypatch.chdir(path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # whatever the caller's environment says
    # a plug-in of pytest imports tqdm before `main` can tell it to be quiet
    monkeypatch.setattr(tqdm, "__init__", functools.partialmethod(tqdm.__init__, disable=True))
    return Workplace(path)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which a search has run, as a user would run it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "two.yaml").write_text(TWO_OBJECTIVES)
    done = evomerge_command("search", "two.yaml", "--budget", "30", "--serial", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    (folder / "stderr.txt").write_text(done.stderr)
    return folder


Complaint = Callable[..., str]


@pytest.fixture
def complaint(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Complaint:
    """Run a command that must be refused, and return the one sentence it says."""

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["evomerge", *map(str, arguments)])
        before = workplace.listing()
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        assert ended.value.code == 2, said.err
        assert said.out == ""
        assert workplace.listing() == before
        assert "Traceback" not in said.err
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1, said.err
        return said.err.removeprefix("error: ").rstrip("\n")

    return run


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command, and return its exit code and what it said on stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evomerge", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def as_pattern(text: str) -> str:
    """Return a pattern in which `…` stands for anything."""
    return ".*".join(map(re.escape, text.split("…")))
