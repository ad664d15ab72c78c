"""A classifier from running sums: any order, any Trainer, files and more classes."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

import dendrite_zoo
from dendrite_zoo.callbacks import ElasticWeightConsolidation, ForgettingLogger, SynapticIntelligence
from dendrite_zoo.contexts import OneHotContext
from dendrite_zoo.hub.publish.card import write_card
from dendrite_zoo.lightning_modules import ContinualClassifier, MultiTaskClassifier, ReplayClassifier
from dendrite_zoo.models import RidgeClassifier
from dendrite_zoo.streams import SplitTasks

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def small(shape=(8, 8), classes=10):
    return RidgeClassifier(shape, classes, random_features=128)


def batches(rows=60, classes=3, size=6):
    y = torch.arange(rows) % classes
    return [(torch.randn(rows, size) + 2 * torch.eye(size)[y], y)]


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_classes_one_after_another_in_one_fit(tmp_path):
    stream = SplitTasks("digits", num_tasks=5, epochs_per_task=2)
    log, module = ForgettingLogger("val/acc", verbose=False, pictures=False), ContinualClassifier(small())
    trainer = Trainer(**stream.trainer_kwargs(), **QUIET, callbacks=[log], default_root_dir=tmp_path)
    trainer.fit(module, stream)
    assert log.matrix[-1].mean() > 0.95 and trainer.global_step == 20
    by_hand = small()
    for task in range(5):
        by_hand.learn(stream.task_loader(task))
    assert module.model.head.counts.sum() == 1438
    x = torch.cat([x for task in range(5) for x, _ in stream.task_loader(task, "test")])
    torch.testing.assert_close(module.model(x), by_hand(x), rtol=1e-3, atol=1e-2)
    again = ContinualClassifier.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    assert torch.equal(again.model(x), module.model(x))


def test_a_resumed_fit_learns_no_task_twice(tmp_path):
    stream = SplitTasks("digits", num_tasks=5)
    first = ContinualClassifier(small())
    Trainer(**stream.trainer_kwargs(), **QUIET, enable_checkpointing=False).fit(first, stream)
    stopped = Trainer(**stream.trainer_kwargs(), **QUIET, enable_checkpointing=False, max_steps=3)
    stopped.fit(ContinualClassifier(small()), stream)
    stopped.save_checkpoint(tmp_path / "stopped.ckpt")
    second = ContinualClassifier(small())
    trainer = Trainer(**stream.trainer_kwargs(), **QUIET, enable_checkpointing=False)
    trainer.fit(second, stream, ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
    assert same(first.model.state_dict(), second.model.state_dict())


def test_an_artifact_holds_all_and_grows(tmp_path):
    torch.manual_seed(0)
    model, data = RidgeClassifier(6, 3, random_features=64), batches()
    model.learn(data)
    model.save_pretrained(tmp_path)
    loaded = dendrite_zoo.load(tmp_path)
    x, y = data[0]
    assert torch.equal(loaded(x), model(x)) and (loaded(x).argmax(1) == y).float().mean() > 0.8
    grown = dendrite_zoo.load(tmp_path, num_classes=5)
    torch.testing.assert_close(grown(x)[:, :3], model(x), rtol=1e-4, atol=1e-4)
    assert (grown(x).argmax(1) < 3).all()
    grown.learn([(x + 5, torch.full_like(y, 4))])
    assert (grown(x + 5).argmax(1) == 4).all() and (grown(x).argmax(1) == y).float().mean() > 0.8
    with pytest.raises(
        ValueError, match=r"Expected `num_classes` to be at least 3, but got 2. No class is ever dropped"
    ):
        dendrite_zoo.load(tmp_path, num_classes=2)


def test_an_artifact_without_sums(tmp_path):
    model, data = RidgeClassifier(6, 3, random_features=64), batches()
    model.learn(data)
    expected = model(data[0][0])
    model.drop_sums()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 64 * 64 * 8 / 2
    for options in ({}, {"num_classes": 5}):
        loaded = dendrite_zoo.load(tmp_path, **options)
        torch.testing.assert_close(loaded(data[0][0])[:, :3], expected, rtol=1e-4, atol=1e-4)
        for learn in (lambda model: model.learn(data), lambda model: model.head.solve()):
            with pytest.raises(ValueError, match=r"sums were dropped"):
                learn(loaded)


def test_precision_and_the_meta_device():
    model, (x, _) = RidgeClassifier(6, 3, random_features=64), batches()[0]
    model.learn(batches())
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), expected)
    model.half()
    assert {name: tensor.dtype for name, tensor in model.state_dict().items()} == kinds
    with torch.device("meta"):
        empty = RidgeClassifier(**model.config).state_dict()
    assert {name: x.shape for name, x in empty.items()} == {name: x.shape for name, x in model.state_dict().items()}


@pytest.mark.parametrize("when", [0, 1])
def test_what_cannot_be_learned_changes_nothing(when):
    model, bad = RidgeClassifier(6, 3, random_features=64), batches()
    for _ in range(when):
        model.learn(batches())
    before = copy.deepcopy(model.state_dict())
    bad.append((bad[0][0].clone().index_fill_(0, torch.tensor([5]), torch.nan), bad[0][1]))
    with pytest.raises(ValueError, match=r"infinity or larger numbers in batch 1 \(from 0\), row 5. Nothing was"):
        model.learn(bad)
    with pytest.raises(ValueError, match=r"Expected labels from 0 to 2, but got 7. Raise `num_classes`"):
        model.learn([(bad[0][0], bad[0][1] + 5)])
    with pytest.raises(ValueError, match=r"Expected labels from 0 to 2, but got -1. Number classes from 0"):
        model.learn([(bad[0][0], bad[0][1] - 1)])
    with pytest.raises(ValueError, match=r"Expected at least one row to learn from, but got none"):
        model.learn([])
    with pytest.raises(ValueError, match=r"Expected `x` to be of shape \(batch, 6\), or one that flattens to it, but"):
        model.learn([(torch.zeros(2, 7), torch.zeros(2))])
    assert same(before, model.state_dict())


def test_bad_arguments():
    for shape, said in (
        ((1, 2, 3, 4), "the size of a row, or the shape"),
        (0, "an integer of at least 1"),
        ("8", "int"),
    ):
        with pytest.raises(ValueError, match=f"Expected `input_shape` to be .*{said}"):
            RidgeClassifier(shape, 3)
    with pytest.raises(ValueError, match=r"`input_shape` to be channels first, \(C, H, W\), but got \[28, 28, 3\]"):
        RidgeClassifier((28, 28, 3), 3)
    with pytest.raises(ValueError, match="`random_features` to be a multiple of 32 for images, but got 100"):
        RidgeClassifier((8, 8), 3, random_features=100)
    with pytest.raises(ValueError, match="Expected `penalty` to be a number above 0, but got 0"):
        RidgeClassifier(8, 3, penalty=0.0)
    with pytest.raises(
        ValueError, match=r"Expected `model` to be one that is trained, but got 'RidgeClassifier'. Call"
    ):
        MultiTaskClassifier(small())


def test_its_card_shows_how_it_is_loaded_and_called(tmp_path):
    model = RidgeClassifier((4, 5), 3, random_features=32)
    model.learn([(torch.rand(9, 20), torch.arange(9) % 3)])
    model.save_pretrained(tmp_path)
    write_card(model, tmp_path, "me/letters")
    text = (tmp_path / "README.md").read_text()
    assert "x = torch.rand(8, 4, 5)  # like those it learned\nlogits = model(x)" in text
    assert "pipeline_tag: image-classification" in text and "class-incremental-learning" in text


@pytest.mark.parametrize(
    ("batch", "error", "said"),
    [
        (
            (torch.zeros(2, 6), torch.tensor([0.5, 1.5])),
            ValueError,
            r"integers as labels, but got torch.float32 in batch",
        ),
        (
            (torch.zeros(2, 6).numpy(), torch.tensor([0, 1])),
            TypeError,
            r"pairs of tensors, .* but got \(ndarray, Tensor\) as batch 1",
        ),
        (torch.zeros(2, 6), TypeError, r"such as \[\(x, y\)\] or a DataLoader gives, but got Tensor as batch 1"),
        (
            {"x": torch.zeros(2, 6), "y": torch.tensor([0, 1])},
            TypeError,
            r"pairs of tensors, .* but got dict as batch 1",
        ),
        ((torch.full((2, 6), torch.inf), torch.tensor([0, 1])), ValueError, r"infinity or larger numbers in batch 1"),
    ],
)
def test_what_is_no_pair_of_inputs_and_labels_is_refused(batch, error, said):
    model = RidgeClassifier(6, 3, random_features=64)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=f"^Expected .*{said}"):
        model.learn([*batches(), batch])
    assert same(before, model.state_dict())


def test_each_fit_has_rows_to_learn():
    stream = SplitTasks("digits", num_tasks=5)
    module, by_hand = ContinualClassifier(small()), small()
    for task in (0, 3):
        rows = DataLoader(list(stream.task_loader(task)), batch_size=None)
        trainer = Trainer(max_epochs=1, **QUIET, enable_checkpointing=False, num_sanity_val_steps=0)
        trainer.fit(module, rows, rows)  # no one says which task it is
        by_hand.learn(rows)
    assert torch.equal(module.model.head.counts, by_hand.head.counts)
    assert same(module.model.state_dict(), by_hand.state_dict())


def test_what_has_no_effect_on_it_is_refused():
    for name, value in {
        "context": OneHotContext(3),
        "optimizer": torch.optim.Adam,
        "lr_schedule": "cosine",
        "label_smoothing": 0.1,
    }.items():
        with pytest.raises(
            ValueError, match=f"Expected `{name}` to be left out for RidgeClassifier, but got .* not train"
        ):
            ContinualClassifier(small(), **{name: value})
    with pytest.raises(ValueError, match="Expected `model` to be one that is trained, but got 'RidgeClassifier'"):
        ReplayClassifier(small())
    for callback in (SynapticIntelligence(), ElasticWeightConsolidation()):
        with pytest.raises(
            ValueError, match=f"Expected a network that is trained for {type(callback).__name__}, but got"
        ):
            callback.on_fit_start(Trainer(**QUIET), ContinualClassifier(small()))


def test_pixels_of_a_byte_are_those_of_a_stream():
    """A photo as it is read, and the same scaled as `SplitTasks` gives it, are one input."""
    pixels = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = RidgeClassifier((8, 8), num_classes=2, random_features=64)
    model.learn([(pixels / 255, torch.arange(40) % 2)])
    assert torch.equal(model(pixels), model(pixels / 255))


@pytest.mark.parametrize(("shape", "wrong"), [((3, 8, 8), (8, 8, 3)), ((8, 4), (4, 8))])
def test_images_with_their_sides_in_another_order_are_refused(shape, wrong):
    """They were read in another order than those that were learned, and answered by chance, in silence."""
    model = RidgeClassifier(shape, num_classes=2, random_features=64)
    x, y = torch.rand(20, *shape), torch.arange(20) % 2
    model.learn([(x, y)])
    assert torch.equal(model(x.flatten(1)), model(x)) and torch.equal(model(x[..., None]), model(x))
    for act in (model, lambda x: model.learn([(x, y)])):
        with pytest.raises(ValueError, match=r"as `input_shape`, but got \(20, .* channels last are x.permute"):
            act(torch.rand(20, *wrong))


def test_numbers_of_tokens_are_not_learned_as_sizes_in_silence():
    model = RidgeClassifier(6, num_classes=2, random_features=64)
    x, y = torch.randint(50, (40, 6)), torch.arange(40) % 2
    with pytest.warns(UserWarning, match=r"whole numbers .* numbers of tokens, give counts of these"):
        model.learn([(x, y)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn([(x.float(), y)])


@pytest.mark.parametrize("shape", [64, (8, 8)])
def test_pixels_on_another_scale_than_the_first_are_said_once(shape):
    """Rows learned as floats from 0 to 255 and asked for as bytes were answered by chance, in silence."""
    pixels = torch.randint(256, (40, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y, model = torch.arange(40) % 2, RidgeClassifier(shape, num_classes=2, random_features=64)
    model.learn([(pixels.float(), y)])
    with pytest.warns(UserWarning, match=r"about 25\d times smaller than the first .* uint8 pixels are scaled"):
        model(pixels)
    model(pixels)
    model = RidgeClassifier(shape, num_classes=2, random_features=64)
    model.learn([(pixels, y)])
    model(torch.zeros(1, 64)), model(pixels / 25)
    with pytest.warns(UserWarning, match=r"about 25\d times larger"):
        model.learn([(pixels.float(), y)])
