"""Synaptic intelligence against numbers worked by hand, a naive loop and the path integral's meaning."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dendrite_zoo.regularizers import SynapticIntelligence


def test_by_hand():
    """Loss (θ - 3)²/2 from θ = 1 with steps of size 0.5, then a second task with loss θ²/2."""
    theta = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([theta], lr=0.5)
    si = SynapticIntelligence({"theta": theta}, si_lambda=0.1, eps=0.5)

    def step(target):
        optimizer.zero_grad()
        ((theta - target) ** 2 / 2).sum().backward()
        si.before_step()
        optimizer.step()
        si.after_step()

    step(3.0)  # g = -2, Δθ = +1: ω = 2
    assert (theta.item(), si.path["theta"].item()) == (2.0, 2.0)
    step(3.0)  # g = -1, Δθ = +0.5: ω = 2.5
    assert (theta.item(), si.path["theta"].item()) == (2.5, 2.5)
    si.end_task()  # Ω = 2.5 / (1.5² + 0.5) = 10/11
    assert si.importance["theta"].item() == pytest.approx(10 / 11, rel=1e-12)
    assert (si.anchor["theta"].item(), si.path["theta"].item()) == (2.5, 0.0)
    step(0.0)  # g = 2.5, the penalty's is 0 at θ*: Δθ = -1.25, ω = 3.125
    assert (theta.item(), si.path["theta"].item()) == (1.25, 3.125)
    step(0.0)  # g = 1.25, and the penalty's 2 · 0.1 · 10/11 · -1.25 = -5/22: Δθ = -0.5 (1.25 - 5/22)
    moved = -0.5 * (1.25 - 5 / 22)
    assert theta.item() == pytest.approx(1.25 + moved, rel=1e-12)
    assert si.path["theta"].item() == pytest.approx(3.125 - 1.25 * moved, rel=1e-12)
    si.end_task()
    expected = 10 / 11 + (3.125 - 1.25 * moved) / ((theta.item() - 2.5) ** 2 + 0.5)
    assert si.importance["theta"].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("optimizer, lr", [(torch.optim.SGD, 1e-3), (torch.optim.Adam, 1e-3)])
def test_the_path_adds_up_to_the_fall_of_the_loss(optimizer, lr):
    """Along small steps the path integral of the gradient is the loss's decrease (Zenke 2017, eq. 3)."""
    torch.manual_seed(0)
    A = torch.randn(6, 4, dtype=torch.float64)
    theta = nn.Parameter(torch.randn(4, dtype=torch.float64))
    si, optimizer = SynapticIntelligence({"theta": theta}), optimizer([theta], lr)

    def loss():
        return (A @ theta).square().sum() / 2

    start = loss().item()
    for _ in range(400):
        optimizer.zero_grad()
        loss().backward()
        si.before_step()
        optimizer.step()
    si.after_step()
    fall = start - loss().item()
    assert fall > 0.5 * start and si.path["theta"].sum().item() == pytest.approx(fall, rel=0.02)


def naive(thetas, gradients, tasks, si_lambda, eps):
    """SI by its definition, weight by weight, from the course of weights and of the task's gradients."""
    size = len(thetas[0])
    importance, pulls = [0.0] * size, []
    first = 0
    for length in tasks:
        for t in range(first, first + length):
            pulls.append([2 * si_lambda * importance[k] * (thetas[t][k] - thetas[first][k]) for k in range(size)])
        for k in range(size):
            steps = range(first, first + length)
            path = -sum(gradients[t][k] * (thetas[t + 1][k] - thetas[t][k]) for t in steps)
            importance[k] += max(path, 0.0) / ((thetas[first + length][k] - thetas[first][k]) ** 2 + eps)
        first += length
    return importance, pulls


def test_agrees_with_a_naive_loop_through_clipping_momentum_and_three_tasks():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    si = SynapticIntelligence(dict(model.named_parameters()), si_lambda=0.3, eps=0.05)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    flat = nn.utils.parameters_to_vector
    thetas, gradients, pulls, tasks = [flat(model.parameters()).tolist()], [], [], [7, 5, 6]
    for length in tasks:
        x, y = torch.randn(8, 3, dtype=torch.float64), torch.randint(2, (8,))
        for _ in range(length):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            gradients.append(flat([p.grad for p in model.parameters()]).tolist())
            si.before_step()
            pulls.append((flat([p.grad for p in model.parameters()]) - torch.tensor(gradients[-1])).tolist())
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            thetas.append(flat(model.parameters()).tolist())
        si.end_task()  # after_step is made up for
    importance, expected_pulls = naive(thetas, gradients, tasks, 0.3, 0.05)
    torch.testing.assert_close(flat(list(si.importance.values())).tolist(), importance, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.tensor(pulls), torch.tensor(expected_pulls), rtol=1e-6, atol=1e-7)
    assert max(map(max, expected_pulls)) > 1e-4


def test_a_step_that_is_skipped_adds_nothing():
    theta = nn.Parameter(torch.ones(3))
    si = SynapticIntelligence({"theta": theta})
    theta.grad = torch.ones(3)
    si.before_step()
    si.before_step()
    si.after_step()
    assert si.path["theta"].eq(0).all()


def test_several_optimizers_each_move_their_own():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    si = SynapticIntelligence({"a": a, "b": b})
    for p in (a, b):
        optimizer = torch.optim.SGD([p], lr=0.1)
        a.grad, b.grad = torch.full((2,), 2.0), torch.full((2,), 3.0)
        si.before_step([p])
        optimizer.step()
    si.end_task()
    torch.testing.assert_close(si.importance["a"], torch.full((2,), 0.4 / (0.04 + 0.1)))
    torch.testing.assert_close(si.importance["b"], torch.full((2,), 0.9 / (0.09 + 0.1)))


@pytest.mark.parametrize("row_dims", [1, 2])
def test_sparse_gradients_give_what_dense_ones_give(row_dims):
    """Of a sub-network's gradient the numbers elsewhere are zero: without them nothing changes, nor is touched."""
    torch.manual_seed(0)
    dense = nn.Linear(6, 5, bias=False)
    sparse = copy.deepcopy(dense)
    models = [(m, SynapticIntelligence({"w": m.weight}, si_lambda=2.0)) for m in (dense, sparse)]
    for _ in range(3):
        rows, columns = torch.randperm(5)[:2, None], torch.randperm(6)[:3]
        for _ in range(4):
            gradient = torch.zeros(5, 6)
            gradient[rows, columns] = torch.randn(2, 3)
            for (model, si), g in zip(models, (gradient, gradient.to_sparse(row_dims)), strict=True):
                model.weight.grad = g.clone()
                si.before_step()
                torch.optim.SGD(model.parameters(), lr=0.1).step()
                si.after_step()
        for _, si in models:
            si.end_task()
    torch.testing.assert_close(dense.weight, sparse.weight)
    (_, one), (_, other) = models
    for name in ("importance", "anchor", "path"):
        torch.testing.assert_close(getattr(one, name)["w"], getattr(other, name)["w"])
    other.importance["w"].fill_(torch.nan)
    other.importance["w"][rows, columns] = 0.0
    sparse.weight.grad = gradient.to_sparse(2)
    other.before_step()
    other.after_step()
    assert sparse.weight.grad.values().isfinite().all() and other.path["w"].isfinite().all()


def test_parameters_in_another_memory_format():
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 2)
    other = copy.deepcopy(convolution).to(memory_format=torch.channels_last)
    found = []
    for model in (convolution, other):
        si = SynapticIntelligence(dict(model.named_parameters()))
        for _ in range(2):
            model.zero_grad()
            model(torch.ones(2, 3, 5, 5)).square().mean().backward()
            si.before_step()
            torch.optim.SGD(model.parameters(), lr=0.1).step()
            si.end_task()
        found.append(si.importance["weight"])
    torch.testing.assert_close(*found)


def test_resumes_to_the_bit(tmp_path):
    """A state taken between any two steps, a step's end not yet seen, goes on as if nothing had happened."""

    def run(stop=None):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        si = SynapticIntelligence(dict(model.named_parameters()), si_lambda=1.0)
        for t in range(9):
            if t == stop:
                torch.save([model.state_dict(), si.state_dict()], tmp_path / "state.pt")
                weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
                model = nn.Linear(3, 2)
                model.load_state_dict(weights)
                si = SynapticIntelligence(dict(model.named_parameters()), si_lambda=1.0)
                si.load_state_dict(state)
            if t and t % 3 == 0:
                si.end_task()
            model.zero_grad()
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(t))
            model(x).square().mean().backward()
            si.before_step()
            torch.optim.SGD(model.parameters(), lr=0.1).step()
        si.end_task()
        return torch.cat([t.flatten() for t in (*model.parameters(), *si.importance.values())])

    assert all(torch.equal(run(), run(stop)) for stop in range(9))


def test_bad_input():
    with pytest.raises(ValueError, match="Expected `eps` to be a positive number, such as 0.1, but got 0"):
        SynapticIntelligence({}, eps=0)


@pytest.mark.parametrize("what", ["gradient", "weight"])
def test_what_is_not_finite_changes_nothing(what):
    """A step that an optimizer left out has a gradient all the same, and 0 times infinity is NaN."""
    theta = nn.Parameter(torch.ones(2))
    si = SynapticIntelligence({"theta": theta})
    theta.grad = torch.tensor([1.0, torch.inf if what == "gradient" else 1.0])
    si.before_step()
    if what == "weight":
        theta.data[0] = torch.nan
    si.after_step()
    before = str(si.state_dict())
    with pytest.raises(ValueError, match=r"Expected the .* to be finite, but got NaN or infinity for 'theta'\. Skip"):
        si.end_task()
    assert str(si.state_dict()) == before


@pytest.mark.parametrize("resumed", [False, True])
def test_a_task_that_covers_some_rows_ends_as_if_it_had_covered_all(resumed):
    torch.manual_seed(0)
    dense = nn.Linear(4, 50)
    sparse = copy.deepcopy(dense)
    models = [(m, SynapticIntelligence({"w": m.weight}, si_lambda=2.0)) for m in (dense, sparse)]
    for task in range(3):
        rows = torch.randperm(50)[:10]
        for step in range(4):
            gradient = torch.zeros(50, 4)
            some = rows[:5] if step < 2 else rows
            gradient[some] = torch.randn(len(some), 4)
            indices = some.sort().values.unsqueeze(0)
            few = torch.sparse_coo_tensor(
                indices, gradient[indices[0]], (50, 4), is_coalesced=True, check_invariants=True
            )
            for (model, si), g in zip(models, (gradient, few), strict=True):
                model.weight.grad = g.clone()
                si.before_step()
                with torch.no_grad():
                    model.weight -= 0.1 * model.weight.grad.to_dense()
            if resumed and step == 2:
                state = copy.deepcopy(models[1][1].state_dict())
                models[1] = (sparse, SynapticIntelligence({"w": sparse.weight}, si_lambda=2.0))
                models[1][1].load_state_dict(state)
        for _, si in models:
            si.end_task()
        whole, part = models[0][1], models[1][1]
        for name in ("importance", "anchor", "path"):
            assert torch.equal(getattr(whole, name)["w"], getattr(part, name)["w"]), (task, name)
    assert torch.equal(dense.weight, sparse.weight)
