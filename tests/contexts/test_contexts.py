"""Contexts: prototypes in one pass, nearest prototype at test, state in buffers."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer

from dendrite_zoo.contexts import ClusterContext, HotellingContext, OneHotContext, PrototypeContext
from tests import reference


def learned(num_tasks=3, max_tasks=5, features=4):
    torch.manual_seed(0)
    context = PrototypeContext(features, max_tasks)
    data = [torch.randn(20, features) + 3 * t for t in range(num_tasks)]
    for task, x in enumerate(data):
        context.start_task(task, x.split(7))
    return context, data


def test_a_prototype_is_the_mean_of_all_inputs_short_last_batch_included():
    context, data = learned()
    for task, x in enumerate(data):
        torch.testing.assert_close(context.prototypes[task], x.mean(0))
    assert context.counts.tolist() == [20, 20, 20, 0, 0] and context.num_tasks == 3 and context.max_tasks == 5


def test_a_task_left_out_is_counted_so_that_the_next_overwrites_none():
    context = PrototypeContext(4, 5)
    assert context.num_tasks == 0
    context.start_task(2, [torch.ones(3, 4)])
    assert context.num_tasks == 3 and context.infer(torch.zeros(1, 4)).tolist() == [2]


def test_infers_the_nearest_learned_prototype():
    context, data = learned()
    x = torch.cat(data)
    assert context.infer(x).tolist() == reference.nearest_prototype(x, context.prototypes[:3])
    codebook, index = context(x)
    assert codebook is context.prototypes and torch.equal(index, context.infer(x))


def test_given_tasks():
    context, data = learned()
    assert torch.equal(context(data[0], task=2), context.prototypes[2])
    codebook, index = context(data[0][:2], task=torch.tensor([1, 2]))
    assert torch.equal(codebook[index], context.prototypes[[1, 2]])
    one_hot = OneHotContext(4)
    assert one_hot(data[0], task=3).tolist() == 3
    assert one_hot(data[0][:2], task=torch.tensor([1, 2])).tolist() == [1, 2]


def test_state_survives_half_precision_and_reload():
    context, data = learned()
    exact = context.prototypes.clone()
    context.half()
    assert context.prototypes.dtype == torch.float32 and torch.equal(context.prototypes, exact)
    other = PrototypeContext(4, 5)
    other.load_state_dict(context.state_dict())
    assert other.num_tasks == 3 and torch.equal(other.infer(data[1]), context.infer(data[1]))


def test_inference_is_float32_under_autocast():
    context, data = learned()
    x = torch.cat(data)
    expected = context.infer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(context.infer(x), expected)


def test_before_any_task_the_context_is_zero():
    codebook, index = PrototypeContext(4, 3)(torch.randn(2, 4))
    assert (codebook[index] == 0).all()


def test_bad_input():
    context, data = learned()
    with pytest.raises(ValueError, match=r"Expected a task to be from 0 to 4, but got 5. .* larger `max_tasks`"):
        context.start_task(5, [data[0]])
    with pytest.raises(ValueError, match=r"Expected inputs of 4 features, but got 9. .* in_features=9"):
        context.start_task(3, [torch.zeros(2, 9)])
    with pytest.raises(ValueError, match="at least one input of the task, but got none"):
        context.start_task(3, [])
    with pytest.raises(ValueError, match=r"cannot be inferred .* task="):
        OneHotContext(3)(data[0])
    with pytest.raises(ValueError, match="Expected `max_tasks` to be an integer of at least 1, but got 0"):
        OneHotContext(0)


def test_a_large_common_offset_does_not_blur_the_inference():
    torch.manual_seed(0)
    means = torch.randn(2, 784) * 0.1 + 1000
    context = PrototypeContext(784, 4)
    data = [mean + 0.1 * torch.randn(200, 784) for mean in means]
    for task, x in enumerate(data):
        context.start_task(task, [x])
    assert context.infer(torch.cat(data)).tolist() == [0] * 200 + [1] * 200


@pytest.mark.parametrize("make", [lambda: OneHotContext(3), lambda: PrototypeContext(4, 3)])
def test_task_ids_beyond_the_capacity_are_refused(make):
    x = torch.zeros(2, 4)
    for task in (-1, 3, torch.tensor(3), torch.tensor(-1), torch.tensor([0, 7])):
        with pytest.raises(ValueError, match="Expected a task to be from 0 to 2, but got (-1|3|7)"):
            make()(x, task)
    with pytest.raises(TypeError, match="Expected the id of a task to be an integer, but got torch.float32"):
        make()(x, torch.tensor([1.5, 0.0]))


def test_inputs_of_another_size_are_refused():
    context = PrototypeContext(4, 2)
    context.start_task(0, [torch.ones(3, 4)])
    with pytest.raises(ValueError, match="Expected inputs of 4 features, but got 9"):
        context.infer(torch.zeros(2, 3, 3))


def test_what_is_held_is_float32_in_a_model_that_is_made_in_bf16():
    with Trainer(accelerator="cpu", precision="bf16-true", logger=False).init_module():
        contexts = PrototypeContext(4, 2), ClusterContext(4, 2), HotellingContext(8, 2, context_dim=4)
    floats = [b.dtype for context in contexts for b in context.buffers() if b.is_floating_point()]
    assert floats and set(floats) == {torch.float32}
