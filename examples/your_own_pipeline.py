"""Way (c): our callbacks in a pipeline that was written without this library.

The LightningModule and the datamodule below know nothing of it. The module logs one metric for several validation
loaders, loader j being task j; ``epochs_per_task`` says which task is trained on. That is all the callbacks need.
"""

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger

TASKS, EPOCHS_PER_TASK = 3, 3


class YourModule(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.log("val/acc", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class YourData(LightningDataModule):
    """Three tasks: the same question, each time asked of other features."""

    def setup(self, stage):
        x = torch.randn(600, 20, generator=torch.Generator().manual_seed(0))
        self.tasks = [TensorDataset(x, (x[:, 5 * t] + x[:, 5 * t + 1] > 0).long()) for t in range(TASKS)]

    def train_dataloader(self):
        return DataLoader(self.tasks[self.trainer.current_epoch // EPOCHS_PER_TASK], batch_size=32, shuffle=True)

    def val_dataloader(self):
        return [DataLoader(task, batch_size=200) for task in self.tasks]


seed_everything(0)
forgetting = ForgettingLogger("val/acc", epochs_per_task=EPOCHS_PER_TASK)
trainer = Trainer(
    max_epochs=TASKS * EPOCHS_PER_TASK,
    reload_dataloaders_every_n_epochs=EPOCHS_PER_TASK,
    log_every_n_steps=5,
    logger=False,
    default_root_dir="your-run",
    callbacks=[
        forgetting,
        SparsityLogger(),
        # The model after each task: by average_accuracy, one that has seen few tasks would look the best.
        ModelCheckpoint(every_n_epochs=EPOCHS_PER_TASK, save_top_k=-1, filename="{epoch}"),
        # Undefined figures are NaN (nothing can be forgotten during the first task), and those are no reason to stop.
        EarlyStopping(monitor="forgetting", patience=100, check_finite=False),
    ],
)
trainer.fit(YourModule(), datamodule=YourData())
print(f"forgotten of task 0: {trainer.callback_metrics['forgetting/task_0']:.2f}")
