"""`influence:` of a source: found, checked, pinned in the run record, and there on resume."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import evomerge
from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord
from evomerge.checkpoints.digest import digest
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.locate import ZOO
from evomerge.checkpoints.measured import Origin
from evomerge.controller.public import search
from evomerge.controller.setup import resolve
from evomerge.errors import CheckpointError, RunError
from evomerge.evaluate.evaluator import only_compute
from evomerge.space import read_space

SPACE = """
sources:
  base: zoo:base
  math: {source: zoo:math, influence: math.influence}
  lang: {source: zoo:lang, influence: lang.influence}
merge: {base: base, sources: [math], layers: 1}
objectives: [{task: math_b, metric: acc}]
tasks: zoo:tasks
items: {search: 10, select: 10, report: 10}
sampler: random
budget: 4
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a space and what it names."""
    only_compute(1)
    folder = tmp_path_factory.mktemp("measured")
    for model in ("math", "lang"):
        evomerge.measure(
            "influence", f"zoo:{model}", ["1 + 1 =", "the dog ran"], folder / f"{model}.influence"
        )
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    return folder


@pytest.fixture
def place(measured: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return Path(shutil.copytree(measured, tmp_path / "place"))


@pytest.fixture(scope="module")
def run(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return search(measured / "space.yaml", run=folder, serial=True).folder.path


def resolved(place: Path, known: RunRecord | None = None) -> RunRecord:
    return resolve(read_space(place / "space.yaml"), known=known)


def numbers(file: Path) -> tuple[float, ...]:
    return tuple(load_file(file)["influence"].tolist())


def test_the_numbers_of_sources_that_are_used_are_pinned_and_the_file_is_not(
    run: Path, measured: Path
) -> None:
    record = RunFolder(run).read_record()
    assert record.influence == {"math": numbers(measured / "math.influence")}
    assert record.genome.influence == record.influence
    assert len(record.influence["math"]) == record.layers == 6
    assert list(record.paths) == ["base", "math"]
    both = resolve(read_space(measured / "space.yaml", {"merge": {"base": "base"}}))
    assert both.influence == {name: numbers(measured / f"{name}.influence") for name in ("math", "lang")}


def test_layers_are_pruned_by_the_influence_that_was_measured(place: Path) -> None:
    path = "path: {form: prune, models: [math], count: 1}\n"
    (place / "space.yaml").write_text(SPACE + path, encoding="utf-8")
    for least in (2, 3):
        write(place / "math.influence", [0.5 - 0.3 * (layer == least) for layer in range(6)])
        genome = resolved(place).genome
        params = {gene.name: gene.start for gene in genome.genes}
        kept = [slot.layer for slot in genome.decode(params).path or ()]
        assert kept == [layer for layer in range(6) if layer != least]


def test_a_search_goes_on_after_the_file_has_gone_or_moved(run: Path, place: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(run, tmp_path / "run"))
    before = RunFolder(there).read_record().influence
    (place / "math.influence").unlink()
    for space in (place / "space.yaml", there / "space.yaml"):  # the second lies where no files are
        search(space, run=there, resume=True, serial=True, budget=5)
        assert RunFolder(there).read_record().influence == before


def test_a_search_does_not_go_on_with_other_numbers(run: Path, place: Path) -> None:
    (place / "math.influence").unlink()
    evomerge.measure("influence", "zoo:math", ["no other prompt"], place / "math.influence")
    message = "what was measured on source `math` changed since it was started"
    with pytest.raises(RunError, match=message):
        search(place / "space.yaml", run=run, resume=True, serial=True)
    (place / "space.yaml").write_text(SPACE.replace(", influence: math.influence", ""), encoding="utf-8")
    with pytest.raises(RunError, match=message):
        search(place / "space.yaml", run=run, resume=True, serial=True)


def test_a_record_stands_for_no_other_file_than_it_knew(run: Path, place: Path) -> None:
    (place / "math.influence").rename(place / "moved")
    known = RunFolder(run).read_record()
    assert resolved(place, known).influence == known.influence
    (place / "space.yaml").write_text(SPACE.replace("math.influence", "elsewhere"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"`sources\.math\.influence`: no statistics file `elsewhere`"):
        resolved(place, known)


def write(file: Path, values: list[float], model: str = "math") -> None:
    content = digest(open_checkpoint(ZOO / "models" / model))
    origin = Origin(kind="influence", model=content, samples=1, tokens=2, seed=0)
    save_file({"influence": torch.tensor(values)}, file, metadata=origin.metadata())


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("none", "no statistics file `none` (looked at …none); `evomerge measure` makes one"),
        ("gram", "…gram holds the gram of a model, not its influence"),
        (
            "base.influence",
            "the influence in …base.influence was measured on `base`, not on `math`; "
            "name each source's own file",
        ),
        (
            "lang.influence",
            "the influence in …lang.influence was measured on another model (content …) than `math` (…); "
            "measure it again with `evomerge measure influence`",
        ),
        (
            "short",
            "…short holds the influence of 2 layers, and `math` has 6; measure it again with "
            "`evomerge measure influence`",
        ),
        ("nan", "the influence in …nan holds NaN or infinite values; measure it again with …"),
        ("torn", "…torn is not a whole safetensors file: …; download or copy it again"),
        ("text", "…text is not a whole safetensors file: …; download or copy it again"),
        ("weights", "…weights is no statistics file of evomerge; make one with `evomerge measure influence`"),
    ],
)
def test_a_file_that_will_not_do_is_refused_under_its_key(place: Path, named: str, message: str) -> None:
    evomerge.measure("gram", "zoo:math", ["1 + 1 ="], place / "gram")
    write(place / "base.influence", [0.1] * 6, "base")
    write(place / "short", [0.1, 0.2])
    write(place / "nan", [0.1] * 5 + [float("nan")])
    (place / "torn").write_bytes((place / "math.influence").read_bytes()[:-4])
    (place / "text").write_text(json.dumps([0.1] * 6))
    shutil.copy(ZOO / "models" / "math" / "model.safetensors", place / "weights")
    (place / "space.yaml").write_text(
        SPACE.replace("influence: math.influence", f"influence: {named}"), encoding="utf-8"
    )
    place_of_key = f"{place / 'space.yaml'}:4: `sources.math.influence`: "
    pattern = ".*".join(map(re.escape, (place_of_key + message).split("…")))
    with pytest.raises(CheckpointError, match=f"^{pattern}$"):
        resolved(place)
