"""Data sets one after another: the batches of each as it is by itself, through the schedule that all streams have."""

import pytest
import torch
from jsonargparse import ArgumentParser
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo._core.describe import describe
from dendrite_zoo.streams import (
    MixedTasks,
    PermutedTasks,
    RotatedTasks,
    SplitTasks,
    TaskSequence,
    TaskStream,
    load_source,
)
from tests.streams.toy import Crash, CrashAt, Memory, tensors, trainer


def batches(loader):
    return [(x.tolist(), y.tolist()) for x, y in loader]


def own(seed=1, **kwargs):
    return tensors(seed=seed, **kwargs)


class TestByItself:
    def test_a_stream_stands_for_its_tasks_and_a_data_set_for_one(self):
        inner = PermutedTasks(tensors(), 3, batch_size=4, seed=5)
        stream = TaskSequence([inner, own(), RotatedTasks(tensors(), 2)], batch_size=4, first_task=3, epochs_per_task=1)
        assert (stream.num_tasks, stream.max_epochs, stream.current_task, stream.num_classes) == (6, 3, 3, 3)
        for task in range(3):
            for split in ("train", "test"):
                assert batches(stream.task_loader(task, split)) == batches(inner.task_loader(task, split))
        alone = {str(row) for row in own()[0].tolist()}
        assert {str(row) for x, _ in stream.task_loader(3) for row in x.tolist()} == alone
        rotated = RotatedTasks(tensors(), 2, batch_size=4)
        assert batches(stream.task_loader(5)) == batches(rotated.task_loader(1))

    def test_epochs_are_those_of_the_whole_so_that_a_resume_knows_them(self):
        stream = TaskSequence([PermutedTasks(tensors(), 2), own()], epochs_per_task=3)
        assert stream.task_loader(2, epoch=1).state_dict() == {"epoch": 7, "batch": 0}

    def test_what_a_source_may_be(self):
        x, y, x_test, y_test = tensors(rows=30)
        train, test = TensorDataset(x, y), TensorDataset(x_test, y_test)
        stream = TaskSequence([(x, y, x_test, y_test), (train, test), {"train": train, "test": test}, (x, y), train])
        expected = batches(stream.task_loader(0, "test"))
        assert expected == batches(stream.task_loader(1, "test")) == batches(stream.task_loader(2, "test"))
        for task in (3, 4):  # a fifth of each class of ten rows is held out, and not trained on
            trained, tested = (
                torch.cat([x for x, _ in stream.task_loader(task, split)]) for split in ("train", "test")
            )
            assert (len(trained), len(tested)) == (24, 6)
            assert torch.cat([trained, tested]).sort(0).values.equal(x.sort(0).values)
            labels = torch.cat([y for _, y in stream.task_loader(task, "test")])
            assert labels.bincount().tolist() == [2, 2, 2]

    def test_all_tasks_are_validated_on_rows_of_one_kind(self):
        """Else a mean over tasks would be of held-out training rows and of test rows, and its record name one."""
        inner = PermutedTasks(tensors(rows=30), 1)
        stream = TaskSequence([inner, tensors(rows=30)], val_fraction=0.1)
        assert [sum(len(y) for _, y in stream.task_loader(task, "val")) for task in (0, 1)] == [3, 3]
        assert inner.val_fraction is None and inner.trainer is None, "the stream itself is left as it was"
        for outer in ({}, {"val_fraction": 0.1}):
            with pytest.raises(ValueError, match="to leave `val_fraction` to it, but got 0.5. Give it as TaskSequence"):
                TaskSequence([PermutedTasks(tensors(rows=30), 1, val_fraction=0.5)], **outer)

    def test_sequences_nest(self):
        inner = TaskSequence([tensors(), own()])
        outer = TaskSequence([inner, own(seed=2)], batch_size=4, epochs_per_task=2)
        assert outer.num_tasks == 3
        flat = TaskSequence([tensors(), own(), own(seed=2)], batch_size=4, epochs_per_task=2)
        assert [batches(outer.task_loader(task)) for task in range(3)] == [
            batches(flat.task_loader(t)) for t in range(3)
        ]

    def test_images_keep_their_shape(self):
        x, y = torch.randn(20, 2, 6, 6), torch.arange(20) % 4
        stream = TaskSequence([(x, y, x, y), PermutedTasks((x, y, x, y), 2)], flatten=False)
        stream.setup()
        images, labels = next(iter(stream.task_loader(0, "test")))
        assert images.equal(x) and labels.equal(y) and stream.input_shape == (2, 6, 6) and stream.num_features == 72
        flat = next(iter(PermutedTasks((x, y, x, y), 2).task_loader(1, "test")))[0]
        assert next(iter(stream.task_loader(2, "test")))[0].flatten(1).equal(flat), (
            "the same permutation, over channels"
        )


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("sources", "message"),
        [
            ((torch.zeros(5, 3), torch.arange(5)), r"but got tensors. Write TaskSequence\(\[\(x_train"),
            ("digits", "to be a list of data sets, but got str"),
            ([], "but got an empty list"),
        ],
    )
    def test_what_is_no_list_of_data_sets(self, sources, message):
        with pytest.raises(TypeError, match=message):
            TaskSequence(sources)

    def test_numbers_of_tokens_reach_the_network_as_they_are(self, recwarn):
        y = torch.arange(20) % 2
        news, mail = torch.randint(0, 3000, (20, 6)), torch.randint(0, 50, (20, 6), dtype=torch.int32)
        stream = TaskSequence([(news, y, news, y), (mail, y, mail, y)], batch_size=20)
        stream.setup()
        for task, own in enumerate((news, mail.long())):
            x, _ = next(iter(stream.task_loader(task)))
            assert x.dtype == torch.int64 and sorted(x.tolist()) == sorted(own.tolist())
        assert not recwarn.list, "they have no scale"
        permuted = next(iter(PermutedTasks((news, y, news, y), 2).task_loader(1, "test")))[0]
        assert permuted.dtype == torch.int64 and permuted.sort().values.equal(news.sort().values)
        with pytest.raises(TypeError, match="Expected pixels for such tasks, but got numbers of tokens"):
            RotatedTasks((news[:, :4], y, news[:, :4], y), 2).setup()

    def test_a_loader_is_no_data_set(self):
        with pytest.raises(TypeError, match="can be indexed, but got DataLoader. Pass its `dataset`"):
            TaskSequence([DataLoader(TensorDataset(torch.zeros(3, 1), torch.zeros(3)))]).setup()

    def test_rows_of_another_size(self):
        with pytest.raises(ValueError, match=r"shape \(4,\), as .* sources\[0\], but got \(7,\) in sources\[1\]. Crop"):
            TaskSequence([tensors(), tensors(features=7)]).setup()
        images = [torch.rand(20, channels, 8, 8) for channels in (3, 1)]
        sources = [(x, torch.arange(20) % 2, x, torch.arange(20) % 2) for x in images]
        with pytest.raises(ValueError, match=r"but got \(1, 8, 8\).* Give gray images three channels, x.expand"):
            TaskSequence(sources, flatten=False).setup()

    def test_targets_of_another_kind(self):
        x, y, x_test, y_test = tensors()
        with pytest.raises(ValueError, match=r"class labels in every .*, but got float targets in sources\[1\]"):
            TaskSequence([tensors(), (x, y.float(), x_test, y_test.float())]).setup()

    @pytest.mark.parametrize(
        "arguments", [{"epochs_per_task": 3}, {"batch_size": 8}, {"first_task": 1}, {"eval_at": [0]}], ids=str
    )
    def test_an_argument_of_a_stream_that_would_have_no_effect(self, arguments):
        (name,) = arguments
        with pytest.raises(
            ValueError, match=rf"PermutedTasks within a TaskSequence to leave `{name}` to it.*\({'...'}"
        ):
            TaskSequence([PermutedTasks(tensors(), 2, **arguments)])
        if name not in ("eval_at", "first_task"):
            TaskSequence([PermutedTasks(tensors(), 2, **arguments)], **arguments)

    def test_a_first_task_beyond_the_sources(self):
        with pytest.raises(ValueError, match="`first_task` to be at most 1, but got 2.* a TaskSequence more sources"):
            TaskSequence([tensors(), tensors()], first_task=2)

    def test_pixels_beside_normalised_ones(self):
        pixels = torch.randint(256, (40, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        y = torch.arange(40) % 10
        stream = TaskSequence([PermutedTasks("digits", 2), (pixels, y, pixels, y)])
        mean, deviation = float(pixels.double().mean() / 255), float((pixels.double() / 255).std())
        with pytest.warns(
            UserWarning, match=f"sources.1. have mean {mean:.3g} and standard deviation {deviation:.3g},"
        ):
            stream.setup()
        x = (pixels.float() - pixels.float().mean()) / pixels.float().std()
        TaskSequence([PermutedTasks("digits", 2), (x, y, x, y)]).setup()  # as the warning says; warnings are errors

    def test_printing_it_reads_no_data(self):
        stream = TaskSequence(["nowhere", PermutedTasks("nowhere", 2), tensors()], first_task=1)
        shown = "TaskSequence(['nowhere', PermutedTasks('nowhere', num_tasks=2, first_task=0), <tuple>], first_task=1)"
        assert str(stream) == repr(stream) == shown
        assert TaskSequence(["digits", SplitTasks("digits", 2), tensors()]).benchmark == "digits+split-digits+custom"


def test_a_config_may_hold_streams_and_names():
    parser = ArgumentParser(exit_on_error=False)
    build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name before 4.40
    parser.add_subclass_arguments(TaskStream, "data")
    inner = {"class_path": "PermutedTasks", "init_args": {"source": "digits", "num_tasks": 3}}
    sequence = {"class_path": "TaskSequence", "init_args": {"sources": [inner, "digits"], "first_task": 3}}
    stream = build(parser.parse_object({"data": sequence})).data
    assert repr(stream.sources) == "[PermutedTasks('digits', num_tasks=3, first_task=0), 'digits']"
    parser.add_subclass_arguments(MixedTasks, "mixed", required=False)
    mixed = {"class_path": "MixedTasks", "init_args": {"tasks": sequence, "epochs": 2}}
    data = build(parser.parse_object({"data": sequence, "mixed": mixed})).mixed
    assert data.num_tasks == 4 and data.epochs == 2
    told = describe(stream, leave_out=["eval_at"])
    assert told["sources"][0]["source"] == told["sources"][1] == "digits", "so that two seeds of it are known as such"


class TestUnderATrainer:
    def stream(self, **kwargs):
        return TaskSequence(
            [PermutedTasks(tensors(), 2), own(), own(seed=2)], batch_size=4, epochs_per_task=2, **kwargs
        )

    def fit(self, tmp_path, callbacks=(), checkpoint=None, **kwargs):
        stream, module = self.stream(**kwargs), Memory()
        run = trainer(tmp_path, **stream.trainer_kwargs(), callbacks=list(callbacks))
        run.fit(module, stream, ckpt_path=checkpoint)
        return module

    def test_tasks_are_trained_in_turn_and_validated_as_in_every_stream(self, tmp_path):
        module = self.fit(tmp_path, first_task=1, eval_at=[2])
        assert [task for _, task, _ in module.batches] == [1] * 6 + [2] * 6 + [3] * 6
        assert module.due() == [[1], [1], [2], [0, 1, 2], [3], [0, 1, 2, 3]]
        alone = [x.tolist() for task in (1, 2, 3) for e in (0, 1) for x, _ in self.stream().task_loader(task, epoch=e)]
        assert [x for _, _, x in module.batches] == alone

    @pytest.mark.filterwarnings("ignore:Checkpoint directory")
    @pytest.mark.parametrize("step", [2, 3, 7, 12])
    def test_a_run_that_crashed_goes_on_to_the_bit(self, tmp_path, step):
        from lightning.pytorch.callbacks import ModelCheckpoint

        whole = self.fit(tmp_path / "whole")
        saving = ModelCheckpoint(tmp_path / "a", every_n_train_steps=1, save_last=True)
        with pytest.raises(Crash):
            self.fit(tmp_path / "a", [saving, CrashAt(step)])
        again = ModelCheckpoint(tmp_path / "a", every_n_train_steps=1, save_last=True)
        resumed = self.fit(tmp_path / "a", [again], checkpoint=tmp_path / "a" / "last.ckpt")
        assert resumed.batches == whole.batches and resumed.validations == whole.validations
        assert resumed.linear.weight.equal(whole.linear.weight)


def test_a_held_out_fifth_is_the_same_whatever_the_streams_seed():
    x, y, _, _ = tensors(rows=30)
    first, second = (TaskSequence([(x, y)], seed=seed) for seed in (0, 1))
    assert batches(first.task_loader(0, "test")) == batches(second.task_loader(0, "test"))
    assert load_source((x, y)).x_test.equal(torch.cat([x for x, _ in first.task_loader(0, "test")]))
