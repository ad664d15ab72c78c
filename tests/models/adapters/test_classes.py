"""Tasks on a backbone that have numbers of classes of their own: heads are no larger, and all share one output."""

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from safetensors.torch import load_file
from torch import nn

import dendrite_zoo
from dendrite_zoo import add_dendrites
from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.streams import TaskSequence
from tests.models.adapters.networks import made, mlp

CLASSES = [2, 5, 3]


def data(task, count=280):
    """Rows of a task, whose class some numbers tell, and whose task others do."""
    generator = torch.Generator().manual_seed(task)
    y = torch.arange(count) % CLASSES[task]
    x = torch.randn(count, 12, generator=generator)
    x[:, :5] += 4 * F.one_hot(y, 5)
    x[:, 5:8] += 3 * F.one_hot(torch.tensor(task), 3)
    return x, y


def learned(num_classes, tasks=(0, 1, 2), context="given", **options):
    options |= {"context": context, "num_classes": num_classes, "max_tasks": 3}
    options["example"] = {"input": torch.zeros(2, 12)}  # by keyword, so that a head has no features of inputs
    model = add_dendrites(made(mlp), layers=nn.Linear, **options)
    for task in tasks:
        x, y = data(task)
        model.start_task(task, [x])
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=0.05, weight_decay=0.1)
        for _ in range(4):
            optimizer.zero_grad(set_to_none=False)
            F.cross_entropy(model(x, task=task), y).backward()
            optimizer.step()
        if options.get("head", "ridge") == "ridge":
            model.fit_head(task, [(x, y)])
    return model.eval()


@pytest.mark.parametrize("head", ["linear", "ridge"])
def test_each_task_computes_what_it_would_in_a_model_of_as_many_classes(head):
    model = learned(CLASSES, head=head)
    assert model.num_classes == 5
    for task, own in enumerate(CLASSES):
        x = data(task)[0]
        alone = learned(own, [task], head=head)
        expected = alone(x, task=task)
        for logits in (model(x, task=task), model.fold(task)(x)):
            torch.testing.assert_close(logits[:, :own], expected, rtol=1e-4, atol=1e-4)
            assert logits.shape == (280, 5) and (logits[:, own:] < -1e5).all()


def test_tasks_of_different_sizes_share_one_output():
    model = learned(CLASSES, context="ridge")
    x, y = (torch.cat(parts) for parts in zip(*map(data, range(3)), strict=True))
    ids = torch.arange(3).repeat_interleave(280)
    assert (model.context.infer(x) == ids).float().mean() > 0.95
    for logits in (model(x, task=ids), model(x)):
        assert logits.shape == (840, 5) and (logits.argmax(1) == y).float().mean() > 0.8
    with pytest.raises(ValueError, match="Expected labels from 0 to 1, but got 4. Raise `num_classes`"):
        model.fit_head(0, [data(1)])


def test_a_class_that_the_task_does_not_have_is_no_label():
    """Its logit cannot grow: without an error the loss would be a million, and nothing be learned from the row."""
    model, (x, y) = learned(CLASSES, [], head="linear"), data(0)
    model.start_task(0, [x])
    for mode in (True, False):
        F.cross_entropy(model.train(mode)(x, task=0), y).backward()
        with pytest.raises(ValueError, match="Expected labels from 0 to 1 in task 0, which .* 2, but got 2"):
            F.cross_entropy(model(x, task=0), y + 1).backward()


def test_weights_of_classes_that_a_task_does_not_have_stay_zero():
    model = learned(CLASSES, head="linear")
    model.merge()
    features = model.heads.num_means
    gates = model.columns.shape[1] - 5 * (features + 1)
    for task, own in enumerate(CLASSES):
        weight, bias = model.columns[task, gates:].split([5 * features, 5])
        assert weight.view(5, -1)[:own].any(1).all() and bias[:own].all()
        assert not weight.view(5, -1)[own:].any() and not bias[own:].any()


@pytest.mark.parametrize("head", ["linear", "ridge"])
def test_a_file_has_no_numbers_of_classes_that_a_task_does_not_have(head, tmp_path):
    model = learned(CLASSES, head=head)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    features = model.heads.num_means + 1
    gates = model.columns.shape[1] - 5 * features
    assert stored["columns"].shape == (3 * gates + sum(CLASSES) * features,)
    assert head == "linear" or stored["heads.ridge_weight"].shape == (10, model.heads.ridge_weight.shape[2])
    again = dendrite_zoo.load(tmp_path, backbone=made(mlp))
    empty = learned(CLASSES, [], head=head)
    empty.load_state_dict(model.state_dict())
    assert again.config["num_classes"] == CLASSES
    for task in range(3):
        x = data(task)[0]
        assert torch.equal(again(x, task=task), expected := model(x, task=task))
        assert torch.equal(empty.eval()(x, task=task), expected)


@pytest.mark.parametrize(
    ("head", "known", "changes", "wanted"),
    [
        ("ridge", CLASSES, {"max_tasks": 4}, [2, 5, 3, 5]),
        ("ridge", CLASSES, {"max_tasks": 4, "num_classes": [2, 5, 3, 9]}, [2, 5, 3, 9]),
        ("linear", CLASSES, {"max_tasks": 4, "num_classes": [2, 5, 3, 9]}, [2, 5, 3, 9]),
        ("ridge", CLASSES, {"max_tasks": 2}, [2, 5]),
        ("linear", CLASSES, {"num_classes": [2, 5, 40]}, [2, 5, 40]),
        ("ridge", 5, {"max_tasks": 4, "num_classes": 6}, [5, 5, 6, 6]),
        ("linear", 5, {"max_tasks": 4}, 5),
    ],
)
def test_room_for_more_classes_leaves_learned_tasks_as_they_are(head, known, changes, wanted, tmp_path):
    model = learned(known, [0, 1], head=head, context="ridge" if head == "ridge" else "prototype")
    model.save_pretrained(tmp_path)
    grown = dendrite_zoo.load(tmp_path, backbone=made(mlp), **changes)
    assert grown.config["num_classes"] == wanted
    for task in (0, 1):
        x, own = data(task)[0], grown.heads.classes[task]
        assert torch.equal(grown.context.infer(x), model.context.infer(x))
        assert torch.equal(grown(x, task=task)[:, :own], model(x, task=task)[:, :own])
    if (task := grown.max_tasks - 1) > 1:
        x, y = torch.rand(60, 12) + 20, torch.arange(60) % grown.heads.classes[task]
        grown.start_task(task, [x])
        F.cross_entropy(grown.train()(x, task=task), y).backward()
        assert (grown.eval().context.infer(x) == task).all()


def test_what_is_no_number_of_classes_is_refused(tmp_path):
    for wrong in ([2, 5], [2, 0, 3], 0, []):
        with pytest.raises(ValueError, match="Expected `num_classes` to be"):
            learned(wrong, [])
    learned(CLASSES, [0]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"`num_classes` to be \[2\] of the tasks that were learned, but got \[3\]"):
        dendrite_zoo.load(tmp_path, backbone=made(mlp), num_classes=[3, 5, 3])


def test_some_of_the_tasks_keep_their_classes(tmp_path):
    model = learned(CLASSES)
    part = model.of_tasks([2, 0]).attach(made(mlp))
    assert part.config["num_classes"] == [3, 2] and part.num_classes == 3
    for new, task in enumerate((2, 0)):
        x = data(task)[0]
        torch.testing.assert_close(part(x, task=new), model(x, task=task)[:, :3])
    assert model.of_tasks([2, 0], num_classes=[3, 4]).num_classes == 4
    with pytest.raises(ValueError, match="`num_classes` to be at least 3, for task 2 has so many, but got 2"):
        model.of_tasks([2, 0], num_classes=[2, 2])


def test_data_sets_of_different_sizes_are_learned_by_the_trainer(tmp_path):
    stream = TaskSequence([(*data(task), *data(task, 60)) for task in range(3)], epochs_per_task=2, batch_size=40)
    model = learned(CLASSES, [], context="ridge")
    log = ForgettingLogger("val/acc", folder=tmp_path, pictures=False, verbose=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(**stream.trainer_kwargs(), **quiet, default_root_dir=tmp_path, callbacks=[log])
    trainer.fit(ContinualClassifier(model), stream)
    assert log.matrix[-1].min() > 0.8
