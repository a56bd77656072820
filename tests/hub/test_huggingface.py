"""Models on the Hugging Face hub: against a server on this machine that answers as the hub does."""

from __future__ import annotations

import sys
from collections.abc import Callable

import anndata
import numpy as np
import pytest
import torch
from huggingface_hub import constants

from scgpt import tl
from scgpt.cli import main
from scgpt.hub import Checkpoint, ModelCard, is_repository, read, resolve, upload, write_checkpoint
from scgpt.model import SCGPT, SCGPTAnnotator

from ._stand_in import StandIn

OURS = {"model.safetensors", "config.json", "vocab.json", "registry.json"}


@pytest.fixture
def pushed(stand_in, make_checkpoint, tmp_path) -> Callable[..., Checkpoint]:
    """Put a small checkpoint on the hub."""

    def push(name: str = "user/name", seed: int = 0) -> Checkpoint:
        checkpoint = make_checkpoint(seed)
        write_checkpoint(checkpoint, tmp_path / "pushed", overwrite=True, card=ModelCard(license="mit"))
        files = {path.name: path.read_bytes() for path in (tmp_path / "pushed").iterdir()}
        stand_in.commit(name, files)
        return checkpoint

    return push


def same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    state, others = one.state_dict, other.state_dict
    return list(state) == list(others) and all(torch.equal(state[name], others[name]) for name in state)


def test_what_is_pushed_comes_back_bit_for_bit_and_offline_too(stand_in, make_checkpoint, tmp_path, monkeypatch):
    checkpoint = make_checkpoint()
    write_checkpoint(checkpoint, tmp_path / "model", card=ModelCard(license="mit"))
    address = upload(tmp_path / "model", "user/name", private=True, token=None, message="First")
    commit = stand_in.refs["user/name"]["main"]
    assert address == f"{stand_in.url}/user/name/commit/{commit}"
    assert set(stand_in.files("user/name")) == OURS | {"README.md", ".gitattributes"}
    assert stand_in.hidden == {"user/name"}

    back = read("user/name")
    assert same_weights(back, checkpoint)
    assert back.config == checkpoint.config and list(back.vocab) == list(checkpoint.vocab)
    assert back.report.source == back.report.name == f"user/name@{commit}"
    assert back.report.fine_tuned().fine_tuned().name == f"fine-tuned from user/name@{commit}"
    assert stand_in.downloaded() == OURS

    asked = len(stand_in.asked)
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        assert same_weights(read("user/name"), checkpoint)
    assert len(stand_in.asked) == asked
    stand_in.close()  # the network is down
    assert same_weights(read(back.report.source), checkpoint)
    assert same_weights(read("user/name"), checkpoint)


def test_a_revision_is_a_branch_a_tag_or_a_commit(stand_in, pushed):
    first = pushed()
    commit = stand_in.refs["user/name"]["main"]
    stand_in.refs["user/name"]["v1"] = commit
    second = pushed(seed=1)
    assert same_weights(read("user/name"), second)
    assert same_weights(read("user/name@v1"), first)
    assert same_weights(read(f"user/name@{commit}"), first)


def test_a_folder_of_that_name_comes_first(stand_in, pushed, make_checkpoint, tmp_path, monkeypatch):
    pushed()
    monkeypatch.chdir(tmp_path)
    write_checkpoint(make_checkpoint(seed=2), "user/name")
    assert same_weights(read("user/name"), make_checkpoint(seed=2))
    assert stand_in.asked == []


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("user/name", True),
        ("user/name@v1.0", True),
        ("u-1/n.a_m-e@refs/pr/1", True),
        ("name", False),
        ("a/b/c", False),
        ("./name", False),
        ("../name", False),
        ("user/..", False),
        ("/name", False),
        ("user/", False),
        ("C:\\name", False),
        ("user/name@", False),
        ("üser/name", False),
        (b"user/name", False),
    ],
)
def test_what_is_a_name_of_a_repository(name, is_one):
    assert is_repository(name) == is_one


# What is not there, or not ours


def fails(stand_in: StandIn, name: str = "user/name") -> str:
    """Return what is said when a model is asked for: one line of one error."""
    with pytest.raises((FileNotFoundError, PermissionError, OSError, ValueError)) as caught:
        resolve(name)
    (message,) = str(caught.value).splitlines()
    assert caught.type in (FileNotFoundError, PermissionError, OSError, ValueError)
    return f"{caught.type.__name__}: {message}"


def test_a_repository_that_is_not_there(stand_in, pushed):
    assert fails(stand_in).startswith("FileNotFoundError: There is no folder user/name, and no repository of this name")
    pushed()
    assert fails(stand_in, "user/name@v2").endswith("user/name on the Hugging Face hub has no revision 'v2'.")
    assert "cannot be a repository" in fails(stand_in, "user/a--b")


@pytest.mark.parametrize("known", [True, False])
def test_a_private_repository_needs_a_token(known, stand_in, pushed, monkeypatch):
    pushed()
    stand_in.hidden.add("user/name")
    if known:
        assert resolve("user/name").is_dir()
    else:
        monkeypatch.delenv("HF_TOKEN")
        assert "or it is private: then log in by `hf auth login`, or set HF_TOKEN." in fails(stand_in)


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (
            403,
            {"X-Error-Code": "GatedRepo"},
            "PermissionError: user/name on the Hugging Face hub is given to those who ask",
        ),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            "PermissionError: The Hugging Face hub does not know who asks for user/name: log in by `hf auth login`",
        ),
        (500, {}, "FileNotFoundError: There is no folder user/name. The Hugging Face hub cannot be asked for it (500)"),
    ],
)
def test_the_hub_declines(status, headers, message, stand_in, pushed):
    pushed()
    stand_in.fails["/api/models/"] = (status, headers)
    assert fails(stand_in).startswith(message)


def test_the_hub_is_out_of_reach(stand_in, pushed, monkeypatch):
    stand_in.close()
    assert "cannot be asked for it (ConnectError), and not all of it was downloaded before." in fails(stand_in)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "cannot be asked for it (OfflineModeIsEnabled)" in fails(stand_in)


def test_a_download_that_was_cut_off_is_no_model_offline(stand_in, pushed, monkeypatch):
    pushed()
    stand_in.fails["/user/name/resolve/" + stand_in.refs["user/name"]["main"] + "/model.safetensors"] = (404, {})
    assert "cannot be asked for it (404)" in fails(stand_in)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "not all of it was downloaded before" in fails(stand_in)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"model.pt": b"pickle", "_scvi_required_metadata.json": b"{}"},
            "lacks config.json, vocab.json: it holds no model",
        ),
        ({"config.json": b"{}", "model.safetensors": b"other"}, "lacks vocab.json: it holds no model"),
        ({"config.json": b"{}", "vocab.json": b"{}", "model.safetensors": b"other"}, "config.json of user/name on the"),
        ({"config.json": b"[", "vocab.json": b"{}", "model.safetensors": b"other"}, "config.json is not valid JSON"),
        ({"config.json": b'{"network": {}}', "vocab.json": b"{}"}, "lacks model.safetensors: it holds no model"),
    ],
)
def test_a_repository_of_something_else_is_refused_before_its_weights_are_fetched(files, message, stand_in):
    stand_in.commit("user/name", files)
    assert message in fails(stand_in)
    assert stand_in.downloaded() <= {"config.json", "vocab.json"}


def test_without_huggingface_hub_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"no folder user/name\. .*pip install 'scgpt-tools\[hub\]'"):
        resolve("user/name")
    with pytest.raises(ImportError, match=r"pip install 'scgpt-tools\[hub\]'"):
        upload(tmp_path, "user/name", private=None, token=None, message="")


@pytest.mark.parametrize("name", ["name", "a/b/c", "user/name@v1", "../name"])
def test_only_names_of_repositories_are_pushed_to(name, stand_in, tmp_path):
    with pytest.raises(ValueError, match="is called user/name, not"):
        upload(tmp_path, name, private=None, token=None, message="")
    assert stand_in.asked == []


def test_pushing_needs_a_token(stand_in, make_checkpoint, tmp_path, monkeypatch):
    write_checkpoint(make_checkpoint(), tmp_path / "model")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PermissionError, match="log in by `hf auth login`, or set HF_TOKEN"):
        upload(tmp_path / "model", "user/name", private=None, token=None, message="First")


def test_pushing_where_one_may_not_or_cannot(stand_in, make_checkpoint, tmp_path):
    write_checkpoint(make_checkpoint(), tmp_path / "model")
    stand_in.fails["/api/repos/create"] = (403, {"X-Error-Message": "You are not of this organisation"})
    with pytest.raises(PermissionError, match="does not let you do this with user/name: You are not of this organ"):
        upload(tmp_path / "model", "user/name", private=None, token=None, message="First")
    stand_in.close()
    with pytest.raises(OSError, match="user/name on the Hugging Face hub: ConnectError, "):
        upload(tmp_path / "model", "user/name", private=None, token=None, message="First")


# Models


@pytest.fixture
def annotator(counts) -> SCGPTAnnotator:
    SCGPTAnnotator.setup_anndata(counts, labels_key="cell_type")
    model = SCGPTAnnotator(counts, d_model=8, n_layers=1, n_heads=2)
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    return model


def test_an_annotator_is_pushed_and_everything_that_takes_a_model_takes_its_name(
    stand_in, annotator, counts, tmp_path, monkeypatch
):
    address = annotator.push_to_hub("user/types", card=ModelCard(license="mit", tissues=["blood"]))
    assert address.startswith(f"{stand_in.url}/user/types/commit/")
    card = stand_in.files("user/types")["README.md"].decode()
    assert {"- tissue:blood", "| epochs | 1 |", "Types: B, NK, T."} <= set(card.splitlines())
    assert not {"adata.h5ad"} & set(stand_in.files("user/types"))

    expected = annotator.predict(counts, soft=True)
    for back in (
        SCGPTAnnotator.from_pretrained("user/types"),
        SCGPTAnnotator.load("user/types"),
        SCGPTAnnotator.load("user/types", counts),
    ):
        np.testing.assert_array_equal(back.predict(counts, soft=True), expected)
    for call in (SCGPT.load, SCGPT.from_pretrained):
        with pytest.raises(ValueError, match="This was saved by SCGPTAnnotator, not SCGPT; load it with that class"):
            call("user/types")
    with pytest.raises(FileNotFoundError, match="There is no folder user/none, and no repository"):
        SCGPTAnnotator.load("user/none")
    assert SCGPTAnnotator.load_registry("user/types")["model_name"] == "SCGPTAnnotator"

    cells = anndata.AnnData(counts.X, obs=counts.obs[[]], var=counts.var[[]])
    cells.write_h5ad(tmp_path / "cells.h5ad")
    tl.annotate(cells, model="user/types", progress_bar=False)
    np.testing.assert_array_equal(cells.obsm["scgpt_probabilities"], expected)
    monkeypatch.chdir(tmp_path)
    assert main(["annotate", "cells.h5ad", "--model", "user/types", "--out", "named.h5ad"]) == 0
    np.testing.assert_array_equal(anndata.read_h5ad("named.h5ad").obsm["scgpt_probabilities"], expected)


def test_a_model_is_embedded_with_by_name(stand_in, counts):
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, d_model=8, n_layers=1, n_heads=2)
    model.push_to_hub("user/name")
    expected = tl.embed(counts, model, copy=True, progress_bar=False)
    made = tl.embed(counts, "user/name", copy=True, progress_bar=False)
    np.testing.assert_array_equal(made.obsm["X_scGPT"], expected.obsm["X_scGPT"])
    record = made.uns["scgpt"]["X_scGPT"]
    assert record["checkpoint"] == f"user/name@{stand_in.refs['user/name']['main']}"
    assert record["model_sha256"] == expected.uns["scgpt"]["X_scGPT"]["model_sha256"]
