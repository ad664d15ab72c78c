"""Consolidation: penalties that protect the weights which earlier tasks need. Plain PyTorch, without Lightning."""

from dendrite_zoo.regularizers.elastic import *
from dendrite_zoo.regularizers.fisher import *
from dendrite_zoo.regularizers.quadratic import *
from dendrite_zoo.regularizers.synaptic_intelligence import *
