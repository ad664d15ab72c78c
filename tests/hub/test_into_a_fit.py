"""The name of a repo goes straight into a fit, and so do a folder and a zoo name; what cannot be had is one line."""

import pytest
import torch

from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks
from tests.hub.test_download import put

pytestmark = pytest.mark.slow

FIT = """
import warnings
from lightning.pytorch import Trainer
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.streams import PermutedTasks

warnings.filterwarnings("ignore", ".*LeafSpec")
stream = PermutedTasks("digits", num_tasks=2, first_task=1)
module = ContinualClassifier($x, lr=1e-12)
quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False, "logger": False}
trainer = Trainer(**stream.trainer_kwargs(), **quiet, accelerator="cpu", limit_train_batches=1)
trainer.fit(module, stream)
result = [module.model.num_tasks, float(trainer.callback_metrics["val/task_0/acc"])]
"""


@pytest.fixture
def classifier(tmp_path):
    """A model that knows one task, and its accuracy there."""
    stream = PermutedTasks("digits", num_tasks=2)
    model = ActiveDendriteClassifier(
        64, [32], 10, max_tasks=2, num_segments=2, activation_density=1.0, weight_density=1.0
    )
    x, y = (torch.cat(column) for column in zip(*stream.task_loader(0), strict=True))
    model.context.start_task(0, [x])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x, task=0), y).backward()
        optimizer.step()
    model.save_pretrained(tmp_path / "model")
    x, y = (torch.cat(column) for column in zip(*stream.task_loader(0, "test"), strict=True))
    return tmp_path / "model", float((model.eval()(x).argmax(1) == y).double().mean())


def test_a_branch_a_commit_and_a_folder_go_into_a_fit(hub, reader, classifier):
    folder, accuracy = classifier
    commit = put(hub, folder)
    assert accuracy > 0.5
    for x in ("alice/toy", "alice/toy@main", f"alice/toy@{commit}", folder):
        answer = reader(FIT, x=x)
        assert answer.error is None, answer.trace
        tasks, after = answer.result
        assert tasks == 2 and after == pytest.approx(accuracy, abs=1e-6)


def test_private_and_gated_repos(hub, reader, alice, classifier):
    put(hub, classifier[0], private=True)
    put(hub, classifier[0], "models/lab/gated", gated=True)
    error = reader(FIT, x="alice/toy@v1").error
    assert "alice/toy@v1" in error and "or it is private" in error and "hf auth login" in error
    error = reader(FIT, x="lab/gated").error
    assert error.startswith("PermissionError: lab/gated@main: config.json: access is gated")
    assert alice(FIT, x="alice/toy@main").result[0] == alice(FIT, x="lab/gated").result[0] == 2  # then all have a cache


def test_a_repo_that_is_not_there(hub, reader):
    error = reader(FIT, x="alice/nothing").error
    assert "alice/nothing" in error and "Check the name" in error and "\n" not in error
