"""What the callbacks add to an epoch: neighbouring epochs of one fit, with them and without, in pairs.

    python benchmarks/callbacks.py [--fits 4]

The recipe is permuted-digits: twenty epochs a task, each with a validation of the current task,
the last with one of all ten tasks. Both kinds of epoch are timed, in pairs of neighbours whose order
alternates; the baseline is "the same epoch without callbacks". Time is the process's own (user and system),
so that other work on the machine counts less. One JSON line for each choice of callbacks holds the medians of
the pairs' ratios, and what follows for the recipe's twenty epochs, to which all callbacks together are to add at
most 3 %.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch.nn.modules.module import register_module_forward_hook

from dendrite_zoo._core.environment import versions
from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks

LIMIT = 3.0  # percent
EMPTY = "five numbers logged in each validation, and a hook on all modules that does nothing"
EPOCHS_PER_TASK = 20


class Empty(Callback):
    """Reaches Lightning and the network as ours do, and does nothing there."""

    def on_validation_batch_start(self, *args: object) -> None:
        self.hook = register_module_forward_hook(lambda *call: None)

    def on_validation_batch_end(self, *args: object) -> None:
        self.hook.remove()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log_dict({f"number {i}": float(i) for i in range(5)})


CHOICES: dict[str, Callable[[], list[Callback]]] = {
    "ForgettingLogger": lambda: [ForgettingLogger(verbose=False)],
    "SparsityLogger": lambda: [SparsityLogger()],
    "both": lambda: [ForgettingLogger(verbose=False), SparsityLogger()],
    EMPTY: lambda: [Empty()],
}


class EveryOther(Callback):
    """Takes the callbacks out of the Trainer in one epoch of each pair, and times both."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.begun = epochs, 0.0
        self.seconds: dict[bool, list[float]] = {True: [], False: []}

    def watched(self, epoch: int) -> bool:
        """With, without; without, with; and so on."""
        return (epoch % 2 == 0) == (epoch // 2 % 2 == 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.all = list(trainer.callbacks)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.callbacks = self.all if self.watched(trainer.current_epoch) else [self]
        self.begun = time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        self.seconds[self.watched(epoch)].append(time.process_time() - self.begun)
        trainer.should_stop = epoch + 1 >= self.epochs


def pairs(callbacks: list[Callback], *, all_tasks: bool) -> list[tuple[float, float]]:
    """Seconds of neighbouring epochs (with, without), validated on all ten tasks or on the current one."""
    seed_everything(0, verbose=False)
    epochs_per_task = 1 if all_tasks else EPOCHS_PER_TASK
    stream = PermutedTasks("digits", num_tasks=10, epochs_per_task=epochs_per_task, batch_size=64)
    model = ActiveDendriteClassifier(64, [512, 512], 10, max_tasks=16, num_segments=5, activation_density=0.1)
    clock = EveryOther(epochs=10)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            **stream.trainer_kwargs(),
            accelerator="cpu",
            devices=1,
            callbacks=[clock, *callbacks],
            logger=CSVLogger(folder, name="", version=""),
            log_every_n_steps=20,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(ContinualClassifier(model, lr=5e-4), stream)
    return list(zip(clock.seconds[True], clock.seconds[False], strict=True))[1:]  # the first pair warms up


def percent(times: list[tuple[float, float]]) -> float:
    """Median of the pairs' overheads."""
    return 100 * (statistics.median(with_ / without for with_, without in times) - 1)


def main() -> None:
    """Print a line for each choice of callbacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=4, help="fits of ten epochs for each kind of epoch")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)

    for name, make in CHOICES.items():
        ordinary, milestone = (
            [pair for _ in range(args.fits) for pair in pairs(make(), all_tasks=all_tasks)]
            for all_tasks in (False, True)
        )
        base, base_milestone = (statistics.median(t[1] for t in times) for times in (ordinary, milestone))
        added = (EPOCHS_PER_TASK - 1) * base * percent(ordinary) + base_milestone * percent(milestone)
        overhead = added / ((EPOCHS_PER_TASK - 1) * base + base_milestone)
        line = {
            "benchmark": "callbacks",
            "stream": "permuted-digits",
            "callbacks": name,
            "baseline": "the same epoch without callbacks",
            "overhead_percent": round(overhead, 2),
            **({"of": "both, percent of a fit"} if name == EMPTY else {"limit_percent": LIMIT}),
            "epoch_validating_one_task": {
                "percent": round(percent(ordinary), 2),
                "baseline_ms": round(1000 * base),
            },
            "epoch_validating_ten_tasks": {
                "percent": round(percent(milestone), 2),
                "baseline_ms": round(1000 * base_milestone),
            },
            "pairs": len(ordinary) + len(milestone),
            "versions": versions(),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
