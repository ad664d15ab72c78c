"""Pretrained models as files: the registry, and what models inherit to be saved, loaded and published.

Importing it needs no network and no Hub client; both are used where something is fetched or sent.
"""

from dendrite_zoo.hub.model import HubModel, build, full_config, register_model

__all__ = ["HubModel", "build", "full_config", "register_model"]
