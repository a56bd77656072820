import pytest
from scvi import REGISTRY_KEYS
from scvi.data.fields import LayerField

from scgpt.model._fields import ExpressionField


def test_data_of_other_genes_are_registered_where_scvi_tools_refuses_them(counts):
    fewer = counts[:30, 10:].copy()
    ours = ExpressionField(REGISTRY_KEYS.X_KEY, None)
    state = ours.transfer_field(ours.register_field(counts), fewer)
    assert (state["n_obs"], state["n_vars"]) == (30, 50)
    assert list(state["column_names"]) == list(fewer.var_names)
    theirs = LayerField(REGISTRY_KEYS.X_KEY, None, is_count_data=False)
    with pytest.raises(ValueError, match="Number of vars"):
        theirs.transfer_field(theirs.register_field(counts), fewer)
