"""Uploading a written checkpoint to the hub, through huggingface_hub.

The token is found where that library looks for one: `HF_TOKEN`, or what `hf auth login` stored.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import ExportError, RequestError
from evomerge.others_words import plain

_MAIN = "main"
_WHY = {
    401: "the hub does not accept the token; log in again with `hf auth login`",
    403: "the token may not write there; take one with write access to it",
    404: "there is no such repository or branch, or the token may not see it",
    409: "somebody else has changed it in the meantime",
    413: "it is too large for the hub",
}


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A repository of the hub, the branch to write (None: main), and whether it must be private."""

    repo: str
    private: bool
    revision: str | None

    @property
    def name(self) -> str:
        """The repository's name without its owner."""
        return self.repo.partition("/")[2]


def destination(repo: str | None, *, private: bool, revision: str | None) -> Destination | None:
    """Return where to upload to, None if nowhere.

    Raises `RequestError` if the name is no repository's, or nothing can be uploaded from here.
    """
    if repo is None:
        if private or revision is not None:
            option = "--private" if private else "--revision"
            raise RequestError(f"`{option}` says how to upload, so it needs `--push-to OWNER/NAME`")
        return None
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented there

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RequestError(f"`--push-to {repo}` is no repository of the hub: {plain(str(error))}") from error
    if repo.count("/") != 1:
        raise RequestError(f"`--push-to` takes OWNER/NAME, found `{repo}`")
    if constants.HF_HUB_OFFLINE:
        raise RequestError("`--push-to` needs the hub, and HF_HUB_OFFLINE is set; unset it")
    if get_token() is None:
        raise RequestError(
            "`--push-to` needs a token of the hub; log in with `hf auth login`, or set HF_TOKEN"
        )
    return Destination(repo=repo, private=private, revision=None if revision == _MAIN else revision)


def push(folder: Path, to: Destination) -> str:
    """Upload `folder` and return the address where it is. Raises `ExportError` saying how to try again."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of whichever httpx it uses

    api = HfApi()
    try:
        address = str(api.create_repo(to.repo, private=to.private or None, exist_ok=True))
        if to.private and not api.model_info(to.repo).private:
            raise ExportError(
                f"{to.repo} exists and is public, so {folder} was not uploaded; make it private on the hub, "
                "or choose another name"
            )
        if to.revision is not None:
            api.create_branch(to.repo, branch=to.revision, exist_ok=True)
        api.upload_folder(
            repo_id=to.repo,
            folder_path=folder,
            revision=to.revision,
            commit_message="Upload a merge made with evomerge",
        )
    except (OSError, HTTPError, ValueError, RuntimeError) as error:  # the last from the library in Rust
        raise ExportError(
            f"{folder} was not uploaded to {to.repo}: {_why(error)}. It is written and stays; upload it with "
            f"`{_again(folder, to)}`"
        ) from error
    return f"{address}/tree/{to.revision}" if to.revision else address


def _why(error: Exception) -> str:
    """Return what went wrong in the words of a person."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    for each in (error, root):
        status = getattr(getattr(each, "response", None), "status_code", None)
        if status in _WHY:
            return f"{_WHY[status]} (HTTP {status})"
    said = next(iter(str(root).strip().splitlines()), "") or type(root).__name__
    return plain(said).rstrip(".")


def _again(folder: Path, to: Destination) -> str:
    words = ["hf", "upload", to.repo, str(folder), "."]
    words += ["--revision", to.revision] if to.revision else []
    words += ["--private"] if to.private else []
    return shlex.join(words)
