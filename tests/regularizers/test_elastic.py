"""Elastic weight consolidation against the sum over stored tasks; for its Fisher information see test_fisher.py."""

from __future__ import annotations

import pytest
import torch

from dendrite_zoo.regularizers import ElasticWeightConsolidation


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


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_changes_nothing(online, value):
    ewc = ElasticWeightConsolidation({"a": torch.zeros(2), "b": torch.ones(2)}, online=online)
    ewc.end_task({"a": torch.ones(2), "b": torch.ones(2)})
    before = str(ewc.state_dict())
    ewc.parameters["a"].add_(1.0)
    with pytest.raises(
        ValueError, match=r"Expected the Fisher .* to be finite, but got NaN or infinity for 'b'\. Some"
    ):
        ewc.end_task({"a": torch.ones(2), "b": torch.tensor([1.0, value])})
    assert str(ewc.state_dict()) == before
