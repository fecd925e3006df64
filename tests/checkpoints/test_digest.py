"""A digest names content: the same wherever it lies, another as soon as a byte differs."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from evomerge.checkpoints.digest import digest, tokenizer_digest
from evomerge.checkpoints.folder import open_checkpoint


def test_a_digest_says_how_it_was_made(write_model: Callable[..., Path]) -> None:
    found = digest(open_checkpoint(write_model("a", {"w": (2, 2)})))
    assert re.fullmatch(r"blake2b:[0-9a-f]{32}", found)


def test_a_copy_has_the_same_digest(tmp_path: Path, write_model: Callable[..., Path]) -> None:
    folder = write_model("a", {"w": (2, 2)})
    shutil.copytree(folder, tmp_path / "copy")
    assert digest(open_checkpoint(folder)) == digest(open_checkpoint(tmp_path / "copy"))


def test_one_changed_weight_changes_the_digest(write_model: Callable[..., Path]) -> None:
    folder = write_model("a", {"w": (2, 2)})
    before = digest(open_checkpoint(folder))
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert digest(open_checkpoint(folder)) != before


def test_the_config_is_part_of_the_content(write_model: Callable[..., Path]) -> None:
    one, other = (
        write_model(name, {"w": (2, 2)}, config={"rope_theta": theta})
        for name, theta in (("a", 1.0), ("b", 2.0))
    )
    assert digest(open_checkpoint(one)) != digest(open_checkpoint(other))


def test_the_tokenizer_is_part_of_the_content(write_model: Callable[..., Path]) -> None:
    folder = write_model("a", {"w": (2, 2)})
    before, words = digest(open_checkpoint(folder)), tokenizer_digest(folder)
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    assert digest(open_checkpoint(folder)) != before
    assert tokenizer_digest(folder) != words


def test_the_same_words_have_the_same_digest_in_any_model(write_model: Callable[..., Path]) -> None:
    one, other = write_model("a", {"w": (2, 2)}), write_model("b", {"v": (3,)})
    assert tokenizer_digest(one) == tokenizer_digest(other)


def test_other_files_do_not_matter(write_model: Callable[..., Path]) -> None:
    folder = write_model("a", {"w": (2, 2)})
    before = digest(open_checkpoint(folder))
    (folder / "README.md").write_text("words")
    assert digest(open_checkpoint(folder)) == before
