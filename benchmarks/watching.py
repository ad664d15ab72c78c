"""What it costs to watch a network as `SparsityLogger` does: a batch in eval mode, against the same batch alone.

    python benchmarks/watching.py [--rounds 15]

The networks are an MLP, a ResNet-18 for images of 32 pixels, and a transformer encoder, whose layers torch computes in
one fused function each and that are run once more, step by step, to be counted.
"""

from __future__ import annotations

import torch
from harness import compare, dense_mlp, in_turn, rounds_asked
from torch import Tensor, nn

from dendrite_zoo.callbacks.activation_counts import ActivationCounts
from dendrite_zoo.callbacks.call_watcher import CallWatcher

NAME = "watching"


class Block(nn.Module):
    """Two convolutions and a shortcut, as in He et al. 2016."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)``."""
        hidden = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(hidden)) + self.shortcut(x))


def resnet18() -> nn.Module:
    """For images of 32 x 32."""
    blocks = [
        Block(i, o, s) for i, o in zip((64, 64, 128, 256), (64, 128, 256, 512), strict=True) for s in (1 + (i < o),)
    ]
    second = [Block(o, o, 1) for o in (64, 128, 256, 512)]
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    body = [block for pair in zip(blocks, second, strict=True) for block in pair]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def encoder() -> nn.Module:
    """Four layers of width 128."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)


NETWORKS = {
    "MLP": (lambda: dense_mlp(784, 512, 512, 10), (256, 784)),
    "ResNet-18": (resnet18, (32, 3, 32, 32)),
    "transformer": (encoder, (16, 64, 128)),
}


def main() -> None:
    """Print a line for each network."""
    rounds = rounds_asked(__doc__)
    torch.set_num_threads(1)
    for name, (make, shape) in NETWORKS.items():
        torch.manual_seed(0)
        net, x = make().eval(), torch.randn(shape)
        watcher, counts = CallWatcher(net), ActivationCounts()

        def alone(net: nn.Module = net, x: Tensor = x) -> None:
            with torch.inference_mode():
                net(x)

        def watched(
            net: nn.Module = net, x: Tensor = x, watcher: CallWatcher = watcher, counts: ActivationCounts = counts
        ) -> None:
            with torch.inference_mode(), watcher:
                net(x)
            for seen in watcher.seen:
                counts.add(seen, 0)
            watcher.seen.clear()

        seconds = in_turn({"watched": watched, "alone": alone}, rounds)
        compare(NAME, seconds, "watched", "alone", network=name, batch=list(shape))


if __name__ == "__main__":
    main()
