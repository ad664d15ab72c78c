"""Latency of one action: `ActiveDendritePolicy.act` for one observation, what the dendrites do folded into weights.

    python benchmarks/policy.py [--model metaworld-mt10] [--rounds 2000]

Prints a JSON line: milliseconds an action, and how many times as long the forward pass takes that is not folded.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch
from harness import emit, in_turn

import dendrite_zoo


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="metaworld-mt10", help="A name of the zoo, or a folder.")
    parser.add_argument("--rounds", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)  # a second one would only be waited for
    policy = dendrite_zoo.load(args.model)
    observation = np.random.default_rng(0).normal(size=policy.config["observation_size"])
    cases = {
        "folded": lambda: policy.act(observation, 3),
        "not folded": lambda: policy.act_batch(observation[None], [3]),
    }
    taken = {name: [1000 * s for s in seconds] for name, seconds in in_turn(cases, args.rounds).items()}
    emit(
        "policy",
        f"milliseconds an action, {args.model}",
        statistics.median(taken["folded"]),
        "<= 0.2",
        percentile_95=round(statistics.quantiles(taken["folded"], n=20)[-1], 3),
        times_not_folded=round(statistics.median(taken["not folded"]) / statistics.median(taken["folded"]), 1),
        rounds=args.rounds,
    )


if __name__ == "__main__":
    main()
