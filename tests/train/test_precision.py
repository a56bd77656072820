import pytest
import torch

from scgpt.train import training_precision


@pytest.mark.parametrize(
    ("device", "d_model", "has", "expected"),
    [
        ("cpu", 512, True, "bf16-mixed"),
        ("cpu", 256, True, "bf16-mixed"),
        ("cpu", 128, True, "32-true"),  # slower in bfloat16
        ("cpu", 512, False, "32-true"),
        ("cuda", 64, True, "bf16-mixed"),
        ("cuda", 512, False, "32-true"),
    ],
)
def test_bfloat16_where_the_device_has_it_and_it_pays(device, d_model, has, expected, monkeypatch):
    monkeypatch.setattr("scgpt.train._precision.has_bfloat16", lambda device: has)
    assert training_precision(torch.device(device), d_model) == expected
