"""What a GPU makes of the library, in about five minutes: right against the CPU, and the cost of a step.

    python benchmarks/gpu.py [--device cuda] [--rounds 30] > benchmarks/results/gpu.json

For each form of context and both kinds of winners: outputs and gradients on the device against those of the CPU in
float32; a training step, with `DendriteAdam`, against that of a dense MLP of the same widths; the same compiled, as a
CUDA graph (forward and backward), and with bf16 autocast, with the share of winners that bf16 flips. The card's name
stands in every line. Needs no data. With ``--device cpu`` it tries itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from harness import dense_mlp, emit
from torch import Tensor, nn

from dendrite_zoo.models import ActiveDendriteMLP
from dendrite_zoo.optim import DendriteAdam

NAME, BATCH, FEATURES, WIDTH = "GPU", 1024, 784, 2048
FORMS = "one", "rows", "codebook", "ids"


def network(winners: Any) -> ActiveDendriteMLP:
    """The network of every case, on the CPU, the same weights each time."""
    torch.manual_seed(0)
    return ActiveDendriteMLP(FEATURES, [WIDTH, WIDTH], 10, context_dim=100, num_segments=10, winners=winners)


def context(form: str, device: torch.device) -> Tensor | tuple[Tensor, Tensor]:
    """A context of a batch, in one of its forms."""
    generator = torch.Generator().manual_seed(1)
    book, index = torch.randn(BATCH, 100, generator=generator), torch.arange(BATCH) % 20
    forms: dict[str, Any] = {"one": book[0], "rows": book, "codebook": (book[:20], index), "ids": index}
    chosen = forms[form]
    return tuple(part.to(device) for part in chosen) if isinstance(chosen, tuple) else chosen.to(device)


def inputs(device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and labels."""
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(BATCH, FEATURES, generator=generator), torch.randint(10, (BATCH,), generator=generator)
    return x.to(device), y.to(device)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(case: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The median of single runs, each waited for, after three that are not timed."""
    for _ in range(3):
        case()
    times = []
    for _ in range(rounds):
        wait(device)
        start = time.perf_counter()
        case()
        wait(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def gradients(model: nn.Module, form: str, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """Outputs and gradients, on the CPU."""
    model.to(device).zero_grad()
    x, y = inputs(device)
    out = model(x, context(form, device))
    F.cross_entropy(out, y).backward()
    return out.detach().cpu(), [p.grad.cpu() for p in model.parameters() if p.grad is not None]


def right(device: torch.device, **about: str) -> None:
    """The largest difference from the CPU, relative to the largest value."""
    torch.backends.cuda.matmul.allow_tf32 = False
    for winners in ("activation", "context"):
        for form in FORMS:
            (out, grads), (other, others) = (
                gradients(network(winners), form, d) for d in (torch.device("cpu"), device)
            )
            pairs = [(out, other), *zip(grads, others, strict=True)]
            worst = max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in pairs)
            emit(NAME, f"difference from the CPU, winners by {winners}, context {form}", worst, "<= 0.001", **about)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, *given: Any, dtype: torch.dtype | None = None) -> Any:
    """A training step; with ``dtype`` in autocast."""
    device = next(model.parameters()).device
    x, y = inputs(device)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            loss = F.cross_entropy(model(x, *given), y)
        loss.backward()
        optimizer.step()

    return run


def cost(device: torch.device, rounds: int, **about: str) -> None:
    """Steps against those of a dense MLP; compiled, as a CUDA graph, and in bf16."""
    plain = dense_mlp(FEATURES, WIDTH, WIDTH, 10).to(device)
    dense = milliseconds(step(plain, torch.optim.Adam(plain.parameters(), fused=True)), device, rounds)
    for winners in ("activation", "context"):
        for form in FORMS:
            model, given = network(winners).to(device), context(form, device)
            learning = [p for p in model.parameters() if p.requires_grad]
            ways = {"eager": step(model, DendriteAdam(learning), given)}
            compiled = torch.compile(model, fullgraph=True)
            ways["compiled"] = step(compiled, DendriteAdam(learning), given)
            ways["bf16"] = step(model, DendriteAdam(learning), given, dtype=torch.bfloat16)
            for way, run in ways.items():
                taken = milliseconds(run, device, rounds)
                more: dict[str, Any] = {"milliseconds": {way: round(taken, 3), "dense MLP": round(dense, 3)}, **about}
                emit(NAME, f"step, winners by {winners}, context {form}, {way} / dense MLP", taken / dense, **more)
            if device.type == "cuda":
                graphed = torch.cuda.make_graphed_callables(_Given(model, given), (inputs(device)[0],))
                taken = milliseconds(step(graphed, DendriteAdam(learning)), device, rounds)
                emit(
                    NAME, f"step, winners by {winners}, context {form}, CUDA graph / dense MLP", taken / dense, **about
                )


class _Given(nn.Module):
    """A model in a fixed context."""

    def __init__(self, model: nn.Module, given: Any) -> None:
        super().__init__()
        self.model, self.given = model, given

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x``."""
        return self.model(x, self.given)


def flips(device: torch.device, **about: str) -> None:
    """The share of winners of the first hidden layer that bf16 autocast chooses otherwise than float32."""
    model, (x, _) = network("activation").to(device), inputs(device)
    given = context("ids", device)
    with torch.no_grad():
        full = model.activations[0](model.hidden[0](x, given)) != 0
        with torch.autocast(device.type, torch.bfloat16):
            half = model.activations[0](model.hidden[0](x, given)) != 0
    emit(NAME, "winners that bf16 flips, untrained", float((full & ~half).sum() / full.sum()), **about)


def main() -> None:
    """Print a line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("Expected a GPU, but torch sees none. Try the script itself with `--device cpu --rounds 1`.")
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    right(device, card=card)
    cost(device, args.rounds, card=card)
    flips(device, card=card)


if __name__ == "__main__":
    main()
