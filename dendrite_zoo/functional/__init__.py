"""The equations, as pure tensor functions: dendrites, k-winners, contexts, the accuracy matrix, sparsity, SAC."""

from dendrite_zoo.functional.accuracy_matrix import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forgetting_per_task,
    forward_transfer,
    learned_part,
    learning_accuracy,
)
from dendrite_zoo.functional.context import Context, distinct_contexts
from dendrite_zoo.functional.dendrites import (
    GATES,
    Gate,
    apply_gate,
    segment_activations,
    select_winners,
    winning_activations,
    winning_segments,
)
from dendrite_zoo.functional.sparsity import activation_sparsity, dead_units, duty_cycle_entropy, weight_sparsity
from dendrite_zoo.functional.winners import k_winners

__all__ = [
    "GATES",
    "Context",
    "Gate",
    "activation_sparsity",
    "apply_gate",
    "average_accuracy",
    "backward_transfer",
    "dead_units",
    "distinct_contexts",
    "duty_cycle_entropy",
    "forgetting",
    "forgetting_per_task",
    "forward_transfer",
    "k_winners",
    "learned_part",
    "learning_accuracy",
    "segment_activations",
    "select_winners",
    "weight_sparsity",
    "winning_activations",
    "winning_segments",
]
