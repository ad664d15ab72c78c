"""Lightning callbacks for models that learn one task after another, ours or a stranger's.

`HubPublisher` and `SuccessLogger` are imported when they are first used: they need the Hub and the environments.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dendrite_zoo.callbacks.elastic_weight_consolidation import ElasticWeightConsolidation
from dendrite_zoo.callbacks.forgetting import ForgettingLogger
from dendrite_zoo.callbacks.run_recorder import RunRecorder
from dendrite_zoo.callbacks.sparsity import SparsityLogger
from dendrite_zoo.callbacks.subnetworks import SubnetworkLogger
from dendrite_zoo.callbacks.synaptic_intelligence import SynapticIntelligence

if TYPE_CHECKING:
    from dendrite_zoo.callbacks.publisher import HubPublisher
    from dendrite_zoo.callbacks.success import SuccessLogger

__all__ = [
    "ElasticWeightConsolidation",
    "ForgettingLogger",
    "HubPublisher",
    "RunRecorder",
    "SparsityLogger",
    "SubnetworkLogger",
    "SuccessLogger",
    "SynapticIntelligence",
]

_LATE = {"HubPublisher": "publisher", "SuccessLogger": "success"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
