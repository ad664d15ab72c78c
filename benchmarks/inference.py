"""Inference in a fixed context, and in contexts that are inferred: folded, against plain networks of equal width.

    python benchmarks/inference.py [--rounds 41]

784-2048-2048-10, k 5 %, batch 256, 10 segments. Baseline: the dense MLP with k-winners.
"""

from __future__ import annotations

import torch
from harness import THREADS, compare, dense_mlp, in_turn, rounds_asked

from dendrite_zoo.models import ActiveDendriteMLP

NAME, BATCH, FEATURES, WIDTH, CONTEXTS = "inference", 256, 784, 2048, 10


def main() -> None:
    """Print a line for each comparison."""
    rounds = rounds_asked(__doc__, 41)
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    x, codebook, index = torch.randn(BATCH, FEATURES), torch.randn(CONTEXTS, FEATURES), torch.arange(BATCH) % CONTEXTS
    sizes = FEATURES, [WIDTH, WIDTH], 10
    model = ActiveDendriteMLP(*sizes, context_dim=FEATURES, num_segments=10).eval()
    part = ActiveDendriteMLP(*sizes, context_dim=FEATURES, num_segments=10, winners="context").eval()
    plain = dense_mlp(FEATURES, WIDTH, WIDTH, 10, k_winners=0.05).eval()
    one, table, small = model.fold(codebook[0]), model.fold(codebook), part.fold(codebook[0])
    baseline = "dense MLP + k-winners"
    cases = {
        baseline: lambda: plain(x),
        "folded": lambda: one(x),
        "folded, table of 10 contexts": lambda: table(x, index),
        "not folded": lambda: model(x, codebook[0]),
        "folded, active 5 %": lambda: small(x),
    }
    with torch.inference_mode():
        seconds = in_turn(cases, rounds)
    compare(NAME, seconds, "folded", baseline, "<= 1.05")
    for case in ("folded, table of 10 contexts", "not folded", "folded, active 5 %"):
        compare(NAME, seconds, case, baseline)


if __name__ == "__main__":
    main()
