"""Latency of one action: `ActiveDendritePolicy.act` for one observation, what the dendrites do folded into weights.

    python benchmarks/policy.py [--model metaworld-mt10] [--rounds 2000]

Prints a line of JSON for each model: milliseconds an action, against the forward pass that is not folded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import dendrite_zoo
from dendrite_zoo.models import ActiveDendritePolicy


def milliseconds(function: Callable[[], object], rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="Zoo names or folders; default: a new one as metaworld-mt10.")
    parser.add_argument("--rounds", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)  # a second one would only be waited for
    new = ActiveDendritePolicy([f"task-{j}" for j in range(10)], hidden_features=[256, 256], modulated=None)
    observation = np.random.default_rng(0).normal(size=39)
    for name in args.model or ["256-256, ten tasks"]:
        policy = dendrite_zoo.load(name) if args.model else new.eval()
        cases = {
            "act": lambda policy=policy: policy.act(observation, 3),
            "not folded": lambda policy=policy: policy.act_batch(observation[None], [3]),
        }
        for case, function in cases.items():
            milliseconds(function, 50)
            taken = milliseconds(function, args.rounds)
            quantiles = statistics.quantiles(taken, n=20)
            print(
                json.dumps(
                    {
                        "benchmark": "policy",
                        "case": f"{name}: {case}",
                        "median_ms": round(statistics.median(taken), 4),
                        "p95_ms": round(quantiles[-1], 4),
                        "target": "<= 0.2" if case == "act" else None,
                        "threads": 1,
                    }
                )
            )


if __name__ == "__main__":
    main()
