"""What it takes to solve the ridge head of a task of few rows, one thread.

    python benchmarks/ridge_head.py [--rounds 5]

The head of `add_dendrites` has 3,072 random features. Up to half as many rows are solved in as many numbers as there
are rows; the baseline is a `RidgeHead` of all features, as for tasks of many rows.
"""

from __future__ import annotations

import torch
from harness import compare, in_turn, rounds_asked

from dendrite_zoo.layers import RidgeHead
from dendrite_zoo.models.adapters.head import FewRows

NAME, FEATURES, CLASSES = "ridge_head", 3072, 10


def by_rows(h: torch.Tensor, y: torch.Tensor) -> None:
    """Solve in as many numbers as there are rows."""
    few = FewRows([([h], y, y > CLASSES)], len(h))
    head = RidgeHead(len(h), CLASSES)
    head.learn([(few.batches[0][0][0], y)])
    few.back(head.weight, 0)


def by_features(h: torch.Tensor, y: torch.Tensor) -> None:
    """Solve for all features."""
    RidgeHead(FEATURES, CLASSES).learn([(h, y)])


def main() -> None:
    """Print a line for each number of rows."""
    rounds = rounds_asked(__doc__, 5)
    torch.set_num_threads(1)
    for rows in (300, 600, 1000, FEATURES // 2):
        torch.manual_seed(0)
        y = torch.arange(rows) % CLASSES
        h = (torch.randn(rows, FEATURES) + 0.3 * torch.randn(CLASSES, FEATURES)[y]).relu()
        cases = {
            f"{rows} rows, by rows": lambda h=h, y=y: by_rows(h, y),
            "by features": lambda h=h, y=y: by_features(h, y),
        }
        compare(NAME, in_turn(cases, rounds), *cases, "<= 1")


if __name__ == "__main__":
    main()
