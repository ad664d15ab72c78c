"""A backbone whose gates went into its weights: an ordinary network again."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo._core.torch import remove_forward_hooks
from dendrite_zoo.layers.gate import ChannelGate, FrozenNorm, fold_gate
from dendrite_zoo.models.adapters.features import FeatureExtractor, Tap
from dendrite_zoo.models.adapters.head import TaskHeads


class FoldedBackbone(nn.Module):
    """A network without gates that computes what one with dendrites does in one of its tasks.

    Args:
        extractor: gives features of the network that has the gates in its weights.
        head: of the task.
        linear: weight and bias of the trained head; None for features.
    """

    def __init__(self, extractor: FeatureExtractor, head: TaskHeads, linear: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()
        self.extractor, self.head = extractor, head
        self.linear = nn.ParameterList([] if linear is None else [part.detach().clone() for part in linear])

    @property
    def backbone(self) -> nn.Module:
        """The plain network."""
        return self.extractor.backbone

    def forward(self, x: Any) -> Tensor:
        """Logits ``(B, num_classes)`` of inputs, or normalised features."""
        linear = tuple(self.linear) or None
        output: Tensor = self.head(self.extractor(x, **self.head.needs()), 0, linear)
        return output


@torch.no_grad()
def folded_backbone(backbone: nn.Module, gates: Mapping[str, ChannelGate]) -> nn.Module:
    """A copy of a network with gates in its weights.

    Args:
        backbone: with gates as hooks, which the copy has not.
        gates: by name of a layer, with their factors.
    """
    plain = copy.deepcopy(backbone)
    remove_forward_hooks(plain, (ChannelGate, FrozenNorm, Tap))
    for name, gate in gates.items():
        parent, _, last = name.rpartition(".")
        setattr(plain.get_submodule(parent), last, fold_gate(plain.get_submodule(name), gate))
    return plain
