"""Tasks learned all at once: is a network with dendrites worth it against one that gets the task as an input?

    python benchmarks/multi_task.py [--seeds 0 1 2] [--epochs 5] [--out results/multi-task.json]

Two questions of scikit-learn's digits, thirty tasks each. *permuted*: each task has the pixels in another order, and
the same labels. *relabelled*: the same pixels, of which each task calls the ten digits by other numbers, so that the
task must be known. Small networks of about equal parameters, all with two hidden layers: an MLP that is not given the
task; one that gets it as thirty more inputs, one-hot; one that adds a learned vector of the task to each hidden layer;
and active dendrites with the task as context, whose winners are chosen by activation, or by the context. Each has its
learning rate chosen from the same three on training rows held out (a tenth, seed 100); what is reported was trained on
all training rows and measured on the test split.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from harness import QUIET
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn

from dendrite_zoo.lightning_modules import MultiTaskClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.records import ResultRecord, merge_seeds, write_records
from dendrite_zoo.streams import MixedTasks, PermutedTasks, TaskSequence, load_source, permutation

TASKS, BATCH = 30, 64
LEARNING_RATES = (3e-3, 1e-2, 3e-2)


class TaskMLP(nn.Module):
    """A dense network that gets the task not at all (``how="none"``), as an input, or added to its hidden layers."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.first = nn.Linear(64 + TASKS * (how == "input"), width)
        self.second, self.output = nn.Linear(width, width), nn.Linear(width, 10)
        self.shifts = nn.ModuleList(nn.Embedding(TASKS, width) for _ in range(2 * (how == "added")))

    def forward(self, x: Tensor, task: int | Tensor = 0) -> Tensor:
        task = torch.as_tensor(task, device=x.device).expand(len(x))
        if self.how == "input":
            x = torch.cat([x, nn.functional.one_hot(task, TASKS).to(x)], dim=1)
        for number, layer in enumerate((self.first, self.second)):
            x = layer(x)
            x = torch.relu(x + self.shifts[number](task) if self.how == "added" else x)
        return self.output(x)


def dendrites(winners: Literal["activation", "context"]) -> ActiveDendriteClassifier:
    """One segment a unit, which has a weight for each task; half of the units win."""
    options = {"max_tasks": TASKS, "context": "one-hot", "num_segments": 1, "winners": winners}
    return ActiveDendriteClassifier(64, [48, 48], 10, activation_density=0.5, weight_density=1.0, **options)


METHODS: dict[str, Callable[[], nn.Module]] = {
    "MLP without the task": lambda: TaskMLP(64, "none"),
    "MLP, the task as an input": lambda: TaskMLP(54, "input"),
    "MLP, the task added to each layer": lambda: TaskMLP(48, "added"),
    "active dendrites, winners by activation": lambda: dendrites("activation"),
    "active dendrites, winners by context": lambda: dendrites("context"),
}


def stream(name: str, **arguments: object) -> PermutedTasks | TaskSequence:
    if name == "permuted":
        return PermutedTasks("digits", num_tasks=TASKS, batch_size=BATCH, **arguments)
    digits = load_source("digits")
    x, y, x_test, y_test = digits.x_train, digits.y_train, digits.x_test, digits.y_test
    x, x_test = (digits.normalise(x.float()) for x in (x, x_test))
    tasks = [(x, order[y], x_test, order[y_test]) for order in (permutation(0, task, 10) for task in range(TASKS))]
    return TaskSequence(tasks, batch_size=BATCH, **arguments)


def train(
    benchmark: str, method: str, lr: float, seed: int, epochs: int, **arguments: object
) -> tuple[list[float], int, float]:
    """Accuracy on the validation rows of each task, the number of parameters, and the seconds it took."""
    seed_everything(seed, verbose=False)
    data, model = MixedTasks(stream(benchmark, **arguments), epochs=epochs), METHODS[method]()
    trainer = Trainer(**data.trainer_kwargs(), **QUIET, limit_val_batches=0)
    module = MultiTaskClassifier(model, lr=lr, lr_schedule="cosine")
    begun = time.process_time()
    trainer.fit(module, data)
    seconds = time.process_time() - begun
    scores = Trainer(**QUIET).validate(module, data, verbose=False)
    accuracies = {name: value for part in scores for name, value in part.items()}
    parameters = sum(p.numel() for p in model.parameters())
    return [accuracies[f"val/task_{task}/acc"] for task in range(TASKS)], parameters, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--benchmarks", nargs="+", choices=["permuted", "relabelled"], default=["permuted", "relabelled"]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*LeafSpec")
    torch.set_num_threads(1)
    records = []
    for benchmark in arguments.benchmarks:
        for method in METHODS:
            tried = {
                lr: sum(train(benchmark, method, lr, 100, arguments.epochs, val_fraction=0.1)[0]) / TASKS
                for lr in LEARNING_RATES
            }
            lr = max(tried, key=tried.__getitem__)
            print(f"{benchmark}, {method}: learning rates", {lr: round(x, 3) for lr, x in tried.items()}, flush=True)
            for seed in arguments.seeds:
                accuracies, parameters, seconds = train(benchmark, method, lr, seed, arguments.epochs)
                record = ResultRecord.from_run(
                    accuracies,
                    seed=seed,
                    benchmark=f"mixed-{benchmark}-digits",
                    method=method,
                    context_at_test="none" if "without" in method else "given",
                    command=f"python benchmarks/multi_task.py --epochs {arguments.epochs}",
                    description=f"All {TASKS} tasks at once, {arguments.epochs} epochs, learning rate {lr:g}",
                    parameters=parameters,
                    wall_time_s=round(seconds, 1),
                    config={"network": method, "lr": lr, "epochs": arguments.epochs, "batch_size": BATCH},
                )
                print(f"  seed {seed}: {record.average_accuracy:.4f} in {seconds:.0f} s, {parameters:,}", flush=True)
                records.append(record)
    if arguments.out:
        write_records(merge_seeds(records), arguments.out)


if __name__ == "__main__":
    main()
