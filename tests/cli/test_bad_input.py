"""A wrong request: exit code 2, one sentence on stderr, and nothing written anywhere."""
# ruff: noqa: E501 - messages stand as users see them

from __future__ import annotations

import json
import re
import socket
import sys

import pytest

from evomerge.cli.main import main
from tests.cli.conftest import SPACE, Complaint, Workplace, as_pattern


def edited(old: str, new: str) -> str:
    assert SPACE.count(old) == 1
    return SPACE.replace(old, new)


def test_the_request_that_the_others_spoil_is_good(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    search_well(monkeypatch, capfd)
    record = json.loads((workplace.path / "runs" / "space" / "run.json").read_text())
    assert [len(record["items"]["tiny"][split]) for split in ("search", "report")] == [4, 4]


def search_well(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["evomerge", "search", "space.yaml", "--serial", "--quiet"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0, capfd.readouterr().err


def test_a_missing_space_file(complaint: Complaint) -> None:
    assert complaint("search", "none.yaml") == "no space file at none.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPACE + "seed: [1\n", "space.yaml:9: not YAML: expected ',' or ']', but got '<stream end>'"),
        (SPACE + "base: base\n", "space.yaml:8: `base` is not a key here; did you mean `baselines` or `base` under `merge`? (known: …)"),
        (edited("layers: 1", "tokenizer: union"), "space.yaml:2: `merge.tokenizer` is not a key here; did you mean `tokenizer` at the top of the file? (known: …)"),
        (SPACE + "budgett: 3\n", "space.yaml:8: `budgett` is not a key here; did you mean `budget`? (known: …)"),
        (edited("models/math", "./models/none"), "space.yaml:1: `sources.math`: no model folder `./models/none` (looked at …)"),
        (edited("models/math", "models/none"), "space.yaml:1: `sources.math`: `models/none` is neither a folder here nor in the hub's cache, …"),
        (edited("models/math", "zoo:none"), "space.yaml:1: `sources.math`: no zoo model named `none`. Known: …"),
        (edited("models/math", "{source: models/math, influence: none}"), "space.yaml:1: `sources.math.influence`: no statistics file `none` (looked at …); `evomerge measure` makes one"),
        (edited("models/math", "{source: models/math, influence: models/math/model.safetensors}"), "space.yaml:1: `sources.math.influence`: …/model.safetensors is no statistics file of evomerge; make one with `evomerge measure influence`"),
        (edited("models/math", "models/empty"), "space.yaml:1: `sources.math`: …/models/empty is not a checkpoint: it has no config.json"),
        (edited("models/math", "models/earlier"), "space.yaml:1: `sources.math`: …/models/earlier is the folder of a run: it has no config.json; a model that it found is a source as {run: FOLDER}"),
        (edited("models/math", "models/torn"), "space.yaml:1: `sources.math`: …/models/torn/model.safetensors is not a whole safetensors file: …"),
        (edited("models/math", "models/gpt2"), "space.yaml:1: `sources.math`: `math` cannot be merged with `base`: its architecture is gpt2, not llama"),
        (edited("models/math", "models/taller"), "space.yaml:1: `sources.math`: `math` cannot be merged with `base`: its number of layers is 3, not 2"),
        (edited("models/math", "models/words"), "space.yaml:1: `sources.math`: `math` cannot be merged with `base`: the vocabularies differ (2 tokens missing, 2 extra, …"),
        (edited("models/math", "models/lora"), "space.yaml:1: `sources.math`: `math` is an adapter for another base: it does not say what it was trained on, and `base` is `models/base`; …"),
        (edited("models/math", "models/heads"), "space.yaml:1: `sources.math`: `math` cannot be merged with `base`: its `num_attention_heads` is 4, not 2"),
        (edited("models/math", "models/gptq"), "space.yaml:1: `sources.math`: `math` is quantised (`quantization_config` in its config.json: gptq), and …"),
        (edited("models/math", "models/short"), "space.yaml:1: `sources.math`: `math` has 3 layers, but its config.json says 2: one of the two is wrong"),
        (edited("models/base", "models/strange").replace("models/math", "models/strange"), "space.yaml:1: `sources.base`: transformers … has no language model of type `lama`, did you mean `llama`?"),
        (edited("layers: 1", "layers: 3"), "space.yaml:2: `merge.layers`: 3 runs of layers are asked for, but there are 2 layers"),
        (edited("layers: 1", "genes: {weight: 1}"), "space.yaml:2: `merge`: nothing to search: every parameter is fixed; …"),
        (edited("layers: 1", "layers: 1, method: ties, compat: official"), "space.yaml:2: `merge`: `ties` cannot merge `lm_head.weight` so: `compat: official` has no weights in TIES, found […]; fix `weight` at 1"),
        (edited("layers: 1", "layers: 1, method: ties, genes: {scope: model}"), "space.yaml:2: `merge`: `ties` looks at the whole model here, so it needs the same parameters (weights aside) in all groups and layers; fix them at one value each, or use `scope: tensor` where there is one"),
        (edited("layers: 1", "layers: 1, method: ties, genes: {scope: model, density: [0.2, 0.5]}"), "space.yaml:2: `merge`: `ties` looks at the whole model here, so it needs the same parameters (weights aside) in all groups and layers; …"),
        (edited("tasks: tasks", "tasks: nowhere"), "space.yaml:4: `tasks`: no task folder `nowhere` (looked at …)"),
        (edited("task: tiny", "task: tinny"), "space.yaml:3: `objectives[0].task`: no task named `tinny`. Did you mean `tiny`? Known: tiny (looked in …/tasks)"),
        (edited("task: tiny", "task: tiny, metric: acc_nrm"), "space.yaml:3: `objectives[0].metric`: task `tiny`: no metric named `acc_nrm`. …Known: acc"),
        (edited("task: tiny", "task: tiny, filter: strict"), "space.yaml:3: `objectives[0].filter`: task `tiny`: no filter named `strict`. Known: none"),
        (edited("search: 4", "search: 400"), "space.yaml:5: `items`: task `tiny` has 12 items, too few for 400 to search on and 4 others to report on; lower `items`"),
        (edited("sampler: random", "sampler: randm"), "space.yaml:6: `sampler`: no sampler named `randm`. Did you mean `random`? Known: …"),
        (edited("sampler: random", "sampler: {name: cma, options: {sigmma: 1}}"), "space.yaml:6: `sampler`: sampler `cma` does not take {'sigmma': 1}: it knows `sigma` and `popsize`, not `sigmma`"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_searched(
    workplace: Workplace, complaint: Complaint, text: str, message: str
) -> None:
    workplace.write_space(text)
    assert re.fullmatch(as_pattern(message), said := complaint("search", "space.yaml", "--serial")), said


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("doc_to_text: ", "doc_to_text: '{{nowhere.near}}' #"), "task `tiny` (in …/tasks) cannot be loaded: UndefinedError: 'nowhere' is undefined"),
        (("task: tiny", "task: [tiny"), "no task named `tiny` can be read, and the task file …/tasks/tiny.yaml is not YAML: while parsing a flow sequence …"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_built(
    workplace: Workplace, complaint: Complaint, edit: tuple[str, str], message: str
) -> None:
    file = workplace.path / "tasks" / "tiny.yaml"
    assert edit[0] in file.read_text()
    file.write_text(file.read_text().replace(*edit))
    said = complaint("search", "space.yaml", "--serial")
    assert re.fullmatch(as_pattern(f"space.yaml:3: `objectives[0].task`: {message}"), said), said


def test_more_examples_than_the_task_has(workplace: Workplace, complaint: Complaint) -> None:
    workplace.write_space(SPACE + "few_shot: 1000\n")
    said = complaint("search", "space.yaml", "--serial")
    assert said.startswith("space.yaml:3: `objectives[0].task`: task `tiny` (in "), said


def test_first_tokens_are_left_out_of_an_influence_only(complaint: Complaint) -> None:
    command = ("measure", "gram", "models/math", "math.gram", "--prompts", "tasks/tiny.yaml", "--skip-first")
    assert complaint(*command) == (
        "only an influence can leave out first tokens: measure the gram without `skip_first`"
    )


def test_a_storage_that_is_no_url(complaint: Complaint) -> None:
    said = complaint("search", "space.yaml", "--serial", "--storage", "study.db")
    assert said.startswith("a storage is a database URL such as sqlite:///study.db or ")
    assert said.endswith(", found `study.db`")


def test_an_unknown_sampler_on_the_command_line(complaint: Complaint) -> None:
    said = complaint("search", "space.yaml", "--sampler", "tp")
    assert said.startswith("`sampler` as given: no sampler named `tp`. Did you mean `tpe`?")


def test_a_run_folder_that_exists(workplace: Workplace, complaint: Complaint) -> None:
    taken = workplace.path / "taken"
    taken.mkdir()
    (taken / "precious.txt").write_text("mine")
    said = complaint("search", "space.yaml", "--run", "taken")
    assert said == f"{taken} exists, and is no run folder; choose another `--run`"


def test_a_run_folder_that_is_a_file(complaint: Complaint) -> None:
    assert "space.yaml is a file, so no run folder" in complaint(
        "search", "space.yaml", "--run", "space.yaml"
    )


@pytest.mark.parametrize("where", [[], ["--run", "runs/none"]])
def test_nothing_to_resume(complaint: Complaint, where: list[str]) -> None:
    said = complaint("search", "space.yaml", "--resume", *where)
    assert said.startswith("no run folder at " if where else "nothing to resume: there is no run folder ")


@pytest.mark.parametrize("command", [["front"], ["report"], ["dashboard"], ["export", "--trial", "0"]])
@pytest.mark.parametrize("folder", ["models", "none"])
def test_a_folder_that_is_no_run(
    workplace: Workplace, complaint: Complaint, command: list[str], folder: str
) -> None:
    target = ["out"] if command[0] == "export" else []
    said = complaint(command[0], folder, *target, *command[1:])
    if folder == "models":
        assert said == f"{workplace.path / 'models'} is not a run folder: it has no run.json"
    else:
        assert said in (
            f"no run folder at {workplace.path / 'none'}",
            "none is neither a run folder nor a recipe file",
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "recipe.yaml: `recipe` must be a table, found []"),
        ("", "recipe.yaml: `recipe` must be a table, found None"),
        ("models: 3\nmerges: {}", "recipe.yaml: `models` …"),
        ("word", "recipe.yaml: …"),
        ("merge_method: ties", "recipe.yaml: this is a recipe of mergekit, not a recipe of evomerge (it has `merge_method`); write its models under `models` and what to do with them under `merges`"),
        (SPACE, "recipe.yaml: this is a space to search, not a recipe of evomerge (it has `objectives`); give it to `evomerge search`"),
    ],
)  # fmt: skip
def test_a_recipe_that_is_none(
    workplace: Workplace, complaint: Complaint, content: str, message: str
) -> None:
    (workplace.path / "recipe.yaml").write_text(content)
    said = complaint("export", "recipe.yaml", "out")
    assert re.fullmatch(as_pattern(message), said), said


def test_a_recipe_for_more_layers_than_there_are(workplace: Workplace, complaint: Complaint) -> None:
    groups = "groups: [{layers: [1, 2], modules: [attn], weight: 0.5}]"
    (workplace.path / "recipe.yaml").write_text(RECIPE.replace("lang]}", f"lang], {groups}}}"))
    said = complaint("export", "recipe.yaml", "out")
    assert said == "a group covers layers [1, 2], but the model's last layer is 1"


def test_a_recipe_whose_models_lie_elsewhere(workplace: Workplace, complaint: Complaint) -> None:
    (workplace.path / "recipe.yaml").write_text(RECIPE.replace("models/lang", "tongue"))
    said = complaint("export", "recipe.yaml", "out")
    assert said.endswith("say where it lies with `--source lang=FOLDER`")


RECIPE = """\
models: {math: {source: models/math}, lang: {source: models/lang}}
merges: {m: {method: linear, sources: [math, lang]}}
"""


@pytest.mark.parametrize("target", ["models/math", "space.yaml"])
def test_an_export_target_that_exists(workplace: Workplace, complaint: Complaint, target: str) -> None:
    (workplace.path / "recipe.yaml").write_text(RECIPE)
    said = complaint("export", "recipe.yaml", target)
    assert said.startswith(f"{workplace.path / target} exists")


def test_an_export_target_that_is_no_checkpoint_is_not_overwritten(
    workplace: Workplace, complaint: Complaint
) -> None:
    (workplace.path / "recipe.yaml").write_text(RECIPE)
    said = complaint("export", "recipe.yaml", "tasks", "--overwrite")
    assert (
        said
        == f"{workplace.path / 'tasks'} is no checkpoint that evomerge wrote (it has no recipe.yaml), so it is not overwritten"
    )


@pytest.mark.parametrize("content", [b"\xff\xfe\x00m", b"models: \xe4"])
def test_a_recipe_that_is_no_text(workplace: Workplace, complaint: Complaint, content: bytes) -> None:
    (workplace.path / "recipe.yaml").write_bytes(content)
    said = complaint("export", "recipe.yaml", "out")
    assert said == "recipe.yaml is not a recipe: it is not UTF-8 text"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("gpt2", "`lang` cannot be merged with `math`: its architecture is gpt2, not llama"),
        ("taller", "`lang` cannot be merged with `math`: its number of layers is 3, not 2"),
        (
            "words",
            "`lang` cannot be merged with `math`: the vocabularies differ (2 tokens missing, 2 extra, …",
        ),
        ("none", "`models/none` is neither a folder here nor in the hub's cache, …"),
        ("torn", "…/models/torn/model.safetensors is not a whole safetensors file: …"),
    ],
)
def test_an_export_of_models_that_do_not_fit(
    workplace: Workplace, complaint: Complaint, other: str, message: str
) -> None:
    (workplace.path / "recipe.yaml").write_text(RECIPE.replace("models/lang", f"models/{other}"))
    said = complaint("export", "recipe.yaml", "out")
    assert re.fullmatch(as_pattern(message), said), said


@pytest.mark.parametrize("target", ["models/math", "models/math/merged"])
def test_an_export_onto_its_own_source(workplace: Workplace, complaint: Complaint, target: str) -> None:
    (workplace.path / "recipe.yaml").write_text(RECIPE)
    said = complaint("export", "recipe.yaml", target, "--overwrite")
    assert said.startswith(f"the target {workplace.path / target} is, holds or lies in ")


@pytest.mark.parametrize(
    "options", [["--trial", "1"], ["--best", "tiny"], ["--knee"], ["--no-verify"], ["--storage", "sqlite://"]]
)
def test_options_of_a_run_with_a_recipe(
    workplace: Workplace, complaint: Complaint, options: list[str]
) -> None:
    (workplace.path / "recipe.yaml").write_text(RECIPE)
    said = complaint("export", "recipe.yaml", "out", *options)
    assert said == f"a recipe has neither trials nor scores, so `{options[0]}` means nothing"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["math"], "`--source` takes NAME=FOLDER, found `math`"),
        (["math=a", "math=b"], "`--source` gives `math` twice: a and b"),
        (["maths=a"], "`--source maths=…`: no model named `maths`. Did you mean `math`? Known: lang, math"),
        (["math=a"], "no model `math` at …/a; say where it lies with `--source math=FOLDER`"),
        (["math=models/gpt2"], "`lang` cannot be merged with `math`: its architecture is llama, not gpt2"),
    ],
)
def test_sources_that_cannot_be_meant(
    workplace: Workplace, complaint: Complaint, sources: list[str], message: str
) -> None:
    (workplace.path / "recipe.yaml").write_text(RECIPE)
    options = [word for each in sources for word in ("--source", each)]
    said = complaint("export", "recipe.yaml", "out", *options)
    assert re.fullmatch(as_pattern(message), said), said


def test_an_export_into_nowhere(workplace: Workplace, complaint: Complaint) -> None:
    (workplace.path / "recipe.yaml").write_text(RECIPE)
    said = complaint("export", "recipe.yaml", "no/where")
    assert said == f"{workplace.path / 'no'} does not exist; make it first"


def test_contradicting_choices_of_a_trial(complaint: Complaint) -> None:
    said = complaint("export", "models", "out", "--trial", "1", "--knee")
    assert said == "choose one of `--trial`, `--best` and `--knee`"


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["dashboard", "runs/none", "--port", "70000"], "'--port'"),
        (["dashboard", "runs/none", "--port", "web"], "'--port'"),
        (["search"], "Missing argument"),
        (["search", "space.yaml", "--budget", "0"], "'--budget'"),
        (["search", "space.yaml", "--bugdet", "3"], "--bugdet"),
        (["serach", "space.yaml"], "'serach'"),
        (["front", "runs/none", "--format", "xml"], "'--format'"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_meant(
    workplace: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    culprit: str,
) -> None:
    """Typer shows how the command is used and, framed, what was wrong with it."""
    monkeypatch.setattr(sys, "argv", ["evomerge", *arguments])
    before = workplace.listing()
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert "Traceback" not in said.err
    assert said.err.startswith("Usage: ")
    assert culprit in said.err
    assert workplace.listing() == before


def test_what_a_finished_run_does_not_have(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], complaint: Complaint
) -> None:
    search_well(monkeypatch, capfd)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = complaint("dashboard", "runs/space", "--port", str(port))
    assert (
        said == f"port {port} on 127.0.0.1 cannot be used (Address already in use); choose another `--port`"
    )
    assert complaint("export", "runs/space", "out", "--trial", "99") == "no trial 99: the run has 6 trials"
    assert (
        complaint("export", "runs/space", "out", "--best", "acc")
        == "no objective named `acc`; the run has tiny"
    )
    said = complaint("export", "runs/space", "out", "--source", "maths=models/math")
    assert said.startswith("`--source maths=…`: no model named `maths`. Did you mean `math`?")
    said = complaint("export", "runs/space", "out", "--trial", "1", "--source", "math=models/lang")
    assert "is not the `math` of the recipe" in said
    assert "which the export reads" in complaint("export", "runs/space", "runs/space/out")
