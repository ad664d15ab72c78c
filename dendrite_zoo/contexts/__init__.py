"""Where a context comes from: a task id, the mean input of a task, a discriminant, or clusters of batches."""

from dendrite_zoo.contexts.base import *
from dendrite_zoo.contexts.clustering import *
from dendrite_zoo.contexts.hotelling import *
from dendrite_zoo.contexts.one_hot import *
from dendrite_zoo.contexts.prototype import *
from dendrite_zoo.contexts.ridge import *
