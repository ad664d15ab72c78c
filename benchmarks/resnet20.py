"""A ResNet-20 for images of 32 x 32, by the names of github.com/akamaster/pytorch_resnet_cifar10."""

from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.more = (1 if inputs == outputs else 2), (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.stride == 1 else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
        return F.relu(y + shortcut)


class ResNet20(nn.Module):
    """He et al. 2015, for images of 32 x 32, with shortcuts without parameters; the mean of its last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        sizes = ((16, 16), (16, 32), (32, 64))
        stages = [nn.Sequential(Block(i, o), Block(o, o), Block(o, o)) for i, o in sizes]
        self.layer1, self.layer2, self.layer3 = stages

    def forward(self, x: Tensor) -> Tensor:
        return self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))).mean((2, 3))


def resnet20(weights: Path) -> nn.Module:
    """With the weights of a file, which may have a layer of classes besides."""
    network, state = ResNet20(), load_file(weights)
    network.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("linear")})
    return network
