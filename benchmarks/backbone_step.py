"""A step of gates on a frozen backbone beside a step of full fine-tuning: time, and memory by what is kept for it.

    OMP_NUM_THREADS=1 python benchmarks/backbone_step.py

Memory is counted: weights, gradients, the two moments of Adam, and the tensors that autograd keeps from the forward to
the backward pass, each storage once. A ResNet-20 on 64 images of 32 x 32, gates on its batch norms, and a transformer
encoder of four layers of 128 units on 32 sequences of 64, gates on its linear layers and attentions. Where PEFT is
installed, its LoRA and IA3 are measured, too, on the convolutions, or on the linear layers outside attention.
"""

import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from harness import compare, emit, in_turn
from peft_adapters import KINDS, inject
from resnet20 import ResNet20
from torch import Tensor, nn

from dendrite_zoo import add_dendrites


def encoder() -> nn.Module:
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(128, 4, 512, batch_first=True), 4, enable_nested_tensor=False
    )


class Mean(nn.Module):
    """A network with a linear head on the mean of its outputs."""

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network, self.head = network, nn.Linear(features, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = self.network(x)
        return self.head(z.mean(1) if z.ndim == 3 else z)


def step(network: nn.Module, output: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    y = torch.arange(len(x)) % 10
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad])

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(output(x), y).backward()
        optimizer.step()

    return run


def megabytes(network: nn.Module, output: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """What a step keeps."""
    own = {p.untyped_storage().data_ptr() for p in [*network.parameters(), *network.buffers(), x]}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        F.cross_entropy(output(x), torch.arange(len(x)) % 10).backward()
    activations = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    weights = sum(p.numel() * 4 * (4 if p.requires_grad else 1) for p in network.parameters())
    return (activations + weights) / 1e6


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # in eval mode it passes PEFT's adapters by
    adapters = KINDS if importlib.util.find_spec("peft") else ()
    cases = {
        "resnet20": (ResNet20, 64, nn.BatchNorm2d, torch.rand(64, 3, 32, 32)),
        "encoder": (encoder, 128, [nn.Linear, nn.MultiheadAttention], torch.rand(32, 64, 128)),
    }
    for name, (make, features, layers, x) in cases.items():
        whole = Mean(make(), features).train()
        model = add_dendrites(
            make(), layers=layers, num_classes=10, max_tasks=2, head="linear", context="given", example=x
        )
        model.start_task(0, [x])
        model.train()
        of_gates = lambda x, model=model: model(x, task=0)  # noqa: E731
        networks = {"full": whole} | {kind: Mean(inject(make(), kind), features) for kind in adapters}
        memory = {"gates": megabytes(model, of_gates, x)}
        memory |= {kind: megabytes(network, network, x) for kind, network in networks.items()}
        steps = {kind: step(network, network, x) for kind, network in networks.items()}
        seconds = in_turn({"gates": step(model, of_gates, x), **steps}, rounds=5)
        benchmark, shown = f"backbone_step, {name}", {kind: round(value, 1) for kind, value in memory.items()}
        for kind in networks:
            bounds = ("<= 0.8", "<= 1") if kind == "full" else (None, None)
            emit(benchmark, f"memory: gates / {kind}", memory["gates"] / memory[kind], bounds[0], megabytes=shown)
            compare(benchmark, seconds, "gates", kind, bounds[1])


if __name__ == "__main__":
    main()
