"""Meta-World for multi-task policies: environments, goals, experts. Nothing here knows Lightning.

Environments need an extra, ``pip install 'dendrite-zoo[metaworld]'``; importing this package does not.
"""

from dendrite_zoo.rl.collection import Disturbance, collect_demonstrations
from dendrite_zoo.rl.demonstrations import Demonstrations
from dendrite_zoo.rl.environments import Step, TaskEnvironments
from dendrite_zoo.rl.evaluation import GoalEvaluation, SuccessReport, evaluate_policy
from dendrite_zoo.rl.metaworld.goals import Goal, Split, goals
from dendrite_zoo.rl.metaworld.tasks import ACTION_SIZE, MAX_STEPS, MT10, MT50, OBSERVATION_SIZE, task_names

__all__ = [
    "ACTION_SIZE",
    "MAX_STEPS",
    "MT10",
    "MT50",
    "OBSERVATION_SIZE",
    "Demonstrations",
    "Disturbance",
    "Goal",
    "GoalEvaluation",
    "Split",
    "Step",
    "SuccessReport",
    "TaskEnvironments",
    "collect_demonstrations",
    "evaluate_policy",
    "goals",
    "task_names",
]
