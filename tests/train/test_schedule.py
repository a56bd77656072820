import math

import pytest

from scgpt.train import Schedule


def test_warm_up_rises_linearly_to_one():
    schedule = Schedule("cosine", warmup_steps=4)
    assert [schedule.factor(s, 100, 10) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_cosine_falls_from_one_to_zero():
    schedule = Schedule("cosine", warmup_steps=4)
    assert schedule.factor(4, 104, 10) == 1
    assert schedule.factor(54, 104, 10) == pytest.approx((1 + math.cos(math.pi / 2)) / 2)
    assert schedule.factor(104, 104, 10) == pytest.approx(0)
    assert schedule.factor(500, 104, 10) == pytest.approx(0)


def test_epoch_decay_changes_at_the_end_of_each_epoch():
    schedule = Schedule("epoch_decay", decay=0.9)
    assert [schedule.factor(s, 30, 10) for s in (0, 9, 10, 29)] == pytest.approx([1, 1, 0.9, 0.81])


def test_constant():
    assert {Schedule().factor(s, 10, 5) for s in range(10)} == {1.0}


@pytest.mark.parametrize("settings", [{"kind": "linear"}, {"warmup_steps": -1}, {"decay": 0}, {"decay": 1.1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings)) if "kind" not in settings else "schedule must be"):
        Schedule(**settings)
