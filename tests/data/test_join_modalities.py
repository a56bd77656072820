import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mudata import MuData
from numpy.testing import assert_allclose, assert_array_equal

from scgpt.data import MEASURED, StudyExpression, above_background, accessible_peaks, join_modalities


def part(counts, names: str, prefix: str, **obs) -> ad.AnnData:
    counts = np.asarray(counts, dtype=np.float32)
    var = pd.DataFrame(index=[f"{prefix}{i}" for i in range(counts.shape[1])])
    return ad.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(obs, index=list(names)), var=var)


@pytest.fixture
def cite(rng) -> MuData:
    """Genes and proteins of 30 cells; the last 10 lack proteins, and the 5th has none that was measured."""
    names = [f"c{i}" for i in range(30)]
    proteins = rng.poisson(20, (20, 4)).astype(np.float32)
    proteins[4] = np.nan
    return MuData(
        {
            "rna": part(rng.poisson(1, (30, 12)), names, "G", donor=["x", "y"] * 15),
            "prot": part(proteins, names[:20], "P"),
        }
    )


@pytest.fixture
def multiome(rng) -> MuData:
    """Genes, in part others, and peaks of 16 cells."""
    names = [f"m{i}" for i in range(16)]
    rna = part(rng.poisson(1, (16, 12)), names, "G")
    rna.var_names = [f"G{i}" for i in range(6, 18)]
    return MuData({"rna": rna, "atac": part(rng.poisson(0.3, (16, 9)), names, "chr1-")})


def test_features_of_all_studies_under_one_roof(cite, multiome):
    joint = join_modalities({"cite": cite, "multiome": multiome}, batch_key="donor", n_top_genes=100, n_top_peaks=5)
    assert {kind: x.shape for kind, x in joint.mod.items()} == {"rna": (46, 18), "atac": (16, 5), "protein": (19, 4)}
    assert set(joint.obs["donor"]) == {"cite:x", "cite:y", "multiome"}
    # Cells are found again by their rows, and by their names.
    assert joint.obs.loc[["cite:0", "cite:29", "multiome:15"], "cell"].tolist() == ["c0", "c29", "m15"]
    assert joint.obs_names[0] == "cite:0" and "multiome:15" in joint.obs_names
    assert "cite:4" in joint["rna"].obs_names and "cite:4" not in joint["protein"].obs_names
    row = joint["rna"].obs_names.get_loc("multiome:3")
    own = multiome["rna"].X.toarray()[3]
    assert_array_equal(joint["rna"][row, multiome["rna"].var_names].X.toarray()[0], own)
    measured = joint["rna"].varm[MEASURED]
    assert measured.loc["G3"].to_dict() == {"cite:x": True, "cite:y": True, "multiome": False}
    assert measured.loc["G7"].all()
    assert joint["protein"].varm[MEASURED][["cite:x", "cite:y"]].to_numpy().all()


def test_one_study_without_batches(cite):
    joint = join_modalities({"": cite})
    assert set(joint.obs["batch"]) == {"all"}
    assert joint.n_obs == 30
    assert_allclose(
        joint["protein"].X.toarray(),
        above_background(cite["prot"].X[[i for i in range(20) if i != 4]], np.zeros(19, int)).toarray(),
        atol=1e-6,
    )


def test_an_anndata_is_a_study_of_genes(cite, multiome):
    joint = join_modalities({"a": cite, "b": multiome["rna"]}, batch_key=None)
    assert set(joint.mod) == {"rna", "protein"}
    assert set(joint.obs["batch"]) == {"a", "b"}


def test_levels_above_background():
    counts = np.array([[10, 100, 3], [12, 20, 3], [11, 22, 40], [100, 200, 30]])
    levels = above_background(sp.csr_matrix(counts), np.array([0, 0, 0, 1])).toarray()
    ratio = np.log1p(counts) - np.log1p(counts).mean(1, keepdims=True)
    expected = np.maximum(ratio[:3] - np.median(ratio[:3], axis=0), 0)
    assert_allclose(levels[:3], expected, atol=1e-6)
    assert (levels[3] == 0).all()  # alone in its batch, it is the background
    # Twice as much of all antibodies of a batch is no more of any protein.
    stained = counts * np.array([1, 1, 1, 5])[:, None]
    assert_allclose(above_background(sp.csr_matrix(stained), np.array([0, 0, 0, 1])).toarray(), levels, atol=1e-6)


@pytest.mark.parametrize("values", ["binary", "tfidf", "counts"])
def test_values_of_peaks(multiome, values):
    joint = join_modalities({"": multiome}, n_top_peaks=9, values={"atac": values})
    given, counts = joint["atac"].X.toarray(), multiome["atac"][:, joint["atac"].var_names].X.toarray()
    assert_array_equal(given > 0, counts > 0)
    assert sp.issparse(joint["atac"].X)
    if values == "tfidf":
        frequency = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        expected = np.log1p(frequency * 1e4) * np.log1p(16 / counts.sum(0).clip(1e-9))
        assert_allclose(given, np.where(counts > 0, expected, 0), rtol=1e-5)
    else:
        assert_array_equal(given, counts > 0 if values == "binary" else counts)


def test_clr_of_proteins(cite):
    joint = join_modalities({"": cite}, values={"protein": "clr"})
    counts = cite["prot"].X.toarray()[[i for i in range(20) if i != 4]]
    assert_allclose(joint["protein"].X.toarray(), np.log1p(counts / np.exp(np.log1p(counts).mean(0))), rtol=1e-5)


def test_peaks_that_are_open_in_most_cells():
    studies = [
        StudyExpression(
            ["a", "b", "c"], sp.csr_matrix([[1.0, 0, 2], [3, 0, 0], [1, 0, 0], [0, 5, 1]]), np.zeros(4, int)
        ),
        StudyExpression(["b", "d"], sp.csr_matrix([[1.0, 0], [9, 0]]), np.zeros(2, int)),
    ]
    # a .75 and c .5 of the first, b (.25 + 1) / 2 of both, d 0 of the second
    assert accessible_peaks(studies, 2) == ["a", "b"]
    assert accessible_peaks(studies, 3) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        accessible_peaks(studies, 0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"peaks": "best"}, ValueError, r"peaks must be one of \['accessible', 'variable'\]"),
        ({"values": {"protein": "tfidf"}}, ValueError, "'protein': 'tfidf'.* is unknown"),
        ({"batch_key": "lane"}, KeyError, "'lane' is a column neither"),
        ({"layers": {"rna": "counts"}}, KeyError, "no layer 'counts'"),
        ({"modalities": {"atac": "peaks"}}, KeyError, "no modality 'peaks'"),
    ],
)
def test_wrong_settings(cite, settings, error, message):
    with pytest.raises(error, match=message):
        join_modalities({"": cite}, **settings)


def test_a_cell_without_its_batch(cite):
    cite["rna"].obs["donor"] = cite["rna"].obs["donor"].where(np.arange(30) > 2)
    with pytest.raises(ValueError, match=r"3 of \d+ cells have no batch"):
        join_modalities({"": cite}, batch_key="donor")


def test_many_peaks_stay_sparse():
    """50,000 peaks of 2,000 cells would be 400 MB as a table of float32."""
    names = [f"c{i}" for i in range(2000)]
    peaks = ad.AnnData(
        sp.random(2000, 50_000, 0.01, "csr", np.float32, random_state=0).ceil(),
        obs=pd.DataFrame(index=names),
        var=pd.DataFrame(index=[f"p{i}" for i in range(50_000)]),
    )
    join = lambda cells: join_modalities({"": MuData({"atac": cells})}, n_top_peaks=50_000, values={"atac": "tfidf"})
    join(peaks[:10].copy())  # imports what it needs
    tracemalloc.start()
    joint = join(peaks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert joint["atac"].shape == (2000, 50_000)
    assert joint["atac"].X.nnz == 1_000_000
    assert peak < 2000 * 50_000 * 4 / 2


def test_proteins_may_be_dense():
    counts, batches = np.array([[1, 90], [2, 80], [70, 2]]), np.zeros(3, int)
    levels = above_background(counts, batches)
    assert levels.dtype == np.float32
    assert_allclose(levels.toarray(), above_background(sp.csr_matrix(counts), batches).toarray())


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_values_that_are_no_counts_of_proteins_are_refused(value):
    with pytest.raises(ValueError, match="Counts of proteins must be finite and at least 0"):
        above_background(np.array([[1, value], [2, 3]]), np.zeros(2, int))


def test_each_cell_has_one_batch():
    with pytest.raises(ValueError, match="There are 3 batches for 2 cells"):
        above_background(np.ones((2, 2)), np.zeros(3, int))
