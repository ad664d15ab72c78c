"""Pure functions of the accuracy matrix and of activations, under the path that users import them from."""

from dendrite_zoo.functional.accuracy_matrix import *
from dendrite_zoo.functional.bootstrap import *
from dendrite_zoo.functional.sparsity import *
from dendrite_zoo.functional.subnetworks import *
from dendrite_zoo.functional.success_curve import *
from dendrite_zoo.functional.summary import *
