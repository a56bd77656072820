"""What all models have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi.model.base import BaseModelClass

from scgpt.data import GeneVocab, Tokenizer, check_seed
from scgpt.hub import Checkpoint, LoadReport
from scgpt.module import ScGPTModule
from scgpt.nn import ScGPTConfig

from ._embedding import EmbeddingMixin
from ._sharing import SharingMixin
from ._training import TrainingMixin


class BaseSCGPT(EmbeddingMixin, TrainingMixin, SharingMixin, BaseModelClass):
    """A network with its tokenizer, made from random weights or from a checkpoint.

    A kind of model says what data it takes and what vocabulary it makes of them.
    """

    _module_cls = ScGPTModule

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        n_layers: int = 3,
        d_model: int = 64,
        n_heads: int = 4,
        n_bins: int = 51,
        max_length: int = 1200,
        include_zeros: bool = False,
        seed: int = 0,
        **network: Any,
    ):
        name = type(self).__name__
        if adata is not None:
            self._check_data(adata)
        if adata is None and registry is None:
            raise ValueError(
                f"{name} needs data set up by {name}.{self._setup_method}; without any, use {name}.from_pretrained."
            )
        super().__init__(adata, registry)
        self.load_report: LoadReport | None = None
        self.extras = {} if checkpoint is None else dict(checkpoint.extras)
        if checkpoint is None:
            # A categorical value embedding has rows for the bins, then one each for <cls> and for the mask.
            categorical = network.get("value_encoder") == "categorical"
            cls_value, mask_value = (n_bins, n_bins + 1) if categorical else (-2.0, -1.0)
            self.tokenizer = Tokenizer(
                self._vocab_of_data(),
                n_bins=n_bins,
                max_length=max_length,
                include_zeros=include_zeros,
                cls_value=cls_value,
                mask_value=mask_value,
            )
            sizes = {
                "n_tokens": len(self.tokenizer.vocab),
                "d_model": d_model,
                "n_layers": n_layers,
                "n_heads": n_heads,
                "d_feed_forward": d_model,
                "n_values": n_bins + 2,
            }
            check_seed(seed)
            config = ScGPTConfig(**(sizes | self._default_network() | network))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.module = self._module_cls(config)
        else:
            self.tokenizer = checkpoint.tokenizer
            self.load_report = checkpoint.report
            with torch.random.fork_rng(devices=[]):  # the generator is the user's
                self.module = self._module_cls(checkpoint.config)
            self.module.network.load_state_dict(checkpoint.state_dict)
            self.is_trained_ = True
            self.history_: dict[str, pd.DataFrame] | None = {}
        if adata is not None:
            self._conditions(adata)  # raises here what would else come up in training
        self.module.eval()
        config = self.module.network.config
        self._model_summary_string = (
            f"{name} with {config.n_layers} layers, d_model {config.d_model}, {config.n_heads} heads, "
            f"{len(self.vocab.genes)} genes, heads {', '.join(config.heads)}"
        )

    def _default_network(self) -> dict[str, Any]:
        """Return fields of a new network's config: what follows from the data set, and a kind of model's own."""
        return {
            "n_batches": self.summary_stats.get("n_batch", 0),
            "n_conditions": self.summary_stats.get("n_conditions", 0),
        }

    def _vocab_of_data(self) -> GeneVocab:
        """Return the vocabulary of a model that is not pretrained."""
        raise NotImplementedError

    def get_var_names(self, legacy_mudata_format: bool = False) -> np.ndarray:
        """Return the model's genes."""
        return np.array(self.vocab.genes, dtype=object)
