"""The zoo's dendrites on a ResNet-20: the tasks of ten classes of a run of backbone_sequence.py, in half precision.

    python benchmarks/backbone_sequence.py WEIGHTS --methods gates
    python benchmarks/backbone_entry.py WEIGHTS runs/backbone-sequence/resnet20-0 runs/three-data-sets

It is measured as it is written, on the run's own test images, and its record is written with it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from backbone_sequence import FIRST, PASSES, outputs, read, share_right
from resnet20 import resnet20

import dendrite_zoo
from dendrite_zoo.records import read_records

TASKS = ["mnist", "fashion-mnist", "digits"]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("run", type=Path, help="the folder of one seed, after --methods gates")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    run = next(r for r in read_records(options.run / "gates.json") if r.context_at_test == "inferred")
    rng = np.random.RandomState(run.seeds[0])
    tasks = {name: read(name, 32, rng) for name in PASSES}  # all, as the run drew its images
    whole = dendrite_zoo.load(options.run / "gates", backbone=resnet20(options.weights))
    part = whole.of_tasks([list(PASSES).index(name) for name in TASKS], num_classes=10)
    part.drop_sums(half=True)
    part.save_pretrained(options.out)
    model = dendrite_zoo.load(options.out, backbone=resnet20(options.weights))
    records: dict[str, list[float]] = {"inferred": [], "given": []}
    found, first = [], []
    for number, name in enumerate(TASKS):
        task = tasks[name]
        ids = torch.cat([model.context.infer(x) for x in task.x_test.split(500)])
        inferred = outputs(model, task, ids)
        records["inferred"].append(share_right(inferred, task))
        records["given"].append(share_right(outputs(model, task, number), task))
        found.append(float((ids == number).double().mean()))
        first.append(share_right(inferred[:FIRST], task))
    more = {
        "tasks": TASKS,
        "drawn": list(PASSES),
        "task_inferred": found,
        "first_right": first,
        "sees_gates": [model.sees_gates(number) for number in range(len(TASKS))],
    }
    means = {context: float(np.mean(accuracies)) for context, accuracies in records.items()}
    made = replace(
        run,
        benchmark="-".join(TASKS),
        num_tasks=len(TASKS),
        average_accuracy=means["inferred"],
        accuracy_by_context={**means, "context": float(np.mean(found))},
        task_accuracies=records["inferred"],
        config_hash=None,
        command=f"{run.command} && python benchmarks/backbone_entry.py WEIGHTS RUN OUT",
        description="Three tasks of a run of four, alone and in half precision.",
        more=more,
    )
    model.save_pretrained(options.out, results=[made.to_json()])
    print(means, records["inferred"], found)


if __name__ == "__main__":
    main()
