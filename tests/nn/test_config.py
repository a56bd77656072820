import json
from dataclasses import FrozenInstanceError

import pytest

from scgpt.nn import ScGPTConfig


def test_defaults_are_the_whole_human_model():
    config = ScGPTConfig(n_tokens=60_697)
    assert (config.n_layers, config.n_heads, config.d_model, config.d_feed_forward) == (12, 8, 512, 512)
    assert (config.norm, config.dropout, config.value_encoder, config.max_value) == ("post", 0.2, "continuous", 512)
    assert (config.pooling, config.expression, config.input_norm) == ("cls", "mlp", None)
    assert config.heads == ("gep", "gepc", "levels")


@pytest.mark.parametrize(
    ("settings", "heads"),
    [
        ({"gepc": False}, ("gep",)),
        ({"zero": True, "n_classes": 5}, ("gep", "gepc", "zero", "levels", "cls")),
        ({"adversary": True, "n_batches": 2}, ("gep", "gepc", "levels", "dar")),
        ({"expression": "affine", "gepc": False}, ("perturb_gep",)),
    ],
)
def test_heads_follow_the_switches(settings, heads):
    assert ScGPTConfig(n_tokens=5, **settings).heads == heads


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({}, 0),
        ({"n_batches": 2}, 0),
        ({"n_batches": 2, "batch_embedding": True}, 512),
        ({"n_modalities": 2}, 512),
        ({"n_batches": 2, "batch_embedding": True, "n_modalities": 2}, 512),  # added, not concatenated
    ],
)
def test_context_is_one_model_width_or_none(settings, width):
    assert ScGPTConfig(n_tokens=5, **settings).d_context == width


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_tokens": 0}, "n_tokens must be at least 1, not 0"),
        ({"n_layers": -1}, "n_layers must be at least 1, not -1"),
        ({"d_model": 16.0}, "d_model must be a whole number, not 16.0"),
        ({"n_classes": "7"}, "n_classes must be a whole number, not '7'"),
        ({"d_model": 10, "n_heads": 3}, "d_model=10 is not a multiple of n_heads=3"),
        ({"norm": "both"}, "norm must be one of .*, not 'both'"),
        ({"value_encoder": "scaling"}, "value_encoder must be one of .*, not 'scaling'"),
        ({"pooling": "max"}, "pooling must be one of .*, not 'max'"),
        ({"expression": "linear"}, "expression must be one of .*, not 'linear'"),
        ({"input_norm": "layer"}, "input_norm must be one of .*, not 'layer'"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, not 1.0"),
        ({"attention_dropout": -0.1}, "attention_dropout must be at least 0 and below 1, not -0.1"),
        ({"n_flags": 1}, "n_flags must be 0 or at least 2, for known and unknown genes, not 1"),
        ({"gep_bins": 1}, "gep_bins must be 0 or at least 2, not 1"),
        ({"gep_bins": 51, "expression": "affine"}, "gep_bins needs expression='mlp'"),
        ({"adversary": True}, "adversary need n_batches of at least 1"),
        ({"batch_embedding": True, "input_norm": "domain"}, "batch_embedding, input_norm='domain' need n_batches"),
        ({"condition_context": True}, "condition_context needs n_conditions of at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ScGPTConfig(**{"n_tokens": 5} | settings)


def test_config_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ScGPTConfig(n_tokens=5).n_tokens = 6


def test_json_and_back_is_the_same():
    config = ScGPTConfig(n_tokens=5, norm="pre", n_batches=3, input_norm="domain", max_value=7.5)
    assert ScGPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_settings_of_before_there_was_a_context_of_conditions_are_read():
    values = ScGPTConfig(n_tokens=5, n_conditions=2).to_dict()
    del values["condition_context"]
    assert not ScGPTConfig.from_dict(values).condition_context
    assert ScGPTConfig(n_tokens=5, n_conditions=2, condition_context=True).d_context == 0  # that is of batches


def test_from_dict_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"Unknown network settings \['rotary'\].*newer version"):
        ScGPTConfig.from_dict({"n_tokens": 5, "rotary": True})
    with pytest.raises(ValueError, match="lack n_tokens"):
        ScGPTConfig.from_dict({"d_model": 8})
