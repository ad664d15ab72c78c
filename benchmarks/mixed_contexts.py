"""A training step whose batch mixes contexts, as in multi-task reinforcement learning (MT10).

    python benchmarks/mixed_contexts.py [--rounds 5]

39-2800-2800-8, k 25 %, weight density 90 %, dendrites with 10 segments on the second layer alone; 256 rows of each of
ten one-hot contexts in a batch of 2560. Baselines: the naive layer of tests/reference.py, and the dense MLP.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import THREADS, NaiveMLP, compare, dense_mlp, in_turn, rounds_asked, training_step

from dendrite_zoo.models import ActiveDendriteMLP
from dendrite_zoo.optim import DendriteAdam

NAME, TASKS, ROWS, INPUTS, OUTPUTS, WIDTH = "mixed contexts", 10, 256, 39, 8, 2800


def main() -> None:
    """Print a line for each comparison."""
    rounds = rounds_asked(__doc__, 5)
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    x, y = torch.randn(TASKS * ROWS, INPUTS), torch.randn(TASKS * ROWS, OUTPUTS)
    tasks = torch.arange(TASKS).repeat_interleave(ROWS)

    def model() -> ActiveDendriteMLP:
        return ActiveDendriteMLP(
            INPUTS,
            [WIDTH, WIDTH],
            OUTPUTS,
            context_dim=TASKS,
            num_segments=10,
            dendrite_layers=[1],
            activation_density=0.25,
            weight_density=0.9,
            context_density=1.0,
        )

    ours, naive, dense = model(), NaiveMLP(model()), dense_mlp(INPUTS, WIDTH, WIDTH, OUTPUTS)
    adam = torch.optim.Adam
    cases = {
        "naive": training_step(naive, adam(naive.parameters()), F.mse_loss, y, x, F.one_hot(tasks).float()),
        "ours": training_step(ours, DendriteAdam(ours.parameters()), F.mse_loss, y, x, tasks),
        "dense MLP": training_step(dense, adam(dense.parameters(), fused=True), F.mse_loss, y, x),
    }
    seconds = in_turn(cases, rounds)
    compare(NAME, seconds, "naive", "ours", ">= 4")
    compare(NAME, seconds, "ours", "dense MLP", "<= 1.4")


if __name__ == "__main__":
    main()
