"""Training again, with the same seed on a CPU, gives the same weights and the same results, bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mudata import MuData

from scgpt.model import SCGPT, MultiSCGPT, SCGPTAnnotator, SCGPTPerturbation

SMALL = {"d_model": 8, "n_layers": 1, "n_heads": 2}


def embedded(model) -> np.ndarray:
    return model.get_latent_representation(progress_bar=False)


def masked(counts, perturbed):
    SCGPT.setup_anndata(counts, batch_key="batch")
    return SCGPT(counts, **SMALL, batch_embedding=True, input_norm="domain"), {}, embedded


def generative(counts, perturbed):
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, **SMALL, n_flags=2, zero=True)
    prompts = counts[:5, :40].copy()
    settings = {"objectives": {"gen": {"warmup_steps": 2}, "zero": 1}}
    return model, settings, lambda model: model.generate(prompts, draw=True, progress_bar=False).X


def annotator(counts, perturbed):
    SCGPTAnnotator.setup_anndata(counts, labels_key="cell_type")
    return SCGPTAnnotator(counts, **SMALL), {}, lambda model: model.predict(soft=True, progress_bar=False).to_numpy()


def perturbation(counts, perturbed):
    SCGPTPerturbation.setup_anndata(perturbed, "perturbation")
    predicted = lambda model: model.predict(["A", "A+B"], progress_bar=False).to_numpy()
    return SCGPTPerturbation(perturbed, **SMALL, dropout=0.2), {}, predicted


def multi(counts, perturbed):
    mdata = MuData({"rna": counts[:, :40].copy(), "prot": counts[:80, 40:].copy()})
    MultiSCGPT.setup_mudata(mdata, batch_key="batch")
    return MultiSCGPT(mdata, **SMALL), {}, embedded


@pytest.mark.parametrize("kind", [masked, generative, annotator, perturbation, multi])
def test_the_same_seed_gives_the_same_bits(kind: Callable, counts, perturbed):
    def once(seed: int, disturbance: int) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        torch.manual_seed(disturbance)  # generators that happen to run have no say
        np.random.seed(disturbance)
        model, settings, result = kind(counts.copy(), perturbed.copy())
        model.train(2, batch_size=16, seed=seed, enable_progress_bar=False, **settings)
        return {name: x.clone() for name, x in model.module.state_dict().items()}, result(model)

    (weights, result), (again, result_again), (other, _) = (once(*seeds) for seeds in ((3, 0), (3, 1), (4, 0)))
    assert [name for name in weights if not torch.equal(weights[name], again[name])] == []
    assert np.array_equal(result, result_again)
    assert any(not torch.equal(weights[name], other[name]) for name in weights)
