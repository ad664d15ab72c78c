"""TaskAccuracy and AccuracyMatrix against torchmetrics' own accuracy, loops, and two processes."""

import copy
import pickle
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from dendrite_zoo.functional import accuracy_matrix as F
from dendrite_zoo.metrics import (
    AccuracyMatrix,
    AverageAccuracy,
    BackwardTransfer,
    Forgetting,
    ForwardTransfer,
    LearningAccuracy,
    TaskAccuracy,
)
from tests.processes import in_two

torch.set_num_threads(1)
TASKS, CLASSES = 3, 5


def batches(seed=0, sizes=(8, 8, 3)):
    """Batches with a short last one; tasks mixed within a batch."""
    generator = torch.Generator().manual_seed(seed)
    for size in sizes:
        yield (
            torch.randn(size, CLASSES, generator=generator),
            torch.randint(CLASSES, (size,), generator=generator),
            torch.randint(TASKS, (size,), generator=generator),
        )


def test_equals_torchmetrics_on_each_task():
    metric = TaskAccuracy(TASKS)
    oracles = [MulticlassAccuracy(CLASSES, average="micro") for _ in range(TASKS)]
    for preds, target, task in batches():
        metric.update(preds, target, task)
        for j, oracle in enumerate(oracles):
            if (task == j).any():
                oracle.update(preds[task == j], target[task == j])
    torch.testing.assert_close(metric.compute(), torch.stack([oracle.compute() for oracle in oracles]))


def test_a_short_last_batch_weighs_what_it_holds():
    metric = TaskAccuracy(1)
    metric.update(torch.ones(9, dtype=torch.long), torch.ones(9, dtype=torch.long), task=0)
    metric.update(torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long), task=0)
    assert metric.compute().item() == pytest.approx(0.9)  # the mean of batch means would be .5


def test_a_task_without_samples_is_nan_and_reset_forgets():
    metric = TaskAccuracy(2)
    metric.update(torch.tensor([1]), torch.tensor([1]), task=torch.tensor(1))
    assert metric.compute()[0].isnan() and metric.compute()[1] == 1
    metric.reset()
    metric.update(torch.tensor([1]), torch.tensor([0]), task=0)
    assert metric.compute()[0] == 0


def test_forward_gives_the_batch_and_keeps_the_sum():
    metric = TaskAccuracy(1)
    target = torch.tensor([1, 1])
    assert metric(torch.tensor([1, 1]), target, 0) == 1
    assert metric(torch.tensor([0, 0]), target, 0) == 0
    assert metric.compute() == 0.5


def test_copies_are_independent():
    metric = TaskAccuracy(1)
    metric.update(torch.tensor([1]), torch.tensor([1]), 0)
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        other.update(torch.tensor([0]), torch.tensor([1]), 0)
        assert other.compute() == 0.5
    assert metric.compute() == 1


@pytest.mark.parametrize("task", [-1, 2, torch.tensor([0, 2])])
def test_a_task_out_of_range_is_refused(task):
    with pytest.raises(ValueError, match="Expected tasks from 0 to 1, but got"):
        TaskAccuracy(2).update(torch.tensor([1, 1]), torch.tensor([1, 1]), task)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Expected `preds` of shape"):
        TaskAccuracy(2).update(torch.zeros(3, 2), torch.zeros(2), 0)
    with pytest.raises(ValueError, match=r"Expected tasks from 0 to 1, but got \[0, 2\]"):
        AccuracyMatrix(2).update(torch.tensor([1]), torch.tensor([1]), 0, after=2)


def filled(metric):
    """Untrained, then after each task but the last: all tasks are measured."""
    for row, after in enumerate([None, 0, 1]):
        for task in range(TASKS):
            for preds, target, _ in batches(seed=10 * row + task):
                metric.update(preds, target, task=task, after=after)
    return metric


@pytest.mark.parametrize("preds", [torch.tensor([0.9, 0.2]), torch.tensor([[3.0], [-3.0]])])
def test_scores_of_a_binary_head_are_no_labels(preds):
    metric = TaskAccuracy(num_tasks=1)
    with pytest.raises(ValueError, match=r"scores of shape \(B, classes\), or integer labels .* \(scores > 0.5\).long"):
        metric.update(preds, torch.tensor([1, 0]), task=0)
    metric.update((preds.flatten() > 0.5).long(), torch.tensor([1, 0]), task=0)
    assert metric.compute() == 1
    with pytest.raises(
        ValueError, match="Expected a task to be an integer, or a tensor of integers, but got torch.float32"
    ):
        metric.update(torch.tensor([1, 0]), torch.tensor([1, 0]), task=torch.tensor([0.0, 0.0]))


def test_a_checkpoint_keeps_the_matrix():
    metric = Forgetting(num_tasks=2)
    metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]), task=0, after=0)
    resumed = Forgetting(num_tasks=2)
    resumed.load_state_dict(metric.state_dict())
    resumed.update(torch.tensor([1, 0]), torch.tensor([1, 1]), task=0, after=1)
    assert resumed.compute() == 0.5


def test_matrix_holds_what_was_measured_when():
    metric = filled(AccuracyMatrix(TASKS))
    R, baseline = metric.compute(), metric.baseline
    for row, after in enumerate([None, 0, 1]):
        for task in range(TASKS):
            oracle = MulticlassAccuracy(CLASSES, average="micro")
            for preds, target, _ in batches(seed=10 * row + task):
                oracle.update(preds, target)
            got = baseline[task] if after is None else R[after, task]
            torch.testing.assert_close(got, oracle.compute())
    assert R[2].isnan().all()


def test_matrix_metrics_are_the_functions_of_the_matrix():
    metric = filled(AccuracyMatrix(TASKS))
    R, b = metric.compute()[:2, :2], metric.baseline[:2]
    assert filled(AverageAccuracy(TASKS)).compute() == F.average_accuracy(R)
    assert filled(Forgetting(TASKS)).compute() == F.forgetting(R)
    assert filled(BackwardTransfer(TASKS)).compute() == F.backward_transfer(R)
    assert filled(ForwardTransfer(TASKS)).compute() == F.forward_transfer(R, b)
    assert filled(LearningAccuracy(TASKS)).compute() == F.learning_accuracy(R)


def test_a_growing_matrix_has_room_for_what_it_is_given():
    growing, fixed = filled(AccuracyMatrix()), filled(AccuracyMatrix(TASKS))
    assert torch.equal(growing.matrix.nan_to_num(nan=-1), fixed.matrix.nan_to_num(nan=-1))
    assert torch.equal(growing.baseline, fixed.baseline)
    for metric in (growing, Forgetting()):
        metric.put({4: 0.5}, after=3)
        assert metric.num_tasks == 5 and metric.measured(3) and not metric.measured(4) and not metric.measured(9)


def test_batches_and_ready_accuracies_give_the_same():
    counted = filled(AccuracyMatrix(TASKS))
    for metrics in ([kind(TASKS) for kind in (Forgetting, AverageAccuracy)], [Forgetting(), AverageAccuracy()]):
        for metric, kind in zip(metrics, (Forgetting, AverageAccuracy), strict=True):
            for after, row in zip([None, 0, 1], [counted.baseline, *counted.matrix[:2]], strict=True):
                metric.put(dict(enumerate(row.tolist())), after)
            assert metric.compute() == filled(kind(TASKS)).compute()
            assert torch.equal(metric.baseline, counted.baseline)


def test_what_is_put_stands_in_place_of_what_was_counted():
    metric = AccuracyMatrix(2)
    metric.update(torch.tensor([1, 0, 0]), torch.tensor([1, 1, 1]), task=0, after=0)
    metric.put({0: 0.9, 1: 0.1}, after=0, overwrite=False)
    assert metric.compute()[0].tolist() == pytest.approx([1 / 3, 0.1])
    metric.put({0: 0.9}, after=0)
    assert metric.compute()[0].tolist() == torch.tensor([0.9, 0.1]).tolist()  # to the bit
    with pytest.raises(ValueError, match=r"Expected tasks from 0 to 1, but got \[0, 5\]"):
        metric.put({5: 0.1}, after=0)


def test_forward_of_a_growing_matrix_gives_the_batch_and_keeps_the_rest():
    metric = AccuracyMatrix()
    metric(torch.tensor([1, 1]), torch.tensor([1, 1]), task=2, after=2)
    batch = metric(torch.tensor([0, 1]), torch.tensor([1, 1]), task=1, after=1)
    assert batch.shape == (2, 2) and batch[1, 1] == 0.5
    assert metric.compute()[2, 2] == 1 and metric.compute()[1, 1] == 0.5


def test_a_growing_matrix_goes_on_from_a_state():
    metric, other = AccuracyMatrix(), AccuracyMatrix()
    metric.put({0: 0.9, 1: 0.1}, after=0)
    other.load_state_dict(copy.deepcopy(metric.state_dict()))
    other.put({0: 0.0}, after=1)
    assert metric.matrix[1].isnan().all() and other.matrix[0, 0] == metric.matrix[0, 0]


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
@pytest.mark.parametrize("num_tasks", [None, TASKS])
def test_before_anything_is_measured_there_is_no_value(num_tasks):
    kinds = [AverageAccuracy, BackwardTransfer, Forgetting, ForwardTransfer, LearningAccuracy]
    collection = MetricCollection([kind(num_tasks) for kind in kinds])
    assert all(value.isnan() for value in collection.compute().values())
    collection.update(torch.ones(2).long(), torch.ones(2).long(), task=0, after=0)
    assert collection.compute()["AverageAccuracy"] == 1
    collection.reset()
    assert all(value.isnan() for value in collection.compute().values())


def test_a_collection_counts_once():
    metrics = [AverageAccuracy(TASKS), Forgetting(TASKS), LearningAccuracy(TASKS)]
    collection = filled(MetricCollection(metrics))
    assert len(collection.compute_groups) == 1
    assert collection.compute()["Forgetting"] == filled(Forgetting(TASKS)).compute()


def process(rank, port, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    tasks, matrix = TaskAccuracy(TASKS), Forgetting(TASKS)
    # unequal shares: the second process sees one short batch only, so a mean of means would be wrong
    mine = list(batches())[:2] if rank == 0 else list(batches())[2:]
    for preds, target, task in mine:
        tasks.update(preds, target, task)
        matrix.update(preds, target, task=task, after=1)
        matrix.update(preds.flip(0), target, task=task, after=0)
    results[rank] = (tasks.compute().tolist(), matrix.compute().item())
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_what_one_gives():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.Manager() as manager:
        results = manager.dict()
        in_two(process, port, results)
        got = dict(results)
    tasks, matrix = TaskAccuracy(TASKS), Forgetting(TASKS)
    for preds, target, task in batches():
        tasks.update(preds, target, task)
        matrix.update(preds, target, task=task, after=1)
        matrix.update(preds.flip(0), target, task=task, after=0)
    expected = (tasks.compute().tolist(), matrix.compute().item())
    assert got[0] == expected and got[1] == expected


def test_samples_that_cross_entropy_ignores_do_not_count():
    preds, target = torch.tensor([1, 0, 2, -100]), torch.tensor([1, 1, -100, -100])
    metric, matrix = TaskAccuracy(num_tasks=2), AccuracyMatrix(num_tasks=2)
    metric.update(preds, target, task=torch.tensor([0, 0, 0, 1]))
    matrix.update(preds, target, task=torch.tensor([0, 0, 0, 1]), after=0)
    for accuracies in (metric.compute(), matrix.compute()[0]):
        torch.testing.assert_close(accuracies, torch.tensor([0.5, torch.nan]), equal_nan=True)
