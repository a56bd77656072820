"""What :meth:`SCGPT.setup_anndata` registers."""

from __future__ import annotations

from typing import Any

from anndata import AnnData
from scvi.data.fields import LayerField


class ExpressionField(LayerField):
    """The expression matrix, of any genes.

    scvi-tools' own field demands the genes of the training data again; here genes are matched by the vocabulary.
    """

    def __init__(self, registry_key: str, layer: str | None):
        super().__init__(registry_key, layer, is_count_data=False, correct_data_format=False)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """Register another data set, whatever its genes."""
        return self.register_field(adata_target)
