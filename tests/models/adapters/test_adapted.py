"""Dendrites on a backbone: gates are what the equation says, earlier tasks stay, and what is folded is the same."""

import copy
import io
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo import add_dendrites
from dendrite_zoo.layers import PatchFeatures
from tests.models.adapters.networks import (
    IMAGES,
    TOKENS,
    Attention,
    Convolutions,
    UNet,
    made,
    mlp,
    set_few_random_features,
)
from tests.processes import in_two

LABELS = torch.arange(24) % 3
KINDS = {
    "convolutions": (Convolutions, nn.Conv2d, IMAGES),
    "norms": (Convolutions, nn.BatchNorm2d, IMAGES),
    "transposed convolutions": (UNet, nn.ConvTranspose2d, IMAGES),
    "attention": (Attention, "encoder.*", TOKENS),
    "mlp": (mlp, nn.Linear, torch.randn(24, 12)),
}


def adapted(kind, **options):
    network, layers, x = KINDS[kind]
    options = {"num_classes": 3, "max_tasks": 4, "head": "linear", "context": "prototype", **options}
    return add_dendrites(made(network), layers=layers, **options), x


def learn(model, task, x, steps=4, lr=0.05):
    """Learn by a loop of somebody's: one optimizer over all parameters, gradients set to zero and not to None."""
    model.start_task(task, x.split(8))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=False)
        F.cross_entropy(model(x, task=task), LABELS).backward()
        optimizer.step()
    return model.eval()


def other(x):
    return x.flip(1) if x.dtype == torch.long else 2 * x + 1


@torch.no_grad()
def by_hand(model, x, task):
    """Features of convolutions with gates on their norms, computed from the weights."""
    column, net = model.columns[task].clone(), model.backbone
    gates = (2 * torch.sigmoid(column[:24])).split([8, 16])
    shifts = column[24:48].split([8, 16]) if model.config["shift"] else (torch.zeros(8), torch.zeros(16))
    means, spreads = [], []
    for (conv, norm, _), gate, shift in zip((net.stem, net.body), gates, shifts, strict=True):
        x = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
        x = (x - norm.running_mean.view(-1, 1, 1)) / (norm.running_var.view(-1, 1, 1) + norm.eps).sqrt()
        x = x * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
        x = torch.relu(x * gate.view(-1, 1, 1) + shift.view(-1, 1, 1))
        means.append(x.mean((2, 3)))
        spreads.append(x.std((2, 3), correction=0))
    return torch.cat(means + spreads, 1)


@pytest.mark.parametrize("shift", [False, True])
def test_gates_are_those_of_the_equation(shift):
    model, x = adapted("norms", shift=shift, head=None, max_tasks=2)
    assert torch.allclose(model.features(x), by_hand(model, x, 0), atol=1e-5)  # 1 to begin with
    model.columns.normal_()
    z = by_hand(model, x, 1)
    torch.testing.assert_close(model.features(x, 1), z, rtol=1e-5, atol=1e-5)
    model.heads.centre[1], model.heads.scale[1] = 0.5, 2.0
    torch.testing.assert_close(model.eval()(x, task=1), (z[:, :24] - 0.5) / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_without_learning_the_backbone_computes_as_it_did(kind):
    network, layers, x = KINDS[kind]
    plain = made(network).eval()
    expected = plain(x)
    model, _ = adapted(kind)
    got = model.backbone(x)
    pick = (lambda o: o["last_hidden_state"]) if isinstance(expected, dict) else (lambda o: o)
    assert torch.allclose(pick(got), pick(expected), atol=1e-6)
    model(x, task=0)
    assert torch.equal(pick(model.backbone(x)), pick(got)), "no gate is left in it"


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_task_leaves_earlier_ones_equal_to_the_bit(kind):
    model, x = adapted(kind, shift=True)
    learn(model, 0, x)
    frozen = copy.deepcopy(model.backbone.state_dict())
    first = model(x, task=0)
    learn(model, 1, other(x))
    second = model(x, task=1)
    learn(model, 3, x)
    assert torch.equal(model(x, task=0), first) and torch.equal(model(x, task=1), second)
    assert not torch.equal(first, second) and model.num_tasks == 4
    assert all(torch.equal(a, b) for a, b in zip(frozen.values(), model.backbone.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_column_of_the_task_is_trained(kind):
    model, x = adapted(kind)
    assert [p.shape for p in model.parameters() if p.requires_grad] == [model.column.shape]
    before = F.cross_entropy(model(x, task=0), LABELS)
    learn(model, 0, x, steps=15)
    assert F.cross_entropy(model(x, task=0), LABELS) < before - 0.1
    gates = sum(model.config["layers"].values())
    assert model.column[:gates].abs().max() > 0.01, "gates have moved"


def test_train_leaves_the_backbone_in_eval_mode():
    model, x = adapted("convolutions")
    whole = nn.Sequential(model).train()
    assert not any(module.training for module in model.backbone.modules()) and model.training and whole.training


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["linear", "ridge", None])
def test_folded_it_is_a_plain_network_that_computes_the_same(kind, head):
    model, x = adapted(kind, shift=True, head=head)
    model.start_task(1, [x])
    with torch.no_grad():
        model.column[: 2 * sum(model.config["layers"].values())].normal_(std=0.5)
    if head == "ridge":
        model.fit_head(1, [(x, LABELS)])
    model.eval()
    folded, expected = model.fold(1), model(x, task=1)
    torch.testing.assert_close(folded(x), expected, rtol=1e-5, atol=2e-5 * float(expected.detach().abs().max()))
    assert not any(hook for module in folded.backbone.modules() for hook in module._forward_pre_hooks)
    assert torch.equal(model(x, task=1), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_mixed_in_a_batch(kind):
    model, x = adapted(kind)
    learn(model, 0, x)
    learn(model, 1, other(x))
    tasks = torch.arange(24) % 2
    each = torch.cat([model(x[i : i + 1], task=int(task)) for i, task in enumerate(tasks)])
    torch.testing.assert_close(model(x, task=tasks), each, rtol=1e-4, atol=1e-5)
    assert torch.equal(model(x, task=torch.tensor(1)), model(x, task=1))
    assert torch.equal(model(x, task=torch.ones(24).long()), model(x, task=1))
    with pytest.raises(ValueError, match="one for each of 24 rows"):
        model(x, task=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="task to be from 0 to 3, but got 4"):
        model(x, task=4)


@pytest.mark.parametrize("context", ["prototype", "ridge"])
def test_the_task_is_inferred_from_features_without_gates(context):
    model, x = adapted("convolutions", context=context)
    learn(model, 0, x)
    learn(model, 1, other(x))
    both = torch.cat([x, other(x)])
    ids = model.context.infer(both)
    assert (ids == torch.arange(2).repeat_interleave(24)).float().mean() > 0.9
    assert torch.equal(model(both), model(both, task=ids))


def test_confidence_is_that_of_the_features():
    model, x = adapted("convolutions", context="ridge")
    learn(model, 0, x)
    strange = torch.cat([x[:12], 40 * torch.rand_like(x[:12]).round()])
    found = model.context.confidence(strange)
    assert torch.equal(found, model.context.inner.confidence(model.features(strange)))
    assert found[:12].mean() > 0.2 and found[12:].max() < 0.05
    assert torch.equal(model.context.confidence(strange, task=0), found)
    with pytest.raises(ValueError, match="`context` to be 'ridge', which knows how far .*, but got 'prototype'"):
        adapted("convolutions", context="prototype")[0].context.confidence(x)


def test_given_tasks_are_not_inferred():
    model, x = adapted("mlp", context="given")
    learn(model, 0, x)
    with pytest.raises(ValueError, match="context='given' infers none"):
        model(x)


def test_the_ridge_head_is_the_discriminant_of_its_own_features():
    """Against scikit-learn's formula: a least squares of one-hot classes on centred random features separates these."""
    model, x = adapted("convolutions", head="ridge")
    y = (x.mean((1, 2, 3)) > x.mean()).long()
    model.start_task(0, [x])
    before = model.eval()(x, task=0)
    assert torch.equal(before, torch.zeros(24, 3)), "of a linear head that was not trained"
    model.fit_head(0, zip(x.split(5), y.split(5), strict=True))
    assert (model(x, task=0).argmax(1) == y).float().mean() > 0.85, "a penalty is chosen, for there are but 24 rows"
    in_one = copy.deepcopy(model)
    in_one.fit_head(0, [(x, y)])
    torch.testing.assert_close(in_one(x, task=0), model(x, task=0), rtol=1e-3, atol=1e-3)
    assert model(x, task=0)[:, 2].max() < -1e5, "a class without rows"
    model.train()
    assert torch.equal(model(x, task=0), before), "while it learns, its linear head is what is trained"


def test_a_solved_head_answers_and_gates_are_not_trained_by_it_in_silence():
    """Without ``eval()`` the linear head answered, which a loop may not have trained at all."""
    model, x = adapted("mlp", head="ridge")
    model.start_task(0, [x])
    model.train().fit_head(0, [(x, LABELS)])
    assert not model.training and model(x, task=0).std() > 0
    with pytest.raises(RuntimeError, match=r"Expected train mode to train .* Call model.train\(\) before"):
        F.cross_entropy(model(x, task=0), LABELS).backward()
    image = x.clone().requires_grad_()
    model(image, task=0).sum().backward()  # what an output depends on may be asked for
    assert image.grad.any()
    F.cross_entropy(model.train()(x, task=0), LABELS).backward()


@pytest.mark.usefixtures("all_random_features")
def test_a_ridge_head_sees_images_through_patches_of_the_first_task():
    model, x = adapted("convolutions", head="ridge", context="prototype")
    model.start_task(0, [x])
    z = F.adaptive_avg_pool2d(x, 32)
    patches, z = PatchFeatures((3, 32, 32), 2048), (z - z.mean()) / z.std(correction=0)
    patches.start([(z, LABELS)])
    heads = model.heads
    for task, inputs in enumerate((x, other(x))):  # twice the contrast, and brighter: normalised it is the same
        hidden = heads._hidden(heads.normalised(model.features(inputs, task, inputs=True), task))
        assert hidden.shape == (24, 1024 + 2048)
        torch.testing.assert_close(hidden[:, 1024:], 3 * patches(z), rtol=1e-3, atol=1e-3)
        model.start_task(1, [other(x)])
    torch.testing.assert_close(heads.random[1].filters, patches.filters, rtol=1e-3, atol=1e-3)


def test_what_no_head_can_be_solved_from():
    model, x = adapted("mlp", head="ridge")
    with pytest.raises(ValueError, match="a task that was started, but got 2"):
        model.fit_head(2, [(x, LABELS)])
    model.start_task(2, [x])
    with pytest.raises(ValueError, match="labels from 0 to 2, but got 5"):
        model.fit_head(2, [(x, LABELS + 3)])
    with pytest.raises(ValueError, match="class labels, integers"):
        model.fit_head(2, [(x, LABELS.float())])
    with pytest.raises(ValueError, match="a label for each of 24 inputs, but got 23. Check the data loader."):
        model.fit_head(2, [(x, LABELS[1:])])
    with pytest.raises(ValueError, match="NaN, infinity"):
        model.start_task(3, [x * torch.nan])
    assert model.num_tasks == 3 and model.learning == 2
    linear, _ = adapted("mlp")
    with pytest.raises(ValueError, match="'ridge' to be solved, but got 'linear'"):
        linear.fit_head(0, [(x, LABELS)])


def test_a_loss_of_a_task_that_does_not_learn_says_so():
    model, x = adapted("mlp")
    with pytest.raises(RuntimeError, match="one of task 0, while none does.*start_task"):
        model.train()(x, task=0).sum().backward()
    learn(model, 1, x)
    with pytest.raises(RuntimeError, match="one of task 0, while task 1 does"):
        model.train()(x, task=0).sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_the_same_in_eval_mode(kind):
    model, x = adapted(kind, shift=True)
    learn(model, 0, x)
    grads = []
    for mode in (True, False):
        model.train(mode).zero_grad()
        F.cross_entropy(model(x, task=0), LABELS).backward()
        grads.append(model.column.grad.clone())
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-6)


def test_a_layer_that_is_computed_again_in_the_backward_pass():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 8)

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.second, self.first(x), use_reentrant=False)

    model = add_dendrites(Checkpointed(), layers="*", num_classes=2, max_tasks=2, head="linear", context="given")
    x = torch.randn(6, 4)
    model.start_task(0, [x])
    with torch.no_grad():
        model.column.normal_()
    with pytest.raises(RuntimeError, match="Turn gradient checkpointing off"):
        model(x, task=0).sum().backward()


@pytest.mark.parametrize("how", ["no_grad", "reentrant"])
def test_a_gate_that_gets_no_gradient_says_so(how):
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 8)

        def forward(self, x):
            if how == "reentrant":
                return self.second(torch.utils.checkpoint.checkpoint(self.first, x, use_reentrant=True))
            with torch.no_grad():
                x = self.first(x)
            return self.second(x)

    for layers, count in (("*", 1), ("second", 0)):
        with warnings.catch_warnings(record=True) as caught:  # torch warns of reentrant checkpoints, too
            warnings.simplefilter("always")
            model = add_dendrites(Frozen(), layers=layers, num_classes=2, max_tasks=2, head="linear", context="given")
            x = torch.randn(6, 4)
            model.start_task(0, [x])
            model.train()(x, task=0).sum().backward()
        assert sum("computes no gradients" in str(one.message) for one in caught) == count


def test_a_network_of_which_a_part_is_compiled():
    network = nn.Sequential(nn.Linear(4, 8), torch.compile(nn.Linear(8, 8), backend="eager"))
    with pytest.raises(ValueError, match="but got one whose '1' is. Give it as it was before torch.compile"):
        add_dendrites(network, layers="*", num_classes=2, max_tasks=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_dict_has_what_was_learned_and_loads_on_the_same_backbone(kind):
    model, x = adapted(kind, head="ridge", context="ridge")
    learn(model, 0, x)
    model.fit_head(0, [(x, LABELS)])
    learn(model, 1, other(x))
    assert not [name for name in model.state_dict() if "backbone." in name or name == "column"]
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again, _ = adapted(kind, head="ridge", context="ridge")
    again.load_state_dict(torch.load(file, weights_only=True))
    again.eval()
    assert again.learning == 1 and again.num_tasks == 2
    for task in (0, 1):
        assert torch.equal(again(x, task=task), model(x, task=task))
    assert torch.equal(again(x), model(x)) and torch.equal(again.column, model.column)
    copied = copy.deepcopy(model)
    learn(copied, 2, x)
    assert torch.equal(copied(x, task=0), model(x, task=0)) and model.num_tasks == 2


def test_a_state_of_another_backbone_is_refused():
    model, x = adapted("mlp")
    torch.manual_seed(1)
    another = add_dendrites(mlp(), layers=nn.Linear, num_classes=3, max_tasks=4, head="linear", context="prototype")
    with pytest.raises(ValueError, match="learned on the same backbone"):
        another.load_state_dict(model.state_dict())


def test_under_autocast_and_compiled_earlier_tasks_stay():
    model, x = adapted("convolutions")
    learn(model, 0, x)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = model(x, task=0)
    with torch.no_grad():
        before = compiled(x, task=0)
    torch.testing.assert_close(before, model(x, task=0))
    model.start_task(1, [other(x)])
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        F.cross_entropy(compiled(x, task=1), LABELS).backward()
    optimizer.step()
    assert model.column.grad.abs().max() > 0
    model.eval()
    with torch.no_grad():
        assert torch.equal(compiled(x, task=0), before)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model(x, task=0), low)


def test_it_starts_from_the_task_whose_gates_suit_it():
    """Task 0 shuts the channels that matter to the labels; task 1 opens them."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(4))
        network[0].bias.fill_(3.0)
    model = add_dendrites(network, layers="0", num_classes=2, max_tasks=4, head="linear", context="given")
    x = torch.randn(200, 4)
    x[:, 0] *= 0.02
    y = (x[:, 0] > 0).long()
    model.columns[0, 0], model.columns[1, 0] = -40.0, 4.0
    model.start_task(2, [x])
    model.context.counts[:2] = 1
    assert model.nearest_task([0, None], [(x, y)]) is None
    model.start_from(1, 2)
    assert torch.equal(model.column[:4], model.columns[1, :4])


def test_inputs_by_keyword_and_tokens_that_are_padding():
    network = made(Attention)
    model = add_dendrites(network, layers="*linear1", num_classes=3, max_tasks=2, context="prototype")
    mask = torch.ones(24, 9).long()
    mask[:, 6:] = 0
    x = {"ids": TOKENS, "attention_mask": mask}
    model.start_task(0, [x])
    model.fit_head(0, [(x, LABELS)])
    model.start_task(1, [{"ids": TOKENS.flip(0) // 2, "attention_mask": mask}])
    model.eval()
    assert model(x).shape == (24, 3) and model(x, task=torch.arange(24) % 2).shape == (24, 3)
    other_padding = TOKENS.clone()
    other_padding[:, 6:] = 0
    same = model({"ids": other_padding, "attention_mask": mask}, task=0)
    torch.testing.assert_close(same, model(x, task=0), rtol=1e-3, atol=1e-3)


def test_a_loader_of_inputs_and_labels_begins_a_task_as_its_inputs_do():
    model, x = adapted("mlp", context="ridge")
    states = []
    for batches in (
        x.split(8),
        DataLoader(TensorDataset(x, LABELS), batch_size=8),
        DataLoader(TensorDataset(x), batch_size=8),
    ):
        again = copy.deepcopy(model)
        again.start_task(0, batches)
        states.append(again.state_dict())
    for state in states[1:]:
        assert all(torch.equal(value, states[0][name]) for name, value in state.items())


def test_what_is_no_batch_of_a_task_is_refused():
    model, x = adapted("convolutions", head="ridge")
    for batches, error, said in (
        (x, TypeError, "batches of inputs, but got a tensor"),
        ([(x, x)], TypeError, r"but got \(Tensor, Tensor\) as batch 0"),
        ([(255 * x).byte()], ValueError, "inputs that Convolutions takes, but got torch.uint8 of shape .* normalised"),
    ):
        with pytest.raises(error, match=f"^Expected .*{said}"):
            model.start_task(0, batches)
    assert model.num_tasks == 0
    model.start_task(0, [x])
    with pytest.raises(TypeError, match="pairs of tensors, inputs and labels, .* but got Tensor as batch 0"):
        model.fit_head(0, (x, LABELS))
    assert model(x[:0]).shape == model(x[:0], task=torch.zeros(0).long()).shape == (0, 3)


def test_the_learning_rate_falls_with_the_number_of_layers():
    deep = nn.Sequential(*[nn.Linear(4, 4) for _ in range(50)])
    model = add_dendrites(deep, layers="*", num_classes=2, max_tasks=1)
    assert model.default_lr == pytest.approx(0.1 / 50) and adapted("mlp")[0].default_lr == 5e-3
    with pytest.raises(ValueError, match=r"Expected `layers` to name layers of Sequential, but got \[\]"):
        add_dendrites(deep, layers=[], num_classes=2, max_tasks=1)


def _learned(x, own, wrap=lambda model: model):
    """What comes of two tasks that are learned by a share of every batch."""
    model, _ = adapted("convolutions", head="ridge", context="prototype", shift=True)
    wrapped = wrap(model)
    for task, inputs in enumerate((x, other(x))):
        model.start_task(task, [inputs[own]])
        wrapped.train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(wrapped(inputs[own], task=task), LABELS[own]).backward()
            optimizer.step()
        model.fit_head(task, [(inputs[own], LABELS[own])])
    nearest = model.nearest_task([0, None], [(x[own], LABELS[own])])
    with torch.no_grad():
        return model.eval().state_dict() | {"given": model(x, task=0), "inferred": model(other(x))}, nearest


def _learn_shares(rank, folder):
    torch.set_num_threads(1)
    set_few_random_features(setattr)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = _learned(torch.load(f"{folder}/x"), slice(rank, None, 2), nn.parallel.DistributedDataParallel)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    torch.save(IMAGES, tmp_path / "x")
    in_two(_learn_shares, str(tmp_path))
    (first, start), (second, same) = (torch.load(tmp_path / name) for name in ("0.pt", "1.pt"))
    expected, _ = _learned(IMAGES, torch.arange(24).view(12, 2).T.flatten())  # filters are patches of the first rows
    assert first.keys() == expected.keys() and start == same  # of their halves, which are not those of one process
    for name, tensor in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=1e-3, msg=name)
