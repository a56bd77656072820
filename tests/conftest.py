"""Fixtures for all tests."""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Callable, Generator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import hypothesis
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

if TYPE_CHECKING:
    from scgpt.model import SCGPTPerturbation

_HERE = Path(__file__).parent
os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no name of a test is to be asked for


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with reference outputs of the authors' implementation."""
    return _HERE / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data folder beside the checkout; for tests marked ``real``."""
    folder = _HERE.parents[1] / "shared"
    if not folder.is_dir():
        pytest.skip("the data folder ../shared is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def find_golden(golden: Path, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Path of reference outputs: the small ones are in the repository, the others in the data folder."""

    def find(name: str) -> Path:
        return golden / name if (golden / name).exists() else request.getfixturevalue("shared") / "golden" / name

    return find


@pytest.fixture
def auto_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``precision="auto"`` be float32 on every machine, for tests of what another precision only comes close to."""
    from scgpt.nn import _precision

    real = _precision._capabilities
    monkeypatch.setattr(
        _precision, "_capabilities", lambda: {name: has for name, has in real().items() if "bf16" not in name}
    )


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Let networks run out of memory with more tokens at a time than given, on the way back if asked for.

    The list that it returns has the tokens of each pass that was tried. What an attempt on the way back kept must be gone
    before the next.
    """
    import torch

    from scgpt.nn import ScGPTNetwork

    embed_tokens = ScGPTNetwork.embed_tokens

    def limit(most: float, *, going_back: bool = False) -> list[int]:
        tried: list[int] = []
        failing: list[weakref.ref] = []  # hooks live as long as the graph that they hang on
        failed: list[weakref.ref] = []

        def run_out() -> None:
            failed.extend(failing)
            failing.clear()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        def limited(self, genes_TD, batch, *args):
            assert all(hook() is None for hook in failed), "the graph of a failed attempt still takes memory"
            tried.append(batch.n_tokens)
            if batch.n_tokens > most and not going_back:
                run_out()
            x_TD = embed_tokens(self, genes_TD, batch, *args)
            if batch.n_tokens > most and x_TD.requires_grad:
                hook = lambda gradient: run_out()
                x_TD.register_hook(hook)  # called when the layers above have their gradients
                failing.append(weakref.ref(hook))
            return x_TD

        monkeypatch.setattr(ScGPTNetwork, "embed_tokens", limited)
        return tried

    return limit


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def _counts() -> anndata.AnnData:
    rng = np.random.default_rng(7)
    n_obs, n_vars, n_types = 120, 60, 3
    types = np.arange(n_obs) % n_types
    rates = rng.gamma(0.4, 2.0, (n_types, n_vars))
    matrix = sp.csr_matrix(rng.poisson(rates[types] * rng.gamma(5, 0.2, (n_obs, 1))).astype(np.float32))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(types, ["B", "NK", "T"]),
            "batch": np.where(rng.random(n_obs) < 0.5, "a", "b"),
        },
        index=[f"cell{i}" for i in range(n_obs)],
    )
    return anndata.AnnData(matrix, obs=obs, var=pd.DataFrame(index=[f"GENE{i}" for i in range(n_vars)]))


@pytest.fixture
def counts(_counts: anndata.AnnData) -> anndata.AnnData:
    """Counts of 120 cells of three types in two batches, 60 genes: enough to run everything on."""
    return _counts.copy()


@pytest.fixture(scope="session")
def _perturbed() -> anndata.AnnData:
    rng = np.random.default_rng(11)
    genes = [*"ABCDEF", *(f"GENE{i}" for i in range(12))]
    raised = {"A": slice(6, 9), "B": slice(9, 12), "C": slice(12, 15)}
    names = np.repeat(["control", "A", "B", "C", "A+B"], [30, 20, 20, 20, 20])
    values = rng.uniform(1, 3, len(genes)) + rng.normal(0, 0.3, (len(names), len(genes)))
    for row, name in zip(values, names, strict=True):
        for gene in set(name.split("+")) & set(raised):
            row[raised[gene]] += 2
            row[genes.index(gene)] = 0
    values[rng.random(values.shape) < 0.1] = 0
    obs = pd.DataFrame(
        {"perturbation": pd.Categorical(names), "type": np.where(np.arange(len(names)) % 2, "T", "B")},
        index=[f"cell{i}" for i in range(len(names))],
    )
    return anndata.AnnData(sp.csr_matrix(values.clip(0).astype(np.float32)), obs=obs, var=pd.DataFrame(index=genes))


@pytest.fixture
def perturbed(_perturbed: anndata.AnnData) -> anndata.AnnData:
    """Log-normalised values of 30 control cells and 20 each in which A, B, C or A and B were knocked out; 18 genes.

    A raises the genes 0 to 2, B those from 3 to 5 and C those from 6 to 8.
    """
    return _perturbed.copy()


@pytest.fixture(scope="session")
def perturbation_model(_perturbed: anndata.AnnData) -> SCGPTPerturbation:
    """A small model that has learnt these perturbations; tests leave it as it is."""
    from scgpt.model import SCGPTPerturbation

    own = _perturbed.copy()
    SCGPTPerturbation.setup_anndata(own, "perturbation")
    model = SCGPTPerturbation(own, d_model=16, n_layers=1, n_heads=2)
    settings = {"accelerator": "cpu", "plan_kwargs": {"warmup_steps": 0}, "enable_progress_bar": False}
    model.train(15, lr=2e-2, batch_size=16, train_size=1.0, seed=0, **settings)
    return model


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Count how many examples a property is run on."""
    if not (isinstance(item, pytest.Function) and hypothesis.is_hypothesis_test(item.obj)):
        return (yield)
    held, n_examples = item.obj.hypothesis, 0
    of_one_example = held.inner_test

    @wraps(of_one_example)
    def counted(*args, **kwargs):
        nonlocal n_examples
        n_examples += 1
        return of_one_example(*args, **kwargs)

    held.inner_test = counted
    try:
        return (yield)
    finally:
        held.inner_test = of_one_example
        item.user_properties.append(("examples", n_examples))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was tried; it is here because with pytest-xdist only this file is seen."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    given = [(name, value) for report in reports for name, value in report.user_properties]
    if examples := [n for name, n in given if name == "examples"]:
        terminalreporter.write_line(f"properties: {len(examples)}, examples: {sum(examples)}")
    fuzz, kills = (_sum_of(given, name) for name in ("fuzz", "kills survived"))
    if n := sum(fuzz.values()):
        terminalreporter.write_line(f"fuzz: {n} inputs, {fuzz['error']} clean errors, {fuzz['answer']} right answers")
    if kills:
        terminalreporter.write_line(f"kills survived: {', '.join(f'{job} {n}' for job, n in kills.items())}")


def _sum_of(given: list[tuple[str, object]], wanted: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for name, counted in given:
        if name == wanted:
            total.update(counted)
    return total
