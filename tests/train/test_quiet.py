import logging
import warnings

import pytest

from scgpt.train import lightning_quiet

LOGGER = logging.getLogger("lightning.pytorch.utilities.rank_zero")


def deprecated(module: str) -> None:
    warnings.warn_explicit("old", FutureWarning, "file.py", 1, module=module)


def test_lightning_is_quiet_for_a_while(caplog):
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"), lightning_quiet():
        LOGGER.info("GPU available: no")
        LOGGER.warning("a loss is NaN")
        deprecated("lightning.pytorch.utilities._pytree")
    assert caplog.messages == ["a loss is NaN"]
    assert LOGGER.level == logging.NOTSET


def test_other_warnings_are_heard():
    with lightning_quiet(), pytest.warns(FutureWarning):
        deprecated("scanpy")


def test_who_asks_for_the_lines_gets_them(caplog, monkeypatch):
    monkeypatch.setattr(LOGGER, "level", logging.INFO)
    with lightning_quiet():
        LOGGER.info("GPU available: no")
    assert caplog.messages == ["GPU available: no"]


def test_the_level_is_put_back_after_an_error():
    with pytest.raises(RuntimeError), lightning_quiet():
        raise RuntimeError
    assert LOGGER.level == logging.NOTSET


def test_a_training_that_goes_on_has_its_states_there(recwarn):
    with lightning_quiet():
        warnings.warn("Checkpoint directory /run/states exists and is not empty.", UserWarning, stacklevel=1)
    assert not recwarn
