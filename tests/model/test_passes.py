"""What goes through a network that is not trained, where memory runs out."""

import numpy as np
import pytest

from scgpt.model import SCGPT, SCGPTAnnotator

TINY = {"d_model": 8, "n_layers": 2, "n_heads": 2}
QUIET = {"progress_bar": False, "precision": "float32"}


@pytest.fixture
def model(counts) -> SCGPT:
    SCGPT.setup_anndata(counts, batch_key="batch")
    model = SCGPT(counts, n_flags=2, zero=True, **TINY)
    model.is_trained_ = True
    return model


@pytest.fixture
def annotator(counts) -> SCGPTAnnotator:
    SCGPTAnnotator.setup_anndata(counts, labels_key="cell_type")
    model = SCGPTAnnotator(counts, **TINY)
    model.is_trained_ = True
    return model


GENES = [f"GENE{i}" for i in range(30)]
VERBS = {
    "get_latent_representation": ("model", lambda model: model.get_latent_representation(**QUIET)),
    "get_contextual_gene_embeddings": ("model", lambda model: model.get_contextual_gene_embeddings(**QUIET)),
    "get_gene_attention": ("model", lambda model: model.get_gene_attention(GENES, progress_bar=False).influence),
    "generate": ("model", lambda model: model.generate(prompt="genes", genes=GENES[:9], draw=True, **QUIET).X),
    "generate pseudo-cells": (
        "model",
        lambda model: model.generate(groupby="cell_type", n_cells=9, n_averaged=2, draw=True, **QUIET).X,
    ),
    "predict labels": ("annotator", lambda model: model.predict(soft=True, **QUIET)),
    "predict profiles": ("perturbation_model", lambda model: model.predict(["A", "B", "A+B"], **QUIET)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_results_do_not_depend_on_how_much_fits(request, verb, short_of_memory):
    """It is noticed once and said once, by whatever the cells are read for."""
    name, call = VERBS[verb]
    model = request.getfixturevalue(name)
    at_once = short_of_memory(np.inf)
    whole = call(model)
    most = max(at_once) // 3
    in_parts = short_of_memory(most)
    with pytest.warns(UserWarning) as caught:
        again = call(model)
    np.testing.assert_allclose(again, whole, rtol=1e-4, atol=2e-3 if verb == "get_gene_attention" else 1e-5)
    n_said = sum("Memory did not suffice" in str(warning.message) for warning in caught)
    assert n_said == (2 if verb == "generate pseudo-cells" else 1)  # the cells that they are made of are embedded first
    assert 2 <= sum(n > most for n in in_parts) <= 2 * n_said


def test_a_cell_that_does_not_fit_alone(model, short_of_memory):
    short_of_memory(4)
    with pytest.raises(MemoryError, match=r"One cell of .*max_length=.* precision='bfloat16' .*to_device\('cpu'\)"):
        model.get_latent_representation(indices=[0], **QUIET)
    with pytest.warns(UserWarning, match="at most 4 tokens"):
        model.get_latent_representation(indices=[0, 1], max_length=4, **QUIET)
