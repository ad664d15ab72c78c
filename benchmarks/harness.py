"""What the benchmarks share: cases timed in turn, ratios to a baseline that ran beside them, one JSON line each."""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.environment import hardware, versions
from dendrite_zoo.layers import KWinners
from dendrite_zoo.models import ActiveDendriteMLP

sys.path.append(str(Path(__file__).parents[1]))  # at the end: an installed dendrite_zoo wins over the tree's

from tests.memory import peak_bytes  # noqa: E402
from tests.reference import naive_layer  # noqa: E402

__all__ = [
    "QUIET",
    "THREADS",
    "NaiveMLP",
    "compare",
    "dense_mlp",
    "emit",
    "in_turn",
    "peak_bytes",
    "rounds_asked",
    "training_step",
]

THREADS = 2

QUIET = {
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "logger": False,
}
"""Of a Trainer that prints and writes nothing."""

SETTLING = (1 << 25) - (1 << 16)
"""Bytes of the largest block by which glibc raises what it keeps."""


def rounds_asked(doc: str | None, default: int = 15) -> int:
    """How many rounds the command line asks for, which has no other argument; ``--help`` prints ``doc``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=default)
    rounds: int = parser.parse_args().rounds
    return rounds


def in_turn(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each case takes, all of them once a round, so that other work on the machine meets all alike.

    With one thread they are seconds of the processor, else of the clock. A case runs twice and is timed the second
    time: the one before it left the caches to itself.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    torch.empty(SETTLING // 4)  # once freed, glibc keeps what is freed after it: no case pays for memory given back
    for case in cases.values():
        case()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, case in cases.items():
            case()
            start = clock()
            case()
            seconds[name].append(clock() - start)
    gc.enable()
    return seconds


def compare(
    benchmark: str,
    seconds: dict[str, list[float]],
    numerator: str,
    denominator: str,
    target: str | None = None,
    **more: object,
) -> None:
    """Print the median ratio of two cases, round by round."""
    ratios = sorted(a / b for a, b in zip(seconds[numerator], seconds[denominator], strict=True))
    value = statistics.median(ratios)
    emit(
        benchmark,
        f"{numerator} / {denominator}",
        value,
        target,
        quartiles=[round(ratios[len(ratios) // 4], 3), round(ratios[(3 * len(ratios)) // 4], 3)],
        milliseconds={name: round(1000 * statistics.median(seconds[name]), 2) for name in (numerator, denominator)},
        rounds=len(ratios),
        **more,
    )


def emit(benchmark: str, name: str, value: float, target: str | None = None, **more: object) -> None:
    """Print one line: what was measured, what was aimed at, and where."""
    line = {"benchmark": benchmark, "name": name, "value": round(value, 3)}
    if target is not None:
        limit = float(target.split()[1])
        line |= {"target": target, "met": value <= limit if target.startswith("<=") else value >= limit}
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None  # of the last minute, of all processes
    line |= {**more, "threads": torch.get_num_threads(), "load": load, "versions": versions(), "hardware": hardware()}
    print(json.dumps(line), flush=True)


class NaiveMLP(nn.Module):
    """An `ActiveDendriteMLP` as the field computes it: every segment for every row, each mask anew."""

    def __init__(self, model: ActiveDendriteMLP) -> None:
        super().__init__()
        self.hidden, self.output = model.hidden, model.output
        self.density = model.config["activation_density"]

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map x ``(B, I)`` in contexts ``(B, C)``."""
        for layer in self.hidden:
            weight = layer.weight if layer.mask is None else layer.weight * layer.mask
            if layer.segments is None:
                x = F.linear(x, weight, layer.bias)
            else:
                x = naive_layer(x, weight, layer.bias, layer.segments, context)
            values, index = x.topk(round(self.density * x.shape[1]), dim=1)
            x = torch.zeros_like(x).scatter(1, index, values)
        return self.output(x)


def dense_mlp(*sizes: int, k_winners: float | None = None) -> nn.Sequential:
    """A plain network, with ReLU or with k-winners."""
    modules: list[nn.Module] = []
    for inputs, units in zip(sizes, sizes[1:-1], strict=False):
        modules += [nn.Linear(inputs, units), nn.ReLU() if k_winners is None else KWinners(density=k_winners)]
    return nn.Sequential(*modules, nn.Linear(sizes[-2], sizes[-1]))


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[..., Tensor], target: Tensor, *inputs: Tensor
) -> Callable[[], None]:
    """A whole step: forward, backward, update."""

    def step() -> None:
        optimizer.zero_grad()
        loss(model(*inputs), target).backward()
        optimizer.step()

    return step
