"""Layers with active dendrites, sparse weights, k-winners, heads that are solved for: ordinary `torch.nn` modules."""

from dendrite_zoo.layers.dendrites import *
from dendrite_zoo.layers.gate import *
from dendrite_zoo.layers.kwinners import *
from dendrite_zoo.layers.patch_features import *
from dendrite_zoo.layers.random_features import *
from dendrite_zoo.layers.ridge import *
from dendrite_zoo.layers.sparse import *
