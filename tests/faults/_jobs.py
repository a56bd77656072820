"""Long jobs on tiny data, as their users write them: the same call again goes on or begins anew."""

import hashlib
import json
import sys
from pathlib import Path

import anndata
import dask.array
import numpy as np
import scipy.sparse as sp
import torch

import scgpt
from scgpt import cli, corpus, pretraining, tl
from scgpt.model import SCGPT
from scgpt.tl import _embedding_store

torch.set_num_threads(1)
corpus.build.__kwdefaults__["cells_per_dataset"] = 45  # for which the command line has no option

GENES = [f"G{i}" for i in range(40)]
NETWORK = {"d_model": 8, "n_layers": 1, "n_heads": 2}


def cells(n: int = 96, seed: int = 0) -> anndata.AnnData:
    rng = np.random.default_rng(seed)
    adata = anndata.AnnData(sp.csr_matrix(rng.poisson(rng.gamma(0.6, 2, (n, len(GENES)))).astype(np.float32)))
    adata.obs_names, adata.var_names = [f"cell{seed}_{i}" for i in range(n)], GENES
    adata.obs["type"] = np.where(np.arange(n) % 2, "B", "T")
    adata.obsm["X_scGPT"] = rng.normal(size=(n, 8)).astype(np.float32)
    return adata


def new_model(seed: int = 0) -> SCGPT:
    adata = cells()
    SCGPT.setup_anndata(adata)
    return SCGPT(adata, **NETWORK, seed=seed)


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def digest_of(folder: Path) -> str:
    """Names and bytes of all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest(*(part for path in files for part in (str(path.relative_to(folder)).encode(), path.read_bytes())))


def weights_of(model: SCGPT) -> str:
    state = model.module.network.state_dict()
    return digest(*(tensor.numpy().tobytes() for tensor in state.values()))


class Train:
    """Training with states, then the model saved."""

    def start(self, work: Path) -> None:
        work.mkdir()

    def run(self, work: Path) -> str:
        model = new_model()
        model.train(
            2,
            batch_size=16,
            checkpoints=work / "states",
            checkpoint_every=2,
            seed=5,
            ties="spread",
            enable_progress_bar=False,
            plan_kwargs={"schedule": "cosine", "warmup_steps": 3},
        )
        model.save(work / "model", overwrite=True)
        return model.history["train_loss"].to_csv()

    def read(self, work: Path) -> str:
        return weights_of(SCGPT.load(work / "model", cells()))


class Pretrain:
    """Pretraining on a corpus that is there."""

    def start(self, work: Path) -> None:
        files = []
        for seed, name in enumerate(("a.h5ad", "b.h5ad")):
            files.append(work / name)
            work.mkdir(exist_ok=True)
            cells(96 if seed == 0 else 24, seed).write_h5ad(files[-1])
        corpus.build(files[:1], work / "corpus.zarr", held_out=files[1:], min_genes=1)

    def settings(self, work: Path) -> pretraining.PretrainingConfig:
        settings = {
            "corpus": str(work / "corpus.zarr"),
            "out": str(work / "run"),
            "network": NETWORK,
            "max_epochs": 2,
            "batch_size": 16,
            "warmup_steps": 4,
            "batches_per_read": 2,
            "checkpoint_every": 2,
            "validate_every": 5,
            "log_every": 1,
            "loggers": [],
            "accelerator": "cpu",
            "devices": 1,
        }
        return pretraining.PretrainingConfig.from_dict(settings)

    def run(self, work: Path) -> list:
        pretraining.pretrain(self.settings(work), progress_bar=False)
        names = ("step", "epoch", "train_loss", "validation_loss")
        lines = map(json.loads, (work / "run" / "log.jsonl").read_text().splitlines())
        return [[line.get(name) for name in names] for line in lines]

    def read(self, work: Path) -> str:
        return weights_of(SCGPT.from_pretrained(work / "run" / "model"))

    def command(self, work: Path) -> int:
        (work / "settings.yaml").write_text(self.settings(work).to_yaml())
        return cli.main(["pretrain", "--config", str(work / "settings.yaml")])


class Build:
    """A corpus that takes the place of an older one."""

    def start(self, work: Path) -> None:
        work.mkdir()
        for seed, name in enumerate("abc"):
            cells(40, seed).write_h5ad(work / f"{name}.h5ad")
        corpus.build([work / "a.h5ad"], work / "corpus.zarr", min_genes=1)

    def run(self, work: Path) -> None:
        files = [work / f"{name}.h5ad" for name in "abc"]
        corpus.build(files, work / "corpus.zarr", min_genes=1, overwrite=True)

    def read(self, work: Path) -> str:
        whole = corpus.Corpus(work / "corpus.zarr")
        return digest(digest_of(whole.path).encode(), b"".join(matrix[:].data.tobytes() for matrix in whole.matrices()))

    def command(self, work: Path) -> int:
        files = [str(work / f"{name}.h5ad") for name in "abc"]
        return cli.main(["corpus", "build", *files, "--out", str(work / "corpus.zarr"), "--min-genes=1", "--overwrite"])


class Embed:
    """Embedding into a store."""

    def start(self, work: Path) -> None:
        work.mkdir()
        new_model().save(work / "model")

    def run(self, work: Path) -> None:
        _embedding_store.SHARD_ROWS = 8
        tl.embed(cells(), work / "model", store=work / "embedding.zarr", progress_bar=False)

    def read(self, work: Path) -> list[str | None]:
        rows = dask.array.from_zarr(str(work / "embedding.zarr")).compute(scheduler="synchronous")
        return [None if np.isnan(row).all() else digest(row.tobytes()) for row in rows]


class EmbedFile:
    """``scgpt embed --out`` over a file that is there."""

    def start(self, work: Path) -> None:
        work.mkdir()
        new_model().save(work / "model")
        cells().write_h5ad(work / "cells.h5ad")
        cells(seed=1).write_h5ad(work / "out.h5ad")

    def arguments(self, work: Path) -> list[str]:
        return ["embed", str(work / "cells.h5ad"), "--model", str(work / "model"), "--out", str(work / "out.h5ad")]

    def run(self, work: Path) -> None:
        arguments = cli.parser().parse_args(self.arguments(work))
        arguments.run(arguments)  # whose errors the command line would show in one line

    def command(self, work: Path) -> int:
        return cli.main(self.arguments(work))

    def read(self, work: Path) -> str:
        adata = anndata.read_h5ad(work / "out.h5ad")
        return digest(adata.X.data.tobytes(), adata.obsm["X_scGPT"].tobytes())


class AnnotateFile(EmbedFile):
    """``scgpt annotate --out`` over a file that is there."""

    def arguments(self, work: Path) -> list[str]:
        known = ["--labels", "type", "--model", str(work / "model"), "--max-epochs=1"]
        return ["annotate", str(work / "cells.h5ad"), *known, "--out", str(work / "out.h5ad")]

    def read(self, work: Path) -> str:
        adata = anndata.read_h5ad(work / "out.h5ad")
        confidence = adata.obs.get("scgpt_confidence", np.zeros(0))
        return digest(adata.X.data.tobytes(), np.asarray(confidence).tobytes())


class Index:
    """An index that is built, grows, and takes the place of an older one."""

    exact = False

    def start(self, work: Path) -> None:
        work.mkdir()
        scgpt.ReferenceIndex.from_anndata(cells(30, seed=3), labels=["type"], exact=self.exact).save(work / "index")
        for seed in range(2):
            cells(200, seed).write_h5ad(work / f"{seed}.h5ad")

    def run(self, work: Path) -> None:
        files = [work / "0.h5ad", work / "1.h5ad"]
        index = scgpt.ReferenceIndex.from_files(files, labels=["type"], exact=self.exact)
        index.add(cells(100, seed=2))
        index.save(work / "index", overwrite=True)

    def read(self, work: Path) -> str:
        index = scgpt.ReferenceIndex.load(work / "index", verify=True)
        found = index.query(cells(20, seed=4), k=5)
        return digest(found.rows.tobytes(), found.similarities.tobytes(), np.asarray(index.codes("type")).tobytes())


class ExactIndex(Index):
    """An index of vectors as they are."""

    exact = True


class Save:
    """A model with its data, saved over an older one."""

    def start(self, work: Path) -> None:
        work.mkdir()
        new_model(seed=1).save(work / "model", save_anndata=True)

    def run(self, work: Path) -> None:
        new_model().save(work / "model", overwrite=True, save_anndata=True)

    def read(self, work: Path) -> str:
        model = SCGPT.load(work / "model")
        return digest(weights_of(model).encode(), model.adata.X.data.tobytes())


JOBS = {
    "train": Train(),
    "pretrain": Pretrain(),
    "corpus": Build(),
    "embed": Embed(),
    "index": Index(),
    "exact index": ExactIndex(),
    "save": Save(),
    "embed file": EmbedFile(),
    "annotate file": AnnotateFile(),
}

if __name__ == "__main__":
    job = JOBS[sys.argv[1]]
    getattr(job, sys.argv[2])(Path(sys.argv[3]))
