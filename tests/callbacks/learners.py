"""A network that really learns and forgets, in the habits that people write, and what it knows, computed apart."""

import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.callbacks.strangers import ReluNet

TASKS = 3


def dataset(j, samples=40):
    """Task ``j`` asks for the sign of feature ``2 j``."""
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(j))
    return TensorDataset(x, (x[:, 2 * j] > 0).long())


def train_loader(j):
    return DataLoader(dataset(j), batch_size=10)


def val_loader(j):
    return DataLoader(of_validation(j), batch_size=16)


def of_validation(j):
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(100 + j))
    return TensorDataset(x, (x[:, 2 * j] > 0).long())


class Learner(ReluNet):
    """Logs ``val/acc`` and ``test/acc``."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.log("val/acc", (self.net(x).argmax(1) == y).float().mean(), batch_size=len(y))

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.log("test/acc", (self.net(x).argmax(1) == y).float().mean(), batch_size=len(y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


class WithoutIndex(Learner):
    """Takes no ``dataloader_idx``: one loader only."""

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)


def knows(module, tasks=TASKS):
    """The accuracy on each task, by a plain loop."""
    with torch.no_grad():
        return [
            (module.net(x).argmax(1) == y).double().mean().item()
            for x, y in (of_validation(j)[:] for j in range(tasks))
        ]
