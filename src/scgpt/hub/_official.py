"""The authors' checkpoint folders."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor

from scgpt._json import read_object
from scgpt.data import GeneVocab, Tokenizer
from scgpt.nn import ScGPTConfig

from ._checkpoint import VOCAB, Checkpoint, LoadReport, check_vocabulary, complete, require_files, sha256
from ._keys import translate

WEIGHTS, ARGS = "best_model.pt", "args.json"
_POOLING = {"cls": "cls", "avg-pool": "mean", "w-pool": "weighted"}
_VALUE_ENCODERS = {"continuous": "continuous", "category": "categorical"}


def read_official(folder: str | Path, *, fresh: Iterable[str] = (), **changes: Any) -> Checkpoint:
    """Read a checkpoint folder of the authors: ``best_model.pt``, ``args.json``, ``vocab.json``.

    Sizes come from ``args.json``, what is switched on from the parameters in the file. A head of which the file has
    no parameter at all is off; anything else that is missing, unexpected or of another shape is an error.

    Parameters
    ----------
    folder
        The folder.
    fresh
        Parts of the network (``"cls"``, ``"gepc"``, ``"dar"``, ...) to start from random weights instead.
    **changes
        Fields of :class:`~scgpt.nn.ScGPTConfig` to change, such as ``n_classes``.

    Returns
    -------
    The checkpoint; its tokenizer gives ``<cls>`` the pad value, as in the authors' pretraining and zero-shot code.

    Raises
    ------
    FileNotFoundError
        When a file is missing.
    ValueError
        When a file is damaged, would execute code, or the files do not fit each other.

    Examples
    --------
    >>> import scgpt
    >>> checkpoint = scgpt.hub.read_official("scGPT_human")  # doctest: +SKIP
    >>> checkpoint.config.n_tokens, checkpoint.report.dropped  # doctest: +SKIP
    """
    folder = Path(folder)
    require_files(folder, (WEIGHTS, ARGS, VOCAB))
    args = read_object(folder / ARGS)
    vocab = GeneVocab.load(folder / VOCAB)
    official = _read_weights(folder / WEIGHTS)
    state_dict, unexpected = translate(official)
    report = LoadReport(source=str(folder), sha256=sha256(folder / WEIGHTS), loaded=())
    embedding = state_dict.get("genes.embedding.weight")
    if embedding is None:
        raise ValueError(f"The weights in {folder} do not fit: encoder.embedding.weight is missing.")
    check_vocabulary(len(embedding), vocab, folder)
    try:
        config = ScGPTConfig(**_config(args, state_dict))
        tokenizer = _tokenizer(args, vocab)
    except KeyError as error:
        raise ValueError(f"{folder / ARGS} lacks {error}.") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / ARGS} does not fit: {error}") from None
    config = config.changed(**changes)
    state_dict, report = complete(config, state_dict, report, fresh=fresh, unexpected=unexpected)
    return Checkpoint(config, state_dict, tokenizer, report)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors and nothing that could execute code."""
    damaged = f"{path} is damaged, truncated or no checkpoint at all; download it again."
    if not _is_whole(path):
        raise ValueError(damaged)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds more than tensors and could execute code when read; refused. "
            "A checkpoint is a plain dictionary of tensors: get it from its authors again."
        ) from None
    except (RuntimeError, EOFError, KeyError, IndexError, ValueError):
        raise ValueError(damaged) from None
    if isinstance(content, Mapping) and isinstance(content.get("model_state_dict"), Mapping):
        content = content["model_state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    ):
        raise ValueError(f"{path} is not a dictionary of tensors.")
    # Saved from torch's DataParallel, every key has this prefix.
    return {re.sub(r"^module\.", "", key): tensor for key, tensor in content.items()}


def _is_whole(path: Path) -> bool:
    """Check what torch does not: it reads flipped bits without a word, and a web page as a pickle."""
    if not is_zipfile(path):
        with path.open("rb") as file:
            return file.read(1) == pickle.PROTO  # torch's format before 1.6
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except BadZipFile:
        return False


def _config(args: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    def rows(name: str) -> int:
        return len(weights[name]) if name in weights else 0

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in weights)

    def last_rows(prefix: str) -> int:
        """Rows of a classifier's last layer, the one with the highest number."""
        numbers = [int(m[1]) for n in weights if (m := re.fullmatch(rf"{prefix}\.(\d+)\.weight", n))]
        return rows(f"{prefix}.{max(numbers)}.weight") if numbers else 0

    def known(name: str, names: Mapping[str, str]) -> str:
        """Our name for a setting; the authors' default is the first."""
        value = args.get(name, next(iter(names)))
        if value not in names:
            raise ValueError(f"{name}={value!r} is not supported; known are {list(names)}.")
        return names[value]

    domain = has("input_norm.running_mean") and weights["input_norm.running_mean"].ndim == 2
    n_batches = rows("batches.embedding.weight") or last_rows("dar.classifier")
    return {
        "n_tokens": rows("genes.embedding.weight"),
        "d_model": args["embsize"],
        "n_heads": args["nheads"],
        "n_layers": args["nlayers"],
        "d_feed_forward": args["d_hid"],
        "dropout": args.get("dropout", 0.2),
        "attention_dropout": args.get("dropout", 0.2),
        "norm": "pre_stream" if args.get("pre_norm") else "post",
        "value_encoder": known("input_emb_style", _VALUE_ENCODERS),
        "n_values": rows("values.embedding.weight") or args["n_bins"] + 2,
        "pooling": known("cell_emb_style", _POOLING),
        "expression": "affine" if has("gep.coefficient.") else "mlp",
        "zero": has("gep.expressed.") or has("gep.coefficient.expressed."),
        "gepc": has("gepc."),
        "n_classes": last_rows("cls"),
        "n_classifier_layers": args.get("n_layers_cls", 3),
        "n_batches": n_batches or (rows("input_norm.running_mean") if domain else 0),
        "batch_embedding": has("batches."),
        "adversary": has("dar."),
        "input_norm": "domain" if domain else "batch" if has("input_norm.") else None,
        "n_modalities": rows("modalities.embedding.weight"),
        "n_conditions": rows("conditions.weight"),
        "n_flags": rows("flags.weight"),
        # Flags are of the authors' pretraining code alone, and so is this.
        "skip_unknown_projection": has("flags."),
    }


def _tokenizer(args: Mapping[str, Any], vocab: GeneVocab) -> Tokenizer:
    return Tokenizer(
        vocab,
        n_bins=args["n_bins"] if args.get("input_style", "binned") == "binned" else None,
        max_length=args["max_seq_len"],
        cls_value=float(args["pad_value"]),
        mask_value=float(args["mask_value"]),
    )
