import json
import random
from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgpt.metrics import PerturbationSplit, perturbed_by

GENES = [f"G{i:02}" for i in range(20)]
SINGLES = GENES
PAIRS = ["+".join(pair) for pair in combinations(GENES[:12], 2)][::2]
NAMES = [*SINGLES, *PAIRS]


def cells(names) -> ad.AnnData:
    return ad.AnnData(obs=pd.DataFrame({"perturbation": list(names)}, index=[f"c{i}" for i in range(len(names))]))


def everything(split) -> list[str]:
    return sorted([*split.train, *split.validation, *split.test])


# Both


@pytest.mark.parametrize("make", [PerturbationSplit.by_perturbation, PerturbationSplit.simulation])
def test_each_perturbation_is_in_one_part(make):
    split = make(NAMES, seed=3)
    assert everything(split) == sorted(NAMES)
    assert len(split.train) > len(split.test) > len(split.validation) > 0
    assert sorted(name for group in split.groups.values() for name in group) == list(split.test)
    assert list(split.train) == sorted(split.train)
    assert split.settings == {
        "kind": make.__name__,
        "control": "control",
        "sep": "+",
        "seed": 3,
        "test_size": 0.25,
        "validation_size": 0.1,
    }


@pytest.mark.parametrize("make", [PerturbationSplit.by_perturbation, PerturbationSplit.simulation])
def test_it_is_a_function_of_the_names_and_the_seed_alone(make):
    expected = make(NAMES, seed=3)
    np.random.seed(1)
    random.seed(1)
    written = [perturbed_by(name) for name in NAMES]
    shuffled = ["+".join(reversed(genes)) if len(genes) > 1 else f"control+{genes[0]}" for genes in written]
    random.shuffle(shuffled)
    assert make([*shuffled, "control"], seed=3) == expected
    assert make(pd.Categorical(shuffled), seed=3) == expected
    assert make(NAMES, seed=4) != expected


@pytest.mark.parametrize("make", [PerturbationSplit.by_perturbation, PerturbationSplit.simulation])
def test_shares_of_nothing_hold_out_nothing_and_small_ones_at_least_one(make):
    assert make(SINGLES, test_size=0, validation_size=0).train == tuple(SINGLES)
    split = make(SINGLES, test_size=0.01, validation_size=0)
    assert (len(split.test), split.validation) == (1, ())


@pytest.mark.parametrize("make", [PerturbationSplit.by_perturbation, PerturbationSplit.simulation])
@pytest.mark.parametrize(
    ("names", "kwargs", "message"),
    [
        (["A", "B+C", "C+B"], {}, "Of perturbations, these are named twice: B\\+C"),
        (["A", np.nan], {}, "1 of 2 names of perturbations are no text"),
        (["A+A"], {}, "names A twice"),
        (["A"], {}, "Nothing is left for training: give more perturbations"),
        ([], {}, "Nothing is left for training"),
        (NAMES, {"test_size": 1}, "have to be shares from 0 to below 1, and are 1 and 0.1"),
        (NAMES, {"validation_size": -0.1}, "have to be shares from 0 to below 1"),
    ],
)
def test_wrong_names_are_an_error_that_says_what(make, names, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(names, **kwargs)


# At random


def test_shares_are_those_of_the_perturbations():
    split = PerturbationSplit.by_perturbation(NAMES, test_size=0.3, validation_size=0.2)
    assert len(NAMES) == 53
    assert (len(split.test), len(split.validation)) == (16, 11)


def test_adding_a_perturbation_moves_few_others():
    before = set(PerturbationSplit.by_perturbation(NAMES).test)
    after = set(PerturbationSplit.by_perturbation([*NAMES, "NEW"]).test)
    assert len(before - after) <= 1


def test_groups_count_the_genes_that_training_perturbs():
    split = PerturbationSplit.from_names(
        ["A", "B+C"], ["D"], ["E", "A+B", "C+D", "D+E", "A+B+C", "ctrl+F"], control="ctrl"
    )
    assert split.groups == {
        "unseen_double_seen0": ("D+E",),
        "unseen_double_seen1": ("C+D",),
        "unseen_double_seen2": ("A+B",),
        "unseen_multiple": ("A+B+C",),
        "unseen_single": ("E", "F"),
    }
    assert split.settings == {"kind": "from_names", "control": "ctrl", "sep": "+"}


# Simulation


@pytest.mark.parametrize("seed", range(5))
def test_genes_are_held_out_with_all_that_they_are_in(seed):
    split = PerturbationSplit.simulation(NAMES, seed=seed)
    held = {name for name in split.test if name in GENES}
    assert len(held) == 5
    assert set(split.groups["unseen_single"]) == held
    for name in [*split.train, *split.validation]:
        assert held.isdisjoint(perturbed_by(name))
    touched = [name for name in PAIRS if not held.isdisjoint(perturbed_by(name))]
    assert set(touched) <= set(split.test)
    # Of the pairs of other genes the same share.
    others = [name for name in split.test if name in PAIRS and name not in touched]
    assert len(others) == round(0.25 * (len(PAIRS) - len(touched)))
    held_later = {name for name in split.validation if name in GENES}
    assert len(held_later) == 2  # of 15
    for name in split.train:
        assert held_later.isdisjoint(perturbed_by(name))


@pytest.mark.parametrize("seed", range(5))
def test_groups_say_what_training_saw(seed):
    split = PerturbationSplit.simulation(NAMES, seed=seed)
    seen = {gene for name in split.train for gene in perturbed_by(name)}
    for group, names in split.groups.items():
        for name in names:
            genes = perturbed_by(name)
            if group == "unseen_single":
                assert len(genes) == 1
                assert genes[0] not in seen
            else:
                assert group == f"unseen_double_seen{sum(gene in seen for gene in genes)}"
    assert set(split.groups) <= {"unseen_single", *(f"unseen_double_seen{n}" for n in range(3))}


# Cells


@pytest.fixture
def split() -> PerturbationSplit:
    return PerturbationSplit.from_names(["A", "A+B"], ["B"], ["C"], control="ctrl")


def test_parts_of_cells(split):
    adata = cells(["B+A", "ctrl", "C+ctrl", "B", "A", "ctrl"])
    assert split.of(adata).tolist() == ["train", "control", "test", "validation", "train", "control"]
    assert split.cells(adata, "train").tolist() == [True, True, False, False, True, True]
    assert split.cells(adata, "validation").tolist() == [False, True, False, True, False, True]
    assert split.cells(adata, "test").tolist() == [False, True, True, False, False, True]
    adata.obs["guide"] = pd.Categorical(adata.obs.pop("perturbation"))
    assert split.cells(adata, "test", "guide").sum() == 3
    # A data set need not have all perturbations, nor control.
    assert split.of(adata[3:4], "guide").tolist() == ["validation"]
    assert split.cells(adata[3:4], "test", "guide").tolist() == [False]


def test_unknown_cells_are_an_error_unless_allowed(split):
    adata = cells(["A", "Z", "Z+A", "Z"])
    with pytest.raises(
        ValueError, match="2 perturbations in .obs.* in no part of the split: Z, Z\\+A. .*allow_unknown"
    ):
        split.of(adata)
    with pytest.raises(ValueError, match="in no part of the split"):
        split.cells(adata, "train")
    assert split.of(adata, allow_unknown=True).tolist() == ["train", "", "", ""]
    assert split.cells(adata, "train", allow_unknown=True).tolist() == [True, False, False, False]


def test_wrong_cells_or_parts_are_an_error(split):
    with pytest.raises(KeyError, match="no column 'guide'"):
        split.of(cells(["A"]), "guide")
    with pytest.raises(ValueError, match="1 of 2 cells have no perturbation"):
        split.of(cells(["A", None]))
    with pytest.raises(ValueError, match="part has to be one of \\['train', 'validation', 'test'\\], and is 'val'"):
        split.cells(cells(["A"]), "val")


# Files


def test_what_is_saved_is_read(tmp_path):
    split = PerturbationSplit.simulation([*NAMES, "Ä+B"], control="ctrl")
    split.save(tmp_path / "a.json")
    split.save(str(tmp_path / "b.json"))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert '    "Ä+B"' in text.replace(",", "") or '"B+Ä"' in text
    assert list(json.loads(text)) == ["train", "validation", "test", "groups", "settings"]
    read = PerturbationSplit.load(tmp_path / "a.json")
    assert read == split
    assert isinstance(read.train, tuple)
    assert isinstance(read.groups["unseen_single"], tuple)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "holds no split of perturbations"),
        ("[]", "holds no split of perturbations"),
        ('{"train": []}', "holds no split of perturbations: 'validation'"),
        (
            '{"train": ["A"], "validation": ["A"], "test": [], "groups": {}, "settings": {"kind": "x", "control": "c", "sep": "+"}}',
            "these stand there twice: A",
        ),
    ],
)
def test_a_wrong_file_is_an_error(text, message, tmp_path):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        PerturbationSplit.load(tmp_path / "split.json")
    with pytest.raises(FileNotFoundError):
        PerturbationSplit.load(tmp_path / "none.json")


# By hand


SETTINGS = {"kind": "mine", "control": "control", "sep": "+"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((("A",), ("A",), (), {}, SETTINGS), "stand there twice: A"),
        ((("B+A",), (), (), {}, SETTINGS), "control or do not have their genes in order: B\\+A"),
        ((("control",), (), (), {}, SETTINGS), "control or do not have their genes in order: control"),
        ((("A",), (), ("B",), {}, SETTINGS), "groups of a split have to hold each name in test once"),
        ((("A",), (), ("B",), {"unseen_single": ("A",)}, SETTINGS), "groups of a split have to hold"),
        ((("A",), (), (), {}, {"kind": "mine"}), "settings of a split have to hold \\['control', 'sep'\\]"),
    ],
)
def test_a_split_that_contradicts_itself_is_an_error(args, message):
    with pytest.raises(ValueError, match=message):
        PerturbationSplit(*args)


def test_lists_that_share_a_name_are_an_error():
    with pytest.raises(ValueError, match="stand there twice: A\\+B"):
        PerturbationSplit.from_names(["A+B"], test=["B+A"])
