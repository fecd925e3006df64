"""A digest names content: the same wherever it lies, another as soon as a byte differs."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from evomerge.checkpoints.digest import digest
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


def test_other_files_do_not_matter(write_model: Callable[..., Path]) -> None:
    folder = write_model("a", {"w": (2, 2)})
    before = digest(open_checkpoint(folder))
    (folder / "README.md").write_text("words")
    assert digest(open_checkpoint(folder)) == before
