"""What a training step costs: 784-2048-2048-10, batch 256, k 5 %, weight density 50 %, one context a batch.

    python benchmarks/training_step.py [--rounds 15] [--without-naive-100]

Baselines: the dense MLP of equal widths under ``Adam(fused=True)``, and the naive layer of tests/reference.py under
``Adam``. With 100 segments the naive one takes seconds a step and 12 GB. Memory is
counted tensor by tensor.
"""

from __future__ import annotations

import argparse
import gc

import torch
import torch.nn.functional as F
from harness import THREADS, NaiveMLP, compare, dense_mlp, emit, in_turn, peak_bytes, training_step

from dendrite_zoo.models import ActiveDendriteMLP
from dendrite_zoo.optim import DendriteAdam

NAME, BATCH, FEATURES = "training step", 256, 784


def ours(width: int = 2048, **arguments):
    """A step of ours, in one context."""
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, FEATURES), torch.randint(0, 10, (BATCH,))
    model = ActiveDendriteMLP(FEATURES, [width, width], 10, context_dim=FEATURES, **{"num_segments": 10, **arguments})
    optimizer = DendriteAdam(model.parameters(), lr=5e-4)
    return training_step(model, optimizer, F.cross_entropy, y, x, torch.randn(FEATURES))


def naive(num_segments: int):
    """A step as the field does it."""
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, FEATURES), torch.randint(0, 10, (BATCH,))
    model = NaiveMLP(ActiveDendriteMLP(FEATURES, [2048] * 2, 10, context_dim=FEATURES, num_segments=num_segments))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    return training_step(model, optimizer, F.cross_entropy, y, x, torch.randn(FEATURES).expand(BATCH, -1))


def dense():
    """A step of a plain MLP."""
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, FEATURES), torch.randint(0, 10, (BATCH,))
    model = dense_mlp(FEATURES, 2048, 2048, 10)
    return training_step(model, torch.optim.Adam(model.parameters(), fused=True), F.cross_entropy, y, x)


def memory(num_segments: int) -> float:
    """The most that training takes beyond parameters and Adam's two moments, in GB, counted tensor by tensor."""

    def train() -> None:
        step = ours(num_segments=num_segments)
        for _ in range(3):
            step()

    sizes = [FEATURES * 2048 + 2048, 2048 * 2048 + 2048, 2 * 2048 * num_segments * FEATURES, 2048 * 10 + 10]
    return (peak_bytes(train) - 3 * 4 * sum(sizes)) / 2**30


def main() -> None:
    """Print a line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--without-naive-100", action="store_true", help="leave out what takes 12 GB")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    cases = {"ours, 10 segments": ours(), "dense MLP": dense()}
    seconds = in_turn(cases, args.rounds)
    compare(NAME, seconds, "ours, 10 segments", "dense MLP", "<= 1.4")
    seconds = in_turn({"naive, 10 segments": naive(10), "ours, 10 segments": cases["ours, 10 segments"]}, 5)
    compare(NAME, seconds, "naive, 10 segments", "ours, 10 segments", ">= 9")

    small, equal, wide = "active 5 % of 2048", "active 205 of 2048", "active 205 of 8192"
    cases = {
        "dense MLP": cases["dense MLP"],
        small: ours(winners="context"),
        equal: ours(winners="context", activation_density=205 / 2048),
        wide: ours(8192, winners="context", activation_density=205 / 8192),
    }
    seconds = in_turn(cases, args.rounds)
    compare(NAME, seconds, "dense MLP", small, ">= 10")
    compare(NAME, seconds, wide, equal, "<= 1.3")

    cases = {"dense MLP": cases["dense MLP"]}
    gc.collect()
    emit(NAME, "GB beyond parameters and moments, 100 segments", memory(100), "<= 0.3")

    cases["ours, 100 segments"] = ours(num_segments=100)
    seconds = in_turn(cases, args.rounds)
    compare(NAME, seconds, "ours, 100 segments", "dense MLP", "<= 1.4")
    if not args.without_naive_100:
        cases = {"naive, 100 segments": naive(100), "ours, 100 segments": cases["ours, 100 segments"]}
        compare(NAME, in_turn(cases, 2), "naive, 100 segments", "ours, 100 segments", ">= 90")


if __name__ == "__main__":
    main()
