"""What stands for a reader's own things, and the imports that short blocks of code leave out: for test_pages.py."""

# ruff: noqa: F401, F403
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dendrite_zoo
from dendrite_zoo.callbacks import *
from dendrite_zoo.contexts import *
from dendrite_zoo.layers import *
from dendrite_zoo.lightning_modules import *
from dendrite_zoo.models import *
from dendrite_zoo.rl import *
from dendrite_zoo.streams import *

num_tasks, num_classes = 2, 10
EPOCHS_PER_TASK = epochs_per_task = 1
x_train, y_train = torch.randn(60, 64), torch.arange(60) % num_classes
x_test, y_test = torch.randn(30, 64), torch.arange(30) % num_classes
train_loaders = [DataLoader(TensorDataset(x_train, y_train), batch_size=20) for _ in range(num_tasks)]
val_loaders = [DataLoader(TensorDataset(x_test, y_test), batch_size=20) for _ in range(num_tasks)]


def save_as_fashion_mnist(folder: str) -> None:
    """A mirror of the Hub that has a hundred images of noise in the place of Fashion-MNIST."""
    import io

    import pyarrow
    from PIL import Image
    from pyarrow import parquet

    place = Path(folder) / "zalando-datasets/fashion_mnist/data"
    place.mkdir(parents=True)
    for split in ("train", "test"):
        images = []
        for pixels in np.random.RandomState(0).randint(256, size=(100, 28, 28)).astype("uint8"):
            Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        columns = {"image": images, "label": [n % 10 for n in range(100)]}
        parquet.write_table(pyarrow.table(columns), place / f"{split}-00000-of-00001.parquet")
