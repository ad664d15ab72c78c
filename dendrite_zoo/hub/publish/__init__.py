"""Publishing a model with its card."""

from dendrite_zoo.hub.publish.release import Release
from dendrite_zoo.hub.publish.upload import publish, published

__all__ = ["Release", "publish", "published"]
