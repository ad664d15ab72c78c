"""`torch.compile` of a whole LightningModule, as Lightning's pages show it, and of the model in it: nothing changes."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn

from dendrite_zoo import add_dendrites
from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from dendrite_zoo.lightning_modules import BehaviorCloning, ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendritePolicy
from dendrite_zoo.models.adapters import context, head
from dendrite_zoo.streams import RotatedTasks


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a logger writes its matrix
    for name in ("HIDDEN", "HIDDEN_OF_INPUTS"):  # random features of heads, whose solution takes most of the time
        monkeypatch.setattr(head, name, 128)
    monkeypatch.setattr(context, "LEAST", 128)


pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # from within `torch.compile`
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def adapted():
    backbone = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return add_dendrites(backbone.eval(), layers=nn.BatchNorm2d, num_classes=10, max_tasks=2)


def subnetworks():
    return ActiveDendriteClassifier(64, [64], 10, max_tasks=2, context="one-hot", winners="context")


MODELS = {
    "adapted": (adapted, {}),
    "subnetworks": (subnetworks, {"learn": "new", "context_at_test": "given"}),
    "own": (lambda: nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), {}),
}


def fitted(kind, wrap_model=lambda model: model, wrap=lambda module: module):
    torch.compiler.reset()
    seed_everything(0, verbose=False)
    make, options = MODELS[kind]
    module = ContinualClassifier(wrap_model(make()), **options)
    stream = RotatedTasks("digits", num_tasks=2, batch_size=256, flatten=kind != "adapted", epochs_per_task=1)
    log = ForgettingLogger("val/acc", pictures=False, verbose=False)
    trainer = Trainer(**stream.trainer_kwargs(), callbacks=[log, SparsityLogger()], **QUIET)
    trainer.fit(wrap(module), stream)
    return module, log.matrix


def compiled(module):
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("kind", MODELS)
def test_a_whole_module(kind):
    _, expected = fitted(kind)
    module, matrix = fitted(kind, wrap=compiled)
    torch.testing.assert_close(matrix, expected)
    assert module.training_step.__func__ is ContinualClassifier.training_step, "steps log, and are not compiled"


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "own"])
def test_a_model_of_ours(kind):
    """The wrapper that `torch.compile` gives is of another class: the head of a backbone was never solved."""
    plain, expected = fitted(kind)
    module, matrix = fitted(kind, wrap_model=compiled)
    torch.testing.assert_close(matrix, expected)
    assert type(module.model) is type(plain.model) and module.state_dict().keys() == plain.state_dict().keys()
    assert module.hparams["model"] == plain.hparams["model"] and torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_a_compiled_policy():
    policy = ActiveDendritePolicy(["a", "b"], hidden_features=[16, 16])
    assert BehaviorCloning(compiled(policy)).model is policy
