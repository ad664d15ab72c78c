"""Models: networks that load from, and are published to, the Hugging Face Hub."""

from dendrite_zoo.models.adapters import *
from dendrite_zoo.models.classifier import *
from dendrite_zoo.models.config import *
from dendrite_zoo.models.critic import *
from dendrite_zoo.models.loading import *
from dendrite_zoo.models.mlp import *
from dendrite_zoo.models.policy import *
from dendrite_zoo.models.ridge import *
from dendrite_zoo.models.xdg import *
