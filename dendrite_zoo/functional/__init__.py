"""The equations, as pure tensor functions: dendrites, k-winners, contexts, the matrix, discriminants, sparsity, SAC."""

from dendrite_zoo.functional.accuracy_matrix import *
from dendrite_zoo.functional.bootstrap import *
from dendrite_zoo.functional.context import *
from dendrite_zoo.functional.dendrites import *
from dendrite_zoo.functional.normalization import *
from dendrite_zoo.functional.ridge import *
from dendrite_zoo.functional.sparsity import *
from dendrite_zoo.functional.subnetworks import *
from dendrite_zoo.functional.success_curve import *
from dendrite_zoo.functional.summary import *
