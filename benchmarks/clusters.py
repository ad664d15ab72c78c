"""How many clusters are found in a stream of tasks that nobody announces; nothing is trained.

    python benchmarks/clusters.py [--benchmark permuted-mnist] [--tasks 2 5 10] [--method hotelling] [--out FILE]

Each task is gone through once, in batches of 256, and each batch is shown to the context (`ClusterContext`, or the
paper's test). One JSON record for each number of tasks: the clusters found, the batches that joined one founded in
another task, the share of test images whose task is found again, and milliseconds of a batch. The exit status is 1
where the library's own way does not find exactly as many clusters as there are tasks.
"""

import argparse
import statistics
import sys
import time

import torch

from dendrite_zoo._core.environment import hardware, versions
from dendrite_zoo._core.files import to_json
from dendrite_zoo.contexts import ClusterContext, FoundContext, HotellingContext
from dendrite_zoo.report import write_record
from dendrite_zoo.streams import TaskStream, benchmark_stream


def find(stream: TaskStream, context: FoundContext, limit: int | None) -> dict[str, float]:
    """What a context makes of a stream."""
    cluster_to_task: list[int] = []
    wrong, batches, seconds = 0, 0, 0.0
    for task in range(stream.num_tasks):
        for number, (x, _) in enumerate(stream.task_loader(task)):
            if number == limit:
                break
            begun = time.process_time()
            cluster = context.observe(x)
            seconds += time.process_time() - begun
            if cluster == len(cluster_to_task):
                cluster_to_task.append(task)
            wrong += cluster_to_task[cluster] != task
            batches += 1
    tasks = torch.tensor(cluster_to_task)
    shares = []
    for task in range(stream.num_tasks):
        found = torch.cat([tasks[context.infer(x)] == task for x, _ in stream.task_loader(task, "test")])
        shares.append(found.float().mean().item())
    return {
        "clusters": len(cluster_to_task),
        "batches": batches,
        "batches_in_a_wrong_cluster": wrong,
        "test_images_in_the_right_task": statistics.mean(shares),
        "ms_a_batch": round(1000 * seconds / batches, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="permuted-digits")
    parser.add_argument("--source", help="where the data lie, if elsewhere than the benchmark's name says")
    parser.add_argument("--tasks", type=int, nargs="+", default=[10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--method", choices=["dempster", "hotelling"], default="dempster")
    parser.add_argument("--batches", type=int, help="so many batches of a task only")
    parser.add_argument("--out", help="where to write the records")
    arguments = parser.parse_args()
    names = ("benchmark", "tasks", "seeds", "method", "batches", "out")
    said = {name: getattr(arguments, name) for name in names if getattr(arguments, name) != parser.get_default(name)}
    words = [f"--{name} {' '.join(map(str, v)) if isinstance(v, list) else v}" for name, v in said.items()]
    torch.set_num_threads(1)
    records = []
    for num_tasks in arguments.tasks:
        runs = []
        for seed in arguments.seeds:
            torch.manual_seed(seed)
            stream = benchmark_stream(arguments.benchmark, num_tasks, source=arguments.source, seed=seed)
            if arguments.method == "dempster":
                context: FoundContext = ClusterContext(stream.num_features, 2 * num_tasks)
            else:
                size = min(256, stream.num_features)
                context = HotellingContext(stream.num_features, 2 * num_tasks, context_dim=size)
            runs.append(find(stream, context, arguments.batches))
        record = {
            "benchmark": arguments.benchmark,
            "method": arguments.method,
            "num_tasks": num_tasks,
            "seeds": arguments.seeds,
            **{name: [run[name] for run in runs] for name in runs[0]},
            "command": " ".join(["python benchmarks/clusters.py", *words]),
            "versions": versions(),
            "hardware": hardware(),
        }
        print(to_json(record), flush=True)
        records.append(record)
    if arguments.out:
        write_record(records, arguments.out)
    exact = all(set(record["clusters"]) == {record["num_tasks"]} for record in records)
    return int(arguments.method == "dempster" and not exact)


if __name__ == "__main__":
    sys.exit(main())
