"""Habits of the Trainer: its options, and the callbacks that people already have."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from tests.strangers.people import EPOCHS, ONE_FIT, QUIET, TASKS, ByEpoch, pipeline, val_loaders
from tests.strangers.witness import accuracy, check, matrix_by_hand, with_and_without

T = len(TASKS)
LAST = [EPOCHS - 1 + EPOCHS * j for j in range(T)]


def fit(callbacks, **options):
    Trainer(**{**ONE_FIT, **options}, callbacks=callbacks).fit(ByEpoch())


@pipeline
def without_a_logger(callbacks):
    """`logger=False`."""
    fit(callbacks, logger=False)


@pipeline
def without_a_sanity_check(callbacks):
    """`num_sanity_val_steps=0`, a CSVLogger of one's own."""
    fit(callbacks, num_sanity_val_steps=0, logger=CSVLogger("logs", name="mine"))


@pipeline
def a_long_sanity_check(callbacks):
    """`num_sanity_val_steps=-1`: all of the validation data before training."""
    fit(callbacks, num_sanity_val_steps=-1)


@pipeline
def accumulated_gradients(callbacks):
    """`accumulate_grad_batches=2` of three batches, gradients clipped."""
    fit(callbacks, accumulate_grad_batches=2, gradient_clip_val=0.5)


@pipeline
def scheduled_accumulation(callbacks):
    """A GradientAccumulationScheduler and a LearningRateMonitor."""
    fit([*callbacks, GradientAccumulationScheduler({0: 1, 3: 2}), LearningRateMonitor("epoch")])


@pipeline
def several_validations_an_epoch(callbacks):
    """`val_check_interval=0.5`: the last one of a task counts."""
    fit(callbacks, val_check_interval=0.34)


@pipeline
def bfloat16(callbacks):
    """`precision="bf16-mixed"`."""
    fit(callbacks, precision="bf16-mixed")


@pipeline
def double(callbacks):
    """`precision="64-true"`."""
    fit(callbacks, precision="64-true")


@pipeline
def average_of_weights(callbacks):
    """An EMA of the weights, with which Lightning validates."""
    fit([EMAWeightAveraging(decay=0.8), *callbacks])


@pipeline
def stochastic_weight_averaging(callbacks):
    """SWA in the last epochs of a network with BatchNorm, for which Lightning adds an epoch."""
    net = nn.Sequential(nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3))
    average = StochasticWeightAveraging(swa_lrs=0.02, swa_epoch_start=3)
    Trainer(**ONE_FIT, callbacks=[*callbacks, average]).fit(ByEpoch(net))


@pipeline
def deterministic_and_detect_anomaly(callbacks):
    """Options of a cautious person."""
    fit(callbacks, deterministic=True, detect_anomaly=True, inference_mode=False)


@pipeline
def profiled(callbacks):
    """A profiler and a progress bar."""
    fit(callbacks, profiler="simple", enable_progress_bar=True)


@pipeline
def validated_at_the_end_of_a_task(callbacks):
    """`check_val_every_n_epoch` is the number of epochs of a task."""
    fit(callbacks, check_val_every_n_epoch=EPOCHS)


PLAIN = [
    without_a_logger,
    without_a_sanity_check,
    a_long_sanity_check,
    accumulated_gradients,
    scheduled_accumulation,
    several_validations_an_epoch,
    average_of_weights,
    deterministic_and_detect_anomaly,
    profiled,
    validated_at_the_end_of_a_task,
]


@pytest.mark.parametrize("habit", PLAIN, ids=lambda habit: habit.__name__)
def test_option(habit, folder):
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(habit, [log, SparsityLogger()], folder / "habit")
    check(log, matrix_by_hand(seen, seen.at_epochs(*LAST)), logged=seen.witness.logged[-1])


def test_stochastic_weight_averaging(folder):
    """SWA adds an epoch, validated with the average: it belongs to the last task."""
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    warns = ["task below the number of tasks"]
    seen = with_and_without(stochastic_weight_averaging, [log], folder / "habit", warns=warns)
    rows = seen.at_epochs(*LAST[:-1]) + seen.fits()[-1:]
    check(log, matrix_by_hand(seen, rows))


def test_bfloat16(folder):
    def in_bfloat16(module, task):
        x, y = TASKS[task][1].tensors
        with torch.autocast("cpu", torch.bfloat16):
            return float((module(x).argmax(1) == y).float().mean())

    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(bfloat16, [log, SparsityLogger()], folder / "habit")
    check(log, matrix_by_hand(seen, seen.at_epochs(*LAST), in_bfloat16), logged=seen.witness.logged[-1])


def test_double(folder):
    def in_double(module, task):
        x, y = TASKS[task][1].tensors
        return float((module(x.double()).argmax(1) == y).double().mean())

    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(double, [log, SparsityLogger()], folder / "habit")
    check(log, matrix_by_hand(seen, seen.at_epochs(*LAST), in_double), logged=seen.witness.logged[-1])


@pipeline
def one_validation_batch(callbacks):
    """`limit_val_batches=1`: the first 24 samples of each task."""
    fit(callbacks, limit_val_batches=1)


def test_one_validation_batch(folder):
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(one_validation_batch, [log], folder / "habit")
    expected = matrix_by_hand(seen, seen.at_epochs(*LAST), lambda module, j: accuracy(module, j, limit=24))
    check(log, expected, logged=seen.witness.logged[-1])


@pipeline
def validated_too_seldom(callbacks):
    """`check_val_every_n_epoch=3` with tasks of two epochs: validated in the midst of task 1 and after task 2."""
    fit(callbacks, check_val_every_n_epoch=3)


def test_validated_too_seldom(folder):
    """Task 0 was never measured, task 1 before its last epoch: both are said, and no number stands in for another."""
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    warns = ["Task 0 ended without a validation", "Task 1 was last measured"]
    seen = with_and_without(validated_too_seldom, [log], folder / "habit", warns=warns)
    check(log, matrix_by_hand(seen, [None, *seen.at_epochs(2, 5)]))


@pipeline
def a_fast_dev_run(callbacks):
    """`fast_dev_run=True` of the whole script: one batch of each loader."""
    fit(callbacks, fast_dev_run=True)


def test_a_fast_dev_run(folder):
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(a_fast_dev_run, [log, SparsityLogger()], folder / "habit")
    module = seen.network(seen.fits()[0])
    assert log.matrix.shape == (T, T) and log.matrix[1:].isnan().all()
    assert log.matrix[0].tolist() == pytest.approx([accuracy(module, j, limit=24) for j in range(T)])
    written = [path.name for path in (folder / "habit" / "with").rglob("*") if path.is_file()]
    assert not written, "a fast_dev_run leaves no files behind, as Lightning's own callbacks do"


@pipeline
def stopped_and_kept_by_our_keys(callbacks):
    """EarlyStopping and ModelCheckpoint watch what our callback logs."""
    stop = EarlyStopping("forgetting", patience=100, mode="min", check_finite=False)
    keep = ModelCheckpoint(
        dirpath="kept", monitor="average_accuracy", mode="max", save_top_k=-1, filename="{epoch}-{average_accuracy:.4f}"
    )
    fit([*callbacks, stop, keep], enable_checkpointing=True)
    return {"stop": float(stop.best_score), "keep": float(keep.best_model_score), "last": float(keep.current_score)}


def test_stopped_and_kept_by_our_keys(folder, monkeypatch):
    """Both see the values of the very epoch: the average of the tasks seen so far, by hand."""
    from tests.strangers.witness import run

    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = run(stopped_and_kept_by_our_keys, [log], folder / "habit")
    rows = [[accuracy(seen.network(one), j) for j in range(T)] for one in seen.fits()]
    averages = [sum(row[: 1 + i // EPOCHS]) / (1 + i // EPOCHS) for i, row in enumerate(rows)]
    assert seen.returned["keep"] == pytest.approx(max(averages))
    assert seen.returned["last"] == pytest.approx(averages[-1])
    names = sorted(path.stem.split("average_accuracy=")[1] for path in (folder / "habit" / "kept").iterdir())
    assert names == sorted(f"{value:.4f}" for value in averages)
    lost = [math.nan] * EPOCHS
    for i in range(EPOCHS, len(rows)):
        task = i // EPOCHS
        ends = [rows[EPOCHS * k + EPOCHS - 1] for k in range(task)]
        lost.append(sum(max(end[j] for end in ends[j:]) - rows[i][j] for j in range(task)) / task)
    assert seen.returned["stop"] == pytest.approx(min(lost[EPOCHS:]))


@pipeline
def stopped_early(callbacks):
    """One fit a task, each until the accuracy on that task no longer grows: tasks of unequal length."""
    from tests.strangers.people import Plain, train_loader

    model = Plain()
    for task in range(T):
        stop = EarlyStopping(f"val/acc/dataloader_idx_{task}", patience=1, mode="max")
        trainer = Trainer(max_epochs=6, callbacks=[*callbacks(task), stop], **QUIET)
        trainer.fit(model, train_loader(task), val_loaders())


def test_stopped_early(folder):
    log = ForgettingLogger("val/acc", pictures=False, verbose=False)

    def callbacks(task):
        log.task = task
        return [log]

    seen = with_and_without(stopped_early, callbacks, folder / "habit")
    ends = [i for i, one in enumerate(seen.fits()) if i + 1 == len(seen.fits()) or seen.fits()[i + 1].epoch == 0]
    check(log, matrix_by_hand(seen, [seen.fits()[i] for i in ends]), logged=seen.witness.logged[-1])
