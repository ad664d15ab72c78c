"""The ridge context: sums that do not depend on order, tasks that look alike, strangers, and a life in files."""

from __future__ import annotations

import copy

import pytest
import torch

from dendrite_zoo.contexts import PrototypeContext, RidgeContext
from dendrite_zoo.models import ActiveDendriteClassifier
from tests.processes import in_two

SIZE = 12


def inputs(task, rows=200):
    """Tasks of one mean: each is wide in a direction of its own."""
    return torch.randn(rows, SIZE) * (1 + 4 * torch.eye(SIZE)[task])


def learned(tasks=(0, 1, 2), max_tasks=5, seed=0, rows=200):
    torch.manual_seed(seed)
    context = RidgeContext(SIZE, max_tasks, random_features=128)
    for task in tasks:
        context.start_task(task, inputs(task, rows).split(64))
    return context


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def right(context, tasks=(0, 1, 2)):
    return sum(float((context.infer(inputs(task)) == task).float().mean()) for task in tasks) / len(tasks)


def test_tasks_of_one_mean_are_told_apart_where_prototypes_fail():
    ridge = learned()
    prototypes = PrototypeContext(SIZE, 5)
    for task in range(3):
        prototypes.start_task(task, [inputs(task)])
    assert right(ridge) > 0.65 > 0.45 > right(prototypes)
    assert ridge.num_tasks == 3 and ridge.counts.tolist() == [200, 200, 200, 0, 0]


def test_the_order_of_tasks_and_their_repetition_change_nothing():
    torch.manual_seed(0)
    data = [inputs(task) for task in range(3)]
    contexts = [RidgeContext(SIZE, 3, random_features=64) for _ in range(3)]
    for context, order in zip(contexts, ([0, 1, 2], [0, 2, 1], [0, 1, 2]), strict=True):
        for task in order:
            halves = data[task].chunk(2) if context is contexts[2] else [data[task]]
            context.start_task(task, [halves[0]])
    contexts[2].start_task(1, [data[1].chunk(2)[1]])
    for task in (0, 2):
        contexts[2].start_task(task, [data[task].chunk(2)[1]])
    x = torch.cat([inputs(task) for task in range(3)])
    logits = [context.head(context.features(x)) for context in contexts[:2]]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(contexts[0].head.sums, contexts[1].head.sums)
    assert torch.equal(contexts[2].counts, contexts[0].counts)


def test_random_features_last():
    context = RidgeContext(3, 2, random_features=2)
    expected = torch.tensor([[-1.0573, -0.1024], [0.0221, -0.2326], [0.0012, -0.0545]])
    torch.testing.assert_close(context.features.random_weight(torch.device("cpu")), expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20, -1e20])
@pytest.mark.parametrize("task", [0, 1])
def test_bad_numbers_are_refused_before_anything_changes(value, task):
    context = learned(range(task))
    before, new = copy.deepcopy(context.state_dict()), list(inputs(task).split(50))
    new[2][7, 3] = value
    with pytest.raises(ValueError, match=r"NaN, infinity or larger numbers in batch 2 \(from 0\), row 7. Nothing was"):
        context.start_task(task, iter(new))
    assert same(before, context.state_dict())
    with pytest.raises(ValueError, match=r"larger numbers in rows \[7\] of 50. Leave such rows out"):
        context.infer(new[2])


@pytest.mark.parametrize("when", [0, 1])
def test_an_outlier_spoils_no_other_task(when):
    torch.manual_seed(0)
    context = RidgeContext(SIZE, 5, random_features=128)
    for task in range(3):
        x = inputs(task)
        x[17, 3] = 1e9 if task == when else x[17, 3]
        context.start_task(task, [x])
    assert right(context) > 0.65


def test_strangers_are_told_apart():
    context = learned()
    own = torch.cat([inputs(task, rows=1000) for task in range(3)])
    false_alarms = (context.confidence(own) < 0.01).float().mean()
    assert false_alarms < 0.03 and (context.confidence(inputs(4) * 3) < 0.01).float().mean() > 0.6
    confidence = learned(rows=2000).confidence(inputs(1, rows=2000), task=1)  # uniform for rows of the task
    torch.testing.assert_close(confidence.sort().values, torch.linspace(0, 1, 2000), rtol=0, atol=0.08)
    assert RidgeContext(SIZE, 2).confidence(own).eq(0).all()
    assert context.confidence(own, task=3).eq(0).all()  # a task that was never learned


@pytest.mark.parametrize("rows", [20, 60, 200])
def test_rows_of_a_task_are_as_far_from_it_as_those_that_it_was_learned_from(rows):
    """Also where these are fewer than a row has numbers: one in ``rows + 1`` is the farthest, seen or not."""
    own = []
    for seed in range(8):
        torch.manual_seed(seed)
        x = torch.randn(rows + 300, 40) * torch.linspace(0.5, 2, 40)
        context = RidgeContext(40, 1, random_features=64)
        context.start_task(0, [x[:rows]])
        own.append(context.confidence(x[rows:], task=0))
    found = torch.cat(own)
    assert abs(float(found.mean()) - 0.5) < 0.06 and (found < 0.01).float().mean() < 0.02 + 1 / rows


@pytest.mark.parametrize("rows", [6, 20, 60, 150, 600])
def test_rows_that_whiten_features_are_no_nearer_than_others(rows):
    """Their own principal directions make them vary alike, as those of other rows do less."""
    torch.manual_seed(0)
    mixing = torch.randn(200, 200) / 14
    x = torch.randn(rows + 500, 200) @ mixing
    x[1, 3] = 1e9
    context = RidgeContext(200, 2, random_features=64, whiten=True)
    context.start_task(0, x[:rows].split(50))
    assert (context.confidence(x[rows:], task=0) < 0.01).float().mean() < 0.05
    if rows == 600:
        assert (context.confidence(3 * torch.randn(500, 200), task=0) < 0.01).float().mean() > 0.9


def test_before_any_task_and_with_one_every_row_is_of_the_first():
    assert RidgeContext(SIZE, 3)(inputs(0)).eq(0).all() and learned([0]).infer(inputs(2)).eq(0).all()


def test_precision_reload_and_the_meta_device():
    context, x = learned(), inputs(1)
    expected = context.infer(x)
    with torch.device("meta"):
        empty = RidgeContext(SIZE, 5, random_features=128).state_dict()
    assert {name: x.shape for name, x in empty.items()} == {name: x.shape for name, x in context.state_dict().items()}
    other = RidgeContext(SIZE, 5, random_features=128)
    other.load_state_dict(context.state_dict())
    assert torch.equal(other.infer(x), expected)
    kinds = {name: tensor.dtype for name, tensor in context.state_dict().items()}
    context.to(torch.bfloat16)
    assert kinds == {name: tensor.dtype for name, tensor in context.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(context.infer(x), expected)
    assert torch.equal(torch.compile(context.infer, backend="eager")(x), expected)


def test_a_classifier_keeps_it_in_its_artifact_and_grows(tmp_path):
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(SIZE, [20], 3, max_tasks=3, context="ridge").eval()
    for task in range(2):
        model.context.start_task(task, [inputs(task)])
    x = torch.cat([inputs(0), inputs(1)])
    model.save_pretrained(tmp_path)
    loaded = ActiveDendriteClassifier.from_pretrained(tmp_path)
    assert torch.equal(loaded(x), model(x)) and torch.equal(loaded(x), loaded(x, task=loaded.context.infer(x)))
    torch.testing.assert_close(model.fold()(x), model(x))
    grown = ActiveDendriteClassifier.from_pretrained(tmp_path, max_tasks=SIZE)
    torch.testing.assert_close(grown(x), model(x))
    grown.context.start_task(2, [inputs(2)])
    assert grown.num_tasks == 3 and right(grown.context) > 0.6
    fewer = ActiveDendriteClassifier.from_pretrained(tmp_path, max_tasks=2)
    torch.testing.assert_close(fewer(x), model(x))


def _learn_shares(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    context = RidgeContext(SIZE, 3, random_features=64)
    for task, x in enumerate(torch.load(f"{folder}/data.pt")):
        context.start_task(task, x[rank::2].split(16))
    bad, said = torch.ones(4, SIZE), ""
    bad[2, 1] = torch.nan if rank else 1.0
    try:
        context.start_task(2, [bad])
    except ValueError as error:
        said = str(error)
    torch.save([context.state_dict(), said], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_sum_what_one_sums(tmp_path):
    torch.manual_seed(0)
    data = [inputs(task, rows=101) for task in range(2)]
    torch.save(data, tmp_path / "data.pt")
    in_two(_learn_shares, str(tmp_path))
    context = RidgeContext(SIZE, 3, random_features=64)
    for task, x in enumerate(data):
        context.start_task(task, [x])
    for rank, expected in enumerate(
        ("but another one got some", "infinity or larger numbers in batch 0 (from 0), row 2")
    ):
        state, said = torch.load(tmp_path / f"{rank}.pt")
        assert expected in said
        for name, tensor in context.state_dict().items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("batches", "error", "said"),
    [
        (torch.zeros(4, SIZE), TypeError, r"batches of inputs, but got a tensor. Put it into a list: \[x\]"),
        (
            [(torch.zeros(4, SIZE), torch.zeros(4, 2))],
            TypeError,
            r"but got \(Tensor, Tensor\) as batch 0 .*x for x, _ in",
        ),
        (None, TypeError, "but got NoneType. Give a list or a DataLoader"),
        ([torch.zeros(SIZE)], ValueError, r"a tensor \(batch, 12\) of real numbers, but got torch.float32 of shape"),
        ([torch.zeros(4, SIZE).numpy()], TypeError, "but got ndarray as batch 0"),
    ],
)
@pytest.mark.parametrize("kind", [RidgeContext, PrototypeContext])
def test_what_is_no_batch_of_inputs_is_refused(kind, batches, error, said):
    context = kind(SIZE, 3)
    with pytest.raises(error, match=f"^Expected .*{said}"):
        context.start_task(0, batches)
    assert context.num_tasks == 0
    with pytest.raises(ValueError, match="real numbers, but got ndarray"):
        context.infer(torch.zeros(2, SIZE).numpy())


def test_confidence_in_a_task_for_each_row():
    with pytest.raises(ValueError, match=r"one task, or one for each of 50 rows, but got \(2,\)"):
        learned().confidence(inputs(0, rows=50), task=torch.tensor([0, 1]))
