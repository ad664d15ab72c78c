"""NaN, infinity and numbers too large: refused before anything changes; an outlier spoils no other task."""

from __future__ import annotations

import copy

import pytest
import torch

from dendrite_zoo.contexts import ClusterContext, HotellingContext, OneHotContext, PrototypeContext
from dendrite_zoo.models import ActiveDendriteClassifier

BAD = [float("nan"), float("inf"), -float("inf"), 1e20, -1e20]
SIZE, ROWS = 12, 40


def inputs(task, rows=ROWS):
    return torch.randn(rows, SIZE) + 3 * torch.eye(SIZE)[task]


def batches(task, number=4):
    return [inputs(task) for _ in range(number)]


def learned(tasks=4):
    context = PrototypeContext(SIZE, 6)
    for task in range(tasks):
        context.start_task(task, batches(task))
    return context


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def nearest_in_float64(x, prototypes):
    return torch.stack([(row.double() - prototypes.double()).square().sum(1).argmin() for row in x])


@pytest.mark.parametrize("value", BAD)
def test_a_prototype_of_bad_numbers_is_refused_before_anything_changes(value):
    context, new = learned(), batches(4)
    before = copy.deepcopy(context.state_dict())
    new[2][7, 3] = value
    with pytest.raises(ValueError, match=r"NaN, infinity or larger numbers in batch 2 \(from 0\) of the task, row 7. "):
        context.start_task(4, iter(new))
    assert same(before, context.state_dict()) and context.num_tasks == 4
    new[2][7, 3] = 0.0
    context.start_task(4, new)
    torch.testing.assert_close(context.prototypes[4], torch.cat(new).mean(0))


@pytest.mark.parametrize("value", [1e6, 1e9, -1e9, 1e12, 9e14])
@pytest.mark.parametrize("spoilt", [0, 2, 4])
def test_an_outlier_spoils_no_other_task(value, spoilt):
    context = PrototypeContext(SIZE, 6)
    for task in range(5):
        new = batches(task)
        if task == spoilt:
            new[1][3, 5] = value
        context.start_task(task, new)
    others = [task for task in range(5) if task != spoilt]
    x = torch.cat([inputs(task) for task in others])
    assert torch.equal(context.infer(x), nearest_in_float64(x, context.prototypes[:5]))


def test_a_one_hot_context_counts_whatever_inputs_are():
    context = OneHotContext(2)
    context.start_task(1, [torch.full((3, 2), 1.0)])
    assert context.num_tasks == 2


@pytest.mark.parametrize("make", [ClusterContext, lambda size, tasks: HotellingContext(size, tasks, context_dim=4)])
@pytest.mark.parametrize("value", BAD)
def test_a_batch_of_bad_numbers_is_refused_before_a_cluster_changes(make, value):
    context = make(SIZE, 4)
    for task in (0, 1, 0):
        context.observe(inputs(task))
    before, bad = copy.deepcopy(context.state_dict()), inputs(1)
    bad[[5, 9]] = value
    with pytest.raises(ValueError, match=r"infinity or larger numbers in rows \[5, 9\] of the batch"):
        context.observe(bad)
    assert same(before, context.state_dict())


@pytest.mark.parametrize("value", [1e4, 1e9, 1e14])
@pytest.mark.parametrize("when", [0, 5])
def test_an_outlier_starts_a_cluster_of_its_own(value, when):
    context, homes = ClusterContext(SIZE, 10), []
    for number, task in enumerate([0, 1, 0, 1, 0, 1, 0, 1]):
        x = inputs(task)
        if number == when:
            x[3, 5] = value
        homes.append(context.observe(x))
    alone = homes.pop(when)
    assert alone not in homes and len(set(homes)) == 2
    for number, task in enumerate([task for n, task in enumerate([0, 1, 0, 1, 0, 1, 0, 1]) if n != when]):
        assert homes[number] == homes[task if when else 1 - task]
    x = torch.cat([inputs(0), inputs(1)])
    assert torch.equal(context.infer(x), nearest_in_float64(x, context.means[: context.num_tasks]))


@pytest.mark.parametrize("value", BAD)
def test_no_context_is_inferred_from_bad_numbers(value):
    model = ActiveDendriteClassifier(SIZE, [20], 3, max_tasks=4)
    for task in range(3):
        model.context.start_task(task, batches(task))
    x = inputs(1)
    x[[2, 30], 4] = value
    for ask in (model, model.context.infer, model.fold()):
        with pytest.raises(ValueError, match=r"larger numbers in rows \[2, 30\] of 40. Leave such rows out"):
            ask(x)
    good = torch.ones(ROWS, dtype=torch.bool)
    good[[2, 30]] = False
    assert model(x[good]).isfinite().all() and model(x[:0]).shape == (0, 3)
    assert torch.equal(model(x, task=1)[good], model(x[good], task=1)) or value != value


def test_compiled_and_transformed_code_runs_on_and_nan_stays_nan():
    context = learned()
    x = inputs(2)
    expected = context.infer(x)
    assert torch.equal(torch.compile(context.infer, backend="eager")(x), expected)
    assert torch.equal(torch.func.vmap(lambda row: context.infer(row[None])[0])(x), expected)
    model = ActiveDendriteClassifier(SIZE, [20], 3, max_tasks=4)
    model.context.start_task(0, batches(0))
    x[3, 4] = torch.nan
    assert torch.compile(model, backend="eager")(x)[3].isnan().all()
