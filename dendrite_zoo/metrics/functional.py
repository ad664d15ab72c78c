"""Pure functions of the accuracy matrix, under the path that users import them from."""

from dendrite_zoo.functional.accuracy_matrix import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forgetting_per_task,
    forward_transfer,
    learned_part,
    learning_accuracy,
)
from dendrite_zoo.functional.sparsity import activation_sparsity, dead_units, duty_cycle_entropy, weight_sparsity

__all__ = [
    "activation_sparsity",
    "average_accuracy",
    "backward_transfer",
    "dead_units",
    "duty_cycle_entropy",
    "forgetting",
    "forgetting_per_task",
    "forward_transfer",
    "learned_part",
    "learning_accuracy",
    "weight_sparsity",
]
