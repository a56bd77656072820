import pytest
import torch
import torch.nn.functional as F

from scgpt.nn import ScGPTConfig
from scgpt.nn._transformer import TransformerLayer

D = 16


def make_layer(**settings) -> TransformerLayer:
    torch.manual_seed(0)
    layer = TransformerLayer(ScGPTConfig(n_tokens=1, d_model=D, n_heads=4, d_feed_forward=24, **settings))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # layer norms with weights other than 1 and biases other than 0
    return layer.eval()


def copy_to_torch(layer: TransformerLayer, norm_first: bool) -> torch.nn.TransformerEncoderLayer:
    theirs = torch.nn.TransformerEncoderLayer(D, 4, 24, activation="relu", batch_first=True, norm_first=norm_first)
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": layer.attention.qkv.weight,
            "self_attn.in_proj_bias": layer.attention.qkv.bias,
            "self_attn.out_proj.weight": layer.attention.out.weight,
            "self_attn.out_proj.bias": layer.attention.out.bias,
            "linear1.weight": layer.feed_forward[0].weight,
            "linear1.bias": layer.feed_forward[0].bias,
            "linear2.weight": layer.feed_forward[3].weight,
            "linear2.bias": layer.feed_forward[3].bias,
            **{f"{n}.{p}": getattr(getattr(layer, n), p) for n in ("norm1", "norm2") for p in ("weight", "bias")},
        }
    )
    return theirs.eval()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_equals_torch_with_the_same_weights(norm, batch):
    layer = make_layer(norm=norm)
    theirs = copy_to_torch(layer, norm_first=norm == "pre")
    x = torch.randn(batch.n_tokens, D)
    present = torch.arange(int(batch.lengths.max())) < batch.lengths.unsqueeze(1)
    padded = torch.zeros(*present.shape, D)
    padded[present] = x
    # With gradients on, torch takes its plain path and not its fused one.
    expected = theirs(padded, src_key_padding_mask=~present)[present]
    torch.testing.assert_close(layer(x, batch), expected, rtol=0, atol=1e-5)


def test_pre_stream_normalises_the_residual_stream_itself(batch):
    layer = make_layer(norm="pre_stream")
    x = torch.randn(batch.n_tokens, D)

    def norm(y, module):
        return F.layer_norm(y, (D,), module.weight, module.bias, eps=1e-5)

    first = norm(x, layer.norm1)
    second = norm(first + layer.attention(first, batch), layer.norm2)
    hidden = F.relu(F.linear(second, layer.feed_forward[0].weight, layer.feed_forward[0].bias))
    expected = second + F.linear(hidden, layer.feed_forward[3].weight, layer.feed_forward[3].bias)
    torch.testing.assert_close(layer(x, batch), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["post", "pre", "pre_stream"])
def test_cls_alone_is_its_rows_of_the_whole(norm, batch):
    layer = make_layer(norm=norm)
    x = torch.randn(batch.n_tokens, D)
    torch.testing.assert_close(layer(x, batch, cls_only=True), layer(x, batch)[batch.first], rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["post", "pre", "pre_stream"])
def test_dropout_acts_in_training_alone(norm, batch):
    layer = make_layer(norm=norm, dropout=0.3, attention_dropout=0.0)
    x = torch.randn(batch.n_tokens, D)
    assert torch.equal(layer(x, batch), layer(x, batch))
    layer.train()
    assert not torch.equal(layer(x, batch), layer(x, batch))


def test_attention_has_a_dropout_of_its_own(batch):
    layer = make_layer(dropout=0.0, attention_dropout=0.3).train()
    x = torch.randn(batch.n_tokens, D)
    assert not torch.equal(layer(x, batch), layer(x, batch))
    layer = make_layer(dropout=0.0, attention_dropout=0.0).train()
    assert torch.equal(layer(x, batch), layer(x, batch))
