"""Networks of convolutions: images from the stream, gates on channels, and errors that say what to change."""

import pytest
import torch
from torch import nn

from dendrite_zoo.contexts import OneHotContext, PrototypeContext
from dendrite_zoo.layers import ActiveDendriteConv2d
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP
from dendrite_zoo.streams import PermutedTasks, RotatedTasks, SplitTasks, TaskSequence, permutation
from tests.lightning_modules.quiet import fit


class Convolutions(nn.Module):
    """A small network whose channels are gated."""

    def __init__(self, context_dim):
        super().__init__()
        self.first = ActiveDendriteConv2d(1, 8, 3, context_dim=context_dim, num_segments=2, padding=1)
        self.output = nn.Linear(8 * 64, 10)

    def forward(self, x, context):
        return self.output(torch.relu(self.first(x, context)).flatten(1))


def plain():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))


@pytest.mark.parametrize("kind", [PermutedTasks, RotatedTasks, SplitTasks])
def test_images_are_the_flat_rows_in_their_shape(kind):
    for task in range(2):
        images, labels = next(iter(kind("digits", 2, flatten=False).task_loader(task, "test")))
        rows, same = next(iter(kind("digits", 2).task_loader(task, "test")))
        assert images.shape[1:] == (1, 8, 8) and images.flatten(1).equal(rows) and labels.equal(same)
    pixels = next(iter(PermutedTasks("digits", 2, flatten=False, epochs_per_task=1).task_loader(0, "test")))[0]
    permuted = next(iter(PermutedTasks("digits", 2, flatten=False, epochs_per_task=1).task_loader(1, "test")))[0]
    order = permutation(0, 1, 64)
    assert permuted[3, 0, 2, 5] == pixels[3, 0, order[21] // 8, order[21] % 8]


@pytest.mark.parametrize("at_test", ["inferred", "given"])
def test_channels_are_gated_by_a_context_inferred_or_given(at_test):
    context = PrototypeContext(64, 2) if at_test == "inferred" else OneHotContext(2)
    stream = PermutedTasks("digits", 2, flatten=False, batch_size=64, epochs_per_task=1)
    model = Convolutions(context.context_dim)
    before = model.first.segments.detach().clone()
    module = ContinualClassifier(model, context=context, context_at_test=at_test, lr=5e-3)
    logged = fit(module, stream).callback_metrics
    assert not model.first.segments.equal(before), "the segments learn"
    for task in range(2):
        x, y = (torch.cat(column) for column in zip(*stream.task_loader(task, "val"), strict=True))
        ids = context.infer(x) if at_test == "inferred" else torch.tensor(task)
        right = float((model.eval()(x, context(x, ids)).argmax(1) == y).double().mean())
        assert logged[f"val/task_{task}/acc"] == pytest.approx(right, abs=1e-6)
    assert logged["val/task_1/acc"] > 0.6


def test_an_ordinary_network_of_convolutions_in_half_precision_and_accumulated():
    stream = TaskSequence([RotatedTasks("digits", 2), "digits"], flatten=False, batch_size=64, epochs_per_task=1)
    options = {"precision": "bf16-mixed", "accumulate_grad_batches": 2}
    logged = fit(ContinualClassifier(plain(), lr=1e-2), stream, **options).callback_metrics
    assert logged["val/task_2/acc"] > 0.7


def test_the_errors_name_flatten():
    images, rows = (RotatedTasks("digits", 2, flatten=flatten, epochs_per_task=1) for flatten in (False, True))
    with pytest.raises(ValueError, match=r"Expected images \(B, C, H, W\) .* but got \(256, 64\).* flatten=False"):
        fit(ContinualClassifier(plain()), rows)
    for network in (nn.Linear(64, 10), nn.Sequential(nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 10))):
        with pytest.raises(ValueError, match=r"Expected flat rows .*\(256, 1, 8, 8\).*flatten=False.*nn.Flatten\(\)"):
            fit(ContinualClassifier(network), images)
    with pytest.raises(ValueError, match=r"Expected flat rows \(B, features\) for ActiveDendriteMLP"):
        mlp = ActiveDendriteMLP(64, [8], 10, context_dim=64, num_segments=2)
        fit(ContinualClassifier(mlp, context=PrototypeContext(64, 2)), images)
    fit(ContinualClassifier(ActiveDendriteClassifier(64, [8], 10, max_tasks=2)), images)  # flattens them itself
    wrong = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 1"):  # torch's own, which says it
        fit(ContinualClassifier(wrong), images)
