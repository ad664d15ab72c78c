"""`DendriteAdam` under the path that users import it from; it is defined in `dendrite_zoo.row_sparse`."""

from dendrite_zoo.row_sparse.optimizer import DendriteAdam, clip_gradients_

__all__ = ["DendriteAdam", "clip_gradients_"]
