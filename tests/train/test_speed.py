"""What a training says of its speed."""

from types import SimpleNamespace

import pytest
import torch

from scgpt.data import TokenBatch
from scgpt.model import SCGPT
from scgpt.module import ScGPTModule
from scgpt.nn import ScGPTConfig
from scgpt.train import Speed, known_peak
from scgpt.train import _speed as speed_file


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(speed_file.time, "perf_counter", lambda: now.seconds)
    return now


def batch_of(*lengths: int) -> TokenBatch:
    n = sum(lengths)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return TokenBatch(torch.zeros(n, dtype=torch.int64), torch.zeros(n), offsets, torch.arange(len(lengths)))


def test_rates_are_counts_over_time_of_all_processes(clock):
    module = ScGPTModule(ScGPTConfig(n_tokens=40, d_model=8, n_heads=2, n_layers=3, d_feed_forward=8))
    speed = Speed(module, peak_tflops=2e-6, n_processes=2)
    speed.begin()
    for lengths in ((5, 10), (20,)):
        clock.seconds += 1
        speed.add(batch_of(*lengths), step=0)
    clock.seconds += 2
    rates = speed.rates()
    assert rates["cells_per_s"] == pytest.approx(2 * 3 / 4)
    assert rates["tokens_per_s"] == pytest.approx(2 * 35 / 4)
    weights = sum(p.numel() for n, p in module.named_parameters() if n != "network.genes.embedding.weight")
    operations = 6 * weights * 35 + 12 * 3 * 8 * (25 + 100 + 400)
    assert rates["mfu"] == pytest.approx(operations / 4 / 2e6)
    unknown = Speed(module)
    speed.begin()
    clock.seconds += 1
    assert speed.rates()["tokens_per_s"] == 0
    assert "mfu" not in unknown.rates()


def test_the_clock_can_stand_still(clock):
    speed = Speed(ScGPTModule(ScGPTConfig(n_tokens=40, d_model=8, n_heads=2, n_layers=1, d_feed_forward=8)))
    speed.begin()
    clock.seconds += 3
    speed.pause()
    clock.seconds += 50
    assert speed.seconds == 3
    speed.go_on()
    clock.seconds += 1
    assert speed.seconds == 4


@pytest.mark.parametrize(
    ("device", "precision", "name", "expected"),
    [
        ("cuda", "bf16-mixed", "NVIDIA H200", 989.0),
        ("cuda", "bf16-mixed", "NVIDIA H100 PCIe", 756.0),
        ("cuda", "bf16-mixed", "Some other card", None),
        ("cuda", "32-true", "NVIDIA H200", None),
        ("cpu", "bf16-mixed", "", None),
    ],
)
def test_the_peak_of_known_devices(device, precision, name, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert known_peak(torch.device(device), precision) == expected


def test_a_training_reports_the_speed_of_each_epoch(counts):
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, d_model=8, n_layers=1, n_heads=2)
    plans = []

    class Kept(model._training_plan_cls):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            plans.append(self)

    model._training_plan_cls = Kept
    model.train(2, enable_progress_bar=False, plan_kwargs={"peak_tflops": 1e-3})
    (plan,) = plans
    assert len(plan.speeds) == 2
    for rates in plan.speeds:
        assert rates["tokens_per_s"] > 10 * rates["cells_per_s"] > 0
        assert 0 < rates["mfu"] < 1e3
    assert not {"cells_per_s", "tokens_per_s", "mfu"} & set(model.history)  # which is the same for the same training
