from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scgpt.data import Cells, GeneValues, GeneVocab, Marks, Pairing, PerturbedCells, tokens_of_cells
from scgpt.data._perturbed import sample_genes

VOCAB = GeneVocab(["<cls>", "A", "B", "C", "D", "E", "<pad>"])
VARIABLES = [4, -1, 2, 1, 3]  # D, unknown, B, A, C; E was not measured
VALUES = np.array(
    [
        [0.4, 9, 0.2, 0.1, 0.3],  # control
        [1.4, 9, 1.2, 0, 1.3],  # A
        [2.4, 9, 2.2, 2.1, 2.3],  # B and E
        [3.4, 9, 0, 3.1, 3.3],  # a drug
        [4.4, 9, 4.2, 4.1, 4.3],  # control
    ],
    dtype=np.float32,
)
MARKS = [
    Marks(np.empty(0, np.int64), np.empty((0, 1), np.int64)),
    Marks(np.array([1]), np.array([[1]])),
    Marks(np.array([5, 2]), np.array([[1, 2], [1, 3]])),
    Marks(np.array([0]), np.array([[4]])),
]
CONTROL = np.array([True, False, False, False, True])


def cells(values=VALUES, groups=(0, 0, 0, 0, 0), is_control=CONTROL) -> PerturbedCells:
    return PerturbedCells(
        Cells(ad.AnnData(sp.csr_matrix(values)), np.array(VARIABLES)),
        cls_id=VOCAB.cls_id,
        cls_value=-2.0,
        marks=MARKS,
        perturbation_of=np.array([0, 1, 2, 3, 0]),
        pairing=Pairing(is_control, np.array(groups)),
    )


def pairs(of: PerturbedCells, index, n_genes=9, control_key=0, gene_key=0):
    return of.pairs(np.array(index), n_genes=n_genes, control_key=control_key, gene_key=gene_key)


def test_a_control_cell_is_read_and_a_perturbed_cell_predicted():
    """Each cell has a group of its own with one control cell, so that it is known which one."""
    batch = pairs(cells(groups=[0, 1, 0, 1, 1]), [2, 1, 3, 0])
    assert batch.cell_index.tolist() == [2, 1, 3, 0]
    # E is a token of the first cell alone, in which it is perturbed.
    assert batch.offsets.tolist() == [0, 6, 11, 16, 21]
    rows = {name: x.numpy() for name, x in batch.to_padded(pad_id=-7, pad_value=-7).items()}
    no_e = np.array([False, True, True, True])
    assert (rows["gene_ids"][:, :5] == [0, 1, 2, 3, 4]).all()
    assert rows["gene_ids"][0, 5] == 5 and rows["padding"][no_e, 5].all()
    first, second = [-2, 0.1, 0.2, 0.3, 0.4], [-2, 4.1, 4.2, 4.3, 4.4]
    np.testing.assert_array_equal(rows["values"][:, :5], np.array([first, second, second, first], np.float32))
    np.testing.assert_array_equal(
        rows["targets"][:, :5],
        np.array([[0, 2.1, 2.2, 2.3, 2.4], [0, 0, 1.2, 1.3, 1.4], [0, 3.1, 0, 3.3, 3.4], [0, *first[1:]]], np.float32),
    )
    assert rows["values"][0, 5] == rows["targets"][0, 5] == 0
    assert (rows["predict"][:, :5] == [False, True, True, True, True]).all() and not rows["predict"][0, 5]
    conditions = np.zeros((4, 6, 2), np.int64)
    conditions[0, 5], conditions[0, 2] = [1, 2], [1, 3]
    conditions[1, 1, 0] = 1
    conditions[2, 0, 0] = 4
    conditions[no_e, 5] = -7
    np.testing.assert_array_equal(rows["condition_ids"], conditions)


def test_a_gene_that_was_not_measured_is_a_token_only_where_it_is_perturbed():
    assert pairs(cells(), [1, 3]).gene_ids.tolist() == 2 * [0, 1, 2, 3, 4]
    assert pairs(cells(), [1, 3]).predict.tolist() == 2 * [False, True, True, True, True]
    assert pairs(cells(), [1, 2]).gene_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]


def test_perturbed_genes_are_always_among_the_sampled_and_the_others_come_in_turn():
    seen = set()
    for key in range(40):
        batch = pairs(cells(), [1, 0], n_genes=2, gene_key=key)
        one, other = batch.gene_ids.reshape(2, 3).tolist()
        assert one == other == sorted(one)
        assert {0, 1} < set(one)
        seen |= set(one) - {0, 1}
        np.testing.assert_array_equal(batch.gene_ids, pairs(cells(), [1, 0], n_genes=2, gene_key=key).gene_ids)
        assert batch.condition_ids.tolist() == [[0], [1], [0], [0], [0], [0]]
    assert seen == {2, 3, 4}


def test_more_genes_are_perturbed_in_a_batch_than_are_sampled():
    batch = pairs(cells(), [1, 2], n_genes=1)
    assert batch.gene_ids.tolist() == [0, 1, 2, 0, 1, 2, 5]


def test_sampled_genes():
    genes, always = np.arange(0, 300, 3), np.array([6, 1000])
    drawn = [sample_genes(genes, 20, always, key) for key in range(300)]
    for own in drawn:
        assert len(own) == 20 and (np.diff(own) > 0).all()
        assert {6, 1000} <= set(own) <= {*genes, 1000}
    share = np.bincount(np.concatenate(drawn) // 3, minlength=334)[:100] / 300
    assert share[2] == 1
    assert abs(np.delete(share, 2) - 18 / 99).max() < 0.1  # all others alike
    assert sample_genes(genes, 100, always, 0).tolist() == [*genes, 1000]
    # Whether one gene is drawn before another does not depend on which others there are.
    half = sample_genes(genes[::2], 20, always, 7)
    assert set(sample_genes(genes, 20, always, 7)) & set(genes[::2]) <= set(half)


def test_control_cells_are_of_the_same_group_and_drawn_evenly():
    rng = np.random.default_rng(0)
    groups, is_control = rng.integers(0, 3, 300), rng.random(300) < 0.1
    pairing, index = Pairing(is_control, groups), rng.permutation(300)
    drawn = np.stack([pairing.controls_for(index, key) for key in range(200)])
    assert is_control[drawn].all()
    assert (groups[drawn] == groups[index]).all()
    for group in range(3):
        controls = np.flatnonzero(is_control & (groups == group))
        found, counts = np.unique(drawn[:, groups[index] == group], return_counts=True)
        assert found.tolist() == controls.tolist()
        np.testing.assert_allclose(counts / counts.sum(), 1 / len(controls), rtol=0.1)


def test_which_control_cell_depends_on_key_and_cell_alone():
    pairing = Pairing(np.arange(100) < 50, np.zeros(100, np.int64))
    whole = pairing.controls_for(np.arange(100), 3)
    some = np.array([77, 4, 61])
    assert pairing.controls_for(some, 3).tolist() == whole[some].tolist()
    assert (pairing.controls_for(np.arange(100), 4) != whole).mean() > 0.9
    # Control cells of other groups have no say.
    more = Pairing(np.arange(120) < 50, np.repeat([0, 1], [100, 20]))
    assert more.controls_for(some, 3).tolist() == whole[some].tolist()
    assert pairs(cells(), [1], control_key=1).values.tolist() in (
        pairs(cells(groups=[0, 0, 0, 0, 1], is_control=np.eye(5, dtype=bool)[0] | CONTROL), [1]).values.tolist(),
        pairs(cells(groups=[1, 0, 0, 0, 0]), [1]).values.tolist(),
    )


def test_the_digest_tells_trainings_apart():
    index = np.array([1, 2])
    plain = cells()
    assert plain.conditions.digest(index) == cells().digest(index)
    others = [cells(groups=[0, 0, 0, 1, 1]), cells(is_control=np.eye(5, dtype=bool)[0]), cells(), cells()]
    others[2].marks = [*MARKS[:2], replace(MARKS[2], tokens=np.array([5, 3])), MARKS[3]]
    others[3].perturbation_of = np.array([0, 2, 1, 3, 0])
    assert len({plain.digest(index), *(other.digest(index) for other in others)}) == 5
    assert len(plain) == 5


class TestGeneValues:
    def test_values_by_gene_in_any_order_and_zero_of_what_was_not_measured(self):
        values = GeneValues(Cells(ad.AnnData(VALUES), np.array(VARIABLES)))
        assert values.genes.tolist() == [1, 2, 3, 4]
        got = values.of(np.array([3, 0]), np.array([4, 5, 1, 0, 99]))
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, np.array([[3.4, 0, 3.1, 0, 0], [0.4, 0, 0.1, 0, 0]], np.float32))

    def test_the_highest_of_several_variables_counts(self):
        values = GeneValues(Cells(ad.AnnData(VALUES), np.array([1, -1, 2, 1, 2])))
        np.testing.assert_array_equal(values.of(np.array([0, 2]), values.genes), np.float32([[0.4, 0.3], [2.4, 2.3]]))

    def test_what_is_no_expression_is_refused(self):
        values = GeneValues(Cells(ad.AnnData(-VALUES), np.array(VARIABLES)))
        with pytest.raises(ValueError, match=r"negative values.* rows \[2\]"):
            values.of(np.array([2]), values.genes)


def test_cells_as_tokens():
    values = np.float32([[1, 2], [3, 4]])
    batch = tokens_of_cells(
        values, np.array([3, 7]), [MARKS[0], Marks(np.array([7]), np.array([[1, 9, 5]]))], cls_id=5, cls_value=0.5,
        cell_index=np.array([8, 2]),
    )  # fmt: skip
    assert batch.gene_ids.tolist() == [5, 3, 7, 5, 3, 7]
    assert batch.values.tolist() == [0.5, 1, 2, 0.5, 3, 4]
    assert batch.cell_index.tolist() == [8, 2]
    assert batch.condition_ids.tolist() == [[0] * 3] * 5 + [[1, 9, 5]]
    assert batch.targets is None and batch.predict is None
