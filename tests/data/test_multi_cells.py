from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scgpt.data import MODALITIES, Cells, GeneVocab, ModalityCells, MultiCells, Tokenizer

N_CELLS, N_GENES, N_PROTEINS = 30, 25, 8
GENES = [f"G{i}" for i in range(N_GENES)]
PROTEINS = [f"protein:P{i}" for i in range(N_PROTEINS)]
INDEX = np.array([4, 0, 29, 12, 4, 13])


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(GeneVocab.from_genes(GENES + PROTEINS), ties="spread")


@pytest.fixture
def parts(rng, tokenizer) -> dict[str, Cells]:
    counts = {"rna": rng.poisson(0.6, (N_CELLS, N_GENES)), "protein": rng.poisson(20, (N_CELLS, N_PROTEINS))}
    names = {"rna": GENES, "protein": PROTEINS}
    return {
        kind: Cells(ad.AnnData(sp.csr_matrix(x.astype(np.float32))), tokenizer.vocab.ids(names[kind]))
        for kind, x in counts.items()
    }


def paired(parts) -> MultiCells:
    return MultiCells({kind: ModalityCells(cells, np.arange(N_CELLS)) for kind, cells in parts.items()})


def mosaic(parts) -> MultiCells:
    """All 30 cells have proteins, and every second of them RNA, in the opposite order; two more have neither."""
    rna = np.full(N_CELLS + 2, -1)
    rna[0:N_CELLS:2] = np.arange(N_CELLS)[::-2]
    protein = np.append(np.arange(N_CELLS), [-1, -1])
    return MultiCells({"rna": ModalityCells(parts["rna"], rna), "protein": ModalityCells(parts["protein"], protein)})


def test_tokens_of_a_cell_are_cls_and_those_of_each_modality(parts, tokenizer):
    batch = paired(parts).tokenize(INDEX, tokenizer, key=3)
    assert batch.cell_index.tolist() == INDEX.tolist()
    for i in range(len(INDEX)):
        cell = batch.cells(i, i + 1)
        own = [parts[kind].tokenize(INDEX[[i]], tokenizer, key=3) for kind in ("rna", "protein")]
        assert cell.gene_ids.tolist() == own[0].gene_ids.tolist() + own[1].gene_ids[1:].tolist()
        assert cell.values.tolist() == own[0].values.tolist() + own[1].values[1:].tolist()
        kinds = [0] + [MODALITIES["rna"]] * (own[0].n_tokens - 1) + [MODALITIES["protein"]] * (own[1].n_tokens - 1)
        assert cell.modality_ids.tolist() == kinds


def test_cells_lack_the_tokens_of_a_modality_that_they_lack(parts, tokenizer):
    cells = mosaic(parts)
    assert len(cells) == N_CELLS + 2
    index = np.array([3, 2, 30, 31])
    batch = cells.tokenize(index, tokenizer, levels=True)
    only_protein, both, neither, _ = (batch.cells(i, i + 1) for i in range(4))
    assert set(only_protein.modality_ids.tolist()) == {0, MODALITIES["protein"]}
    assert neither.gene_ids.tolist() == [tokenizer.vocab.cls_id]
    tokens = parts["rna"].tokenize(np.array([N_CELLS - 3]), tokenizer)
    assert both.gene_ids[both.modality_ids == MODALITIES["rna"]].tolist() == tokens.gene_ids[1:].tolist()
    # What a cell lacks is not known to be 0.
    of_rna = batch.measured_modality_ids == MODALITIES["rna"]
    assert batch.measured.tolist() == sorted(batch.measured.tolist()) and int(of_rna.sum()) == N_GENES
    assert batch.levels[0, of_rna].isnan().all() and not batch.levels[0, ~of_rna].isnan().any()
    assert batch.levels[2:].isnan().all()
    assert batch.levels[1, of_rna].sum() == tokens.values[1:].sum()


def test_any_cells_in_any_order(parts, tokenizer):
    whole = mosaic(parts).tokenize(np.arange(N_CELLS + 2), tokenizer)
    order = np.random.default_rng(1).permutation(N_CELLS + 2)
    shuffled = mosaic(parts).tokenize(order, tokenizer)
    for i, cell in enumerate(order):
        a, b = shuffled.cells(i, i + 1), whole.cells(cell, cell + 1)
        assert torch.equal(a.gene_ids, b.gene_ids) and torch.equal(a.modality_ids, b.modality_ids)
    assert mosaic(parts).tokenize(np.array([], dtype=np.int64), tokenizer).n_cells == 0


def test_each_modality_has_a_length_of_its_own(parts, tokenizer):
    batch = paired(parts).tokenize(np.arange(N_CELLS), replace(tokenizer, max_length=5))
    n_tokens = torch.stack(
        [torch.bincount(c.modality_ids, minlength=4) for c in (batch.cells(i, i + 1) for i in range(30))]
    )
    assert n_tokens.max(0).values.tolist() == [1, 4, 0, 4]


def test_batches_and_labels_come_along(parts, tokenizer):
    cells = MultiCells(
        {kind: ModalityCells(c, np.arange(N_CELLS)) for kind, c in parts.items()},
        batch_labels=np.arange(N_CELLS) % 3,
        labels=np.arange(N_CELLS) % 5,
    )
    batch = cells.tokenize(INDEX, tokenizer)
    assert batch.batch_labels.tolist() == (INDEX % 3).tolist() and batch.labels.tolist() == (INDEX % 5).tolist()


def test_modalities_of_other_cells_are_refused(parts):
    with pytest.raises(ValueError, match="same cells"):
        MultiCells(
            {"rna": ModalityCells(parts["rna"], np.arange(9)), "protein": ModalityCells(parts["protein"], np.arange(8))}
        )
    with pytest.raises(ValueError, match="at least one"):
        MultiCells({})
