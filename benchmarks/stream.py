"""What Lightning and the stream add: ``Trainer.fit`` of a task of permuted MNIST against a bare loop of its steps.

    python benchmarks/stream.py [--source FOLDER] [--rounds 3] [--batches 40]

The recipe's model, 784-2048-2048-10 with 10 segments, and its batches of 256. Both sides compute the prototype, cut
batches from memory, permute and normalise them; neither validates. Without MNIST at hand, ``--source random`` makes
numbers of its size.
"""

from __future__ import annotations

import argparse
import logging
import warnings

import torch
import torch.nn.functional as F
from harness import THREADS, compare, in_turn
from lightning.pytorch import Trainer

from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.streams import PermutedTasks

NAME = "stream"


def random_mnist() -> tuple[torch.Tensor, ...]:
    """Numbers of MNIST's size."""
    x, y = torch.randint(0, 256, (70_000, 784), dtype=torch.uint8), torch.randint(0, 10, (70_000,))
    return x[:60_000], y[:60_000], x[60_000:], y[60_000:]


def main() -> None:
    """Print a line for the task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="mnist", help="'mnist', a folder that holds it, or 'random'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=40, help="steps of the task that are run")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    stream = PermutedTasks(random_mnist() if args.source == "random" else args.source, num_tasks=2, first_task=1)
    stream.task_loader(1)  # reads the data
    model = ActiveDendriteClassifier(784, [2048, 2048], 10, max_tasks=2, num_segments=10)

    def fit() -> None:
        trainer = Trainer(
            **stream.trainer_kwargs(),
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_train_batches=args.batches,
            limit_val_batches=0,
        )
        trainer.fit(ContinualClassifier(model, lr=5e-4), stream)

    def loop() -> None:
        model.context.start_task(1, (x for x, _ in stream.task_loader(1)))
        optimizer = DendriteAdam(model.parameters(), lr=5e-4)
        for (x, y), _ in zip(stream.task_loader(1), range(args.batches), strict=False):
            optimizer.zero_grad()
            F.cross_entropy(model(x, task=1), y).backward()
            optimizer.step()

    seconds = in_turn({"Trainer.fit": fit, "bare loop": loop}, args.rounds)
    source = args.source if args.source == "random" else "mnist"
    compare(NAME, seconds, "Trainer.fit", "bare loop", "<= 1.15", source=source, steps=args.batches)


if __name__ == "__main__":
    main()
