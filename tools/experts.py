"""How often Meta-World's scripted experts reach the test goals, and are there at the end: what their pupils can reach.

``python tools/experts.py mt10 mt50`` plays 50 goals of each task; the records: ``results/metaworld/experts.json``.
"""

import argparse
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo._core.environment import versions
from dendrite_zoo._core.files import to_json, write_atomically
from dendrite_zoo.records import ResultRecord, read_records
from dendrite_zoo.rl import evaluate_policy
from dendrite_zoo.rl.metaworld.experts import OWN, expert_of
from dendrite_zoo.rl.metaworld.tasks import task_names


def record(benchmark: str, goals: int, processes: int, stop: bool) -> ResultRecord:
    """Play the test goals of a benchmark."""
    tasks, started = task_names(benchmark), time.monotonic()
    experts = [expert_of(task) for task in tasks]

    def act(observations: NDArray[Any], index: NDArray[Any]) -> NDArray[Any]:
        seen = zip(observations, index, strict=True)
        return np.stack([np.clip(experts[task].get_action(observation), -1, 1) for observation, task in seen])

    report = evaluate_policy(act, tasks, num_goals=goals, num_processes=processes, fast=True, stop_at_success=stop)
    ours = ", ".join(task for task in tasks if task in OWN)
    whose = f"Meta-World's scripted experts{ours and f', but ours of {ours}'}."
    print(f"{benchmark}: {report.mean:.3f}, at the last step {report.mean_at_last_step}", flush=True)
    return ResultRecord.from_run(
        **report.to_record(),
        method="scripted experts",
        command=shlex.join(["python", "tools/experts.py", *sys.argv[1:]]),
        description=f"{whose} They see what policies see. Nothing was learned.",
        versions=versions("metaworld", "mujoco"),
        wall_time_s=round(time.monotonic() - started, 1),
    )


def main() -> None:
    """Play, and write the records; those of other benchmarks stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("benchmarks", nargs="+", choices=["mt10", "mt50"])
    parser.add_argument("--out", type=Path, default=Path("results/metaworld/experts.json"))
    parser.add_argument("--goals", type=int, default=50, help="of each task")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--stop-at-success", action="store_true", help="faster; success at the end stays unknown")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # that the experts' constants may be too high: hence the clip
    for benchmark in options.benchmarks:
        known = {one.benchmark: one for one in (read_records(options.out) if options.out.is_file() else [])}
        played = record(benchmark, options.goals, options.processes, options.stop_at_success)
        every = {**known, played.benchmark: played}
        write_atomically(options.out, to_json([every[name].to_json() for name in sorted(every)]))


if __name__ == "__main__":
    main()
