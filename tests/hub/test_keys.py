import pytest
import torch

from scgpt.hub._keys import translate

# The authors' name and ours, one of each kind.
NAMES = {
    "encoder.embedding.weight": "genes.embedding.weight",
    "encoder.enc_norm.bias": "genes.norm.bias",
    "value_encoder.linear1.weight": "values.linear1.weight",
    "value_encoder.norm.bias": "values.norm.bias",
    "value_encoder.embedding.weight": "values.embedding.weight",
    "value_encoder.enc_norm.weight": "values.norm.weight",
    "pert_encoder.weight": "conditions.weight",
    "flag_encoder.weight": "flags.weight",
    "batch_encoder.embedding.weight": "batches.embedding.weight",
    "batch_encoder.enc_norm.weight": "batches.norm.weight",
    "mod_encoder.embedding.weight": "modalities.embedding.weight",
    "mod_encoder.enc_norm.bias": "modalities.norm.bias",
    "bn.weight": "input_norm.weight",
    "bn.running_var": "input_norm.running_var",
    "bn.num_batches_tracked": "input_norm.num_batches_tracked",
    "transformer_encoder.layers.2.self_attn.in_proj_weight": "layers.2.attention.qkv.weight",
    "transformer_encoder.layers.11.self_attn.Wqkv.bias": "layers.11.attention.qkv.bias",
    "transformer_encoder.layers.0.self_attn.out_proj.weight": "layers.0.attention.out.weight",
    "transformer_encoder.layers.3.linear1.weight": "layers.3.feed_forward.0.weight",
    "transformer_encoder.layers.3.linear2.bias": "layers.3.feed_forward.3.bias",
    "transformer_encoder.layers.1.norm1.weight": "layers.1.norm1.weight",
    "transformer_encoder.layers.1.norm2.bias": "layers.1.norm2.bias",
    "decoder.fc.4.weight": "gep.value.4.weight",
    "decoder.zero_logit.0.bias": "gep.expressed.0.bias",
    "decoder.coeff_decoder.fc.2.weight": "gep.coefficient.value.2.weight",
    "decoder.bias_decoder.fc.2.bias": "gep.bias.value.2.bias",
    "mvc_decoder.gene2query.weight": "gepc.query.weight",
    "mvc_decoder.W.weight": "gepc.value.weight",
    "mvc_decoder.W_zero_logit.bias": "gepc.expressed.bias",
}


@pytest.mark.parametrize(("theirs", "ours"), NAMES.items())
def test_names_are_translated(theirs, ours):
    tensor = torch.rand(3)
    renamed, unknown = translate({theirs: tensor})
    assert list(renamed) == [ours]
    assert renamed[ours] is tensor
    assert unknown == []


@pytest.mark.parametrize(("theirs", "ours"), [("cls_decoder", "cls"), ("grad_reverse_discriminator", "dar.classifier")])
def test_the_last_layer_of_a_classifier_follows_the_others(theirs, ours):
    hidden = [f"{theirs}._decoder.{i}.weight" for i in (0, 2, 3, 5)]
    renamed, _ = translate(dict.fromkeys([*hidden, f"{theirs}.out_layer.weight"], torch.zeros(1)))
    assert list(renamed) == [f"{ours}.{i}.weight" for i in (0, 2, 3, 5, 6)]
    renamed, _ = translate({f"{theirs}.out_layer.bias": torch.zeros(1)})
    assert list(renamed) == [f"{ours}.0.bias"]


def test_norms_of_batches_are_stacked_in_the_order_of_their_numbers():
    numbers = [10, 2, 0, 1, *range(3, 10)]
    renamed, unknown = translate({f"dsbn.bns.{i}.running_mean": torch.full((4,), float(i)) for i in numbers})
    assert unknown == []
    assert renamed["input_norm.running_mean"].tolist() == [[float(i)] * 4 for i in range(11)]


def test_names_that_no_rule_knows_are_reported():
    names = ["encoder.embedding.weight.extra", "sim.weight", "xdecoder.fc.0.weight", "decoder.fc.0.scale"]
    renamed, unknown = translate(dict.fromkeys(names, torch.zeros(1)))
    assert renamed == {}
    assert unknown == names


def test_both_styles_of_attention_keys_at_once_are_refused():
    prefix = "transformer_encoder.layers.0.self_attn."
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.qkv\.weight twice, under both styles"):
        translate({f"{prefix}Wqkv.weight": torch.zeros(1), f"{prefix}in_proj_weight": torch.zeros(1)})
