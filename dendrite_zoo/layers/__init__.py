"""Layers with active dendrites, sparse weights and k-winner-take-all: ordinary `torch.nn` modules."""

from dendrite_zoo.layers.dendrites import *
from dendrite_zoo.layers.kwinners import *
from dendrite_zoo.layers.sparse import *
