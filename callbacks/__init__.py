"""Lightning callbacks for models that learn one task after another, ours or a stranger's."""

from dendrite_zoo.callbacks.consolidation import ElasticWeightConsolidation, SynapticIntelligence
from dendrite_zoo.callbacks.forgetting import ForgettingLogger
from dendrite_zoo.callbacks.publisher import HubPublisher
from dendrite_zoo.callbacks.sparsity import SparsityLogger
from dendrite_zoo.callbacks.subnetworks import SubnetworkLogger
from dendrite_zoo.callbacks.success import SuccessLogger

__all__ = [
    "ElasticWeightConsolidation",
    "ForgettingLogger",
    "HubPublisher",
    "SparsityLogger",
    "SubnetworkLogger",
    "SuccessLogger",
    "SynapticIntelligence",
]
