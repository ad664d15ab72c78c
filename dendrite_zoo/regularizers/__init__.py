"""Consolidation: what keeps the weights that earlier tasks need. Plain PyTorch; the callbacks stand elsewhere."""

from dendrite_zoo.regularizers.elastic import ElasticWeightConsolidation, fisher_diagonal
from dendrite_zoo.regularizers.quadratic import QuadraticPenalty, select_parameters
from dendrite_zoo.regularizers.synaptic_intelligence import SynapticIntelligence

__all__ = [
    "ElasticWeightConsolidation",
    "QuadraticPenalty",
    "SynapticIntelligence",
    "fisher_diagonal",
    "select_parameters",
]
