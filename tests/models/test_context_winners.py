"""Winners chosen by the context alone: equal to masking the dense computation, and as cheap as what is active."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_zoo import functional as DF
from dendrite_zoo.functional import GATES
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.row_sparse import subnetworks
from dendrite_zoo.row_sparse.parameter import RowParameter
from tests import reference

C = 4


def make(**arguments):
    defaults = {"context_dim": C, "num_segments": 3, "activation_density": 0.25, "winners": "context"}
    return ActiveDendriteMLP(6, [20, 24], 3, **{**defaults, **arguments})


def dense_and_masked(model, x, context):
    """The whole network, one row at a time; what is not among the most open gates of its layer is zeroed."""
    rows = []
    for row, c in zip(x, reference.context_rows(context, len(x), model.output.weight.new_zeros(1, 1, C)), strict=True):
        for layer in model.hidden:
            drive = F.linear(row, layer.weight if layer.mask is None else layer.weight * layer.mask, layer.bias)
            norm = norm_by_hand if model.config["layer_norm"] else lambda units: units
            if layer.segments is None:
                row = torch.relu(norm(drive))
                continue
            strength = torch.stack([reference.strength(u, c, layer.gate) for u in layer.segments])
            k = max(1, round(model.config["activation_density"] * len(strength)))
            active = strength.argsort(descending=True)[:k]
            gated = DF.apply_gate(drive, strength, layer.gate)
            row = torch.zeros_like(strength).scatter(0, active, torch.relu(norm(gated[active])))
        rows.append(model.output(row))
    return torch.stack(rows)


def norm_by_hand(units):
    return (units - units.mean()) / (units.var(correction=0) + 1e-5).sqrt()


def contexts(batch):
    generator = torch.Generator().manual_seed(1)
    return {
        "shared": torch.randn(C, generator=generator),
        "id": torch.tensor(1),
        "codebook": (torch.randn(3, C, generator=generator), torch.randint(0, 3, (batch,), generator=generator)),
        "ids": torch.randint(0, C, (batch,), generator=generator),
        "rows": torch.randn(batch, C, generator=generator),
    }


def gradients(model, out):
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), parameters)


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(["shared", "id", "codebook", "ids", "rows"]),
    gate=st.sampled_from(GATES),
    batch=st.integers(1, 6),
    density=st.sampled_from([0.01, 0.25, 1.0]),
    weight_density=st.sampled_from([0.5, 1.0]),
    dendrite_layers=st.sampled_from([None, [0], [1], []]),
    layer_norm=st.booleans(),
    seed=st.integers(0, 9),
)
def test_equals_the_masked_dense_network(form, batch, density, seed, **options):
    torch.manual_seed(seed)
    model = make(activation_density=density, **options)
    model, x, context = model.double(), torch.randn(batch, 6).double(), contexts(batch)[form]
    sparse, dense = model(x, context), dense_and_masked(model, x, context)
    torch.testing.assert_close(sparse, dense, atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(gradients(model, sparse), gradients(model, dense), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("form", ["shared", "id", "codebook", "ids"])
def test_an_owners_gradients_hold_what_is_used_and_are_equal(form):
    model = make()
    x, context = torch.randn(8, 6), contexts(8)[form]
    model(x, context).square().sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    optimizer = DendriteAdam(model.parameters())
    optimizer.zero_grad()
    model(x, context).square().sum().backward()
    for name, p in model.named_parameters():
        if name.endswith("segments"):
            assert p.grad is None
        else:
            assert p.grad.is_sparse or form in ("codebook", "ids")  # whose parts together are most of so small a layer
            torch.testing.assert_close(p.grad.to_dense(), expected[name])


def test_the_gradient_of_a_large_layer_is_sparse_where_contexts_mix():
    torch.manual_seed(0)
    model = ActiveDendriteMLP(6, [400, 400], 3, context_dim=C, num_segments=3, winners="context", weight_density=1.0)
    x, context = torch.randn(8, 6), contexts(8)["codebook"]
    model(x, context).square().sum().backward()
    expected = model.hidden[1].weight.grad
    optimizer = DendriteAdam(model.parameters())
    optimizer.zero_grad()
    model(x, context).square().sum().backward()
    assert model.hidden[1].weight.grad.is_sparse
    torch.testing.assert_close(model.hidden[1].weight.grad.to_dense(), expected)


@pytest.mark.parametrize("form", ["codebook", "ids", "rows"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_computed_as_a_whole_it_is_the_same(form, layer_norm):
    model, x, context = make(layer_norm=layer_norm).double(), torch.randn(6, 6).double(), contexts(6)[form]
    grouped, whole = model(x, context), model._forward_masked(x, context)
    torch.testing.assert_close(whole, grouped)
    for ours, theirs in zip(gradients(model, whole), gradients(model, grouped), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_sparse_gradient_holds_the_active_parameters_in_order():
    model, context = make(), contexts(1)["shared"]
    optimizer = DendriteAdam(model.parameters())
    model(torch.randn(8, 6), context).square().sum().backward()
    parts, named = model.active_parameters(context), dict(model.named_parameters())
    assert set(parts) == {"hidden.0.weight", "hidden.0.bias", "hidden.1.weight", "hidden.1.bias", "output.weight"}
    for name, index in parts.items():
        grad = named[name].grad
        assert torch.equal(grad.coalesce().values().view_as(named[name][index]), grad.to_dense()[index])
        outside = grad.to_dense()
        outside[index] = 0
        assert (outside == 0).all()
    assert [units.tolist() for units in model.active_units(context)] == [
        parts[f"hidden.{n}.bias"].tolist() for n in range(2)
    ]
    assert [len(units) for units in model.active_units(context)] == [5, 6] and optimizer.param_groups


@pytest.mark.parametrize("owned", [True, False])
def test_training_equals_torchs_on_the_masked_dense_network(owned):
    """Adam; for an owner SparseAdam, which leaves alone what is active and has no gradient, such as a dead unit's."""
    torch.manual_seed(0)
    model = make()
    twin, context = copy.deepcopy(model), contexts(1)["shared"]
    learning = [p for p in twin.parameters() if p.requires_grad]
    other = (torch.optim.SparseAdam if owned else torch.optim.Adam)(learning, lr=0.01)
    optimizer = (DendriteAdam if owned else torch.optim.Adam)(model.parameters(), lr=0.01)
    for _ in range(6):
        x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
        optimizer.zero_grad()
        F.cross_entropy(model(x, context), y).backward()
        optimizer.step()
        twin.zero_grad()
        F.cross_entropy(dense_and_masked(twin, x, context), y).backward()
        for p in learning if owned else ():
            assert isinstance(p, RowParameter)
            p.grad = p.grad.to_sparse(p.row_dims) if p.grad is not None else None
        other.step()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")


def test_what_another_context_uses_stays_as_it_is():
    torch.manual_seed(0)
    model = ActiveDendriteMLP(6, [200], 3, context_dim=50, num_segments=5, winners="context", activation_density=0.03)
    optimizer = DendriteAdam(model.parameters(), lr=0.1)
    one, other = torch.randn(2, 50)
    assert not set(model.active_units(one)[0].tolist()) & set(model.active_units(other)[0].tolist())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 6), one).square().sum().backward()
        optimizer.step()
    parts = model.active_parameters(other)
    for name, p in model.named_parameters():
        if name in parts:
            assert torch.equal(p[parts[name]], before[name][parts[name]]) and not torch.equal(p, before[name])


def test_units_are_chosen_once_and_anew_when_segments_change(monkeypatch):
    count = []
    choose = subnetworks.winning_activations
    monkeypatch.setattr(subnetworks, "winning_activations", lambda *args: count.append(1) or choose(*args))
    model, x = make(), torch.randn(4, 6)
    for _ in range(3):
        for form in ("shared", "id", "codebook"):
            model(x, contexts(4)[form])
    assert len(count) == 2 * 3  # two layers, three forms; the contexts of a codebook are chosen together
    before = model.active_units(contexts(4)["shared"])
    torch.manual_seed(5)
    with torch.no_grad():
        model.hidden[0].reset_parameters()
    after = model.active_units(contexts(4)["shared"])
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
    clone = copy.deepcopy(model)
    clone.load_state_dict(make().state_dict())
    assert not torch.equal(clone.active_units(contexts(4)["shared"])[0], after[0])


def test_saved_and_loaded_it_chooses_the_same_units(tmp_path):
    model = ActiveDendriteClassifier(8, [64, 64], 3, max_tasks=4, num_segments=5, winners="context")
    for task in range(2):
        model.context.start_task(task, [torch.randn(20, 8) + 4 * task])
    model.save_pretrained(tmp_path)
    again, x = ActiveDendriteClassifier.from_pretrained(tmp_path), torch.randn(6, 8)
    assert torch.equal(model.eval()(x), again(x)) and not again.mlp.hidden[0].segments.requires_grad
    for ours, theirs in zip(model.active_units(1), again.active_units(1), strict=True):
        assert torch.equal(ours, theirs) and len(ours) == 13
    assert set(model.active_parameters(1)) == {f"mlp.{name}" for name in model.mlp.active_parameters(torch.zeros(8))}
    assert all(name in dict(model.named_parameters()) for name in model.active_parameters(1))


def test_trains_after_it_was_evaluated_in_inference_mode():
    model, x, context = make(), torch.randn(4, 6), contexts(4)["codebook"]
    with torch.inference_mode():
        expected = model(x, (context[0].clone(), context[1]))
    out = model(x, context)
    out.square().sum().backward()
    assert torch.equal(out, expected)


def test_bad_arguments():
    for arguments, words in (
        ({"winners": "dice"}, "Expected `winners` to be one of 'activation', 'context', but got 'dice'"),
        ({"activation": "relu"}, "Expected `activation` to be 'k-winners' with winners='context', but got 'relu'"),
        (
            {"num_segments": 0},
            "Expected `num_segments` to be at least 1 with winners='context', but got 0",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            make(**arguments)
    with pytest.raises(
        ValueError,
        match="Expected `winners` to be 'context', whose units are the same for all inputs, but got 'activation'",
    ):
        make(winners="activation").active_units(torch.zeros(C))


def test_compiles():
    model, x = make(), torch.randn(4, 6)
    for form in ("shared", "id"):
        compiled = torch.compile(model, backend="aot_eager")
        torch.testing.assert_close(compiled(x, contexts(4)[form]), model(x, contexts(4)[form]))


def test_bf16_autocast():
    model, x, context = make(), torch.randn(4, 6), contexts(4)["codebook"]
    optimizer = DendriteAdam(model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, context)
    torch.testing.assert_close(out.float(), model(x, context), atol=0.05, rtol=0.1)
    expected = iter(gradients(model, model(x, context)))
    (out.float() * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, next(expected), atol=0.05, rtol=0.1)
    optimizer.step()


@pytest.mark.parametrize("form", ["shared", "codebook", "ids", "rows"])
def test_compiles_into_one_graph(form):
    model, x, context = make(layer_norm=form == "codebook"), torch.randn(8, 6), contexts(8)[form]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x, context), model(x, context))
    expected = gradients(model, model(x, context))
    for ours, theirs in zip(gradients(model, compiled(x, context)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_compiles_into_one_graph_where_the_task_is_inferred():
    model = ActiveDendriteClassifier(8, [64], 3, max_tasks=4, num_segments=5, winners="context").eval()
    for task in range(3):
        model.context.start_task(task, [torch.randn(20, 8) + 3 * task])
    x = torch.randn(9, 8) + 3 * torch.arange(9).remainder(3).unsqueeze(1)
    assert set(model.context.infer(x).tolist()) == {0, 1, 2}
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x), model(x))
