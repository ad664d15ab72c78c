"""The penalty itself: as if it stood in the loss, on the chosen parameters, on their active part."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dendrite_zoo.regularizers import (
    ElasticWeightConsolidation,
    QuadraticPenalty,
    SynapticIntelligence,
    select_parameters,
)


def pulled(weight=0.7, dtype=torch.float32):
    """A penalty on a model that has moved away from its anchor."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    penalty = QuadraticPenalty(dict(model.named_parameters()), weight)
    penalty.num_tasks = 1
    with torch.no_grad():
        for name, p in model.named_parameters():
            penalty.importance[name].copy_(torch.rand_like(p))
            p.add_(torch.randn_like(p))
    return model, penalty


def loss(model):
    return model(torch.ones(3, 5)).square().mean()


def test_is_the_weighted_sum_of_squares():
    theta = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    penalty = QuadraticPenalty({"theta": theta}, weight=0.5)
    penalty.importance["theta"].copy_(torch.tensor([1.0, 0.0, 4.0]))
    theta.data.add_(torch.tensor([1.0, 1.0, -2.0]))
    assert penalty.penalty().item() == 0.5 * (1 * 1 + 0 * 1 + 4 * 4)
    penalty.penalty().backward()
    assert theta.grad.tolist() == [2 * 0.5 * 1 * 1, 0, 2 * 0.5 * 4 * -2]


@pytest.mark.parametrize("kind", [QuadraticPenalty, SynapticIntelligence, ElasticWeightConsolidation])
def test_parameters_without_names_are_refused(kind):
    for parameters in (0.1, nn.Linear(2, 2).parameters(), nn.Linear(2, 2)):
        with pytest.raises(TypeError, match="by name, such as dict.*the same name in dendrite_zoo.callbacks"):
            kind(parameters, 0.1)


def test_its_gradient_is_what_it_would_be_in_the_loss():
    model, penalty = pulled()
    (loss(model) + penalty.penalty()).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    loss(model).backward()
    penalty.add_gradient()
    for p, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_pulls_nothing_before_a_task_was_consolidated():
    model, penalty = pulled()
    penalty.num_tasks = 0
    loss(model).backward()
    before = [p.grad.clone() for p in model.parameters()]
    penalty.add_gradient()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


def test_leaves_parameters_alone_that_have_no_gradient_or_another_optimizer():
    model, penalty = pulled()
    loss(model).backward()
    model[0].weight.grad = None
    before = model[2].bias.grad.clone()
    penalty.add_gradient([model[0].weight, model[2].weight])
    assert model[0].weight.grad is None and torch.equal(model[2].bias.grad, before)


@pytest.mark.parametrize("row_dims", [1, 2])
def test_rows_of_a_sparse_gradient(row_dims):
    """The rows that are there get what they would get in a dense one; the others are not made up."""
    model, penalty = pulled()
    p = model[0].weight
    dense = torch.zeros(4, 5)
    dense[0], dense[3] = torch.randn(5), torch.randn(5)
    p.grad = dense.clone()
    penalty.add_gradient([p])
    expected = p.grad.clone()
    expected[1:3] = 0
    half = dense.to_sparse(row_dims) * 0.5
    p.grad = torch.sparse_coo_tensor(  # each entry twice, out of order
        torch.cat([half._indices(), half._indices().flip(1)], 1),
        torch.cat([half._values(), half._values().flip(0)]),
        (4, 5),
        check_invariants=True,
    )
    penalty.add_gradient([p])
    assert p.grad.is_sparse
    torch.testing.assert_close(p.grad.to_dense(), expected)


def test_half_precision_is_anchored_in_float32():
    model, penalty = pulled(dtype=torch.bfloat16)
    assert {t.dtype for t in (*penalty.anchor.values(), *penalty.importance.values())} == {torch.float32}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    penalty.add_gradient()
    p, name = model[0].weight, "0.weight"
    expected = 2 * 0.7 * penalty.importance[name] * (p.float() - penalty.anchor[name])
    assert p.grad.dtype == torch.bfloat16
    torch.testing.assert_close(p.grad.float(), expected.detach(), rtol=0.01, atol=0.01)


def test_state_goes_through_a_checkpoint(tmp_path):
    _, penalty = pulled()
    torch.save(penalty.state_dict(), tmp_path / "state.pt")
    model, again = pulled()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.num_tasks == 1
    for name in dict(model.named_parameters()):
        assert torch.equal(again.importance[name], penalty.importance[name])
        assert torch.equal(again.anchor[name], penalty.anchor[name])


def test_chooses_parameters_by_name():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model.b.segments = nn.Parameter(torch.zeros(2, 3, 4))
    model.a.bias.requires_grad_(False)
    assert list(select_parameters(model)) == ["a.weight", "b.weight", "b.bias"]
    assert list(select_parameters(model, "*", exclude=())) == ["a.weight", "b.weight", "b.bias", "b.segments"]
    assert list(select_parameters(model, ["b.*"], exclude=["*.bias", "*segments"])) == ["b.weight"]


def test_bad_input():
    model, penalty = pulled()
    with pytest.raises(
        ValueError, match=r"Expected patterns of names .* \['c.\*'\] match none. .* \['0.weight', '0.bias'"
    ):
        select_parameters(model, ["0.*", "c.*"])
    with pytest.raises(ValueError, match="names of Sequential, .* 0 parameters are left"):
        select_parameters(model, "*", exclude="*")
    with pytest.raises(ValueError, match="Expected `weight` to be a number of at least 0, but got -1"):
        QuadraticPenalty({}, -1)
    other = QuadraticPenalty({"0.weight": torch.zeros(1, 1)}, 1.0)
    with pytest.raises(ValueError, match=r"Expected '0.weight' of shape \(1, 1\) in the state of QuadraticPenalty"):
        other.load_state_dict({**other.state_dict(), "importance": {"0.weight": torch.zeros(4, 5)}})


def test_what_is_new_or_replaced_is_important_to_no_task_and_the_rest_stays():
    model, penalty = pulled()
    before = {name: tensor.clone() for name, tensor in penalty.importance.items()}
    model[2] = torch.nn.Linear(4, 7)
    penalty.hold(dict(model.named_parameters()))
    assert torch.equal(penalty.importance["0.weight"], before["0.weight"])
    assert penalty.importance["2.weight"].eq(0).all() and penalty.importance["2.weight"].shape == (7, 4)
    assert torch.equal(penalty.anchor["2.weight"], model[2].weight)
    loss(model).backward()
    penalty.add_gradient()
