"""Elastic weight consolidation against closed forms of the Fisher information and the sum over stored tasks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dendrite_zoo.regularizers import ElasticWeightConsolidation, fisher_diagonal


def test_fisher_of_a_linear_gaussian_model():
    """log p(y | x) = -(y - w·x)²/2: the gradient is r x, and F the mean of r² x²."""
    torch.manual_seed(0)
    w = torch.randn(3, dtype=torch.float64, requires_grad=True)
    x, noise = torch.randn(50, 3, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    y = x @ w.detach() + noise
    samples = (-((y[i : i + 1] - x[i : i + 1] @ w) ** 2) / 2 for i in range(50))
    fisher = fisher_diagonal({"w": w}, samples)["w"]
    torch.testing.assert_close(fisher, (noise[:, None].square() * x.square()).mean(0))


def test_fisher_of_a_logistic_model():
    """Over labels as the model draws them, F is the mean of p (1 - p) x²."""
    torch.manual_seed(0)
    w, x = torch.randn(4, dtype=torch.float64, requires_grad=True), torch.randn(20, 4, dtype=torch.float64)
    p = torch.sigmoid(x @ w).detach()

    def each_label():
        for i in range(20):
            for label, share in ((1.0, p[i]), (-1.0, 1 - p[i])):
                yield 2**0.5 * share.sqrt() * F.logsigmoid(label * (x[i : i + 1] @ w))

    expected = ((p * (1 - p))[:, None] * x.square()).mean(0)
    torch.testing.assert_close(fisher_diagonal({"w": w}, each_label())["w"], expected)


def test_batches_give_the_samples_squares_on_average():
    """Random signs make the batch's square unbiased; the square of the mean gradient is something else."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    parameters = dict(model.named_parameters())
    x, y = torch.randn(64, 4), torch.randint(3, (64,))

    def log_likelihoods(size):
        batches = zip(x.split(size), y.split(size), strict=True)
        return (-F.cross_entropy(model(a), b, reduction="none") for a, b in batches)

    exact = fisher_diagonal(parameters, log_likelihoods(1))
    draws = [fisher_diagonal(parameters, log_likelihoods(16), torch.Generator().manual_seed(s)) for s in range(400)]
    for name in parameters:
        mean = torch.stack([draw[name] for draw in draws]).mean(0)
        assert ((mean - exact[name]).norm() / exact[name].norm()).item() < 0.1
    again = fisher_diagonal(parameters, log_likelihoods(16), torch.Generator().manual_seed(3))
    assert all(torch.equal(again[name], draws[3][name]) for name in parameters)
    (gradient,) = torch.autograd.grad(-F.cross_entropy(model(x), y), model[0].weight)
    assert gradient.square().sum() < 0.2 * exact["0.weight"].sum()


def test_parameters_out_of_play_have_no_information():
    used, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    fisher = fisher_diagonal({"used": used, "unused": unused}, [(3 * used).sum()[None]])
    assert fisher["used"].tolist() == [9, 9] and fisher["unused"].tolist() == [0, 0]


def test_sparse_gradients_count_as_dense_ones_do():
    torch.manual_seed(0)
    dense = nn.Embedding(5, 3)
    sparse = nn.Embedding(5, 3, sparse=True, _weight=dense.weight.detach().clone())
    ids = torch.tensor([[0, 2], [2, 2], [4, 0]])
    found = [
        fisher_diagonal({"w": m.weight}, (m(row).square().sum()[None] for row in ids))["w"] for m in (dense, sparse)
    ]
    torch.testing.assert_close(*found)


def tasks(count=5, size=6):
    torch.manual_seed(0)
    for _ in range(count):
        fisher = torch.rand(size, dtype=torch.float64) * (torch.rand(size) > 0.4)
        yield torch.randn(size, dtype=torch.float64), fisher


def test_one_parabola_is_the_sum_over_stored_tasks():
    theta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    ewc = ElasticWeightConsolidation({"theta": theta}, ewc_lambda=3.0)
    stored = []
    for where, fisher in tasks():
        theta.data.copy_(where)
        ewc.end_task({"theta": fisher})
        stored.append((where, fisher))
        theta.data.normal_()
        theta.grad = None
        naive = 3.0 / 2 * sum((f * (theta - t) ** 2).sum() for t, f in stored)
        naive.backward()
        torch.testing.assert_close(ewc.penalty().detach(), naive.detach())
        expected, theta.grad = theta.grad, torch.zeros_like(theta)
        ewc.add_gradient()
        torch.testing.assert_close(theta.grad, expected)


def test_online_keeps_the_latest_weights_and_a_running_importance():
    theta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    ewc = ElasticWeightConsolidation({"theta": theta}, ewc_lambda=3.0, online=True, decay=0.8)
    running = torch.zeros(6, dtype=torch.float64)
    for where, fisher in tasks():
        theta.data.copy_(where)
        ewc.end_task({"theta": fisher})
        running = 0.8 * running + fisher
        theta.data.normal_()
        torch.testing.assert_close(ewc.penalty(), 1.5 * (running * (theta - where) ** 2).sum())


def test_state_goes_through_a_checkpoint(tmp_path):
    def make():
        return ElasticWeightConsolidation({"theta": torch.zeros(6, dtype=torch.float64)}, ewc_lambda=3.0)

    ewc = make()
    for where, fisher in tasks():
        ewc.parameters["theta"].copy_(where)
        ewc.end_task({"theta": fisher})
    torch.save(ewc.state_dict(), tmp_path / "state.pt")
    again = make()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    again.parameters["theta"].copy_(where)
    assert again.penalty() == ewc.penalty() > 0 and again.num_tasks == 5


def test_bad_input():
    theta = torch.ones(2, requires_grad=True)
    with pytest.raises(
        ValueError, match=r"Expected `decay` in \(0, 1\], and 1 unless online=True, but got 0.5 and online=False"
    ):
        ElasticWeightConsolidation({"theta": theta}, decay=0.5)
    with pytest.raises(ValueError, match="Expected `ewc_lambda` to be a number of at least 0, but got -1"):
        ElasticWeightConsolidation({"theta": theta}, ewc_lambda=-1)
    with pytest.raises(ValueError, match=r"shape \(B,\), one number a sample, but got \(\)"):
        fisher_diagonal({"theta": theta}, [theta.sum()])
    with pytest.raises(ValueError, match="at least one sample of the task, but got none"):
        fisher_diagonal({"theta": theta}, [])
