"""Fixtures for the network: cells of very different lengths, and small networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scgpt.data import TokenBatch
from scgpt.nn import ScGPTNetwork

from ._networks import random_batch, random_network


@pytest.fixture
def make_batch() -> Callable[..., TokenBatch]:
    return random_batch


@pytest.fixture
def batch() -> TokenBatch:
    return random_batch()


@pytest.fixture
def make_network() -> Callable[..., ScGPTNetwork]:
    return random_network
