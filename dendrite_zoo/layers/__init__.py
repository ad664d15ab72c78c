"""Layers with active dendrites, sparse weights and k-winner-take-all: ordinary `torch.nn` modules."""

from dendrite_zoo.layers.dendrites import ActiveDendriteConv2d, ActiveDendriteLinear
from dendrite_zoo.layers.kwinners import KWinners
from dendrite_zoo.layers.sparse import SparseLinear

__all__ = ["ActiveDendriteConv2d", "ActiveDendriteLinear", "KWinners", "SparseLinear"]
