"""Statistics files: what `evomerge.measure` writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import evomerge
from evomerge.checkpoints.digest import digest
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.influence import read_influence
from evomerge.checkpoints.locate import ZOO
from evomerge.checkpoints.measured import Origin, open_measured
from evomerge.errors import EvaluationError, RequestError
from evomerge.evaluate import measure as measuring
from evomerge.evaluate.evaluator import only_compute
from evomerge.evaluate.fisher import measure_fisher
from evomerge.evaluate.gram import measure_grams, shared_inputs
from evomerge.evaluate.layers import block_influence
from tests.cli.conftest import edit_config, save_gpt2, save_llama
from tests.seeing import seeing_expert

PROMPTS = ["the cat sat on the mat ?", "the dog ran", "yes", "no the mat sat on the cat"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    only_compute(1)
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_llama(folder, seed=0)
    return folder


def live(folder: Path) -> tuple[Any, list[torch.Tensor]]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model, [torch.tensor(tokenizer(text)["input_ids"]) for text in PROMPTS]


def test_a_fisher_file_holds_what_the_estimator_gives(llama: Path, tmp_path: Path) -> None:
    written = evomerge.measure("fisher", llama, PROMPTS, tmp_path / "f.safetensors", seed=3)
    model, sequences = live(llama)
    expected = measure_fisher(model, sequences, seed=3)
    found = load_file(written)
    assert found.keys() == expected.keys() == open_checkpoint(llama).specs.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    origin = open_measured(written, "fisher").origin
    assert (origin.kind, origin.samples, origin.tokens, origin.seed) == (
        "fisher",
        4,
        sum(map(len, sequences)),
        3,
    )
    assert origin.model == digest(open_checkpoint(llama))
    assert [path.name for path in tmp_path.iterdir()] == ["f.safetensors"]


@pytest.mark.parametrize("limit", [1, 1 << 30])
def test_a_gram_file_holds_shared_inputs_once_whatever_the_chunks(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(measuring, "_CHUNK_BYTES", limit)
    passes: list[list[str]] = []

    def counted(model: Any, sequences: Any, names: Any) -> Any:
        passes.append(list(names))
        return measure_grams(model, sequences, names)

    monkeypatch.setattr(measuring, "measure_grams", counted)
    written = evomerge.measure("gram", llama, PROMPTS, tmp_path / "g.safetensors")
    model, sequences = live(llama)
    first = shared_inputs(model, sequences[0])
    expected = measure_grams(model, sequences, dict.fromkeys(first.values()))
    assert len(passes) == (len(expected) if limit == 1 else 1)
    found = load_file(written)
    assert found.keys() == {f"{name}.weight" for name in expected}
    measured = open_measured(written, "gram")
    assert measured.origin.inputs_first == ()
    for name, leader in first.items():
        stored = measured.find(f"{name}.weight")
        assert stored == f"{leader}.weight"
        assert torch.equal(found[stored], expected[leader])
    assert measured.find("model.norm.weight") is None


def test_gpt2_without_the_prefix_of_the_live_model(tmp_path: Path) -> None:
    save_gpt2(tmp_path / "gpt2")
    weights = tmp_path / "gpt2" / "model.safetensors"
    bare = {name.removeprefix("transformer."): value for name, value in load_file(weights).items()}
    save_file(bare, weights, metadata={"format": "pt"})
    written = evomerge.measure("gram", tmp_path / "gpt2", PROMPTS, tmp_path / "g.safetensors")
    measured = open_measured(written, "gram")
    assert set(measured.origin.inputs_first) == {
        f"h.{layer}.{inside}.weight"
        for layer in (0, 1)
        for inside in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert measured.specs["h.1.mlp.c_proj.weight"].shape == (32, 32)
    written = evomerge.measure("fisher", tmp_path / "gpt2", PROMPTS, tmp_path / "f.safetensors")
    assert open_measured(written, "fisher").specs.keys() == bare.keys()  # tied: the embedding, once


def test_prompts_are_drawn_by_the_seed_and_read_from_lines_or_json(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n\n".join(PROMPTS) + "\n")
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"text": text, "id": 0}) + "\n" for text in PROMPTS))
    prompted: list[tuple[Path | list[str], int]] = [
        (PROMPTS, 0), (tmp_path / "p.txt", 0), (tmp_path / "p.jsonl", 0), (PROMPTS, 1),
    ]  # fmt: skip
    found = [
        load_file(evomerge.measure("gram", llama, prompts, tmp_path / f"{i}", samples=2, seed=seed))
        for i, (prompts, seed) in enumerate(prompted)
    ]
    name = "lm_head.weight"
    assert all(torch.equal(each[name], found[0][name]) for each in found[:3])
    assert not torch.equal(found[3][name], found[0][name])
    assert open_measured(tmp_path / "0", "gram").origin.samples == 2


def test_long_prompts_are_cut_to_what_the_model_sees(llama: Path, tmp_path: Path) -> None:
    written = evomerge.measure("gram", llama, ["the cat " * 100], tmp_path / "g")
    assert open_measured(written, "gram").origin.tokens == 64


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"statistic": "hessian"}, r"^no statistic named `hessian`\. Known: fisher, gram, influence$"),
        (
            {"skip_first": True},
            r"^only an influence can leave out first tokens: measure the gram without `skip_first`$",
        ),
        (
            {"statistic": "influence", "skip_first": True, "prompts": ["the", "cat"]},
            r"^the model's tokenizer finds no token in these prompts beyond the first, which `skip_first` ",
        ),
        ({"prompts": []}, r"^`prompts` holds no prompt; give at least one that is not blank$"),
        ({"prompts": "none.txt"}, r"^no file of prompts at none\.txt$"),
        ({"samples": 0}, r"^a statistic needs at least one prompt, found `samples` 0$"),
        ({"model": "zoo:maths"}, r"^no zoo model named `maths`\. Did you mean `math`\?"),
        ({"target": "nowhere/g"}, r"nowhere does not exist; make it first$"),
        ({"target": "there"}, r"there exists; choose another file, or delete it first$"),
        ({"prompts": "bad.jsonl"}, r"^prompt 2 of bad\.jsonl is no JSON object with a field `text`$"),
        ({"prompts": "odd.jsonl"}, r"^prompt 1 of odd\.jsonl has a `text` that is no text: 3$"),
        ({"prompts": "bytes.txt"}, r"^the prompts in bytes\.txt cannot be read as text: "),
        ({"prompts": "blank.txt"}, r"^blank\.txt holds no prompt"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "there": b"", "bad.jsonl": b'{"text": "the"}\n{"txt": 1}\n', "odd.jsonl": b'{"text": 3}\n',
        "bytes.txt": b"\xff\xfe\xff", "blank.txt": b" \n\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    request = {"statistic": "gram", "model": llama, "prompts": PROMPTS, "target": "g", **changed}
    with pytest.raises(RequestError, match=message):
        evomerge.measure(**request)
    assert sorted(tmp_path.iterdir()) == before


def test_a_parameter_that_is_not_in_the_checkpoint_is_refused(llama: Path, tmp_path: Path) -> None:
    save_llama(tmp_path / "odd", seed=0)
    weights = load_file(tmp_path / "odd" / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "odd" / "model.safetensors", metadata={"format": "pt"})
    edit_config(tmp_path / "odd", tie_word_embeddings=False)
    with pytest.raises(
        RequestError, match=r"is incomplete: a `llama` of its config.json needs `lm_head.weight`, which the"
    ):
        evomerge.measure("fisher", tmp_path / "odd", PROMPTS, tmp_path / "f")


def test_the_command_says_what_it_does_and_prints_the_file(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from evomerge.cli.main import app

    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    out = tmp_path / "g.safetensors"
    done = CliRunner().invoke(
        app, ["measure", "gram", str(llama), str(out), "--prompts", str(tmp_path / "p.txt"), "--samples", "3"]
    )
    assert (done.exit_code, done.stdout.strip()) == (0, str(out))
    assert open_measured(out, "gram").origin.samples == 3


def by_hand(folder: Path, texts: list[str], *, skip_first: bool) -> list[float]:
    """Return the mean over tokens of 1 − the cosine of each layer's input and output, prompt by prompt."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    last: list[torch.Tensor] = []  # the stream behind the last layer: `hidden_states` ends behind a norm
    model.model.norm.register_forward_pre_hook(lambda _, args: last.append(args[0]))
    found = []
    for text in texts:
        with torch.no_grad():
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            states = [*model(ids, output_hidden_states=True).hidden_states[:-1], last.pop()]
        stream = np.stack([state[0, int(skip_first) :].double().numpy() for state in states])
        unit = stream / np.linalg.norm(stream, axis=-1, keepdims=True)
        found.append(1 - (unit[:-1] * unit[1:]).sum(-1))  # (layers, tokens)
    mean: list[float] = np.concatenate(found, axis=1).mean(1).tolist()
    return mean


@pytest.mark.parametrize("skip_first", [False, True])
def test_an_influence_counts_every_token_alike(llama: Path, tmp_path: Path, skip_first: bool) -> None:
    file = evomerge.measure("influence", llama, PROMPTS, tmp_path / "i", skip_first=skip_first)
    measured = open_measured(file, "influence")
    expected = by_hand(llama, PROMPTS, skip_first=skip_first)
    assert read_influence(measured) == pytest.approx(expected, rel=1e-5)
    assert [list(spec.shape) for spec in measured.specs.values()] == [[2]]
    lengths = [len(ids) for ids in live(llama)[1] if len(ids) > skip_first]  # "yes" is one token
    assert len(lengths) == (3 if skip_first else 4)
    assert measured.origin == Origin(
        kind="influence",
        model=digest(open_checkpoint(llama)),
        samples=len(lengths),
        tokens=sum(lengths),
        seed=0,
        skip_first=skip_first,
    )


@pytest.mark.parametrize("skip_first", [False, True])
def test_the_influence_of_a_zoo_model_is_that_of_one_padded_batch(tmp_path: Path, skip_first: bool) -> None:
    texts = ["1 + 1 =", "12 + 30 = 42 , 1 + 2 =", "the dog ran"]
    file = evomerge.measure("influence", "zoo:math", texts, tmp_path / "i", skip_first=skip_first)
    folder = ZOO / "models" / "math"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    longest = max(map(len, ids))
    tokens = torch.tensor([each + [0] * (longest - len(each)) for each in ids])
    mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in ids])
    assert len(set(map(len, ids))) > 1
    expected = block_influence(model, tokens, mask, skip_first=skip_first)
    assert read_influence(open_measured(file, "influence")) == pytest.approx(expected, rel=0.02)


def test_a_model_that_sees_has_the_influence_of_its_language_model(tmp_path: Path) -> None:
    texts = ["1 + 1 =", "12 + 30 ="]
    expert = seeing_expert(tmp_path / "expert")
    files = [
        evomerge.measure("influence", model, texts, tmp_path / name)
        for name, model in (("seeing", expert), ("plain", "zoo:math"))
    ]
    seeing, plain = (read_influence(open_measured(file, "influence")) for file in files)
    assert seeing == pytest.approx(plain, rel=1e-6)
    with pytest.raises(RequestError, match="only an `influence` can be measured on such models yet"):
        evomerge.measure("fisher", expert, texts, tmp_path / "f")


def test_no_influence_is_measured_where_not_all_layers_run(tmp_path: Path) -> None:
    save_llama(tmp_path / "short", seed=0, layers=3)
    edit_config(tmp_path / "short", num_hidden_layers=2)
    with pytest.raises(RequestError, match=r"short` has 3 layers, but its config\.json says 2"):
        evomerge.measure("influence", tmp_path / "short", PROMPTS, tmp_path / "i")


def test_an_influence_that_is_not_finite_is_no_result(tmp_path: Path) -> None:
    save_llama(tmp_path / "broken", seed=0)
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    for part in ("up_proj", "down_proj"):
        weights[f"model.layers.1.mlp.{part}.weight"].fill_(3e38)  # finite, and what comes of them is not
    save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EvaluationError, match="hidden states of layer 1 are not finite on these prompts"):
        evomerge.measure("influence", tmp_path / "broken", PROMPTS, tmp_path / "i")
    assert not (tmp_path / "i").exists()


def test_the_command_shows_the_influence_of_each_layer(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from evomerge.cli.measure import Kind, command

    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    out = tmp_path / "i.safetensors"
    command(Kind.influence, str(llama), out, prompts=tmp_path / "p.txt", skip_first=True)
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    measured = open_measured(out, "influence")
    assert measured.origin.skip_first
    rows = [line.split() for line in said.err.splitlines()[-2:]]
    assert rows == [[str(layer), f"{value:.4f}"] for layer, value in enumerate(read_influence(measured))]
