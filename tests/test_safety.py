"""No file that is read executes code, whatever it holds, and none leads out of its folder."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
import zarr
from lightning.pytorch.demos.boring_classes import BoringModel

import scgpt
from scgpt.cli import main
from scgpt.corpus import Corpus, build
from scgpt.hub import read_checkpoint, write_checkpoint
from scgpt.index import ReferenceIndex
from scgpt.model import SCGPT, MultiSCGPT, SCGPTAnnotator, SCGPTPerturbation
from scgpt.pretraining import PretrainingConfig
from scgpt.train import latest_checkpoint
from scgpt.train._runner import _Trainer

SOURCE = Path(scgpt.__file__).parent


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mknod, (str(self.mark),)


@pytest.fixture
def payload(tmp_path) -> Iterator[Payload]:
    """What would betray itself if it were unpickled; that it was not is looked at after the test."""
    mark = tmp_path / "executed"
    yield Payload(mark)
    assert not mark.exists()


def objects(payload: Payload) -> np.ndarray:
    return np.array([payload, payload], dtype=object)


def test_the_payload_is_no_dud(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


# What the source may call


NEVER = {"eval", "exec", "read_pickle", "load_state_dict_from_url", "load_from_checkpoint", "full_load", "unsafe_load"}
# Bytes that a process of the same run has just pickled, on their way through dask.
PICKLES = {"tl/_embed_blocks.py"}


def unsafe_calls(path: Path) -> Iterator[str]:
    """Calls in a file that could execute what they read."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"imports {n}" for n in names if n.split(".")[0] in {"joblib", "dill", "marshal", "shelve"})
        if not isinstance(node, ast.Call):
            continue
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        whose = ast.unparse(owner).split(".")[-1] if owner is not None else ""
        given = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else ... for k in node.keywords}
        call = f"{whose}.{name}"
        if name in NEVER and call not in {"module.eval", "input_norm.eval", "norm.eval"}:
            yield call
        elif call in {"pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "yaml.load"}:
            if str(path.relative_to(SOURCE)) not in PICKLES:
                yield call
        elif call == "torch.load" or (name in {"fit", "validate"} and whose in {"trainer", "super()"}):
            if given.get("weights_only") is not True:
                yield f"{call} without weights_only=True"
        elif call == "np.load" and given.get("allow_pickle") is not False:
            yield f"{call} without allow_pickle=False"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_in_the_source_could_execute_what_it_reads(path):
    assert list(unsafe_calls(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader)",
        "pickle.load(file)",
        "import joblib",
        "pd.read_pickle(path)",
        "trainer.fit(plan, ckpt_path=path)",
        "super().fit(*args, **kwargs)",
        "eval(text)",
    ],
)
def test_such_calls_are_seen(line, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    (tmp_path / "a.py").write_text(line)
    assert len(list(unsafe_calls(tmp_path / "a.py"))) == 1


# Models


@pytest.fixture(scope="session")
def _model(_counts, tmp_path_factory) -> Path:
    data = _counts.copy()
    SCGPT.setup_anndata(data, batch_key="batch", labels_key="cell_type")
    model = SCGPT(data, d_model=8, n_layers=1, n_heads=2)
    model.is_trained_ = True
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


@pytest.fixture
def model(_model, tmp_path) -> Path:
    """Folder of a saved model, to do with as one likes."""
    return Path(shutil.copytree(_model, tmp_path / "model"))


@pytest.mark.parametrize("kind", [SCGPT, SCGPTAnnotator, SCGPTPerturbation, MultiSCGPT])
@pytest.mark.parametrize("read", ["load", "from_pretrained", "load_registry", "view_setup_args"])
def test_a_pickled_model_of_scvi_tools_is_not_read(kind, read, payload, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    torch.save({"model_state_dict": {}, "var_names": [], "attr_dict": {"registry_": payload}}, folder / "model.pt")
    with pytest.raises(FileNotFoundError, match=r"lacks .* model\.pt of scvi-tools could execute code when read"):
        getattr(kind, read)(folder)


@pytest.mark.parametrize("kind", [SCGPT, SCGPTAnnotator, SCGPTPerturbation, MultiSCGPT])
def test_saves_of_old_scvi_tools_are_not_converted(kind, payload, tmp_path):
    for name in ("model_params.pt", "attr.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(payload))
    with pytest.raises(NotImplementedError, match="never saved as a pickle"):
        kind.convert_legacy_save(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_pickle_beside_a_saved_model_is_left_alone(model, payload):
    torch.save(payload, model / "model.pt")
    (model / "attr.pkl").write_bytes(pickle.dumps(payload))
    assert len(SCGPT.load(model).vocab.genes) == 60
    assert SCGPT.from_pretrained(model).adata is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.json", "registry.json"])
@pytest.mark.parametrize("pack", [pickle.dumps, lambda x: pickle.dumps(x, 0)], ids=["binary", "text"])
def test_a_pickle_in_the_place_of_a_file_is_damage(model, name, pack, payload):
    (model / name).write_bytes(pack(payload))
    with pytest.raises(ValueError, match=name):
        SCGPT.load(model)


def test_what_is_written_over_a_link_leaves_its_target(model, tmp_path):
    (tmp_path / "theirs").write_bytes((model / "model.safetensors").read_bytes())
    before = (tmp_path / "theirs").read_bytes()
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to(tmp_path / "theirs")  # as the cache of Hugging Face has them
    checkpoint = read_checkpoint(model)
    checkpoint.state_dict["genes.embedding.weight"].add_(1)
    write_checkpoint(checkpoint, model, overwrite=True)
    assert (tmp_path / "theirs").read_bytes() == before
    assert not (model / "model.safetensors").is_symlink()


# States of training


def test_a_state_that_would_execute_code_is_passed_over(payload, counts, tmp_path, caplog):
    states = tmp_path / "states"
    states.mkdir()
    torch.save({"state_dict": {}, "scgpt_settings": payload}, states / "step=1.ckpt")
    assert latest_checkpoint(states) is None
    assert "step=1.ckpt holds more than tensors and plain values; as it could execute code, it is passed" in caplog.text
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, d_model=8, n_layers=1, n_heads=2)
    model.train(1, checkpoints=states, accelerator="cpu", enable_progress_bar=False)
    assert len(model.history["train_loss"]) == 1


def test_lightning_reads_a_state_without_executing_it(payload, tmp_path):
    torch.save({"state_dict": {}, "callbacks": payload}, tmp_path / "a.ckpt")
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "default_root_dir": tmp_path}
    trainer = _Trainer(max_epochs=1, devices=1, **options)
    with pytest.raises(pickle.UnpicklingError):
        trainer.fit(BoringModel(), ckpt_path=tmp_path / "a.ckpt")


def test_a_state_is_not_named_past_the_check_of_its_settings(counts, tmp_path):
    SCGPT.setup_anndata(counts)
    with pytest.raises(TypeError, match="pass checkpoints='folder'"):
        SCGPT(counts, d_model=8, n_layers=1, n_heads=2).train(1, ckpt_path=tmp_path / "a.ckpt")


# Settings


TAG = "!!python/object/apply:os.mknod ['{}']"


def test_tags_of_yaml_build_no_objects(payload, tmp_path):
    (tmp_path / "run.yaml").write_text(f"corpus: c.zarr\nout: {TAG.format(payload.mark)}\n")
    with pytest.raises(ValueError, match=r"run\.yaml is not valid YAML"):
        PretrainingConfig.from_yaml(tmp_path / "run.yaml")


def test_nor_do_they_on_the_command_line(payload, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("corpus: c.zarr\nout: run\n")
    assert main(["pretrain", "--config", str(tmp_path / "run.yaml"), "--set", f"lr={TAG.format(payload.mark)}"]) == 1
    assert "--set lr=" in capsys.readouterr().err


# Indexes


@pytest.fixture(params=[True, False], ids=["exact", "compressed"])
def index(request, tmp_path, rng) -> Path:
    cells = anndata.AnnData(np.zeros((40, 1), np.float32), obsm={"X_scGPT": rng.standard_normal((40, 8))})
    cells.obs["type"] = ["B", "T"] * 20
    ReferenceIndex.from_anndata(cells, labels=["type"], exact=request.param).save(tmp_path / "index")
    return tmp_path / "index"


def relisted(folder: Path, **changes: Any) -> None:
    """Make a manifest fit what is in the folder."""
    manifest = json.loads((folder / "index.json").read_text()) | changes
    for path in folder.glob("*.npy"):
        manifest["files"][path.name]["bytes"] = path.stat().st_size
    (folder / "index.json").write_text(json.dumps(manifest))


def test_arrays_of_objects_in_an_index_are_damage(index, payload):
    whole = {path: path.read_bytes() for path in index.glob("*.npy")}
    for path, content in whole.items():
        np.save(path, objects(payload), allow_pickle=True)
        relisted(index)
        with pytest.raises(ValueError, match=r"is damaged: .*(allow_pickle=False|Python objects)"):
            ReferenceIndex.load(index)
        path.write_bytes(content)
    assert len(whole) in (2, 4)


@pytest.mark.parametrize("where", ["../labels.npy", "{}/labels.npy", "sub/../../labels.npy", "config.npy"])
def test_labels_of_an_index_come_from_its_own_files(index, where, tmp_path):
    np.save(tmp_path / "labels.npy", np.zeros(40, np.int32))
    labels = [{"name": "type", "categories": ["secret"], "file": where.format(tmp_path)}]
    relisted(index, labels=labels)
    with pytest.raises(ValueError, match="is damaged: its manifest does not list"):
        ReferenceIndex.load(index)


# Corpora, and zarr in general


def evil_zarr(array: Path, payload: Payload, kind: str) -> None:
    """Put an array in the place of another whose chunks claim to be pickles."""
    if (array / "values").exists():  # strings that may be missing
        array = array / "values"
    there = zarr.open_array(array, mode="r")
    shape, attributes = there.shape, dict(there.attrs)
    shutil.rmtree(array)
    array.mkdir()
    pickled = {"name": "numcodecs.pickle", "configuration": {"id": "pickle"}}
    if kind == "version 3":
        node = {
            "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "float32", "fill_value": 0, "attributes": attributes,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
            "chunk_key_encoding": {"name": "default"},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, pickled],
        }  # fmt: skip
        (array / "zarr.json").write_text(json.dumps(node))
        chunk = array / "c" / "/".join("0" * len(shape))
    else:
        node = {"zarr_format": 2, "shape": shape, "chunks": shape, "order": "C", "filters": None, "compressor": None}
        node |= {
            "objects": {"dtype": "|O", "fill_value": None, "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
            "numbers": {"dtype": "<f4", "fill_value": 0, "compressor": {"id": "pickle"}},
        }[kind]
        (array / ".zarray").write_text(json.dumps(node))
        (array / ".zattrs").write_text(json.dumps(attributes))
        chunk = array / ".".join("0" * len(shape))
    chunk.parent.mkdir(parents=True, exist_ok=True)
    chunk.write_bytes(pickle.dumps(payload))


@pytest.mark.parametrize(
    ("zarr_format", "kind"), [(2, "objects"), (2, "numbers"), (3, "version 3")], ids=["objects", "numbers", "version 3"]
)
@pytest.mark.parametrize("place", ["X/data", "obs/_index", "var/_index"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_pickled_chunks_of_a_zarr_store_are_damage(counts, zarr_format, kind, place, payload, tmp_path):
    path = tmp_path / "a.zarr"
    with anndata.settings.override(zarr_write_format=zarr_format):
        counts.write_zarr(path)
    for metadata in (path / "zarr.json", path / ".zmetadata"):  # without what they say of the arrays
        if metadata.exists():
            content = json.loads(metadata.read_text())
            content.pop("consolidated_metadata", None)
            metadata.unlink() if metadata.name == ".zmetadata" else metadata.write_text(json.dumps(content))
    evil_zarr(path / place, payload, kind)
    with pytest.raises(ValueError, match=r"a\.zarr cannot be read, it is damaged"):
        build([path], tmp_path / "c.zarr", min_genes=1)


@pytest.mark.parametrize("name", ["a.h5ad", "a.h5mu"])
def test_a_pickle_that_is_called_a_file_of_cells_is_damage(name, payload, tmp_path):
    (tmp_path / name).write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match=f"{name} cannot be read, it is damaged"):
        build([tmp_path / name], tmp_path / "c.zarr")


@pytest.fixture
def corpus(counts, tmp_path) -> Corpus:
    counts.write_h5ad(tmp_path / "a.h5ad")
    return build([tmp_path / "a.h5ad"], tmp_path / "in" / "c.zarr", min_genes=1)


def test_an_array_of_objects_in_a_corpus_is_damage(corpus, payload):
    np.save(corpus.path / "measured.npy", objects(payload), allow_pickle=True)
    with pytest.raises(ValueError, match=r"c\.zarr is damaged: Object arrays cannot be loaded"):
        corpus.measured()


@pytest.mark.parametrize("name", ["../../other.zarr", "{}/other.zarr", "dataset_0/../../../other.zarr"])
def test_datasets_of_a_corpus_are_its_own(corpus, name, tmp_path):
    shutil.copytree(corpus.path / "dataset_0", tmp_path / "other.zarr")
    manifest = corpus.manifest | {"datasets": [{"name": name.format(tmp_path), "part": "train", "cells": 120}]}
    (corpus.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"is damaged: it has no dataset"):
        Corpus(corpus.path)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_pickled_chunks_of_a_stored_embedding_are_refused(model, counts, payload, tmp_path):
    pytest.importorskip("dask")
    store = tmp_path / "embedding.zarr"
    scgpt.tl.embed(counts, model, store=store, progress_bar=False)
    metadata = json.loads((store / "zarr.json").read_text())
    metadata["codecs"].append({"name": "numcodecs.pickle", "configuration": {"id": "pickle"}})
    (store / "zarr.json").write_text(json.dumps(metadata))
    (store / "c" / "0" / "0").write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match="damaged"):
        scgpt.tl.embed(counts, model, store=store, progress_bar=False)


# Tables


def test_a_mapping_of_genes_is_a_file_and_no_address(counts, model):
    with pytest.raises(FileNotFoundError, match=r"'http://127\.0\.0\.1:9/genes\.tsv' is not a file"):
        SCGPT.load(model).get_latent_representation(counts, gene_mapping="http://127.0.0.1:9/genes.tsv")
