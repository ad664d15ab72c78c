"""DendriteAdam equals Adam on ordinary parameters and SparseAdam on segments, in every setting."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.functional import GATES
from dendrite_zoo.layers import ActiveDendriteLinear
from dendrite_zoo.models import ActiveDendriteMLP
from dendrite_zoo.optim import DendriteAdam, clip_gradients_
from dendrite_zoo.row_sparse import row_adam
from dendrite_zoo.row_sparse.activation_cache import ActivationCache
from dendrite_zoo.row_sparse.parameter import RowParameter

C = 5


def make(seed=0, **arguments):
    torch.manual_seed(seed)
    return ActiveDendriteMLP(
        6, [16, 12], 3, **{"context_dim": C, "num_segments": 4, "activation_density": 0.5, **arguments}
    )


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 6, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def loss(model, seed, context):
    x, y = batch(seed)
    return F.cross_entropy(model(x, context), y)


def train(model, optimizer, context, steps=5, first=0, clip=None):
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss(model, step, context).backward()
        if clip is not None:
            clip_gradients_(model.parameters(), clip)
        optimizer.step()


def twin_optimizers(model, **arguments):
    """What DendriteAdam is tested against: torch's own, two of them, with gradients made sparse by hand."""
    segments = [p for name, p in model.named_parameters() if name.endswith("segments")]
    others = [p for name, p in model.named_parameters() if not name.endswith("segments")]
    return torch.optim.Adam(others, **arguments), torch.optim.SparseAdam(segments, **arguments)


def train_twin(model, optimizers, context, steps=5, first=0, clip=None):
    adam, sparse = optimizers
    for step in range(first, first + steps):
        model.zero_grad()
        loss(model, step, context).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        for p in sparse.param_groups[0]["params"]:
            p.grad = p.grad.to_sparse(2)
        adam.step()
        sparse.step()


def assert_same_weights(ours, theirs, **tolerance):
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def contexts():
    generator = torch.Generator().manual_seed(9)
    vector, codebook = torch.randn(C, generator=generator), torch.randn(3, C, generator=generator)
    return {
        "shared": vector,
        "codebook": (codebook, torch.tensor([0, 1, 1, 2, 0, 0, 2, 1])),
        "id": torch.tensor(2),
        "ids": torch.tensor([0, 1, 1, 2, 0, 0, 2, 1]),
        "rows": torch.randn(8, C, generator=generator),
    }


@pytest.mark.parametrize("form", contexts())
@pytest.mark.parametrize("clip", [None, 0.1])
def test_equals_adam_and_sparse_adam(form, clip):
    ours, theirs, context = make(), make(), contexts()[form]
    train(ours, DendriteAdam(ours.parameters(), lr=0.01), context, clip=clip)
    train_twin(theirs, twin_optimizers(theirs, lr=0.01), context, clip=clip)
    assert_same_weights(ours, theirs, atol=1e-6, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    gate=st.sampled_from(GATES),
    segments=st.integers(1, 6),
    density=st.sampled_from([0.4, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    forms=st.lists(st.sampled_from([*contexts(), "shared", "shared", "id"]), min_size=1, max_size=8),
    seed=st.integers(0, 5),
)
def test_training_equals_its_naive_twin_for_any_sequence_of_contexts(gate, segments, density, dtype, forms, seed):
    arguments = {"gate": gate, "num_segments": segments, "segment_density": density}
    ours, theirs = make(seed, **arguments).to(dtype), make(seed, **arguments).to(dtype)
    optimizer, twins = DendriteAdam(ours.parameters(), lr=0.01), twin_optimizers(theirs, lr=0.01)
    for step, form in enumerate(forms):
        context = contexts()[form]
        x, y = (t.to(dtype) if t.is_floating_point() else t for t in batch(step))
        optimizer.zero_grad()
        F.cross_entropy(ours(x, context), y).backward()
        optimizer.step()
        theirs.zero_grad()
        F.cross_entropy(theirs(x, context), y).backward()
        for p in twins[1].param_groups[0]["params"]:
            p.grad = p.grad.to_sparse(2)
        for twin in twins:
            twin.step()
    assert_same_weights(ours, theirs, atol=1e-5, rtol=1e-4)


def test_only_winning_rows_and_their_moments_move():
    model = make(num_segments=7)
    optimizer = DendriteAdam(model.parameters(), lr=0.01)
    before = [layer.segments.detach().clone() for layer in model.hidden]
    train(model, optimizer, contexts()["shared"], steps=1)
    for layer, old in zip(model.hidden, before, strict=True):
        moved = (layer.segments != old).any(-1)
        assert (moved.sum(1) <= 1).all() and moved.any()
        assert torch.equal(moved, (optimizer.state[layer.segments]["exp_avg"] != 0).any(-1))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.49, 0.51, 0.9, 1.0])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("row_dims", [1, 2])
@pytest.mark.parametrize("eps", [1e-8, 0.0])
def test_one_rule_on_both_sides_of_the_crossover(share, sparse, row_dims, eps):
    """Rows with gradient move as in SparseAdam, the others and their moments not at all, however it is computed."""
    torch.manual_seed(0)
    start = torch.randn(40, 3)
    ours, theirs = RowParameter(start.clone(), row_dims=row_dims), nn.Parameter(start.clone())
    optimizer, twin = DendriteAdam([ours], lr=0.1, eps=eps), torch.optim.SparseAdam([theirs], lr=0.1)
    twin.param_groups[0]["eps"] = eps
    for step in range(5):
        used = torch.rand(start.shape[:row_dims]) < (share if step % 2 else 1 - share)
        used = used if row_dims == 2 else used.unsqueeze(1)
        grad = torch.randn_like(start) * used
        before = ours.detach().clone()
        ours.grad = grad.to_sparse(row_dims) if sparse else grad.clone()
        theirs.grad = grad.to_sparse(row_dims)
        optimizer.step()
        twin.step()
        torch.testing.assert_close(ours.detach(), theirs.detach(), atol=1e-6, rtol=1e-5)
        still = ~used.expand_as(start)
        assert torch.equal(ours.detach()[still], before[still])
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(optimizer.state[ours][name], twin.state[theirs][name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 7), (200,)])
@pytest.mark.parametrize("sparse", [True, False])
def test_a_parameter_of_several_pieces_moves_as_one(shape, sparse, monkeypatch):
    """Also where a sparse gradient holds a row of zeros, which moves as little as one that it does not hold."""
    monkeypatch.setattr(row_adam, "PIECE", 50)
    torch.manual_seed(0)
    ours, theirs = RowParameter(torch.randn(shape), row_dims=1), nn.Parameter(torch.zeros(shape))
    theirs.data.copy_(ours.data)
    optimizer, twin = DendriteAdam([ours], lr=0.1), torch.optim.SparseAdam([theirs], lr=0.1)
    for share in (0.1, 0.9, 0.6, 0.1):
        used = torch.rand(shape[:1]) < share
        grad = torch.randn(shape) * used.view(-1, *[1] * (len(shape) - 1))
        held = (used | (torch.rand(shape[:1]) < 0.1)).nonzero().T
        options = {"is_coalesced": True, "check_invariants": True}
        ours.grad = torch.sparse_coo_tensor(held, grad[held[0]], shape, **options) if sparse else grad
        theirs.grad = grad.to_sparse(1)
        before = ours.detach().clone()
        optimizer.step()
        twin.step()
        assert torch.equal(ours.detach()[~used], before[~used])
    torch.testing.assert_close(ours.detach(), theirs.detach(), atol=1e-6, rtol=1e-5)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(optimizer.state[ours][name], twin.state[theirs][name], atol=1e-6, rtol=1e-5)


def test_state_dict_round_trip_continues_as_if_uninterrupted():
    straight, context = make(), contexts()["shared"]
    train(straight, DendriteAdam(straight.parameters(), lr=0.01), context, steps=8)
    model = make()
    optimizer = DendriteAdam(model.parameters(), lr=0.01)
    train(model, optimizer, context, steps=5)
    state = copy.deepcopy(optimizer.state_dict())
    resumed = make(seed=1)
    resumed.load_state_dict(model.state_dict())
    optimizer = DendriteAdam(resumed.parameters(), lr=0.5)
    optimizer.load_state_dict(state)
    train(resumed, optimizer, context, steps=3, first=5)
    assert_same_weights(resumed, straight, atol=0, rtol=0)


def test_takes_over_the_state_of_torchs_sparse_adam():
    ours, theirs, context = make(), make(), contexts()["shared"]
    twins = twin_optimizers(theirs, lr=0.01)
    train_twin(theirs, twins, context, steps=3)
    ours.load_state_dict(theirs.state_dict())
    optimizer = DendriteAdam(ours.parameters(), lr=0.01)
    state = optimizer.state_dict()
    names = [name for name, _ in ours.named_parameters()]
    of_kind = {kind: [n for n, name in enumerate(names) if name.endswith("segments") == kind] for kind in (False, True)}
    for twin, kind in zip(twins, (False, True), strict=True):
        state["state"] |= dict(zip(of_kind[kind], copy.deepcopy(twin.state_dict()["state"]).values(), strict=True))
    optimizer.load_state_dict(state)
    train(ours, optimizer, context, steps=3, first=3)
    train_twin(theirs, twins, context, steps=3, first=3)
    assert_same_weights(ours, theirs, atol=1e-6, rtol=1e-5)


def test_cleared_state_makes_it_as_new():
    one, other, context = make(), make(), contexts()["shared"]
    optimizer = DendriteAdam(one.parameters(), lr=0.01)
    train(one, optimizer, context)
    other.load_state_dict(one.state_dict())
    optimizer.state.clear()
    train(one, optimizer, context, first=5)
    train(other, DendriteAdam(other.parameters(), lr=0.01), context, first=5)
    assert_same_weights(one, other, atol=0, rtol=0)


@pytest.mark.parametrize("winners", ["activation", "context"])
def test_one_that_begins_anew_is_as_new(winners):
    model = make(winners=winners)
    twin, optimizer = copy.deepcopy(model), DendriteAdam(model.parameters(), lr=1e-2)
    train(model, optimizer, torch.randn(C))
    twin.load_state_dict(model.state_dict())
    optimizer.begin_anew()
    assert all(not state["exp_avg"].any() and state["step"] == 0 for state in optimizer.state.values())
    other = DendriteAdam(twin.parameters(), lr=1e-2)
    for first in (5, 10):  # in other contexts than before
        context = torch.randn(C)
        train(model, optimizer, context, first=first)
        train(twin, other, context, first=first)
    for one, new in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, new)


def test_accumulated_gradients():
    ours, theirs, context = make(), make(), contexts()["shared"]
    optimizer = DendriteAdam(ours.parameters(), lr=0.01)
    adam, sparse = twin_optimizers(theirs, lr=0.01)
    for step in range(3):
        for part in range(2):
            loss(ours, 2 * step + part, context).backward()
            loss(theirs, 2 * step + part, context).backward()
        for p in sparse.param_groups[0]["params"]:
            p.grad = p.grad.to_sparse(2)
        for o, model in ((optimizer, ours), (adam, None), (sparse, theirs)):
            o.step()
            if model is not None:
                model.zero_grad(set_to_none=step == 0)
    assert_same_weights(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_deepcopy_trains_under_any_optimizer_and_under_a_copied_one():
    model, context = make(), contexts()["shared"]
    optimizer = DendriteAdam(model.parameters(), lr=0.01)
    train(model, optimizer, context)
    stranger = copy.deepcopy(model)
    train(stranger, torch.optim.Adam(stranger.parameters(), fused=True), context)
    clone, clone_optimizer = copy.deepcopy((model, optimizer))
    train(clone, clone_optimizer, context)
    train(model, optimizer, context)
    assert_same_weights(clone, model, atol=0, rtol=0)
    assert clone.hidden[0].segments.owner is clone_optimizer and stranger.hidden[0].segments.owner is None


def test_parameters_added_later_are_owned_too():
    model = make()
    optimizer = DendriteAdam(model.hidden[0].parameters())
    optimizer.add_param_group({"params": list(model.hidden[1].parameters()), "lr": 1.0})
    assert all(layer.segments.owner is optimizer for layer in model.hidden)


def test_learning_rate_and_weight_decay_of_ordinary_parameters():
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizers = [DendriteAdam(ours.parameters(), lr=0.1, weight_decay=0.1)]
    optimizers.append(torch.optim.Adam(theirs.parameters(), lr=0.1, weight_decay=0.1))
    for optimizer, layer in zip(optimizers, (ours, theirs), strict=True):
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
            schedule.step()
    assert_same_weights(ours, theirs)


# Activations kept from step to step.


@pytest.fixture
def computed(monkeypatch):
    """Counts how often all activations of a layer are computed, and checks that kept ones are exact."""
    count, activations = [], ActivationCache.activations

    def counting(self, segments, context):
        self.check(segments)
        fresh = ActivationCache()
        expected = activations(fresh, segments, context)
        before = self._values
        kept = activations(self, segments, context)
        assert torch.equal(kept, expected)
        count.append(kept is not before)
        return kept

    monkeypatch.setattr(ActivationCache, "activations", counting)
    return count


@pytest.mark.parametrize("form", ["shared", "id"])
def test_a_fixed_context_is_met_once_and_stays_exact(form, computed):
    model = make()
    train(model, DendriteAdam(model.parameters(), lr=0.05), contexts()[form], steps=20)
    assert sum(computed) == 2 and len(computed) == 40


def other_fused(model, optimizer):
    model.zero_grad()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.Adam(model.parameters(), fused=True).step()


@torch.no_grad()
def in_place(model, optimizer):
    for layer in model.hidden:
        layer.segments[0, 0, 0] += 1


def through_data(model, optimizer):
    for layer in model.hidden:
        layer.segments.data[0, 0, 0] += 1
        layer.segments.activation_cache.invalidate()


def all_through_data(model, optimizer):
    for layer in model.hidden:
        layer.segments.data *= 0.9


def load(model, optimizer):
    model.load_state_dict(make(seed=3).state_dict())


def to_and_fro(model, optimizer):
    model.double().float()


@pytest.mark.parametrize("change", [other_fused, in_place, through_data, all_through_data, load])
def test_whoever_else_changes_segments_is_noticed(change, computed):
    model, context = make(), contexts()["shared"]
    optimizer = DendriteAdam(model.parameters(), lr=0.05)
    train(model, optimizer, context, steps=3)
    change(model, optimizer)
    train(model, optimizer, context, steps=3)
    assert sum(computed) == 4


def test_a_fused_step_of_another_optimizer_between_backward_and_ours_is_noticed(computed):
    model, context = make(), contexts()["shared"]
    optimizer = DendriteAdam(model.parameters(), lr=0.05)
    other = torch.optim.Adam(model.parameters(), fused=True)
    train(model, optimizer, context, steps=2)
    loss(model, 0, context).backward()
    for p in model.parameters():
        p.grad = p.grad.to_dense()
    other.step()
    optimizer.step()
    train(model, optimizer, context, steps=2)
    assert sum(computed) == 4


def test_another_context_another_dtype(computed):
    model = make()
    optimizer = DendriteAdam(model.parameters(), lr=0.05)
    for context in (contexts()["shared"], contexts()["id"], contexts()["shared"]):
        train(model, optimizer, context, steps=2)
    assert sum(computed) == 6
    model.double()
    x, _ = batch(0)
    model(x.double(), contexts()["shared"].double())
    assert sum(computed) == 8


def test_evaluation_in_other_contexts_disturbs_nothing(computed):
    model, context = make(), contexts()["shared"]
    optimizer = DendriteAdam(model.parameters(), lr=0.05)
    for step in range(3):
        train(model, optimizer, context, steps=1, first=step)
        with torch.no_grad():
            model(batch(0)[0], torch.randn(C))
    assert sum(computed) == 2 and len(computed) == 6


# Mixed precision.


def test_grad_scaler_unscales_skips_and_steps():
    ours, theirs, context = make(), make(), contexts()["shared"]
    optimizer, twins = DendriteAdam(ours.parameters(), lr=0.01), twin_optimizers(theirs, lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        optimizer.zero_grad()
        scaled = scaler.scale(loss(ours, step, context))
        (scaled * (float("inf") if step == 1 else 1)).backward()
        scaler.unscale_(optimizer)
        clip_gradients_(ours.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        if step != 1:
            train_twin(theirs, twins, context, steps=1, first=step, clip=0.5)
    assert_same_weights(ours, theirs, atol=1e-6, rtol=1e-4)


def test_bf16_autocast(computed):
    model, context = make(), contexts()["shared"]
    optimizer = DendriteAdam(model.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model, step, context)
        value.backward()
        assert model.hidden[0].segments.grad.is_sparse and model.hidden[0].segments.grad.dtype == torch.float32
        optimizer.step()
    assert sum(computed) == 2


def test_a_model_in_bf16(computed):
    model = make().to(torch.bfloat16)
    layer, optimizer = model.hidden[0], DendriteAdam(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(8, 6, dtype=torch.bfloat16), torch.ones(C)).sum().backward()
        optimizer.step()
    assert sum(computed) == 1 and layer.segments.dtype == torch.bfloat16


def test_compiled_gradients_are_dense_and_the_step_equal():
    ours, theirs, context = make(), make(), contexts()["shared"]
    optimizer = DendriteAdam(ours.parameters(), lr=0.01)
    compiled = torch.compile(ours, backend="aot_eager")
    train(compiled, optimizer, context, steps=2)
    assert not ours.hidden[0].segments.grad.is_sparse
    train(theirs, DendriteAdam(theirs.parameters(), lr=0.01), context, steps=2)
    assert_same_weights(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_sparse_gradient_and_its_dense_twin_teach_the_same_where_some_of_its_rows_are_zero():
    """As in a batch of several subnetworks: a unit that gives nothing is in the sparse gradient, with zeros."""
    ours, theirs = (make(winners="context", activation_density=0.1) for _ in range(2))
    optimizers = [DendriteAdam(model.parameters(), lr=0.01) for model in (ours, theirs)]
    zeros = 0
    for step in range(20):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            loss(model, step, contexts()["ids"]).backward()
            for p in model.parameters() if model is theirs else ():
                p.grad = p.grad.to_dense() if p.grad is not None else None
        sparse = [p.grad.coalesce() for p in ours.parameters() if p.grad is not None and p.grad.is_sparse]
        zeros += sum(int((grad.values() == 0).sum()) for grad in sparse)
        for optimizer in optimizers:
            optimizer.step()
    assert zeros > 0
    assert_same_weights(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("option", ["amsgrad", "maximize"])
def test_what_segments_cannot_follow_is_refused(option):
    model = make()
    segments = [p for p in model.parameters() if isinstance(p, RowParameter)]
    others = [p for p in model.parameters() if not isinstance(p, RowParameter)]
    with pytest.raises(ValueError, match=f"segments to have {option}=False, .* but got {option}=True. Leave it out"):
        DendriteAdam([{"params": segments, option: True}])
    optimizer = DendriteAdam([{"params": others, option: True}])
    with pytest.raises(ValueError, match=option):
        optimizer.add_param_group({"params": segments, option: True})
    assert len(optimizer.param_groups) == 1 and segments[0].owner is None


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_equals_torchs(algorithm):
    ours, theirs = nn.Embedding(6, 3, sparse=True), nn.Embedding(6, 3)
    theirs.load_state_dict(ours.state_dict())
    clip = {"norm": nn.utils.clip_grad_norm_, "value": nn.utils.clip_grad_value_}[algorithm]
    for table in (ours, theirs):
        (table(torch.tensor([1, 1, 4])) * torch.arange(9.0).view(3, 3)).sum().backward()
    clip_gradients_([*ours.parameters(), nn.Parameter(torch.ones(1))], 0.5, algorithm)
    clip(theirs.parameters(), 0.5)
    torch.testing.assert_close(ours.weight.grad.to_dense(), theirs.weight.grad)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_a_module_of_ones_own_clips_and_gives_the_segments_back_as_the_docstring_says(algorithm):
    class Own(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = ActiveDendriteLinear(4, 3, context_dim=5, num_segments=6)
            self.largest = []

        def training_step(self, batch):
            return 100 * self.layer(batch[0], torch.ones(5)).square().mean()

        def configure_optimizers(self):
            return DendriteAdam(self.parameters(), lr=0.01)

        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            if gradient_clip_val:
                clip_gradients_(self.parameters(), gradient_clip_val, gradient_clip_algorithm or "norm")
            self.largest.append(max(p.grad.to_dense().abs().max().item() for p in self.parameters()))

        def on_fit_end(self):
            self.optimizers().release()

    module, data = Own(), DataLoader(TensorDataset(torch.randn(16, 4)), batch_size=4)
    trainer = Trainer(
        max_epochs=1, gradient_clip_val=0.1, gradient_clip_algorithm=algorithm, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module, data)
    assert len(module.largest) == 4 and max(module.largest) <= 0.1 + 1e-6
    other = torch.optim.Adam(module.parameters())
    module.training_step((torch.randn(2, 4),)).backward()
    assert not module.layer.segments.grad.is_sparse
    other.step()


@pytest.mark.parametrize("change", ["in place", "another tensor"])
def test_moments_that_somebody_else_has_set_are_not_moved_without_a_gradient(change):
    parameter = RowParameter(torch.randn(6, 3))
    optimizer = DendriteAdam([parameter], lr=0.1)
    for _ in range(2):
        parameter.grad = torch.zeros(6, 3)
        parameter.grad[0] = 1.0
        optimizer.step()
    state = optimizer.state[parameter]
    if change == "in place":
        state["exp_avg"][1] = 1.0  # a row that had none
    else:
        state["exp_avg"] = state["exp_avg"].clone()
        state["exp_avg"][1] = 1.0
    before = parameter.detach().clone()
    optimizer.step()
    assert torch.equal(parameter.detach()[1:], before[1:])
    assert not torch.equal(parameter.detach()[0], before[0])
    assert state["exp_avg"][1].eq(1.0).all()
