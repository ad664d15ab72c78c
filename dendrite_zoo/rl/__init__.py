"""Meta-World for multi-task policies: environments, goals, experts. Nothing here knows Lightning.

Environments need an extra, ``pip install 'dendrite-zoo[metaworld]'``; importing this package does not.
"""

from dendrite_zoo.rl.collection import *
from dendrite_zoo.rl.demonstrations import *
from dendrite_zoo.rl.environments import *
from dendrite_zoo.rl.evaluation import *
from dendrite_zoo.rl.metaworld.goals import *
from dendrite_zoo.rl.metaworld.tasks import *
