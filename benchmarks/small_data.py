"""How small data are learned with the defaults of streams and networks, beside their neighbours.

    python benchmarks/small_data.py [--out results/small-data.json]

Five permutations of each data set, one after another, no task given; one thing at a time is changed. And other tasks of
the first, learned in the ways that the documentation offers. A fifth of the training rows is held out, and by these it
is measured: no test row is looked at. One seed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from harness import QUIET, hardware, versions
from lightning.pytorch import Trainer, seed_everything

from dendrite_zoo._core.files import write_json
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.lightning_modules.new_tasks import Learn
from dendrite_zoo.models import ActiveDendriteClassifier, RidgeClassifier
from dendrite_zoo.streams import PermutedTasks, RotatedTasks, SplitTasks, load_source
from dendrite_zoo.streams.stream import TaskStream

TASKS = 5
ROWS = {"digits": None, "mnist": 1000, "fashion-mnist": 300}
WIDTHS = ((64, 64), (256, 256))
DENSITIES = (0.05, 0.1, 0.2, 0.4)
EPOCHS = (1, 10)
KINDS = {"permuted": PermutedTasks, "rotated": RotatedTasks, "split": SplitTasks}
WAYS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "subnetworks": {"winners": "context", "context": "ridge", "learn": "new"},
    "ridge": {"ridge": True},
}


def stream(name: str, kind: type[TaskStream] = PermutedTasks, epochs_per_task: int | None = None) -> TaskStream:
    """Tasks of the first rows of a data set, of whose training rows a fifth is held out."""
    source, rows = load_source(name), ROWS[name]
    data: Any = name if rows is None else (source.x_train[:rows], source.y_train[:rows])
    if rows is not None:  # the test rows that it must have are none of the data set's
        data = (*data, *(part[:10] for part in data))
    return kind(data, TASKS, epochs_per_task=epochs_per_task, val_fraction=0.2)


def accuracy(
    data: TaskStream, widths: tuple[int, ...], learn: Learn = "all", ridge: bool = False, **options: Any
) -> float:
    """Mean accuracy over all tasks at the end."""
    seed_everything(0, verbose=False)
    data.prepare_data()
    sizes = data.num_features, data.num_classes or 0
    model = (
        RidgeClassifier(*sizes)
        if ridge
        else ActiveDendriteClassifier(sizes[0], widths, sizes[1], max_tasks=TASKS, **options)
    )
    trainer = Trainer(**data.trainer_kwargs(), **QUIET)
    trainer.fit(ContinualClassifier(model, learn=learn), data)
    found = [trainer.callback_metrics[f"val/task_{task}/acc"] for task in range(TASKS)]
    return round(float(torch.stack(found).mean()), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/small-data.json"))
    options = parser.parse_args()
    found: dict[str, Any] = {"command": "python benchmarks/small_data.py", "seeds": [0], "versions": versions()}
    found |= {"hardware": hardware(), "accuracy": {}, "ways": {}}
    for kind, tasks in KINDS.items():
        for way, change in WAYS.items():
            found["ways"].setdefault(kind, {})[way] = accuracy(stream("digits", tasks), (128, 128), **change)
        print(kind, json.dumps(found["ways"][kind]), flush=True)
        write_json(options.out, found)
    for name in ROWS:
        for widths in WIDTHS:
            row = found["accuracy"].setdefault(f"{name}, {'-'.join(map(str, widths))}", {})
            row["defaults"] = accuracy(stream(name), widths)
            for epochs in EPOCHS:
                row[f"epochs_per_task={epochs}"] = accuracy(stream(name, epochs_per_task=epochs), widths)
            for density in DENSITIES:
                row[f"activation_density={density:g}"] = accuracy(stream(name), widths, activation_density=density)
            print(name, widths, json.dumps(row), flush=True)
            write_json(options.out, found)


if __name__ == "__main__":
    main()
