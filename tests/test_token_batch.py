from dataclasses import fields, replace

import pytest
import torch

from scgpt.data import TokenBatch

LENGTHS = (3, 1, 5, 2)


@pytest.fixture
def batch() -> TokenBatch:
    """Four cells with every field, and no two tokens alike."""
    n_tokens, n_cells = sum(LENGTHS), len(LENGTHS)
    tokens = torch.arange(n_tokens)
    return TokenBatch(
        gene_ids=tokens + 100,
        values=tokens + 0.5,
        offsets=torch.tensor([0, *LENGTHS]).cumsum(0),
        cell_index=torch.arange(n_cells) + 40,
        condition_ids=torch.stack([tokens % 3, tokens % 2], dim=1),
        modality_ids=tokens % 4,
        unknown=tokens % 2 == 0,
        targets=tokens + 0.25,
        predict=tokens % 3 == 0,
        batch_labels=torch.tensor([0, 1, 0, 2]),
        labels=torch.tensor([5, 6, 7, 8]),
        measured=torch.tensor([100, 103, 107]),
        measured_modality_ids=torch.tensor([1, 1, 2]),
        levels=(torch.arange(12).reshape(4, 3) % 5 == 0).float(),
    )


def assert_same(a: TokenBatch, b: TokenBatch) -> None:
    for field in fields(TokenBatch):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert (x is None) == (y is None), field.name
        if x is not None:
            assert x.dtype == y.dtype, field.name
            assert torch.equal(x, y), field.name


def concatenate(parts: list[TokenBatch]) -> dict[str, torch.Tensor]:
    of_the_data = ("offsets", "measured", "measured_modality_ids")
    names = [f.name for f in fields(TokenBatch) if f.name not in of_the_data]
    return {name: torch.cat([getattr(part, name) for part in parts]) for name in names}


def test_properties_say_where_cells_are(batch):
    assert (batch.n_cells, batch.n_tokens) == (4, 11)
    assert batch.lengths.tolist() == [3, 1, 5, 2]
    assert batch.boundaries == [0, 3, 4, 9, 11]
    assert batch.first.tolist() == [0, 3, 4, 9]
    assert batch.cell_of_token.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2, 3, 3]


def test_cells_are_a_range_of_the_batch(batch):
    middle = batch.cells(1, 3)
    assert middle.offsets.tolist() == [0, 1, 6]
    assert middle.gene_ids.tolist() == list(range(103, 109))
    assert middle.condition_ids.tolist() == [[t % 3, t % 2] for t in range(3, 9)]
    assert middle.cell_index.tolist() == [41, 42]
    assert middle.labels.tolist() == [6, 7]
    assert middle.levels.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert middle.measured.tolist() == [100, 103, 107]  # the data set's, the same for every cell
    assert middle.measured_modality_ids.tolist() == [1, 1, 2]
    # A range must not bring along what the whole batch had computed about itself.
    assert middle.lengths.tolist() == [1, 5]
    assert middle.cell_of_token.tolist() == [0, 1, 1, 1, 1, 1]


def test_cells_share_memory_with_the_batch(batch):
    batch.cells(2, 4).values[0] = -7.0
    assert batch.values[4] == -7.0


@pytest.mark.parametrize(
    ("max_tokens", "sizes"),
    [
        pytest.param(100, [4], id="all fit"),
        pytest.param(11, [4], id="all just fit"),
        pytest.param(10, [3, 1], id="the last does not"),
        pytest.param(5, [2, 1, 1], id="a cell just fits"),
        pytest.param(1, [1, 1, 1, 1], id="cells longer than the limit stand alone"),
    ],
)
def test_split_cuts_between_cells_and_loses_nothing(batch, max_tokens, sizes):
    parts = batch.split(max_tokens)
    assert [part.n_cells for part in parts] == sizes
    assert all(part.n_tokens <= max_tokens or part.n_cells == 1 for part in parts)
    for name, joined in concatenate(parts).items():
        assert torch.equal(joined, getattr(batch, name)), name
    assert sum((part.lengths.tolist() for part in parts), []) == list(LENGTHS)


def test_padded_and_back_is_the_same(batch):
    assert_same(TokenBatch.from_padded(**batch.to_padded()), batch)


def test_padded_and_back_is_the_same_without_optional_fields(batch):
    plain = TokenBatch(batch.gene_ids, batch.values, batch.offsets, batch.cell_index)
    padded = plain.to_padded()
    assert set(padded) == {"gene_ids", "values", "padding", "cell_index"}
    assert_same(TokenBatch.from_padded(**padded), plain)


def test_a_batch_of_no_cell_is_padded_and_split_too(batch):
    nothing = batch.cells(0, 0)
    assert nothing.longest == 0
    assert nothing.split(10) == []
    assert_same(TokenBatch.from_padded(**nothing.to_padded()), nothing)


def test_to_padded_fills_with_what_is_asked_for(batch):
    padded = batch.to_padded(pad_id=200, pad_value=-2.0)
    assert padded["padding"].tolist() == [[i >= n for i in range(5)] for n in LENGTHS]
    assert padded["gene_ids"][0].tolist() == [100, 101, 102, 200, 200]
    assert padded["values"][3].tolist() == [9.5, 10.5, -2.0, -2.0, -2.0]
    assert padded["unknown"][1].tolist() == [False] * 5
    assert padded["condition_ids"].shape == (4, 5, 2)


def test_from_padded_packs_tokens_wherever_the_padding_is():
    batch = TokenBatch.from_padded(
        torch.tensor([[9, 4, 9, 5], [6, 9, 9, 9]], dtype=torch.int32),
        torch.tensor([[0, 1, 0, 2], [3, 0, 0, 0]]),
        torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1]]),
        condition_ids=torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0]]),
        batch_labels=torch.tensor([1, 0], dtype=torch.int16),
    )
    assert batch.gene_ids.tolist() == [4, 5, 6]
    assert batch.values.tolist() == [1.0, 2.0, 3.0]
    assert batch.offsets.tolist() == [0, 2, 3]
    assert batch.condition_ids.tolist() == [[1], [0], [1]]  # one condition for each token is a column of one
    assert batch.cell_index.tolist() == [0, 1]
    dtypes = [x.dtype for x in (batch.gene_ids, batch.values, batch.offsets, batch.condition_ids, batch.batch_labels)]
    assert dtypes == [torch.int64, torch.float32, torch.int64, torch.int64, torch.int64]


def test_from_padded_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match=r"gene_ids \(1, 2\), values \(1, 3\) and padding \(1, 2\)"):
        TokenBatch.from_padded(torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1, 2))


def test_from_padded_refuses_a_cell_without_tokens():
    padding = torch.tensor([[False, False], [True, True]])
    with pytest.raises(ValueError, match="all padding"):
        TokenBatch.from_padded(torch.zeros(2, 2), torch.zeros(2, 2), padding)


@pytest.mark.parametrize(
    ("name", "length", "message"),
    [
        ("values", 4, "values has 4 entries for 3 tokens"),
        ("targets", 2, "targets has 2 entries for 3 tokens"),
        ("cell_index", 3, "cell_index has 3 entries for 2 cells"),
        ("labels", 1, "labels has 1 entries for 2 cells"),
    ],
)
def test_lengths_that_disagree_are_refused(name, length, message):
    given = {
        "gene_ids": torch.zeros(3),
        "values": torch.zeros(3),
        "offsets": torch.tensor([0, 2, 3]),
        "cell_index": torch.arange(2),
    }
    with pytest.raises(ValueError, match=message):
        TokenBatch(**given | {name: torch.zeros(length)})


def test_to_moves_every_field_and_keeps_it(batch):
    moved = batch.to("meta")
    assert all(getattr(moved, f.name).is_meta for f in fields(TokenBatch))
    plain = TokenBatch(batch.gene_ids, batch.values, batch.offsets, batch.cell_index)
    assert_same(plain.to("cpu"), plain)


def test_keep_leaves_tokens_out_but_never_the_first_of_a_cell(batch):
    kept = batch.keep(torch.tensor([0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0]).bool())
    assert kept.gene_ids.tolist() == [100, 102, 103, 104, 106, 108, 109]
    assert kept.values.tolist() == [0.5, 2.5, 3.5, 4.5, 6.5, 8.5, 9.5]
    assert kept.condition_ids.tolist() == [[t % 3, t % 2] for t in (0, 2, 3, 4, 6, 8, 9)]
    assert kept.offsets.tolist() == [0, 2, 3, 6, 7]
    assert kept.offsets.dtype == torch.int64
    assert kept.lengths.tolist() == [2, 1, 3, 1]
    assert torch.equal(kept.levels, batch.levels)  # of all measured genes, tokens or not
    assert torch.equal(kept.measured, batch.measured)
    assert_same(batch.keep(torch.ones(11, dtype=torch.bool)), batch)


def test_what_may_be_seen_of_each_cell(batch):
    batch = replace(batch, unknown=torch.tensor([0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1], dtype=torch.bool))
    seen = batch.known_and_self
    assert seen.index.tolist() == [0, 2, 11, 3, 11, 4, 7, 11, 9, 11]  # 11, the number of tokens, is oneself
    assert seen.offsets.tolist() == [0, 3, 5, 8, 10]
    assert (seen.n_cells, seen.longest, seen.lengths.tolist()) == (4, 3, [3, 2, 3, 2])
    assert batch.known_values.tolist() == [0.5, 0, 2.5, 3.5, 4.5, 0, 0, 7.5, 0, 9.5, 0]


def test_where_nothing_is_unknown_all_values_may_be_seen(batch):
    assert replace(batch, unknown=None).known_values is batch.values


def test_rows_of_cls(batch):
    assert batch.cls_tokens.index.tolist() == [0, 3, 4, 9]
    assert batch.cls_tokens.offsets.tolist() == [0, 1, 2, 3, 4]
