"""``dendrite-zoo demo``: a pretrained network learns two new tasks."""

import logging
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer, seed_everything
from rich.console import Console

from dendrite_zoo.callbacks import SparsityLogger
from dendrite_zoo.callbacks.trainer import find_callback
from dendrite_zoo.cli.run_folder import run_callbacks, start_run
from dendrite_zoo.cli.run_logger import RunLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.report import sparsity_table
from dendrite_zoo.streams import PermutedTasks


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--name", default="demo", help="Name of the run; its folder is runs/NAME.")
    parser.add_argument("--epochs", dest="epochs_per_task", type=int, default=5, help="Epochs on each new task.")


def run(name: str, epochs_per_task: int) -> None:
    """Load permuted-digits, fine-tune it on two more permutations, and show what it forgets."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its notes on hardware and loggers
    torch.set_num_threads(1)  # for a network this small more threads would wait for each other
    folder = start_run(Path("runs") / name, replace=True)
    seed_everything(0, verbose=False)
    model = ActiveDendriteClassifier.from_pretrained("permuted-digits")
    first = model.num_tasks
    stream = PermutedTasks("digits", first + 2, first_task=first, epochs_per_task=epochs_per_task, batch_size=32)
    options = {**stream.trainer_kwargs(), "enable_model_summary": False, "log_every_n_steps": 5}
    trainer = Trainer(**options, logger=RunLogger(folder), callbacks=run_callbacks(folder))
    sparsity = find_callback(trainer, SparsityLogger)
    assert sparsity is not None
    module, console = ContinualClassifier(model), Console()

    console.rule(f"permuted-digits as loaded: {first} tasks learned, contexts inferred from each input")
    trainer.validate(module, stream, verbose=False)
    before = sparsity.values
    console.print(sparsity_table(before))

    console.rule(f"fine-tuned on tasks {first} and {first + 1}, two new permutations")
    trainer.fit(module, stream)
    console.print(sparsity_table(sparsity.values, before))

    model.save_pretrained(folder / "model")
    again = ActiveDendriteClassifier.from_pretrained(folder / "model")
    x, _ = next(iter(stream.task_loader(task=0, split="test")))
    equal = torch.equal(model.eval()(x.cpu()), again(x.cpu()))
    written = ("metrics.csv", "matrix.json", "matrix.png", "model")  # the picture by the [report] extra alone
    console.rule(f"{folder}: {', '.join(name for name in written if (folder / name).exists())}")
    console.print(f"The fine-tuned model, saved and loaded again, gives {'equal' if equal else 'DIFFERENT'} outputs.")
