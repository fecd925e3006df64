"""Files made to hurt: each ends in one sentence, within seconds, with nothing written and no code run."""
# ruff: noqa: E501 - messages stand as users see them

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.cli.main import main
from tests.cli.conftest import SPACE, Complaint, Workplace, as_pattern, edit_config
from tests.recipe.test_plain import BOMB

RECIPE = """\
models: {math: {source: models/math}, lang: {source: models/lang}}
merges: {m: {method: linear, sources: [math, lang]}}
"""
WEIGHTS = Path("models/math/model.safetensors")

Spoil = Callable[[Path], object]


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("PWNED",)  # where the test works


def in_header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Return what changes the header of a source's weights and leaves the rest."""

    def spoil(place: Path) -> None:
        content = (place / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        (place / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return spoil


def first(header: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = header["lm_head.weight"]
    return entry


def with_bytes(change: Callable[[bytes], bytes], name: str = str(WEIGHTS)) -> Spoil:
    return lambda place: (place / name).write_bytes(change((place / name).read_bytes()))


def with_index(shard: Any) -> Spoil:
    def spoil(place: Path) -> None:
        (place / WEIGHTS).rename(place / "models/math/model-00001-of-00001.safetensors")
        index = place / "models/math/model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))

    return spoil


def instead(make: Spoil, name: str = str(WEIGHTS)) -> Spoil:
    """Return what puts something else in the place of a file."""

    def spoil(place: Path) -> None:
        (place / name).unlink()
        make(place / name)

    return spoil


def poisoned(value: float) -> Spoil:
    def spoil(place: Path) -> None:
        tensors = load_file(place / WEIGHTS)
        tensors["lm_head.weight"][1, 2] = value
        save_file(tensors, place / WEIGHTS, metadata={"format": "pt"})

    return spoil


def pickled(content: object) -> Spoil:
    def spoil(place: Path) -> None:
        (place / WEIGHTS).unlink()
        (place / "models/math/pytorch_model.bin").write_bytes(pickle.dumps(content))

    return spoil


def all_configs(**changed: Any) -> Spoil:
    def spoil(place: Path) -> None:
        for name in ("base", "math", "lang"):
            edit_config(place / "models" / name, **changed)

    return spoil


NO_FILE = "…/model.safetensors is not a whole safetensors file: …; download or copy it again"

SOURCES: dict[str, tuple[Spoil, str]] = {
    "truncated": (with_bytes(lambda b: b[:-9]), NO_FILE),
    "empty": (with_bytes(lambda b: b""), NO_FILE),
    "header as long as the universe": (with_bytes(lambda b: struct.pack("<Q", 2**63) + b[8:]), NO_FILE),
    "header longer than the file": (with_bytes(lambda b: struct.pack("<Q", len(b)) + b[8:]), NO_FILE),
    "bit flipped in the header": (with_bytes(lambda b: b[:9] + bytes([b[9] ^ 1]) + b[10:]), NO_FILE),
    "offsets beyond the end": (in_header(lambda h: first(h).update(data_offsets=[0, 10**12])), NO_FILE),
    "offsets that overlap": (in_header(lambda h: first(h).update(data_offsets=h["model.norm.weight"]["data_offsets"])), NO_FILE),
    "a shape that lies": (in_header(lambda h: first(h).update(shape=[10**6, 10**6])), NO_FILE),
    "a shape of nothing times all": (in_header(lambda h: first(h).update(shape=[10**30, 0], data_offsets=[0, 0])), NO_FILE),
    "a dtype that lies": (in_header(lambda h: first(h).update(dtype="F16")), NO_FILE),
    "metadata of lists": (in_header(lambda h: h.update({"__metadata__": {"a": [1]}})), NO_FILE),
    "a name that steers": (in_header(lambda h: h.update({"a\x1b[31m\nb": h.pop("model.norm.weight")})), "…`math` cannot be merged with `base`: it has no `model.norm.weight`"),
    "NaN": (poisoned(float("nan")), "…`lm_head.weight` of …/models/math holds NaN or infinite values; download or save it again"),
    "infinity": (poisoned(float("inf")), "…`lm_head.weight` of …/models/math holds NaN or infinite values; download or save it again"),
    "weights that are a pipe": (instead(os.mkfifo), "…/models/math is not a checkpoint: it has no model.safetensors and no model.safetensors.index.json"),
    "weights that are a device": (instead(lambda file: file.symlink_to("/dev/zero")), "…it has no model.safetensors and …"),
    "weights that are a link to itself": (instead(lambda file: file.symlink_to(file)), "…it has no model.safetensors and …"),
    "an index that leaves": (with_index("../lang/model.safetensors"), "…index.json names `../lang/model.safetensors`, which leaves the folder"),
    "an index of absolute paths": (with_index("/etc/passwd"), "…index.json names `/etc/passwd`, which leaves the folder"),
    "an index of numbers": (with_index(3), "…index.json names '3'…, which is no name of a file"),
    "an index of a missing shard": (with_index("x.safetensors"), "…/models/math is incomplete: the shard x.safetensors is missing"),
    "an index of a name beyond all": (with_index("a" * 5000 + ".safetensors"), "…, which is no name of a file"),
    "a config too deep": (lambda p: (p / "models/math/config.json").write_text("[" * 10**5), "…/config.json is not JSON: its values are nested too deep"),
    "a config that is a pipe": (instead(os.mkfifo, "models/math/config.json"), "…/models/math is not a checkpoint: it has no config.json"),
    "code of its own": (lambda p: edit_config(p / "models/math", auto_map={"AutoModelForCausalLM": "x.Y"}), "…/models/math needs code of its own (`auto_map` in config.json), which is not run"),
    "a type that is a list": (lambda p: edit_config(p / "models/math", model_type=["llama"]), "…/config.json names no `model_type`, so the architecture is unknown"),
    "layers by words": (lambda p: edit_config(p / "models/math", num_hidden_layers="2"), "…`math` has 2 layers, but its config.json says 2: one of the two is wrong"),
    "positions by words": (lambda p: edit_config(p / "models/math", rope_parameters="x"), "…`rope_parameters` in a model's config.json must be a table, found 'x'"),
    "all hidden sizes a lie": (all_configs(hidden_size=10**9), "…does not fit its own config.json: by that …"),
    "all activations a lie": (all_configs(hidden_act="x"), "…cannot make a model of the config.json of `…` in …: KeyError: 'x'"),
    "no tokenizer": (lambda p: (p / "models/math/tokenizer.json").unlink(), "…/models/math has no tokenizer (looked for …)"),
    "a tokenizer that is none": (lambda p: (p / "models/math/tokenizer.json").write_text("{}"), "…/tokenizer.json is not a tokenizer: it has no table of tokens (`model.vocab`)"),
    "tokens of negative ids": (lambda p: (p / "models/math/tokenizer.json").write_text('{"model": {"vocab": {"a": -1}}}'), "…/tokenizer.json is not a tokenizer: 'a' has the id -1"),
    "pickles": (pickled({"a": Evil()}), "…/models/math holds pickled weights (pytorch_model.bin), which can run code when loaded; …"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["check", "search", "export"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_source(name: str, command: str, workplace: Workplace, complaint: Complaint) -> None:
    spoil, message = SOURCES[name]
    (workplace.path / "recipe.yaml").write_text(RECIPE)
    spoil(workplace.path)
    arguments = {
        "check": ["space.yaml"],
        "search": ["space.yaml", "--serial"],
        "export": ["recipe.yaml", "out"],
    }
    said = complaint(command, *arguments[command])
    if command == "export":  # which meets the two in another order
        said = said.replace("`lang` cannot be merged with `math`", "`math` cannot be merged with `base`")
        message = message.replace("it has no `model.norm.weight`", "it …has …")
    assert re.fullmatch(as_pattern(f"…{message}"), said), said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    "content", [{"a": Evil()}, Evil(), [torch.zeros(1)]], ids=["table", "object", "list"]
)
def test_a_pickle_of_more_than_tensors_although_allowed(
    content: object, workplace: Workplace, complaint: Complaint
) -> None:
    pickled(content)(workplace.path)
    said = complaint("check", "space.yaml", "--allow-pickle")
    assert re.search(r"pytorch_model\.bin (cannot be read as weights alone|is no table of tensors)", said)
    assert not (workplace.path / "PWNED").exists()


SPACES = {
    "laughs": (BOMB + SPACE, "space.yaml: more than 20000 values; aliases unfold too far"),
    "a circle": (SPACE + "held_out: &a [*a]\n", "space.yaml:8: values are nested deeper than 20 levels"),
    "an object": (SPACE + "seed: !!python/object/apply:os.mkdir [PWNED]\n", "space.yaml:8: tag:yaml.org,2002:python/object/apply:os.mkdir values are not read"),
    "a boolean that is none": (SPACE + "untie: !!bool x\n", "space.yaml:8: `x` cannot be read: it is no tag:yaml.org,2002:bool"),
    "a time that is none": (SPACE + "untie: !!timestamp x\n", "space.yaml:8: `x` cannot be read: it is no tag:yaml.org,2002:timestamp"),
    "a number without end": (SPACE + "seed: " + "9" * 5000, "space.yaml:8: `999…` cannot be read: …"),
    "a depth without end": ("[" * 10**5, "space.yaml: values are nested deeper than 20 levels"),
    "much of nothing": (SPACE + "#" * (1 << 20), "space.yaml cannot be read: it is larger than 1 MB"),
    "a key twice": (SPACE + "budget: 3\n", "space.yaml:8: `budget` stands twice"),
    "a merge key": (SPACE + "<<: {seed: 1}\n", "space.yaml:8: `<<` is not read; write the keys out"),
    "a list": ("[1]", "space.yaml:1: a space is a table of keys, like `sources:` and `objectives:`"),
    "nothing": ("", "space.yaml:1: a space is a table of keys, like `sources:` and `objectives:`"),
    "budget 0": (SPACE.replace("budget: 6", "budget: 0"), "space.yaml:7: `budget` …"),
    "layers without end": (SPACE.replace("layers: 1", "layers: [[0, 1000000000]]"), "space.yaml:2: `merge.layers`: runs of layers must cover layers 0 to 1 …"),
    "anchors without end": (SPACE.replace("layers: 1", "layers: {anchors: 1000000000}"), "space.yaml:2: `merge.layers…` …"),
    "threads without end": (SPACE + "threads: 1000000000000\n", "space.yaml:8: `threads` …"),
    "a source that steers": (SPACE.replace("models/math", r'"./\e[31m\nx"'), r"space.yaml:1: `sources.math`: no model folder `./\x1b[31m\nx` (looked at …)"),
    "a source of many letters": (SPACE.replace("models/math", "./" + "a" * 5000), "space.yaml:1: `sources.math`: …aaa cannot be read: File name too long"),
    "a source that is a link to itself": (SPACE.replace("models/math", "./loop"), "space.yaml:1: `sources.math`: no model folder `./loop` (looked at …)"),
    "a source that is a file": (SPACE.replace("models/math", "./space.yaml"), "space.yaml:1: `sources.math`: no model folder `./space.yaml` (looked at …)"),
    "a source above the zoo": (SPACE.replace("models/math", "zoo:../models/math"), "space.yaml:1: `sources.math`: no zoo model named `../models/math`. Known: …"),
    "a name that leaves": (SPACE + "name: ../../evil\n", "space.yaml:8: `name` …"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_a_space(name: str, workplace: Workplace, complaint: Complaint) -> None:
    text, message = SPACES[name]
    workplace.write_space(text)
    (workplace.path / "loop").symlink_to("loop")
    said = complaint("search", "space.yaml", "--serial")
    assert re.match(as_pattern(message) + "$", said), said[:500]
    assert not (workplace.path / "PWNED").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + RECIPE, "recipe.yaml: the recipe has more than 200000 values; aliases unfold too far"),
        (RECIPE + "seed: &a [*a]\n", "recipe.yaml: line 3: values are nested deeper than 20 levels"),
        ("[" * 10**5, "recipe.yaml: the recipe's values are nested deeper than 20 levels"),
        (RECIPE + RECIPE, "recipe.yaml: line 3: `models` stands twice, first in line 1"),
        (RECIPE + "seed: !!python/object/apply:os.mkdir [PWNED]\n", "recipe.yaml: the recipe is not YAML: could not determine a constructor …"),
        (RECIPE + "#" * (1 << 20), "the recipe recipe.yaml cannot be read: it is larger than 1 MB"),
    ],
    ids=["laughs", "circle", "depth", "twice", "object", "much"],
)  # fmt: skip
def test_a_recipe(text: str, message: str, workplace: Workplace, complaint: Complaint) -> None:
    (workplace.path / "recipe.yaml").write_text(text)
    said = complaint("export", "recipe.yaml", "out")
    assert re.fullmatch(as_pattern(message), said), said[:500]
    assert not (workplace.path / "PWNED").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "run.json").write_text("[" * 10**5), "…/run.json is not JSON: its values are nested too deep"),
        (lambda run: (run / "run.json").write_text('{"format": "a\\nb"}'), r"…this run record has format a\nb, and this evomerge reads …"),
        (lambda run: change(run / "run.json", items=3), "…this run record is damaged, or not of this evomerge …"),
        (lambda run: change(run / "run.json", paths=[[]]), "…this run record is damaged, or not of this evomerge …"),
        (lambda run: change(run / "run.json", provenance={}), "…this run record is damaged, or not of this evomerge …"),
        (lambda run: garble(run / "study.journal", b"garbage\n"), "…the study …/study.journal is damaged …"),
        (lambda run: garble(run / "study.journal", b'{"op_code": 99}\n'), "…the study …/study.journal is damaged …"),
        (lambda run: instead(os.mkfifo, "study.journal")(run), "…the study …/study.journal is no file; put a copy back, or start a new run"),
        (lambda run: instead(Path.mkdir, "study.journal")(run), "…the study …/study.journal is no file; put a copy back, or start a new run"),
        (lambda run: (run / "report.json").write_text("[]"), "…/report.json is damaged: delete it, and `--resume` writes it anew"),
        (lambda run: instead(os.mkfifo, "report.json")(run), "…/report.json is damaged: delete it, and `--resume` writes it anew"),
    ],
    ids=["deep", "format", "items", "paths", "provenance", "garbage", "operation", "pipe", "folder", "report", "report_pipe"],
)  # fmt: skip
def test_a_run_folder(
    spoil: Spoil, message: str, searched: Path, workplace: Workplace, complaint: Complaint
) -> None:
    shutil.copytree(searched, workplace.path / "run")
    spoil(workplace.path / "run")
    commands = [["front", "run"], ["report", "run"], ["export", "run", "out"]]
    for command in commands[1:] if "report.json" in message else commands:
        said = complaint(*command)
        assert re.fullmatch(as_pattern(message), said), said[:500]


@pytest.fixture(scope="session")
def searched(furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    from evomerge.controller.public import search

    run = tmp_path_factory.mktemp("searched") / "run"
    search(furnished / "space.yaml", run=run, serial=True)
    return run


def change(file: Path, **changed: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def garble(file: Path, line: bytes) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    lines[len(lines) // 2] = line
    file.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "space.yaml", "--serial", "--run", "loop"], "the run folder loop is a link that leads in a circle"),
        (["front", "loop"], "the run folder loop is a link that leads in a circle"),
        (["check", "x" * 5000], "xxx… cannot be used: File name too long"),
        (["check", "pipe"], "no space file at pipe"),
        (["check", "/dev/zero"], "no space file at /dev/zero"),
        (["export", "pipe", "out"], "pipe is neither a run folder nor a recipe file"),
        (["measure", "influence", "models/math", "out", "--prompts", "pipe"], "no file of prompts at pipe"),
        (["measure", "influence", "models/math", "out", "--prompts", "deep.jsonl"], "prompt 1 of deep.jsonl is no JSON object with a field `text`"),
        (["measure", "influence", "models/words", "/proc/1/x", "--prompts", "tasks/tiny.jsonl"], "…/proc/1/… cannot be …"),
    ],
    ids=["run", "front", "long", "pipe", "device", "recipe", "prompts", "deep", "target"],
)  # fmt: skip
def test_a_path(arguments: list[str], message: str, workplace: Workplace, complaint: Complaint) -> None:
    os.mkfifo(workplace.path / "pipe")
    (workplace.path / "loop").symlink_to("loop")
    (workplace.path / "deep.jsonl").write_text("[" * 10**5)
    said = complaint(*arguments)
    assert re.fullmatch(as_pattern(message), said), said[:500]


def test_odd_names_of_folders_and_read_only_sources_work(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = workplace.path / "a b'\"é\n[x] $HOME"
    odd.mkdir()
    for name in ("models", "tasks", "space.yaml"):
        (workplace.path / name).rename(odd / name)
    for path in [*odd.rglob("*"), odd]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    run = "ü [/x]'s\nrun"
    for arguments in (
        ["search", f"{odd.name}/space.yaml", "--serial", "--run", run],
        ["front", run],
        ["report", run],
        ["export", run, "ü m\n'"],
    ):
        monkeypatch.setattr(sys, "argv", ["evomerge", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0, capfd.readouterr().err
    odd.chmod(0o755)
