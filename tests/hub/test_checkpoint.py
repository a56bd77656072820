import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from scgpt import _folders
from scgpt.hub import Checkpoint, LoadReport, _checkpoint, read_checkpoint, read_official, write_checkpoint
from scgpt.nn import ScGPTNetwork


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same(a: Checkpoint, b: Checkpoint) -> None:
    assert a.config == b.config
    assert a.vocab == b.vocab
    assert a.tokenizer.settings() == b.tokenizer.settings()
    assert a.registry == b.registry
    assert set(a.state_dict) == set(b.state_dict)
    for name, tensor in a.state_dict.items():
        assert tensor.dtype == b.state_dict[name].dtype
        assert torch.equal(tensor, b.state_dict[name]), name


@pytest.fixture
def saved(make_checkpoint, tmp_path) -> Path:
    """Folder of a checkpoint, to do with as one likes."""
    write_checkpoint(make_checkpoint(), tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_batches": 2, "input_norm": "domain", "batch_embedding": True, "adversary": True},  # has whole numbers too
        {"n_conditions": 3, "expression": "affine", "gepc": False, "zero": True},
    ],
    ids=["plain", "batches", "perturbation"],
)
def test_written_and_read_is_the_same_to_the_bit(settings, make_checkpoint, tmp_path):
    checkpoint = make_checkpoint(registry={"model_name": "SCGPT", "setup_args": {"layer": None}}, **settings)
    write_checkpoint(checkpoint, tmp_path / "a" / "b")
    again = read_checkpoint(tmp_path / "a" / "b")
    assert_same(again, checkpoint)
    assert set(again.report.loaded) == {name.split(".")[0] for name in checkpoint.state_dict}
    assert len(again.report.sha256) == 64
    ScGPTNetwork(again.config).load_state_dict(again.state_dict, strict=True)


def test_an_official_checkpoint_converts_to_the_bit(golden, tmp_path):
    official = read_official(golden / "checkpoint")
    write_checkpoint(official, tmp_path / "converted")
    assert_same(read_checkpoint(tmp_path / "converted"), official)


def test_there_is_no_pickle_in_a_folder(saved):
    assert set(contents(saved)) == {"model.safetensors", "config.json", "vocab.json", "registry.json"}
    for name, content in contents(saved).items():
        if name.endswith(".json"):
            assert isinstance(json.loads(content), dict)
    assert set(load_file(saved / "model.safetensors"))  # safetensors cannot hold one


def test_the_config_says_where_the_weights_came_from(saved):
    settings = json.loads((saved / "config.json").read_text())
    assert settings["format"] == 1
    assert settings["source"] == {"checkpoint": "else", "sha256": "0" * 64}
    assert "/somewhere" not in json.dumps(settings)  # no path of the machine that wrote it


def test_weights_of_any_layout_in_memory_are_written(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    columns_first = torch.arange(48.0).view(8, 6).T
    assert not columns_first.is_contiguous()
    weights = checkpoint.state_dict | {"genes.embedding.weight": columns_first}
    weights["gepc.query.bias"] = torch.nn.Parameter(weights["gepc.query.bias"])
    write_checkpoint(replace(checkpoint, state_dict=weights), tmp_path / "x")
    assert torch.equal(read_checkpoint(tmp_path / "x").state_dict["genes.embedding.weight"], columns_first)


def test_others_may_read_the_folder(saved):
    assert stat.S_IMODE(saved.stat().st_mode) == 0o755
    assert all(path.stat().st_mode & stat.S_IROTH for path in saved.iterdir())


# Overwriting


def test_a_folder_that_is_there_is_not_overwritten_unasked(saved, make_checkpoint):
    before = contents(saved)
    with pytest.raises(FileExistsError, match="already exists; pass overwrite=True to replace it"):
        write_checkpoint(make_checkpoint(seed=1), saved)
    assert contents(saved) == before


def test_overwriting_replaces_a_checkpoint_with_its_data(saved, make_checkpoint):
    (saved / "adata.h5ad").write_text("of the old one")
    write_checkpoint(make_checkpoint(seed=1), saved, overwrite=True)
    assert_same(read_checkpoint(saved), make_checkpoint(seed=1))
    assert not (saved / "adata.h5ad").exists()
    assert os.listdir(saved.parent) == ["saved"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_never_replaced(saved, make_checkpoint, overwrite):
    (saved / "notes.txt").write_text("of the user")
    before = contents(saved)
    with pytest.raises(FileExistsError, match=r"holds other files .* notes.txt"):
        write_checkpoint(make_checkpoint(seed=1), saved, overwrite=overwrite)
    assert contents(saved) == before


def test_an_empty_folder_is_filled(tmp_path, make_checkpoint):
    (tmp_path / "empty").mkdir()
    write_checkpoint(make_checkpoint(), tmp_path / "empty")
    assert_same(read_checkpoint(tmp_path / "empty"), make_checkpoint())


@pytest.mark.parametrize("step", ["save_file", "version", "vocabulary", "chmod"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_leaves_what_was_there_and_nothing_else(step, overwrite, make_checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "saved"
    if overwrite:
        write_checkpoint(make_checkpoint(), folder)
    before = contents(folder) if overwrite else {}

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    if step == "vocabulary":
        monkeypatch.setattr(type(make_checkpoint().vocab), "save", fail)
    elif step == "chmod":
        monkeypatch.setattr(Path, "chmod", fail)
    else:
        monkeypatch.setattr(_checkpoint, step, fail)
    with pytest.raises(OSError, match="The disk that holds .*saved is full. Free some space and save again"):
        write_checkpoint(make_checkpoint(seed=1), folder, overwrite=overwrite)
    assert os.listdir(tmp_path) == (["saved"] if overwrite else [])
    assert (contents(folder) if overwrite else {}) == before


def test_a_failure_at_the_very_last_step_puts_the_old_folder_back(saved, make_checkpoint, monkeypatch):
    before, rename = contents(saved), Path.rename
    renamed = []

    def fail_at_the_second(self, target):
        renamed.append(target)
        if len(renamed) == 2:
            raise OSError("The disk is gone")
        return rename(self, target)

    monkeypatch.setattr(_folders, "_exchanged", lambda *folders: False)  # as on file systems that cannot
    monkeypatch.setattr(Path, "rename", fail_at_the_second)
    with pytest.raises(OSError, match="The disk is gone"):
        write_checkpoint(make_checkpoint(seed=1), saved, overwrite=True)
    assert contents(saved) == before
    assert os.listdir(saved.parent) == ["saved"]


# Damaged folders


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.json"])
def test_a_missing_file_is_named(name, saved):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {name}; a checkpoint is model.safetensors, config.json"):
        read_checkpoint(saved)


def test_a_registry_is_not_needed(saved):
    (saved / "registry.json").unlink()
    assert read_checkpoint(saved).registry == {}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: content[:5], id="nearly empty"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"\xff" * 8 + content[8:], id="an impossible header"),
        pytest.param(lambda content: b"<html>quota exceeded</html>", id="a web page"),
    ],
)
def test_damaged_weights_are_refused(damage, saved):
    path = saved / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or truncated"):
        read_checkpoint(saved)


def edit_config(folder: Path, change) -> None:
    settings = json.loads((folder / "config.json").read_text())
    change(settings)
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.update(format=2),
            "has format 2, and this version reads 1: it was made by a newer version of scgpt-tools; update",
        ),
        (lambda s: s.pop("format"), "has format None, and this version reads 1: download or save"),
        (lambda s: s.pop("network"), r"config\.json is damaged: .*network"),
        (lambda s: s.pop("tokenizer"), r"config\.json is damaged: .*tokenizer"),
        (lambda s: s.update(network=3), r"config\.json is damaged: .network. in it is no object"),
        (lambda s: s["network"].pop("n_tokens"), "lack n_tokens"),
        (lambda s: s["network"].update(rotary=True), r"Unknown network settings \['rotary'\]"),
        (lambda s: s["network"].update(d_model=8.0), "d_model must be a whole number"),
        (lambda s: s["network"].update(dropout="0.2"), r"config\.json is damaged: dropout must be a number"),
        (lambda s: s["tokenizer"].update(colour=1), r"Unknown tokenizer settings \['colour'\]"),
        (lambda s: s["tokenizer"].update(max_length=None), "max_length must be a whole number"),
        (lambda s: s["network"].update(n_tokens=7), "has 6 tokens and the gene embedding 7 rows"),
        (lambda s: s["network"].update(n_layers=3), r"12 missing: layers\.2\.attention.*fresh=\['layers'\]"),
        (lambda s: s["network"].update(n_layers=1), r"12 unexpected: layers\.1\."),
        (
            lambda s: s["network"].update(d_feed_forward=9),
            r"of another shape: layers\.0\.feed_forward\.0\.bias \(12,\)",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change, message, saved):
    edit_config(saved, change)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(saved)


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "registry.json"])
def test_broken_json_is_refused_by_name(name, saved):
    (saved / name).write_text('{"format": 1')
    with pytest.raises(ValueError, match=rf"{name} is not valid JSON"):
        read_checkpoint(saved)


def test_a_parameter_too_few_or_too_many_is_refused(saved):
    weights = load_file(saved / "model.safetensors")
    removed = weights.pop("gep.value.0.bias")
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 missing: gep\.value\.0\.bias"):
        read_checkpoint(saved)
    save_file(weights | {"gep.value.0.bias": removed, "gep.more": removed.clone()}, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 unexpected: gep\.more"):
        read_checkpoint(saved)


# Changed configs


def test_adapt_starts_named_parts_fresh_and_keeps_the_others(make_checkpoint):
    checkpoint = make_checkpoint(n_classes=3)
    adapted = checkpoint.adapt(fresh=["cls"], n_classes=5)
    assert adapted.config == replace(checkpoint.config, n_classes=5)
    assert adapted.state_dict["cls.6.weight"].shape == (5, 8)
    assert adapted.report.fresh == ("cls",)
    for name, tensor in checkpoint.state_dict.items():
        if not name.startswith("cls."):
            assert torch.equal(adapted.state_dict[name], tensor)
    assert checkpoint.config.n_classes == 3


def test_adapt_drops_what_is_switched_off(make_checkpoint):
    adapted = make_checkpoint(n_classes=3).adapt(n_classes=0)
    assert adapted.report.dropped == ("cls",)
    assert not any(name.startswith("cls.") for name in adapted.state_dict)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_classes": 5}, r"cls\.0\.bias.*pass fresh=\['cls'\]"),
        ({"d_model": 16}, "of another shape"),
        ({"n_classes": -1, "n_layers": 0}, "n_layers must be at least 1"),
    ],
)
def test_adapt_refuses_what_the_weights_cannot_give(changes, message, make_checkpoint):
    with pytest.raises(ValueError, match=message):
        make_checkpoint().adapt(**changes)


def test_a_report_tells_of_the_batches_of_a_query():
    report = LoadReport(source="/somewhere/atlas", sha256="0" * 64, loaded=("genes",)).of_query(["c", "d"])
    assert str(report) == "query of atlas: loaded genes; 2 new batches: c, d"
    assert report.sha256 == "0" * 64
    assert report.fine_tuned().source == "fine-tuned from query of atlas"
    assert "new batches" not in str(report.of_query([]))


def test_an_embedding_of_no_condition_is_refused_not_left_out_unsaid(make_checkpoint):
    checkpoint = make_checkpoint(n_conditions=3)
    assert_same(checkpoint.adapt(), checkpoint)
    checkpoint.state_dict["conditions.weight"][0, 1] = 0.5
    with pytest.raises(ValueError, match=r"row 0; the authors' pert_pad_id=2.*fresh=\['conditions'\]"):
        checkpoint.adapt()
    assert checkpoint.adapt(fresh=["conditions"]).report.fresh == ("conditions",)
    assert checkpoint.adapt(n_conditions=0).report.dropped == ("conditions",)


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.json"])
def test_a_file_of_another_save_is_refused(name, saved):
    content = (saved / name).read_bytes()
    changed = content.replace(b"CD3D", b"CD3E") if name == "vocab.json" else content[:-1] + bytes([content[-1] ^ 1])
    (saved / name).write_bytes(changed)
    with pytest.raises(ValueError, match=rf"{name} is not what was saved with config\.json"):
        read_checkpoint(saved)
    edit_config(saved, lambda settings: settings.pop("sha256"))  # as older checkpoints are
    assert read_checkpoint(saved).vocab.genes[0] == ("CD3E" if name == "vocab.json" else "CD3D")


def test_weights_that_are_not_finite_are_refused(saved):
    weights = load_file(saved / "model.safetensors")
    weights["genes.norm.weight"][0] = torch.nan
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"NaN or infinite in genes\.norm\.weight: the file is damaged, or the training"
    ):
        read_checkpoint(saved)
