"""Models: networks that load from, and are published to, the Hugging Face Hub."""

from dendrite_zoo.models.classifier import ActiveDendriteClassifier
from dendrite_zoo.models.config import MLPConfig
from dendrite_zoo.models.critic import TwinCritic
from dendrite_zoo.models.loading import load
from dendrite_zoo.models.mlp import ActiveDendriteMLP
from dendrite_zoo.models.policy import ActiveDendritePolicy
from dendrite_zoo.models.xdg import XdGClassifier

__all__ = [
    "ActiveDendriteClassifier",
    "ActiveDendriteMLP",
    "ActiveDendritePolicy",
    "MLPConfig",
    "TwinCritic",
    "XdGClassifier",
    "load",
]
