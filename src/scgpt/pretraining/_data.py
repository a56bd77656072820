"""Loaders of a corpus for Lightning."""

from __future__ import annotations

from dataclasses import replace

import lightning.pytorch as pl

from scgpt.corpus import Corpus
from scgpt.data import Tokenizer
from scgpt.module import is_generative, make_objectives, reads_levels
from scgpt.train import CorpusLoader

from ._config import PretrainingConfig


class CorpusData(pl.LightningDataModule):
    """Cells of a corpus to train on and to validate on; each process of the run gets its share of every batch."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, settings: PretrainingConfig):
        super().__init__()
        self.corpus, self.tokenizer, self.settings = corpus, tokenizer, settings

    def train_dataloader(self) -> CorpusLoader:
        """Shuffled in every epoch anew."""
        settings = self.settings
        return self._loader(self.tokenizer, accumulate=settings.accumulate, prefetch=settings.prefetch)

    def val_dataloader(self) -> CorpusLoader | list:
        """In a fixed order, with fixed masks and ties in the middle, so that steps can be compared."""
        if not self.corpus.n_cells("held_out"):
            return []
        return self._loader(replace(self.tokenizer, ties="middle"), held_out=True)

    def _loader(self, tokenizer: Tokenizer, *, held_out: bool = False, **kwargs: int) -> CorpusLoader:
        assert self.trainer is not None
        settings, objectives = self.settings, make_objectives(self.settings.objectives)
        return CorpusLoader(
            self.corpus,
            tokenizer,
            settings.batch_size // settings.accumulate,
            held_out=held_out,
            seed=settings.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            batches_per_read=settings.batches_per_read,
            mask_share=settings.shares,
            unknown=is_generative(objectives),
            drop_share=settings.drop_share,
            levels=reads_levels(objectives, include_zeros=tokenizer.include_zeros),
            **kwargs,
        )
