"""LightningModules that train networks on many tasks, and their evaluation.

They are of ``lightning.pytorch`` and need its Trainer; for one of ``pytorch_lightning`` they are no LightningModules.
"""

from dendrite_zoo.lightning_modules.behavior_cloning import BehaviorCloning
from dendrite_zoo.lightning_modules.checkpoint_io import VerifiedCheckpointIO
from dendrite_zoo.lightning_modules.continual import ContinualClassifier
from dendrite_zoo.lightning_modules.evaluation import evaluate_contexts
from dendrite_zoo.lightning_modules.multi_task import MultiTaskClassifier
from dendrite_zoo.lightning_modules.replay import ReplayClassifier
from dendrite_zoo.lightning_modules.sac import MultiTaskSAC

__all__ = [
    "BehaviorCloning",
    "ContinualClassifier",
    "MultiTaskClassifier",
    "MultiTaskSAC",
    "ReplayClassifier",
    "VerifiedCheckpointIO",
    "evaluate_contexts",
]
