"""Steps of MT10: our environments over two processes against Meta-World's own ``make_vec(sync)``.

    python benchmarks/environments.py [--rounds 9] [--steps 250]

All ten tasks, random actions, an episode's end and its reset included; once with Meta-World's own Python and once with
the faster paths. The value is stock seconds / our seconds: how many times the environment steps a second.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
from harness import compare, in_turn

from dendrite_zoo.rl import MT10, TaskEnvironments

NAME = "environments"
STOCK = "make_vec(sync)"


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=250, help="of all environments; a case is timed every other time")
    args = parser.parse_args()
    warnings.simplefilter("ignore")

    import gymnasium
    import metaworld  # noqa: F401  registers its environments

    stock = gymnasium.make_vec("Meta-World/MT10", vector_strategy="sync", seed=1)
    actions = np.random.default_rng(0).uniform(-1, 1, (args.steps, len(MT10), 4)).astype(np.float32)

    def playing(step: Callable[[np.ndarray], object]) -> Callable[[], None]:
        def play() -> None:
            for action in actions:
                step(action)

        return play

    with TaskEnvironments("mt10") as ours, TaskEnvironments("mt10", fast=True) as fast:
        cases = {STOCK: stock, "TaskEnvironments": ours, "TaskEnvironments(fast=True)": fast}
        for envs in cases.values():
            envs.reset()
        seconds = in_turn({name: playing(envs.step) for name, envs in cases.items()}, args.rounds)
    for name, target in (("TaskEnvironments", ">= 1.7"), ("TaskEnvironments(fast=True)", ">= 2.5")):
        count = args.steps * len(MT10)
        speeds = {case: round(count / float(np.median(seconds[case]))) for case in (STOCK, name)}
        simulator = {library: version(library) for library in ("metaworld", "mujoco")}
        compare(NAME, seconds, STOCK, name, target, env_steps_per_second=speeds, processes=2, simulator=simulator)
    stock.close()


if __name__ == "__main__":
    main()
