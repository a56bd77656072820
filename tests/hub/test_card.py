from __future__ import annotations

from importlib.metadata import version

import pytest
import yaml

from scgpt.hub import ModelCard, read, read_checkpoint, resolve, write_checkpoint
from scgpt.model import SCGPT


def header_of(text: str) -> dict:
    empty, header, _ = text.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(header)


def test_a_card_is_written_where_one_is_asked_for(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    write_checkpoint(checkpoint, tmp_path / "model")
    assert not (tmp_path / "model" / "README.md").exists()
    card = ModelCard(license="cc-by-4.0", description="Of **cells**.", tissues=["blood", "bone: marrow"], authors="We")
    write_checkpoint(checkpoint, tmp_path / "model", card=card, overwrite=True)
    text = (tmp_path / "model" / "README.md").read_text()
    assert header_of(text) == {
        "license": "cc-by-4.0",
        "library_name": "scgpt-tools",
        "tags": [
            "biology",
            "genomics",
            "single-cell",
            "scgpt",
            "model_cls_name:SCGPT",
            f"scvi_version:{version('scvi-tools')}",
            f"anndata_version:{version('anndata')}",
            f"scgpt_tools_version:{version('scgpt-tools')}",
            "modality:rna",
            "tissue:blood",
            "tissue:bone: marrow",
        ],
    }
    back = read_checkpoint(tmp_path / "model")
    for line in (
        "Of **cells**.",
        "Made by: We",
        "| network | d_model 8, n_layers 2, n_heads 2, d_feed_forward 12, norm post, pooling cls |",
        "| genes | 3 |",
        f"| SHA-256 of `model.safetensors` | `{back.report.sha256}` |",
        "| weights from | else |",
        "To be added...",
    ):
        assert line in text.splitlines()
    write_checkpoint(back, tmp_path / "model", overwrite=True)  # the folder is replaced with its card
    assert not (tmp_path / "model" / "README.md").exists()


def test_the_card_of_a_model_tells_of_its_training(counts, tmp_path):
    SCGPT.setup_anndata(counts, batch_key="batch", labels_key="cell_type")
    model = SCGPT(counts, d_model=8, n_layers=1, n_heads=2)
    model.train(2, accelerator="cpu", enable_progress_bar=False)
    model.save(tmp_path / "model", card=ModelCard())
    text = (tmp_path / "model" / "README.md").read_text()
    header = header_of(text)
    assert "license" not in header
    assert {"model_cls_name:SCGPT", "annotated:True", f"scvi_version:{version('scvi-tools')}"} <= set(header["tags"])
    lines = text.splitlines()
    for line in (
        "| cells | 120 |",
        "| batches | 2 |",
        "| epochs | 2 |",
        "| objectives | gep, gepc |",
        "Types: B, NK, T.",
    ):
        assert line in lines
    assert '{\n "batch_key": "batch",\n "labels_key": "cell_type"\n}' in text
    for name in ("train_loss", "gepc_validation"):
        assert f"| {name} | {model.history[name][name].iloc[-1]:.4g} |" in lines
    assert SCGPT.load(tmp_path / "model", counts).history == {}


def test_names_are_lists():
    with pytest.raises(TypeError, match=r"tissues must be a list of names, such as \['blood'\]"):
        ModelCard(tissues="blood")


def test_the_card_of_the_small_model_has_the_header(tmp_path):
    header = header_of((resolve("mini") / "README.md").read_text())
    made = header_of(ModelCard(license="bsd-3-clause").header(read("mini")))
    assert (header["license"], header["library_name"]) == (made["license"], made["library_name"])
    assert {tag.partition(":")[0] for tag in made["tags"]} | {"tissue"} == {
        tag.partition(":")[0] for tag in header["tags"]
    }
