"""The fast path: parameters of which a step uses some rows, cached activations, the optimizer, grouped subnetworks."""

from dendrite_zoo.row_sparse.optimizer import DendriteAdam, clip_gradients_
from dendrite_zoo.row_sparse.parameter import RowParameter
from dendrite_zoo.row_sparse.segments import winning_activations

__all__ = ["DendriteAdam", "RowParameter", "clip_gradients_", "winning_activations"]
