import json

import numpy as np
import pandas as pd
import pytest

from scgpt.data import GeneVocab
from scgpt.model._perturbations import PerturbationField, PerturbationNames, names_of, pairing_of, plain

VOCAB = GeneVocab.from_genes(["A", "B", "C", "ENSG00000000001"])  # ids 0 to 3, then <pad>, <cls>, <eoc>
PLAIN = PerturbationNames("perturbation", "ctrl", "+")
FULL = PerturbationNames("perturbation", "ctrl", "+", ("drug", "IFNb"), "direction", ("down", "up"))


def register(adata, treatments=(), within=(), direction_key=None, control="control"):
    names = PerturbationNames("perturbation", control, "+", direction_column=direction_key)
    return PerturbationField(names, treatments, within).register_field(adata)


def marks(names, name, direction="", mapping=None):
    own = names.marks(name, direction, VOCAB, mapping or {})
    return dict(zip(own.tokens.tolist(), own.conditions.tolist(), strict=True))


class TestMarks:
    def test_genes_are_marked_as_perturbed(self):
        assert PLAIN.n_conditions == 2
        assert marks(PLAIN, "B") == {1: [1]}
        assert marks(PLAIN, "C+A") == marks(PLAIN, "A+C") == {0: [1], 2: [1]}
        assert marks(PLAIN, "A+ctrl") == marks(PLAIN, "ctrl+A") == marks(PLAIN, "A")
        assert marks(PLAIN, "ctrl") == {}

    def test_directions_stand_beside_the_mark_and_treatments_at_cls(self):
        assert FULL.n_conditions == 6
        assert marks(FULL, "B", "down") == {1: [1, 2]}
        assert marks(FULL, "A+B", "up") == {0: [1, 3], 1: [1, 3]}
        assert marks(FULL, "B") == {1: [1, 0]}
        assert marks(FULL, "drug") == marks(FULL, "drug", "up") == {VOCAB.cls_id: [4, 0]}
        assert marks(FULL, "IFNb+B+drug", "up") == {1: [1, 3], VOCAB.cls_id: [5, 4]}
        assert marks(FULL, "ctrl", "up") == {}

    def test_several_treatments_and_no_direction(self):
        names = PerturbationNames("perturbation", "ctrl", "+", ("d", "e", "f"))
        assert marks(names, "A+d+f+e") == {0: [1, 0, 0], VOCAB.cls_id: [2, 3, 4]}

    def test_names_are_known_as_those_of_variables_are(self):
        """By a mapping where it has them, and without the version of an Ensembl id."""
        assert marks(PLAIN, "old", mapping={"old": "A"}) == {0: [1]}
        assert marks(PLAIN, "A", mapping={"A": "not there"}) == {0: [1]}
        assert marks(PLAIN, "ENSG00000000001.7") == {3: [1]}

    def test_what_is_neither_gene_nor_treatment_is_refused(self):
        with pytest.raises(KeyError, match=r"'A\+Z\+Y' names \['Y', 'Z'\], neither genes .* trained on \(none\)"):
            marks(PLAIN, "A+Z+Y")
        with pytest.raises(KeyError, match=r"names \['<cls>'\].* trained on \(drug, IFNb\)"):
            marks(FULL, "<cls>")
        with pytest.raises(KeyError, match=r"not trained on direction 'sideways'; it knows \['down', 'up'\]"):
            marks(FULL, "A", "sideways")
        with pytest.raises(KeyError, match=r"not trained on direction 'up'; it knows \[\]"):
            marks(PLAIN, "A", "up")
        with pytest.raises(ValueError, match="twice"):
            marks(PLAIN, "A+A")
        assert FULL.unknown(["A+Z", "drug", "Y", "Z", "ctrl"], VOCAB, {}) == ["Y", "Z"]


class TestCells:
    @pytest.fixture
    def obs(self) -> pd.DataFrame:
        names = ["ctrl", "A", "B+A", "ctrl+B", "drug", "A+B"]
        directions = ["up", "up", "down", None, "down", "up"]
        return pd.DataFrame({"perturbation": names, "direction": directions}, index=list("uvwxyz"))

    @pytest.mark.parametrize("kind", ["object", "category", "string"])
    def test_each_perturbation_has_one_name_and_only_genes_a_direction(self, obs, kind):
        cells = FULL.of(obs.astype(kind))
        assert cells.index.tolist() == obs.index.tolist()
        assert cells["name"].tolist() == ["ctrl", "A", "A+B", "B", "drug", "A+B"]
        assert cells["direction"].tolist() == ["", "up", "down", "", "", "up"]
        assert set(PLAIN.of(obs)["direction"]) == {""}

    def test_wrong_columns(self, obs):
        with pytest.raises(
            KeyError, match=r"direction_key='direction' is not a column of .obs; there are \['perturbation'\]"
        ):
            FULL.of(obs[["perturbation"]])
        obs.loc["v", "direction"] = "sideways"
        with pytest.raises(ValueError, match=r"\.obs\['direction'\] has directions that are not known: \['sideways'\]"):
            FULL.of(obs)
        obs.loc["w", "perturbation"] = np.nan
        with pytest.raises(ValueError, match=r"1 of \d+ cells have no perturbation in .obs\['perturbation'\]"):
            FULL.of(obs)
        obs.loc["w", "perturbation"] = ""
        with pytest.raises(ValueError, match="names nothing"):
            FULL.of(obs)


class TestField:
    def test_what_is_registered_survives_json(self, perturbed):
        state = register(perturbed, treatments=["C"], within=["type"])
        assert sorted(state["trained_on"]) == ["A", "A+B", "B", "C"]
        assert state["paired_within"] == ["type"]
        again = names_of(json.loads(json.dumps(state)))
        assert again == PerturbationNames("perturbation", "control", "+", ("C",))
        assert plain(again).items() <= state.items()

    def test_treatments_are_named_or_all(self, perturbed):
        assert names_of(register(perturbed)).treatments == ()
        assert names_of(register(perturbed, treatments="all")).treatments == ("A", "B", "C")
        with pytest.raises(
            ValueError, match=r"treatments= names \['Q'\], which no cell stands under; there are A, B, C"
        ):
            register(perturbed, treatments=["A", "Q"])

    def test_directions_are_those_of_perturbed_cells(self, perturbed):
        perturbed.obs["direction"] = np.where(perturbed.obs["perturbation"] == "A", "up", "down")
        perturbed.obs.loc[perturbed.obs["perturbation"] == "control", "direction"] = "nothing"
        perturbed.obs.loc[perturbed.obs["perturbation"] == "C", "direction"] = None
        assert names_of(register(perturbed, direction_key="direction")).directions == ("down", "up")
        with pytest.raises(KeyError, match="direction_key='way' is not a column"):
            register(perturbed, direction_key="way")

    def test_no_control_and_nothing_else(self, perturbed):
        with pytest.raises(ValueError, match=r"No cell of .obs\['perturbation'\] is 'ctrl'.* control=.* control, A"):
            register(perturbed, control="ctrl")
        with pytest.raises(ValueError, match="All cells .* are 'control'; there is nothing to learn"):
            register(perturbed[:30])

    def test_a_control_label_inside_combinations(self, perturbed):
        perturbed.obs["perturbation"] = [
            "ctrl" if name == "control" else f"{name}+ctrl" if "+" not in name else name
            for name in perturbed.obs["perturbation"]
        ]
        assert sorted(register(perturbed, control="ctrl")["trained_on"]) == ["A", "A+B", "B", "C"]

    def test_the_same_gene_twice(self, perturbed):
        perturbed.obs["perturbation"] = perturbed.obs["perturbation"].astype(str).replace("A+B", "A+A")
        with pytest.raises(ValueError, match=r"'A\+A' names A twice"):
            register(perturbed)

    def test_few_cells(self, perturbed):
        few = perturbed[(perturbed.obs["perturbation"] != "C") | (np.arange(110) % 6 == 0)].copy()
        with pytest.warns(UserWarning, match="fewer than 5 cells are hard to learn: C"):
            register(few)

    def test_another_data_set_is_registered_alike(self, perturbed):
        names = PerturbationNames("perturbation", "control", "+")
        field = PerturbationField(names, (), ["type"])
        state = field.register_field(perturbed)
        assert field.transfer_field(state, perturbed[::2].copy()) == state
        with pytest.raises(ValueError, match="no control cell that others could be paired with"):
            field.transfer_field(state, perturbed[30:].copy())
        with pytest.raises(ValueError, match=r"No control cell in B: cells are paired within \['type'\]"):
            field.transfer_field(state, perturbed[(perturbed.obs["type"] == "T") | (np.arange(110) > 30)].copy())
        assert field.get_summary_stats(state) == {"n_conditions": 2, "n_perturbations": 4}


class TestPairing:
    def test_groups_are_all_values_of_the_columns(self, perturbed):
        perturbed.obs["donor"] = np.arange(110) // 2 % 2
        is_control = (perturbed.obs["perturbation"] == "control").to_numpy()
        drawn = pairing_of(perturbed.obs, is_control, ["type", "donor"]).controls_for(np.arange(110), 5)
        assert is_control[drawn].all()
        for column in ("type", "donor"):
            assert (perturbed.obs[column].to_numpy()[drawn] == perturbed.obs[column].to_numpy()).all()
        free = pairing_of(perturbed.obs, is_control, []).controls_for(np.arange(110), 5)
        assert (perturbed.obs["type"].to_numpy()[free] == perturbed.obs["type"].to_numpy()).mean() < 0.7

    def test_wrong_columns(self, perturbed):
        is_control = (perturbed.obs["perturbation"] == "control").to_numpy()
        with pytest.raises(KeyError, match=r"paired_within='donor' is not a column"):
            pairing_of(perturbed.obs, is_control, ["type", "donor"])
        perturbed.obs.loc["cell3", "type"] = np.nan
        with pytest.raises(ValueError, match=r"1 of \d+ cells have no value in .obs\['type'\]"):
            pairing_of(perturbed.obs, is_control, ["type"])
