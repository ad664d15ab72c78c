"""Skills learned one after another with ``learn="new"``, for processes of their own, too."""

import json
import logging
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.cli.run_folder import LastCheckpoint
from dendrite_zoo.lightning_modules import BehaviorCloning, ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendritePolicy
from dendrite_zoo.streams import PermutedTasks
from dendrite_zoo.streams.loader import ResumableLoader
from tests.training import CrashAt, data

KNOWN, NEW = ("lift", "turn"), ("push", "pull", "slide")
SIZES = {"observation_size": 6, "action_size": 2, "hidden_features": [24, 24], "num_segments": 3}
KINDS = {
    "columns": {"dendrite_layers": None},
    "masked": {"dendrite_layers": None, "segment_density": 0.6, "weight_density": 0.5},
    "subnetworks": {"dendrite_layers": None, "winners": "context", "activation_density": 0.3},
    "disjoint": {"dendrite_layers": None, "winners": "context", "activation_density": 0.3, "overlap": 0.0},
}
ROWS, BATCH, EPOCHS = 32, 8, 2


class Batches(ResumableLoader):
    """The rows of a data set in batches, in another order in each epoch."""

    def __init__(self, rows, **place):
        super().__init__(**place)
        self.rows = rows

    def __len__(self):
        return ROWS // BATCH

    def batches(self, start):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(self.epoch))
        for rows in order.split(BATCH)[start:]:
            yield self.rows[rows[self.rank :: self.world_size]]


class Skills(LightningDataModule):
    """A different linear map for each task, one task after another from ``first_task`` on."""

    def __init__(self, tasks, first_task=0):
        super().__init__()
        self.tasks, self.first_task = tuple(tasks), first_task
        self.max_epochs = EPOCHS * (len(self.tasks) - first_task)

    @property
    def current_task(self):
        return min(self.first_task + self.trainer.current_epoch // EPOCHS, len(self.tasks) - 1)

    def rows(self, task, seed):
        draws = torch.Generator().manual_seed(sum(map(ord, self.tasks[task])))
        matrix = torch.randn(6, 2, generator=draws)
        x = torch.randn(ROWS, 6, generator=draws.manual_seed(seed))
        return TensorDataset(x, (x @ matrix).tanh(), torch.full((ROWS,), task))

    def train_dataloader(self):
        place = {"epoch": self.trainer.current_epoch, "rank": self.trainer.global_rank}
        return Batches(self.rows(self.current_task, 1), **place, world_size=self.trainer.world_size)

    def val_dataloader(self):
        return [DataLoader(self.rows(task, 2), ROWS) for task in range(len(self.tasks))]


class Actions(Callback):
    """Notes what the model does in each task after every epoch, and what of it is trained."""

    def __init__(self):
        self.actions, self.sizes = [], []

    def on_validation_end(self, trainer, module):
        self.actions.append(actions(module))  # before the module's own hook: of the average, where there is one

    def on_train_batch_end(self, trainer, module, *_):
        groups = trainer.optimizers[0].param_groups
        self.sizes.append(sum(p.numel() for group in groups for p in group["params"]))


def actions(module):
    """The outputs in each task of the same observations."""
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return [torch.cat(module.model(x, torch.tensor(task)), dim=1) for task in range(len(module.tasks))]


def known_policy(folder, kind="columns"):
    """A policy that knows two skills, saved."""
    torch.manual_seed(0)
    policy = ActiveDendritePolicy(KNOWN, **SIZES, **KINDS[kind])
    policy.fit_normalizer(torch.randn(50, 6))
    policy.save_pretrained(folder)


def trainer(stream, *callbacks, **options):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "enable_checkpointing": any("Last" in str(type(c)) for c in callbacks)}
    epochs = {"max_epochs": stream.max_epochs, "reload_dataloaders_every_n_epochs": 1, "num_sanity_val_steps": 0}
    return Trainer(**epochs, **{**quiet, **options}, callbacks=[*callbacks])


def train(folder, crash=None, kind="columns", module=None, **options):
    """Teach a policy that knows two skills three more, from the last checkpoint where there is one."""
    torch.set_num_threads(1)
    folder = Path(folder)
    if not (folder / "known").exists():
        known_policy(folder / "known", kind)
    torch.manual_seed(1)
    policy = ActiveDendritePolicy.from_pretrained(folder / "known", tasks=[*KNOWN, *NEW])
    bc = BehaviorCloning(policy, **{"lr": 0.03, "warmup": 2, "ema_decay": 0.9, "learn": "new", **(module or {})})
    noted, last = Actions(), folder / "checkpoints" / "last.ckpt"
    callbacks = [noted, LastCheckpoint(last.parent, seconds=0), *([CrashAt(*crash)] if crash else [])]
    skills = Skills(policy.tasks, first_task=len(KNOWN))
    fitted = trainer(skills, *callbacks, **options)
    fitted.fit(bc, skills, ckpt_path=last if last.exists() else None, weights_only=True)
    if fitted.is_global_zero:
        result = {"weights": bc.state_dict(), "actions": noted.actions, "sizes": noted.sizes}
        torch.save(result, folder / "result.pt")
    return bc, noted


def classify(folder, **options):
    """Learn four tasks one after another, the first with all of the network in a fit of one process."""
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(8, [24], 3, max_tasks=4, winners="context", activation_density=0.3)
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(3))
    outputs = []

    class Seen(ContinualClassifier):
        def on_validation_end(self):
            outputs.append([self.model(x, task=task) for task in range(4)])

    module = Seen(model, learn="new", lr=0.02)
    for first_task, several in ((0, {}), (1, options)):
        stream = PermutedTasks(
            data(24), 1 if several == {} else 4, first_task=first_task, batch_size=8, epochs_per_task=1
        )
        trainer(stream, **several).fit(module, stream)
    if module.trainer.is_global_zero:
        torch.save(outputs, Path(folder) / "outputs.pt")
    return outputs


if __name__ == "__main__":
    several = json.loads(sys.argv[2])
    train(sys.argv[1], **several)
    classify(sys.argv[1], **{name: several[name] for name in ("devices", "strategy")})
