"""A model's weights with everything needed to use them, and its folder on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scgpt._folders import full_disk_named, read_only_named, written_whole
from scgpt._formats import check_format
from scgpt._json import read_object
from scgpt._messages import listed
from scgpt.data import GeneVocab, Tokenizer
from scgpt.nn import ScGPTConfig, ScGPTNetwork, add_genes

WEIGHTS, CONFIG, VOCAB, REGISTRY = "model.safetensors", "config.json", "vocab.json", "registry.json"
ADATA, MDATA = "adata.h5ad", "mdata.h5mu"  # beside them if a model was saved with its data
CARD = "README.md"
PICKLED = "model.pt"  # as scvi-tools saves its models
FORMAT = 1
_FINE_TUNED = "fine-tuned from "
_OF_A_HUB = re.compile(r"(.* )?[^/ ]+/[^/ ]+@[0-9a-f]{40}")


@dataclass(frozen=True)
class LoadReport:
    """What came out of a checkpoint's file and what did not.

    Parameters
    ----------
    source
        Folder that was read, or repository and commit, ``user/name@commit``.
    sha256
        Hash of the file of weights.
    loaded
        Parts of the network with weights from the file.
    fresh
        Parts that start from random weights, because the caller asked for that.
    dropped
        Parts in the file that the caller has switched off.
    new_batches
        Batches of a query that were added to those of the file.

    Examples
    --------
    >>> import scgpt
    >>> report = scgpt.hub.read("mini", gepc=False).report
    >>> report.fresh, report.dropped, len(report.sha256)
    ((), ('gepc',), 64)
    """

    source: str
    sha256: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    new_batches: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The source, without the folder that it is in."""
        return self.source if _OF_A_HUB.fullmatch(self.source) else Path(self.source).name

    def of_query(self, new_batches: Iterable[str]) -> LoadReport:
        """Return the report for weights to which batches of a query were added; the hash stays the reference's."""
        return replace(self, source=f"query of {self.name}", new_batches=tuple(new_batches))

    def pretrained(self) -> LoadReport:
        """Return the report for weights that were pretrained, on from those of the file if there was one."""
        return self.fine_tuned() if self.sha256 else replace(self, source="pretraining")

    def fine_tuned(self) -> LoadReport:
        """Return the report for weights that were trained on from those of the file."""
        return replace(self, source=f"{_FINE_TUNED}{self.name.removeprefix(_FINE_TUNED)}", sha256="")

    def __str__(self) -> str:
        text = f"{self.source}: loaded {', '.join(self.loaded)}"
        for name in ("fresh", "dropped"):
            text += f"; {name}: {', '.join(getattr(self, name))}" if getattr(self, name) else ""
        if self.new_batches:
            n = len(self.new_batches)
            text += f"; {n} new {'batch' if n == 1 else 'batches'}: {listed(self.new_batches)}"
        return text


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights of an :class:`~scgpt.nn.ScGPTNetwork` and what they were made with.

    Parameters
    ----------
    config
        The network's config.
    state_dict
        Its weights, complete, under our names.
    tokenizer
        How cells become tokens, vocabulary included.
    report
        What came out of the file.
    registry
        The scvi-tools registry that the model was saved with, empty if none.
    extras
        Plain values beside the weights: how the last training hid genes (``mask_share``, ``unknown``, ``drop_share``),
        and what a kind of model adds; empty if not known.

    Examples
    --------
    >>> import scgpt
    >>> checkpoint = scgpt.hub.read("mini")
    >>> checkpoint.config.n_tokens == len(checkpoint.vocab)
    True
    >>> checkpoint.adapt(fresh=["cls"], n_classes=3).config.n_classes
    3
    """

    config: ScGPTConfig
    state_dict: dict[str, Tensor]
    tokenizer: Tokenizer
    report: LoadReport
    registry: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def vocab(self) -> GeneVocab:
        """The genes that the model knows."""
        return self.tokenizer.vocab

    def adapt(self, fresh: Iterable[str] = (), **changes: Any) -> Checkpoint:
        """Return the checkpoint for a changed config.

        Parameters
        ----------
        fresh
            Parts of the network (``"gep"``, ``"cls"``, ``"batches"``, ...) to start from random weights.
        **changes
            Fields of :class:`~scgpt.nn.ScGPTConfig` and their new values. A part that is switched off is dropped.

        Raises
        ------
        ValueError
            When weights that the new config needs are missing or have another shape, and their part is not in
            ``fresh``.
        """
        config = self.config.changed(**changes)
        state_dict, report = complete(config, self.state_dict, self.report, fresh=fresh)
        return replace(self, config=config, state_dict=state_dict, report=report)

    def with_genes(self, genes: Iterable[str], *, seed: int = 0) -> Checkpoint:
        """Return the checkpoint with more genes, which start from random embeddings; the old ones keep their ids.

        Parameters
        ----------
        genes
            Names; those that it knows are passed over.
        seed
            Of the random embeddings.
        """
        known = set(self.vocab)
        new = [gene for gene in dict.fromkeys(genes) if gene not in known]
        config, state_dict = add_genes(self.config, self.state_dict, len(new), seed=seed)
        tokenizer = replace(self.tokenizer, vocab=GeneVocab([*self.vocab, *new]))
        return replace(self, config=config, state_dict=state_dict, tokenizer=tokenizer)


class Card(Protocol):
    """What writes the card of a checkpoint."""

    def text(self, checkpoint: Checkpoint, sha256: str) -> str:
        """Return it, for a file of weights of this hash."""
        ...


def complete(
    config: ScGPTConfig,
    state_dict: Mapping[str, Tensor],
    report: LoadReport,
    *,
    fresh: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    seed: int = 0,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Check weights against a config and fill in the parts that start fresh.

    Parameters
    ----------
    config
        What the network is to be.
    state_dict
        Weights under our names.
    report
        Source and hash, carried over.
    fresh
        Parts to start from random weights.
    unexpected
        Keys of the file that have no name with us.
    seed
        Of the random weights.

    Returns
    -------
    A state dict that loads strictly, and the report.

    Raises
    ------
    ValueError
        When anything is missing, unexpected or of another shape, other than in ``fresh`` parts and in whole parts
        that the config switches off.
    """
    fresh = (fresh,) if isinstance(fresh, str) else tuple(dict.fromkeys(fresh))
    # Without fresh parts the network is only asked for names and shapes.
    with torch.device("cpu" if fresh else "meta"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = ScGPTNetwork(config).state_dict()
    parts = list(dict.fromkeys(_part(name) for name in expected))
    if strange := sorted(set(fresh) - set(parts)):
        raise ValueError(f"fresh={strange}: the network has no such parts; it has {parts}.")

    given = {name: tensor for name, tensor in state_dict.items() if _part(name) not in fresh}
    dropped = sorted({_part(name) for name in given} - set(parts))
    given = {name: tensor for name, tensor in given.items() if _part(name) in parts}
    wanted = {name: tensor for name, tensor in expected.items() if _part(name) not in fresh}
    problems = {
        "missing": sorted(set(wanted) - set(given)),
        "unexpected": sorted({*unexpected, *given} - set(wanted)),
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in sorted(set(wanted) & set(given))
            if given[name].shape != wanted[name].shape
        ],
        "of another type": [
            f"{name} {given[name].dtype} instead of {wanted[name].dtype}"
            for name in sorted(set(wanted) & set(given))
            if given[name].is_floating_point() != wanted[name].is_floating_point() or given[name].is_complex()
        ],
    }
    if any(problems.values()):
        lines = [f"{len(names)} {what}: {listed(names)}" for what, names in problems.items() if names]
        unfit = {_part(n) for what in ("missing", "of another shape", "of another type") for n in problems[what]}
        affected = sorted(unfit & set(parts))
        hint = f" To start these parts from random weights, pass fresh={affected}." if affected else ""
        raise ValueError(f"The weights in {report.source} do not fit: {'; '.join(lines)}.{hint}")

    if "conditions.weight" in wanted and given["conditions.weight"][0].any():
        raise ValueError(
            f"{report.source} was trained with an embedding for tokens without condition (row 0; the authors' "
            "pert_pad_id=2), which this network leaves out. To start its conditions from random weights, pass "
            "fresh=['conditions']."
        )
    whole = expected | {name: given[name].to(expected[name].dtype) for name in wanted}
    if wrong := [name for name in wanted if not whole[name].isfinite().all()]:
        raise ValueError(
            f"The weights in {report.source} are NaN or infinite in {listed(wrong)}: the file is damaged, or the training "
            "diverged. Get it again, or train anew with a lower lr."
        )
    loaded = tuple(p for p in parts if p not in fresh)
    return whole, replace(report, loaded=loaded, fresh=fresh, dropped=tuple(dropped))


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a folder that :func:`write_checkpoint` or a model's ``save`` wrote.

    Parameters
    ----------
    folder
        Holds ``model.safetensors``, ``config.json`` and ``vocab.json``.

    Returns
    -------
    Config, weights, tokenizer and vocabulary, and a report of what came out of the file.

    Raises
    ------
    FileNotFoundError
        When a file is missing.
    ValueError
        When a file is damaged, they do not fit each other, or a newer version of this package wrote them.

    Examples
    --------
    >>> import scgpt
    >>> checkpoint = scgpt.hub.read_checkpoint(scgpt.hub.resolve("mini"))
    >>> checkpoint.config.d_model, checkpoint.tokenizer.n_bins
    (64, 51)
    """
    folder = Path(folder)
    require_files(folder, (WEIGHTS, CONFIG, VOCAB))
    settings = read_object(folder / CONFIG)
    check_format(settings.get("format"), FORMAT, str(folder / CONFIG), "download or save the checkpoint again")
    parts = {name: _part_of(settings, name, folder) for name in ("network", "tokenizer")}
    optional = {name: _part_of(settings, name, folder) for name in ("extras", "sha256") if name in settings}
    vocab = GeneVocab.load(folder / VOCAB)
    try:
        config = ScGPTConfig.from_dict(parts["network"])
        tokenizer = Tokenizer.from_settings(vocab, parts["tokenizer"])
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} is damaged: {error}") from None
    check_vocabulary(config.n_tokens, tokenizer.vocab, folder)
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged or truncated ({error}); copy or save it again.") from None
    report = LoadReport(source=str(folder), sha256=sha256(folder / WEIGHTS), loaded=())
    state_dict, report = complete(config, weights, report)
    registry = read_object(folder / REGISTRY) if (folder / REGISTRY).exists() else {}
    for name, saved in optional.get("sha256", {}).items():
        if (folder / name).exists() and saved != (report.sha256 if name == WEIGHTS else sha256(folder / name)):
            raise ValueError(f"{folder / name} is not what was saved with {CONFIG}; copy or save the model again.")
    return Checkpoint(config, state_dict, tokenizer, report, registry, optional.get("extras", {}))


def write_checkpoint(
    checkpoint: Checkpoint,
    folder: str | Path,
    *,
    overwrite: bool = False,
    card: Card | None = None,
    write_data: Callable[[Path], object] | None = None,
) -> None:
    """Write a checkpoint as ``model.safetensors``, ``config.json``, ``vocab.json`` and ``registry.json``.

    The folder appears whole or not at all; one that is overwritten stays until the new one is complete.

    Parameters
    ----------
    checkpoint
        What to write.
    folder
        Where.
    overwrite
        Replace a checkpoint that is there, with all in its folder.
    card
        A :class:`ModelCard`, to be written as ``README.md`` beside it.
    write_data
        Writes the model's data into the folder that it is given.

    Raises
    ------
    FileExistsError
        When a checkpoint is there and not to be overwritten, or the folder holds anything else.
    OSError
        When the disk is full or the folder cannot be written to; a checkpoint that was there stays.

    Examples
    --------
    >>> import scgpt
    >>> scgpt.hub.write_checkpoint(scgpt.hub.read("mini").with_genes(["MYGENE"]), "larger")
    >>> "MYGENE" in scgpt.hub.read_checkpoint("larger").vocab
    True
    """
    folder = Path(folder).resolve()
    check_target(folder, overwrite)
    what_now = "Free some space and save again; a checkpoint that was there before is as it was."
    with full_disk_named(folder, what_now), read_only_named(folder), written_whole(folder) as new:
        save_file({k: v.detach().cpu().contiguous() for k, v in checkpoint.state_dict.items()}, new / WEIGHTS)
        (new / WEIGHTS).chmod(0o644)  # what safetensors makes is private
        checkpoint.vocab.save(new / VOCAB)
        (new / REGISTRY).write_text(json.dumps(checkpoint.registry, indent=1), encoding="utf-8")
        hashes = {name: sha256(new / name) for name in (WEIGHTS, VOCAB, REGISTRY)}
        settings = {
            "format": FORMAT,
            "scgpt-tools": version("scgpt-tools"),
            "source": {"checkpoint": checkpoint.report.name, "sha256": checkpoint.report.sha256},
            "network": checkpoint.config.to_dict(),
            "tokenizer": checkpoint.tokenizer.settings(),
            "extras": checkpoint.extras,
            "sha256": hashes,
        }
        (new / CONFIG).write_text(json.dumps(settings, indent=1), encoding="utf-8")
        if card is not None:
            (new / CARD).write_text(card.text(checkpoint, hashes[WEIGHTS]), encoding="utf-8")
        if write_data is not None:
            write_data(new)


def check_target(folder: Path, overwrite: bool = False) -> None:
    """Raise for a folder that must not be replaced: one with other files in it, or with a checkpoint unasked."""
    if not folder.exists():
        return
    content = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if others := sorted(content - {WEIGHTS, CONFIG, VOCAB, REGISTRY, CARD, ADATA, MDATA}):
        raise FileExistsError(f"{folder} holds other files than a checkpoint's, such as {others[0]}; name another one.")
    if content and not overwrite:
        raise FileExistsError(f"{folder} already exists; pass overwrite=True to replace it, or name another folder.")


def check_vocabulary(n_tokens: int, vocab: GeneVocab, folder: Path) -> None:
    """Raise where an embedding and a vocabulary are of two sizes."""
    if n_tokens != len(vocab):
        raise ValueError(
            f"The vocabulary in {folder} has {len(vocab)} tokens and the gene embedding {n_tokens} rows: "
            f"{VOCAB} belongs to another checkpoint."
        )


def require_files(folder: Path, names: Iterable[str]) -> None:
    """Raise for a folder that is not there or lacks files."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        pickled = f" {PICKLED} of scvi-tools could execute code when read; it is not." * (folder / PICKLED).exists()
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; a checkpoint is {', '.join(names)}.{pickled}")


def _part_of(settings: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    part = settings.get(name)
    if not isinstance(part, dict):
        raise ValueError(f"{folder / CONFIG} is damaged: {name!r} in it is no object.")
    return part


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _part(name: str) -> str:
    return name.split(".", 1)[0]
