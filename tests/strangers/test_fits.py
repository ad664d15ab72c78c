"""Habits of fitting: one fit a task, one validation after another, resumed, tested, with callbacks new or old."""

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from tests.strangers.people import (
    EPOCHS,
    ONE_FIT,
    QUIET,
    TASKS,
    ByEpoch,
    Learner,
    Plain,
    mlp,
    pipeline,
    train_loader,
    val_loader,
    val_loaders,
)
from tests.strangers.witness import accuracy, check, matrix_by_hand, with_and_without

T = len(TASKS)
now = {"task": 0}
"""What a script's loop variable is to a closure."""


def closure(trainer):
    return now["task"]


class NoIndex(Learner):
    """Its validation step has no `dataloader_idx`: Lightning refuses several loaders."""

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_acc", (self(x).argmax(1) == y).float().mean(), batch_size=len(y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_acc", (self(x).argmax(1) == y).float().mean(), batch_size=len(y))


@pipeline
def a_new_trainer_for_each_task(callbacks):
    """One fit a task, validated on all tasks."""
    model = Plain()
    for now["task"] in range(T):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks, **QUIET)
        trainer.fit(model, train_loader(now["task"]), val_loaders())


@pipeline
def validated_before_training(callbacks):
    """As above, and the untrained model is measured."""
    model = Plain()
    now["task"] = 0
    Trainer(callbacks=callbacks, **QUIET).validate(model, val_loaders(), verbose=False)
    for now["task"] in range(T):
        Trainer(max_epochs=EPOCHS, callbacks=callbacks, **QUIET).fit(model, train_loader(now["task"]), val_loaders())


@pipeline
def the_same_trainer_goes_on(callbacks):
    """One Trainer, `max_epochs` raised for each task."""
    model, trainer = Plain(), Trainer(max_epochs=0, callbacks=callbacks, **QUIET)
    for now["task"] in range(T):
        trainer.fit_loop.max_epochs += EPOCHS
        trainer.fit(model, train_loader(now["task"]), val_loaders())


@pipeline
def more_loaders_each_fit(callbacks):
    """The tasks seen so far are validated: one loader, then two, then three."""
    model = Plain()
    for now["task"] in range(T):
        seen = [val_loader(j) for j in range(now["task"] + 1)]
        Trainer(max_epochs=EPOCHS, callbacks=callbacks, **QUIET).fit(model, train_loader(now["task"]), seen)


@pipeline
def validated_after_each_fit(callbacks):
    """No validation in the fit; `trainer.validate` with all loaders behind it."""
    model, results = Plain(), []
    for now["task"] in range(T):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks, **QUIET)
        trainer.fit(model, train_loader(now["task"]))
        results.append(trainer.validate(model, val_loaders(), verbose=False))
    return [[{k: v for k, v in one.items() if k.startswith("val/")} for one in result] for result in results]


@pipeline
def validated_by_another_trainer(callbacks):
    """A Trainer of its own for evaluation, after each fit."""
    model = Plain()
    for now["task"] in range(T):
        Trainer(max_epochs=EPOCHS, callbacks=callbacks, **QUIET).fit(model, train_loader(now["task"]))
        Trainer(callbacks=callbacks, logger=False, **QUIET).validate(model, val_loaders(), verbose=False)


@pipeline
def a_test_after_each_fit(callbacks):
    """`trainer.test` on the tasks seen so far; the validation in the fit is of the current task."""

    class Net(NoIndex):
        def test_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.log("test_acc", (self(x).argmax(1) == y).float().mean(), batch_size=len(y))

    model = Net()
    for now["task"] in range(T):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks, **QUIET)
        trainer.fit(model, train_loader(now["task"]), val_loader(now["task"]))
        trainer.test(model, [val_loader(j) for j in range(now["task"] + 1)], verbose=False)


@pipeline
def names_with_the_task(callbacks):
    """CLArena's names: `task_1/learning_curve/val/acc` in the fit, `task_{id}/test/acc`, tasks counted from 1."""

    class Net(Learner):
        task_id = 1

        def validation_step(self, batch, batch_idx):
            x, y = batch
            self.log(f"task_{self.task_id}/learning_curve/val/acc", (self(x).argmax(1) == y).float().mean())

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            value = (self(x).argmax(1) == y).float().mean()
            self.log(f"task_{dataloader_idx + 1}/test/acc", value, add_dataloader_idx=False)

    model = Net()
    for model.task_id in range(1, T + 1):
        now["task"] = model.task_id - 1
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks, **QUIET)
        trainer.fit(model, train_loader(now["task"]), val_loader(now["task"]))
        trainer.test(model, [val_loader(j) for j in range(now["task"] + 1)], verbose=False)


@pipeline
def the_datamodule_is_switched(callbacks):
    """One datamodule, `datamodule.current_task` set before each fit."""

    class Data(LightningDataModule):
        current_task = 0

        def train_dataloader(self):
            return train_loader(self.current_task)

        def val_dataloader(self):
            return val_loaders()

    model, data = Plain(), Data()
    for data.current_task in range(T):
        Trainer(max_epochs=EPOCHS, callbacks=callbacks, **QUIET).fit(model, datamodule=data)


@pipeline
def a_datamodule_for_each_task(callbacks):
    """A new datamodule for each task, which knows its number."""

    class Data(LightningDataModule):
        def __init__(self, task):
            super().__init__()
            self.current_task = task

        def train_dataloader(self):
            return train_loader(self.current_task)

        def val_dataloader(self):
            return val_loaders()

    model = Plain()
    for task in range(T):
        Trainer(max_epochs=EPOCHS, callbacks=callbacks, **QUIET).fit(model, datamodule=Data(task))


@pipeline
def a_module_for_each_task(callbacks):
    """The network is carried on in a new LightningModule for each task."""
    net = mlp()
    for now["task"] in range(T):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks, **QUIET)
        trainer.fit(Plain(net), train_loader(now["task"]), val_loaders())


@pipeline
def from_the_best_checkpoint(callbacks):
    """Each task ends with its best checkpoint, and that one is validated."""
    model = Plain()
    quiet = {**QUIET, "enable_checkpointing": True}
    for now["task"] in range(T):
        best = ModelCheckpoint(monitor="val/acc/dataloader_idx_0", mode="min", save_weights_only=True)  # the worst
        trainer = Trainer(max_epochs=3, callbacks=[*callbacks, best], **quiet)
        trainer.fit(model, train_loader(now["task"]), val_loaders())
        trainer.validate(model, val_loaders(), ckpt_path=best.best_model_path, verbose=False, weights_only=True)


@pipeline
def resumed(callbacks):
    """Killed in the second of three tasks, and resumed by `ckpt_path` with everything new."""

    def trainer(number, epochs):
        keep = ModelCheckpoint(dirpath="kept", every_n_epochs=1, save_top_k=-1, filename=f"{number}-{{epoch}}")
        given = {**ONE_FIT, "enable_checkpointing": True, "max_epochs": epochs}
        return Trainer(**given, callbacks=[*callbacks(number), keep])

    trainer(0, 3).fit(ByEpoch())
    trainer(1, EPOCHS * T).fit(ByEpoch(), ckpt_path="kept/0-epoch=2.ckpt", weights_only=True)


@pipeline
def one_loader_after_another(callbacks):
    """No `dataloader_idx`: each task is validated alone, before the first fit and after each."""
    model, results = NoIndex(), []
    for task in range(T):
        results += Trainer(callbacks=callbacks(task), **QUIET).validate(model, val_loader(task), verbose=False)
    for task in range(T):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), **QUIET)
        trainer.fit(model, train_loader(task))
        for other in range(T):
            callbacks(other)
            results += trainer.validate(model, val_loader(other), verbose=False)
    return [one["val_acc"] for one in results]


@pipeline
def one_test_after_another(callbacks):
    """The same with `trainer.test`, after a fit that validates the task at hand."""
    model = NoIndex()
    for task in range(T):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), **QUIET)
        trainer.fit(model, train_loader(task), val_loader(task))
        for seen in range(task + 1):
            callbacks(seen)
            trainer.test(model, val_loader(seen), verbose=False)


@pipeline
def new_callbacks_each_fit(callbacks):
    """Everything is built anew for each task, the callbacks too."""
    model = Plain()
    for now["task"] in range(T):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks(now["task"]), **QUIET)
        trainer.fit(model, train_loader(now["task"]), val_loaders())


CLOSURES = {
    a_new_trainer_for_each_task: "val/acc",
    the_same_trainer_goes_on: "val/acc",
    a_module_for_each_task: "val/acc",
}


@pytest.mark.parametrize("habit", CLOSURES, ids=lambda habit: habit.__name__)
def test_one_fit_a_task(habit, folder):
    log = ForgettingLogger(CLOSURES[habit], task=closure, pictures=False, verbose=False)
    seen = with_and_without(habit, [log, SparsityLogger(task=closure)], folder / "habit")
    rows = seen.fits()[EPOCHS - 1 :: EPOCHS]
    assert len(rows) == T
    check(log, matrix_by_hand(seen, rows), logged=seen.witness.logged[-1])


@pytest.mark.parametrize("habit", [the_datamodule_is_switched, a_datamodule_for_each_task], ids=lambda h: h.__name__)
def test_the_datamodule_knows_its_task(habit, folder):
    log = ForgettingLogger("val/acc", pictures=False, verbose=False)
    seen = with_and_without(habit, [log, SparsityLogger()], folder / "habit")
    check(log, matrix_by_hand(seen, seen.fits()[EPOCHS - 1 :: EPOCHS]), logged=seen.witness.logged[-1])


def test_validated_before_training(folder):
    log = ForgettingLogger("val/acc", task=closure, pictures=False, verbose=False)
    seen = with_and_without(validated_before_training, [log], folder / "habit")
    before = seen.network(seen.fits("validate")[0])
    expected = matrix_by_hand(seen, seen.fits()[EPOCHS - 1 :: EPOCHS])
    check(log, expected, logged=seen.witness.logged[-1])
    baseline = [accuracy(before, j) for j in range(T)]
    assert log.baseline.tolist() == pytest.approx(baseline)
    forward = sum(float(expected[j - 1, j]) - baseline[j] for j in range(1, T)) / (T - 1)
    assert float(seen.witness.logged[-1]["forward_transfer"]) == pytest.approx(forward)


def test_more_loaders_each_fit(folder):
    log = ForgettingLogger("val/acc", task=closure, pictures=False, verbose=False)
    seen = with_and_without(more_loaders_each_fit, [log], folder / "habit")
    expected = matrix_by_hand(seen, seen.fits()[EPOCHS - 1 :: EPOCHS], seen_only=True)
    check(log, expected, logged=seen.witness.logged[-1])


@pytest.mark.parametrize("habit", [validated_after_each_fit, validated_by_another_trainer], ids=lambda h: h.__name__)
def test_validated_after_each_fit(habit, folder):
    log = ForgettingLogger("val/acc", task=closure, pictures=False, verbose=False)
    seen = with_and_without(habit, [log], folder / "habit")
    check(log, matrix_by_hand(seen, seen.fits("validate")))


def test_after_each_fit(folder):
    log = ForgettingLogger("test_acc", task=closure, pictures=False, verbose=False)
    seen = with_and_without(a_test_after_each_fit, [log], folder / "habit")
    check(log, matrix_by_hand(seen, seen.fits("test"), seen_only=True))


def test_names_with_the_task(folder):
    """In the fit only the diagonal is measured, in the tests the lower triangle: two loggers side by side."""
    val = ForgettingLogger(
        "task_{task:1}/learning_curve/val/acc", task=closure, name="val", pictures=False, verbose=False
    )
    test = ForgettingLogger("task_{task:1}/test/acc", task=closure, name="test", pictures=False, verbose=False)
    seen = with_and_without(names_with_the_task, [val, test], folder / "habit", names=["val", "test"])
    expected = matrix_by_hand(seen, seen.fits("test"), seen_only=True)
    check(test, expected)
    by_batch = matrix_by_hand(seen, seen.fits()[EPOCHS - 1 :: EPOCHS], seen_only=True)
    check(val, torch.full_like(by_batch, float("nan")).diagonal_scatter(by_batch.diagonal()))


def test_from_the_best_checkpoint(folder):
    """The row of a task is the model that the next task starts from: the weights that were loaded."""
    log = ForgettingLogger("val/acc", task=closure, pictures=False, verbose=False)
    seen = with_and_without(from_the_best_checkpoint, [log], folder / "habit")
    check(log, matrix_by_hand(seen, seen.fits("validate")))


def test_resumed(folder):
    logs = []

    def callbacks(number):
        logs.append(ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False))
        return [logs[-1], SparsityLogger()]

    seen = with_and_without(resumed, callbacks, folder / "habit")
    assert len(logs) == 2
    rows = [[one for one in seen.fits() if one.epoch == epoch][-1] for epoch in (1, 3, 5)]
    check(logs[-1], matrix_by_hand(seen, rows), logged=seen.witness.logged[-1])


def saying(log, *others):
    """A script's own line before each run: `log.task = task`."""

    def callbacks(task):
        log.task = task
        return [log, *others]

    return callbacks


def test_one_loader_after_another(folder):
    log = ForgettingLogger("val_acc", pictures=False, verbose=False)
    seen = with_and_without(one_loader_after_another, saying(log), folder / "habit")
    alone = seen.fits("validate")
    check(log, matrix_by_hand(seen, alone[T::T]))
    assert log.baseline.tolist() == pytest.approx([accuracy(seen.network(alone[0]), j) for j in range(T)])


def test_one_test_after_another(folder):
    log = ForgettingLogger("test_acc", pictures=False, verbose=False)
    seen = with_and_without(one_test_after_another, saying(log), folder / "habit")
    tests = seen.fits("test")
    check(log, matrix_by_hand(seen, [tests[0], tests[1], tests[3]], seen_only=True))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.parametrize("known", ["by a closure", "by nothing"])
def test_which_task_a_lone_loader_is_is_not_guessed(known, folder):
    log = ForgettingLogger("val_acc", task=closure if known == "by a closure" else None, pictures=False, verbose=False)
    model = NoIndex()
    now["task"] = log.task = 0
    Trainer(max_epochs=1, callbacks=[log], **QUIET).fit(model, train_loader(0))
    with pytest.raises(ValueError, match="task = "):
        Trainer(callbacks=[log], **QUIET).validate(model, val_loader(1), verbose=False)
    assert log.matrix.isnan().all()


def test_one_fit_a_task_said_before_each(folder):
    @pipeline
    def a_task_said_before_each_fit(callbacks):
        model = Plain()
        for task in range(T):
            trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), **QUIET)
            trainer.fit(model, train_loader(task), val_loaders())

    log = ForgettingLogger("val/acc", pictures=False, verbose=False)
    seen = with_and_without(a_task_said_before_each_fit, saying(log, SparsityLogger()), folder / "habit")
    check(log, matrix_by_hand(seen, seen.fits()[EPOCHS - 1 :: EPOCHS]), logged=seen.witness.logged[-1])


@pytest.mark.parametrize("habit", [a_new_trainer_for_each_task, the_same_trainer_goes_on], ids=lambda h: h.__name__)
def test_epochs_that_begin_anew_are_not_taken_for_the_first_task(habit, folder):
    """By the epoch, the second fit would overwrite row 0."""
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    if habit is the_same_trainer_goes_on:  # its epochs go on, so all is well
        seen = with_and_without(habit, [log], folder / "habit")
        check(log, matrix_by_hand(seen, seen.fits()[EPOCHS - 1 :: EPOCHS]))
    else:
        with pytest.raises(ValueError, match="log.task = 1"):
            habit([log])


def test_new_callbacks_each_fit(folder):
    """With a folder in common each one goes on with the matrix of the one before."""
    logs = []

    def callbacks(task):
        logs.append(ForgettingLogger("val/acc", task=closure, folder="matrix", pictures=False, verbose=False))
        return [logs[-1]]

    seen = with_and_without(new_callbacks_each_fit, callbacks, folder / "habit")
    assert len(logs) == T
    check(logs[-1], matrix_by_hand(seen, seen.fits()[EPOCHS - 1 :: EPOCHS]), logged=seen.witness.logged[-1])


def test_new_callbacks_each_fit_without_a_folder(folder):
    """Each knows its own row, says so where a file has more, and gives no number that needs the rest."""
    logs = []

    def callbacks(task):
        logs.append(ForgettingLogger("val/acc", task=closure, pictures=False, verbose=False))
        return [logs[-1]]

    warns = ["training starts at task 1, but nothing was measured before it", "training starts at task 2"]
    seen = with_and_without(new_callbacks_each_fit, callbacks, folder / "habit", warns=warns)
    rows = seen.fits()[EPOCHS - 1 :: EPOCHS]
    check(logs[-1], matrix_by_hand(seen, [None, None, rows[-1]]))
    assert seen.witness.logged[-1]["forgetting"].isnan()
