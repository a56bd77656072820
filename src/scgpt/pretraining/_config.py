"""All that a run of pretraining depends on, as it stands in a YAML file."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from scgpt.module import is_generative, make_objectives

# Settings that change how fast a run is, or what is seen of it, and not its result.
_NOT_OF_THE_RESULT = {
    "corpus", "out", "accelerator", "devices", "nodes", "strategy", "prefetch", "checkpoint_every", "validate_every", "log_every",
    "loggers", "peak_tflops", "compile", "activation_checkpointing",
}  # fmt: skip
_TOKENIZER = {"n_bins", "max_length", "ties", "include_zeros"}


@dataclass(frozen=True)
class PretrainingConfig:
    """Settings of a run of pretraining; the defaults are those that the authors pretrained with :cite:p:`Cui2024`.

    Parameters
    ----------
    corpus
        Folder that ``scgpt corpus build`` or ``scgpt corpus census`` wrote.
    out
        Folder of the run: ``model``, which :meth:`scgpt.model.SCGPT.from_pretrained` reads, ``states`` to go on from,
        ``log.jsonl`` and ``config.yaml``.
    model
        Name or folder of a checkpoint to go on from; None starts from random weights.
    grow_vocabulary
        Give genes of the corpus that ``model`` does not know embeddings of their own, from random weights; else
        they are left out.
    network
        Fields of :class:`~scgpt.nn.ScGPTConfig`. With ``model``, fields to change.
    tokenizer
        ``n_bins``, ``max_length``, ``ties`` and ``include_zeros`` of :class:`~scgpt.data.Tokenizer`. Ties are spread by
        default, as the authors do. With ``model``, settings to change.
    objectives
        As :func:`scgpt.module.make_objectives` takes them.
    mask_share
        Share of each cell's genes that are unknown or masked, or several, of which one is drawn for each step; None for
        0.25, 0.5 and 0.75 with ``gen``, and 0.4 without.
    drop_share
        Share of each cell's genes that are left out first.
    max_epochs
        Passes over the corpus.
    max_steps
        Most steps of the optimiser; None for all epochs.
    batch_size
        Cells of a step, over all processes and accumulated batches.
    accumulate
        Into how many batches a process cuts its cells of a step.
    lr
        Highest learning rate.
    schedule
        See :class:`~scgpt.train.Schedule`.
    warmup_steps
        See there.
    weight_decay
        See :class:`~scgpt.train.ScGPTTrainingPlan`.
    gradient_clip
        Largest norm of the gradient.
    seed
        Of weights, order, unknown genes, ties and dropout.
    precision
        As in Lightning, or ``"auto"``: ``"bf16-mixed"`` on devices that compute in bfloat16, on a CPU for networks of a
        width of 256 or more; else ``"32-true"``.
    accelerator
        As in Lightning.
    devices
        As in Lightning: GPUs, or processes on a CPU, of each node.
    nodes
        Number of machines.
    strategy
        ``"auto"``: one process, or DDP where there are several; ``"ddp"``; ``"fsdp"``: weights, too, are spread over the
        GPUs, for models that do not fit one.
    compile
        Compile the network with :func:`torch.compile`.
    activation_checkpointing
        Compute the inside of layers again in the backward pass rather than keep it: less memory, a third more time.
    batches_per_read
        How many batches are read from disk at once; more mix better and need more memory. Other batches come of
        another number.
    prefetch
        How many batches are prepared in advance.
    checkpoint_every
        Steps between two states to go on from.
    validate_every
        Steps between two looks at the held-out cells; nothing is done where the corpus has none.
    log_every
        Steps between two lines of the log.
    loggers
        Where the log goes beside ``log.jsonl``: ``"tensorboard"``, ``"wandb"``; None for TensorBoard where it is
        installed. Weights & Biases sends it to a server and is used only if named.
    peak_tflops
        Of one device, in 10^12 operations a second; to tell how much of it is used. Known for some GPUs with bf16.

    Raises
    ------
    ValueError
        When a setting is unknown or out of range.

    Examples
    --------
    >>> from pathlib import Path
    >>> from scgpt.pretraining import PretrainingConfig
    >>> settings = PretrainingConfig(corpus="corpus.zarr", out="run", network={"d_model": 64, "n_layers": 6})
    >>> settings.batch_size, settings.shares
    (512, (0.25, 0.5, 0.75))
    >>> _ = Path("pretrain.yaml").write_text(settings.to_yaml())
    >>> PretrainingConfig.from_yaml("pretrain.yaml", {"lr": 1e-3}).lr
    0.001
    """

    corpus: str
    out: str
    model: str | None = None
    grow_vocabulary: bool = False
    network: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    objectives: Mapping[str, Any] | list[str] = field(default_factory=lambda: {"gen": 1.0})
    mask_share: float | list[float] | None = None
    drop_share: float = 0.0
    max_epochs: int = 6
    max_steps: int | None = None
    batch_size: int = 512
    accumulate: int = 1
    lr: float = 1e-4
    schedule: Literal["constant", "cosine", "epoch_decay"] = "cosine"
    warmup_steps: int = 10_000
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    seed: int = 0
    precision: str = "auto"
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    compile: bool = False
    activation_checkpointing: bool = False
    batches_per_read: int = 16
    prefetch: int = 4
    checkpoint_every: int = 1000
    validate_every: int = 1000
    log_every: int = 10
    loggers: list[str] | None = None
    peak_tflops: float | None = None

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for one in fields(self):
            value = _number(getattr(self, one.name), hints[one.name])
            object.__setattr__(self, one.name, value)
            if not _fits(value, hints[one.name]):
                raise ValueError(f"{one.name} must be {_told(hints[one.name])}, not {value!r}.")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{one.name} must be a finite number, not {value}.")
        at_least_1 = ("max_epochs", "batch_size", "accumulate", "nodes", "batches_per_read", "checkpoint_every")
        for name in (*at_least_1, "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, or null for all epochs, not {self.max_steps}.")
        shares = self.mask_share if isinstance(self.mask_share, list) else [self.mask_share]
        if not shares or not all(share is None or 0 < share <= 1 for share in shares):
            raise ValueError(f"mask_share must be above 0 and at most 1, or several such, not {self.mask_share}.")
        if not 0 <= self.drop_share < 1:
            raise ValueError(f"drop_share must be at least 0 and below 1, not {self.drop_share}.")
        if self.lr <= 0 or self.gradient_clip <= 0:
            raise ValueError("lr and gradient_clip must be above 0.")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size={self.batch_size} cannot be cut into accumulate={self.accumulate} batches.")
        if unknown := sorted(set(self.tokenizer) - _TOKENIZER, key=str):
            raise ValueError(f"tokenizer has no settings {unknown}; it has {sorted(_TOKENIZER)}.")
        if self.grow_vocabulary and self.model is None:
            raise ValueError("grow_vocabulary is for a model to go on from: name it, or leave grow_vocabulary out.")
        if unknown := sorted(set(self.loggers or ()) - {"tensorboard", "wandb"}):
            raise ValueError(f"loggers can be 'tensorboard' and 'wandb', not {unknown}.")
        make_objectives(self.objectives)

    @classmethod
    def from_yaml(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Self:
        """Read settings from a YAML file.

        Parameters
        ----------
        path
            Of the file. Paths in it count from the folder in which the command is run.
        changes
            Settings in place of those in the file; ``network.d_model`` is one within ``network``.

        Raises
        ------
        FileNotFoundError
            When there is no such file.
        ValueError
            When it is no YAML mapping, or a setting is missing, unknown or out of range.
        """
        try:
            settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        # ValueErrors are those of UTF-8, of dates such as 2020-13-13, and of numbers of 5,000 digits.
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
        if not isinstance(settings, dict):
            raise ValueError(f"{path} must hold settings, one `name: value` a line.")
        for name, value in (changes or {}).items():
            whole, _, part = name.partition(".")
            there = settings.get(whole) or {}
            if part and not isinstance(there, dict):
                raise ValueError(f"{name} names a setting within {whole!r}, which is {there!r:.50} and has none.")
            settings[whole] = {**there, part: value} if part else value
        return cls.from_dict(settings)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Build from settings by name.

        Raises
        ------
        ValueError
            When a setting is missing, unknown or out of range.
        """
        known = [f.name for f in fields(cls)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                raise ValueError(
                    f"There is no setting {name!r}" + (f"; {near[0]!r}?" if near else f"; there are {known}.")
                )
        required = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
        if missing := [name for name in required if name not in settings]:
            raise ValueError(f"The settings lack {', '.join(missing)}.")
        return cls(**settings)

    @property
    def shares(self) -> float | tuple[float, ...]:
        """Shares of genes that are hidden, the default filled in."""
        if self.mask_share is None:
            return (0.25, 0.5, 0.75) if is_generative(make_objectives(self.objectives)) else 0.4
        return tuple(self.mask_share) if isinstance(self.mask_share, list) else self.mask_share

    def to_yaml(self) -> str:
        """Return all settings as a YAML file has them."""
        return yaml.safe_dump(asdict(self), sort_keys=False)

    def of_result(self) -> dict[str, str]:
        """Return the settings that the weights depend on, as text."""
        return {name: str(value) for name, value in asdict(self).items() if name not in _NOT_OF_THE_RESULT}


def _number(value: Any, hint: Any) -> Any:
    """Return a number that YAML takes for text, such as 1e-4, or a whole one where a fraction may stand."""
    kinds = _kinds(hint)
    if float not in kinds or isinstance(value, bool):
        return value
    if isinstance(value, str) and str not in kinds:
        try:
            return float(value)
        except ValueError:
            return value
    return float(value) if isinstance(value, int) and int not in kinds and abs(value) < 2**63 else value


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    for kind in _kinds(hint):
        origin = typing.get_origin(kind) or kind
        if origin is Literal:
            if value in typing.get_args(kind):
                return True
        elif origin is Mapping or kind is types.NoneType:
            if isinstance(value, Mapping if origin is Mapping else types.NoneType):
                return True
        elif isinstance(value, origin) and isinstance(value, bool) == (origin is bool):
            return origin is not list or all(
                _fits(_number(x, typing.get_args(kind)[0]), typing.get_args(kind)[0]) for x in value
            )
    return False


def _told(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    told = []
    for kind in _kinds(hint):
        if typing.get_origin(kind) is Literal:
            told += [repr(x) for x in typing.get_args(kind)]
        else:
            origin = typing.get_origin(kind) or kind
            told.append("a list" if origin is list else "a mapping" if origin is Mapping else names[origin])
    return " or ".join(told)
