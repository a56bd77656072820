import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scgpt.model import SCGPT

pytestmark = pytest.mark.usefixtures("auto_is_float32")


@pytest.fixture(scope="module")
def model(golden) -> SCGPT:
    return SCGPT.from_pretrained(golden / "checkpoint")


@pytest.fixture
def cells(rng) -> anndata.AnnData:
    counts = rng.poisson(0.5, (25, 40)).astype(np.float32)
    counts[:, 7] = 0
    adata = anndata.AnnData(sp.csr_matrix(counts))
    adata.var_names = [f"G{i:04d}" for i in range(39)] + ["OTHER"]
    return adata


def test_is_the_mean_of_a_genes_outputs_over_the_cells_that_have_it(model, cells):
    found = model.get_contextual_gene_embeddings(cells, progress_bar=False)
    assert list(found.index) == [f"G{i:04d}" for i in range(39)]
    token_ids = model.match(cells).token_ids
    outputs = {}
    for row in cells.X:
        batch = model.tokenizer(sp.csr_matrix(row), token_ids)
        with torch.inference_mode():
            tokens = model.module.network(batch).tokens
        for gene, output in zip(batch.gene_ids.tolist(), tokens.numpy(), strict=True):
            outputs.setdefault(gene, []).append(output)
    for gene, own in found.iterrows():
        token = int(model.vocab.ids([gene])[0])
        if gene == "G0007":
            assert own.isna().all()
        else:
            np.testing.assert_allclose(own, np.mean(outputs[token], axis=0), atol=1e-5)


def test_some_genes_and_some_cells(model, cells):
    part = model.get_contextual_gene_embeddings(cells, ["G0003", "G0001"], indices=[4, 2, 9], progress_bar=False)
    alone = model.get_contextual_gene_embeddings(cells[[2, 4, 9]].copy(), progress_bar=False)
    np.testing.assert_allclose(part, alone.loc[["G0003", "G0001"]], atol=1e-6)
    with pytest.raises(KeyError, match="not in the vocabulary"):
        model.get_contextual_gene_embeddings(cells, ["OTHER"])
