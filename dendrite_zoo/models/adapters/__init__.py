"""Dendrites on a network of anybody's: gates of each task on its channels, features of its stages, a head."""

from dendrite_zoo.models.adapters.adding import *
from dendrite_zoo.models.adapters.builders import *
from dendrite_zoo.models.adapters.model import *
