"""What a version of this package writes to disk, and what it says when it is asked: kept for later versions to read.

``python tests/saved/make.py`` writes the folder of this version beside itself, from made-up data alone; it replaces none.
Every release adds its own, and ``tests/test_saved.py`` asks all of them what is asked here. A version folder is never made
anew: what it holds is what users have.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import dask.array
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from lightning.pytorch import Callback
from mudata import MuData

import scgpt
from scgpt.corpus import Corpus, build
from scgpt.data import GeneVocab, Tokenizer
from scgpt.hub import Checkpoint, LoadReport, read_checkpoint, write_checkpoint
from scgpt.index import Neighbors, ReferenceIndex
from scgpt.model import SCGPT, MultiSCGPT, SCGPTAnnotator, SCGPTPerturbation
from scgpt.nn import ScGPTConfig, ScGPTNetwork
from scgpt.pretraining import PretrainingConfig, pretrain
from scgpt.tl._provenance import fingerprint

TINY: dict[str, Any] = {"d_model": 8, "n_layers": 1, "n_heads": 2}
QUIET: dict[str, Any] = {"accelerator": "cpu", "seed": 0, "enable_progress_bar": False}
GENES = [*"ABCDEF", *(f"G{i}" for i in range(24))]
RUN = {
    "network": TINY | {"d_feed_forward": 8, "dropout": 0.1},
    "tokenizer": {"n_bins": 11},
    "objectives": {"gen": {"warmup_steps": 2}},
    "max_epochs": 2,
    "batch_size": 16,
    "lr": 1e-3,
    "warmup_steps": 2,
    "checkpoint_every": 3,
    "accelerator": "cpu",
    "devices": 1,
    "loggers": [],
}


# Made-up cells


def cells(folder: Path) -> anndata.AnnData:
    """Cells of three types in two batches."""
    data = json.loads((folder / "cells.json").read_text())
    return anndata.AnnData(
        sp.csr_matrix(np.array(data["counts"], np.float32)),
        obs=pd.DataFrame(data["obs"], index=data["names"]),
        var=pd.DataFrame(index=data["genes"]),
    )


def with_proteins(folder: Path) -> MuData:
    """The same cells, half of them with the first genes as proteins."""
    rna = cells(folder)
    protein = anndata.AnnData(rna.X[:20, :5] * 10, obs=rna.obs.iloc[:20, :0], var=pd.DataFrame(index=rna.var_names[:5]))
    return MuData({"rna": rna, "prot": protein})


def perturbed(folder: Path) -> anndata.AnnData:
    """The same cells with log-normalised values, in some of which genes are knocked out."""
    data = cells(folder)
    data.X = data.X.log1p()
    data.obs["perturbation"] = np.array(["control", "A", "B", "A+B"])[np.arange(data.n_obs) % 4]
    return data


def write_cells(folder: Path) -> None:
    """Draw them."""
    rng = np.random.default_rng(0)
    n_cells, types = 40, np.arange(40) % 3
    counts = rng.poisson(rng.gamma(0.6, 2.0, (3, len(GENES)))[types])
    obs = {"type": np.array(["B", "NK", "T"])[types].tolist(), "batch": rng.choice(["a", "b"], n_cells).tolist()}
    names = [f"cell{i}" for i in range(n_cells)]
    (folder / "cells.json").write_text(
        json.dumps({"genes": GENES, "names": names, "obs": obs, "counts": counts.tolist()})
    )


# What is saved


def save_models(folder: Path) -> None:
    """Save one model of each kind."""
    data = cells(folder)
    SCGPT.setup_anndata(data, batch_key="batch", labels_key="type", gene_conditions={"set": GENES[:4]})
    model = SCGPT(data, **TINY, input_norm="domain", zero=True, n_bins=11, max_length=20)
    model.train(2, **QUIET)
    model.save(folder / "scgpt")

    query = cells(folder)[:12].copy()
    query.obs["batch"] = "c"
    query_model = SCGPT.load_query_data(query, model, accelerator="cpu")
    query_model.train(1, **QUIET)
    query_model.save(folder / "query")

    adapted = cells(folder)
    SCGPT.setup_anndata(adapted, batch_key="batch")
    adapted_model = SCGPT.from_pretrained(folder / "checkpoint", adapted, fresh=["batches", "dar"], n_batches=2)
    adapted_model.train(1, lora=2, **QUIET)
    adapted_model.save(folder / "lora")

    data = cells(folder)
    data.obs.loc[data.obs_names[::5], "type"] = "Unknown"
    SCGPTAnnotator.setup_anndata(data, labels_key="type")
    annotator = SCGPTAnnotator(data, **TINY)
    annotator.train(8, lr=1e-2, **QUIET)
    annotator.save(folder / "annotator")

    data = perturbed(folder)
    SCGPTPerturbation.setup_anndata(data, "perturbation")
    perturbation = SCGPTPerturbation(data, **TINY)
    perturbation.train(2, batch_size=16, plan_kwargs={"warmup_steps": 0}, **QUIET)
    perturbation.save(folder / "perturbation")

    mdata = with_proteins(folder)
    MultiSCGPT.setup_mudata(mdata, batch_key="batch")
    multi = MultiSCGPT(mdata, **TINY, zero=True)
    multi.train(1, batch_size=16, **QUIET)
    multi.save(folder / "multi")


def save_checkpoint(folder: Path) -> None:
    """Write a network that has every part which a checkpoint can have."""
    vocab = GeneVocab.from_genes(GENES)
    parts = {"gepc": True, "zero": True, "n_classes": 3, "n_batches": 2, "batch_embedding": True, "adversary": True}
    config = ScGPTConfig(n_tokens=len(vocab), d_feed_forward=8, n_values=13, n_flags=2, **parts, **TINY)
    torch.manual_seed(0)
    weights = ScGPTNetwork(config).state_dict()
    report = LoadReport(source="made-up", sha256="", loaded=())
    checkpoint = Checkpoint(config, weights, Tokenizer(vocab, n_bins=11, max_length=20), report, extras={"answer": 42})
    write_checkpoint(checkpoint, folder / "checkpoint")


def save_indexes(folder: Path) -> None:
    """Write one exact and one compressed index."""
    data = cells(folder)
    data.obsm["X_scGPT"] = data.X.toarray() + 0.1
    for name, exact in (("index", True), ("index_compressed", False)):
        ReferenceIndex.from_anndata(data, labels=["type"], exact=exact).save(folder / name)


def save_corpus_and_run(folder: Path) -> None:
    """Build a corpus, and cut off a run of pretraining on it in the middle."""
    with tempfile.TemporaryDirectory() as place:
        data = cells(folder)
        paths = [Path(place) / "train.h5ad", Path(place) / "held_out.h5ad"]
        for path, rows in zip(paths, (slice(0, 32), slice(32, 40)), strict=True):
            data[rows].write_h5ad(path)
        build(paths[:1], folder / "corpus.zarr", held_out=paths[1:], min_genes=1)

    class CutOff(Callback):
        def on_train_batch_start(self, trainer, *args):
            if trainer.global_step == 3:
                raise InterruptedError

    try:
        pretrain(run_settings(folder, folder / "run"), callbacks=[CutOff()], progress_bar=False)
    except InterruptedError:
        pass
    # These name folders of this machine.
    (folder / "run" / "config.yaml").unlink()
    (state,) = (folder / "run" / "states").iterdir()
    torch.save(_moved(torch.load(state, weights_only=True), str(folder.resolve())), state)


def _moved(value: Any, place: str) -> Any:
    """Return a value with the names of files in it as if they had stood elsewhere."""
    if isinstance(value, dict):
        return type(value)((key, _moved(one, place)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return type(value)(_moved(one, place) for one in value)
    return value.replace(place, "/elsewhere") if isinstance(value, str) else value


def run_settings(folder: Path, out: Path) -> PretrainingConfig:
    """Return the settings of the run that is saved, written to ``out``."""
    return PretrainingConfig.from_dict(RUN | {"corpus": str(folder / "corpus.zarr"), "out": str(out)})


def save_store(folder: Path) -> None:
    """Write an embedding."""
    scgpt.tl.embed(cells(folder), folder / "checkpoint", store=folder / "embedding.zarr", precision="float32")


# What is asked


def _latent(kind: Any, read: str, name: str, data: Callable[[Path], Any] = cells) -> Callable[[Path, Path], Any]:
    return lambda folder, _: getattr(kind, read)(folder / name, accelerator="cpu").get_latent_representation(
        data(folder)
    )


def _neighbors(folder: Path, name: str, k: int) -> tuple[ReferenceIndex, Neighbors]:
    index = ReferenceIndex.load(folder / name, verify=True)
    return index, index.query(cells(folder).X.toarray() + 1, k=k)


def _query(folder: Path, _: Path) -> np.ndarray:
    data = cells(folder)
    data.obs["batch"] = np.where(np.arange(data.n_obs) < 12, "c", data.obs["batch"])
    return SCGPT.load(folder / "query", data, accelerator="cpu").get_latent_representation()


def _labels(folder: Path, _: Path) -> list[str]:
    return SCGPTAnnotator.load(folder / "annotator", accelerator="cpu").predict(cells(folder)).tolist()


def _probabilities(folder: Path, _: Path) -> np.ndarray:
    return SCGPTAnnotator.load(folder / "annotator", accelerator="cpu").predict(cells(folder), soft=True).to_numpy()


def _responses(folder: Path, _: Path) -> np.ndarray:
    model = SCGPTPerturbation.load(folder / "perturbation", accelerator="cpu")
    return model.predict(["A", "A+B", "C"], perturbed(folder), precision="float32").to_numpy()


def _neighbors_and_votes(folder: Path, _: Path) -> dict[str, Any]:
    index, found = _neighbors(folder, "index", 3)
    return {"rows": found.rows.tolist(), "labels": index.vote(found, "type").labels.tolist()}


def _fingerprint(folder: Path, _: Path) -> str:
    return fingerprint(SCGPT.from_pretrained(folder / "checkpoint"))


def _checkpoint(folder: Path, _: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(folder / "checkpoint")
    return {"heads": list(checkpoint.config.heads), "extras": checkpoint.extras, "genes": list(checkpoint.vocab.genes)}


def _corpus(folder: Path, _: Path) -> np.ndarray:
    corpus = Corpus(folder / "corpus.zarr")
    rows = sp.vstack([m[:] for part in ("train", "held_out") for m in corpus.matrices(part)])
    return rows.toarray().astype(np.float32)


def _corpus_cells(folder: Path, _: Path) -> dict[str, Any]:
    corpus = Corpus(folder / "corpus.zarr")
    return {"files": corpus.files, "cells": corpus.obs()["cell"].tolist(), "measured": corpus.measured().tolist()}


def _resumed(folder: Path, place: Path) -> np.ndarray:
    run = Path(shutil.copytree(folder / "run", place / "run"))
    (state,) = (run / "states").iterdir()
    if state.name != "step=3.ckpt":
        raise RuntimeError(f"The run is at {state.name}.")
    model = pretrain(run_settings(folder, run), progress_bar=False)
    log = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    if log[0] != 4:
        raise RuntimeError(f"The run did not go on, it began anew: {log}.")
    return SCGPT.from_pretrained(model).get_latent_representation(cells(folder))


def _store(folder: Path, place: Path) -> np.ndarray:
    path = Path(shutil.copytree(folder / "embedding.zarr", place / "embedding.zarr"))
    shards = {shard: shard.stat().st_mtime_ns for shard in path.glob("c/*/0")}
    data = cells(folder)
    scgpt.tl.embed(data, folder / "checkpoint", store=path, precision="float32", progress_bar=False)
    if not shards or any(shard.stat().st_mtime_ns != written for shard, written in shards.items()):
        raise RuntimeError("The embedding was computed anew.")
    assert isinstance(data.obsm["X_scGPT"], dask.array.Array)
    return data.obsm["X_scGPT"].compute()


QUESTIONS: dict[str, Callable[[Path, Path], Any]] = {
    "checkpoint": _latent(SCGPT, "from_pretrained", "checkpoint"),
    "checkpoint_parts": _checkpoint,
    "fingerprint": _fingerprint,
    "scgpt": _latent(SCGPT, "load", "scgpt"),
    "query": _query,
    "lora": _latent(SCGPT, "load", "lora"),
    "annotator_labels": _labels,
    "annotator_probabilities": _probabilities,
    "perturbation": _responses,
    "multi": _latent(MultiSCGPT, "load", "multi", with_proteins),
    "index": lambda folder, _: _neighbors(folder, "index", 3)[1].similarities,
    "index_compressed": lambda folder, _: _neighbors(folder, "index_compressed", 3)[1].similarities,
    "index_neighbors": _neighbors_and_votes,
    "corpus": _corpus,
    "corpus_cells": _corpus_cells,
    "run": _resumed,
    "store": _store,
}
"""By name: from the folder of a version, and a place to write to, to an array, or to what JSON can hold."""


def main(beside: Path) -> Path:
    """Write the folder of this version."""
    folder = beside / version("scgpt-tools")
    folder.mkdir()
    write_cells(folder)
    for save in (save_checkpoint, save_models, save_indexes, save_corpus_and_run, save_store):
        save(folder)
    (folder / "answers").mkdir()
    for name, ask in QUESTIONS.items():
        with tempfile.TemporaryDirectory() as place:
            answer = ask(folder, Path(place))
        if isinstance(answer, np.ndarray):
            np.save(folder / "answers" / f"{name}.npy", answer, allow_pickle=False)
        else:
            (folder / "answers" / f"{name}.json").write_text(json.dumps(answer))
    return folder


if __name__ == "__main__":
    print(main(Path(__file__).parent))
