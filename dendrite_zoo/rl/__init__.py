"""Environments as tasks for multi-task policies, Meta-World's among them. Nothing here knows Lightning.

Meta-World needs an extra, ``pip install 'dendrite-zoo[metaworld]'``; other environments, and importing this package, do
not.
"""

from dendrite_zoo.rl.acting import *
from dendrite_zoo.rl.collection import *
from dendrite_zoo.rl.demonstrations import *
from dendrite_zoo.rl.environments import *
from dendrite_zoo.rl.evaluation import *
from dendrite_zoo.rl.exploration import *
from dendrite_zoo.rl.metaworld.goals import *
from dendrite_zoo.rl.metaworld.tasks import *
from dendrite_zoo.rl.recording import *
from dendrite_zoo.rl.spec import *
from dendrite_zoo.rl.task_list import *
from dendrite_zoo.rl.transitions import *
