"""ActiveDendriteClassifier: finds its context by itself, also after it was saved and loaded."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch

import dendrite_zoo
from dendrite_zoo.contexts.base import measuring
from dendrite_zoo.models import ActiveDendriteClassifier


def classifier(context="prototype", **arguments):
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(8, [32, 32], 3, max_tasks=4, num_segments=2, context=context, **arguments)
    for task in range(2):
        model.context.start_task(task, [torch.randn(20, 8) + 4 * task])
    return model.eval()


def test_inferred_and_given_contexts_agree_where_the_inference_is_right():
    model, x = classifier(), torch.randn(6, 8) + 4
    assert model.context.infer(x).tolist() == [1] * 6
    torch.testing.assert_close(model(x), model(x, task=1))
    torch.testing.assert_close(model(x), model(x, task=torch.ones(6, dtype=torch.long)))
    assert not torch.allclose(model(x), model(x, task=0))
    assert model.num_tasks == 2 and model.max_tasks == 4 and model.num_classes == 3


def test_images_are_flattened():
    model, x = classifier(), torch.randn(6, 2, 4)
    torch.testing.assert_close(model(x), model(x.flatten(1)))


@pytest.mark.parametrize("context", ["prototype", "one-hot", "ridge"])
def test_a_given_task_that_was_not_learned_is_a_warning_once(context, recwarn):
    model, x = classifier(context), torch.randn(6, 8)
    model(x, task=1), model(x, task=torch.tensor([0, 1, 1, 0, 1, 0]))
    model.train()(x, task=3)  # somebody trains it in a loop of their own
    assert not recwarn.list
    model.eval()
    with pytest.warns(UserWarning, match=r"learned \(0 to 1\), but got 3: the output is of weights that were never tr"):
        model(x, task=torch.tensor([0, 1, 1, 3, 1, 0]))
    model(x, task=3)
    with pytest.warns(UserWarning, match="but got 2"):
        model.fold(task=2)
    model.context.start_task(2, [x])
    model(x, task=2)
    untrained = ActiveDendriteClassifier(8, [32], 3, max_tasks=4, context=context).eval()
    untrained(x, task=3)  # of a network that learned nothing nobody expects anything
    assert not recwarn.list
    with pytest.raises(ValueError, match="from 0 to 3, but got 4"):
        model(x, task=4)


@pytest.mark.parametrize("context", ["prototype", "one-hot"])
def test_saved_and_loaded_it_gives_equal_outputs(context, tmp_path):
    model, x = classifier(context), torch.randn(6, 8)
    model.save_pretrained(tmp_path)
    for again in (ActiveDendriteClassifier.from_pretrained(tmp_path), dendrite_zoo.load(tmp_path)):
        assert type(again) is ActiveDendriteClassifier and again.num_tasks == 2
        assert torch.equal(model(x, task=1), again(x, task=1))
        if context == "prototype":
            assert torch.equal(model(x), again(x))


def test_half_precision_keeps_the_prototypes_exact():
    model = classifier().to(torch.bfloat16)
    assert model.context.prototypes.dtype == torch.float32
    assert model(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("context", ["prototype", "one-hot"])
def test_room_for_more_tasks_changes_nothing_learned(context, tmp_path, caplog):
    model, x = classifier(context), torch.randn(6, 8)
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, "dendrite_zoo"):
        larger = ActiveDendriteClassifier.from_pretrained(tmp_path, max_tasks=9)
    assert larger.max_tasks == 9 and larger.num_tasks == 2
    larger.context.start_task(8, [torch.randn(5, 8)])
    assert torch.equal(model(x, task=1), larger(x, task=1)) and "start anew" not in caplog.text
    if context == "one-hot":
        segments, mask = larger.mlp.hidden[0].segments, larger.mlp.hidden[0].segment_mask
        assert segments.shape[-1] == 9 and bool(segments[..., 4:].any()) and larger(x, task=8).isfinite().all()
        assert mask is None or not segments[~mask].any()


@pytest.mark.parametrize("context", ["prototype", "one-hot"])
def test_room_that_no_task_takes_may_go(context, tmp_path):
    model, x = classifier(context), torch.randn(6, 8)
    model.save_pretrained(tmp_path)
    smaller = ActiveDendriteClassifier.from_pretrained(tmp_path, max_tasks=3)
    assert smaller.max_tasks == 3 and smaller.num_tasks == 2
    tasks = range(3 if context == "one-hot" else 2)
    with measuring():
        assert all(torch.equal(model(x, task=task), smaller(x, task=task)) for task in tasks)


def test_more_one_hot_ids_keep_the_subnetworks_of_the_old(tmp_path):
    arguments = {"max_tasks": 3, "context": "one-hot", "winners": "context", "segment_density": 0.7}
    model = ActiveDendriteClassifier(8, [20, 20], 3, **arguments)
    model.save_pretrained(tmp_path)
    larger = ActiveDendriteClassifier.from_pretrained(tmp_path, max_tasks=50)
    for task in range(3):
        for before, after in zip(model.active_units(task), larger.active_units(task), strict=True):
            assert torch.equal(before, after)
    layer = larger.mlp.hidden[0]
    assert layer.segment_mask.float().mean() == pytest.approx(0.7, abs=0.03)
    drawn = layer.segments[layer.segment_mask].abs()
    assert drawn.max() <= (0.7 * 3) ** -0.5 and drawn.mean() == pytest.approx((0.7 * 3) ** -0.5 / 2, rel=0.1)


def test_no_rows_have_no_logits():
    for winners in ("context", "activation"):
        model = ActiveDendriteClassifier(8, [20], 3, max_tasks=2, winners=winners)
        assert model(torch.zeros(0, 8)).shape == model(torch.zeros(0, 8), task=1).shape == (0, 3)


@pytest.mark.parametrize("bias", [True, False])
def test_more_classes_leave_the_others_as_they_are(tmp_path, bias):
    model, x = classifier(output_bias=bias), torch.randn(6, 8)
    model.save_pretrained(tmp_path)
    larger = ActiveDendriteClassifier.from_pretrained(tmp_path, num_classes=5)
    assert larger.num_classes == 5
    logits = larger(x, task=0)
    torch.testing.assert_close(logits[:, :3], model.eval()(x, task=0))
    assert larger.mlp.output.weight[:3].equal(model.mlp.output.weight) and not logits[:, 3:].any()
    optimizer = torch.optim.SGD(larger.mlp.output.parameters(), lr=1.0)
    torch.nn.functional.cross_entropy(logits, torch.full((6,), 4)).backward()
    optimizer.step()
    assert (larger(x, task=0)[:, 4] > logits[:, 4]).all(), "they learn"


def test_a_smaller_head_starts_anew_and_says_so(tmp_path, caplog):
    model = classifier()
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, "dendrite_zoo"):
        other = ActiveDendriteClassifier.from_pretrained(tmp_path, num_classes=2)
    assert other.num_classes == 2 and "mlp.output.bias, mlp.output.weight" in caplog.text
    assert torch.equal(other.mlp.hidden[0].weight, model.mlp.hidden[0].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_what_starts_anew_has_the_precision_of_the_rest(dtype, tmp_path):
    model = classifier().to(dtype)
    model.save_pretrained(tmp_path)
    larger = ActiveDendriteClassifier.from_pretrained(tmp_path, num_classes=5, max_tasks=9)
    assert larger(torch.randn(2, 8, dtype=dtype), task=0).dtype == dtype
    before, after = ({name: t.dtype for name, t in m.state_dict().items()} for m in (model, larger))
    assert before == after


def test_bad_input(tmp_path):
    model = classifier()
    with pytest.raises(ValueError, match="Expected a task to be from 0 to 3, but got 4"):
        model(torch.randn(2, 8), task=4)
    with pytest.raises(
        ValueError, match=r"Expected `x` to be of shape \(batch, 8\), or one that flattens to it, but got \(2, 9\)"
    ):
        model(torch.randn(2, 9))
    with pytest.raises(ValueError, match=r"cannot be inferred .* task="):
        classifier("one-hot")(torch.randn(2, 8))
    with pytest.raises(
        ValueError,
        match="Expected `context` to be one of 'prototype', 'ridge', 'one-hot', 'clusters', but got 'two-hot'. Did you",
    ):
        classifier("two-hot")
    model.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="Expected `max_tasks` to be at least 2, the tasks learned, but got 1. No task"
    ):
        ActiveDendriteClassifier.from_pretrained(tmp_path, max_tasks=1)
    with pytest.raises(
        TypeError,
        match="^ActiveDendriteClassifier.from_pretrained has no argument `hidden_features`. It takes num_classes, ",
    ):
        ActiveDendriteClassifier.from_pretrained(tmp_path, hidden_features=[3])


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.zeros((2, 8), "float32"), TypeError, "`x` to be a tensor, but got ndarray. Use torch.as_tensor"),
        (torch.zeros(8), ValueError, r"shape \(batch, 8\), .*, but got \(8,\). Of one row make a batch: x\[None\]"),
        (
            torch.zeros(2, 8, dtype=torch.uint8),
            TypeError,
            "floats, scaled as in training, but got torch.uint8. Use x.float",
        ),
        (torch.zeros(2, 9), ValueError, r"shape \(batch, 8\), or one that flattens to it, but got \(2, 9\)"),
    ],
)
def test_what_are_no_rows_says_what_to_do(x, error, words):
    with pytest.raises(error, match=words):
        classifier()(x)


def test_rows_of_double_precision_are_read():
    x = torch.randn(6, 8, dtype=torch.float64) + 4
    for model in (classifier(), classifier(winners="context")):
        torch.testing.assert_close(model(x), model(x.float()))
    assert classifier().double()(x).dtype == torch.float64


@pytest.mark.parametrize(("context", "warned"), [("prototype", 1), ("ridge", 1), ("one-hot", 0)])
def test_a_task_trained_before_its_context_was_made_says_so(context, warned):
    model, x = ActiveDendriteClassifier(8, [20], 2, max_tasks=3, context=context), torch.randn(32, 8)
    model.context.start_task(0, [x])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(x, task=2)  # of which nothing is learned
        for task in (0, 1, 1):
            model(x, task=task).sum().backward()
    said = [str(one.message) for one in caught]
    assert [("but got 1: " in one and "start_task(1, batches)" in one) for one in said] == [True] * warned
