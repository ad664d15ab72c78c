"""How cost grows with tasks, contexts a batch, segments and width: the exponents of a training step, one thread.

    python benchmarks/growth.py [--rounds 9]

784-512-512-10, 10 segments, batch 256, 5 % active; one of the four grows at a time. The exponent is the slope of the
logarithm of the time over that of the size, between the two largest sizes: 0 where cost does not grow, 1 where it
grows in proportion.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from harness import emit, in_turn, rounds_asked, training_step

from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP
from dendrite_zoo.optim import DendriteAdam

NAME, BATCH, FEATURES = "growth", 256, 784


def step(winners: Any, width: int = 512, segments: int = 10, contexts: int = 1) -> Callable[[], None]:
    """A training step of a network of this size, with so many contexts a batch."""
    torch.manual_seed(0)
    options = {"context_dim": FEATURES, "num_segments": segments, "winners": winners}
    model = ActiveDendriteMLP(FEATURES, [width, width], 10, **options)  # type: ignore[arg-type]
    x, y, book = torch.randn(BATCH, FEATURES), torch.randint(10, (BATCH,)), torch.randn(contexts, FEATURES)
    context = book[0] if contexts == 1 else (book, torch.arange(BATCH) % contexts)
    return training_step(model, DendriteAdam(model.parameters()), F.cross_entropy, y, x, context)  # type: ignore[arg-type]


def inference(tasks: int) -> Callable[[], object]:
    """A batch of mixed tasks that are inferred, of so many."""
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(FEATURES, [512, 512], 10, max_tasks=tasks, num_segments=10, winners="context")
    means = torch.randn(tasks, FEATURES)
    for task, mean in enumerate(means):
        model.context.start_task(task, [mean + 0.1 * torch.randn(4, FEATURES)])
    x = means[torch.arange(BATCH) * 7 % tasks] + 0.1 * torch.randn(BATCH, FEATURES)
    model.eval()
    return torch.no_grad()(lambda: model(x))


def grow(of: str, sizes: Iterable[int], make: Callable[[int], Callable[[], object]], rounds: int) -> None:
    """Print the exponent, and what each size takes."""
    cases = {str(size): make(size) for size in sizes}
    seconds = {name: statistics.median(times) for name, times in in_turn(cases, rounds).items()}
    (size, time), (largest, longest) = [(int(name), value) for name, value in seconds.items()][-2:]
    exponent = math.log(longest / time) / math.log(largest / size)
    emit(NAME, of, exponent, milliseconds={name: round(1000 * value, 2) for name, value in seconds.items()})


def main() -> None:
    """Print a line for each size that grows."""
    rounds = rounds_asked(__doc__, 9)
    torch.set_num_threads(1)
    grow("tasks, inferred in a mixed batch", (1, 10, 100, 1000), inference, rounds)
    grow("contexts a batch, winners by context", (1, 16, 64, 256), lambda k: step("context", contexts=k), rounds)
    grow("contexts a batch, winners by activation", (1, 16, 64, 256), lambda k: step("activation", contexts=k), rounds)
    grow("segments a unit, one context", (1, 10, 100, 1000), lambda s: step("activation", 128, segments=s), rounds)
    grow("width, winners by context, one context", (256, 1024, 4096, 8192), lambda w: step("context", w, 1), rounds)
    grow("width, winners by activation, one context", (256, 1024, 4096), lambda w: step("activation", w, 1), rounds)


if __name__ == "__main__":
    main()
