"""Pure functions over the accuracy matrix and over activations, and torchmetrics around them."""

from dendrite_zoo.metrics.accuracy import (
    AccuracyMatrix,
    AverageAccuracy,
    BackwardTransfer,
    Forgetting,
    ForwardTransfer,
    LearningAccuracy,
    TaskAccuracy,
)
from dendrite_zoo.metrics.bootstrap import bootstrap_interval
from dendrite_zoo.metrics.functional import (
    activation_sparsity,
    average_accuracy,
    backward_transfer,
    dead_units,
    duty_cycle_entropy,
    forgetting,
    forgetting_per_task,
    forward_transfer,
    learned_part,
    learning_accuracy,
    weight_sparsity,
)
from dendrite_zoo.metrics.subnetworks import task_overlap, unit_order
from dendrite_zoo.metrics.summary import Figure, summarize

__all__ = [
    "AccuracyMatrix",
    "AverageAccuracy",
    "BackwardTransfer",
    "Figure",
    "Forgetting",
    "ForwardTransfer",
    "LearningAccuracy",
    "TaskAccuracy",
    "activation_sparsity",
    "average_accuracy",
    "backward_transfer",
    "bootstrap_interval",
    "dead_units",
    "duty_cycle_entropy",
    "forgetting",
    "forgetting_per_task",
    "forward_transfer",
    "learned_part",
    "learning_accuracy",
    "summarize",
    "task_overlap",
    "unit_order",
    "weight_sparsity",
]
