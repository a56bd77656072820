"""What is switched on in a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

# What a field of each type may hold; the others are checked by their names.
_KINDS: dict[str, tuple[Any, str]] = {
    "int": (int, "a whole number"),
    "float": (int | float, "a number"),
    "bool": (bool, "True or False"),
}
_AT_LEAST_ONE = ("n_tokens", "d_model", "n_heads", "n_layers", "d_feed_forward", "n_classifier_layers")
# Beyond these a file is damaged, and torch would not get to the end of it.
_MOST, _MOST_LAYERS = 10_000_000, 1000

HEADS = ("gep", "gepc", "zero", "levels", "cls", "dar", "perturb_gep")


@dataclass(frozen=True)
class ScGPTConfig:
    """Sizes and switches of a :class:`~scgpt.nn.ScGPTNetwork`.

    The defaults are those of the authors' whole-human model :cite:p:`Cui2024`.

    Parameters
    ----------
    n_tokens
        Rows of the gene embedding: genes and special tokens.
    d_model
        Width of the transformer.
    n_heads
        Attention heads; divides ``d_model``.
    n_layers
        Transformer layers.
    d_feed_forward
        Hidden width of the feed-forward blocks.
    dropout
        Dropout of value encoder and transformer layers, in training.
    attention_dropout
        Dropout of the attention probabilities, in training. On a CPU it makes attention two to three times slower.
    norm
        ``"post"``: layer norm after each residual sum. ``"pre"``: layer norm of each block's input.
        ``"pre_stream"``: the authors' ``pre_norm``, which normalises the residual stream itself.
    value_encoder
        ``"continuous"``: an MLP of the value. ``"categorical"``: an embedding of the value as an integer.
    gene_norm
        Of the gene embeddings. ``"layer"``: layer norm of each. ``"joint"``: all are divided by their common root mean
        square, so that one gene can have more say than another.
    n_values
        Rows of the categorical value embedding: bins, pad and mask value.
    max_value
        The continuous value encoder clamps values from above here.
    pooling
        Cell embedding: output of ``<cls>``, the mean over the cell's tokens, or their mean weighted by value.
    expression
        Decoder of expression: an ``"mlp"`` (head ``gep``), or ``"affine"`` in the input value (head ``perturb_gep``).
    gep_bins
        Value bins among which head ``gep`` chooses, with a logit for each; 0: it gives the value itself.
    zero
        Explicit probability that a gene is expressed, beside each expression decoder.
    gepc
        Cell-prompted expression decoder.
    cell_norm
        Heads read the cell embedding at one length, as its cosine is compared by: what a cell is like is then told by
        its direction alone.
    n_classes
        Classes of the cell-type classifier; 0 switches it off.
    n_classifier_layers
        Linear layers of classifier and adversary.
    classifier_norm
        Layer norm of the cell embedding that the classifier reads.
    classifier_dropout
        Dropout of the same, in training.
    n_batches
        Experimental batches known to the model.
    batch_embedding
        Concatenate an embedding of the batch to the transformer's output before the decoders.
    adversary
        Predict the batch from the cell embedding through reversed gradients.
    input_norm
        Batch norm on the summed input embeddings: None, ``"batch"``, or ``"domain"`` with statistics for each batch.
    n_modalities
        Rows of the modality embedding, concatenated like the batch's; 0 switches it off.
    n_conditions
        Rows of the condition embedding, row 0 meaning none; 0 switches it off.
    condition_context
        Concatenate the outputs of a cell's tokens under conditions, summed, to that of each token before the expression
        decoder, which then need not find these tokens by attention.
    n_flags
        Rows of the flag embedding, whose row 1 stands in for the value of unknown genes; 0 switches it off.
    skip_unknown_projection
        Leave the last linear layer of attention out for unknown tokens, as the authors' pretraining code does.

    Raises
    ------
    ValueError
        When sizes or switches do not fit each other.

    Examples
    --------
    >>> from scgpt.nn import ScGPTConfig
    >>> config = ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16)
    >>> config.heads, config.changed(n_classes=3).heads
    (('gep', 'gepc', 'levels'), ('gep', 'gepc', 'levels', 'cls'))
    >>> ScGPTConfig.from_dict(config.to_dict()) == config
    True
    """

    n_tokens: int
    d_model: int = 512
    n_heads: int = 8
    n_layers: int = 12
    d_feed_forward: int = 512
    dropout: float = 0.2
    attention_dropout: float = 0.0
    norm: Literal["post", "pre", "pre_stream"] = "post"
    value_encoder: Literal["continuous", "categorical"] = "continuous"
    gene_norm: Literal["layer", "joint"] = "layer"
    n_values: int = 53
    max_value: float = 512.0
    pooling: Literal["cls", "mean", "weighted"] = "cls"
    expression: Literal["mlp", "affine"] = "mlp"
    gep_bins: int = 0
    zero: bool = False
    gepc: bool = True
    cell_norm: bool = False
    n_classes: int = 0
    n_classifier_layers: int = 3
    classifier_norm: bool = False
    classifier_dropout: float = 0.0
    n_batches: int = 0
    batch_embedding: bool = False
    adversary: bool = False
    input_norm: Literal["batch", "domain"] | None = None
    n_modalities: int = 0
    n_conditions: int = 0
    condition_context: bool = False
    n_flags: int = 0
    skip_unknown_projection: bool = False

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            kind, told = _KINDS.get(str(f.type), (object, ""))
            if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
                raise ValueError(f"{f.name} must be {told}, not {value!r}.")
            if kind is int:
                least = 1 if f.name in _AT_LEAST_ONE else 0
                if value < least:
                    raise ValueError(f"{f.name} must be at least {least}, not {value}.")
                most = _MOST_LAYERS if "layers" in f.name else _MOST
                if value > most:
                    raise ValueError(f"{f.name} must be at most {most:,}, not {value}.")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model={self.d_model} is not a multiple of n_heads={self.n_heads}.")
        for name, allowed in (
            ("norm", ("post", "pre", "pre_stream")),
            ("gene_norm", ("layer", "joint")),
            ("value_encoder", ("continuous", "categorical")),
            ("pooling", ("cls", "mean", "weighted")),
            ("expression", ("mlp", "affine")),
            ("input_norm", (None, "batch", "domain")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}.")
        for name in ("dropout", "attention_dropout", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}.")
        if not self.max_value > 0:
            raise ValueError(f"max_value must be above 0, not {self.max_value}.")
        if self.gep_bins == 1:
            raise ValueError(f"gep_bins must be 0 or at least 2, not {self.gep_bins}.")
        if self.gep_bins and self.expression != "mlp":
            raise ValueError("gep_bins needs expression='mlp': an affine decoder gives values, not bins.")
        if self.n_flags == 1:
            raise ValueError(f"n_flags must be 0 or at least 2, for known and unknown genes, not {self.n_flags}.")
        needs_batches = [n for n in ("batch_embedding", "adversary") if getattr(self, n)]
        needs_batches += ["input_norm='domain'"] if self.input_norm == "domain" else []
        if needs_batches and self.n_batches < 1:
            raise ValueError(f"{', '.join(needs_batches)} need n_batches of at least 1.")
        if self.condition_context and not self.n_conditions:
            raise ValueError("condition_context needs n_conditions of at least 1.")

    @property
    def d_context(self) -> int:
        """Width of what is concatenated to the transformer's output before the decoders."""
        return self.d_model if self.batch_embedding or self.n_modalities else 0

    @property
    def parts_of_batches(self) -> list[str]:
        """Parts of the network that know the experimental batches of the data that it was made for."""
        on = {
            "input_norm": self.input_norm == "domain",
            "batches": self.batch_embedding,
            "dar": self.adversary,
        }
        return [part for part, is_on in on.items() if is_on]

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads that are switched on, in the names of :meth:`ScGPTNetwork.forward`."""
        on = {
            "gep": self.expression == "mlp",
            "gepc": self.gepc,
            "zero": self.zero,
            "levels": self.gepc,
            "cls": self.n_classes > 0,
            "dar": self.adversary,
            "perturb_gep": self.expression == "affine",
        }
        return tuple(name for name in HEADS if on[name])

    def changed(self, **changes: Any) -> ScGPTConfig:
        """Return the config with other values of some fields.

        Raises
        ------
        ValueError
            When there is no such field.
        """
        known = [f.name for f in fields(self)]
        if unknown := sorted(set(changes) - set(known)):
            raise ValueError(f"There are no network settings {unknown}; there are {known}.")
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScGPTConfig:
        """Build from what :meth:`to_dict` gave.

        Raises
        ------
        ValueError
            When a field is unknown or ``n_tokens`` is missing.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"Unknown network settings {unknown}; written by a newer version of scgpt-tools?")
        if "n_tokens" not in values:
            raise ValueError("Network settings lack n_tokens.")
        return cls(**values)
