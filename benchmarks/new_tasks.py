"""Tasks learned one after another where none that was learned may change: is there enough left for the next?

    python benchmarks/new_tasks.py [--seeds 0 1 2] [--tasks 10] [--out results/new-tasks.json]

Ten permutations of scikit-learn's digits, one after another, ``learn="new"`` from the first on, which has all of the
network. *columns*: winners by activation, one-hot contexts, and each further task has its columns of segments, which
open and shut the units of the first. *columns and additive segments*: and what it adds to units and output layer.
*subnetworks*: winners by the context, the mean input, and each further task has the weights of its subnetwork that are
in no earlier one. *all*: the same, ``learn="all"``: whatever is shared changes. The task is given, so that forgetting
is that of the weights alone.
"""

import argparse
import logging
import time
import warnings
from typing import Any

from harness import QUIET
from lightning.pytorch import Trainer, seed_everything

from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.records import ResultRecord, merge_seeds, write_records
from dendrite_zoo.streams import PermutedTasks

COLUMNS = {"context": "one-hot", "activation_density": 0.2}
BY_COLUMNS = {"learn": "new", "lr": 1e-2, "init_from": "nearest"}
SUBNETWORKS = {"winners": "context", "activation_density": 0.1}
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "columns": (COLUMNS, BY_COLUMNS),
    "columns and additive segments": ({**COLUMNS, "additive_segments": True}, BY_COLUMNS),
    "subnetworks": (SUBNETWORKS, {"learn": "new", "lr": 3e-3}),
    "all": (SUBNETWORKS, {"learn": "all", "lr": 1e-3}),
}


def run(method: str, seed: int, num_tasks: int) -> ResultRecord:
    """Learn the tasks one after another."""
    seed_everything(seed, verbose=False)
    form, learning = METHODS[method]
    stream = PermutedTasks("digits", num_tasks=num_tasks, epochs_per_task=20, batch_size=64, seed=seed)
    model = ActiveDendriteClassifier(
        64, [512, 512], 10, max_tasks=num_tasks, num_segments=5, weight_density=1.0, **form
    )
    module = ContinualClassifier(model, context_at_test="given", **learning)
    log = ForgettingLogger("val/acc", verbose=False, pictures=False, folder="runs/new-tasks")
    started = time.monotonic()
    trainer = Trainer(**stream.trainer_kwargs(), **QUIET, callbacks=[log])
    trainer.fit(module, stream)
    return ResultRecord.from_run(
        log.matrix[-1].tolist(),
        seed=seed,
        benchmark="permuted-digits",
        method=method,
        context_at_test="given",
        matrix=log.matrix.tolist(),
        config={"form": form, "learning": learning, "tasks": num_tasks},
        command="python benchmarks/new_tasks.py",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained_of_last_task=None if module.new is None else module.new.num_parameters,
        wall_time_s=round(time.monotonic() - started, 1),
    )


def main() -> None:
    """Run all methods, and write their records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--out", default="results/new-tasks.json")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*(overwrites|does not have many workers).*")
    records = []
    for method in METHODS:
        for seed in options.seeds:
            records.append(run(method, seed, options.tasks))
            print(method, seed, records[-1].task_accuracies, flush=True)
    merged = merge_seeds(records)
    write_records(merged, options.out)
    for record in merged:
        print(record.method, record.average_accuracy, record.average_accuracy_std)


if __name__ == "__main__":
    main()
