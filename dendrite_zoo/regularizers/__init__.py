"""Consolidation: what keeps the weights that earlier tasks need. Plain PyTorch; the callbacks stand elsewhere."""

from dendrite_zoo.regularizers.elastic import *
from dendrite_zoo.regularizers.quadratic import *
from dendrite_zoo.regularizers.synaptic_intelligence import *
