import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from scgpt.metrics import baselines, network_scores
from scgpt.metrics._bootstrap import with_intervals
from scgpt.metrics._network_ranking import auroc, average_precision, early_precision

REGULATORS = [f"TF{i}" for i in range(8)]
GENES = [*REGULATORS, *(f"G{i:02}" for i in range(40))]


def matrix(values, regulators=REGULATORS, targets=GENES) -> pd.DataFrame:
    return pd.DataFrame(values, regulators, targets)


def as_table(network: pd.DataFrame) -> pd.DataFrame:
    stacked = network.rename_axis(index="regulator", columns="target").stack()
    return stacked.dropna().rename("score").reset_index()


@pytest.fixture
def known(rng) -> pd.DataFrame:
    links = matrix(rng.random((8, 48)) < 0.15)
    return as_table(links.astype(float)).query("score > 0 and regulator != target").drop(columns="score")


@pytest.fixture
def network(rng, known) -> pd.DataFrame:
    """Scores that know something of the links, many of them equal."""
    out = matrix(rng.random((8, 48)))
    for one, other in known.to_numpy():
        out.loc[one, other] += 0.3
    return out.round(1)


def flat(network, known):
    """Scores and whether they are links, of all edges but those of a gene to itself."""
    pairs = set(map(tuple, known[["regulator", "target"]].to_numpy()))
    edges = [(one, other) for one in network.index for other in network.columns if one != other]
    return np.array([network.loc[edge] for edge in edges]), np.array([edge in pairs for edge in edges])


# Numbers


def test_scores_are_those_of_scikit_learn(network, known):
    table = network_scores(network, known, n_bootstrap=0)
    scores, links = flat(network, known)
    row = table.loc["network"]
    assert row["AUPRC"] == pytest.approx(average_precision_score(links, scores))
    assert row["AUROC"] == pytest.approx(roc_auc_score(links, scores))
    assert row["AUPRC_ratio"] == pytest.approx(row["AUPRC"] / links.mean())
    assert row["EPR"] == pytest.approx(row["early_precision"] / links.mean())
    assert (row["n_links"], row["n_edges"]) == (len(known), 8 * 47)
    assert list(table) == ["AUPRC", "AUPRC_ratio", "EPR", "early_precision", "AUROC", "n_links", "n_edges"]
    assert table.index.name == "network"


def test_early_precision_by_hand():
    # Three links among ten edges: the first two edges are clear, the third is one of four, two of them links.
    network = pd.DataFrame([[9, 8, 5, 5, 5, 5, 1, 0, 0, 0]], ["R"], [*"abcdefghij"])
    known = [("R", "b"), ("R", "c"), ("R", "f")]
    row = network_scores(network, known, n_bootstrap=0).loc["network"]
    assert row["early_precision"] == pytest.approx((1 + 2 / 4) / 3)
    assert row["EPR"] == pytest.approx((1 + 2 / 4) / 3 / 0.3)
    # Levels end after 1, 2 and 6 edges, and have 0, 1 and 3 links by then.
    assert row["AUPRC"] == pytest.approx((1 * 1 / 2 + 2 * 3 / 6) / 3)
    # Of the seven others one is above b; two are level with c and f, as many as four below.
    assert row["AUROC"] == pytest.approx((6 + 2 * (4 + 2 / 2)) / 21)


def test_the_right_order_is_perfect_and_its_reverse_is_as_bad_as_can_be(known):
    links = matrix(0.0)
    for edge in known.to_numpy():
        links.loc[tuple(edge)] = 1
    table = network_scores({"right": links, "wrong": -links, "constant": links * 0}, known, n_bootstrap=0)
    share = len(known) / (8 * 47)
    np.testing.assert_allclose(table["AUROC"], [1, 0, 0.5])
    np.testing.assert_allclose(table["early_precision"], [1, 0, share])
    np.testing.assert_allclose(table["AUPRC"], [1, share, share])
    np.testing.assert_allclose(table["EPR"], [1 / share, 0, 1])


def test_a_random_network_is_near_one(rng):
    genes = [f"G{i}" for i in range(400)]
    known = [(genes[i], genes[j]) for i, j in rng.integers([30, 400], size=(900, 2)) if i != j]
    networks = {str(seed): baselines.random_network(genes, seed=seed) for seed in range(4)}
    table = network_scores(networks, known, n_bootstrap=0)
    np.testing.assert_allclose(table[["AUPRC_ratio", "EPR"]].mean(), 1, atol=0.1)
    np.testing.assert_allclose(table["AUROC"], 0.5, atol=0.05)


def test_what_has_no_score_is_last(network, known):
    known_alone = network.mask(network < 0.6)
    low = known_alone.fillna(-1)
    table = network_scores(
        {"nan": known_alone, "low": low, "infinite": known_alone.fillna(-np.inf)}, known, n_bootstrap=20
    )
    pd.testing.assert_series_equal(table.loc["nan"], table.loc["low"], check_names=False)
    pd.testing.assert_series_equal(table.loc["infinite"], table.loc["low"], check_names=False)


def test_functions_of_levels():
    edges, links = np.array([2, 3, 5]), np.array([1, 0, 2])
    assert average_precision(edges, links) == pytest.approx((1 / 2 + 2 * 3 / 10) / 3)
    assert early_precision(edges, links) == pytest.approx(1 / 3)
    assert auroc(edges, links) == pytest.approx((6 + 1 / 2 + 2 * 3 / 2) / (3 * 7))
    assert np.isnan(average_precision(edges, links * 0))
    # A level that is not drawn has no part, even the first.
    assert average_precision(np.array([0, 3, 5]), np.array([0, 0, 2])) == pytest.approx(2 / 8)


# Forms of networks and links


def test_a_table_of_edges_is_the_same_network(network, known, rng):
    known_alone = network.mask(network < 0.6)
    table = as_table(known_alone).sample(frac=1, random_state=0)
    table["regulator"] = table["regulator"].astype("category")
    scores = network_scores({"matrix": known_alone, "table": table}, known, n_bootstrap=20)
    pd.testing.assert_series_equal(scores.loc["matrix"], scores.loc["table"], check_names=False)
    shuffled = network.iloc[rng.permutation(8), rng.permutation(48)]
    one, other = (network_scores(n, known, n_bootstrap=20) for n in (network, shuffled))
    pd.testing.assert_frame_equal(one, other)


def test_integers_missing_values_and_float32_are_scores(network, known):
    networks = {
        "float": network,
        "float32": network.astype(np.float32),
        "integer": (network * 10).round().astype(int),
        "nullable": network.astype("Float64"),
    }
    table = network_scores(networks, known, n_bootstrap=0)
    np.testing.assert_allclose(table, np.tile(table.iloc[:1], (4, 1)))


def test_links_are_read_from_pairs_and_tables_with_more_columns(network, known):
    expected = network_scores(network, known, n_bootstrap=0)
    pairs = [tuple(pair) for pair in known.to_numpy()]
    more = pd.concat([known.assign(mode="Activation"), known.assign(mode="Repression")])
    itself = [*pairs, ("TF0", "TF0"), ("elsewhere", "G00"), ("TF0", "nowhere")]
    for same in (pairs, iter(pairs), more, itself):
        pd.testing.assert_frame_equal(network_scores(network, same, n_bootstrap=0), expected)


def test_names_may_be_numbers():
    network = pd.DataFrame([[1.0, 2, 3]], [10], [20, 30, 40])
    row = network_scores(network, pd.DataFrame({"regulator": [10], "target": ["40"]}), n_bootstrap=0).loc["network"]
    assert (row["AUPRC"], row["n_edges"]) == (1, 3)


# The edges that are compared


def test_all_networks_are_scored_on_what_they_have_in_common(network, known):
    part = network.iloc[1:, :30]
    table = network_scores({"all": network, "part": part}, known, n_bootstrap=10)
    pd.testing.assert_series_equal(table.loc["all"], table.loc["part"], check_names=False)
    alone = network_scores(part, known, n_bootstrap=10)
    pd.testing.assert_series_equal(table.loc["part"], alone.loc["network"], check_names=False)
    # Seven regulators, all of them targets, too.
    assert table["n_edges"].tolist() == [7 * 29, 7 * 29]


def test_regulators_without_a_known_link_are_left_out_unless_given(network, known):
    some = known[known["regulator"].isin(["TF1", "TF2"])]
    assert network_scores(network, some, n_bootstrap=0)["n_edges"].item() == 2 * 47
    given = network_scores(network, some, regulators=["TF1", "TF2", "TF5", "not there"], n_bootstrap=0)
    assert given["n_edges"].item() == 3 * 47
    assert given["n_links"].item() == len(some)


def test_targets_may_be_given(network, known):
    beeline = {*known["regulator"], *known["target"]}
    table = network_scores(network, known, targets=[*beeline, "not there"], n_bootstrap=0)
    expected = network_scores(network.loc[:, sorted(beeline & set(GENES))], known, n_bootstrap=0)
    pd.testing.assert_frame_equal(table, expected)


def test_a_table_of_edges_does_not_limit_those_given(network, known):
    table = as_table(network.iloc[:3, :10])
    assert network_scores(table, known, n_bootstrap=0)["n_edges"].item() == 3 * 9
    wide = network_scores(
        {"table": table, "matrix": network.iloc[:3, :10].reindex(index=REGULATORS, columns=GENES)},
        known,
        regulators=REGULATORS,
        targets=GENES,
        n_bootstrap=0,
    )
    assert wide["n_edges"].tolist() == [8 * 47] * 2
    pd.testing.assert_series_equal(wide.loc["table"], wide.loc["matrix"], check_names=False)


# Intervals


def test_intervals_are_those_of_edges_repeated_with_their_regulator(network, known):
    table = network_scores(network, known, n_bootstrap=40, seed=3)
    scores, links = flat(network, known)
    whose = np.repeat(np.arange(8), 47)

    def repeated(weights):
        times = weights[whose]
        share = np.average(links, weights=times)
        return {"ratio": average_precision_score(links, scores, sample_weight=times) / share}

    expected = with_intervals(repeated(np.ones(8)), repeated, 8, 40, 3, {"ratio"})
    row = table.loc["network"]
    assert list(table)[:4] == ["AUPRC", "AUPRC_ratio", "AUPRC_ratio_low", "AUPRC_ratio_high"]
    np.testing.assert_allclose(row.iloc[1:4].astype(float), list(expected.values()))
    assert row["AUPRC_ratio_low"] < row["AUPRC_ratio"] < row["AUPRC_ratio_high"]
    other = network_scores(network, known, n_bootstrap=40, seed=4).loc["network"]
    assert other["AUPRC_ratio"] == row["AUPRC_ratio"]
    assert other["AUPRC_ratio_low"] != row["AUPRC_ratio_low"]


def test_draws_without_links_are_left_out(network):
    known = [("TF0", "G01"), ("TF0", "G02")]
    row = network_scores(network, known, regulators=REGULATORS, n_bootstrap=30).loc["network"]
    assert np.isfinite(row.astype(float)).all()


# What is wrong


NETWORK = pd.DataFrame(np.arange(6.0).reshape(2, 3), ["SOX2", "GATA1"], ["A1", "B1", "C1"])
EDGES = pd.DataFrame({"regulator": ["SOX2", "SOX2"], "target": ["A1", "B1"], "score": [1.0, 2.0]})
KNOWN = [("SOX2", "A1")]


@pytest.mark.parametrize(
    ("networks", "known", "message"),
    [
        ({}, KNOWN, "There is no network to score"),
        (NETWORK, [], "known holds no link between two genes"),
        (NETWORK, [("SOX2", "SOX2")], "known holds no link between two genes"),
        (NETWORK, ["SOX2"], "known has to be a table, or pairs of a regulator and a target"),
        (NETWORK, [("SOX2", "A1", 1)], "known has to be a table, or pairs"),
        (NETWORK, [("SOX2", "A1"), ("SOX2", None)], "1 of 2 known links lack a name; leave them out"),
        (
            NETWORK,
            [("Sox2", "A1"), ("Sox2", "b1"), ("Z", "C1")],
            r"have 0 of 2 regulators and 2 of 3 targets of known links\. In upper case there would be 1 and 3: .*"
            r"known\['target'\]\.str\.upper\(\)",
        ),
        (NETWORK, [("SOX2", "Z"), ("Z", "A1")], r"have 1 of 2 regulators and 1 of 2 targets of known links\.$"),
        (
            NETWORK,
            [(a, b) for a in NETWORK.index for b in NETWORK],
            "All 6 possible edges are known links, .* more tar",
        ),
        ({"x": NETWORK, "y": NETWORK.rename(str.lower)}, KNOWN, "There is no regulator that all networks have: write"),
        ({"x": NETWORK, "y": NETWORK.add_suffix("-")}, KNOWN, "There is no target that all networks have: write"),
        (pd.concat([NETWORK, NETWORK[:1]]), KNOWN, r"\.index of network 'network' has names twice: SOX2\. Leave one"),
        ({"x": NETWORK[["A1", "B1", "B1"]]}, KNOWN, r"\.columns of network 'x' has names twice: B1\. Leave one"),
        (
            pd.concat([EDGES, EDGES[1:]]),
            KNOWN,
            "Network 'network' has edges twice: SOX2 -> B1. Leave one score of each",
        ),
        (EDGES.assign(target=["A1", None]), KNOWN, "1 of 2 edges of network 'network' lack a name; leave them out"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(networks, known, message):
    with pytest.raises(ValueError, match=message):
        network_scores(networks, known)


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        (NETWORK.to_numpy(), "networks has to be a DataFrame, or several by name, and is a ndarray"),
        ({"x": NETWORK.to_numpy()}, "Network 'x' has to be a DataFrame, and is a ndarray: a network is a matrix of"),
        ({"x": NETWORK.assign(A1="high", C1="low")}, "Network 'x' does not hold numbers in A1, C1: a network is a mat"),
        (EDGES.assign(score=["1", "2"]), "Column score of network 'network' is (str|object): make it numbers"),
    ],
)
def test_what_is_no_network_is_a_type_error(networks, message):
    with pytest.raises(TypeError, match=message):
        network_scores(networks, KNOWN)


def test_columns_that_are_not_there_are_a_key_error():
    found = EDGES.rename(columns={"regulator": "TF", "score": "importance"})
    with pytest.raises(
        KeyError, match="Network 'x' has no column regulator, score; it has TF, target, importance. Ren"
    ):
        network_scores({"x": found}, KNOWN)
    with pytest.raises(KeyError, match="known has no column regulator; it has TF, target, importance. Rename those"):
        network_scores(NETWORK, found)


def test_wrong_settings_are_an_error():
    with pytest.raises(ValueError, match="n_bootstrap has to be 0 or more, and is -1"):
        network_scores(NETWORK, KNOWN, n_bootstrap=-1)
    with pytest.raises(ValueError, match="No given target is in all matrices: write the names of genes alike"):
        network_scores(NETWORK, KNOWN, targets=["a1"])
    with pytest.raises(TypeError, match="regulators has to be several names, and is 'SOX2': put it into a list"):
        network_scores(NETWORK, KNOWN, regulators="SOX2")
