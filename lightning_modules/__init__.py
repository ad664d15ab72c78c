"""LightningModules that train networks on many tasks, and their evaluation."""

from dendrite_zoo.lightning_modules.continual import ContinualClassifier
from dendrite_zoo.lightning_modules.evaluation import evaluate_contexts
from dendrite_zoo.lightning_modules.replay import ReplayClassifier

__all__ = ["ContinualClassifier", "ReplayClassifier", "evaluate_contexts"]
