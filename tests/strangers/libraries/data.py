"""Tiny images, texts and numbers for three tasks each: the same question, asked of another part of the input."""

import torch
from torch.utils.data import DataLoader, Dataset

T, EPOCHS, SIZE = 3, 2, 32
TRAIN, TEST = 32, (20, 17, 13)


class Images(Dataset):
    """Three classes: which third of the image is brightest, each task in another channel."""

    def __init__(self, task: int, part: str) -> None:
        count = TRAIN if part == "train" else TEST[task]
        generator = torch.Generator().manual_seed(10 * task + (part == "train"))
        self.y = torch.randint(3, (count,), generator=generator)
        self.x = torch.rand(count, 3, SIZE, SIZE, generator=generator)
        for x, y in zip(self.x, self.y, strict=True):
            x[task, 10 * y : 10 * y + 10] += 0.8

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int):
        return self.x[index], self.y[index]


def train_loader(task: int, **options) -> DataLoader:
    return DataLoader(Images(task, "train"), batch_size=8, shuffle=True, **options)


def val_loader(task: int, **options) -> DataLoader:
    return DataLoader(Images(task, "test"), batch_size=8, **options)


def task_of(trainer) -> int:
    return min(trainer.current_epoch // EPOCHS, T - 1)


def accuracy(module, task: int) -> float:
    """Of a module that maps images to logits; one image at a time."""
    data = Images(task, "test")
    right = [int(module(x[None]).argmax(1) == y) for x, y in data]
    return sum(right) / len(right)
