"""LightningModules that train networks on many tasks, and their evaluation."""

from dendrite_zoo.lightning_modules.continual import ContinualClassifier
from dendrite_zoo.lightning_modules.evaluation import evaluate_contexts

__all__ = ["ContinualClassifier", "evaluate_contexts"]
