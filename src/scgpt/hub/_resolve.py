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

OFFICIAL_FILES = (_official.WEIGHTS, _official.ARGS, VOCAB)
_SCHEMES = ("https",)
_BYTES_AT_A_TIME = 1 << 20


def known_checkpoints() -> dict[str, dict[str, Any]]:
    """Return the registry of checkpoints.

    For each name what it was trained on, and its folder in the package or its page and pinned files.
    """
    return json.loads((files(__package__) / "checkpoints.json").read_text(encoding="utf-8"))


def cache_folder() -> Path:
    """Return where downloaded checkpoints are kept: ``$SCGPT_CACHE``, or ``scgpt-tools`` in the user's cache."""
    return Path(os.environ.get("SCGPT_CACHE") or platformdirs.user_cache_path("scgpt-tools"))


def resolve(model: str | Path, *, registry: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Return the folder of a checkpoint, downloading it if need be.

    Parameters
    ----------
    model
        A folder, or a name: ``"whole-human"``, ``"continual"``, ``"blood"``, ``"brain"``, ``"heart"``, ``"lung"``,
        ``"kidney"``, ``"pan-cancer"``; ``"mini"``, a small model that is part of the package. A folder that is there
        comes before a name.
    registry
        In place of :func:`known_checkpoints`; its addresses must begin with ``https://``, and no name may lead out of
        the cache.

    Raises
    ------
    FileNotFoundError
        When there is no such folder, or a named checkpoint is not in the cache and cannot be downloaded.
    ValueError
        When the name is unknown or no plain name, an address is not https, or a downloaded file has the wrong hash.
    """
    registry = known_checkpoints() if registry is None else registry
    name = str(model)
    if name and Path(model).is_dir():
        return Path(model)
    if name not in registry:
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

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`resolve`, :func:`read_checkpoint` and :func:`read_official` do.
    """
    folder = resolve(model)
    if not any((folder / name).exists() for name in (WEIGHTS, CONFIG)):
        checkpoint = _official.read_official(folder, fresh=fresh, **changes)
    else:
        checkpoint = read_checkpoint(folder)
        checkpoint = checkpoint.adapt(fresh, **changes) if fresh or changes else checkpoint
    if folder == Path(model):
        return checkpoint
    # A name says more than where this machine keeps it.
    return replace(checkpoint, report=replace(checkpoint.report, source=str(model)))
