"""Two processes on mixed tasks of several data sets learn and measure what one does."""

import pytest
import torch
from torchmetrics.classification import MulticlassF1Score

from dendrite_zoo.lightning_modules import MultiTaskClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import MixedTasks, PermutedTasks, TaskSequence
from tests.lightning_modules.quiet import fit
from tests.processes import two_processes
from tests.streams.toy import tensors


def run(**kwargs):
    """Nine full batches of eight rows an epoch, so that shares are equal; an odd number of rows to validate on."""
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(4, [16], 3, max_tasks=3, activation_density=0.5)
    sizes = {"rows": 24, "test_rows": 15}
    stream = TaskSequence([PermutedTasks(tensors(**sizes), 2), tensors(seed=1, **sizes)], batch_size=8)
    module = MultiTaskClassifier(model, lr=0.01, metrics={"f1": MulticlassF1Score(3)})
    trainer = fit(module, MixedTasks(stream, epochs=3), **kwargs)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    return metrics, {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.slow
def test_two_processes_are_one():
    (one, weights), (two, of_two) = run(devices=1), run(**two_processes())
    assert set(one) == {f"val/task_{task}/{name}" for task in range(3) for name in ("acc", "f1")}
    assert two == pytest.approx(one, abs=1e-6)
    for name, tensor in weights.items():
        torch.testing.assert_close(of_two[name], tensor, rtol=1e-5, atol=1e-6)
