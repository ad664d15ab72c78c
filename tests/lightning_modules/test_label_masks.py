"""A label for each position of an image, in loaders of one's own."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.lightning_modules.losses import check_targets

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def test_segmentation_of_two_tasks(tmp_path):
    torch.manual_seed(0)
    images = [torch.randn(20, 1, 6, 6) for _ in range(2)]
    sets = [(x, (x[:, 0] > 0.3 * task).long()) for task, x in enumerate(images)]
    sets[1][1][0] = -100  # which torch's loss ignores, too
    loaders = [DataLoader(TensorDataset(*data), batch_size=8) for data in sets]
    network = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    module, by_hand = ContinualClassifier(network, lr=0.05), []
    log = ForgettingLogger("val/acc", folder=tmp_path, pictures=False)
    for task, loader in enumerate(loaders):
        log.task = task
        Trainer(max_epochs=4, callbacks=[log], **QUIET).fit(module, loader, loaders)
        with torch.no_grad():
            right = [(network(x).argmax(1) == y)[y >= 0].float().mean() for x, y in sets]
        by_hand.append(torch.stack(right))
    torch.testing.assert_close(log.matrix, torch.stack(by_hand))
    assert log.matrix[0, 0] > 0.9


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((4, 1), r"\(4, 1\). Pass y.reshape\(-1\)."),
        ((4, 3), r"\(4, 3\). Pass y.argmax\(1\) where one class is marked"),
        ((4, 6, 6), r"\(4, 6, 6\). A label for each position takes a network whose output is \(B, classes, ...\)."),
    ],
)
def test_labels_of_more_dimensions_than_the_output(shape, remedy):
    labels = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(ValueError, match=rf"Expected class labels, .* for an output \(4, 3\), but got {remedy}"):
        check_targets(torch.zeros(4, 3), labels, None)
    check_targets(torch.zeros(4, 3, *shape[1:]), labels, None)
