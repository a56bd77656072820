"""From a checkpoint's name to a folder on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs
import pooch
import requests

from . import _official
from ._checkpoint import CONFIG, VOCAB, WEIGHTS, Checkpoint, read_checkpoint
from ._huggingface import download, is_repository, source_of

OFFICIAL_FILES = (_official.WEIGHTS, _official.ARGS, VOCAB)
_SCHEMES = ("https",)
_BYTES_AT_A_TIME = 1 << 20


def known_checkpoints() -> dict[str, dict[str, Any]]:
    """Return the registry of checkpoints.

    Returns
    -------
    For each name ``"about"``, what it was trained on, and either its ``"folder"`` in the package or its ``"page"`` and
    pinned ``"files"``.

    Examples
    --------
    >>> import scgpt
    >>> {"mini", "whole-human"} <= set(scgpt.hub.known_checkpoints())
    True
    >>> scgpt.hub.known_checkpoints()["whole-human"]["about"]
    '33 million normal human cells'
    """
    return json.loads((files(__package__) / "checkpoints.json").read_text(encoding="utf-8"))


def cache_folder() -> Path:
    """Return where downloaded checkpoints are kept: ``$SCGPT_CACHE``, or ``scgpt-tools`` in the user's cache.

    Returns
    -------
    The folder, which need not be there.

    Examples
    --------
    >>> import os
    >>> import scgpt
    >>> os.environ["SCGPT_CACHE"] = "checkpoints"
    >>> scgpt.hub.cache_folder().name
    'checkpoints'
    """
    return Path(os.environ.get("SCGPT_CACHE") or platformdirs.user_cache_path("scgpt-tools"))


def resolve(model: str | Path, *, registry: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Return the folder of a checkpoint, downloading it if need be.

    Parameters
    ----------
    model
        A folder, or a name: ``"whole-human"``, ``"continual"``, ``"blood"``, ``"brain"``, ``"heart"``, ``"lung"``,
        ``"kidney"``, ``"pan-cancer"``; ``"mini"``, a small model that is part of the package; or a repository on the
        Hugging Face hub, ``"user/name"``, of a branch, tag or commit ``"user/name@revision"``, as a model's
        ``push_to_hub`` writes it. A folder that is there comes before a name.
    registry
        In place of :func:`known_checkpoints`; its addresses must begin with ``https://``, and no name may lead out of
        the cache.

    Returns
    -------
    The folder, in the package, in :func:`cache_folder`, or the one that was named.

    Raises
    ------
    FileNotFoundError
        When there is no such folder or repository, or a named checkpoint is not in the cache and cannot be downloaded.
    PermissionError
        When a repository may not be read.
    ImportError
        When a repository is named and huggingface_hub is not installed.
    ValueError
        When the name is unknown or no plain name, an address is not https, or a downloaded file has the wrong hash.

    Examples
    --------
    >>> import scgpt
    >>> scgpt.hub.resolve("mini").is_dir()
    True
    """
    registry = known_checkpoints() if registry is None else registry
    name = str(model)
    if name and Path(model).is_dir():
        return Path(model)
    if name not in registry:
        if is_repository(model):
            return download(name)
        if isinstance(model, Path) or os.sep in name or name.startswith("."):
            raise FileNotFoundError(f"There is no folder {model}.")
        raise ValueError(f"{name!r} is neither a folder nor a known checkpoint; known are {', '.join(registry)}.")
    entry = registry[name]
    if "folder" in entry:
        return Path(str(files(__package__) / _plain(entry["folder"])))
    folder = cache_folder() / _plain(name)
    # What is there was checked when it came, or was put there by the user on purpose.
    absent = [file for file in OFFICIAL_FILES if not (folder / file).is_file()]
    if not absent:
        return folder
    by_hand = f"Put {', '.join(OFFICIAL_FILES)} from {entry['page']} into {folder}, or pass the folder that holds them."
    if "files" not in entry:
        raise FileNotFoundError(f"Checkpoint {name!r} has no direct download with a known checksum. {by_hand}")
    for file in absent:
        _download(entry["files"][file], folder / file, by_hand)
    return folder


def _plain(name: str) -> str:
    """Return the name of a folder; one that would lead out of the folder above it is refused."""
    if name in ("", ".", "..") or set(name) & set("/\\:"):
        raise ValueError(f"{name!r} cannot be the name of a checkpoint: a name is no path.")
    return name


def _download(source: Mapping[str, str], target: Path, by_hand: str) -> None:
    """Download a file; it takes its place only once it is whole and its hash is right.

    Several processes may do so at the same time: each writes a file of its own, and the last puts the same in its place.
    """
    if urlsplit(source["url"]).scheme not in _SCHEMES:
        raise ValueError(f"{source['url']} is no https:// address; {target.name} is not downloaded. {by_hand}")
    try:
        pooch.retrieve(
            source["url"],
            f"sha256:{source['sha256']}",
            fname=target.name,
            path=target.parent,
            downloader=pooch.HTTPDownloader(progressbar=True, chunk_size=_BYTES_AT_A_TIME),
        )
    except (requests.RequestException, OSError) as error:
        raise FileNotFoundError(f"Cannot download {target.name} ({type(error).__name__}). {by_hand}") from None
    except ValueError as error:
        raise ValueError(f"The download of {target.name} is not what it should be ({error}). {by_hand}") from None


def read(model: str | Path, *, fresh: Iterable[str] = (), **changes: Any) -> Checkpoint:
    """Read a checkpoint of ours or the authors', by name or folder.

    Parameters
    ----------
    model
        As in :func:`resolve`.
    fresh
        Parts of the network to start from random weights.
    **changes
        Fields of :class:`~scgpt.nn.ScGPTConfig` to change.

    Returns
    -------
    Config, weights, tokenizer and vocabulary, and a report of what came out of the file.

    Raises
    ------
    FileNotFoundError, PermissionError, ImportError, ValueError
        As :func:`resolve`, :func:`read_checkpoint` and :func:`read_official` do.

    Examples
    --------
    >>> import scgpt
    >>> checkpoint = scgpt.hub.read("mini", fresh=["cls"], n_classes=3)
    >>> checkpoint.config.n_classes, checkpoint.report.fresh
    (3, ('cls',))
    """
    folder = resolve(model)
    if not any((folder / name).exists() for name in (WEIGHTS, CONFIG)):
        checkpoint = _official.read_official(folder, fresh=fresh, **changes)
    else:
        checkpoint = read_checkpoint(folder)
        checkpoint = checkpoint.adapt(fresh, **changes) if fresh or changes else checkpoint
    # A name says more than where this machine keeps it.
    source = str(model) if str(model) in known_checkpoints() and folder != Path(model) else source_of(folder)
    return replace(checkpoint, report=replace(checkpoint.report, source=source))
