"""Pure functions over the accuracy matrix and over activations, and torchmetrics around them."""

from dendrite_zoo.metrics.accuracy import *
from dendrite_zoo.metrics.accuracy_matrix import *
from dendrite_zoo.metrics.functional import *
