"""Models on the Hugging Face hub: ``user/name``, or of a branch, tag or commit ``user/name@revision``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scgpt._folders import full_disk_named
from scgpt._json import read_object

from ._checkpoint import CONFIG, PICKLED, REGISTRY, VOCAB, WEIGHTS

_NAME = re.compile(r"([a-z0-9][\w.-]*/\w(?:[\w.-]*\w)?)(?:@(.+))?", re.ASCII | re.IGNORECASE)
_CACHED = re.compile(r".*/models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})")
_US: dict[str, Any] = {"library_name": "scgpt-tools", "library_version": version("scgpt-tools")}
_LOG_IN = "log in by `hf auth login`, or set HF_TOKEN"


def is_repository(model: object) -> bool:
    """Whether this may be the name of a repository: text with one slash between two names."""
    return isinstance(model, str) and _NAME.fullmatch(model) is not None


def download(name: str) -> Path:
    """Return the folder of a model in the cache of huggingface_hub, with what was not there downloaded.

    What can be read without executing code is taken, and nothing else: weights as safetensors, and JSON. Where the hub
    cannot be reached, what was downloaded before is used.

    Parameters
    ----------
    name
        As :func:`is_repository` knows it.

    Raises
    ------
    FileNotFoundError
        When there is no such repository or revision, or it cannot be reached and was not downloaded before; when it
        holds no model of this package.
    PermissionError
        When it may not be read.
    OSError
        When the download fails, or the disk is full.
    ImportError
        When huggingface_hub is not installed.
    """
    match = _NAME.fullmatch(name)
    assert match is not None
    repository, revision = match.groups()
    try:
        from huggingface_hub import constants, snapshot_download
    except ImportError:
        raise ImportError(
            f"There is no folder {repository}. To have it from the Hugging Face hub: pip install 'scgpt-tools[hub]'"
        ) from None

    def get(revision: str | None, *files: str) -> Path:
        cache = Path(constants.HF_HUB_CACHE)
        what_now = "Free some space, or set HF_HOME to a folder on another disk, and try again."
        with full_disk_named(cache, what_now), _explained(repository, revision):
            folder = snapshot_download(repository, revision=revision, allow_patterns=list(files), **_US)
        if missing := [file for file in files if file != REGISTRY and not (Path(folder) / file).is_file()]:
            raise FileNotFoundError(
                f"{repository} on the Hugging Face hub lacks {', '.join(missing)}: it holds no model that push_to_hub of "
                f"this package made. {PICKLED} of scvi-tools and other pickles could execute code when read; they are "
                "not downloaded."
            )
        return Path(folder)

    # Weights are large: first it is seen whether these are ours.
    folder = get(revision, CONFIG, VOCAB, REGISTRY)
    if "network" not in read_object(folder / CONFIG):
        raise ValueError(f"{CONFIG} of {repository} on the Hugging Face hub is not that of a model of this package.")
    return get(folder.name, CONFIG, VOCAB, REGISTRY, WEIGHTS)


def upload(folder: Path, repository: str, *, private: bool | None, token: str | None, message: str) -> str:
    """Put the files of a folder into a repository, which is made if it is not there.

    Returns
    -------
    The address of the commit.

    Raises
    ------
    ValueError
        When this is no name of a repository.
    PermissionError
        When nobody is logged in, or who is may not write there.
    OSError
        When the upload fails.
    ImportError
        When huggingface_hub is not installed.
    """
    if not is_repository(repository) or "@" in repository:
        raise ValueError(f"A repository on the Hugging Face hub is called user/name, not {repository!r}.")
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise ImportError("To push to the Hugging Face hub: pip install 'scgpt-tools[hub]'") from None
    api = HfApi(token=token, **_US)
    with _explained(repository, None):
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message).commit_url)


def source_of(folder: Path) -> str:
    """Return what provenance calls a folder: by its repository and commit, which :func:`download` takes, or as it is."""
    match = _CACHED.fullmatch(folder.as_posix())
    return "{}/{}@{}".format(*match.groups()) if match else str(folder)


@contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Turn the errors of huggingface_hub, and of what it asks the network by, into one line that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(f"{repository!r} cannot be a repository on the Hugging Face hub: {_line(error)}") from None
    except errors.GatedRepoError:
        raise PermissionError(
            f"{repository} on the Hugging Face hub is given to those who ask: do so on its page, then {_LOG_IN}."
        ) from None
    except errors.RevisionNotFoundError:
        raise FileNotFoundError(f"{repository} on the Hugging Face hub has no revision {revision!r}.") from None
    except errors.RepositoryNotFoundError:
        raise FileNotFoundError(
            f"There is no folder {repository}, and no repository of this name on the Hugging Face hub, or it is private: "
            f"then {_LOG_IN}."
        ) from None
    except errors.LocalEntryNotFoundError as error:
        why = _status(error.__cause__) or type(error.__cause__ or error).__name__
        raise FileNotFoundError(
            f"There is no folder {repository}. The Hugging Face hub cannot be asked for it ({why}), and not all of it was "
            "downloaded before."
        ) from None
    # HTTPError is that of the library which this version of huggingface_hub uses, and no OSError with some.
    except (errors.HTTPError, OSError) as error:
        status = _status(error)
        if isinstance(error, errors.LocalTokenNotFoundError) or status == 401:
            raise PermissionError(f"The Hugging Face hub does not know who asks for {repository}: {_LOG_IN}.") from None
        if status == 403:
            raise PermissionError(
                f"The Hugging Face hub does not let you do this with {repository}: {_line(error)}"
            ) from None
        raise OSError(f"{repository} on the Hugging Face hub: {type(error).__name__}, {_line(error)}") from None


def _status(error: Any) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _line(error: BaseException) -> str:
    """Return what the server said, or else the error, as one line."""
    return " ".join(str(getattr(error, "server_message", None) or error).split())[:300]
