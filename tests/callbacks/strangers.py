"""A pipeline written without a line of ours: a LightningModule, a datamodule, and what they log by hand.

``accuracies`` scripts what the module measures, so a test knows every entry of the matrix beforehand.
"""

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)


def loader(seed=0, samples=10, batch_size=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 6, generator=generator)
    return DataLoader(TensorDataset(x, torch.randint(3, (samples,), generator=generator)), batch_size=batch_size)


class ReluNet(LightningModule):
    """A small ReLU network that logs ``val/acc`` in its validation step."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        accuracy = (self.net(x).argmax(1) == y).float().mean()
        self.log("val/acc", accuracy, batch_size=len(y), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Scripted(ReluNet):
    """Logs what a script says: ``script(epoch, loader)``."""

    def __init__(self, script):
        super().__init__()
        self.script = script

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val/acc", self.script(self.trainer.current_epoch, dataloader_idx), batch_size=len(batch[1]))


class OneLoader(ReluNet):
    """With one validation loader, Lightning calls the step without a loader's index."""

    def __init__(self, script):
        super().__init__()
        self.script = script

    def validation_step(self, batch, batch_idx):
        self.log("val/acc", self.script(self.trainer.current_epoch), batch_size=len(batch[1]))


class Tasks(LightningDataModule):
    """One task an epoch to train on, a validation loader for each."""

    def __init__(self, tasks=3):
        super().__init__()
        self.tasks = tasks

    def train_dataloader(self):
        return loader(seed=self.trainer.current_epoch)

    def val_dataloader(self):
        return [loader(seed=100 + j) for j in range(self.tasks)] if self.tasks > 1 else loader(seed=100)


def trainer(tmp_path, callbacks, epochs=3, **kwargs):
    """A quiet Trainer on the CPU."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "reload_dataloaders_every_n_epochs": 1,
    }
    return Trainer(max_epochs=epochs, default_root_dir=tmp_path, callbacks=callbacks, **{**defaults, **kwargs})
