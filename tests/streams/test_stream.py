"""A stream by itself, and under a Trainer: what is trained, what is validated, and when."""

import itertools
import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from dendrite_zoo.streams import (
    MixedTasks,
    PermutedTasks,
    RotatedTasks,
    SplitTasks,
    TaskSequence,
    load_source,
    permutation,
)
from tests.streams.toy import CLASSES, Memory, tensors, trainer


def rows_of(loader):
    return [row for x, _ in loader for row in x.tolist()]


class TestByItself:
    def test_batches_are_flat_and_normalised(self):
        stream = PermutedTasks("digits", num_tasks=3)
        stream.setup()
        x, y = next(iter(stream.train_dataloader()))
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((256, 64), torch.float32, (256,), torch.int64)
        assert (stream.num_features, stream.num_classes, stream.num_tasks, stream.current_task) == (64, 10, 3, 0)
        assert [len(loader) for loader in stream.val_dataloader()] == [2, 2, 2]
        assert [len(loader) for loader in stream.test_dataloader()] == [2, 2, 2]

    def test_without_setup_too(self):
        x, y = next(iter(PermutedTasks("digits", 2).task_loader(1, "test")))
        digits = load_source("digits")
        plain = (digits.x_test[:256].float() - 16 * 0.3057) / (16 * 0.3761)
        assert x.equal(plain[:, permutation(0, 1, 64)]) or torch.allclose(x, plain[:, permutation(0, 1, 64)])
        assert y.equal(digits.y_test[:256])

    def test_an_epoch_holds_every_row_once_in_an_order_of_its_own(self):
        source = load_source(tensors(rows=11))
        stream = PermutedTasks(source, 2, batch_size=4, epochs_per_task=3)
        orders = [rows_of(stream.task_loader(0, epoch=epoch)) for epoch in range(3)]
        for order in orders:
            assert sorted(order) == sorted(source.x_train.tolist())
        assert len({str(order) for order in orders}) == 3
        assert orders[1] == rows_of(stream.task_loader(0, epoch=1)), "whatever was drawn before"

    def test_epochs_are_counted_from_the_first_task_of_all(self):
        stream = PermutedTasks(tensors(), 4, first_task=2, epochs_per_task=3)
        assert stream.task_loader(2, epoch=1).state_dict() == {"epoch": 7, "batch": 0}
        assert stream.current_task == 2
        assert stream.trainer_kwargs()["max_epochs"] == 6

    def test_a_task_is_the_same_in_a_long_and_a_short_stream_and_wherever_it_begins(self):
        for kind in (PermutedTasks, RotatedTasks):
            streams = [kind("digits", 10), kind("digits", 100), kind("digits", 8, first_task=7)]
            batches = [next(iter(stream.task_loader(7))) for stream in streams]
            for x, y in batches[1:]:
                assert x.equal(batches[0][0])
                assert y.equal(batches[0][1])

    def test_held_out_rows_are_validated_and_not_trained_on(self):
        source = load_source("digits")
        stream = PermutedTasks(source, 2, val_fraction=0.25, batch_size=100)
        train, val, test = (stream.task_loader(0, split) for split in ("train", "val", "test"))
        trained, validated, tested = (torch.cat([y for _, y in loader]).bincount() for loader in (train, val, test))
        assert (trained + validated).equal(source.y_train.bincount())
        assert (validated - source.y_train.bincount() / 4).abs().max() <= 0.5, "of each class alike"
        assert tested.equal(source.y_test.bincount())
        assert not {str(row) for row in rows_of(train)} & {str(row) for row in rows_of(val)}

    def test_printing_it_reads_no_data(self):
        stream = PermutedTasks("nowhere", 3)
        assert str(stream) == repr(stream) == "PermutedTasks('nowhere', num_tasks=3, first_task=0)"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"num_tasks": 0}, "Expected `num_tasks` to be an integer of at least 1, but got 0[.]"),
            ({"num_tasks": 2.5}, "Expected `num_tasks` to be an integer of at least 1, but got 2.5"),
            ({"num_tasks": True}, "Expected `num_tasks` to be an integer of at least 1, but got True"),
            ({"first_task": 3}, r"Expected `first_task` to be at most 2, but got 3\..*raise `num_tasks`"),
            ({"epochs_per_task": 0}, "Expected `epochs_per_task` to be .* but got 0"),
            ({"batch_size": 0}, "Expected `batch_size` to be .* but got 0"),
            ({"seed": -1}, "Expected `seed` to be an integer of at least 0, but got -1"),
            ({"val_fraction": 0.0}, "Expected `val_fraction` to be between 0 and 1, but got 0.0.*None"),
            ({"val_fraction": 20}, "Expected `val_fraction` to be between 0 and 1, but got 20"),
            ({"val_fraction": "a"}, "Expected `val_fraction` to be between 0 and 1, but got 'a'"),
            ({"eval_at": [1, 3]}, "`eval_at` to hold tasks that are trained, 0 to 2, but got 3"),
            ({"eval_at": [0], "first_task": 1}, "`eval_at` to hold .*1 to 2, but got 0.*Leave it out"),
            ({"eval_at": [0.5]}, "`eval_at` to hold .*, but got 0.5"),
        ],
    )
    def test_arguments_out_of_range_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            PermutedTasks("digits", **{"num_tasks": 3, **arguments})

    def test_unknown_tasks_and_splits_are_refused(self):
        stream = PermutedTasks("digits", 3)
        sequence = TaskSequence([stream])
        for streams, task in itertools.product((stream, sequence), (3, -1, 1.0, "a", None)):
            with pytest.raises(ValueError, match=f"Expected `task` to be an integer from 0 to 2, but got {task!r}"):
                streams.task_loader(task)
        with pytest.raises(ValueError, match="Expected `split` to be one of 'train', 'val', 'test', but got 'dev'"):
            stream.task_loader(0, "dev")

    def test_a_task_without_rows_is_refused(self):
        x, y = torch.rand(4, 2), torch.tensor([0, 1, 3, 3])
        with pytest.raises(ValueError, match="Expected rows of the classes of task 2 in 'train', but got none"):
            SplitTasks((x, y, x, y), 4).task_loader(2)


class TestUnderATrainer:
    def fit(self, tmp_path, *args, kind=PermutedTasks, **kwargs):
        stream, module = kind(tensors(), *args, batch_size=4, **kwargs), Memory()
        trainer(tmp_path, **stream.trainer_kwargs()).fit(module, stream)
        return module

    def test_tasks_are_trained_in_turn(self, tmp_path):
        module = self.fit(tmp_path, 5, first_task=2, epochs_per_task=2)
        assert [(epoch, task) for epoch, task, _ in module.batches[::3]] == [
            (0, 2), (1, 2), (2, 3), (3, 3), (4, 4), (5, 4)
        ]  # fmt: skip
        assert len(module.batches) == 18

    def test_they_are_the_batches_that_the_stream_gives_by_itself(self, tmp_path):
        module = self.fit(tmp_path, 3, first_task=1, epochs_per_task=2)
        alone = PermutedTasks(tensors(), 3, first_task=1, epochs_per_task=2, batch_size=4)
        expected = [x.tolist() for task in (1, 2) for epoch in (0, 1) for x, _ in alone.task_loader(task, epoch=epoch)]
        assert [x for _, _, x in module.batches] == expected

    def test_after_each_task_all_are_validated_and_in_between_the_current_one(self, tmp_path):
        module = self.fit(tmp_path, 3, first_task=1, epochs_per_task=2)
        assert module.due() == [[1], [0, 1, 2], [2], [0, 1, 2]]
        assert module.validations[1][-1] == {0: 5, 1: 5, 2: 5}, "each row once"

    @pytest.mark.parametrize(
        ("milestones", "due"),
        [
            ([], [[0], [1], [2], [0, 1, 2, 3]]),
            ([1], [[0], [0, 1], [2], [0, 1, 2, 3]]),
            ([3, 0, 2], [[0], [1], [0, 1, 2], [0, 1, 2, 3]]),
            (range(4), [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]),
            (None, [[0, 1, 2, 3]] * 4),
        ],
    )
    def test_milestones(self, tmp_path, milestones, due):
        assert self.fit(tmp_path, 4, epochs_per_task=1, eval_at=milestones).due() == due

    def test_milestones_within_longer_tasks(self, tmp_path):
        module = self.fit(tmp_path, 3, epochs_per_task=2, eval_at=[1])
        assert module.due() == [[0], [0], [1], [0, 1], [2], [0, 1, 2]]

    def test_validate_and_test_look_at_all_tasks(self, tmp_path):
        stream, module = PermutedTasks(tensors(), 4, first_task=2, epochs_per_task=1, eval_at=[]), Memory()
        run = trainer(tmp_path, **stream.trainer_kwargs())
        run.validate(module, stream, verbose=False)
        run.fit(module, stream)
        run.test(module, stream, verbose=False)
        assert module.due() == [[0, 1, 2, 3], [2], [0, 1, 2, 3], [0, 1, 2, 3]]

    def test_the_current_task_holds_after_the_end(self, tmp_path):
        stream = PermutedTasks(tensors(), 3, epochs_per_task=1)
        run = trainer(tmp_path, **stream.trainer_kwargs())
        run.fit(Memory(), stream)
        assert run.current_epoch == 3
        assert stream.current_task == 2
        assert [len(loader) for loader in stream.val_dataloader()] == [1, 1, 1], "all are due again"

    def test_early_stopping_and_a_limit_of_batches_go_with_it(self, tmp_path):
        stream, module = PermutedTasks(tensors(), 3, batch_size=2), Memory()
        module.on_validation_epoch_end = lambda: module.log("a", 0.5)
        stop = EarlyStopping("a", patience=1)
        run = trainer(tmp_path, **{**stream.trainer_kwargs(), "max_epochs": 3}, callbacks=[stop], limit_train_batches=2)
        with pytest.warns(match="the fit ended after 2 of 3 epochs, and task 2 had none"):
            run.fit(module, stream)
        assert run.current_epoch == 2
        assert run.global_step == 4

    @pytest.mark.parametrize(("steps", "left"), [(4, "tasks 2 to 3"), (6, "tasks 2 to 3"), (7, "task 3"), (18, None)])
    def test_tasks_that_a_fit_leaves_out_are_said(self, tmp_path, steps, left):
        stream = PermutedTasks(tensors(), 4, first_task=1, epochs_per_task=2, batch_size=4)  # three steps an epoch
        run = trainer(tmp_path, **stream.trainer_kwargs(), max_steps=steps)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run.fit(Memory(), stream)
            run.validate(Memory(), stream, verbose=False)
        found = [str(one.message) for one in said if "had none" in str(one.message)]
        assert len(found) == bool(left) and all(f"and {left} had none" in one for one in found)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"max_epochs": 7}, r"to have max_epochs=3, but got 7\. Build it as Trainer\(\*\*data.trainer_kwargs"),
            ({"reload_dataloaders_every_n_epochs": 0}, "reload_dataloaders_every_n_epochs=1, but got 0"),
            ({"num_sanity_val_steps": 2}, "num_sanity_val_steps=0, but got 2"),
        ],
    )
    def test_a_trainer_that_disagrees_is_refused(self, tmp_path, change, message):
        stream = PermutedTasks(tensors(), 3, epochs_per_task=1)
        run = trainer(tmp_path, **{**stream.trainer_kwargs(), **change})
        with pytest.raises(ValueError, match=message):
            run.fit(Memory(), stream)
        run.validate(Memory(), stream, verbose=False)  # which needs none of it

    def test_a_trainer_built_without_them_hears_of_all_three(self, tmp_path):
        run = trainer(tmp_path, max_epochs=1)
        with pytest.raises(
            ValueError, match="max_epochs=3, but got 1; reload.*=1, but got 0; num_sanity.*=0, but got 2"
        ):
            run.fit(Memory(), PermutedTasks(tensors(), 3, epochs_per_task=1))

    @pytest.mark.parametrize(("rows", "epochs"), [(5, 200), (300, 100), (1438, 34)])
    def test_by_default_each_task_has_two_hundred_batches(self, rows, epochs):
        x, y = torch.rand(rows, 2), torch.arange(rows) % 2
        stream = PermutedTasks((x, y, x[:4], y[:4]), 3, first_task=1)
        assert (stream.epochs_per_task, stream.max_epochs) == (epochs, 2 * epochs)
        assert epochs * len(stream.task_loader(1)) >= 200
        assert MixedTasks(stream).max_epochs == epochs

    def test_by_default_the_smallest_task_that_is_trained_decides_unless_another_is_far_larger(self):
        def own(rows):
            x, y = torch.rand(rows, 2), torch.arange(rows) % 2
            return x, y, x[:4], y[:4]

        assert TaskSequence([own(10), own(1000), own(300)], first_task=1, batch_size=10).epochs_per_task == 7
        assert TaskSequence([own(10), own(20_000)], batch_size=10).epochs_per_task == 5
        assert TaskSequence([own(10), own(200_000)], batch_size=10).epochs_per_task == 1
        halves = SplitTasks((torch.rand(90, 2), torch.arange(90) // 60, *own(4)[:2]), 2, batch_size=10)
        assert halves.epochs_per_task == 67

    def test_by_default_a_trainers_epochs_are_shared_out(self, tmp_path):
        stream, module = PermutedTasks(tensors(), 2), Memory()
        run = trainer(tmp_path, **{**stream.trainer_kwargs(), "max_epochs": 4})
        run.fit(module, stream)
        assert module.due() == [[0], [0, 1], [1], [0, 1]]
        assert (stream.epochs_per_task, stream.trainer_kwargs()["max_epochs"]) == (2, 400), "another fit has its own"
        trainer(tmp_path, **stream.trainer_kwargs(), fast_dev_run=True).fit(module, stream)
        run = trainer(tmp_path, **{**stream.trainer_kwargs(), "max_epochs": 3})
        with pytest.raises(ValueError, match="to have max_epochs=400, but got 3.* a multiple of 2"):
            run.fit(module, stream)

    def test_a_fit_goes_on_with_the_epochs_that_it_began_with(self, tmp_path):
        stream = PermutedTasks(tensors(), 2)
        run = trainer(tmp_path, **{**stream.trainer_kwargs(), "max_epochs": 4})
        run.fit(Memory(), stream)
        run.validate(Memory(), stream, verbose=False)
        assert (stream.current_task, stream.epochs_per_task) == (1, 2), "as in the fit"
        run.save_checkpoint(tmp_path / "last.ckpt")
        run.fit_loop.max_epochs = 8  # four a task: epoch 4 is of task 1
        with pytest.raises(ValueError, match="but got one that has done 4 of its 8 epochs in an earlier fit"):
            run.fit(Memory(), stream)
        run = trainer(tmp_path, **{**stream.trainer_kwargs(), "max_epochs": 8})
        with pytest.raises(ValueError, match=r"with 4 epochs for each task, .* with 2: .*epochs_per_task=2\)"):
            run.fit(Memory(), stream, ckpt_path=tmp_path / "last.ckpt", weights_only=True)

    def test_they_are_exactly_these(self):
        assert PermutedTasks("digits", 10, first_task=4, epochs_per_task=3).trainer_kwargs() == {
            "max_epochs": 18,
            "reload_dataloaders_every_n_epochs": 1,
            "num_sanity_val_steps": 0,
        }

    def test_a_fast_dev_run_may_be_shorter(self, tmp_path):
        stream, module = PermutedTasks(tensors(), 3), Memory()
        trainer(tmp_path, **stream.trainer_kwargs(), fast_dev_run=True).fit(module, stream)
        assert len(module.batches) == 1

    def test_data_are_put_on_the_device_once_and_batches_not_again(self, tmp_path):
        stream, module = PermutedTasks(tensors(), 2), Memory()
        seen = set()
        module.on_train_batch_start = lambda *_: seen.add(stream.trainer.train_dataloader.x.data_ptr())
        trainer(tmp_path, **stream.trainer_kwargs()).fit(module, stream)
        assert seen == {stream.source.x_train.data_ptr()}, "on the CPU they are there already"

    @pytest.mark.parametrize("kind", [PermutedTasks, RotatedTasks])
    def test_batches_are_made_on_the_trainers_device_and_it_is_freed(self, kind):
        stream, device = kind(tensors(), 2, epochs_per_task=1), torch.device("meta")  # any device but the CPU will do
        stream.trainer = SimpleNamespace(
            strategy=SimpleNamespace(root_device=device), global_rank=0, world_size=1, current_epoch=0
        )
        stream.setup("validate")
        x, y = next(iter(stream.task_loader(1)))
        assert (x.device, y.device) == (device, device)
        assert stream.task_loader(0).x is stream.task_loader(1).x, "transferred once"
        stream.teardown("validate")
        assert next(iter(stream.task_loader(1)))[0].device == torch.device("cpu")


def test_classes_of_the_toy():
    assert load_source(tensors()).num_classes == CLASSES
