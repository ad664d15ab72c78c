"""LightningModules that train networks on many tasks."""

from dendrite_zoo.lightning_modules.continual import ContinualClassifier

__all__ = ["ContinualClassifier"]
