import hashlib
import io
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from scgpt.data import TokenBatch
from scgpt.hub import read_official
from scgpt.hub._keys import translate
from scgpt.module import ScGPTModule, make_objectives
from scgpt.nn import ScGPTConfig, ScGPTNetwork, layers_in

ATOL = 1e-5
real = pytest.mark.real
# Checkpoint folder, file of its outputs, and for each output of ours the name of theirs.
CASES = {
    "base": (
        "checkpoint",
        {"tokens": "encoded", "cells": "cell_emb", "gep": "mlm_output", "gepc": "mvc_output", "cls": "cls_output"},
    ),
    "integration": (
        "checkpoint_integration",
        {
            "tokens": "encoded",
            "cells": "cell_emb",
            "gep": "mlm_output",
            "zero": "mlm_zero_probs",
            "gepc": "mvc_output",
            "zero_gepc": "mvc_zero_probs",
            "dar": "dab_output",
        },
    ),
    "multiomic": (
        "checkpoint_multiomic",
        {"tokens": "encoded", "cells": "cell_emb", "gep": "mlm_output", "gepc": "mvc_output", "dar": "dab_output"},
    ),
    "perturb": ("checkpoint_perturb", {"tokens": "encoded", "perturb_gep": "mlm_output"}),
}
FIELDS = {"batch_labels": "batch_labels", "modality_ids": "mod_types", "condition_ids": "pert_flags"}


@pytest.fixture(params=["cells", "softmax"])
def backend(request, monkeypatch) -> None:
    """Attention in each of the ways that there are without a GPU."""
    monkeypatch.setattr("scgpt.nn._attention.fastest", lambda q, dropout: request.param)


def load_arrays(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def load_network(folder: Path) -> ScGPTNetwork:
    checkpoint = read_official(folder)
    network = ScGPTNetwork(checkpoint.config)
    network.load_state_dict(checkpoint.state_dict, strict=True)
    return network.eval()


def batch_of(arrays: dict[str, torch.Tensor]) -> tuple[TokenBatch, torch.Tensor]:
    """The batch, and where the padded arrays hold a token."""
    padding = arrays.get("pad", torch.zeros(arrays["src"].shape, dtype=torch.bool))
    fields = {ours: arrays[theirs] for ours, theirs in FIELDS.items() if theirs in arrays}
    return TokenBatch.from_padded(arrays["src"], arrays["values"], padding, **fields), ~padding


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor, present: torch.Tensor) -> None:
    expected = theirs[present] if theirs.shape[:2] == present.shape else theirs
    torch.testing.assert_close(ours, expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    "case",
    ["base", *(pytest.param(name, marks=real) for name in ("flash keys", "integration", "multiomic", "perturb"))],
)
@torch.no_grad()
def test_outputs_are_the_authors(case, backend, find_golden):
    folder, names = CASES["base" if case == "flash keys" else case]
    network = load_network(find_golden("checkpoint_flash_keys" if case == "flash keys" else folder))
    arrays = load_arrays(find_golden(f"{'base' if case == 'flash keys' else case}.npz"))
    batch, present = batch_of(arrays)
    out = network(batch, heads=[name for name in names if name in network.config.heads])
    for ours, theirs in names.items():
        assert_equal(getattr(out, ours), arrays[theirs], present)


@pytest.mark.parametrize("case", ["base", pytest.param("integration", marks=real)])
@torch.no_grad()
def test_in_bfloat16_they_are_as_close_as_it_can_tell(case, backend, find_golden):
    folder, names = CASES[case]
    network, arrays = load_network(find_golden(folder)), load_arrays(find_golden(f"{case}.npz"))
    batch, present = batch_of(arrays)
    with layers_in(network, torch.bfloat16):
        out = network(batch, heads=[name for name in names if name in network.config.heads])
    assert torch.cosine_similarity(out.cells, arrays["cell_emb"]).min() > 0.9999
    for ours in set(names) & {"gep", "gepc"}:
        theirs = arrays[names[ours]][present]
        assert (getattr(out, ours) - theirs).abs().max() < 0.05 * theirs.std() + 0.02


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cells", "softmax", "jagged", "varlen", "flash", "auto"])
@torch.no_grad()
def test_on_a_gpu_they_are_the_authors_too(name, golden, monkeypatch):
    if name == "flash":
        pytest.importorskip("flash_attn")
    if name != "auto":
        monkeypatch.setattr("scgpt.nn._attention.fastest", lambda q, dropout: name)
    half = name in ("varlen", "flash")  # which have no float32
    network, arrays = load_network(golden / "checkpoint").cuda(), load_arrays(golden / "base.npz")
    batch, _ = batch_of(arrays)
    with layers_in(network, torch.bfloat16 if half else torch.float32):
        cells = network(batch.to("cuda"), tokens=False).cells.cpu()
    assert torch.cosine_similarity(cells, arrays["cell_emb"]).min() > (0.9999 if half else 0.999999)


def test_domain_norm_trains_as_the_authors_one_norm_per_batch(golden):
    arrays = load_arrays(golden / "domain_norm.npz")
    network = load_network(golden / "checkpoint_domain_norm").train()
    before = network.input_norm.num_batches_tracked.clone()
    batch, present = batch_of(arrays)
    assert batch.batch_labels.unique().tolist() == [0, 1, 2]  # mixed in one minibatch
    assert_equal(network(batch).tokens, arrays["encoded_train"], present)
    assert_equal(network.input_norm.running_mean, arrays["running_mean"], present)
    assert_equal(network.input_norm.running_var, arrays["running_var"], present)
    assert (network.input_norm.num_batches_tracked - before).tolist() == [1, 1, 1]


def test_sizes_come_from_args_and_switches_from_the_weights(golden):
    config = read_official(golden / "checkpoint").config
    assert (config.n_tokens, config.d_model, config.n_heads, config.n_layers) == (203, 64, 4, 3)
    assert (config.d_feed_forward, config.dropout, config.n_classes, config.n_classifier_layers) == (64, 0.2, 7, 3)
    assert (config.norm, config.value_encoder, config.pooling, config.expression) == (
        "post",
        "continuous",
        "cls",
        "mlp",
    )
    assert config.heads == ("gep", "gepc", "levels", "cls")
    assert (config.n_batches, config.n_modalities, config.n_conditions, config.n_flags) == (0, 0, 0, 0)
    assert config.input_norm is None


@real
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flash_keys", {"n_flags": 2, "n_classes": 7}),
        (
            "integration",
            {"n_batches": 3, "batch_embedding": True, "adversary": True, "zero": True, "input_norm": "domain"},
        ),
        ("multiomic", {"n_batches": 3, "batch_embedding": True, "adversary": True, "n_modalities": 5, "zero": False}),
        ("perturb", {"n_conditions": 3, "expression": "affine"}),
    ],
)
def test_switches_of_the_other_checkpoints(name, expected, find_golden):
    config = read_official(find_golden(f"checkpoint_{name}")).config
    assert {field: getattr(config, field) for field in expected} == expected


def test_the_tokenizer_is_that_of_pretraining(golden):
    tokenizer = read_official(golden / "checkpoint").tokenizer
    assert tokenizer.settings() == {
        "n_bins": 51,
        "max_length": 1200,
        "ties": "middle",
        "include_zeros": False,
        "cls_value": -2.0,
        "mask_value": -1.0,
    }
    assert (len(tokenizer.vocab), tokenizer.vocab.cls_id) == (203, 201)


def test_the_report_says_what_was_loaded_from_which_file(official):
    report = read_official(official).report
    assert report.source == str(official)
    assert report.sha256 == hashlib.sha256((official / "best_model.pt").read_bytes()).hexdigest()
    assert report.loaded == ("genes", "values", "layers", "gep", "gepc", "cls")
    assert (report.fresh, report.dropped) == ((), ())
    assert str(report) == f"{official}: loaded genes, values, layers, gep, gepc, cls"


def to_flash_keys(weights: dict[str, torch.Tensor]) -> None:
    for name in list(weights):
        weights[name.replace("self_attn.in_proj_", "self_attn.Wqkv.")] = weights.pop(name)


def test_both_styles_of_attention_keys_are_the_same_weights(official, edit_weights):
    plain = read_official(official).state_dict
    flash = read_official(edit_weights(to_flash_keys)).state_dict
    assert list(flash) == list(plain)
    assert all(torch.equal(flash[name], plain[name]) for name in plain)


@real
def test_the_official_flash_keys_are_the_same_weights(golden, find_golden):
    plain = read_official(golden / "checkpoint").state_dict
    flash = read_official(find_golden("checkpoint_flash_keys")).state_dict
    assert set(flash) - set(plain) == {"flags.weight"}
    assert all(torch.equal(flash[name], plain[name]) for name in plain)


def test_no_layer_takes_the_place_of_another(official, edit_weights):
    # In the golden checkpoint all layers are alike, so here each gets weights of its own.
    def tell_apart(weights):
        for name, tensor in weights.items():
            if match := re.match(r"transformer_encoder\.layers\.(\d+)", name):
                tensor += int(match[1]) + 1

    before = read_official(official).state_dict
    after = read_official(edit_weights(tell_apart)).state_dict
    for layer in range(3):
        name = f"layers.{layer}.attention.qkv.weight"
        torch.testing.assert_close(after[name], before[name] + layer + 1)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda weights: {"model_state_dict": weights, "epoch": 3}, id="a training checkpoint"),
        pytest.param(lambda weights: {f"module.{k}": v for k, v in weights.items()}, id="DataParallel"),
        pytest.param(lambda weights: {k: v.double() for k, v in weights.items()}, id="double precision"),
    ],
)
def test_usual_wrappings_are_undone(wrap, official):
    plain = read_official(official).state_dict
    weights = torch.load(official / "best_model.pt", weights_only=True)
    torch.save(wrap(weights), official / "best_model.pt")
    wrapped = read_official(official).state_dict
    assert all(torch.equal(wrapped[name], plain[name]) for name in plain)
    assert {tensor.dtype for tensor in wrapped.values()} == {torch.float32}


def test_torchs_old_file_format_is_read(official):
    plain = read_official(official).state_dict
    weights = torch.load(official / "best_model.pt", weights_only=True)
    torch.save(weights, official / "best_model.pt", _use_new_zipfile_serialization=False)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in read_official(official).state_dict.items())


# Heads that are absent, and parts that start fresh


@pytest.mark.parametrize(("theirs", "ours"), [("cls_decoder.", "cls"), ("mvc_decoder.", "gepc")])
def test_a_head_that_is_absent_is_off(theirs, ours, edit_weights):
    def drop(weights):
        for name in [name for name in weights if name.startswith(theirs)]:
            del weights[name]

    checkpoint = read_official(edit_weights(drop))
    assert ours not in checkpoint.config.heads
    assert ours not in checkpoint.report.loaded
    with pytest.raises(ValueError, match=f"'{ours}'.* not switched on"):
        ScGPTNetwork(checkpoint.config)(None, heads=[ours])


def test_a_missing_parameter_is_named_and_refused(edit_weights):
    folder = edit_weights(lambda weights: weights.pop("mvc_decoder.W.weight"))
    with pytest.raises(ValueError, match=r"1 missing: gepc\.value\.weight\..* pass fresh=\['gepc'\]"):
        read_official(folder)


def test_an_unexpected_parameter_is_named_and_refused(edit_weights):
    folder = edit_weights(lambda weights: weights.update({"encoder.extra": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"1 unexpected: encoder\.extra\.") as error:
        read_official(folder)
    assert "fresh=" not in str(error.value)  # that would not help


def test_another_shape_is_named_and_refused(edit_weights):
    folder = edit_weights(lambda weights: weights.update({"decoder.fc.0.weight": torch.zeros(64, 32)}))
    message = r"1 of another shape: gep\.value\.0\.weight \(64, 32\) instead of \(64, 64\)\..* fresh=\['gep'\]"
    with pytest.raises(ValueError, match=message):
        read_official(folder)


def test_all_problems_are_named_at_once(edit_weights):
    def damage(weights):
        del weights["mvc_decoder.W.weight"], weights["transformer_encoder.layers.1.norm1.bias"]
        weights["decoder.fc.0.bias"] = torch.zeros(3)
        weights["strange"] = torch.zeros(3)

    message = r"2 missing: .*layers\.1\.norm1\.bias.*; 1 unexpected: strange; 1 of another shape: .*\['gep', 'gepc', 'layers'\]"
    with pytest.raises(ValueError, match=message):
        read_official(edit_weights(damage))


def test_fresh_heals_what_it_names_and_nothing_else(official, edit_weights):
    whole = read_official(official).state_dict

    def damage(weights):
        del weights["mvc_decoder.W.weight"]
        weights["cls_decoder.out_layer.weight"] = torch.zeros(7, 3)

    folder = edit_weights(damage)
    with pytest.raises(ValueError, match="missing"):
        read_official(folder, fresh=["cls"])
    with pytest.raises(ValueError, match="another shape"):
        read_official(folder, fresh=["gepc"])
    healed = read_official(folder, fresh=["cls", "gepc"])
    assert healed.report.fresh == ("cls", "gepc")
    assert healed.report.loaded == ("genes", "values", "layers", "gep")
    assert "; fresh: cls, gepc" in str(healed.report)
    assert list(healed.state_dict) == list(whole)
    for name, tensor in healed.state_dict.items():
        is_fresh = name.startswith(("cls.", "gepc."))
        # Layer norms start at 1 and 0 in both.
        assert torch.equal(tensor, whole[name]) or is_fresh
        assert not torch.equal(tensor, whole[name]) or not is_fresh or tensor.ndim == 1
    ScGPTNetwork(healed.config).load_state_dict(healed.state_dict, strict=True)


def test_fresh_weights_are_random_but_always_the_same(official):
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    a = read_official(official, fresh=["gep"]).state_dict["gep.value.0.weight"]
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's generator is left alone
    torch.manual_seed(2)
    b = read_official(official, fresh=["gep"]).state_dict["gep.value.0.weight"]
    assert torch.equal(a, b)
    assert a.std() == pytest.approx(64**-0.5 / 3**0.5, rel=0.05)  # as torch starts a linear layer


def test_a_changed_number_of_classes_needs_a_fresh_classifier(official):
    with pytest.raises(ValueError, match=r"cls\.6\.weight \(7, 64\) instead of \(9, 64\).*fresh=\['cls'\]"):
        read_official(official, n_classes=9)
    checkpoint = read_official(official, n_classes=9, fresh=["cls"])
    assert checkpoint.state_dict["cls.6.weight"].shape == (9, 64)


def test_a_part_that_is_switched_off_is_dropped_and_reported(official):
    checkpoint = read_official(official, n_classes=0, gepc=False)
    assert checkpoint.report.dropped == ("cls", "gepc")
    assert "; dropped: cls, gepc" in str(checkpoint.report)
    assert {name.split(".")[0] for name in checkpoint.state_dict} == {"genes", "values", "layers", "gep"}


def test_a_part_that_does_not_exist_cannot_be_fresh(official):
    with pytest.raises(ValueError, match=r"fresh=\['decoder'\]: the network has no such parts; it has \['genes',"):
        read_official(official, fresh=["decoder"])


# Damaged folders


@pytest.mark.parametrize("name", ["best_model.pt", "args.json", "vocab.json"])
def test_a_missing_file_is_named(name, official):
    (official / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {name}; a checkpoint is best_model.pt, args.json, vocab.json"):
        read_official(official)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere"):
        read_official(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="half of it"),
        pytest.param(lambda content: content[:-1], id="a byte short"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:50_000] + b"\x00\xff" + content[50_002:], id="flipped bits in a tensor"),
        pytest.param(lambda content: content[:300] + b"\x00\xff" + content[302:], id="flipped bits in the index"),
        pytest.param(lambda content: b"<html>Too many users have viewed this file</html>", id="a web page"),
    ],
)
def test_a_damaged_file_of_weights_is_refused(damage, official):
    path = official / "best_model.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"best_model\.pt is damaged, truncated or no checkpoint at all; download it"):
        read_official(official)


class _Executes:
    """Unpickled without care, it leaves a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param(saved, id="torch"),
        pytest.param(lambda x: saved(x, _use_new_zipfile_serialization=False), id="torch, old format"),
        pytest.param(lambda x: saved({"encoder.embedding.weight": torch.zeros(203, 64), "x": x}), id="among tensors"),
        pytest.param(pickle.dumps, id="pickle"),
        pytest.param(lambda x: pickle.dumps(x, protocol=2), id="pickle, old protocol"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_a_pickle_that_would_execute_code_is_refused_and_not_executed(pack, official, tmp_path):
    proof = tmp_path / "executed"
    payload = pack(_Executes(proof))
    (official / "best_model.pt").write_bytes(payload)
    with pytest.raises(ValueError, match="holds more than tensors and could execute code when read; refused"):
        read_official(official)
    assert not proof.exists()


def test_the_pickle_of_that_test_does_execute_code_where_it_is_let(tmp_path):
    pickle.loads(pickle.dumps(_Executes(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {"epoch": 1}, {0: torch.zeros(1)}], ids=["list", "numbers", "keys that are no names"]
)
def test_what_is_no_dictionary_of_tensors_is_refused(content, official):
    torch.save(content, official / "best_model.pt")
    with pytest.raises(ValueError, match="is not a dictionary of tensors"):
        read_official(official)


def test_weights_without_a_gene_embedding_are_refused(edit_weights):
    folder = edit_weights(lambda weights: weights.pop("encoder.embedding.weight"))
    with pytest.raises(ValueError, match=r"do not fit: encoder\.embedding\.weight is missing"):
        read_official(folder)


def test_a_vocabulary_of_another_size_is_refused(official):
    path = official / "vocab.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"NEW": 203}))
    message = r"has 204 tokens and the gene embedding 203 rows: vocab\.json belongs to another checkpoint"
    with pytest.raises(ValueError, match=message):
        read_official(official)


@pytest.mark.parametrize(
    "name", ["embsize", "nheads", "nlayers", "d_hid", "n_bins", "max_seq_len", "pad_value", "mask_value"]
)
def test_a_setting_that_args_lack_is_named(name, official):
    args = json.loads((official / "args.json").read_text())
    del args[name]
    (official / "args.json").write_text(json.dumps(args))
    with pytest.raises(ValueError, match=rf"args\.json lacks '{name}'"):
        read_official(official)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embsize": "64"}, "does not fit: d_model must be a whole number, not '64'"),
        ({"embsize": 64.0}, "does not fit: d_model must be a whole number, not 64.0"),
        ({"nheads": 0}, "does not fit: n_heads must be at least 1"),
        ({"nheads": 5}, "does not fit: d_model=64 is not a multiple of n_heads=5"),
        ({"nlayers": None}, "does not fit: n_layers must be a whole number, not None"),
        ({"dropout": "a lot"}, "does not fit: "),
        ({"max_seq_len": 1200.5}, "does not fit: max_length must be a whole number .*, not 1200.5"),
        ({"n_bins": "51"}, "does not fit: "),
        ({"pad_value": "<pad>"}, "does not fit: could not convert string to float"),
        ({"mask_value": None}, "does not fit: "),
        ({"input_emb_style": "scaling"}, r"input_emb_style='scaling' is not supported; known are \['continuous', "),
        ({"cell_emb_style": "max"}, r"cell_emb_style='max' is not supported; known are \['cls', 'avg-pool', "),
    ],
)
def test_settings_of_the_wrong_kind_are_refused(change, message, official):
    path = official / "args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"args\.json {message}" if message.startswith("does") else message):
        read_official(official)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not valid JSON"), ("[]", "holds no JSON object"), (b"\xff", "is not valid JSON")]
)
def test_args_that_are_no_json_object_are_refused(content, message, official):
    (official / "args.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"args\.json {message}"):
        read_official(official)


def test_more_layers_in_args_than_in_the_weights_are_missing_parameters(official):
    path = official / "args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"nlayers": 4}))
    with pytest.raises(ValueError, match=r"12 missing: layers\.3\."):
        read_official(official)


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"pre_norm": True}, "norm", "pre_stream"),
        ({"cell_emb_style": "avg-pool"}, "pooling", "mean"),
        ({"cell_emb_style": "w-pool"}, "pooling", "weighted"),
        ({"dropout": 0.1}, "dropout", 0.1),
    ],
)
def test_settings_in_args_are_followed(change, field, expected, official):
    path = official / "args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert getattr(read_official(official).config, field) == expected


def test_unbinned_input_is_followed(official):
    path = official / "args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"input_style": "log1p", "pad_value": 0}))
    tokenizer = read_official(official).tokenizer
    assert tokenizer.n_bins is None
    assert tokenizer.cls_value == 0.0


def test_a_categorical_value_encoder_is_read(official, edit_weights):
    def make_categorical(weights):
        for name in [name for name in weights if name.startswith("value_encoder.")]:
            del weights[name]
        weights["value_encoder.embedding.weight"] = torch.rand(53, 64)
        weights["value_encoder.enc_norm.weight"] = torch.rand(64)
        weights["value_encoder.enc_norm.bias"] = torch.rand(64)

    path = official / "args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"input_emb_style": "category"}))
    config = read_official(edit_weights(make_categorical)).config
    assert (config.value_encoder, config.n_values) == ("categorical", 53)


def test_a_plain_batch_norm_of_older_fine_tunes_is_read(edit_weights):
    def add_norm(weights):
        for name in ("weight", "bias", "running_mean", "running_var"):
            weights[f"bn.{name}"] = torch.rand(64)
        weights["bn.num_batches_tracked"] = torch.tensor(7)

    checkpoint = read_official(edit_weights(add_norm))
    assert checkpoint.config.input_norm == "batch"
    assert checkpoint.state_dict["input_norm.num_batches_tracked"] == 7


def generative_batch(arrays: dict[str, torch.Tensor]) -> tuple[TokenBatch, torch.Tensor]:
    """The known genes of each cell, then the unknown ones."""
    padding = torch.cat([arrays["known_padding"], arrays["unknown_padding"]], dim=1)
    unknown = torch.arange(padding.shape[1]).expand_as(padding) >= arrays["known_padding"].shape[1]
    genes, values = torch.zeros(padding.shape), torch.zeros(padding.shape)
    if "known_genes" in arrays:
        genes = torch.cat([arrays["known_genes"], arrays["unknown_genes"]], dim=1)
        values = torch.cat([arrays["known_values"], arrays["unknown_targets"]], dim=1)
    batch = TokenBatch.from_padded(genes, values, padding, unknown=unknown, targets=values, predict=unknown)
    return batch, ~padding


@real
@torch.no_grad()
def test_the_generative_encoder_is_the_authors(find_golden):
    arrays = load_arrays(find_golden("generative_encoder.npz"))
    weights = torch.load(find_golden("generative_encoder.pt"), weights_only=True)
    ours, unexpected = translate({f"transformer_encoder.{name}": tensor for name, tensor in weights.items()})
    assert unexpected == []
    config = ScGPTConfig(
        n_tokens=1, d_model=64, n_heads=4, n_layers=3, d_feed_forward=64, n_flags=2, skip_unknown_projection=True
    )
    layers = ScGPTNetwork(config).layers.eval()
    layers.load_state_dict({name.removeprefix("layers."): tensor for name, tensor in ours.items()})
    batch, present = generative_batch(arrays)
    x = torch.cat([arrays["known_embeddings"], arrays["unknown_embeddings"]], dim=1)[present]
    for layer in layers:
        x = layer(x, batch)
    assert_equal(x, torch.cat([arrays["known_output"], arrays["unknown_output"]], dim=1), present)


@real
@torch.no_grad()
def test_generative_outputs_are_the_authors(find_golden):
    arrays = load_arrays(find_golden("generative.npz"))
    network = load_network(find_golden("checkpoint_generative"))
    batch, present = generative_batch(arrays)
    out = network(batch, ("gep", "gepc"))
    assert_equal(out.cells, arrays["cell_emb"], present)
    assert_equal(out.gep, torch.cat([arrays["gep_known"], arrays["gep_unknown"]], dim=1), present)
    assert_equal(out.gepc, arrays["gepc"], present)
    second = network(batch, ("gep",), cell_prompt=out.cells)
    assert_equal(second.gep[batch.unknown], arrays["gep_unknown_cell_prompt"], ~arrays["unknown_padding"])


@real
@torch.no_grad()
def test_generative_losses_are_the_authors(find_golden):
    arrays = load_arrays(find_golden("generative.npz"))
    checkpoint = read_official(find_golden("checkpoint_generative"))
    module = ScGPTModule(checkpoint.config).eval()
    module.network.load_state_dict(checkpoint.state_dict)
    module.objectives = make_objectives(["gen"])
    batch, _ = generative_batch(arrays)
    losses = module(batch)[-1]
    expected = {name: arrays[f"loss_{name}"] for name in ("gene_prompt", "gepc", "cell_prompt")}
    for name, loss in expected.items():
        torch.testing.assert_close(losses.extra_metrics[f"gen_{name}"], loss, rtol=1e-6, atol=ATOL)
    torch.testing.assert_close(losses.loss, sum(expected.values()), rtol=1e-6, atol=ATOL)


@real
def test_pretraining_checkpoints_skip_the_projection_of_unknown_tokens(golden, find_golden):
    for name, expected in (("checkpoint_generative", True), ("checkpoint_flash_keys", True), ("checkpoint", False)):
        assert read_official(find_golden(name)).config.skip_unknown_projection is expected
