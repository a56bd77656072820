import pytest
import torch

from scgpt.nn._domain_norm import EPS, DomainNorm

D = 6


def tokens_of(*counts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of each domain, shuffled, far enough from mean 0 and variance 1."""
    generator = torch.Generator().manual_seed(0)
    domains = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    domains = domains[torch.randperm(len(domains), generator=generator)]
    x = torch.randn(len(domains), D, generator=generator) * (1 + domains[:, None]) + 3 * domains[:, None]
    return x, domains


def norm_of_each_domain(n: int) -> list[torch.nn.BatchNorm1d]:
    return [torch.nn.BatchNorm1d(D, eps=EPS, affine=False) for _ in range(n)]


def test_eps_is_the_authors():
    assert DomainNorm(1, D).eps == 6.1e-5


def test_equals_one_batch_norm_per_domain_over_training_and_eval():
    ours, theirs = DomainNorm(3, D), norm_of_each_domain(3)
    for counts in ((40, 7, 20), (2, 50, 9), (5, 5, 5)):
        x, domains = tokens_of(*counts)
        got = ours(x, domains)
        for i, norm in enumerate(theirs):
            torch.testing.assert_close(got[domains == i], norm(x[domains == i]), rtol=0, atol=1e-5)
    for i, norm in enumerate(theirs):
        torch.testing.assert_close(ours.running_mean[i], norm.running_mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.running_var[i], norm.running_var, rtol=1e-5, atol=1e-5)
        assert ours.num_batches_tracked[i] == norm.num_batches_tracked == 3
    ours.eval()
    before = {name: buffer.clone() for name, buffer in ours.named_buffers()}
    x, domains = tokens_of(3, 1, 4)
    got = ours(x, domains)
    for i, norm in enumerate(theirs):
        torch.testing.assert_close(got[domains == i], norm.eval()(x[domains == i]), rtol=0, atol=1e-5)
    assert all(torch.equal(before[name], buffer) for name, buffer in ours.named_buffers())


def test_gradients_equal_those_of_one_batch_norm_per_domain():
    ours, theirs = DomainNorm(2, D), norm_of_each_domain(2)
    x, domains = tokens_of(12, 5)
    x.requires_grad_()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (got,) = torch.autograd.grad((ours(x, domains) * weights).sum(), x)
    parts = [(norm(x[domains == i]) * weights[domains == i]).sum() for i, norm in enumerate(theirs)]
    (expected,) = torch.autograd.grad(sum(parts), x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_a_domain_that_is_absent_keeps_its_statistics():
    norm = DomainNorm(3, D)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    x, domains = tokens_of(8, 0, 4)
    assert norm(x, domains).isfinite().all()
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer[1], before[name][1])
        assert not torch.equal(buffer[0], before[name][0])
    assert norm.num_batches_tracked.tolist() == [1, 0, 1]


def test_a_domain_of_one_token_becomes_zero_and_stays_finite():
    norm = DomainNorm(2, D)
    x, domains = tokens_of(10, 1)
    x.requires_grad_()
    out = norm(x, domains)
    assert torch.equal(out[domains == 1], torch.zeros(1, D))
    out.square().sum().backward()
    assert x.grad.isfinite().all()
    assert torch.equal(norm.running_mean[1], torch.zeros(D))
    assert torch.equal(norm.running_var[1], torch.ones(D))
    assert norm.num_batches_tracked.tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_are_taken_in_float32(dtype):
    norm = DomainNorm(1, D)
    x = (torch.randn(500, D) + 40).to(dtype)  # squares summed in half precision would lose all of the variance
    out = norm(x, torch.zeros(500, dtype=torch.int64))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float().std(0), torch.ones(D), rtol=0, atol=0.02)
    assert norm.running_mean.dtype == torch.float32


def test_without_momentum_statistics_are_means_over_minibatches():
    ours = DomainNorm(2, D, momentum=None)
    theirs = [torch.nn.BatchNorm1d(D, eps=EPS, affine=False, momentum=None) for _ in range(2)]
    for counts in ((9, 0), (4, 12), (30, 3)):
        x, domains = tokens_of(*counts)
        ours(x, domains)
        for i, norm in enumerate(theirs):
            if counts[i]:
                norm(x[domains == i])
    for i, norm in enumerate(theirs):
        torch.testing.assert_close(ours.running_mean[i], norm.running_mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.running_var[i], norm.running_var, rtol=1e-5, atol=1e-5)


def test_fixed_domains_are_normed_as_in_evaluation_and_keep_their_statistics():
    norm = DomainNorm(3, D)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.n_fixed = 2
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    x, domains = tokens_of(8, 5, 7)
    expected = norm.eval()(x, domains)
    got = norm.train()(x, domains)
    assert torch.equal(got[domains < 2], expected[domains < 2])
    torch.testing.assert_close(got[domains == 2].mean(0), torch.zeros(D), rtol=0, atol=1e-6)
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer[:2], before[name][:2])
        assert not torch.equal(buffer[2], before[name][2])
